"""A connection that speaks lines over TCP: link.Link on an asyncio transport, of either loop.

Reading. The kernel's bytes come READ_SIZE at a time, by way of one buffer for all connections.
While lines wait to be handled (the turn's budget is used up, the rate limit delays, an answer is
awaited, the client does not read, the disk is behind) nothing more is read, so that no client has
more than that in the server. But a loop that does not read sees no end either, neither FIN nor
reset; so the kernel is asked for the state of the connection every LOOK seconds.

Writing. What the kernel does not take waits in the transport. Below LOW_WATER nobody counts it:
`write` is the transport's own. The transport calls pause_writing() when it has more, and until
resume_writing() each write is counted, and the one that passes HIGH_WATER ends the client.

The end. A FIN ends what the client says, and nothing else: it is heard out, for HEARD_OUT seconds.
Whoever is closed gets first what waits for it, for as long, or THROWN_OUT when it has to go.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol, cast

from sock_chat.chat import Chat, Visit
from sock_chat.codec import LINES, Codec, LineDecoder
from sock_chat.limits import is_loopback
from sock_chat.link import HIGH_WATER, LOW_WATER, Kind, Reason
from sock_chat.session import NEVER, Session
from sock_chat.turns import Turns

READ_SIZE = 1 << 14  # bytes of one client's input that are handled before the others' turn
LOOK = 10.0  # seconds between two looks for the end of a client that is not read
HEARD_OUT = 60.0  # seconds at most from a client's FIN, or /quit, to its end
THROWN_OUT = 1.0  # seconds in which who has to go may read why
TCP_CLOSE, TCP_CLOSE_WAIT = 7, 8  # tcp_states.h: reset; the peer has sent its FIN

buffer = bytearray(READ_SIZE)  # it has been emptied before anybody else is read


class Owner(Protocol):
    """What a connection needs of the server."""

    chat: Chat
    loop: asyncio.AbstractEventLoop
    turns: Turns

    def admit(self, connection: Connection) -> bool:
        """Whether come_in() is to be called now. If not, the connection has been closed, or
        another protocol has its transport, and calls it later."""

    def begin_handshake(self, connection: Connection) -> bool:
        """Whether it may come in by TLS, as far as one sees before it has."""

    def enter(self, connection: Connection) -> None:
        """Start the session, or end it instead."""

    def leave(self, connection: Connection, reason: Reason) -> None:
        """The connection is gone, however far it came."""


def drop(data: bytes) -> None:
    """What is written to a connection that is closed."""


class Connection(asyncio.BufferedProtocol):
    __slots__ = (
        "_deadline", "_decoder", "_end", "_expiry", "_input_ended", "_look", "_next", "_owner",
        "_reading", "_reason", "_send", "address", "name", "session", "transport", "write",
    )  # fmt: skip
    codec: Codec = LINES
    kind = Kind.LINES

    def __init__(self, owner: Owner):
        self._owner = owner
        self._decoder = LineDecoder()
        self._reason: Reason | None = None  # why it is closed
        self._reading, self._input_ended = True, False
        self._next: asyncio.Handle | None = None  # the session's next run()
        self._look: asyncio.Handle | None = None  # while it is not read
        self._end: asyncio.Handle | None = None  # aborts what does not end by itself
        self._expiry: asyncio.Handle | None = None  # of the session
        self._deadline = NEVER  # when that is due
        self.session: Session | None = None
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
        self.transport.set_write_buffer_limits(LOW_WATER, LOW_WATER)
        self.write = self._send
        self.session = Session(self._owner.chat, self, Visit(self.address, secure))
        self._owner.enter(self)
        self._keep_deadline()

    def get_buffer(self, sizehint: int) -> bytearray:
        return buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.receive(bytes(memoryview(buffer)[:nbytes]), nbytes == READ_SIZE)

    def receive(self, data: bytes, more: bool) -> None:
        """more: there may be more to read."""
        if self.session and self._reason is None:
            self._owner.turns.reads += 1
            self.session.feed(self._decoder.receive(data))
            self._run(more)

    def eof_received(self) -> bool:
        self.end_input(is_whole=True)
        return True  # it may still be written to

    def end_input(self, is_whole: bool) -> None:
        """is_whole: what follows the last newline is a line."""
        if self.session and self._reason is None and not self._input_ended:
            self._input_ended = True
            if is_whole:
                self.session.feed(self._decoder.finish())
            self.session.finish_input()
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
        session, self.write = self.session, drop
        if session:
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
            self._reason, self.write = reason, drop
            self.transport.close()
            if self.waiting:
                self._hear_out(HEARD_OUT if reason is Reason.QUIT else THROWN_OUT)

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
        session = self.session
        if session is None or self._reason is not None:
            return
        if self._next:
            self._next.cancel()
            self._next = None
        delay = session.run(READ_SIZE)
        if self._reason is not None:
            return
        if session.deadline != self._deadline:
            self._keep_deadline()
        idle = session.idle
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
        if self._expiry:
            self._expiry.cancel()
            self._expiry = None
        assert self.session
        self._deadline = self.session.deadline
        if self._deadline != NEVER:
            delay = self._deadline - self._owner.chat.clock()
            self._expiry = self._owner.loop.call_later(max(0.0, delay), self.session.expire)

    # Reading

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
