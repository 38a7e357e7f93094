"""A link to a NATS that fails as it is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from benchmarks.harness.process import DEADLINE


class Link:
    """A TCP proxy to a NATS, in a loop of its own or in the running one."""

    def __init__(self, port: int):
        self.target = port
        self.delay = 0.0
        self.passes = asyncio.Event()
        self.passes.set()
        self.is_open = True
        self.writers: set[asyncio.StreamWriter] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> Link:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_open:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self.writers |= {writer, back}
        pumps = [
            asyncio.ensure_future(self.pump(reader, back)),
            asyncio.ensure_future(self.pump(there, writer)),
        ]
        self.tasks |= set(pumps)
        with suppress(asyncio.CancelledError):
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for each in (writer, back):
            each.transport.abort()
            self.writers.discard(each)

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self.passes.wait()  # a black hole takes all, and gives nothing
                writer.write(data)
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            pass

    def cut(self) -> None:
        for writer in list(self.writers):
            writer.transport.abort()

    def shut(self) -> None:
        """Cut, and refuse."""
        self.is_open = False
        self.cut()

    def open(self) -> None:
        self.is_open = True
        self.passes.set()
        self.delay = 0.0

    async def close(self) -> None:
        self.server.close()
        self.shut()
        for task in self.tasks:
            task.cancel()


class ThreadedLink:
    """The same for servers that are processes."""

    def __init__(self, port: int):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.link = self.do(self._start, port)

    async def _start(self, port: int) -> Link:
        return await Link(port).start()

    def do(self, function: Callable[..., Any], *arguments: object) -> Any:
        async def call() -> Any:
            result = function(*arguments)
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(DEADLINE)

    def close(self) -> None:
        self.do(self.link.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(DEADLINE)
        self.loop.close()
