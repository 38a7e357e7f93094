/* The load under which servers are measured, in a closed loop or at a fixed rate. flood.py starts
 * and commands it.
 *
 *     flood HOST PORTS CLIENTS SENDERS IN_FLIGHT SIZE DEADLINE SERVER_PID SPIN ASKS WEB
 *
 * PORTS are one, or several with commas between them, of servers that are one chat: the clients go to
 * them in turn. The CPU time is that of SERVER_PID.
 *
 * All CLIENTS listen, and the first SENDERS of them speak: messages of SIZE bytes, of which each
 * has at most IN_FLIGHT under way. One thread waits in epoll_wait(). In a turn it reads from
 * everyone who is ready, in the order in which the kernel names them, and then says all that has
 * become due, with one send() for each sender. With SPIN it does not sleep while deliveries are
 * under way: to wake it would cost the server time, and the answer would come late. With ASKS the
 * server asks for a nick first, and greets; lines that begin with "* " are then its own.
 *
 * With WEB each is a browser: what it says is a text frame of its own, a byte shorter, for it has no
 * newline. What comes in frames is made into the lines that a client without them would hear: of a
 * server that ASKS it is JSON, an array of events, and of any other one it is a line already. The
 * former acknowledges each message to its sender, who does not wait for that with the next one; but
 * what is measured ends when all is acknowledged.
 *
 * Every delivery is checked: it must be, byte for byte, the line of its sender that this listener
 * has to hear next. A line that comes twice, in another order or to its own sender is not that one.
 *
 * It prints {"ready": true} when all are in, and then obeys stdin: a line is three numbers, and is
 * answered by a line of JSON. After what is measured the first two senders say one message more, one
 * after the other, before which nothing else may come.
 *     0 0 M   a closed loop: a sender says the next message when all others have heard one; M
 *             messages of each, or, if M is 0, until something comes on stdin
 *     R N M   an open loop: R messages a second in all, said in turn, N that are not measured and M
 *             that are. A message that leaves late counts from when it was due. What comes on stdin
 *             ends it all at once, with what was measured until then.
 * EOF ends it. Whatever is wrong ends it with one line on stderr and exit status 1.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/tcp.h> /* its struct tcp_info knows tcpi_data_segs_in, Linux 4.6 */
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    READ_SIZE = 1 << 18,
    SEND_SIZE = 1 << 16,
    MAX_SIZE = 1 << 16, /* of a message */
    REST_SIZE = 1 << 18, /* of a frame that has not come to its end */
    EVENTS = 1024,
    MAX_PORTS = 64,
    NAME_SIZE = 80,
    OWN_SIZE = 1024,    /* of a line of the server's own */
    DIGITS = 8,         /* with which a message begins */
    SUB_BUCKETS = 128,  /* of a histogram, in each power of two: values to 0.8 % */
    BUCKETS = 58 * SUB_BUCKETS,
};

struct client {
    int fd;
    bool open;         /* it need not ask for frames any more, or does not */
    bool in;           /* the server has let it in */
    char name[NAME_SIZE];
    uint32_t *next;    /* by sender: the message that it must hear next */
    char *rest;        /* of a line or a frame that has not come to its end */
    size_t rest_size, rest_room;
};

/* What one of the first clients says. */
struct sender {
    char *line;         /* a message as others hear it, but for its number */
    size_t prefix_size, line_size;
    char *message;      /* as it says it, but for its number, */
    size_t message_size, number_at; /* which stands there */
    uint32_t sent;      /* messages that are under way or heard by all */
    uint32_t heard;     /* messages that all others have heard */
    uint32_t goal;      /* messages that it may say in a closed loop */
    uint32_t taken;     /* messages that the kernel has taken, and */
    size_t taken_bytes; /* of the one after these, so many bytes */
    uint32_t offered;   /* messages that the kernel was to take */
    uint32_t *missing;  /* by number % in_flight: deliveries yet to come */
    double *due_at;     /* by number % in_flight */
    bool ready;         /* it may say more */
};

