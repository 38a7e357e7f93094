"""The chat room on websockets and uvloop: its server, and broadcast() for each message.

A message is a text frame, and so is what the others get of it: `('127.0.0.1', 52344) dice: hola`.
broadcast() makes the frame once for all, and waits for nobody: what the kernel does not take waits
in the transport's own buffer, without bound.
"""

from __future__ import annotations

import argparse
import asyncio
import resource

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

room: dict[ServerConnection, None] = {}  # in the order of their coming


async def chat(connection: ServerConnection) -> None:
    prefix = f"{connection.remote_address} dice: "
    room[connection] = None
    try:
        while True:
            text = await connection.recv(decode=True)
            broadcast([other for other in room if other is not connection], prefix + text)
    except ConnectionClosed:
        pass
    finally:
        del room[connection]


async def run(port: int) -> None:
    async with serve(chat, "127.0.0.1", port, compression=None, backlog=1024) as server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="The chat room on websockets.")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.install()
    asyncio.run(run(port))


if __name__ == "__main__":
    main()
