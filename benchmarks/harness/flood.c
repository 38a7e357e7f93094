/* A closed-loop flood: the load under which servers are measured. flood.py starts and commands it.
 *
 *     flood HOST PORT CLIENTS SENDERS IN_FLIGHT SIZE DEADLINE SERVER_PID SPIN
 *
 * Of the CLIENTS, who all listen, the first SENDERS speak: each has IN_FLIGHT messages of SIZE
 * bytes under way, and says the next one when all others have heard one. One thread waits in
 * epoll_wait(). In a turn it reads from everyone who is ready, in the order in which the kernel
 * names them, and then says all that has become due, with one send() for each sender. With SPIN it
 * does not sleep while deliveries are under way: to wake it would cost the server time, and the
 * answer would come late.
 *
 * Every delivery is checked: it must be, byte for byte, the line of its sender that this listener
 * has to hear next. Lines are kept as they will be heard, so this is one memcmp(). A line that
 * comes twice, in another order or to its own sender is not that line.
 *
 * It prints {"ready": true} when all are in, and then obeys stdin, a line each. An answer is a line
 * of JSON.
 *     run N      N messages of each sender; and a last one, not measured, to see that nothing more
 *                comes before it
 *     start      until `stop`; no answer
 *     stop       what is under way is heard to its end
 * EOF ends it. Whatever is wrong ends it with one line on stderr and exit status 1.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/tcp.h> /* its struct tcp_info knows tcpi_data_segs_in, Linux 4.6 */
#include <netdb.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    READ_SIZE = 1 << 18,
    EVENTS = 1024,
    NAME_SIZE = 80,
    SUB_BUCKETS = 32, /* of the histogram, in each power of two: values to 3 % */
    BUCKETS = 60 * SUB_BUCKETS,
};

struct client {
    int fd;
    bool in;           /* the server has let it in */
    char name[NAME_SIZE];
    uint32_t *next;    /* by sender: the message that it must hear next */
    char *rest;        /* of a line that has not come to its end */
    size_t rest_size;
};

/* What one of the first clients says. Message n, as others hear it, is in slot n % in_flight. */
struct sender {
    uint32_t sent, heard, goal; /* messages; heard: by all others */
    bool due;
    size_t prefix_size, line_size;
    char *lines;       /* by slot */
    uint32_t *missing; /* by slot: deliveries yet to come */
    double *sent_at;   /* by slot */
};

static int epoll, clients_size, senders_size, in_flight, size;
static double deadline;
static clockid_t server_clock;
static bool spin;
static struct client *clients;
static struct sender *senders;
static int sender_by_port[65536]; /* its index + 1 */
static uint64_t deliveries, under_way, histogram[BUCKETS];
static double now;

static void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static void *zeroed(size_t count, size_t item)
{
    void *data = calloc(count, item);

    if (!data)
        fail("out of memory");
    return data;
}

static double seconds(clockid_t clock)
{
    struct timespec time;

    if (clock_gettime(clock, &time) < 0)
        fail("the server has ended");
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* ---- Latencies, in nanoseconds ---- */

static void count_latency(uint64_t value)
{
    int shift = value < SUB_BUCKETS ? 0 : 63 - __builtin_clzll(value) - 5;

    histogram[shift * SUB_BUCKETS + (value >> shift)]++;
}

static double percentile(double percent)
{
    uint64_t total = 0, seen = 0;

    for (int i = 0; i < BUCKETS; i++)
        total += histogram[i];
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += histogram[i]) && seen >= total * percent / 100) {
            int shift = i < 2 * SUB_BUCKETS ? 0 : i / SUB_BUCKETS - 1;
            return (double)((uint64_t)(i - shift * SUB_BUCKETS) << shift) / 1e9;
        }
    return 0;
}

/* ---- Clients ---- */

