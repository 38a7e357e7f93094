"""Browsers of the whole server, cut after any byte in either direction, while the server ends, is
killed, or finds an older copy of its database. What is in the database at the end is the order that
every view has to have.

RESUME_SEEDS in the environment: so many long runs instead of 30.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import sqlite3
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from urllib.parse import urlencode

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from benchmarks.harness.process import wait_until
from benchmarks.harness.server import Server
from tests.web.reader import Reader

NICKS = ("ana", "bea", "carla")
ROOMS = ("general", "cine")
STEPS = 60
SEEDS = int(os.environ.get("RESUME_SEEDS", "0"))
FOREVER = 1 << 60
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() resets
Message = tuple[str, int, str, str]  # room, position, nick, text


class Wire:
    """A connection of a reader that is cut after so many bytes."""

    def __init__(self, server: Server, reader: Reader, up: int = FOREVER, down: int = FOREVER):
        assert server.web
        host, port = server.web
        reader.close()
        self.reader = reader
        self.up, self.down = up, down  # bytes that are left
        self.whole = True
        self.sock = socket.create_connection(server.web)
        self.sock.setblocking(False)
        query = urlencode(reader.query())
        self.protocol = ClientProtocol(parse_uri(f"ws://{host}:{port}/ws?{query}"))
        self.protocol.send_request(self.protocol.connect())

    def pump(self) -> None:
        """Carry what there is to be carried, without waiting."""
        try:
            self._receive()
            self._send()
        except OSError:
            self.whole = False
        if not self.whole:
            self.sock.close()

    def _receive(self) -> None:
        with suppress(BlockingIOError):
            while self.whole:
                data = self.sock.recv(1 << 16)
                kept = data[: self.down]
                self.down -= len(kept)
                self.whole = bool(data) and self.down > 0
                self.protocol.receive_data(kept)
                for event in self.protocol.events_received():
                    self._take(event)

    def _take(self, event: object) -> None:
        if isinstance(event, Response):
            assert event.status_code == 101
            self.reader.open()
        elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
            for each in json.loads(bytes(event.data)):
                self.reader.receive(each)

    def _send(self) -> None:
        if not self.whole:
            return
        for frame in self.reader.frames:
            self.protocol.send_text(frame.encode())
        self.reader.frames.clear()
        data = b"".join(self.protocol.data_to_send())[: self.up]
        self.up -= len(data)
        if data:
            self.sock.send(data)
        self.whole = self.up > 0


def nicks(first: str) -> Iterator[str]:
    yield first
    for number in count(2):
        yield f"{first}{number}"


def messages(path: Path) -> list[Message]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(
            "SELECT room, value ->> 'position', value ->> 'nick', value ->> 'text'"
            " FROM chunks, json_each(messages) ORDER BY 2"
        ).fetchall()


class Run:
    def __init__(self, path: Path, loop: str, seed: int):
        self.path = path
        self.chance = random.Random(seed)
        self.arguments = ("--db", str(path), "--loop", loop)
        self.readers = [Reader(nick, nicks(nick), time.monotonic) for nick in NICKS]
        self.wires: dict[Reader, Wire] = {}
        self.left: list[Wire] = []  # whose server is not told that they have been cut
        self.numbers = count()
        self.lost: Counter[str] = Counter()
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        self.server = Server("v5", arguments=self.arguments)

    def stop(self) -> None:
        assert self.server.stop() == 0
        assert self.server.errors.rest() == []
        self.drop()

    def drop(self) -> None:
        """The server has ended."""
        for wire in [*self.wires.values(), *self.left]:
            wire.sock.close()
        self.wires.clear()
        self.left.clear()

    def connect(self, reader: Reader, careful: bool = False) -> None:
        if reader not in self.wires:
            limits = (FOREVER, FOREVER)
            if not careful and self.chance.random() < 0.7:
                limits = self.chance.randrange(1, 1500), self.chance.randrange(1, 3000)
            self.wires[reader] = Wire(self.server, reader, *limits)

    def pump(self) -> None:
        for reader, wire in list(self.wires.items()):
            wire.pump()
            if not wire.whole:
                del self.wires[reader]

    def step(self) -> None:
        reader = self.chance.choice(self.readers)
        self.connect(reader)
        what = self.chance.random()
        if what < 0.5:
            for _ in range(self.chance.randrange(4)):
                reader.type(f"{reader.name}:{self.chance.choice('ab')}")
        elif what < 0.6:
            reader.type(f"/join {self.chance.choice(ROOMS)}")
        elif what < 0.65:
            reader.type(f"/nick {reader.name}x{next(self.numbers)}")
        elif what < 0.7:
            to = self.chance.choice(self.readers).nick
            reader.type(f"/pm {to} {reader.name}:{next(self.numbers)}")
        elif what < 0.8 and reader in self.wires:
            wire = self.wires.pop(reader)
            if self.chance.random() < 0.5:
                self.left.append(wire)
            else:
                wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                wire.sock.close()
        self.pump()

    def settle(self) -> None:
        """Until everybody is in and has heard of all that it has said."""

        def is_settled() -> bool:
            for reader in self.readers:
                self.connect(reader, careful=True)
            self.pump()
            return all(
                reader.inside and not reader.pending and reader in self.wires
                for reader in self.readers
            )

        for wire in self.wires.values():
            wire.up = wire.down = FOREVER
        wait_until(is_settled, "somebody does not come in, or gets no answer")

    def hear(self, room: str, position: int) -> None:
        """Until all who are in the room have heard it up to there."""

        def is_heard() -> bool:
            self.pump()
            return all(
                reader.room != room or (reader.since or 0) >= position for reader in self.readers
            )

        wait_until(is_heard, f"not everybody hears position {position} in {room}")

    def restart(self) -> None:
        self.stop()
        self.start()

    def kill(self) -> None:
        """What was said a second ago is in the database, what nobody has heard of may be."""
        self.settle()
        views = [view for reader in self.readers for view in reader.views if view.messages]
        newest = max([view.messages[-1][0] for view in views], default=0)
        wait_until(
            lambda: newest in [0, *[line[1] for line in messages(self.path)]], "it is not written"
        )
        for reader in self.readers:
            reader.type(f"{reader.name}:last")
        for wire in self.wires.values():
            wire._send()
        self.server.kill()
        self.drop()
        self.start()

    def restore(self) -> None:
        """A copy is found from before what was said last."""
        self.stop()
        copy = self.path.with_suffix(".copy")
        shutil.copy(self.path, copy)
        self.start()
        for reader in self.readers:
            reader.type(f"{reader.name}:forgotten")
        self.settle()
        self.stop()
        kept = messages(copy)
        truth = messages(self.path)
        self.check(truth)
        self.lost += Counter(text for *_, text in truth[len(kept) :])
        shutil.copy(copy, self.path)
        seen = {reader: len(reader.views) for reader in self.readers}
        self.start()
        # Somebody speaks before they come back, so that positions alone do not tell it.
        name = f"dora{next(self.numbers)}"
        first = Reader(name, nicks(name), time.monotonic)
        self.readers.append(first)
        for number in range(20):
            first.type(f"{name}:{number}")
        wire = self.wires[first] = Wire(self.server, first)

        def is_said() -> bool:
            wire.pump()
            return not first.pending

        wait_until(is_said, f"{name} is not heard")
        self.settle()
        for reader, views in seen.items():
            assert len(reader.views) > views, "what was lost is told"
            del reader.views[:views]

    def check(self, truth: list[Message]) -> None:
        for reader in self.readers:
            for view in reader.views:
                last = view.messages[-1][0] if view.messages else view.start
                expected = [
                    (position, text)
                    for room, position, _, text in truth
                    if room == view.room and view.start < position <= last
                ]
                assert view.messages == expected, "a silent gap, or a repeat"

    def end(self) -> None:
        self.settle()
        self.stop()
        truth = messages(self.path)
        self.check(truth)
        privates = Counter(text for reader in self.readers for text in reader.private)
        for reader in self.readers:
            typed = Counter(text for text in reader.typed if not text.startswith("/"))
            said = Counter(text for *_, text in truth if text.startswith(f"{reader.name}:"))
            assert not typed - said - self.lost, "a line is lost"
            assert not said - typed, "a line is there twice"
            if self.starts == 1:  # a server that starts anew knows no ids of commands
                assert all(privates[text] <= 1 for text in reader.typed)


ENDS: list[Callable[[Run], None]] = [Run.settle, Run.restart, Run.kill, Run.restore]


def run(path: Path, loop: str, seed: int, steps: int = STEPS) -> None:
    run = Run(path, loop, seed)
    try:
        for _ in range(2):
            for _ in range(steps // 2):
                run.step()
            ENDS[seed % len(ENDS)](run)
        run.end()
    finally:
        run.drop()
        run.server.kill()


def test_cut_anywhere(tmp_path: Path) -> None:
    run(tmp_path / "sock_chat.db", "uvloop", seed=1, steps=20)


@pytest.mark.long
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_cut_anywhere_often(loop: str, tmp_path: Path) -> None:
    for seed in range(SEEDS or 30):
        run(tmp_path / f"{seed}.db", loop, seed)
