"""What every connection does, whatever it speaks: link.Link on a transport of either loop.

Reading. The kernel's bytes come READ_SIZE at a time, by way of one buffer for all connections.
While input waits to be handled (the turn's budget is used up, the rate limit delays, an answer is
awaited, the client does not read, the disk is behind) nothing more is read. But a loop that does
not read sees neither FIN nor reset; so the kernel is asked for the state every LOOK seconds.

Writing. What the kernel does not take waits in the transport. Below LOW_WATER nobody counts it:
`write` is the transport's own. From pause_writing(), when it has more, until resume_writing() each
write is counted, and the one that passes HIGH_WATER ends the client.

A FIN ends what the client says, and nothing else: it is heard out, for HEARD_OUT seconds. Whoever
is closed gets first what waits for it, for as long, or THROWN_OUT when it has to go.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from sock_chat.chat import Visit
from sock_chat.codec import LINES, Codec
from sock_chat.limits import is_loopback
from sock_chat.link import HIGH_WATER, LOW_WATER, Kind, Reason
from sock_chat.owner import Dialogue, Owner
from sock_chat.session import NEVER, Session

READ_SIZE = 1 << 14  # bytes of one client's input that are handled before the others' turn
LOOK = 10.0  # seconds between two looks for the end of a client that is not read
HEARD_OUT = 60.0  # seconds at most from a client's FIN, or /quit, to its end
THROWN_OUT = 1.0  # seconds in which who has to go may read why
TCP_CLOSE, TCP_CLOSE_WAIT = 7, 8  # tcp_states.h: reset; the peer has sent its FIN

buffer = bytearray(READ_SIZE)  # it has been emptied before anybody else is read


def drop(data: bytes) -> None:
    """What is written to a connection that is closed."""


class Connection(asyncio.BufferedProtocol):
    """What speaks lines or HTTP is made of it, by come_in() and take()."""

    __slots__ = (
        "_deadline", "_dialogue", "_end", "_expiry", "_fin", "_input_ended", "_layer", "_look",
        "_next", "_owner", "_reading", "_reason", "_send", "address", "name", "session",
        "transport", "write",
    )  # fmt: skip
    codec: Codec = LINES
    kind = Kind.LINES
    full = b"servidor lleno\n"  # what it is told where there is no place for it
    proxy_header = True  # whether a proxy says by the PROXY protocol who is behind it

    def __init__(self, owner: Owner):
        self._owner = owner
        self._reason: Reason | None = None  # why it is closed
        self._reading, self._input_ended, self._fin = True, False, False
        self._next: asyncio.Handle | None = None  # the next run() of the dialogue
        self._look: asyncio.Handle | None = None  # while it is not read
        self._end: asyncio.Handle | None = None  # aborts what does not end by itself
        self._expiry: asyncio.Handle | None = None  # of the dialogue
        self._deadline = NEVER  # when that is due
        self._dialogue: Dialogue | None = None
        self.session: Session | None = None  # it is the dialogue
        self.write: Callable[[bytes], object] = drop
        self._send: Callable[[bytes], object]  # what `write` is in good times

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._send = self.transport.write
        peer = transport.get_extra_info("peername")
        self.name, self.address = str(peer), peer[0] if peer else ""
        if not peer:  # reset before anybody has asked for its name
            self.transport.abort()
        elif self._owner.admit(self):
            self.come_in(secure=is_loopback(self.address))

    def come_in(self, secure: bool) -> None:
        """name and address are known, and whether nobody else can read what it sends."""
        raise NotImplementedError

    def take(self, data: bytes) -> None:
        """Give input to the dialogue."""

    def take_rest(self) -> None:
        """The end of the stream completes what has come in part."""

    def _begin(self) -> None:
        self.transport.set_write_buffer_limits(LOW_WATER, LOW_WATER)
        self.write = self._send

    def _enter(self, visit: Visit) -> None:
        self._dialogue = self.session = Session(self._owner.chat, self, visit)
        self._owner.enter(self)
        self._keep_deadline()

    def get_buffer(self, sizehint: int) -> bytearray:
        return buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.receive(bytes(memoryview(buffer)[:nbytes]), nbytes == READ_SIZE)

    def receive(self, data: bytes, more: bool) -> None:
        """more: there may be more to read."""
        if self._dialogue and self._reason is None:
            self._owner.turns.reads += 1
            self.take(data)
            self._run(more)

    def eof_received(self) -> bool:
        self._fin = True
        self.end_input(is_whole=True)
        return self._reason is None  # it may still be written to

    def end_input(self, is_whole: bool) -> None:
        """is_whole: nobody has cut off what came last."""
        if self._dialogue and self._reason is None and not self._input_ended:
            self._input_ended = True
            if is_whole:
                self.take_rest()
            self._dialogue.finish_input()
            self._hear_out(HEARD_OUT)
            self._run()

    def pause_writing(self) -> None:
        self.write = self._write_counted
        self._count()

    def resume_writing(self) -> None:
        if self._reason is None:
            self.write = self._send
            self.wake()  # a write may have brought this about, and others are to come

    def connection_lost(self, error: Exception | None) -> None:
        self.write = drop
        if session := self.session:
            # What was read before a reset counts, as far as the limits allow.
            while self._reason is None and session.run(READ_SIZE) == 0.0:
                pass
            session.lost()
        self._reason = self._reason or Reason.QUIT
        for handle in (self._next, self._look, self._end, self._expiry):
            if handle:
                handle.cancel()
        self._owner.leave(self, self._reason)

    # link.Link

    @property
    def waiting(self) -> int:
        return self.transport.get_write_buffer_size()

    def abort(self, reason: Reason) -> None:
        self._reason, self.write = self._reason or reason, drop
        self.transport.abort()

    def close(self, reason: Reason) -> None:
        if self._reason is None:
            self.say_goodbye(reason)
            self._reason, self.write = reason, drop
            self._shut()
            if self.waiting:
                self._hear_out(HEARD_OUT if reason is Reason.QUIT else THROWN_OUT)

    def say_goodbye(self, reason: Reason) -> None:
        """Write what goes out last of all."""

    def _shut(self) -> None:
        """No more will be written."""
        self.transport.close()

    def wake(self) -> None:
        if self._reason is None:
            self._run_in(0.0)

    def _write_counted(self, data: bytes) -> None:
        self._send(data)
        self._count()

    def _count(self) -> None:
        if self._reason is None and self.waiting > HIGH_WATER:
            self.abort(Reason.SLOW)

    def _run(self, more: bool = False) -> None:
        """more: there may be more to read. It waits for the next turn of the loop, for libuv would
        read on at once."""
        if self._dialogue is None or self._reason is not None:
            return
        if self._next:
            self._next.cancel()
            self._next = None
        delay = self._dialogue.run(READ_SIZE)
        if self._reason is not None:
            return
        if self._dialogue.deadline != self._deadline:
            self._keep_deadline()
        idle = self._dialogue.idle
        if delay != NEVER or (more and idle):
            self._run_in(0.0 if more and idle else delay)
            self._read(False)
        else:
            self._read(idle)

    def _run_in(self, delay: float) -> None:
        if self._next:
            self._next.cancel()
        loop = self._owner.loop
        self._next = loop.call_later(delay, self._run) if delay else loop.call_soon(self._run)

    def _keep_deadline(self) -> None:
        assert self._dialogue
        if self._expiry:
            self._expiry.cancel()
            self._expiry = None
        self._deadline = self._dialogue.deadline
        if self._deadline != NEVER:
            delay = self._deadline - self._owner.chat.clock()
            self._expiry = self._owner.loop.call_later(max(0.0, delay), self._dialogue.expire)

    def _read(self, wanted: bool) -> None:
        if wanted == self._reading:
            return
        self._reading = wanted
        if self._look:
            self._look.cancel()
            self._look = None
        if not wanted:
            self.transport.pause_reading()
            self._look = self._owner.loop.call_later(LOOK, self._look_for_end)
        elif not self._input_ended:
            self.transport.resume_reading()

    def _look_for_end(self) -> None:
        self._look = self._owner.loop.call_later(LOOK, self._look_for_end)
        sock = self.transport.get_extra_info("socket")
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if state == TCP_CLOSE:
            self.transport.abort()
        elif state == TCP_CLOSE_WAIT:
            self._hear_out(HEARD_OUT)

    def _hear_out(self, seconds: float) -> None:
        """The end, whatever still waits then."""
        if seconds < HEARD_OUT and self._end:
            self._end.cancel()
            self._end = None
        if self._end is None:
            self._end = self._owner.loop.call_later(seconds, self.transport.abort)
