"""A connection that asks when its socket is ready, and then does what can be done.

After a read the socket is known to be empty only if the read was short and the event carried
neither HANGUP nor URGENT (`epoll_backend` says why). In every other case the connection is
requeued, which is always right: a read too many finds EAGAIN.
"""

import socket
from typing import Any

from lowlevel.connection import NOTHING, READ_SIZE, Connection
from lowlevel.reactor import HANGUP, READABLE, URGENT, WRITABLE, Reactor
from lowlevel.room import Room


class ReadinessConnection(Connection):
    """transmit: the socket's own send() while nothing waits, so that the room's loop runs from C
    to C."""

    __slots__ = ()

    def __init__(self, sock: socket.socket, addr: Any, reactor: Reactor, room: Room):
        super().__init__(sock, addr, reactor, room)
        sock.setblocking(False)
        self.transmit = sock.send

    def open(self) -> None:
        """Come in. OSError: it cannot be watched, and is not in."""
        self._reactor.register(self, self._interest)
        self._room.enter(self)

    def handle(self, mask: int) -> None:
        if self._out_buffer and mask & (WRITABLE | HANGUP):
            self._flush()
        if mask & (READABLE | HANGUP) and self._interest & READABLE:
            self._receive(mask)

    def _receive(self, mask: int) -> None:
        """One turn."""
        data = b""
        if not self._protocol.pending:
            try:
                data = self._sock.recv(READ_SIZE)
            except BlockingIOError:
                return
            except OSError:  # ECONNRESET, ETIMEDOUT: an unfinished line stays unsaid
                self.close()
                return
            if not data:
                self._end()
                return
        drained = 0 < len(data) < READ_SIZE and not mask & (HANGUP | URGENT)
        self._take(data, mask, drained)

    def _flush(self) -> None:
        try:
            sent = self._sock.send(self._out_buffer)
        except BlockingIOError:
            pass
        except OSError as error:
            self._lose(error)
        else:
            del self._out_buffer[:sent]
            if not self._out_buffer:
                self._out_buffer = NOTHING
                self.transmit = self._sock.send
        if self._eof and not self._out_buffer:
            self._leave()
        else:
            self._set_interest()

    def _ask(self) -> None:
        """Level-triggered, what is not asked about now would be reported again and again."""
        self._reactor.modify(self, self._interest)

    def _release(self) -> None:
        self._sock.close()
