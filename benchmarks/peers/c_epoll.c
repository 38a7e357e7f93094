/* The chat room in C, on epoll: the yardstick.
 *
 * One thread waits in epoll_wait(), level-triggered. In a turn it reads at most READ_SIZE bytes
 * from each client that is ready, and all lines said in the turn form one log. At the end of the
 * turn everyone who said nothing gets that log with one send(); who spoke gets it without its own
 * part. What the kernel does not take waits in the client's out-buffer and goes out on EPOLLOUT.
 *
 * With `--flush message` each line goes out alone, at once.
 *
 *     cc -O2 -o c_epoll c_epoll.c && ./c_epoll --port 8080
 *
 * The wire and its bounds are those of stages/README.md, and so are the names of the constants.
 * Nothing is printed. SIGTERM ends it by its default action.
 */

#define _GNU_SOURCE /* accept4() */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BACKLOG = 1024,        /* connections that the kernel completes before we accept() */
    ACCEPTS = 64,          /* newcomers per turn */
    ACCEPT_PAUSE = 200,    /* milliseconds without accept() after it failed for want of something */
    EVENTS = 1024,         /* clients per turn */
    MAX_LINE = 65536,      /* bytes before the "\n" of a legal line */
    READ_SIZE = 16384,     /* bytes of one client's input per turn */
    SEND_COST = 32,        /* bytes of that turn which one send() of a line alone uses up */
    LOG_SIZE = 1 << 16,    /* bytes said after which everyone is told before the next one speaks */
    HIGH_WATER = 1 << 20,  /* bytes that may wait for a client; with more it is a slow reader */
    LOW_WATER = 1 << 16,   /* bytes waiting for a client above which it is not read from */
    NOBODY = -1,           /* no part of the log */
};

struct buffer {
    char *data;
    size_t size, capacity;
};

struct client {
    int fd;
    uint32_t interest;     /* what epoll is asked about */
    int first_part;        /* of the log, as an index of `parts`; NOBODY: it has said nothing */
    int last_part;
    int lost;              /* errno of the send() that failed: it takes no more */
    uint32_t place;        /* in `clients` */
    bool pending;          /* whole lines in the in-buffer: its turn ended before they did */
    bool queued;           /* in `requeued` */
    bool eof;              /* it has sent its last; it leaves when nothing waits for it */
    bool dropped;          /* it leaves at the end of the turn, whatever waits for it */
    bool ending;           /* in `endings` */
    uint8_t prefix_size;
    char prefix[34];       /* "('255.255.255.255', 65535) dice: " */
    struct buffer in;      /* received, not yet a whole line */
    struct buffer out;     /* for it, not yet taken by the kernel */
    size_t out_start;      /* up to here the kernel has taken it */
};

struct list {
    struct client **items;
    size_t size, capacity;
};

/* What one client has said in a row in this turn. */
struct part {
    struct client *client;
    size_t start, end;
    int next;              /* part of the same client */
};

static int epoll, listener;
static bool each_message;      /* --flush message */
static bool accept_paused;
static struct list clients;
static struct list requeued;   /* those with pending lines that may be handled */
static struct list endings;    /* those to look at when everyone has been told */
static struct buffer said;     /* the log of this turn */
static struct buffer others;   /* the log without the parts of one client */
static struct part *parts;
static size_t parts_size, parts_capacity;