/* A line that was heard. */
struct heard {
    int sender;
    uint32_t number;
};

struct histogram {
    uint64_t total, largest, counts[BUCKETS]; /* nanoseconds */
};

static int epoll, clients_size, senders_size, in_flight, size;
static double deadline;
static clockid_t server_clock;
static bool spin, asks, web, acknowledges;
static char request[200];         /* for frames */
static struct client *clients;
static struct sender *senders;
static int sender_by_port[65536]; /* its index + 1 */
static double now;
static uint64_t under_way;        /* messages */
static uint64_t acks_due;
static double ack_at;             /* when the last one came, or the first of them became due */
static uint64_t deliveries, in_window, held_back;
static uint64_t warm_up;          /* the first messages of the room, which are not measured */
static double window;             /* when those that are measured begin */
static double server_began, own_began; /* CPU time until then */
static struct histogram latency, lateness;
static struct heard heard[READ_SIZE / DIGITS]; /* what was taken apart last, line by line */
static int heard_size;
static bool is_alike; /* whether it is the same for whoever reads the same */
static int outside, begun; /* clients whom the server has not let in; who have heard "begin" */
static int called, answered; /* what the last client has said until then, and its acknowledgements */

static void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    _exit(1); /* exit() would write an answer that waits in stdout */
}

#include "frames.h"

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

/* ---- Histograms ---- */

static void record(struct histogram *histogram, double time)
{
    uint64_t value = time > 0 ? time * 1e9 : 0;
    int shift = value < SUB_BUCKETS ? 0 : 63 - __builtin_clzll(value) - __builtin_ctz(SUB_BUCKETS);

    histogram->counts[shift * SUB_BUCKETS + (value >> shift)]++;
    histogram->total++;
    if (value > histogram->largest)
        histogram->largest = value;
}

static double percentile(const struct histogram *histogram, double percent)
{
    uint64_t seen = 0;

    for (int i = 0; i < BUCKETS; i++)
        if ((seen += histogram->counts[i]) && seen >= histogram->total * percent / 100) {
            int shift = i < 2 * SUB_BUCKETS ? 0 : i / SUB_BUCKETS - 1;
            return (double)((uint64_t)(i - shift * SUB_BUCKETS) << shift) / 1e9;
        }
    return 0;
}

static void print_percentiles(const char *name, const struct histogram *histogram)
{
    static const double percents[] = {50, 90, 99, 99.9};

    printf("\"%s\": [", name);
    for (int i = 0; i < 4; i++)
        printf("%.9f, ", percentile(histogram, percents[i]));
    printf("%.9f], ", histogram->largest / 1e9);
}

/* ---- Clients ---- */

/* With all that are closed by now, or in the next moment. */
static void closed(const struct client *one)
{
    int count = 0;

    usleep(50000);
    for (int i = 0; i < clients_size && clients[i].fd; i++) {
        struct pollfd end = {.fd = clients[i].fd, .events = POLLRDHUP};
        count += poll(&end, 1, 0) > 0;
    }
    fail("the server closed %d of %d connections, one of them %s%s", count, clients_size, one->name,
         count < clients_size ? "; it drops those that read too slowly?" : "");
}