static void connect_client(struct client *client, const struct addrinfo *address)
{
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
    } own;
    socklen_t own_size = sizeof own;
    char host[INET6_ADDRSTRLEN];
    int on = 1;

    client->fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0 || connect(client->fd, address->ai_addr, address->ai_addrlen) < 0 ||
        setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
        getsockname(client->fd, &own.any, &own_size) < 0)
        fail("cannot connect: %s", strerror(errno));
    if (own.any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &own.six.sin6_addr, host, sizeof host);
        snprintf(client->name, NAME_SIZE, "('%s', %u, 0, 0)", host, ntohs(own.six.sin6_port));
    } else {
        inet_ntop(AF_INET, &own.four.sin_addr, host, sizeof host);
        snprintf(client->name, NAME_SIZE, "('%s', %u)", host, ntohs(own.four.sin_port));
    }
    client->next = zeroed(senders_size, sizeof *client->next);
    client->rest = zeroed(NAME_SIZE + size, 1);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, client->fd, &event) < 0)
        fail("epoll_ctl: %s", strerror(errno));
}

/* "('127.0.0.1', 52344) dice: " */
static unsigned port_in(const char *line, size_t length)
{
    const char *digit = memchr(line, ',', length);
    unsigned port = 0;

    for (digit = digit ? digit + 2 : line; *digit >= '0' && *digit <= '9'; digit++)
        port = port * 10 + (*digit - '0');
    return port & 0xFFFF;
}

static void prepare(struct sender *sender, const struct client *client)
{
    char prefix[NAME_SIZE + 8];

    sender->prefix_size = snprintf(prefix, sizeof prefix, "%s dice: ", client->name);
    sender->line_size = sender->prefix_size + size;
    sender->lines = zeroed(in_flight, sender->line_size);
    sender->missing = zeroed(in_flight, sizeof *sender->missing);
    sender->sent_at = zeroed(in_flight, sizeof *sender->sent_at);
    for (int slot = 0; slot < in_flight; slot++) {
        char *line = sender->lines + slot * sender->line_size;
        memset(line, '.', sender->line_size);
        memcpy(line, prefix, sender->prefix_size);
        line[sender->line_size - 1] = '\n';
    }
    sender_by_port[port_in(client->name, NAME_SIZE)] = sender - senders + 1;
}

static void wrong(const struct client *client, const char *line, size_t length)
{
    fail("%s heard \"%.*s\", which was not to come", client->name,
         length < 100 ? (int)length - 1 : 100, line);
}

typedef void handler(struct client *client, const char *line, size_t length);

/* Read what has come, and handle each line of it that is whole. */
static void receive(struct client *client, handler *handle)
{
    static char data[READ_SIZE + NAME_SIZE + (1 << 16)];
    const char *line = data, *newline;

    memcpy(data, client->rest, client->rest_size);
    ssize_t count = recv(client->fd, data + client->rest_size, READ_SIZE, MSG_DONTWAIT);
    if (count == 0)
        fail("%s was closed by the server", client->name);
    if (count < 0 && errno != EAGAIN && errno != EINTR)
        fail("%s: %s", client->name, strerror(errno));
    const char *end = data + client->rest_size + (count > 0 ? count : 0);
    for (; (newline = memchr(line, '\n', end - line)); line = newline + 1)
        handle(client, line, newline + 1 - line);
    client->rest_size = end - line;
    if (client->rest_size >= (size_t)(NAME_SIZE + size))
        wrong(client, line, client->rest_size);
    memcpy(client->rest, line, client->rest_size);
}

static void send_all(const struct client *client, const char *data, size_t length)
{
    while (length) {
        ssize_t count = send(client->fd, data, length, MSG_NOSIGNAL);
        if (count < 0)
            fail("%s: %s", client->name, strerror(errno));
        data += count;
        length -= count;
    }
}

/* ---- Who is in ---- */

static int outside, begun; /* clients whom the server has not let in; who have heard "begin" */