static void fail(const char *what)
{
    fprintf(stderr, "c_epoll: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *grown(void *data, size_t *capacity, size_t needed, size_t item)
{
    size_t size = *capacity ? *capacity : 64;
    while (size < needed)
        size *= 2;
    data = realloc(data, size * item);
    if (!data)
        fail("realloc");
    *capacity = size;
    return data;
}

static inline char *reserve(struct buffer *buffer, size_t more)
{
    if (buffer->size + more > buffer->capacity)
        buffer->data = grown(buffer->data, &buffer->capacity, buffer->size + more, 1);
    return buffer->data + buffer->size;
}

static inline void append(struct buffer *buffer, const char *data, size_t size)
{
    if (size) { /* nothing may come with a null pointer, which memcpy() must not be given */
        memcpy(reserve(buffer, size), data, size);
        buffer->size += size;
    }
}

/* A client that is idle costs no buffer. */
static void release(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){0};
}

static void push(struct list *list, struct client *client)
{
    if (list->size == list->capacity)
        list->items = grown(list->items, &list->capacity, list->size + 1, sizeof *list->items);
    list->items[list->size++] = client;
}

/* ---- Text ---- */

static bool is_ascii(const char *data, size_t size)
{
    uint64_t bits = 0, word;
    for (; size >= sizeof word; data += sizeof word, size -= sizeof word) {
        memcpy(&word, data, sizeof word);
        bits |= word;
    }
    for (; size; size--)
        bits |= (unsigned char)*data++;
    return !(bits & 0x8080808080808080u);
}

/* How many bytes the first character has; negative: so many bytes are the beginning of one that
 * does not go on as it must. Surrogates, overlong forms and what lies above U+10FFFF are none. */
static int first_character(const unsigned char *text, size_t size)
{
    unsigned char lead = text[0], low = 0x80, high = 0xBF;
    int length;

    if (lead < 0x80)
        return 1;
    if (lead >= 0xC2 && lead <= 0xDF) {
        length = 2;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
        length = 3;
        low = lead == 0xE0 ? 0xA0 : low;
        high = lead == 0xED ? 0x9F : high;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
        length = 4;
        low = lead == 0xF0 ? 0x90 : low;
        high = lead == 0xF4 ? 0x8F : high;
    } else {
        return -1;
    }
    for (int i = 1; i < length; i++) {
        if ((size_t)i == size || text[i] < low || text[i] > high)
            return -i;
        low = 0x80, high = 0xBF;
    }
    return length;
}

/* Bytes that are not UTF-8 become U+FFFD, as often as Python's "replace" has it. */
static void append_text(struct buffer *buffer, const char *text, size_t size)
{
    if (is_ascii(text, size)) {
        append(buffer, text, size);
        return;
    }
    while (size) {
        int length = first_character((const unsigned char *)text, size);
        if (length > 0)
            append(buffer, text, length);
        else
            append(buffer, "\xEF\xBF\xBD", 3);
        length = abs(length);
        text += length;
        size -= length;
    }
}

/* ---- One client ---- */

static inline size_t waiting(const struct client *client)
{
    return client->out.size - client->out_start;
}

/* Ask epoll about what can be done now and nothing else: level-triggered, it would report the rest
 * again and again. EPOLLERR and EPOLLHUP come unasked. */
static void set_interest(struct client *client)
{
    bool may_read = waiting(client) <= LOW_WATER && !client->eof;
    uint32_t wanted = (may_read ? EPOLLIN : 0) | (waiting(client) ? EPOLLOUT : 0);

    if (wanted != client->interest) {
        struct epoll_event event = {.events = wanted, .data.ptr = client};
        if (epoll_ctl(epoll, EPOLL_CTL_MOD, client->fd, &event) < 0)
            fail("epoll_ctl");
        client->interest = wanted;
    }
    if (may_read && client->pending && !client->queued) {
        client->queued = true;
        push(&requeued, client);
    }
}

/* Nobody is freed before the turn is over: an event of this turn, or the log, may point to it. */
static void end_with_turn(struct client *client)
{
    if (!client->ending) {
        client->ending = true;
        push(&endings, client);
    }
}

static void drop(struct client *client)
{
    client->dropped = true;
    end_with_turn(client);
}

/* How many bytes are off our hands. */
static size_t try_send(struct client *client, const char *data, size_t size)
{
    ssize_t sent = send(client->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (sent >= 0)
        return sent;
    if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS || errno == ENOMEM)
        return 0;
    /* EPIPE: it has closed; ECONNRESET: it has reset the connection. Lines that it sent before may
     * still wait in the receive buffer, so only reading ends it. The error is told once: a recv()
     * after this returns those lines, and then 0 in either case. */
    client->lost = errno;
    if (client->eof)
        end_with_turn(client);
    return size;
}

static void flush(struct client *client)
{
    client->out_start += try_send(client, client->out.data + client->out_start, waiting(client));
    if (client->lost || !waiting(client)) {
        release(&client->out);
        client->out_start = 0;
        if (client->eof)
            end_with_turn(client);
    }
    set_interest(client);
}

/* Send now what the kernel takes now; keep the rest, in order, once. */
static inline void give(struct client *client, const char *data, size_t size)
{
    if (client->lost || client->dropped || !size)
        return;
    if (!waiting(client)) {
        size_t sent = try_send(client, data, size);
        if (sent == size)
            return;
        data += sent;
        size -= sent;
    }
    if (client->out_start >= waiting(client)) { /* moving the rest costs less than has been sent */
        client->out.size = waiting(client);
        if (client->out.size)
            memmove(client->out.data, client->out.data + client->out_start, client->out.size);
        client->out_start = 0;
    }
    append(&client->out, data, size);
    if (waiting(client) <= HIGH_WATER) {
        set_interest(client);
        return;
    }
    flush(client); /* it may have read since epoll_wait() looked */
    if (waiting(client) > HIGH_WATER)
        drop(client);
}

/* ---- The room ---- */

/* Note that the log has grown by what this client said, from `start` on. */
static void note(struct client *client, size_t start)
{
    if (parts_size && parts[parts_size - 1].client == client) {
        parts[parts_size - 1].end = said.size;
        return;
    }
    if (parts_size == parts_capacity)
        parts = grown(parts, &parts_capacity, parts_size + 1, sizeof *parts);
    parts[parts_size] = (struct part){client, start, said.size, NOBODY};
    if (client->first_part == NOBODY)
        client->first_part = parts_size;
    else
        parts[client->last_part].next = parts_size;
    client->last_part = parts_size++;
}

static void give_without_own(struct client *client)
{
    const struct part *own = &parts[client->first_part];

    if (own->next == NOBODY && own->start == 0) {
        give(client, said.data + own->end, said.size - own->end);
        return;
    }
    if (own->next == NOBODY && own->end == said.size) {
        give(client, said.data, own->start);
        return;
    }
    size_t start = 0;
    others.size = 0;
    for (int index = client->first_part; index != NOBODY; index = parts[index].next) {
        append(&others, said.data + start, parts[index].start - start);
        start = parts[index].end;
    }
    append(&others, said.data + start, said.size - start);
    give(client, others.data, others.size);
}

/* Tell everyone what the others have said. */
static void tell(void)
{
    if (!said.size)
        return;
    for (size_t i = 0; i < clients.size; i++)
        if (clients.items[i]->first_part == NOBODY)
            give(clients.items[i], said.data, said.size);
    for (size_t i = 0; i < parts_size; i++) {
        struct client *client = parts[i].client;
        if (client->first_part == (int)i)
            give_without_own(client);
    }
    for (size_t i = 0; i < parts_size; i++)
        parts[i].client->first_part = NOBODY;
    parts_size = 0;
    said.size = 0;
}

/* One line, without its "\n". */
static void say(struct client *client, const char *line, size_t size)
{
    size_t start = said.size;

    if (size && line[size - 1] == '\r')
        size--;
    if (!size)
        return;
    append(&said, client->prefix, client->prefix_size);
    append_text(&said, line, size);
    append(&said, "\n", 1);
    if (!each_message) {
        note(client, start);
        return;
    }
    for (size_t i = 0; i < clients.size; i++)
        if (clients.items[i] != client)
            give(clients.items[i], said.data, said.size);
    said.size = 0;
}

/* New bytes of a client. Lines are said where they lie; only an unfinished one is copied, and
 * those that would take too long to pass on in this turn. */
static void handle(struct client *client, const char *data, size_t size)
{
    size_t cost = 0;
    const char *end;

    while ((end = memchr(data, '\n', size)) && cost < READ_SIZE) {
        size_t length = end - data;
        if (client->in.size + length > MAX_LINE) {
            drop(client);
            return;
        }
        if (client->in.size) {
            append(&client->in, data, length);
            say(client, client->in.data, client->in.size);
            release(&client->in);
        } else {
            say(client, data, length);
        }
        cost += length + 1 + (each_message ? SEND_COST * (clients.size - 1) : 0);
        data += length + 1;
        size -= length + 1;
    }
    append(&client->in, data, size);
    client->pending = end != NULL;
    if (client->pending)
        set_interest(client);
    else if (client->in.size > MAX_LINE)
        drop(client);
}

/* The lines that an earlier turn had no time for. */
static void resume(struct client *client)
{
    struct buffer held = client->in;

    client->in = (struct buffer){0};
    client->pending = false;
    handle(client, held.data, held.size);
    free(held.data);
}

static void receive(struct client *client)
{
    static char data[READ_SIZE];
    ssize_t size = recv(client->fd, data, sizeof data, MSG_DONTWAIT);

    if (size > 0) {
        handle(client, data, size);
        return;
    }
    if (size < 0) {
        if (errno != EAGAIN && errno != EINTR)
            drop(client); /* ECONNRESET, ETIMEDOUT: an unfinished line stays unsaid */
        return;
    }
    client->eof = true;
    if (client->lost != ECONNRESET)
        say(client, client->in.data, client->in.size);
    release(&client->in);
    set_interest(client); /* an EOF stays readable: asked about, it would spin */
    end_with_turn(client);
}

static bool may_handle(const struct client *client)
{
    return waiting(client) <= LOW_WATER && !client->eof && !client->dropped;
}

static void accept_newcomers(void)
{
    for (int i = 0; i < ACCEPTS; i++) {
        struct sockaddr_in address;
        socklen_t size = sizeof address;
        int fd = accept4(listener, (struct sockaddr *)&address, &size, SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN)
                return;
            if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM)
                continue; /* an error of the newcomer's connection, accept(2) */
            /* The newcomer stays in the backlog and the listener stays readable: without a pause
             * epoll_wait() would return at once, for nothing, for ever. */
            accept_paused = true;
            epoll_ctl(epoll, EPOLL_CTL_DEL, listener, NULL);
            return;
        }
        struct client *client = calloc(1, sizeof *client);
        if (!client)
            fail("calloc");
        char host[INET_ADDRSTRLEN];
        inet_ntop(AF_INET, &address.sin_addr, host, sizeof host);
        client->prefix_size = snprintf(client->prefix, sizeof client->prefix,
                                       "('%s', %u) dice: ", host, ntohs(address.sin_port));
        client->fd = fd;
        client->first_part = NOBODY;
        client->interest = EPOLLIN;
        client->place = clients.size;
        push(&clients, client);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
            drop(client); /* ENOSPC, epoll(7): /proc/sys/fs/epoll/max_user_watches */
    }
}

