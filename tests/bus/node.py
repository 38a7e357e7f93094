"""Servers of one chat in one process, without sockets of their own: what each keeps is on a real
NATS, behind a link that can fail; its clients are lists of lines."""

from __future__ import annotations

import asyncio

from sock_chat import config
from sock_chat.bus_storage import BusStorage
from sock_chat.chat import Visit
from sock_chat.codec import LINES, Codec, Input
from sock_chat.counters import Counters
from sock_chat.intervals import Intervals
from sock_chat.link import Kind, Reason
from sock_chat.server import make_chat
from sock_chat.session import NEVER, Session
from sock_chat.store import StoreError
from sock_chat.turns import Turns
from tests.bus.links import Link

INTERVALS = Intervals(
    ping=0.3, heartbeat=0.25, answer=0.5, grace=0.3, retry=0.05, renew=0.2, lease=1.0, members=0.5,
    resume=20.0,
)  # fmt: skip
READ_SIZE = 16384


class Client:
    """A client's end of a session, and its link.Link."""

    waiting = 0
    kind = Kind.LINES

    def __init__(self, node: Node, nick: str, codec: Codec = LINES):
        self.node = node
        self.nick = nick
        self.codec = codec
        self.output = b""
        self.closed: Reason | None = None
        self.is_planned = False  # a run of the session
        self.changed = asyncio.Event()
        self.session = Session(node.chat, self, Visit("192.0.2.1", True))
        self.session.start()
        if nick:
            self.say(nick)

    def write(self, data: bytes) -> None:
        if self.closed is None:
            self.output += data
            self.changed.set()

    def abort(self, reason: Reason) -> None:
        self.close(reason)
        self.session.lost()

    def close(self, reason: Reason) -> None:
        self.closed = self.closed or reason
        self.changed.set()

    def wake(self) -> None:
        if not self.is_planned:
            self.is_planned = True
            asyncio.get_running_loop().call_soon(self.run)

    def run(self) -> None:
        self.is_planned = False
        if self.closed is None and self.session.run(READ_SIZE) != NEVER:
            self.wake()

    def say(self, *lines: Input) -> None:
        self.session.feed(lines)
        self.wake()

    @property
    def lines(self) -> list[str]:
        """From its greeting on."""
        return self.output.decode().split("\n")[:-1]

    async def wait(self, *texts: str, within: float = 15.0) -> None:
        """Until it has got all of these, or is closed."""

        async def wait() -> None:
            while self.closed is None and any(text not in self.text for text in texts):
                self.changed.clear()
                await self.changed.wait()

        try:
            await asyncio.wait_for(wait(), within)
        except asyncio.TimeoutError:
            missing = [text for text in texts if text not in self.text]
            raise AssertionError(
                f"{self.nick} misses {missing[:5]} of {len(texts)}; last: {self.lines[-5:]}"
            ) from None

    @property
    def text(self) -> str:
        return self.output.decode()


class Node:
    def __init__(self, name: str, link: Link, intervals: Intervals = INTERVALS):
        loop = asyncio.get_running_loop()
        options = config.parse(["--bus", link.url, "--bus-name", name, "--rate", "0"], {})
        self.link = link
        self.reports: list[str] = []
        counters = Counters()
        self.storage = BusStorage(
            options, loop.call_soon_threadsafe, loop.call_later, self.reports.append, counters,
            intervals,
        )  # fmt: skip
        turns = Turns(lambda: self.chat.rooms.flush())
        turns.loop = loop
        self.chat = make_chat(options, self.storage, counters, turns.begin, None)  # type: ignore[arg-type]
        self.clients: list[Client] = []

    @classmethod
    async def begin(cls, name: str, port: int) -> Node:
        """Until it runs: NATS may be away."""
        while True:
            node = cls(name, await Link(port).start())
            try:
                await node.storage.start()
            except StoreError:
                await node.die()
            else:
                return node

    def connect(self, nick: str = "", codec: Codec = LINES) -> Client:
        client = Client(self, nick, codec)
        self.clients.append(client)
        return client

    async def enter(self, *nicks: str) -> list[Client]:
        clients = [self.connect(nick) for nick in nicks]
        for client in clients:
            await client.wait(f"* Hola, {client.nick}. ")
        return clients

    async def die(self) -> None:
        """As by SIGKILL: the others hear nothing of it."""
        self.link.shut()
        await self.storage._bus.close()
        self.storage.close()
        await self.link.close()
        for client in self.clients:
            client.close(Reason.QUIT)

    async def stop(self) -> None:
        for client in self.clients:
            client.session.stop(0.0)
        self.chat.rooms.flush()
        await self.storage.finish(2.0)
        self.storage.close()
        await self.link.close()
