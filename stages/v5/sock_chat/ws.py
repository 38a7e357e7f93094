"""A connection that speaks WebSocket: frames in, a codec's frames out, pings, and the end.

The closing handshake. Whoever ends it, the last frame that goes out is a close frame, after all
that waits for the client; then the stream is ended, and what the client still sends is dropped
until it ends its own, or for THROWN_OUT seconds. To close the socket at once would reset it if the
client has just sent something, and what it has not read yet would be lost.

Pings. A browser that has vanished without a word is found by a ping that it does not answer. One
timer sends them for all, spread over PING_TIME, so that many idle browsers cause few wakeups.
"""

from __future__ import annotations

import asyncio

from websockets.http11 import Request
from websockets.server import ServerProtocol

from sock_chat import frames
from sock_chat.chat import Visit
from sock_chat.connection import HEARD_OUT, THROWN_OUT, Connection
from sock_chat.frames import PING, WEB, FrameDecoder, close_frame
from sock_chat.link import Kind, Reason
from sock_chat.owner import Owner

PING_TIME = 20.0  # seconds from ping to ping
SLOTS = 40  # groups that are pinged one after the other
CODES = {
    Reason.QUIT: frames.NORMAL,
    Reason.STOPPING: frames.GOING_AWAY,
    Reason.NO_BUS: frames.GOING_AWAY,
    Reason.SLOW: frames.SLOW,
}  # for the others: POLICY


def shake_hands(head: bytes) -> tuple[int, bytes]:
    """Status and bytes of the answer to a request to open a WebSocket. No extension is taken:
    what goes out is the same for all."""
    protocol = ServerProtocol()
    protocol.receive_data(head)
    status = 400
    for request in protocol.events_received():
        assert isinstance(request, Request)
        response = protocol.accept(request)
        protocol.send_response(response)
        status = response.status_code
    return status, b"".join(protocol.data_to_send())


class Pings:
    """Whoever has joined is pinged, and aborted when it does not answer."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop
        self._groups: list[set[WebSocket]] = [set() for _ in range(SLOTS)]
        self._next = 0  # group that is pinged
        self._count = 0
        self._joined = 0  # ever
        self._timer: asyncio.Handle | None = None

    def join(self, connection: WebSocket) -> None:
        connection.group = self._joined % SLOTS
        self._groups[connection.group].add(connection)
        self._joined += 1
        self._count += 1
        if self._timer is None:
            self._timer = self.loop.call_later(PING_TIME / SLOTS, self._ping)

    def leave(self, connection: WebSocket) -> None:
        if connection in self._groups[connection.group]:
            self._groups[connection.group].remove(connection)
            self._count -= 1

    def _ping(self) -> None:
        for connection in list(self._groups[self._next]):
            connection.ping()
        self._next = (self._next + 1) % SLOTS
        self._timer = None
        if self._count:
            self._timer = self.loop.call_later(PING_TIME / SLOTS, self._ping)


class WebSocket(Connection):
    """The part of it that is a WebSocket; it begins with open()."""

    __slots__ = ("_frames", "_heard", "group")
    codec = WEB
    kind = Kind.BROWSER
    decoder = FrameDecoder

    _frames: FrameDecoder

    def __init__(self, owner: Owner):
        super().__init__(owner)
        self._heard = True  # since the last ping
        self.group = 0  # of Pings

    def open(self, visit: Visit) -> None:
        self._frames = self.decoder()
        self._enter(visit)

    def take(self, data: bytes) -> None:
        assert self.session
        self._heard = True
        if self._input_ended:
            return
        decoder = self._frames
        self.session.feed(decoder.receive(data))
        if decoder.answers:
            self.write(decoder.answers)
            decoder.answers = b""
        if decoder.code:
            self.end_input(is_whole=True)

    def ping(self) -> None:
        """Whoever has not been read, or has not even got the last one, is not dead for that."""
        if self._reason is None and self._reading:
            if not self._heard:
                self.abort(Reason.DEAD)
                return
            self._heard = False
            self.write(PING)

    def abort(self, reason: Reason) -> None:
        """A slow reader may still learn why, if it reads."""
        if reason is Reason.SLOW and self._reason is None and self.session:
            self.close(reason)
            self._owner.loop.call_soon(self.session.lost)  # the room is being told something
        else:
            super().abort(reason)

    def close(self, reason: Reason) -> None:
        if self.session and reason is Reason.QUIT and self._frames.failed:
            reason = Reason.BAD_FRAME
        super().close(reason)

    def say_goodbye(self, reason: Reason) -> None:
        if self.session:
            code = self._frames.code or CODES.get(reason, frames.POLICY)
            self._send(close_frame(code, reason.value))

    def _shut(self) -> None:
        if self._fin or self._reason is Reason.FULL:
            super()._shut()
            return
        self.transport.write_eof()
        if not self._reading:  # what follows is dropped
            self._input_ended = False
            self._read(True)
        patient = self.waiting and self._reason is Reason.QUIT
        self._hear_out(HEARD_OUT if patient else THROWN_OUT)
