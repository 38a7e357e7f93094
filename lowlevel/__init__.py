"""The chat room on event loops built by hand, and v4 on uvloop's.

    python -m lowlevel {selectors,epoll,epoll-et,uring,uvloop}

What asyncio hides in v4, in files that each have one job:

    protocol            bytes in, lines out; no socket
    room                who is in it and who is told what, in one send for each turn
    connection          one client: its turns, its out-buffer, the marks that bound it
    readiness           a client's socket: what is done with it when it is ready
    acceptor            the listener: newcomers, and what to do when there is no place
    reactor             waits, and calls whoever is ready: turns, timers, wakeup
    epoll_backend       epoll itself, level- or edge-triggered, and some facts about it
    selectors_backend   the `selectors` module in its place
    uring               io_uring in its place: completions, and some facts about them
    __main__            the command line, which puts the others together
    system              log, limits, listener: the stages' own functions
    uvloop_server       v4 on libuv's loop; needs nothing of the above

The way of a byte. A segment comes in, and the kernel puts the socket on epoll's ready list.
`Reactor.poll` returns from `Backend.wait` with (descriptor, mask), and calls the `handle` of the
`ReadinessConnection` that is registered under the descriptor. Its `_receive` takes up to READ_SIZE
bytes out of the receive buffer and gives them to `LineProtocol.receive`, which keeps an unfinished
line and returns the whole ones. `Room.say` puts the speaker's name before each, tells the
operator, and adds them to what has been said in this turn. When everyone who was ready has had a
turn, and in a crowd also those who have become ready meanwhile, the reactor calls `before_wait`,
that is `Room.flush`: what was said becomes one batch, and `tell_each` runs through the members,
calling their `transmit`, which is their socket's own send(). The kernel copies the batch into each
send buffer, and the byte is on its way. Where a send buffer is full, the rest stays in the
connection's out-buffer, which asks the reactor about WRITABLE, and `_flush` sends it when there is
space.

Nothing here waits but `Backend.wait`. For a message that comes alone in a room of N that is
1 epoll_wait + 1 recvfrom + (N-1) sendto, whichever back end tells of readiness; a turn in which M
messages come costs M recvfrom at most, and one sendto for each member while they are less than
BATCH_SIZE. On io_uring all of this is one io_uring_enter.
"""
