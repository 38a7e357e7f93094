"""A process that keeps history: killed, and kept from writing."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.chat.history import History, texts_in


class Process:
    """`speaker` on a file."""

    def __init__(self, path: Path):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chat.speaker", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self.reports: list[str] = []
        self.position = self.answer()

    def answer(self) -> Any:
        assert self.process.stdout
        while True:
            value = json.loads(self.process.stdout.readline())
            if not isinstance(value, dict):
                return value
            self.reports.append(value["report"])

    def report(self) -> str:
        """The next line for the operator that has not been looked at."""
        assert self.process.stdout
        if not self.reports:
            self.reports.append(json.loads(self.process.stdout.readline())["report"])
        return self.reports.pop(0)

    def tell(self, *words: object) -> None:
        assert self.process.stdin
        print(*words, file=self.process.stdin, flush=True)

    def do(self, *words: object) -> Any:
        self.tell(*words)
        return self.answer()

    def close(self) -> None:
        self.tell("close")
        assert self.process.wait(10) == 0
        self.clean()

    def kill(self) -> list[Any]:
        """Kill it; what else it has answered."""
        assert self.process.stdout
        self.process.kill()
        lines = self.process.stdout.read().split("\n")[:-1]
        self.process.wait()
        self.clean()
        return [json.loads(line) for line in lines]

    def clean(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


@pytest.fixture
def start() -> Iterator[Callable[[Path], Process]]:
    processes: list[Process] = []

    def start(path: Path) -> Process:
        processes.append(Process(path))
        return processes[-1]

    yield start
    for each in processes:
        if each.process.poll() is None:
            each.kill()


Start = Callable[[Path], Process]


@pytest.mark.alone
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 27))]
)
def test_a_killed_process_keeps_what_is_older_than_a_second(
    seed: int, tmp_path: Path, start: Start
) -> None:
    """The same file through two lives. What there is afterwards is what was said: each position
    once, with its text, nothing left out between two that are there."""
    path, moments = tmp_path / "chat.db", random.Random(seed)
    heard, lives, old = 0, [], 0
    for _ in range(2):
        process = start(path)
        assert process.position >= heard
        process.tell("flood")
        first = process.position + 1
        process.answer()
        end = time.monotonic() + 1 + moments.random()
        turns = []
        while time.monotonic() < end:
            turns.append(process.answer())
        killed = time.monotonic()
        turns += process.kill()
        heard = turns[-1][0]
        old = max((position for position, at in turns if at < killed - 1), default=first)
        lives.append((first, old, heard))
    rows = texts_in(path)
    assert all(text == str(position) for position, text in rows)
    positions = [position for position, _ in rows]
    for first, old, heard in lives:
        own = [position for position in positions if first <= position <= heard]
        kept = len(own)
        assert own == list(range(first, first + kept)) and kept > old - first
        positions = positions[kept:]
    assert not positions, "positions that nobody has heard of"


def fill(start: Start, path: Path, refuse: Callable[[Process], None]) -> tuple[Process, list[int]]:
    """A process that can write, and then cannot; the positions of what it said before and after."""
    process = start(path)
    before, _ = process.do("say", "general", 10)
    process.do("say", "cine", 1)
    deadline = time.monotonic() + 10
    while len(texts_in(path)) < 11:
        assert time.monotonic() < deadline
    refuse(process)
    after, _ = process.do("say", "general", 30)
    assert "no se guarda" in process.report()
    return process, [*range(before, before + 10), *range(after, after + 30)]


def test_a_file_that_may_not_grow_costs_history_and_comes_back(
    tmp_path: Path, start: Start
) -> None:
    path = tmp_path / "chat.db"
    process, positions = fill(start, path, lambda process: process.do("limit", 4096))
    assert process.do("latest", "general", 40) == list(map(str, positions)), "it is in memory"
    for _ in range(40):
        _, last = process.do("say", "general", 1000)
    assert process.do("latest", "general", 1) == [str(last)], "the newest is in memory, too"
    process.do("limit", -1)
    report = process.report()
    lost = int(report.split("faltan ")[1].split()[0])
    assert "de nuevo" in report and 0 < lost < 40_000
    process.do("say", "general", 1)
    process.close()
    assert not process.reports
    after = [*positions[10:], *range(last - 39_999, last + 2)]
    rows = [position for position, _ in texts_in(path)]
    assert rows == [*range(1, 12), *after[lost:]]
    assert start(path).position == last + 1


def test_a_full_disk_costs_history_and_comes_back(tmp_path: Path, start: Start) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        blocker = disk / "blocker"

        def refuse(process: Process) -> None:
            with blocker.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))

        process, positions = fill(start, disk / "chat.db", refuse)
        # What fits in pages that are there already may still be taken.
        process.do("say", "general", 1000)
        blocker.unlink()
        assert "de nuevo; faltan 0 mensajes" in process.report()
        process.close()
        texts = [text for _, text in texts_in(disk / "chat.db")]
        assert len(texts) == 1041 and texts[:10] == list(map(str, positions[:10]))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_backup_of_a_running_server_is_whole(tmp_path: Path, start: Start) -> None:
    process = start(tmp_path / "chat.db")
    first, _ = process.do("say", "general", 1000)
    process.tell("flood")
    for _ in range(20):
        process.answer()
    with closing(sqlite3.connect(tmp_path / "chat.db")) as database:
        while not database.execute("SELECT total(count) FROM chunks").fetchone()[0]:
            process.answer()
        database.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
    process.kill()
    history = History(tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    rows = texts_in(tmp_path / "copy.db")
    assert [text for _, text in rows[:3]] == [str(first + i) for i in range(3)]
    history.close()
