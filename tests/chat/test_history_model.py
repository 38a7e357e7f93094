"""The log on the disk, against a model: restarts, kills and refusals in any order."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from sock_chat import sqlite_log, tails
from sock_chat.archive import FIRST
from tests.chat.history import MEMORY_DISK, History, T

rooms = st.sampled_from(["general", "cine", "café"])


class Model(RuleBasedStateMachine):
    """What was said is a list for each room. What is asked for is a part of it, whole where the
    log does not say that there is a gap."""

    @initialize(keep=st.sampled_from([5, 30, 100_000]), length=st.sampled_from([3, 200]))
    def begin(self, keep: int, length: int) -> None:
        self.folder = TemporaryDirectory(dir=MEMORY_DISK)
        self.files = 0
        self.keep = keep
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(sqlite_log, "LENGTH", length)
        self.patch.setattr(tails, "SIZE", 1000)
        self.patch.setattr(sqlite_log, "TRIM", 2)
        self.patch.setattr(sqlite_log, "QUEUE_SIZE", 10_000)
        # Nothing has been lost or removed, and the log can be sure of it.
        self.whole = self.sure = keep > 1000
        self.lines: dict[str, list[tuple[int, str]]] = {"general": [], "cine": [], "café": []}
        self.positions = [0]  # that somebody may know
        self.heard = deepcopy(self.lines)  # never lost, by those who heard it
        self.written = self.newest = 0
        self.history = History(self.file(), keep)

    def file(self) -> Path:
        self.files += 1
        return Path(self.folder.name) / f"{self.files}.db"

    @rule(room=rooms, texts=st.lists(st.text("aé\U0001f600\"\\'\t", max_size=9), max_size=20))
    def say(self, room: str, texts: list[str]) -> None:
        if self.newest and not texts:
            texts = ["x" * 500] * 10
        before = self.history.log.position
        self.history.say(*texts, room=room)
        first = self.history.log.position - len(texts) + 1
        assert first > before
        lines = [(first + i, text) for i, text in enumerate(texts)]
        self.lines[room] += lines
        self.heard[room] += lines
        self.positions += [position for position, _ in lines]
        self.newest = self.history.log.position

    @rule()
    def write(self) -> None:
        self.history.disk.turn()
        if not self.history.disk.refusing:
            self.written = self.newest

    @rule(refusing=st.booleans())
    def refuse(self, refusing: bool) -> None:
        self.history.disk.refusing = refusing
        self.whole &= not refusing
        self.sure &= not refusing

    @rule()
    def restart(self) -> None:
        self.history.disk.refusing = False
        self.history.close()
        self.history = History(self.history.path, self.keep)
        assert self.history.log.position == (self.newest or FIRST)
        self.written = self.newest

    @rule()
    def kill(self) -> None:
        self.history.disk.settle()
        copy = self.file()
        self.history.kill(copy)
        self.history = History(copy, self.keep)
        assert self.history.log.position >= self.newest
        for lines in self.lines.values():
            lines[:] = [line for line in lines if line[0] <= self.written or not self.whole]
        self.sure = False
        self.newest = self.written = self.history.log.position

    @rule(room=rooms, count=st.integers(1, 30), end=st.integers(0, 30))
    def latest(self, room: str, count: int, end: int) -> None:
        upto = self.positions[-1 - end % len(self.positions)]
        texts = self.history.latest(room, count, upto)
        expected = [text for position, text in self.lines[room] if position <= upto]
        if self.whole:
            assert texts == expected[-count:]
        assert len(texts) <= count and is_part(texts, expected)

    @rule(room=rooms, count=st.integers(1, 30), start=st.integers(0, 60), end=st.integers(0, 30))
    def after(self, room: str, count: int, start: int, end: int) -> None:
        since = self.positions[-1 - start % len(self.positions)]
        upto = self.positions[-1 - end % len(self.positions)]
        past = self.history.after(room, since, count, upto)
        lines = [(message.position, message.text) for message in past.messages]
        expected = [line for line in self.lines[room] if since < line[0] <= upto]
        if self.sure:
            assert past.gap == (len(expected) > count)
        if self.whole:
            assert lines == expected[-count:]
        if not past.gap:
            assert lines == [line for line in self.heard[room] if since < line[0] <= upto]
        assert len(lines) <= count and is_part(lines, expected)

    def teardown(self) -> None:
        if hasattr(self, "history"):
            self.history.close()
            self.folder.cleanup()
            self.patch.undo()


def is_part(part: list[T], whole: list[T]) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)


Model.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
test_model = Model.TestCase