/* How many bytes the kernel has taken. */
static size_t give(const struct client *client, const char *data, size_t length)
{
    ssize_t count = send(client->fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (count < 0 && errno != EAGAIN && errno != EINTR)
        closed(client);
    return count > 0 ? count : 0;
}

/* A line, for which there is room in the kernel, as little comes before it. */
static void tell(const struct client *client, const char *text)
{
    char data[HEADER_SIZE + NAME_SIZE];
    size_t length = web ? write_frame(data, TEXT, text, strlen(text))
                        : (size_t)sprintf(data, "%s\n", text);

    give(client, data, length);
}

static void connect_client(struct client *client, const struct addrinfo *address)
{
    struct sockaddr_storage own;
    socklen_t own_size = sizeof own;
    char host[INET6_ADDRSTRLEN], port[6];
    int on = 1;

    client->fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0 || connect(client->fd, address->ai_addr, address->ai_addrlen) < 0 ||
        setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
        getsockname(client->fd, (struct sockaddr *)&own, &own_size) < 0)
        fail("cannot connect: %s", strerror(errno));
    getnameinfo((struct sockaddr *)&own, own_size, host, sizeof host, port, sizeof port,
                NI_NUMERICHOST | NI_NUMERICSERV);
    if (asks)
        snprintf(client->name, NAME_SIZE, "n%d", (int)(client - clients));
    else
        snprintf(client->name, NAME_SIZE, "('%s', %s%s)", host, port,
                 own.ss_family == AF_INET6 ? ", 0, 0" : "");
    client->next = zeroed(senders_size, sizeof *client->next);
    client->open = !web;
    if (web)
        give(client, request, strlen(request));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, client->fd, &event) < 0)
        fail("epoll_ctl: %s", strerror(errno));
}

/* "('127.0.0.1', 52344) dice: ", or "n17 dice: ", whose number does as well. */
static unsigned port_in(const char *line, size_t length)
{
    const char *comma = memchr(line, ',', length);
    const char *digit = asks ? line + 1 : comma ? comma + 2 : line;
    unsigned port = 0;

    for (; *digit >= '0' && *digit <= '9'; digit++)
        port = port * 10 + (*digit - '0');
    return port & 0xFFFF;
}

static uint32_t number_in(const char *text)
{
    uint32_t number = 0;

    for (int place = 0; place < DIGITS; place++) {
        if (text[place] < '0' || text[place] > '9')
            return UINT32_MAX;
        number = number * 10 + (text[place] - '0');
    }
    return number;
}

static void prepare(struct sender *sender, const struct client *client)
{
    sender->prefix_size = strlen(client->name) + strlen(" dice: ");
    sender->line_size = sender->prefix_size + size;
    sender->line = zeroed(sender->line_size + 1, 1);
    memset(sender->line, '.', sender->line_size);
    sprintf(sender->line, "%s dice: ", client->name);
    sender->line[sender->prefix_size] = '0';
    sender->line[sender->line_size - 1] = '\n';
    sender->message = sender->line + sender->prefix_size;
    sender->message_size = size;
    if (web) {
        sender->message = zeroed(HEADER_SIZE + size, 1);
        sender->message_size = write_frame(sender->message, TEXT,
                                           sender->line + sender->prefix_size, size - 1);
        sender->number_at = sender->message_size - (size - 1);
    }
    sender->missing = zeroed(in_flight, sizeof *sender->missing);
    sender->due_at = zeroed(in_flight, sizeof *sender->due_at);
    sender_by_port[port_in(client->name, NAME_SIZE)] = sender - senders + 1;
}

static bool is_line_of(const struct sender *sender, const char *line, size_t length)
{
    size_t after = sender->prefix_size + DIGITS;

    return length == sender->line_size && memcmp(line, sender->line, sender->prefix_size) == 0 &&
           memcmp(line + after, sender->line + after, length - after) == 0;
}

static void wrong(const struct client *client, const char *line, size_t length)
{
    int index = sender_by_port[port_in(line, length)] - 1;

    if (index >= 0 && is_line_of(&senders[index], line, length)) {
        uint32_t number = number_in(line + senders[index].prefix_size), next = client->next[index];
        const char *name = clients[index].name;
        if (client == &clients[index])
            fail("%s heard itself say message %u", name, number);
        if (number < next)
            fail("%s heard message %u of %s twice", client->name, number, name);
        if (number < senders[index].sent)
            fail("%s heard message %u of %s before message %u: one is lost, or they are out of "
                 "order", client->name, number, name, next);
    }
    if (length == 15 && memcmp(line, "servidor lleno\n", 15) == 0)
        fail("the server is full: it refused a client");
    fail("%s heard '%.*s', which nobody said", client->name, length < 100 ? (int)length - 1 : 100,
         line);
}

typedef void handler(struct client *client, const char *line, size_t length);
static size_t hear_known(struct client *client);

