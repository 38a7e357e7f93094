"""A connection: one client's socket, what waits for it, and its turns.

It stands between the reactor, which tells it that the socket is ready, and the room, which gives
it bytes to transmit. It never waits, and nobody waits for it: what the kernel does not take at
once stays in the out-buffer, whose marks bound it.

One read of READ_SIZE bytes is a turn. After it the socket is known to be empty only if the read
was short and the event carried neither HANGUP nor URGENT (`epoll_backend` says why), and the
protocol may hold lines that were too many for the turn's budget. In every other case the
connection is requeued, which is always right: a read too many finds EAGAIN.
"""

import socket
from typing import Any, Callable, Optional

from lowlevel.protocol import LineProtocol, LineTooLong
from lowlevel.reactor import HANGUP, READABLE, URGENT, WRITABLE, Reactor
from lowlevel.room import Room

READ_SIZE = 16384  # bytes of one client's input handled before the others get their turn
HIGH_WATER = 1 << 20  # bytes that may wait for a client; with more it is a slow reader
LOW_WATER = 1 << 16  # bytes waiting for a client above which it is not read from
TOO_LONG = "línea demasiado larga"
SLOW = "lector lento"
NOTHING = bytearray()  # the out-buffer of all for whom nothing waits; nobody changes it


class Connection:
    """A member of the room and a handler of the reactor.

    transmit: what the room calls to send. It is the socket's own send() while nothing waits, so
        that the room's loop runs from C to C; it appends to the out-buffer while something does;
        and when the client takes no more it is len(), to which everything is off our hands.
    """

    __slots__ = (
        "_eof",
        "_interest",
        "_lost",
        "_out_buffer",
        "_protocol",
        "_reactor",
        "_room",
        "_sock",
        "name",
        "transmit",
    )

    def __init__(self, sock: socket.socket, addr: Any, reactor: Reactor, room: Room):
        sock.setblocking(False)
        self.name = str(addr)
        self.transmit: Callable[[bytes], int] = sock.send
        self._sock = sock
        self._reactor = reactor
        self._room = room
        self._protocol = LineProtocol()
        self._out_buffer = NOTHING  # for it, not yet taken by the kernel
        self._interest = READABLE  # what the reactor asks about; 0: it has left
        self._eof = False  # it has sent its last; it leaves when the out-buffer is empty
        self._lost: Optional[OSError] = None  # why it takes no more

    def open(self) -> None:
        """Come in. OSError: it cannot be watched, and is not in."""
        self._reactor.register(self, self._interest)
        self._room.enter(self)

    def fileno(self) -> int:
        return self._sock.fileno()

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
        try:
            lines = self._protocol.receive(data, READ_SIZE, self._room.cost(self))
        except LineTooLong:
            self.close(TOO_LONG)
            return
        drained = 0 < len(data) < READ_SIZE and not mask & (HANGUP | URGENT)
        if not drained or self._protocol.pending:
            self._reactor.requeue(self, mask)
        if lines:
            self._room.say(self, lines)

    def _end(self) -> None:
        """EOF: the last line needs no newline, and what waits for the client is still sent."""
        self._eof = True
        if self._lost is None or isinstance(self._lost, BrokenPipeError):
            last = self._protocol.finish()
            if last:
                self._room.say(self, last)
        self._leave()

    def _leave(self) -> None:
        """Leave once nothing waits for it, and what the others have said in this turn does."""
        self._room.flush()
        if self._out_buffer:
            self._set_interest()
        else:
            self.close()

    def fell_short(self, data: bytes, sent: int, error: Optional[OSError] = None) -> None:
        """The kernel has taken a part of the data only: keep the rest, in order, once."""
        if error and not isinstance(error, BlockingIOError):
            self._lose(error)
            return
        self._out_buffer = bytearray(data[sent:])
        self.transmit = self._append
        self._set_interest()

    def _append(self, data: bytes) -> int:
        self._out_buffer += data
        if len(self._out_buffer) > HIGH_WATER:
            self._flush()  # it may have read since the reactor looked
            if len(self._out_buffer) > HIGH_WATER:
                self.close(SLOW)
        else:
            self._set_interest()
        return len(data)

    def _flush(self) -> None:
        """Send of what waits for it as much as the kernel takes now."""
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

    def _lose(self, error: OSError) -> None:
        """EPIPE: it has closed; ECONNRESET, ETIMEDOUT: the connection broke. Lines that it sent
        before may still wait in the receive buffer, so only reading ends it. The error is told
        once: a recv() after this one returns EOF in either case."""
        self._lost = error
        self._out_buffer = NOTHING
        self.transmit = len

    def _set_interest(self) -> None:
        """Ask about what can be done now and nothing else: level-triggered, the rest would be
        reported again and again."""
        interest = 0
        if len(self._out_buffer) <= LOW_WATER and not self._eof:
            interest = READABLE
        if self._out_buffer:
            interest |= WRITABLE
        if interest == self._interest:
            return
        resumed = interest & ~self._interest & READABLE
        self._interest = interest
        self._reactor.modify(self, interest)
        if resumed and self._protocol.pending:
            self._reactor.requeue(self, READABLE)  # these lines are in no receive buffer

    def close(self, reason: str = "") -> None:
        """Leave the room at once; what waits for the client is dropped. It may have left before:
        it may be found a slow reader while its own last words are told."""
        if not self._interest:
            return
        self._interest = 0
        self._out_buffer = NOTHING
        self.transmit = len
        self._reactor.unregister(self)
        self._sock.close()
        self._room.leave(self, reason)
