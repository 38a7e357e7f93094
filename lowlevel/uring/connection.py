"""A connection that asks to receive and to send, and is told when it was done.

READABLE in its interest is a receive that is armed, WRITABLE a send that is under way. What comes
is there whether or not it is wanted: it is kept, and handled a turn of READ_SIZE bytes at a time;
with more than that unhandled, the receive is cancelled until it has been.
"""

import os
import socket
from errno import EAGAIN, ECANCELED, EINTR, ENOBUFS
from typing import Any, Optional

from lowlevel.connection import READ_SIZE, Connection
from lowlevel.reactor import READABLE, Reactor
from lowlevel.room import Room
from lowlevel.uring.completion import Completions
from lowlevel.uring.teller import RingTeller

IDLE, ARMED, CANCELLED = range(3)  # a receive; cancelled, it may still bring something
NOT_AN_END = (-ECANCELED, -ENOBUFS)  # we wanted it so; no buffer was left
NOT_AN_ERROR = (-EAGAIN, -EINTR)


class CompletionConnection(Connection):
    """transmit: appends, always. While nothing waits for it the teller sends."""

    __slots__ = (
        "_completions",
        "_input",
        "_over",
        "_receiving",
        "_result",
        "_sending",
        "_start",
        "_teller",
        "key",
        "place",
    )

    def __init__(
        self,
        sock: socket.socket,
        addr: Any,
        reactor: Reactor,
        room: Room,
        completions: Completions,
        teller: RingTeller,
    ):
        super().__init__(sock, addr, reactor, room)
        self._completions = completions
        self._teller = teller
        self._input = b""  # received, not yet handled
        self._over: Optional[int] = None  # how receiving has ended: 0, or a negative errno
        self._receiving = IDLE
        self._sending: Optional[bytes] = None  # the part of what waits for it that is under way
        self._start = 0  # from where in it
        self._result: Optional[int] = None  # of that send, when it has completed
        self.key = 0
        self.place = -1  # among those whom the teller tells

    def open(self) -> None:
        """Come in."""
        self._reactor.register(self, 0)
        self.key = self._completions.attach(self)
        self._ask()
        self._room.enter(self)
        self._teller.add(self)

    # What the completions bring.

    def received(self, data: bytes) -> None:
        self._input = self._input + data if self._input else data
        if len(self._input) > READ_SIZE:
            self._ask()

    def receive_over(self, result: int) -> None:
        self._receiving = IDLE
        if result <= 0 and result not in NOT_AN_END:
            self._over = result
        self._ask()

    def out_buffer_sent(self, result: int) -> None:
        self._result = result

    def tell_fell_short(self, result: int) -> None:
        data = self._teller.last_sent_to(self)
        self._teller.fall_behind(self)
        if result < 0:
            self.fell_short(data, 0, OSError(-result, os.strerror(-result)))
        else:
            self.fell_short(data, result)
        self._ask()  # it may have wanted to send before, and nothing is under way now

    # What a driver does.

    def handle(self, mask: int) -> None:
        if self._result is not None:
            self._flush()
        if mask & READABLE and self._interest & READABLE:
            self._turn(mask)

    def _turn(self, mask: int) -> None:
        data = b""
        if not self._protocol.pending:
            if not self._input:
                if self._over == 0:
                    self._end()
                elif self._over:  # ECONNRESET, ETIMEDOUT: an unfinished line stays unsaid
                    self.close()
                return
            data, self._input = self._input[:READ_SIZE], self._input[READ_SIZE:]
            if self._receiving != ARMED:
                self._ask()
        self._take(data, mask, not self._input and self._over is None)

    def _unhandled(self) -> bool:
        return super()._unhandled() or bool(self._input) or self._over is not None

    def _waiting(self) -> int:
        under_way = len(self._sending) - self._start if self._sending else 0
        return under_way + len(self._out_buffer)

    def _flush(self) -> None:
        """It is under way. What is left to do is to look at what has become of it."""
        result, self._result = self._result, None
        if result is None:
            return
        if result < 0 and result not in NOT_AN_ERROR:
            self._lose(OSError(-result, os.strerror(-result)))
        else:
            self._start += max(result, 0)
            self._send()
        if self._eof and not self._waiting():
            self._leave()
        else:
            self._set_interest()

    def _send(self) -> None:
        """Send the next part of what waits for it; when nothing does, it is told by the teller."""
        if self._sending is None or self._start == len(self._sending):
            self._sending, self._start = None, 0
            if not self._out_buffer:
                self._teller.add(self)
                return
            self._sending, self._out_buffer = bytes(self._out_buffer), bytearray()
        self._completions.send_out_buffer(self.key, self.fileno(), self._sending, self._start)

    def _ask(self) -> None:
        wanted = self._interest & READABLE and self._over is None and len(self._input) <= READ_SIZE
        if wanted and self._receiving == IDLE:
            self._completions.receive(self.key, self.fileno())
            self._receiving = ARMED
        elif not wanted and self._receiving == ARMED:
            self._completions.stop_receiving(self.key)
            self._receiving = CANCELLED
        if self._out_buffer and self._sending is None:
            self._send()

    def _leave(self) -> None:
        self._room.flush()
        self._completions.settle()  # it may fall short of that
        super()._leave()

    def _lose(self, error: OSError) -> None:
        super()._lose(error)
        self._sending = None
        self._teller.remove(self)

    def _release(self) -> None:
        self._teller.remove(self)
        self._completions.release(self.key, self._sock.detach(), self._receiving == ARMED)
