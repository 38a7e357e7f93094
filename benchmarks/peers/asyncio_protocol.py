"""The chat room on asyncio: one Protocol for each client, transport.write() for each delivery.

What the kernel does not take waits in the transport's own buffer, without bound.
"""

from __future__ import annotations

import argparse
import asyncio
import resource

room: dict[Chat, None] = {}  # in the order of their coming


class Chat(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport  # with TCP_NODELAY: asyncio sets it
        self.prefix = f"{transport.get_extra_info('peername')} dice: "
        self.rest = b""
        room[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        room.pop(self, None)

    def data_received(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.say(line)

    def eof_received(self) -> None:
        """The transport closes itself afterwards, once what waits for the client is sent."""
        self.say(self.rest)

    def say(self, line: bytes) -> None:
        text = line.removesuffix(b"\r").decode("utf-8", "replace")
        if text:
            message = f"{self.prefix}{text}\n".encode()
            for other in room:
                if other is not self and not other.transport.is_closing():
                    other.transport.write(message)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Chat, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="The chat room on asyncio.")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(serve(port))


if __name__ == "__main__":
    main()
