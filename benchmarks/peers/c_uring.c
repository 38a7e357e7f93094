/* The chat room of room.h on io_uring(7), by its system calls alone: how little it can cost.
 *
 *     cc -O2 -o c_uring c_uring.c && ./c_uring --port 8080 --looks 2
 *
 * One io_uring_enter(2) a turn hands over the sends of the last one and waits for what comes next.
 * What it stands on is told in lowlevel/uring/__init__.py, which is the same in Python: receives
 * that are armed once and take provided buffers; sends that complete nothing when they succeed;
 * and why loads and stores need no barrier (SINGLE_ISSUER, DEFER_TASKRUN: Linux 6.1).
 */

#define _GNU_SOURCE /* accept4() */
#define NAME "c_uring"
#include "buffer.h"
#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#ifndef IORING_SETUP_DEFER_TASKRUN
#error "linux/io_uring.h is older than Linux 6.1"
#endif

struct driver {
    enum { IDLE, ARMED, CANCELLED } receiving; /* cancelled, it may still bring something */
    bool sending;         /* the out-buffer is under way */
    bool over;            /* nothing more will come */
    bool released;        /* it is freed when nothing is under way */
    int error;            /* with which it was over */
    struct buffer input;  /* received, not yet handled */
    const char *last_send; /* what it was given last */
    size_t last_size;
};

#include "room.h"

enum {
    ENTRIES = 4096,       /* submissions that one call takes */
    COMPLETIONS = 65536,  /* that are held until we take them */
    BUFFERS = 256,        /* a power of two */
    BUFFER_SIZE = 4096,
};
/* The low bits of user_data; the others are the client's address. */
enum kind { OTHER, NEWCOMERS, RECEIVE, GIVE, FLUSH, KINDS = 7 };

static int ring;
static struct queue {
    unsigned *head, *tail, mask;
} sq, cq;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;
static union {
    struct io_uring_buf_ring ring;
    struct io_uring_buf entries[BUFFERS];
} group __attribute__((aligned(4096)));
static char buffers[BUFFERS][BUFFER_SIZE];

/* ---- The ring ---- */

static void *map(size_t size, off_t offset)
{
    int flags = MAP_SHARED | MAP_POPULATE;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, ring, offset);

    if (memory == MAP_FAILED)
        fail("mmap");
    return memory;
}

static void give_back(unsigned number)
{
    struct io_uring_buf *entry = &group.entries[group.ring.tail & (BUFFERS - 1)];

    entry->addr = (uintptr_t)buffers[number];
    entry->len = BUFFER_SIZE;
    entry->bid = number;
    group.ring.tail++; /* the kernel looks at it when it wants a buffer */
}

static void set_up(void)
{
    struct io_uring_params p = {
        .flags = IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER |
                 IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
        .cq_entries = COMPLETIONS,
    };

    ring = syscall(SYS_io_uring_setup, ENTRIES, &p);
    if (ring < 0) /* EINVAL: what it is asked for is not there; EPERM, ENOSYS: it is forbidden */
        fail(errno == EINVAL ? "no io_uring as of Linux 6.1" : "no io_uring");
    char *rings = map(p.sq_off.array + p.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
    sqes = map(p.sq_entries * sizeof *sqes, IORING_OFF_SQES);
    cqes = (struct io_uring_cqe *)(rings + p.cq_off.cqes);
    sq = (struct queue){(unsigned *)(rings + p.sq_off.head), (unsigned *)(rings + p.sq_off.tail),
                        p.sq_entries - 1};
    cq = (struct queue){(unsigned *)(rings + p.cq_off.head), (unsigned *)(rings + p.cq_off.tail),
                        p.cq_entries - 1};
    for (unsigned i = 0; i < p.sq_entries; i++)
        ((unsigned *)(rings + p.sq_off.array))[i] = i;
    struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)&group, .ring_entries = BUFFERS};
    if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_PBUF_RING, &reg, 1) < 0)
        fail("io_uring_register");
    for (unsigned number = 0; number < BUFFERS; number++)
        give_back(number);
}

static unsigned pending(void)
{
    return *sq.tail - *sq.head;
}

/* Hand over what is queued; then wait until something has completed: milliseconds, -1: any. */
static void enter(int timeout)
{
    struct __kernel_timespec time = {.tv_sec = timeout / 1000, .tv_nsec = timeout % 1000 * 1000000};
    struct io_uring_getevents_arg argument = {.ts = timeout > 0 ? (uintptr_t)&time : 0};

    if (syscall(SYS_io_uring_enter, ring, pending(), timeout != 0,
                IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &argument, sizeof argument) < 0 &&
        errno != EINTR && errno != ETIME && errno != EAGAIN && errno != EBUSY)
        fail("io_uring_enter");
}

static void queue(struct io_uring_sqe sqe, struct client *client, enum kind kind)
{
    while (pending() > sq.mask)
        enter(0);
    sqe.user_data = (uintptr_t)client | kind;
    sqes[(*sq.tail)++ & sq.mask] = sqe;
}

static void cancel(struct io_uring_sqe sqe)
{
    sqe.opcode = IORING_OP_ASYNC_CANCEL;
    sqe.flags = IOSQE_CQE_SKIP_SUCCESS;
    queue(sqe, NULL, OTHER);
}

/* ---- What completes ---- */

