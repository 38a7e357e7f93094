/* The chat room of room.h on epoll: the yardstick.
 *
 *     cc -O2 -o c_epoll c_epoll.c && ./c_epoll --port 8080
 *
 * Level-triggered: who is ready is asked about again and again until it is not, so epoll is asked
 * about what can be done now and about nothing else.
 */

#define _GNU_SOURCE /* accept4() */
#define NAME "c_epoll"
#include "buffer.h"
#include <sys/epoll.h>

struct driver {
    uint32_t interest; /* what epoll is asked about */
};

#include "room.h"

enum { EVENTS = 1024 }; /* clients per wait */

static int epoll;

static void set_up(void)
{
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        fail("epoll_create1");
}

static void ask_for_newcomers(void)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = NULL};

    if (epoll_ctl(epoll, EPOLL_CTL_MOD, listener, &event) < 0 &&
        epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) < 0)
        fail("epoll_ctl");
}

static bool wait_for(int timeout)
{
    static struct epoll_event events[EVENTS];
    int count = epoll_wait(epoll, events, EVENTS, timeout);

    if (count < 0 && errno != EINTR)
        fail("epoll_wait");
    for (int i = 0; i < count; i++) {
        struct client *client = events[i].data.ptr;
        if (!client) {
            newcomers = true;
            continue;
        }
        if (events[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP) && waiting(client))
            flush(client);
        if (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
            make_ready(client);
    }
    return count != 0;
}

static void set_interest(struct client *client)
{
    /* EPOLLERR comes unasked; with it something is always asked. */
    uint32_t wanted = EPOLLERR | (may_handle(client) ? EPOLLIN : 0) |
                      (waiting(client) ? EPOLLOUT : 0);
    struct epoll_event event = {.events = wanted, .data.ptr = client};
    int operation = client->driver.interest ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

    if (client->pending)
        make_ready(client);
    if (wanted == client->driver.interest)
        return;
    client->driver.interest = wanted;
    if (epoll_ctl(epoll, operation, client->fd, &event) < 0)
        drop(client); /* ENOSPC, epoll(7): /proc/sys/fs/epoll/max_user_watches */
}

static void receive(struct client *client)
{
    static char data[READ_SIZE];
    ssize_t size = recv(client->fd, data, sizeof data, MSG_DONTWAIT);

    if (size > 0)
        handle(client, data, size);
    else if (size == 0)
        end_input(client, 0);
    else if (errno != EAGAIN && errno != EINTR)
        end_input(client, errno);
}

/* How many bytes the kernel has taken. */
static size_t try_send(struct client *client, const char *data, size_t size)
{
    ssize_t sent = send(client->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (sent < 0)
        lose(client, errno);
    return sent < 0 ? 0 : sent;
}

static void give(struct client *client, const char *data, size_t size)
{
    if (client->lost || client->dropped || !size)
        return;
    size_t sent = waiting(client) ? 0 : try_send(client, data, size);
    if (client->lost)
        flush(client);
    else if (sent < size)
        keep(client, data + sent, size - sent);
}

static void send_waiting(struct client *client)
{
    while (refill(client)) {
        size_t size = client->out.size - client->sent;
        size_t sent = try_send(client, client->out.data + client->sent, size);
        if (client->lost)
            return;
        client->sent += sent;
        if (sent < size)
            return;
    }
}

static void settle(void)
{
    /* What is given is sent at once. */
}

static void release_client(struct client *client)
{
    close(client->fd); /* epoll forgets it by itself: nobody has duplicated it */
    free_client(client);
}
