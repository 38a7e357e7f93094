"""What this server writes to the stream, until it has read it there.

Messages have numbers and many are under way. One that is read leaves the queue. Should one be lost
on the way, those behind it are void for everybody (`replica`), this server reads that, too, and
writes all again from the lost one on, under ids that JetStream has not seen. After an outage all
that has not been read is written again with the same ids: what had arrived comes no second time.

A message that JetStream refuses is told to have been refused. What is left of it, that clients come
and go, has its number and is tried again until it is taken; as long as that fails, what is said
is refused at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from nats.aio.msg import Msg

from sock_chat.bus import Bus
from sock_chat.log import Author, Speaker, Turn
from sock_chat.packing import Packer, Parcel, without_messages
from sock_chat.stream_reader import FAILURES
from sock_chat.wire import Numbered, Person, decode_answer

WINDOW = 256  # messages under way
QUEUE_SIZE = 2 << 20  # bytes of messages that were not read yet; with more nobody is read from
OVERHEAD = 1024  # of max_payload, for headers
REFUSED = "No se ha dicho: el bus no lo toma."
NOT_NOW = {10008, 10009}  # codes of JetStream's: it is temporarily unavailable, or has no leader


class Outbox:
    """refuse: called with a turn and why it has not happened."""

    def __init__(
        self, bus: Bus, refuse: Callable[[Turn, str], None], report: Callable[[str], None]
    ):
        self.packer = Packer(bus.subjects)
        self._bus = bus
        self._refuse = refuse
        self._report = report
        self._lease = ""
        self._attempt = 0
        self._queue: deque[Parcel] = deque()
        self._under_way = 0  # of the queue, its first ones
        self._size = 0
        self._blocked: set[Speaker] = set()
        self._refusing = False
        self._is_held = True
        self._written = asyncio.Event()  # there may be something to be sent
        self._empty = asyncio.Event()
        self._empty.set()
        self._settling: list[tuple[int, Callable[[], None]]] = []
        self._inbox = ""  # for acknowledgements
        self._moved = 0.0  # when something of it was read last, or sent

    async def start(self) -> None:
        self._inbox = self._bus.client.new_inbox()
        await self._bus.client.subscribe(f"{self._inbox}.*.*", cb=self._acknowledge)
        self._bus.do(self._send())
        self._bus.do(self._watch())

    def begin(self, lease: str) -> None:
        """Write under this lease, once it is released."""
        self._lease, self._attempt, self._is_held = lease, 0, True
        self._put(self.packer.begin(lease))

    def release(self) -> None:
        self._is_held = False
        self._written.set()

    # What is written

    def evict(self, lease: str, author: int) -> None:
        self._put(self.packer.evict(lease, author))

    def introduce(self) -> None:
        for parcel in self.packer.introduce():
            self._put(parcel)

    def add(self, turn: Turn, number: Callable[[Author], int]) -> None:
        if self._refusing:
            self._refuse(turn, REFUSED)
            turn = turn._replace(entries=without_messages(turn))
        if turn.entries:
            max_size = self._bus.max_payload - OVERHEAD
            for parcel in self.packer.pack(turn, number, max_size):
                parcel.is_delivered = self._refusing
                self._put(parcel)
                if len(parcel.payload) > max_size:
                    self._refuse_parcel(parcel)

    def _put(self, parcel: Parcel) -> None:
        self._queue.append(parcel)
        self._size += len(parcel.payload)
        self._empty.clear()
        self._written.set()

    def full(self, author: Speaker) -> bool:
        if self._bus.is_away or self._size > QUEUE_SIZE:
            self._blocked.add(author)
            return True
        return False

    @property
    def waiting(self) -> tuple[int, int]:
        return len(self._queue), self._size

    def wake(self) -> None:
        blocked, self._blocked = self._blocked, set()
        for author in blocked:
            author.wake()

    # What is read

    def take(self, message: Numbered) -> Parcel | None:
        """It has been read. None: it is not the one that comes next."""
        if not self._queue or message.number != self._queue[0].message.number:
            return None
        parcel = self._queue.popleft()
        self._under_way = max(0, self._under_way - 1)
        self._size -= len(parcel.payload)
        self._moved = time.monotonic()
        while self._settling and self._settling[0][0] <= message.number:
            self._settling.pop(0)[1]()
        if self._blocked and self._size < QUEUE_SIZE // 2:
            self.wake()
        if self._queue:
            self._written.set()
        else:
            self._empty.set()
        self._accept()
        return parcel

    def rewind(self, number: int, message_id: str) -> None:
        """A message of ours is void: those from the first that is missing on are sent again."""
        first = self._queue[0].message.number if self._queue else number
        if number > first and message_id.endswith(f"-{self._attempt}"):
            self._attempt += 1
            self.resend()

    def resend(self) -> None:
        self._under_way = 0
        self._written.set()
        self.wake()

    def strand(self) -> tuple[Sequence[Turn], Sequence[Person]]:
        """The lease is over: what of the queue has to be told here, messages left out, and who is
        in the rooms after that. Nobody else gets to know of it."""
        waiting = [parcel.turn for parcel in self._queue if parcel.turn and not parcel.is_delivered]
        people = list(self.packer.people.values())
        self._queue.clear()
        self._under_way = self._size = 0
        self._empty.set()
        while self._settling:
            self._settling.pop(0)[1]()
        self.wake()
        return [turn._replace(entries=without_messages(turn)) for turn in waiting], people

    def settle(self, call: Callable[[], None]) -> None:
        """Call it when all that has been written so far has been read, or nobody will read it."""
        if self._queue:
            self._settling.append((self.packer.last, call))
        else:
            call()

    async def drained(self) -> None:
        """Until nothing waits to be read."""
        await self._empty.wait()

    # NATS

    async def _send(self) -> None:
        while True:
            await self._written.wait()
            self._written.clear()
            with suppress(*FAILURES):  # the bus sees to it
                await self._send_queue()

    async def _send_queue(self) -> None:
        while self._under_way < min(len(self._queue), 1 if self._refusing else WINDOW):
            if self._is_held or self._bus.is_recovering:
                return
            if not self._under_way:
                self._moved = time.monotonic()
            parcel = self._queue[self._under_way]
            self._under_way += 1
            number = parcel.message.number
            await self._bus.client.publish(
                parcel.subject,
                parcel.payload,
                reply=f"{self._inbox}.{number}.{self._attempt}",
                headers={"Nats-Msg-Id": f"{self._lease}-{number}-{self._attempt}"},
            )

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._bus.intervals.answer / 2)
            late = time.monotonic() - self._moved > 2 * self._bus.intervals.answer
            if self._under_way and late and not self._refusing:
                self._moved = time.monotonic()
                self._bus.recover()

    async def _acknowledge(self, message: Msg) -> None:
        if not message.data:  # nobody is there who would take it
            self._bus.recover()
            return
        _, number, attempt = message.subject.rsplit(".", 2)
        error = decode_answer(message.data).error
        if error is None:
            if self._queue and int(number) == self._queue[0].message.number:
                self._accept()
        elif error.err_code in NOT_NOW:
            self._bus.recover()
        elif int(attempt) == self._attempt:
            self._begin_refusing(error.description)

    def _begin_refusing(self, reason: str) -> None:
        """Nobody counts what may have been stored of the queue, for its first message was not."""
        if not self._refusing:
            self._refusing = True
            self._report(f"El bus no toma lo que se dice: {reason}")
        self._attempt += 1
        self._under_way = 0
        for parcel in list(self._queue):
            self._refuse_parcel(parcel)
        asyncio.get_running_loop().call_later(self._bus.intervals.retry, self._written.set)

    def _refuse_parcel(self, parcel: Parcel) -> None:
        if parcel.turn and not parcel.is_delivered:
            turn = parcel.turn
            self._size -= len(parcel.payload)
            parcel.strip()
            self._size += len(parcel.payload)
            self._refuse(turn, REFUSED)

    def _accept(self) -> None:
        if self._refusing:
            self._refusing = False
            self._report("El bus vuelve a tomar lo que se dice.")
            self._written.set()