static void hear_caller(struct client *client, const char *line, size_t length)
{
    const struct client *caller = &clients[clients_size - 1];
    size_t name = strlen(caller->name);

    if (client == caller || length != name + strlen(" dice: ready\n") ||
        memcmp(line, caller->name, name) != 0)
        wrong(client, line, length);
    if (!outside && memcmp(line + name, " dice: begin\n", length - name) == 0)
        begun++;
    else if (memcmp(line + name, " dice: ready\n", length - name) != 0)
        wrong(client, line, length);
    if (!client->in)
        outside--;
    client->in = true;
}

/* The last client says "ready", again and again, until all others have heard it: then the server
 * has let them in. Who hears the "begin" after it has nothing left to hear of that. */
static void gather(void)
{
    static struct epoll_event events[EVENTS];
    const struct client *caller = &clients[clients_size - 1];
    double until = seconds(CLOCK_MONOTONIC) + deadline, call_at = 0;

    outside = clients_size - 1;
    while (begun < clients_size - 1) {
        now = seconds(CLOCK_MONOTONIC);
        if (now > until)
            fail("%d clients were not let in within %g s", outside, deadline);
        if (outside && now >= call_at) {
            send_all(caller, "ready\n", 6);
            call_at = now + 0.2;
        }
        bool waiting = outside;
        int count = epoll_wait(epoll, events, EVENTS, 10);
        for (int i = 0; i < count; i++)
            if (events[i].data.ptr)
                receive(events[i].data.ptr, hear_caller);
        if (waiting && !outside)
            send_all(caller, "begin\n", 6);
    }
}

/* ---- The flood ---- */

/* All that it may have under way. */
static void say(struct sender *sender)
{
    static char *out;
    size_t length = 0;

    if (!out)
        out = zeroed(in_flight, size);
    while (sender->sent < sender->goal && sender->sent - sender->heard < (uint32_t)in_flight) {
        int slot = sender->sent % in_flight;
        char *text = sender->lines + slot * sender->line_size + sender->prefix_size;
        uint32_t number = sender->sent++;
        for (int place = 7; place >= 0; place--, number /= 10)
            text[place] = '0' + number % 10;
        memcpy(out + length, text, size);
        length += size;
        sender->missing[slot] = clients_size - 1;
        sender->sent_at[slot] = now;
        under_way++;
    }
    sender->due = false;
    send_all(&clients[sender - senders], out, length);
}

static void hear(struct client *client, const char *line, size_t length)
{
    int index = sender_by_port[port_in(line, length)] - 1;
    struct sender *sender = &senders[index];

    if (index < 0 || client == &clients[index] || length != sender->line_size ||
        client->next[index] == sender->sent)
        wrong(client, line, length);
    int slot = client->next[index]++ % in_flight;
    if (memcmp(line, sender->lines + slot * sender->line_size, length) != 0)
        wrong(client, line, length);
    deliveries++;
    count_latency((now - sender->sent_at[slot]) * 1e9);
    if (--sender->missing[slot] == 0) { /* each hears in order, so it is the oldest one */
        sender->heard++;
        sender->due = true;
        under_way--;
    }
}

static void overdue(void)
{
    for (int s = 0; s < senders_size; s++)
        for (int i = 0; i < clients_size; i++)
            if (i != s && clients[i].next[s] < senders[s].sent)
                fail("%s did not hear message %u of %s within %g s", clients[i].name,
                     clients[i].next[s], clients[s].name, deadline);
}

/* Until everyone has said what it is to say and all have heard it. If `endless`, they say no more
 * when something has come on stdin. */
