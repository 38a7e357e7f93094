"""The log of many servers: a stream of JetStream's, that each of them writes to and reads.

A turn is one message of the stream, or more if it is too long for one. It is delivered when it is
read, as those of the others are: so all tell the same, in the same order. What the reader makes of
a message is in `replica`; how the messages get into the stream is in `outbox`, and what they say
in `wire`. A message has POSITIONS positions, from its sequence times that on.

What has been said lately is in memory, as far as this server has read it; older messages are asked
for (`stream_history`). --keep counts messages of the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Protocol

import msgspec
from nats.aio.msg import Msg

from sock_chat.bus import Bus
from sock_chat.events import Left, Said
from sock_chat.log import Author, Past, Speaker, Turn
from sock_chat.outbox import Outbox
from sock_chat.replica import Replica, Stranger
from sock_chat.stream_history import StreamHistory
from sock_chat.tails import Tails
from sock_chat.wire import (
    MAX_ENTRIES,
    POSITIONS,
    Ended,
    Evicted,
    Message,
    Started,
    State,
    Turned,
    decode_message,
    said,
)

PRELOAD = 2000  # messages of the stream that are read at the start


class Numbers(Protocol):
    """The clients of this server, as others know them."""

    def number(self, author: Author) -> int:
        """0: of somebody who has gone."""

    def author(self, number: int) -> Author | None: ...

    def evict(self, author: Author) -> None:
        """Its nick has been taken over on another server."""


class JetStreamLog:
    """today: tells date and time, in UTC. lost: called when this server's own lease has ended."""

    def __init__(
        self,
        bus: Bus,
        today: Callable[[], datetime],
        report: Callable[[str], None],
        lost: Callable[[], None],
    ):
        self.epoch = ""
        self.position = 0
        self.lease = ""
        self.numbers: Numbers
        self.replica = Replica(self._author)
        self._bus = bus
        self._today = today
        self._lost = lost
        self._outbox = Outbox(bus, lambda turn, text: self._refuse(turn, text), report)
        self._begin = 0  # the sequence from which on the messages are more than history
        self._tails = Tails()
        self._history = StreamHistory(bus)
        self._introduced = asyncio.Event()
        self._reader = bus.reader(bus.subjects.stream, self._read)

    async def open(self, keep: int, replicas: int) -> None:
        """Find the stream. Raises StoreError."""
        info = await self._bus.connect(keep, replicas)
        self.epoch = info.config.description or ""
        stream = info.state
        self._begin = stream.last_seq + 1
        first = max(stream.first_seq, self._begin - PRELOAD, 1)
        self._reader.last = first - 1
        self._tails = Tails(self._reader.last * POSITIONS + MAX_ENTRIES if stream.messages else 0)
        self.position = stream.last_seq * POSITIONS + MAX_ENTRIES

    @property
    def end(self) -> int:
        """Of the stream, when it was found."""
        return self._begin - 1

    def load(self, state: State) -> None:
        """Go on from what another server has read."""
        for turn in self.replica.load(state, self._today()):
            self._deliver(turn)
        self._begin = state.sequence + 1

    async def start(self, lease: str) -> None:
        """Read what there is, and write under this lease."""
        await self._outbox.start()
        self.begin(lease)
        self.write()
        await self._reader.catch_up(await self._bus.insist(self._reader.restart))

    def begin(self, lease: str) -> None:
        """What is said from now on is said under this lease, as soon as write() is called."""
        self.lease = lease
        self.replica.adopt(lease, known=True, number=0)
        self._outbox.begin(lease)

    @property
    def queue(self) -> tuple[int, int]:
        return self._outbox.waiting

    def save(self, timeout: float) -> None:
        """Nothing waits for a disk of this server's."""

    def write(self) -> None:
        self._outbox.release()

    async def introduced(self) -> None:
        """Until all other servers have said who is there."""
        await self._introduced.wait()

    def settle(self, call: Callable[[], None]) -> None:
        """Call it when all that has been said here so far has been heard."""
        self._outbox.settle(call)

    @property
    def sequence(self) -> int:
        """Of the stream, up to which it has been read."""
        return self._reader.last

    async def reach(self, sequence: int) -> None:
        await self._reader.reach(sequence)

    async def finish(self) -> None:
        """Wait until all that was written has been read."""
        await self._outbox.drained()

    def resume(self) -> None:
        """NATS is back."""
        self._outbox.resend()

    def _author(self, lease: str, number: int) -> Author:
        own = self.numbers.author(number) if lease == self.lease else None
        return Stranger(lease, number) if own is None else own

    # log.Log

    def subscribe(
        self, deliver: Callable[[Turn], None], refuse: Callable[[Turn, str], None]
    ) -> None:
        self._deliver = deliver
        self._refuse = refuse

    def append(self, turn: Turn) -> None:
        self._outbox.add(turn, self.numbers.number)

    def full(self, author: Speaker) -> bool:
        return self._outbox.full(author)

    def latest(self, room: str, count: int, upto: int, done: Callable[[Past], None]) -> None:
        self.after(room, 0, count, upto, done)

    def after(
        self, room: str, since: int, count: int, upto: int, done: Callable[[Past], None]
    ) -> None:
        messages, complete = self._tails.find(room, since, upto)
        if complete or (len(messages) >= count and not since) or len(messages) > count:
            done(Past(messages[-count:], not complete or len(messages) > count))
        else:
            self._bus.do(self._history.fetch(room, since, count, upto, done))

    def evict(self, lease: str, author: int) -> None:
        """A client of another server's has lost its nick to one of this server's."""
        self._outbox.evict(lease, author)

    # The stream

    def _read(self, sequence: int, raw: Msg) -> None:
        try:
            message = decode_message(raw.data)
        except msgspec.DecodeError:  # somebody else writes here
            return
        if sequence < self._begin:
            if isinstance(message, Turned):
                self._keep(message.room, said(message, sequence))
            return
        self.position = sequence * POSITIONS
        if isinstance(message, Evicted) and message.other == self.lease:
            self._lose(message.author)
        parcel = None
        if not isinstance(message, Ended) and message.lease == self.lease:
            parcel = self._outbox.take(message)
        entries = list(parcel.turn.entries) if parcel and parcel.turn else None
        turns = self.replica.read(message, self._today(), entries)
        if turns is None:
            self._drop(sequence, message, raw)
        elif isinstance(message, Ended) and message.lease == self.lease:
            self._end()
        elif not (parcel and parcel.is_delivered):
            for turn in turns:
                self._tell(turn)
        if isinstance(message, Started) and turns is not None and not parcel:
            self._outbox.introduce()
        if not self._introduced.is_set() and self.replica.knows_all:
            self._introduced.set()

    def _lose(self, number: int) -> None:
        """A client of this server has been evicted: it ends, and is waiting for what follows."""
        self._outbox.packer.people.pop(number, None)
        author = self.numbers.author(number)
        if author is not None:
            self.numbers.evict(author)

    def _tell(self, turn: Turn) -> None:
        self.position = turn.number(self.position + 1) - 1
        self._keep(turn.room, (e.public() for _, e in turn.entries if isinstance(e, Said)))
        self._deliver(turn)

    def _keep(self, room: str, messages: Iterable[Said]) -> None:
        if batch := list(messages):
            self._tails.add(room, batch)

    def _drop(self, sequence: int, message: Message, raw: Msg) -> None:
        """A message is void; history must not show it, so those who are certain remove it."""
        if message.lease in (self.lease, *self.replica.ended):
            self._bus.do(self._history.delete(sequence))
        if message.lease == self.lease and not isinstance(message, Ended):
            self._outbox.rewind(message.number, (raw.headers or {}).get("Nats-Msg-Id", ""))

    def _end(self) -> None:
        """This server was taken for dead, and nobody counts its clients in any more."""
        turns, people = self._outbox.strand()
        for person in people:
            author = self.numbers.author(person.author)
            if author is not None:
                left = [(author, Left(person.nick))]
                turns = [*turns, Turn(person.room, self._today(), left)]
        self._lost()  # which begins anew
        for turn in turns:
            self._deliver(turn)
