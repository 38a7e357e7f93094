"""A server that sends back what it gets, on the protocol that browsers speak to v5 with
(`sock_chat.ws`), and with nothing of the chat: for suites that try out a WebSocket.

    python -m tests.web.echo        it prints its port
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from websockets.frames import Frame, Opcode

from sock_chat.chat import Visit
from sock_chat.codec import Control, Input
from sock_chat.frames import FrameDecoder
from sock_chat.link import Reason
from sock_chat.owner import Owner
from sock_chat.session import NEVER, Session
from sock_chat.ws import WebSocket, shake_hands

MAX_SIZE = 1 << 25  # bytes of a message


class Decoder(FrameDecoder):
    """Messages as they come; binary ones are bytes."""

    __slots__ = ("_parts",)
    max_size = MAX_SIZE
    decode = staticmethod(cast(Any, lambda messages: [each.decode() for each in messages]))

    @property
    def in_message(self) -> bool:
        return hasattr(self, "_parts") or super().in_message

    def take(self, frame: Frame, lines: list[Input]) -> None:
        if frame.opcode is Opcode.BINARY:
            self._parts = bytearray()
        elif frame.opcode is not Opcode.CONT or not hasattr(self, "_parts"):
            super().take(frame, lines)
            return
        self._parts += frame.data
        if frame.fin:
            lines.append(cast(Any, bytes(self._parts)))
            del self._parts


class Dialogue:
    """owner.Dialogue."""

    deadline = NEVER
    idle = True

    def __init__(self, connection: Connection):
        self.connection = connection
        self.messages: list[str | bytes | Control] = []
        self.input_ended = False

    def feed(self, messages: list[str | bytes | Control]) -> None:
        self.messages += messages

    def run(self, budget: int) -> float:
        for message in self.messages:
            if not isinstance(message, Control):
                opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
                data = message.encode() if isinstance(message, str) else message
                self.connection.write(Frame(opcode, data).serialize(mask=False))
        self.messages.clear()
        if self.input_ended:
            self.connection.close(Reason.QUIT)
        return NEVER

    def finish_input(self) -> None:
        self.input_ended = True

    def lost(self) -> None:
        pass


class Connection(WebSocket):
    __slots__ = ("head",)
    decoder = Decoder

    def come_in(self, secure: bool) -> None:
        self._begin()
        self.head = b""
        self._dialogue = cast(Any, Dialogue(self))

    def take(self, data: bytes) -> None:
        if self.session:
            super().take(data)
            return
        self.head += data
        if self.head.endswith(b"\r\n\r\n"):
            self.write(shake_hands(self.head)[1])
            self.open(Visit(self.address, secure=True))

    def _enter(self, visit: Visit) -> None:
        self.session = cast(Session, self._dialogue)

    def abort(self, reason: Reason) -> None:
        if reason is not Reason.SLOW:  # a message may be longer than what may wait for a browser
            super().abort(reason)


async def serve() -> asyncio.Server:
    loop = asyncio.get_running_loop()
    turns = SimpleNamespace(reads=0)
    owner = SimpleNamespace(
        loop=loop, turns=turns, admit=lambda connection: True, leave=lambda connection, reason: None
    )
    return await loop.create_server(lambda: Connection(cast(Owner, owner)), "127.0.0.1", 0)


async def main() -> None:
    server = await serve()
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