/* What was read at once, and its lines, which stand in `text` if it was frames. */
struct piece {
    char data[READ_SIZE + REST_SIZE], text[READ_SIZE + REST_SIZE];
    const char *lines;
    size_t size, lines_size;
    size_t taken; /* of the data, to where the last line or frame that is whole ends */
};

/* Whether the server has granted frames; then how many bytes that took. */
static size_t read_answer(struct client *client, const char *data, size_t length)
{
    static const char granted[] = "HTTP/1.1 101 ", full[] = "HTTP/1.1 503 ";
    const char *end = memmem(data, length, "\r\n\r\n", 4);

    if (!end)
        return 0;
    if (memcmp(data, full, strlen(full)) == 0)
        fail("the server is full: it refused a client");
    if (memcmp(data, granted, strlen(granted)) != 0)
        fail("%s asked for frames, and was answered '%.*s'", client->name,
             (int)((char *)memchr(data, '\r', length) - data), data);
    client->open = true;
    outside--;
    return end + 4 - data;
}

/* An answer to a ping, unless it would come into the midst of a message: then to the next one. */
static void answer_ping(const struct client *client, const char *data, size_t length)
{
    char frame[HEADER_SIZE + 125];
    int index = client - clients;

    if (length <= 125 && (index >= senders_size || !senders[index].taken_bytes))
        give(client, frame, write_frame(frame, PONG, data, length));
}

/* Make lines of all the frames that are whole. */
static void unframe(struct client *client, struct piece *piece)
{
    const char *data = piece->data, *end = data + piece->size;
    char *line = piece->text;
    struct frame frame;

    if (!client->open) {
        is_alike = false;
        data += read_answer(client, data, piece->size);
    }
    while (client->open && read_header(data, end - data, &frame) &&
           (size_t)(end - data) >= frame.header + frame.length) {
        data += frame.header;
        if (frame.opcode == TEXT && asks) {
            line = write_lines(line, data, frame.length);
        } else if (frame.opcode == TEXT) {
            line = mempcpy(line, data, frame.length);
            *line++ = '\n';
        } else if (frame.opcode == PING) {
            is_alike = false;
            answer_ping(client, data, frame.length);
        } else if (frame.opcode == CLOSE && frame.length >= 2) {
            fail("the server closed %s with %d: '%.*s'", client->name,
                 (unsigned char)data[0] << 8 | (unsigned char)data[1], (int)frame.length - 2,
                 data + 2);
        } else {
            line = NULL;
        }
        if (!line)
            fail("%s got a frame of type %d with '%.*s'", client->name, frame.opcode,
                 frame.length < 100 ? (int)frame.length : 100, data);
        data += frame.length;
    }
    piece->lines = piece->text;
    piece->lines_size = line - piece->text;
    piece->taken = data - piece->data;
}

static void find_lines(struct piece *piece)
{
    const char *newline = memrchr(piece->data, '\n', piece->size);

    piece->lines = piece->data;
    piece->lines_size = piece->taken = newline ? newline + 1 - piece->data : 0;
}

static void keep(struct client *client, const char *rest, size_t length)
{
    if (length >= (size_t)(web ? REST_SIZE : NAME_SIZE + size + OWN_SIZE))
        wrong(client, rest, length);
    if (length > client->rest_room && !(client->rest = realloc(client->rest, length)))
        fail("out of memory");
    client->rest_room = length > client->rest_room ? length : client->rest_room;
    client->rest_size = length;
    memcpy(client->rest, rest, length);
}

/* Read what has come, and handle each line of it that is whole. Where listeners hear the same in
 * one piece, as from a server that coalesces, it is taken apart once, and for the others compared
 * with that: line by line it would take longer than the server needs to send it. */
