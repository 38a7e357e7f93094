"""The chat room on Tornado: a coroutine and an IOStream for each client.

What the kernel does not take waits in the IOStream's own buffer, without bound.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
from typing import Any

from tornado.iostream import IOStream, StreamClosedError
from tornado.tcpserver import TCPServer

room: dict[IOStream, None] = {}  # in the order of their coming


def say(sender: IOStream, prefix: str, line: bytes) -> None:
    text = line.removesuffix(b"\r").decode("utf-8", "replace")
    if text:
        message = f"{prefix}{text}\n".encode()
        for stream in room:
            if stream is not sender and not stream.closed():
                stream.write(message)  # the Future tells when it is sent; nobody waits for it


class ChatServer(TCPServer):
    async def handle_stream(self, stream: IOStream, address: Any) -> None:
        stream.set_nodelay(True)
        prefix = f"{address} dice: "
        rest = b""
        room[stream] = None
        try:
            while True:
                # Not read_until(): what is unfinished when the stream closes would be lost.
                data = await stream.read_bytes(65536, partial=True)
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    say(stream, prefix, line)
        except StreamClosedError as closed:
            if closed.real_error is None:  # EOF; a reset leaves the last line unsaid
                say(stream, prefix, rest)
        finally:
            room.pop(stream, None)


async def serve(port: int) -> None:
    server = ChatServer()
    server.listen(port, "127.0.0.1", backlog=1024)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="The chat room on Tornado.")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(serve(port))


if __name__ == "__main__":
    main()
