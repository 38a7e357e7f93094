"""select.epoll itself as a back end, level- or edge-triggered.

Some facts about epoll, epoll(7), which the code above and below this file stands on:

What it is. An epoll instance is a set in the kernel: whom to watch, and a list of those who are
    ready. epoll_ctl(2) changes the first, once per change; a packet that comes in puts a socket on
    the second; epoll_wait(2) takes from it. So an idle connection costs a wait nothing, where
    select(2) hands over and walks through all of them each time.

What is keyed by what. An entry belongs to the pair of descriptor and open file description. A
    close() removes it only when it was the last descriptor of that description: with a dup() or a
    forked child about, events go on coming for a number that here means nothing, or somebody
    else. Therefore remove() before close(), always, and therefore the reactor settles whom an
    event is for before it calls anybody.

Level-triggered. An entry that was reported goes back on the list, and is dropped from it by the
    next epoll_wait() that finds it no longer ready. What is not read is told again: forgetting is
    impossible, and what cannot be dealt with now must be given up by epoll_ctl(), or the loop
    spins.

Edge-triggered, EPOLLET. An entry is put on the list only when something happens to the socket:
    bytes arrive, send buffer is freed, the peer ends. That is an edge; not a change from "not
    readable" to "readable": bytes that join unread ones make one, too. Reported once, it is
    forgotten, whether or not anything was read. So whoever is told must read until nothing is
    left, that is until EAGAIN, or remember that it was not. A read shorter than it was asked to
    be has also found the bottom, and what comes later makes an edge of its own: one call is
    saved. There are two exceptions, and a bit in the event for each. The end may have come
    together with the bytes: bytes and FIN that are there before the wait are one event, the short
    read takes the bytes, and the EOF behind them is never told of again. That client would stay
    for ever. EPOLLRDHUP says so. And a read stops at urgent data, tcp(7), which telnet sends for
    `send synch`, whatever there is behind it. EPOLLPRI says so.

EPOLLRDHUP, EPOLLHUP, EPOLLERR. The peer has sent its last; both directions are closed; the
    connection failed. The last two come unasked. All three say that the end is near, not that
    it is here: what the peer sent before must still be read, and comes first.

EPOLL_CTL_MOD looks again. What is ready at that moment is reported, as if it had just happened:
    that is how interest that was withdrawn comes back without a lost edge, and why add() and
    modify() mean the same in both modes.

EPOLLONESHOT turns an entry off once it was reported; each event then costs an epoll_ctl() to turn
    it on again. It exists for several threads that wait on one instance and must not be given the
    same connection. EPOLLEXCLUSIVE wakes one or more of several instances that watch the same
    listener, and not always all. Here one thread waits on one instance: there is nobody to keep
    apart.
"""

import select
from typing import List, Optional, Tuple

from lowlevel.reactor import HANGUP, READABLE, URGENT, WRITABLE

# The reactor's bits are the kernel's own, so that no event has to be translated.
assert (READABLE, WRITABLE, URGENT) == (select.EPOLLIN, select.EPOLLOUT, select.EPOLLPRI)
assert HANGUP == select.EPOLLERR | select.EPOLLHUP | select.EPOLLRDHUP


class EpollBackend:
    def __init__(self, edge_triggered: bool = False):
        self._epoll = select.epoll()
        # Level-triggered, RDHUP would not go away while a client that has half-closed is still
        # being sent to, nor PRI while nobody takes the urgent byte: the loop would spin. They are
        # not needed there either, what is unread stays READABLE.
        edges = select.EPOLLET | select.EPOLLRDHUP | select.EPOLLPRI
        self._flags = edges if edge_triggered else 0

    def add(self, fd: int, interest: int) -> None:
        self._epoll.register(fd, interest | self._flags)

    def modify(self, fd: int, interest: int) -> None:
        self._epoll.modify(fd, interest | self._flags)

    def remove(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def wait(self, timeout: Optional[float]) -> List[Tuple[int, int]]:
        return self._epoll.poll(timeout)

    def close(self) -> None:
        self._epoll.close()