static void receive(struct client *client, handler *handle)
{
    static struct piece pieces[2], *known = &pieces[0], *fresh = &pieces[1];
    struct piece *piece = fresh;

    memcpy(fresh->data, client->rest, client->rest_size);
    ssize_t count = recv(client->fd, fresh->data + client->rest_size, READ_SIZE, MSG_DONTWAIT);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR))
        closed(client);
    fresh->size = client->rest_size + (count > 0 ? count : 0);
    is_alike = true;
    if (fresh->size && fresh->size == known->size &&
        memcmp(fresh->data, known->data, known->size) == 0)
        piece = known;
    else if (web)
        unframe(client, fresh);
    else
        find_lines(fresh);
    const char *line = piece->lines, *newline, *end = line + piece->lines_size;
    if (piece == known)
        line += hear_known(client);
    if (line == piece->lines)
        heard_size = 0;
    for (; line != end; line = newline + 1) {
        newline = memchr(line, '\n', end - line);
        handle(client, line, newline + 1 - line);
    }
    keep(client, fresh->data + piece->taken, fresh->size - piece->taken);
    if (piece == fresh) {
        if (fresh->taken < fresh->size || !is_alike)
            fresh->size = 0; /* it is not known */
        fresh = known;
        known = piece;
    }
}

/* ---- Who is in ---- */

/* From all to whom something comes within the next moment. */
static void receive_some(handler *handle)
{
    static struct epoll_event events[EVENTS];
    int count = epoll_wait(epoll, events, EVENTS, 10);

    for (int i = 0; i < count; i++)
        if (events[i].data.ptr)
            receive(events[i].data.ptr, handle);
}

static bool is_ack(const char *line, size_t length)
{
    return acknowledges && length == 6 && memcmp(line, "* ack\n", 6) == 0;
}

static void hear_caller(struct client *client, const char *line, size_t length)
{
    const struct client *caller = &clients[clients_size - 1];
    size_t name = strlen(caller->name), text = strlen(" dice: ready\n");

    if (asks && line[0] == '*') {
        answered += client == caller && is_ack(line, length);
        return;
    }
    if (client == caller || length != name + text || memcmp(line, caller->name, name) != 0)
        wrong(client, line, length);
    if (!outside && memcmp(line + name, " dice: begin\n", text) == 0)
        begun++;
    else if (memcmp(line + name, " dice: ready\n", text) != 0)
        wrong(client, line, length);
    if (!client->in)
        outside--;
    client->in = true;
}

static void hear_greeting(struct client *client, const char *line, size_t length)
{
    char greeting[2 * NAME_SIZE];
    size_t greeting_size = sprintf(greeting, "* Hola, %s. ", client->name);

    if (!client->in && length > greeting_size && memcmp(line, greeting, greeting_size) == 0) {
        client->in = true;
        outside--;
    }
}

/* Receive until nobody is outside. */
static void await(handler *handle, const char *complaint)
{
    double until = seconds(CLOCK_MONOTONIC) + deadline;

    while (outside) {
        if (seconds(CLOCK_MONOTONIC) > until)
            fail("%d of %d clients were not %s within %g s", outside, clients_size, complaint,
                 deadline);
        receive_some(handle);
    }
}

/* All give their nicks at once: one by one, each would be announced by itself to all before it. */
static void give_nicks(void)
{
    outside = clients_size;
    for (int i = 0; i < clients_size; i++)
        tell(&clients[i], clients[i].name);
    await(hear_greeting, "greeted, as by a server that asks for a nick,");
    for (int i = 0; i < clients_size; i++)
        clients[i].in = false;
}

/* The last client says "ready", again and again, until all others have heard it: then the server
 * has let them in. Who hears the "begin" after it has nothing left to hear of that. */
static void gather(void)
{
    const struct client *caller = &clients[clients_size - 1];
    double until = seconds(CLOCK_MONOTONIC) + deadline, call_at = 0, pause = 0.2;

    outside = clients_size - 1;
    while (begun < clients_size - 1 || (acknowledges && answered < called)) {
        now = seconds(CLOCK_MONOTONIC);
        if (now > until)
            fail("%d of %d clients were not let in within %g s; does the server broadcast?",
                 outside, clients_size, deadline);
        if (outside && now >= call_at) {
            tell(caller, "ready");
            called++;
            call_at = now + pause;
            pause *= 2;
        }
        bool waiting = outside;
        receive_some(hear_caller);
        if (waiting && !outside) {
            tell(caller, "begin");
            called++;
            until = now + deadline;
        }
    }
}