static void receive_completed(struct client *client, int result, unsigned flags)
{
    if (flags & IORING_CQE_F_BUFFER) {
        unsigned number = flags >> IORING_CQE_BUFFER_SHIFT;
        append(&client->driver.input, buffers[number], result > 0 ? result : 0);
        give_back(number);
    }
    if (!(flags & IORING_CQE_F_MORE)) {
        client->driver.receiving = IDLE;
        if (result <= 0 && result != -ECANCELED && result != -ENOBUFS) {
            client->driver.over = true;
            client->driver.error = -result;
        }
    }
    set_interest(client);
}

static void send_completed(struct client *client, enum kind kind, int result)
{
    size_t size = result < 0 ? 0 : result;

    if (result < 0)
        lose(client, -result);
    if (kind == FLUSH) {
        client->driver.sending = false;
        client->sent += size;
    } else if (!client->lost) {
        keep(client, client->driver.last_send + size, client->driver.last_size - size);
    }
    if (client->driver.released)
        set_interest(client);
    else
        flush(client);
}

/* Those who fell short come first: what else they are sent must go behind the rest. */
static bool complete(void)
{
    unsigned head = *cq.head, tail = *cq.tail;

    for (int others = 0; others < 2; others++)
        for (unsigned i = head; i != tail; i++) {
            const struct io_uring_cqe *cqe = &cqes[i & cq.mask];
            enum kind kind = cqe->user_data & KINDS;
            struct client *client = (struct client *)(uintptr_t)(cqe->user_data - kind);
            if (others != (kind != GIVE))
                continue;
            if (kind == NEWCOMERS)
                newcomers = true;
            else if (kind == RECEIVE)
                receive_completed(client, cqe->res, cqe->flags);
            else if (kind != OTHER)
                send_completed(client, kind, cqe->res);
        }
    *cq.head = tail;
    return head != tail;
}

/* ---- The back end ---- */

static void ask_for_newcomers(void)
{
    queue((struct io_uring_sqe){.opcode = IORING_OP_POLL_ADD, .fd = listener,
                                .poll32_events = POLLIN}, NULL, NEWCOMERS);
}

static bool wait_for(int timeout)
{
    enter(timeout);
    bool woken = complete();
    settle();
    return woken;
}

/* Arm a receive, or cancel it: a budget cannot be given to it. */
static void set_interest(struct client *client)
{
    struct driver *driver = &client->driver;

    if (driver->released) {
        if (driver->receiving == IDLE && !driver->sending) {
            free(driver->input.data);
            free_client(client);
        }
        return;
    }
    if (client->pending || driver->input.size || driver->over)
        make_ready(client);
    bool wanted = may_handle(client) && !driver->over && driver->input.size <= READ_SIZE &&
                  !client->pending;
    if (wanted && driver->receiving == IDLE) {
        queue((struct io_uring_sqe){.opcode = IORING_OP_RECV, .fd = client->fd,
                                    .ioprio = IORING_RECV_MULTISHOT,
                                    .flags = IOSQE_BUFFER_SELECT}, client, RECEIVE);
        driver->receiving = ARMED;
    } else if (!wanted && driver->receiving == ARMED) {
        cancel((struct io_uring_sqe){.addr = (uintptr_t)client | RECEIVE});
        driver->receiving = CANCELLED;
    }
}

static void receive(struct client *client)
{
    struct buffer input = take(&client->driver.input);

    if (input.size)
        handle(client, input.data, input.size);
    free(input.data);
    if (client->driver.over && !client->driver.input.size && !client->pending && !client->dropped)
        end_input(client, client->driver.error);
}

/* The kernel must not wait for space (MSG_DONTWAIT): it would read `data` later. And a send that
 * was cut short must be a failure (MSG_WAITALL): as a success it would complete nothing. */
static void give(struct client *client, const char *data, size_t size)
{
    if (client->lost || client->dropped || !size)
        return;
    if (waiting(client))
        return keep(client, data, size);
    client->driver.last_send = data;
    client->driver.last_size = size;
    queue((struct io_uring_sqe){.opcode = IORING_OP_SEND, .fd = client->fd,
                                .addr = (uintptr_t)data, .len = size,
                                .msg_flags = MSG_DONTWAIT | MSG_WAITALL,
                                .flags = IOSQE_CQE_SKIP_SUCCESS}, client, GIVE);
}

/* One at a time: it completes when the kernel has taken some of it. */
static void send_waiting(struct client *client)
{
    if (client->driver.sending || !refill(client))
        return;
    queue((struct io_uring_sqe){.opcode = IORING_OP_SEND, .fd = client->fd,
                                .addr = (uintptr_t)client->out.data + client->sent,
                                .len = client->out.size - client->sent}, client, FLUSH);
    client->driver.sending = true;
}

static void settle(void)
{
    while (pending()) {
        enter(0);
        complete();
    }
}

/* A receive that is armed holds the connection: without the cancel no FIN would be sent. */
static void release_client(struct client *client)
{
    client->driver.released = true;
    cancel((struct io_uring_sqe){.fd = client->fd,
                                 .cancel_flags = IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL});
    queue((struct io_uring_sqe){.opcode = IORING_OP_CLOSE, .fd = client->fd,
                                .flags = IOSQE_CQE_SKIP_SUCCESS}, NULL, OTHER);
    set_interest(client);
}
