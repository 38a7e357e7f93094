/* The chat room of the C servers: clients, lines, the batch of a turn, and who gets what of it.
 *
 * One thread. In a turn it handles what has come, at most READ_SIZE bytes of each client at a time,
 * and all lines said in the turn form one batch. At the end of the turn everyone gets it with
 * one send, without what is its own. What the kernel does not take waits in the client's
 * out-buffer, and nobody waits for that client.
 *
 * With `--looks N` a turn in which several clients are ready asks the kernel up to N times more who
 * is ready by now, before the batch goes out. With `--flush message` each line goes out at once.
 *
 * The wire and its bounds are those of stages/README.md, and so are the names of the constants.
 * Nothing is printed. SIGTERM ends it by its default action.
 *
 * How one waits, receives and sends is up to the back end, c_epoll.c or c_uring.c. It defines NAME
 * and `struct driver`, includes this file, and defines what is declared below.
 */

#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BACKLOG = 1024,        /* connections that the kernel completes before we accept() */
    ACCEPTS = 64,          /* newcomers per turn */
    ACCEPT_PAUSE = 200,    /* milliseconds without accept() after it failed for want of something */
    CROWDED = 8,           /* turns after one in which several were ready that still look again */
    MAX_LINE = 65536,      /* bytes before the "\n" of a legal line */
    READ_SIZE = 16384,     /* bytes of one client's input that are handled at a time */
    SEND_COST = 32,        /* bytes of these which one send of a line alone uses up */
    BATCH_SIZE = 1 << 16,  /* bytes said after which everyone is told before the next line */
    PARTS = 1024,          /* of the batch, after which they are, too */
    HIGH_WATER = 1 << 20,  /* bytes that may wait for a client; with more it is a slow reader */
    LOW_WATER = 1 << 16,   /* bytes waiting for a client above which it is not read from */
};

struct client {
    int fd;
    int lost;              /* errno of the send that failed: it takes no more */
    bool in_batch;         /* some of it is its own */
    bool pending;          /* whole lines in the in-buffer: its turn ended before they did */
    bool queued;           /* in `ready` */
    bool eof;              /* it has sent its last; it leaves when nothing waits for it */
    bool dropped;          /* it leaves at the end of the turn, whatever waits for it */
    bool ending;           /* in `endings` */
    uint8_t prefix_size;
    char prefix[34];       /* "('255.255.255.255', 65535) dice: " */
    struct buffer in;      /* received, not yet a whole line */
    struct buffer out;     /* for it, not yet taken by the kernel: it stays where it is, and */
    struct buffer more;    /* what comes after it gathers here */
    size_t sent;           /* of `out`, taken by the kernel */
    TAILQ_ENTRY(client) everyone, turn, end;
    struct driver driver;
};

/* What one client has said in a row in this turn, up to here in the batch. */
struct part {
    struct client *client;
    size_t end;
};

static int listener;
static unsigned looks;         /* --looks */
static bool each_message;      /* --flush message */
static bool accept_paused;
static bool newcomers;         /* somebody waits in the backlog */
static TAILQ_HEAD(list, client) clients = TAILQ_HEAD_INITIALIZER(clients);
static struct list ready = TAILQ_HEAD_INITIALIZER(ready);     /* they have something to handle */
static struct list endings = TAILQ_HEAD_INITIALIZER(endings); /* looked at after the batch is out */
static size_t clients_size, parts_size;
static struct buffer batch;    /* what is said in this turn */
static struct part parts[PARTS];

/* ---- The back end ---- */

static void set_up(void);
/* Hand over what was given, then wait: make_ready() those who have something to handle, flush()
 * where the kernel takes more. Milliseconds, -1: any. False: nothing has happened. */
static bool wait_for(int timeout);
/* Ask the kernel to set `newcomers`, once; for what can be done for a client, and nothing else. */
static void ask_for_newcomers(void);
static void set_interest(struct client *client);
/* Handle what has come from it; end_input() when that was all. */
static void receive(struct client *client);
/* Send what stays where it is until settle() returns; or what is in the out-buffer. */
static void give(struct client *client, const char *data, size_t size);
static void send_waiting(struct client *client);
/* Until what was given is taken, or in the out-buffers. */
static void settle(void);
/* Close its connection, and free it when nothing refers to it. */
static void release_client(struct client *client);

/* ---- What waits for a client ---- */

static inline size_t waiting(const struct client *client)
{
    return client->out.size - client->sent + client->more.size;
}

/* Nobody is freed before the turn is over: an event of this turn, or the batch, may point to it. */
static void end_with_turn(struct client *client)
{
    if (!client->ending) {
        client->ending = true;
        TAILQ_INSERT_TAIL(&endings, client, end);
    }
}