/* ---- The load ---- */

/* The next message of a sender is under way, and counts from `due_at`. */
static void say(struct sender *sender, double due_at)
{
    int slot = sender->sent++ % in_flight;

    sender->missing[slot] = clients_size - 1;
    if (acknowledges && !acks_due++)
        ack_at = now;
    sender->due_at[slot] = due_at;
    under_way++;
}

/* Whether the kernel has taken all that a sender has under way. */
static bool flush(struct sender *sender)
{
    static char out[SEND_SIZE + HEADER_SIZE + MAX_SIZE];
    size_t length;

    do {
        length = 0;
        for (uint32_t n = sender->taken; n != sender->sent && length < SEND_SIZE; n++) {
            char *message = memcpy(out + length, sender->message, sender->message_size);
            uint32_t number = n;
            for (int place = DIGITS - 1; place >= 0; place--, number /= 10)
                message[sender->number_at + place] =
                    ('0' + number % 10) ^ (web ? mask[place % sizeof mask] : 0);
            length += sender->message_size;
        }
        if (!length)
            return true;
        length -= sender->taken_bytes;
        size_t taken = give(&clients[sender - senders], out + sender->taken_bytes, length);
        sender->taken_bytes += taken;
        sender->taken += sender->taken_bytes / sender->message_size;
        sender->taken_bytes %= sender->message_size;
        length -= taken;
    } while (!length);
    return false;
}

/* Whether it is what this client has to hear next, and has been said. */
static inline bool is_due(const struct client *client, struct heard line)
{
    return client != &clients[line.sender] && line.number == client->next[line.sender] &&
           line.number != senders[line.sender].sent;
}

static inline void deliver(struct client *client, int index)
{
    struct sender *sender = &senders[index];
    uint32_t number = client->next[index]++;
    int slot = number % in_flight;

    deliveries++;
    in_window += now >= window;
    if (!warm_up || (uint64_t)number * senders_size + index >= warm_up)
        record(&latency, now - sender->due_at[slot]);
    if (--sender->missing[slot] == 0) { /* each hears in order, so it is the oldest one */
        sender->heard++;
        sender->ready = true;
        under_way--;
    }
}

/* Of the sender's oldest message that has none yet. */
static void hear_ack(struct client *client)
{
    int index = client - clients;

    if (index >= senders_size || client->next[index] == senders[index].sent)
        fail("%s heard an acknowledgement of nothing", client->name);
    is_alike = false;
    client->next[index]++;
    acks_due--;
    ack_at = now;
}

static void hear(struct client *client, const char *line, size_t length)
{
    if (is_ack(line, length)) {
        hear_ack(client);
        return;
    }
    int index = sender_by_port[port_in(line, length)] - 1;
    if (index < 0 || !is_line_of(&senders[index], line, length))
        wrong(client, line, length);
    struct heard it = {index, number_in(line + senders[index].prefix_size)};
    if (!is_due(client, it))
        wrong(client, line, length);
    deliver(client, index);
    heard[heard_size++] = it;
}

/* What was taken apart last, as far as it is what this client has to hear: how many bytes. */
static size_t hear_known(struct client *client)
{
    size_t length = 0;

    for (int i = 0; i < heard_size && is_due(client, heard[i]); i++) {
        deliver(client, heard[i].sender);
        length += senders[heard[i].sender].line_size;
    }
    return length;
}

