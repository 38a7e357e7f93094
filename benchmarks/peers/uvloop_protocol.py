"""The chat room on uvloop: one Protocol for each client, transport.write() for each delivery.

With --coalesce all that is said in one turn of the loop becomes one log, and call_soon() sends it
at the end of the turn: everyone who said nothing gets the same bytes object, who spoke gets the log
without its own part. What the kernel does not take waits in the transport's own buffer, without
bound.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
from typing import ClassVar, cast

import uvloop

room: dict[Chat, None] = {}  # in the order of their coming


class Chat(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # with TCP_NODELAY: uvloop sets it
        self.prefix = f"{transport.get_extra_info('peername')} dice: "
        self.rest = b""
        self.enter()

    def enter(self) -> None:
        room[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        room.pop(self, None)

    def data_received(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        messages = map(self.message, lines)
        self.say([message for message in messages if message])

    def eof_received(self) -> None:
        """The transport closes itself afterwards, once what waits for the client is sent."""
        message = self.message(self.rest)
        self.say([message] if message else [])

    def message(self, line: bytes) -> bytes:
        text = line.removesuffix(b"\r").decode("utf-8", "replace")
        return f"{self.prefix}{text}\n".encode() if text else b""

    def say(self, messages: list[bytes]) -> None:
        for message in messages:
            for other in room:
                if other is not self and not other.transport.is_closing():
                    other.transport.write(message)


class CoalescingChat(Chat):
    said: ClassVar[list[tuple[Chat, bytes]]] = []  # in this turn, by all of them

    def enter(self) -> None:
        self.tell()  # it has not heard what was said before it came
        super().enter()

    def say(self, messages: list[bytes]) -> None:
        if messages:
            if not self.said:
                asyncio.get_running_loop().call_soon(self.tell)
            self.said.append((self, b"".join(messages)))

    @classmethod
    def tell(cls) -> None:
        said, cls.said = cls.said, []
        if not said:
            return
        log = b"".join(part for _, part in said)
        speakers = {speaker for speaker, _ in said}
        for chat in room:
            if chat.transport.is_closing():
                continue
            if chat not in speakers:
                chat.transport.write(log)
            elif len(speakers) > 1:
                chat.transport.write(b"".join(part for who, part in said if who is not chat))


async def serve(port: int, chat: type[Chat]) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(chat, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="The chat room on uvloop.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--coalesce", action="store_true", help="one write per client and turn")
    arguments = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.install()
    asyncio.run(serve(arguments.port, CoalescingChat if arguments.coalesce else Chat))


if __name__ == "__main__":
    main()
