"""The chat room on aiohttp and uvloop: for each client one task that reads, and one that writes.

A message is a text frame, and so is what the others get of it: `('127.0.0.1', 52344) dice: hola`.
What is to be written waits in a list, without bound, so nobody waits for anybody.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource

import uvloop
from aiohttp import WSMsgType, web


class Client:
    def __init__(self, socket: web.WebSocketResponse):
        self.socket = socket
        self.messages: list[bytes] = []  # that are to be written
        self.wakeup = asyncio.Event()

    def send(self, message: bytes) -> None:
        self.messages.append(message)
        self.wakeup.set()

    async def write(self) -> None:
        with contextlib.suppress(ConnectionResetError):
            while True:
                await self.wakeup.wait()
                self.wakeup.clear()
                messages, self.messages = self.messages, []
                for message in messages:
                    await self.socket.send_frame(message, WSMsgType.TEXT)


room: dict[Client, None] = {}  # in the order of their coming


async def chat(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False, max_msg_size=4096)
    await socket.prepare(request)
    assert request.transport
    prefix = f"{request.transport.get_extra_info('peername')} dice: "
    client = Client(socket)
    writer = asyncio.create_task(client.write())
    room[client] = None
    try:
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                encoded = f"{prefix}{message.data}".encode()
                for other in room:
                    if other is not client:
                        other.send(encoded)
    finally:
        del room[client]
        writer.cancel()
    return socket


def main() -> None:
    parser = argparse.ArgumentParser(description="The chat room on aiohttp.")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.install()
    app = web.Application()
    app.router.add_get("/ws", chat)
    web.run_app(app, host="127.0.0.1", port=port, backlog=1024, access_log=None, print=None)


if __name__ == "__main__":
    main()