/* Each hears in order, so a delivery that is late is one of the oldest message of its sender. */
static void check_deadlines(void)
{
    if (acks_due && now > ack_at + deadline)
        fail("%llu acknowledgements did not come within %g s", (unsigned long long)acks_due, deadline);
    for (int s = 0; s < senders_size; s++) {
        const struct sender *sender = &senders[s];
        uint32_t oldest = sender->heard;
        int i = 0;
        if (oldest == sender->sent || now <= sender->due_at[oldest % in_flight] + deadline)
            continue;
        while (i == s || clients[i].next[s] != oldest)
            i++;
        fail("%u deliveries did not come within %g s: message %u of %s to %s%s",
             sender->missing[oldest % in_flight], deadline, oldest, clients[s].name,
             clients[i].name, sender->missing[oldest % in_flight] > 1 ? ", and to others" : "");
    }
}

static void start_clocks(void)
{
    server_began = seconds(server_clock);
    own_began = seconds(CLOCK_PROCESS_CPUTIME_ID);
}

/* Until all that is to be said is heard by all: in a closed loop, if rate is 0, what the senders'
 * goals say, and else so many messages in turn. When something comes on stdin, no more is said, and
 * the result is true; unless stdin is not to be looked at. An open loop returns at once then: a
 * server that is stuck would keep what is under way. */
static bool drive(double rate, double start, uint64_t messages, bool look)
{
    static struct epoll_event events[EVENTS];
    struct pollfd any = {.fd = epoll, .events = POLLIN}; /* readable when it has events */
    double check_at = 0;
    uint64_t next = 0;
    bool stopped = false, waiting;

    now = seconds(CLOCK_MONOTONIC);
    for (int s = 0; s < senders_size; s++)
        senders[s].ready = true;
    for (;;) {
        for (; rate && next < messages && start + next / rate <= now; next++) {
            struct sender *sender = &senders[next % senders_size];
            if (sender->sent - sender->heard == (uint32_t)in_flight)
                fail("more is under way than was foreseen");
            if (next == warm_up)
                start_clocks();
            say(sender, start + next / rate);
            sender->ready = true;
            if (next >= warm_up)
                record(&lateness, now - (start + next / rate));
        }
        waiting = false;
        for (int s = 0; s < senders_size; s++) {
            struct sender *sender = &senders[s];
            if (!sender->ready)
                continue;
            while (!rate && sender->sent < sender->goal &&
                   sender->sent - sender->heard < (uint32_t)in_flight)
                say(sender, now);
            sender->ready = !flush(sender); /* then it is tried again */
            uint32_t rest = sender->sent - sender->taken, fresh = sender->sent - sender->offered;
            held_back += rest < fresh ? rest : fresh;
            sender->offered = sender->sent;
            waiting |= sender->ready;
        }
        if (!under_way && !acks_due && (!rate || next == messages))
            return stopped;
        double pause = waiting ? 0.001 : 1;
        if (rate && next < messages) {
            double early = start + next / rate - seconds(CLOCK_MONOTONIC);
            pause = early < 0 ? 0 : early < pause ? early : pause;
        }
        if (pause < 0.001 && !spin) /* epoll_wait() sleeps for whole milliseconds */
            ppoll(&any, 1, &(struct timespec){.tv_nsec = pause * 1e9}, NULL);
        int count = epoll_wait(epoll, events, EVENTS, spin ? 0 : (int)(pause * 1000));
        now = seconds(CLOCK_MONOTONIC);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr) {
                now = seconds(CLOCK_MONOTONIC);
                receive(events[i].data.ptr, hear);
            } else if (look && !stopped) {
                stopped = true;
                for (int s = 0; s < senders_size; s++)
                    senders[s].goal = senders[s].sent;
            }
        }
        if (rate && stopped)
            return true;
        if (now >= check_at) {
            check_deadlines();
            check_at = now + 0.01;
        }
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