static void flood(bool endless)
{
    static struct epoll_event events[EVENTS];

    now = seconds(CLOCK_MONOTONIC);
    for (int s = 0; s < senders_size; s++)
        say(&senders[s]);
    double heard_at = now;
    while (under_way) {
        int count = epoll_wait(epoll, events, EVENTS, spin ? 0 : 1000);
        now = seconds(CLOCK_MONOTONIC);
        if (now > heard_at + deadline)
            overdue();
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr) {
                heard_at = now = seconds(CLOCK_MONOTONIC);
                receive(events[i].data.ptr, hear);
            } else if (endless) {
                for (int s = 0; s < senders_size; s++)
                    senders[s].goal = senders[s].sent;
            }
        }
        for (int s = 0; s < senders_size; s++)
            if (senders[s].due)
                say(&senders[s]);
    }
}

static uint64_t segments(void)
{
    uint64_t total = 0;

    for (int i = 0; i < clients_size; i++) {
        struct tcp_info info = {0};
        socklen_t length = sizeof info;
        getsockopt(clients[i].fd, IPPROTO_TCP, TCP_INFO, &info, &length);
        total += info.tcpi_data_segs_in;
    }
    return total;
}

static void measure(uint32_t messages)
{
    uint64_t before = segments();
    uint32_t first = senders[0].sent;

    memset(histogram, 0, sizeof histogram);
    deliveries = 0;
    for (int s = 0; s < senders_size; s++)
        senders[s].goal = messages ? senders[s].sent + messages : UINT32_MAX;
    double server = seconds(server_clock), own = seconds(CLOCK_PROCESS_CPUTIME_ID);
    double started = seconds(CLOCK_MONOTONIC);
    flood(messages == 0);
    double ended = seconds(CLOCK_MONOTONIC);
    server = seconds(server_clock) - server;
    own = seconds(CLOCK_PROCESS_CPUTIME_ID) - own;
    printf("{\"deliveries\": %llu, \"first\": %u, \"last\": %u, \"wall_seconds\": %.6f, "
           "\"cpu_seconds\": %.6f, \"load_cpu_seconds\": %.6f, \"segments\": %llu, "
           "\"p50_seconds\": %.9f, \"p99_seconds\": %.9f}\n",
           (unsigned long long)deliveries, first, senders[0].sent, ended - started, server, own,
           (unsigned long long)(segments() - before), percentile(50), percentile(99));
    senders[0].goal++; /* what has come twice, comes before it */
    flood(false);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct addrinfo *address, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    struct rlimit limit;
    char command[64];

    if (argc != 10)
        fail("usage: flood HOST PORT CLIENTS SENDERS IN_FLIGHT SIZE DEADLINE SERVER_PID SPIN");
    clients_size = atoi(argv[3]);
    senders_size = atoi(argv[4]);
    in_flight = atoi(argv[5]);
    size = atoi(argv[6]);
    deadline = atof(argv[7]);
    server_clock = (~(clockid_t)atoi(argv[8]) << 3) | 2; /* as clock_getcpuclockid(3) makes it */
    spin = atoi(argv[9]);
    if (clients_size < 2 || senders_size < 1 || senders_size > clients_size || in_flight < 1 ||
        size < 9 || size > 1 << 16)
        fail("flood: arguments out of range");
    if (getaddrinfo(argv[1], argv[2], &hints, &address) != 0)
        fail("%s is not a numeric address", argv[1]);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    setvbuf(stdin, NULL, _IONBF, 0); /* what it had read ahead, epoll_wait() would not see */
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event) < 0)
        fail("epoll: %s", strerror(errno));
    clients = zeroed(clients_size, sizeof *clients);
    senders = zeroed(senders_size, sizeof *senders);
    for (int i = 0; i < clients_size; i++)
        connect_client(&clients[i], address);
    for (int s = 0; s < senders_size; s++)
        prepare(&senders[s], &clients[s]);
    gather();
    puts("{\"ready\": true}");
    fflush(stdout);
    while (fgets(command, sizeof command, stdin)) {
        if (strncmp(command, "run ", 4) == 0)
            measure(strtoul(command + 4, NULL, 10));
        else if (strcmp(command, "start\n") == 0)
            measure(0);
    }
    return 0;
}