static void drop(struct client *client)
{
    client->dropped = true;
    end_with_turn(client);
}

/* A send has failed. EPIPE: it has closed; ECONNRESET: it has reset the connection. Lines that it
 * sent before may still wait in the receive buffer, so only reading ends it. The error is told
 * once: a receive after this returns those lines, and then 0 in either case. */
static void lose(struct client *client, int error)
{
    if (error == EAGAIN || error == EINTR || error == ENOBUFS || error == ENOMEM)
        return;
    client->lost = error;
    client->sent = 0;
    release(&client->out);
    release(&client->more);
}

/* Whether there is something to send, at out.data + sent. */
static bool refill(struct client *client)
{
    if (client->sent == client->out.size) {
        free(client->out.data);
        client->out = take(&client->more);
        client->sent = 0;
    }
    return client->out.size;
}

static void flush(struct client *client)
{
    send_waiting(client);
    if (client->eof && (client->lost || !waiting(client)))
        end_with_turn(client);
    set_interest(client);
}

/* Send this after all that waits. */
static void keep(struct client *client, const char *data, size_t size)
{
    append(client->out.size ? &client->more : &client->out, data, size);
    flush(client); /* it may have read since it was seen to be full */
    if (waiting(client) > HIGH_WATER)
        drop(client);
}

/* ---- The room ---- */

/* The batch has grown by what this client said. */
static void note(struct client *client)
{
    if (!parts_size || parts[parts_size - 1].client != client)
        parts[parts_size++].client = client;
    parts[parts_size - 1].end = batch.size;
    client->in_batch = true;
}

static void give_without_own(struct client *client)
{
    struct buffer others = {0};
    size_t start = 0;

    for (size_t i = 0; i < parts_size; start = parts[i++].end)
        if (parts[i].client != client)
            append(&others, batch.data + start, parts[i].end - start);
    if (others.size && !client->lost && !client->dropped)
        keep(client, others.data, others.size);
    release(&others);
}

/* Tell everyone what the others have said. */
static void tell(void)
{
    struct client *client;

    if (!batch.size)
        return;
    TAILQ_FOREACH(client, &clients, everyone)
        if (!client->in_batch)
            give(client, batch.data, batch.size);
    for (size_t i = 0; i < parts_size; i++) {
        if (parts[i].client->in_batch)
            give_without_own(parts[i].client);
        parts[i].client->in_batch = false;
    }
    parts_size = 0;
    batch.size = 0;
}

/* One line, without its "\n". */
static void say(struct client *client, const char *line, size_t size)
{
    if (size && line[size - 1] == '\r')
        size--;
    if (!size)
        return;
    append(&batch, client->prefix, client->prefix_size);
    append_text(&batch, line, size);
    append(&batch, "\n", 1);
    note(client);
    if (each_message || batch.size >= BATCH_SIZE || parts_size == PARTS) {
        tell();
        settle();
    }
}

/* New bytes of a client. Lines are said where they lie; only an unfinished one is copied, and
 * those that would take too long to pass on in this turn. */
static void handle(struct client *client, const char *data, size_t size)
{
    size_t cost = 0;
    const char *end;

    while ((end = memchr(data, '\n', size)) && cost < READ_SIZE) {
        size_t length = end - data;
        if (client->in.size + length > MAX_LINE)
            return drop(client);
        if (client->in.size) {
            append(&client->in, data, length);
            say(client, client->in.data, client->in.size);
            release(&client->in);
        } else {
            say(client, data, length);
        }
        cost += length + 1 + (each_message ? SEND_COST * (clients_size - 1) : 0);
        data += length + 1;
        size -= length + 1;
    }
    append(&client->in, data, size);
    client->pending = end != NULL;
    if (!client->pending && client->in.size > MAX_LINE)
        drop(client);
}

/* It has closed its side, or the connection has failed: ECONNRESET, ETIMEDOUT. */
static void end_input(struct client *client, int error)
{
    if (error) /* an unfinished line stays unsaid */
        return drop(client);
    client->eof = true;
    if (client->lost != ECONNRESET)
        say(client, client->in.data, client->in.size);
    release(&client->in);
    end_with_turn(client);
}

static bool may_handle(const struct client *client)
{
    return waiting(client) <= LOW_WATER && !client->eof && !client->dropped;
}

/* It gets a turn, as soon as it may have one. */
static void make_ready(struct client *client)
{
    if (may_handle(client) && !client->queued) {
        client->queued = true;
        TAILQ_INSERT_TAIL(&ready, client, turn);
    }
}

