"""Browsers whose connections are cut anywhere, against a model: the log says in which order
everything was said, and every view of it has to be that order, without a gap that nobody told of,
and without a repeat. What each has typed stands in it once.

A wire is two queues of frames. What has been sent may arrive or not; a cut loses a tail of each
direction, and the server learns of it at once, or later, or when the browser is back. What is lost
of a frame is lost of all of it, so that cuts are between frames here; over TCP they are anywhere
(`test_resume_over_tcp`).
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from sock_chat import room as room_module
from sock_chat.codec import decode_frame, json_codec
from sock_chat.events import Said
from sock_chat.registry import RESUMED
from sock_chat.session import NEVER
from tests.chat.world import Client, World
from tests.web.reader import Reader

SERVICES = ("log", "history", "names")
NICKS = ("ana", "bea", "carla")
ROOMS = ("general", "cine", "mar")
UNNOTICED = 40.0  # seconds after which pings have found out about every cut
Lines = list[tuple[str, Said]]
FRAMES = json_codec(b"[%b]\n".__mod__)
readers = st.integers(0, 2)
some = st.integers(0, 5)


class Wire:
    """A connection of a reader."""

    def __init__(self, world: World, reader: Reader):
        self.reader = reader
        self.client: Client = world.connect(codec=FRAMES, **reader.query())
        self.world = world
        self.seen = 0  # frames
        self.up: deque[str] = deque()
        self.end = NEVER  # when the server notices that it has been cut
        reader.open()
        self.send()

    def send(self) -> None:
        self.up.extend(self.reader.frames)
        self.reader.frames.clear()

    def carry_up(self, frames: int) -> None:
        for _ in range(min(frames, len(self.up))):
            self.client.send(decode_frame(self.up.popleft()))

    def down(self) -> list[bytes]:
        return b"".join(self.client.writes).split(b"\n")[self.seen : -1]

    def carry_down(self, frames: int) -> None:
        for frame in self.down()[:frames]:
            self.seen += 1
            for event in json.loads(frame):
                self.reader.receive(event)
            if self.reader.inside:
                self.reader.known_until = NEVER
            if self.reader.refused_token:
                assert self.world.clock > self.reader.known_until, "it came back in time"
                self.reader.refused_token = ""
        self.send()


def nicks(first: str) -> Iterator[str]:
    yield first
    for number in count(2):
        yield f"{first}{number}"


class Resume(RuleBasedStateMachine):
    world: World

    @initialize(
        late=st.sets(st.sampled_from(SERVICES)),
        rate=st.booleans(),
        missed=st.sampled_from([3, 1000]),
    )
    def begin(self, late: set[str], rate: bool, missed: int) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(room_module, "MISSED", missed)
        self.options = (late, (), 5 if rate else 0, 3)
        self.readers = [Reader(nick, nicks(nick), lambda: self.world.clock) for nick in NICKS]
        self.wires: list[Wire | None] = [None] * len(NICKS)
        self.broken: list[Wire] = []  # that the server takes for whole
        self.unsure_privates = False  # a server has forgotten which it has delivered
        self.lost: Counter[str] = Counter()
        self.numbers = count()
        self.start([], [], 0, 0, "first")
        for number in range(len(NICKS)):
            self.connect(number)
        self.settle()

    def start(self, before: Lines, kept: Lines, position: int, forgotten: int, epoch: str) -> None:
        """A server that finds in its database what is kept of what was said before."""
        clock = self.world.clock if hasattr(self, "world") else 1000.0
        self.world = World(*self.options)
        self.world.clock = clock
        self.world.names._new_token = lambda: f"token {next(self.numbers)}"
        self.before = before
        log = self.world.log
        log.messages, log.position, log.forgotten, log.epoch = [*kept], position, forgotten, epoch

    def truth(self) -> Lines:
        """All that was ever said, and may still be known."""
        entries = [(turn.room, e) for turn in self.world.log.turns for _, e in turn.entries]
        return self.before + [(room, e) for room, e in entries if isinstance(e, Said)]

    @rule(number=readers, text=st.sampled_from("abab"), more=st.integers(0, 2))
    def say(self, number: int, text: str, more: int) -> None:
        """The same words again and again, so that they are mistaken for others if they can be."""
        for _ in range(more + 1):
            self.type(number, f"{NICKS[number]}:{text}")

    @rule(number=readers, what=st.sampled_from([*ROOMS, "nick", *range(len(NICKS))]))
    def command(self, number: int, what: str | int) -> None:
        if what == "nick":
            self.type(number, f"/nick {NICKS[number]}x{next(self.numbers)}")
        elif isinstance(what, str):
            self.type(number, f"/join {what}")
        else:
            to = self.readers[what].nick
            self.type(number, f"/pm {to} {NICKS[number]}:{next(self.numbers)}")

    def type(self, number: int, text: str) -> None:
        self.readers[number].type(text)
        if wire := self.wires[number]:
            wire.send()

    @rule(number=readers, up=some, works=st.booleans(), down=some)
    def carry(self, number: int, up: int, works: bool, down: int) -> None:
        if wire := self.wires[number]:
            wire.carry_up(up)
            if works:
                self.world.turn()
            wire.carry_down(down)

    @rule(
        number=readers, up=some, works=st.booleans(), down=some, noticed=st.booleans(),
        back=st.booleans(),
    )  # fmt: skip
    def cut(self, number: int, up: int, works: bool, down: int, noticed: bool, back: bool) -> None:
        if wire := self.wires[number]:
            self.carry(number, up, works, down)
            self.wires[number] = None
            wire.end = self.world.clock + (0 if noticed else UNNOTICED)
            self.broken.append(wire)
            self.notice()
            if back:
                self.connect(number)

    def notice(self) -> None:
        for wire in [wire for wire in self.broken if wire.end <= self.world.clock]:
            self.broken.remove(wire)
            session = wire.client.session
            if session.nick and self.world.names._tokens.get(session) == wire.reader.token:
                wire.reader.known_until = self.world.clock + RESUMED - 2
            session.lost()

    @rule(number=readers)
    def connect(self, number: int) -> None:
        if not self.wires[number]:
            self.wires[number] = Wire(self.world, self.readers[number])

    @rule(number=readers, late=st.booleans())
    def interfere(self, number: int, late: bool) -> None:
        """A nick is taken, if it is free; what was under way when a connection was cut arrives."""
        if not late:
            self.world.connect().send(self.readers[number].nick)
        elif self.broken:
            wire = self.broken[number % len(self.broken)]
            if wire.up and "resume" not in wire.up[0]:  # that would be a second browser's
                wire.carry_up(1)

    @rule(seconds=st.sampled_from([20, 61]))
    def wait(self, seconds: int) -> None:
        self.settle()  # nothing is under way for longer
        self.world.clock += min(seconds, UNNOTICED)
        self.notice()
        self.world.clock += max(seconds - UNNOTICED, 0)
        for client in self.world.clients:
            if self.world.clock >= client.session.deadline:
                client.session.expire()

    @rule(what=st.sampled_from(["run", "flush", "turn", *SERVICES]))
    def work(self, what: str) -> None:
        if what == "run":
            self.world.run()
        elif what == "flush":
            self.world.rooms.flush()
        elif what == "turn":
            self.world.turn()
        else:
            self.world.answer(what)

    @rule(kept=st.integers(0, 10))
    def remove(self, kept: int) -> None:
        """--keep."""
        log = self.world.log
        if len(log.messages) > kept:
            log.forgotten = log.messages[-kept - 1][1].position
            del log.messages[: len(log.messages) - kept]

    def end(self, down: int) -> None:
        """The server ends, and all connections with it."""
        for number in range(len(NICKS)):
            self.carry(number, 0, False, down)
            self.readers[number].known_until = 0.0
        self.wires = [None] * len(NICKS)
        self.broken.clear()
        self.unsure_privates = True

    @rule(down=some, lost=st.sampled_from([None, None, None, 0, 1, 5, 1 << 30]))
    def restart(self, down: int, lost: int | None) -> None:
        """lost: so many messages are not in the database that is there afterwards: the server was
        killed, or an older copy is found, or another one with nothing in it. None: it has ended of
        itself, and all is there."""
        self.end(down)
        log, before = self.world.log, self.truth()
        if lost is None:
            self.start(before, log.messages, log.position, log.forgotten, log.epoch)
            return
        self.lose(lost)
        before = before[: max(len(before) - lost, 0)]
        if before:
            position = log.position + 100
            kept = [line for line in log.messages if line in before]
            self.start(before, kept, position, position, log.epoch)
        else:
            self.start([], [], 0, 0, f"epoch{next(self.numbers)}")

    def lose(self, count: int) -> None:
        """From now on nobody knows what was there."""
        self.check()
        truth = self.truth()
        self.lost += Counter(message.text for _, message in truth[max(len(truth) - count, 0) :])
        for reader in self.readers:
            reader.views.clear()

    def settle(self) -> None:
        """Carry everything."""
        busy = True
        while busy:
            self.world.turn()
            waits = [wait for wait in self.world.run() if 0 < wait < NEVER]
            if waits:
                self.world.clock += min(waits) + 0.01
            busy = bool(waits)
            for number, wire in enumerate(self.wires):
                if not wire:
                    continue
                busy |= bool(wire.up or wire.down())
                wire.carry_up(len(wire.up))
                wire.carry_down(len(wire.down()))
                if wire.client.closed:
                    self.wires[number] = None

    def check(self) -> None:
        truth = self.truth()
        for reader in self.readers:
            for view in reader.views:
                span = range(self.world.log.forgotten + 1, view.start + 1)
                before = [m for room, m in truth if room == view.room and m.position in span]
                assert not before or view.whole, "it has not been shown what there was"
                if not view.messages:
                    continue
                last = view.messages[-1][0]
                expected = [
                    (message.position, message.text)
                    for room, message in truth
                    if room == view.room and view.start < message.position <= last
                ]
                assert view.messages == expected, "a silent gap, or a repeat"

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.patch.undo()
        for number in range(len(NICKS)):
            self.connect(number)
        self.settle()
        self.check()
        truth = self.truth()
        heard = Counter(text for reader in self.readers for text in reader.private)
        for reader, wire in zip(self.readers, self.wires, strict=True):
            assert wire and reader.inside and not reader.pending, "something is not acknowledged"
            assert reader.views[-1].room == reader.room
            present = {room.name: room.names for room in self.world.chat.rooms._rooms.values()}
            assert sorted(reader.members) == sorted(present[reader.room])
            last = [message.position for room, message in truth if room == reader.room]
            if view := reader.views[-1].messages:
                assert view[-1][0] == last[-1]
            else:
                assert not last or last[-1] <= reader.views[-1].start
            typed = [text for text in reader.typed if not text.startswith("/")]
            said = [m.text for _, m in truth if m.text.startswith(f"{reader.name}:")]
            assert not Counter(typed) - Counter(said) - self.lost, "a line is lost"
            if not reader.unsure:
                assert not Counter(said) - Counter(typed), "a line is there twice"
                assert said == typed or self.lost
            if not self.unsure_privates and not reader.unsure:
                assert all(heard[text] <= 1 for text in reader.typed)


Resume.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, report_multiple_bugs=False
)
test_resume = Resume.TestCase


def walk(seed: int, steps: int = 70) -> None:
    """The same, with each rule as often as it is likely to matter."""
    chance = random.Random(seed)
    number, coin = partial(chance.randrange, len(NICKS)), partial(chance.choice, (False, True))
    some = partial(chance.randrange, 6)
    rules: list[tuple[int, Callable[[Resume], None]]] = [
        (30, lambda chat: chat.say(number(), chance.choice("ab"), chance.randrange(2))),
        (15, lambda chat: chat.command(number(), chance.choice([*ROOMS, "nick", 0, 1, 2]))),
        (40, lambda chat: chat.carry(number(), some(), coin(), some())),
        (25, lambda chat: chat.cut(number(), some(), coin(), chance.randrange(3), coin(), coin())),
        (15, lambda chat: chat.connect(number())),
        (4, lambda chat: chat.interfere(number(), coin())),
        (3, lambda chat: chat.wait(chance.choice([20, 61]))),
        (20, lambda chat: chat.work(chance.choice(["run", "flush", "turn", *SERVICES]))),
        (2, lambda chat: chat.remove(chance.randrange(10))),
        (3, lambda chat: chat.restart(some(), chance.choice([None, None, 0, 5, 1 << 30]))),
    ]
    chat = Resume()
    late = chance.sample(SERVICES, chance.randrange(len(SERVICES) + 1))
    chat.begin(set(late), coin(), chance.choice([3, 1000]))
    try:
        for _, step in chance.choices(rules, [weight for weight, _ in rules], k=steps):
            step(chat)
        chat.teardown()
    finally:
        chat.patch.undo()


@pytest.mark.parametrize("seed", range(100))
def test_walk(seed: int) -> None:
    walk(seed)


@pytest.mark.long
def test_many_walks() -> None:
    """RESUME_WALKS in the environment: so many instead of 3000."""
    for seed in range(100, 100 + int(os.environ.get("RESUME_WALKS", "3000"))):
        walk(seed)
