"""The acceptor: the listener's handler, which lets newcomers in or tells them that it is full."""

import socket
from contextlib import suppress
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM
from typing import Any, Callable

from lowlevel.reactor import READABLE, Reactor

ACCEPTS = 16  # newcomers per turn
NO_RESOURCES = (EMFILE, ENFILE, ENOBUFS, ENOMEM)  # what accept() may fail for
ACCEPT_PAUSE = 0.2  # seconds without accept() after it failed for want of descriptors
FULL = b"servidor lleno\n"


class Acceptor:
    """let_in: makes a client of a socket and its address; OSError: cannot. limit: the lowest
    descriptor that no client gets. say: takes lines about being full."""

    def __init__(
        self,
        listener: socket.socket,
        reactor: Reactor,
        let_in: Callable[[socket.socket, Any], None],
        limit: int,
        say: Callable[[str], None],
    ):
        listener.setblocking(False)
        self._listener = listener
        self._reactor = reactor
        self._let_in = let_in
        self._limit = limit
        self._say = say
        self._full = False

    def open(self) -> None:
        """Accept from now on."""
        self._reactor.register(self, READABLE)

    def fileno(self) -> int:
        return self._listener.fileno()

    def handle(self, mask: int) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, addr = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in NO_RESOURCES:
                    # The newcomer stays in the backlog, the listener stays readable. Without a
                    # pause the wait would return at once, for nothing, for ever.
                    self._say_full(str(error))
                    self._reactor.unregister(self)
                    self._reactor.call_later(ACCEPT_PAUSE, self._reopen)
                    return
                continue  # an error of the newcomer's connection, accept(2)
            if sock.fileno() >= self._limit:
                self._refuse(sock, f"no quedan descriptores por debajo del {self._limit}")
                continue
            try:
                self._let_in(sock, addr)
            except OSError as error:  # ENOSPC: fs.epoll.max_user_watches; ENOMEM
                self._refuse(sock, str(error))
                continue
            self._full = False
        self._reactor.requeue(self, mask)  # there may be more, and no edge for them

    def _reopen(self) -> None:
        try:
            self.open()
        except OSError:  # what was short is short still
            self._reactor.call_later(ACCEPT_PAUSE, self._reopen)

    def _refuse(self, sock: socket.socket, reason: str) -> None:
        with suppress(OSError):
            sock.send(FULL)  # an empty send buffer takes these few bytes at once
        sock.close()
        self._say_full(reason)

    def _say_full(self, reason: str) -> None:
        """Once per episode, which lasts until a newcomer is let in again."""
        if not self._full:
            self._full = True
            self._say(f"Servidor lleno: {reason}")