static void measure(double rate, uint64_t unmeasured, uint64_t messages)
{
    uint64_t before = segments();
    uint32_t first = senders[0].sent;

    memset(&latency, 0, sizeof latency);
    memset(&lateness, 0, sizeof lateness);
    deliveries = in_window = held_back = 0;
    for (int s = 0; s < senders_size; s++)
        senders[s].goal = messages ? senders[s].sent + messages : UINT32_MAX;
    double start = seconds(CLOCK_MONOTONIC);
    warm_up = unmeasured;
    window = rate ? start + warm_up / rate : start;
    start_clocks();
    bool stopped = drive(rate, start, warm_up + messages, true);
    double ended = seconds(CLOCK_MONOTONIC);
    printf("{\"first\": %u, \"last\": %u, \"messages\": %llu, \"deliveries\": %llu, "
           "\"measured_deliveries\": %llu, \"in_window\": %llu, \"wall_seconds\": %.6f, "
           "\"window_seconds\": %.6f, \"cpu_seconds\": %.6f, \"load_cpu_seconds\": %.6f, "
           "\"segments\": %llu, \"held_back\": %llu, ",
           first, senders[0].sent, (unsigned long long)lateness.total,
           (unsigned long long)deliveries, (unsigned long long)latency.total,
           (unsigned long long)in_window, ended - start, ended - window,
           seconds(server_clock) - server_began, seconds(CLOCK_PROCESS_CPUTIME_ID) - own_began,
           (unsigned long long)(segments() - before), (unsigned long long)held_back);
    print_percentiles("latency", &latency);
    print_percentiles("lateness", &lateness);
    printf("\"interrupted\": %s}\n", stopped ? "true" : "false");
    if (rate && stopped)
        exit(0);
    for (int s = 0; s < senders_size; s++)
        senders[s].goal = senders[s].sent;
    for (int s = 0; s < senders_size && s < 2; s++) { /* two, so that the first one hears one, too */
        senders[s].goal++;
        drive(0, 0, 0, false); /* what has come twice, comes before it */
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct addrinfo *addresses[MAX_PORTS], hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    int ports = 0;
    char command[100];
    double rate;
    unsigned long long unmeasured, messages;

    if (argc != 12)
        fail("usage: flood HOST PORTS CLIENTS SENDERS IN_FLIGHT SIZE DEADLINE SERVER_PID SPIN ASKS "
             "WEB");
    clients_size = atoi(argv[3]);
    senders_size = atoi(argv[4]);
    in_flight = atoi(argv[5]);
    size = atoi(argv[6]);
    deadline = atof(argv[7]);
    server_clock = (~(clockid_t)atoi(argv[8]) << 3) | 2; /* as clock_getcpuclockid(3) makes it */
    spin = atoi(argv[9]);
    asks = atoi(argv[10]);
    web = atoi(argv[11]);
    acknowledges = asks && web;
    outside = web ? clients_size : 0;
    bool ipv6 = strchr(argv[1], ':');
    snprintf(request, sizeof request,
             "GET /ws HTTP/1.1\r\nHost: %s%s%s:%s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
             ipv6 ? "[" : "", argv[1], ipv6 ? "]" : "", argv[2]);
    for (char *port = strtok(argv[2], ","); port; port = strtok(NULL, ","))
        if (ports == MAX_PORTS || getaddrinfo(argv[1], port, &hints, &addresses[ports++]) != 0)
            fail("%s, %s: not a numeric address, or too many ports", argv[1], port);
    prctl(PR_SET_TIMERSLACK, 1UL); /* ns: wake when a message is due, not 50 us later */
    setvbuf(stdin, NULL, _IONBF, 0); /* what it had read ahead, epoll_wait() would not see */
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event) < 0)
        fail("epoll: %s", strerror(errno));
    clients = zeroed(clients_size, sizeof *clients);
    senders = zeroed(senders_size, sizeof *senders);
    for (int i = 0; i < clients_size; i++)
        connect_client(&clients[i], addresses[i % ports]);
    for (int s = 0; s < senders_size; s++)
        prepare(&senders[s], &clients[s]);
    await(hear_greeting, "given frames"); /* nobody is greeted yet */
    if (asks)
        give_nicks();
    gather();
    puts("{\"ready\": true}");
    fflush(stdout);
    while (fgets(command, sizeof command, stdin))
        if (sscanf(command, "%lf %llu %llu", &rate, &unmeasured, &messages) == 3)
            measure(rate, unmeasured, messages);
    return 0;
}