static void resume_accept(void)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};

    accept_paused = false;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) < 0)
        fail("epoll_ctl");
}

static void disconnect(struct client *client)
{
    struct client *last = clients.items[--clients.size];

    clients.items[client->place] = last;
    last->place = client->place;
    for (size_t i = 0; client->queued && i < requeued.size; i++)
        if (requeued.items[i] == client) {
            requeued.items[i] = requeued.items[--requeued.size];
            break;
        }
    close(client->fd); /* epoll forgets it by itself: nobody has duplicated it */
    free(client->in.data);
    free(client->out.data);
    free(client);
}

/* Wait, then give everyone who is ready one turn. */
static void turn(void)
{
    static struct epoll_event events[EVENTS];
    static struct list again;
    bool newcomers = false;
    int timeout = requeued.size ? 0 : accept_paused ? ACCEPT_PAUSE : -1;
    int count = epoll_wait(epoll, events, EVENTS, timeout);

    if (count < 0 && errno != EINTR)
        fail("epoll_wait");
    struct list empty = again;
    again = requeued;
    requeued = empty;
    for (int i = 0; i < count; i++) {
        struct client *client = events[i].data.ptr;
        uint32_t ready = events[i].events;
        if (!client) {
            newcomers = true;
            continue;
        }
        if (ready & (EPOLLOUT | EPOLLERR | EPOLLHUP) && waiting(client) && !client->lost)
            flush(client);
        if (ready & (EPOLLIN | EPOLLERR | EPOLLHUP) && may_handle(client) && !client->pending)
            receive(client);
        if (said.size >= LOG_SIZE)
            tell();
    }
    for (size_t i = 0; i < again.size; i++) {
        struct client *client = again.items[i];
        client->queued = false;
        if (may_handle(client))
            resume(client);
    }
    again.size = 0;
    tell();
    bool left = false;
    for (size_t i = 0; i < endings.size; i++) {
        struct client *client = endings.items[i];
        client->ending = false;
        if (client->dropped || client->lost || !waiting(client)) {
            disconnect(client);
            left = true;
        }
    }
    endings.size = 0;
    if (newcomers) /* now, so that they do not hear what was said before they came */
        accept_newcomers();
    if (accept_paused && (left || count == 0))
        resume_accept();
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void listen_on(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0)
        fail("socket");
    /* What accept() returns inherits the last two from the listener, on Linux. */
    if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        setsockopt(listener, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) < 0 ||
        setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        fail("setsockopt");
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, BACKLOG) < 0)
        fail("cannot listen");
}

static void usage(void)
{
    fputs("usage: c_epoll --port PORT [--flush turn|message]\n", stderr);
    exit(2);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},
        {"flush", required_argument, NULL, 'f'},
        {0},
    };
    unsigned long port = 0;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'p')
            port = strtoul(optarg, NULL, 10);
        else if (option == 'f' && strcmp(optarg, "message") == 0)
            each_message = true;
        else if (option == 'f' && strcmp(optarg, "turn") == 0)
            each_message = false;
        else
            usage();
    }
    if (port == 0 || port > UINT16_MAX || optind != argc)
        usage();
    raise_descriptor_limit();
    listen_on(port);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        fail("epoll_create1");
    resume_accept();
    for (;;)
        turn();
}
