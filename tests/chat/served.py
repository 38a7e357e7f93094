"""A World behind a TCP port, for clients that are processes of their own."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from typing import TypeVar

from benchmarks.harness.process import DEADLINE
from sock_chat.link import Reason
from tests.chat.world import World

T = TypeVar("T")


class Connection(asyncio.Protocol):
    def __init__(self, served: Served):
        self.served = served

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.client = self.served.world.connect()
        self.served.connections.append(self)
        self.served.turn()

    def data_received(self, data: bytes) -> None:
        self.client.session.feed(self.client.decoder.receive(data))
        self.served.turn()

    def eof_received(self) -> bool:
        self.client.session.feed(self.client.decoder.finish())
        self.client.session.finish_input()
        self.served.turn()
        return self.client.closed is None

    def connection_lost(self, error: Exception | None) -> None:
        self.client.abort(Reason.QUIT)
        self.served.connections.remove(self)
        self.served.turn()

    def send(self) -> None:
        self.transport.write(b"".join(self.client.writes[self.client.seen :]))
        self.client.seen = len(self.client.writes)
        if self.client.closed is not None:
            self.transport.close()


class Served:
    """It lives in a thread of its own, and so does the world: do() is the way to it."""

    def __init__(self, world: World, tls: ssl.SSLContext | None = None):
        self.world = world
        self.tls = tls
        self.connections: list[Connection] = []
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Served:
        self.thread.start()
        self.port = 0
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()
        self.do(self.cut)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(DEADLINE)
        self.loop.close()

    def do(self, call: Callable[[], T]) -> T:
        """Call it between two turns."""

        async def turn() -> T:
            try:
                return call()
            finally:
                self.turn()

        return asyncio.run_coroutine_threadsafe(turn(), self.loop).result(DEADLINE)

    def turn(self) -> None:
        self.world.turn()
        for connection in self.connections:
            connection.send()

    def open(self) -> None:
        """Accept connections, on the same port each time."""

        async def listen() -> asyncio.Server:
            return await self.loop.create_server(
                lambda: Connection(self), "127.0.0.1", self.port, ssl=self.tls
            )

        self.server = asyncio.run_coroutine_threadsafe(listen(), self.loop).result(DEADLINE)
        self.port = self.server.sockets[0].getsockname()[1]

    def shut(self) -> None:
        self.do(self.server.close)

    def cut(self) -> None:
        """For do(): end all connections without a word, as a network does."""
        for connection in self.connections:
            connection.transport.abort()
