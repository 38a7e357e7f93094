"""A connection: one client's socket, what waits for it, and its turns. This is its policy, which
is the same whatever the kernel is asked: a subclass is its driver. `readiness` asks when the socket
is ready, and then receives and sends; `uring.connection` asks to receive and to send, and is
told when it was done.

It stands between the reactor, which tells it that there is something to do, and the room, which
gives it bytes to transmit. It never waits, and nobody waits for it: what the kernel does not take
at once stays in the out-buffer, whose marks bound it.

READ_SIZE bytes are a turn. The protocol may hold lines that were too many for the turn's budget;
then the connection is requeued.
"""

import socket
from typing import Any, Callable, Optional

from lowlevel.protocol import LineProtocol, LineTooLong
from lowlevel.reactor import READABLE, WRITABLE, Reactor
from lowlevel.room import Room

READ_SIZE = 16384  # bytes of one client's input handled before the others get their turn
HIGH_WATER = 1 << 20  # bytes that may wait for a client; with more it is a slow reader
LOW_WATER = 1 << 16  # bytes waiting for a client above which it is not read from
TOO_LONG = "línea demasiado larga"
SLOW = "lector lento"
NOTHING = bytearray()  # the out-buffer of all for whom nothing waits; nobody changes it


class Connection:
    """A member of the room and a handler of the reactor.

    transmit: what the room calls to send while nothing waits, which is up to the driver; it
        appends to the out-buffer while something does; and when the client takes no more it is
        len(), to which everything is off our hands.
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
        self.name = str(addr)
        self.transmit: Callable[[bytes], int] = self._append
        self._sock = sock
        self._reactor = reactor
        self._room = room
        self._protocol = LineProtocol()
        self._out_buffer = NOTHING  # for it, not yet taken by the kernel
        self._interest = READABLE  # what can be done now; 0: it has left
        self._eof = False  # it has sent its last; it leaves when nothing waits for it
        self._lost: Optional[OSError] = None  # why it takes no more

    def fileno(self) -> int:
        return self._sock.fileno()

    # What a driver does.

    def handle(self, mask: int) -> None:
        """What the reactor calls."""
        raise NotImplementedError

    def _waiting(self) -> int:
        """How many bytes wait for it."""
        return len(self._out_buffer)

    def _unhandled(self) -> bool:
        """Whether there is something from it that has been received and not been handled."""
        return self._protocol.pending

    def _flush(self) -> None:
        """Send of what waits for it as much as the kernel takes now."""
        raise NotImplementedError

    def _ask(self) -> None:
        """Ask the kernel for what is in `_interest`, and for nothing else."""
        raise NotImplementedError

    def _release(self) -> None:
        """Ask for nothing more, and close the socket."""
        raise NotImplementedError

    # What comes from the client.

    def _take(self, data: bytes, mask: int, drained: bool) -> None:
        """One turn. drained: there is nothing more for now; else another turn follows, with
        `mask`."""
        try:
            lines = self._protocol.receive(data, READ_SIZE, self._room.cost(self))
        except LineTooLong:
            self.close(TOO_LONG)
            return
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
        if self._waiting():
            self._set_interest()
        else:
            self.close()

    # What goes to it.

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
        if self._waiting() > HIGH_WATER:
            self._flush()  # it may have read since the reactor looked
            if self._waiting() > HIGH_WATER:
                self.close(SLOW)
        else:
            self._set_interest()
        return len(data)

    def _lose(self, error: OSError) -> None:
        """EPIPE: it has closed; ECONNRESET, ETIMEDOUT: the connection broke. Lines that it sent
        before may still wait in the receive buffer, so only reading ends it. The error is told
        once: a read after this one returns EOF in either case."""
        self._lost = error
        self._out_buffer = NOTHING
        self.transmit = len

    def _set_interest(self) -> None:
        """What can be done now and nothing else."""
        waiting = self._waiting()
        interest = 0
        if waiting <= LOW_WATER and not self._eof:
            interest = READABLE
        if waiting:
            interest |= WRITABLE
        if interest == self._interest:
            return
        resumed = interest & ~self._interest & READABLE
        self._interest = interest
        self._ask()
        if resumed and self._unhandled():
            self._reactor.requeue(self, READABLE)  # it is in no receive buffer

    def close(self, reason: str = "") -> None:
        """Leave the room at once; what waits for the client is dropped. It may have left before:
        it may be found a slow reader while its own last words are told."""
        if not self._interest:
            return
        self._interest = 0
        self._out_buffer = NOTHING
        self.transmit = len
        self._reactor.unregister(self)
        self._release()
        self._room.leave(self, reason)