/* Give a turn to each of those who have something to handle: how many they were. */
static size_t handle_ready(void)
{
    struct list in_turn = TAILQ_HEAD_INITIALIZER(in_turn);
    struct client *client;
    size_t count = 0;

    TAILQ_CONCAT(&in_turn, &ready, turn);
    for (; (client = TAILQ_FIRST(&in_turn)); count++) {
        TAILQ_REMOVE(&in_turn, client, turn);
        client->queued = false;
        if (!may_handle(client))
            continue;
        if (client->pending) { /* the lines that an earlier turn had no time for */
            struct buffer lines = take(&client->in);
            handle(client, lines.data, lines.size);
            free(lines.data);
        } else {
            receive(client);
        }
        set_interest(client);
    }
    return count;
}

static void disconnect(struct client *client)
{
    TAILQ_REMOVE(&clients, client, everyone);
    clients_size--;
    if (client->queued)
        TAILQ_REMOVE(&ready, client, turn);
    release_client(client);
}

static void free_client(struct client *client)
{
    free(client->in.data);
    free(client->out.data);
    free(client->more.data);
    free(client);
}

static void accept_newcomers(void)
{
    newcomers = false;
    for (int i = 0; i < ACCEPTS; i++) {
        struct sockaddr_in address;
        socklen_t size = sizeof address;
        int fd = accept4(listener, (struct sockaddr *)&address, &size, SOCK_CLOEXEC);
        if (fd < 0 && errno == EAGAIN)
            break;
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
            /* The newcomer stays in the backlog and the listener stays readable: without a pause
             * the wait would return at once, for nothing, for ever. */
            accept_paused = true;
            return;
        }
        if (fd < 0)
            continue; /* an error of the newcomer's connection, accept(2) */
        struct client *client = calloc(1, sizeof *client);
        if (!client)
            fail("calloc");
        char host[INET_ADDRSTRLEN];
        inet_ntop(AF_INET, &address.sin_addr, host, sizeof host);
        client->prefix_size = snprintf(client->prefix, sizeof client->prefix,
                                       "('%s', %u) dice: ", host, ntohs(address.sin_port));
        client->fd = fd;
        TAILQ_INSERT_TAIL(&clients, client, everyone);
        clients_size++;
        set_interest(client);
    }
    ask_for_newcomers();
}

/* Wait, give everyone who is ready a turn, tell everyone. While a batch is being sent, those who
 * get it first answer, and the first answer ends the wait: who looks again gathers the others. */
static void turn(void)
{
    static unsigned crowded; /* turns that will still look again */
    bool woken = wait_for(!TAILQ_EMPTY(&ready) ? 0 : accept_paused ? ACCEPT_PAUSE : -1);
    bool left = false;
    size_t count = handle_ready(), sum = count;

    for (unsigned look = 0; look < looks && count && (crowded || sum > 1); look++) {
        wait_for(0);
        sum += count = handle_ready();
    }
    crowded = sum > 1 ? CROWDED : crowded ? crowded - 1 : 0;
    tell();
    if (!TAILQ_EMPTY(&endings))
        settle();
    for (struct client *client; (client = TAILQ_FIRST(&endings));) {
        TAILQ_REMOVE(&endings, client, end);
        client->ending = false;
        if (client->dropped || client->lost || !waiting(client)) {
            disconnect(client);
            left = true;
        }
    }
    if (newcomers || (accept_paused && (left || !woken))) {
        accept_paused = false;
        accept_newcomers(); /* now, so that they do not hear what was said before they came */
    }
}

/* ---- The process ---- */

static void listen_on(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* What accept() returns inherits the last two from the listener, on Linux. */
    if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        setsockopt(listener, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) < 0 ||
        setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
        bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, BACKLOG) < 0)
        fail("cannot listen");
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},
        {"flush", required_argument, NULL, 'f'},
        {"looks", required_argument, NULL, 'l'},
        {0},
    };
    struct rlimit limit;
    unsigned long port = 0;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'p')
            port = strtoul(optarg, NULL, 10);
        if (option == 'f')
            each_message = strcmp(optarg, "message") == 0;
        if (option == 'l')
            looks = strtoul(optarg, NULL, 10);
    }
    set_up(); /* first of all: without arguments it tells whether the back end can be had */
    if (port == 0 || port > UINT16_MAX) {
        fprintf(stderr, "usage: %s --port PORT [--flush turn|message] [--looks N]\n", NAME);
        return 2;
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    listen_on(port);
    ask_for_newcomers();
    for (;;)
        turn();
}
