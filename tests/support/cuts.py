"""A network between a server and its clients that fails when it is told to."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from benchmarks.harness.process import DEADLINE


class End(asyncio.Protocol):
    """One end of a connection through the network; peer: the other one, None at the client's until
    the server has been reached."""

    def __init__(self, network: Network, peer: End | None = None):
        self.network = network
        self.peer = peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.network.ends.add(self)
        if self.peer:
            self.peer.peer = self
            self.peer.transport.resume_reading()
        else:
            transport.pause_reading()
            self.reaching = asyncio.ensure_future(self.reach())

    async def reach(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: End(self.network, self), *self.network.server
            )
        except OSError:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.peer and not self.network.asleep:
            self.peer.transport.write(self.network.let_through(data))

    def connection_lost(self, error: Exception | None) -> None:
        self.network.ends.discard(self)
        if self.peer and not self.network.asleep:
            self.peer.transport.close()

    def reset(self) -> None:
        """End it with an RST: SO_LINGER with time 0, socket(7)."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class Network:
    """Between `address`, where clients connect, and a server.

    asleep: nothing gets through, and nobody is told, as when a laptop's lid is shut.
    """

    def __init__(self, server: tuple[Any, ...]):
        self.server = server[:2]
        self.ends: set[End] = set()
        self.asleep = False
        self.cuts = 0
        self._left: int | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Network:
        self._thread.start()
        self._listen(0)
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()
        self._do(lambda: self._loop.call_later(0, self._loop.stop))
        self._thread.join(DEADLINE)
        self._loop.close()

    def shut(self) -> None:
        """Cut all connections, and let nobody connect."""

        def shut() -> None:
            self._listener.close()
            self._reset()

        self._do(shut)

    def open(self) -> None:
        """Let clients connect again, at the same address."""
        self._listen(self.address[1])

    def cut(self) -> None:
        """Cut all connections, with an RST to both sides."""
        self._do(self._reset)

    def cut_after(self, count: int) -> None:
        """Cut all connections when so many bytes more have got through, whoever sends them."""

        def begin() -> None:
            self._left = count

        self._do(begin)

    def let_through(self, data: bytes) -> bytes:
        """Of what one side sends, what reaches the other."""
        if self._left is None:
            return data
        data, self._left = data[: self._left], self._left - len(data)
        if self._left <= 0:
            self._left = None
            self._loop.call_soon(self._reset)
        return data

    def _reset(self) -> None:
        self.cuts += bool(self.ends)
        for end in list(self.ends):
            end.reset()

    def _listen(self, port: int) -> None:
        async def listen() -> None:
            self._listener = await self._loop.create_server(lambda: End(self), "127.0.0.1", port)

        asyncio.run_coroutine_threadsafe(listen(), self._loop).result(DEADLINE)
        self.address: tuple[str, int] = self._listener.sockets[0].getsockname()

    def _do(self, call: Callable[[], object]) -> None:
        async def turn() -> None:
            call()

        asyncio.run_coroutine_threadsafe(turn(), self._loop).result(DEADLINE)
