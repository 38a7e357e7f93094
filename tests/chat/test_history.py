"""History on the disk: the log against a model, and what befalls processes and disks."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from copy import deepcopy
from functools import partial
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from threading import Thread, Timer
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from benchmarks.harness.server import Server
from sock_chat import archive, sqlite_log, tails
from sock_chat.log import Past
from sock_chat.memory_log import MemoryLog
from sock_chat.sqlite_log import QUEUE_SIZE, SqliteLog
from sock_chat.store import JOURNAL_SIZE, Job, Store, StoreError
from tests.chat.conftest import Guest, Serve
from tests.chat.speaker import turn

MEMORY_DISK = "/dev/shm" if os.path.isdir("/dev/shm") else None  # nothing waits for a disk
T = TypeVar("T")
Call = Callable[[], None]
Done = Callable[[T], None]
Failed = Callable[[Exception], None]


class Disk(Store):
    """Refuses what it is told to refuse. It is its own loop: turn() is when its answers come."""

    refusing = False

    def __init__(self, path: str):
        self.calls: SimpleQueue[Call] = SimpleQueue()
        self.timers: list[Call] = []
        super().__init__(path, self.calls.put)

    def do(self, job: Job[T], done: Done[T], failed: Failed) -> None:
        def refuse(database: sqlite3.Connection) -> T:
            if not database.in_transaction:
                database.execute("BEGIN")
            with suppress(sqlite3.OperationalError):  # it begins a transaction of its own
                job(database)
            raise sqlite3.OperationalError("database or disk is full")

        writes = isinstance(job, partial) and job.func is not archive.select
        super().do(refuse if self.refusing and writes else job, done, failed)

    def later(self, seconds: float, call: Call) -> None:
        self.timers.append(call)

    def turn(self) -> None:
        """What is due, and all that it causes; not what is due only then."""
        timers, self.timers = self.timers, []
        for call in timers:
            call()
        self.settle()

    def settle(self) -> None:
        over: list[None] = []
        self.do(lambda database: None, over.append, lambda error: None)
        while not over:
            self.calls.get(timeout=10)()


class History:
    """A log on a disk, and what was reported."""

    def __init__(self, path: Path | str, keep: int = 100_000):
        self.path = str(path)
        self.disk = Disk(self.path)
        self.reports: list[str] = []
        self.log = SqliteLog(self.disk, self.disk.later, keep, self.reports.append)
        self.log.subscribe(lambda turn: None, lambda turn, text: None)

    def say(self, *texts: str, room: str = "general", author: object = None) -> None:
        self.log.append(turn(room, *texts, author=author))

    def ask(self, ask: Callable[[Done[Past]], None]) -> Past:
        pasts: list[Past] = []
        ask(pasts.append)
        if not pasts:
            self.disk.settle()
        (past,) = pasts
        return past

    def latest(self, room: str = "general", count: int = 20, upto: int = 1 << 53) -> list[str]:
        past = self.ask(lambda done: self.log.latest(room, count, upto, done))
        return [message.text for message in past.messages]

    def after(self, room: str, since: int, count: int, upto: int) -> Past:
        return self.ask(lambda done: self.log.after(room, since, count, upto, done))

    def close(self) -> None:
        self.log.close()
        self.disk.close()

    def kill(self, copy: Path) -> None:
        """Let copy be what stands in the file when the process is killed now."""
        for end in ("", "-wal"):
            shutil.copy(self.path + end, f"{copy}{end}")
        self.disk.close()


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
        assert self.history.log.position == before + len(texts)
        lines = [(before + 1 + i, text) for i, text in enumerate(texts)]
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
        assert self.history.log.position == self.newest
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


Model.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
test_model = Model.TestCase


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


def texts_in(path: Path) -> list[tuple[int, str]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(
            "SELECT value ->> 'position', value ->> 'text' FROM said, json_each(messages)"
            " ORDER BY 1"
        ).fetchall()


@pytest.mark.alone
@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 53))]
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


def test_another_program_that_locks_the_database_costs_nothing(tmp_path: Path) -> None:
    history = History(tmp_path / "chat.db")
    with closing(sqlite3.connect(history.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        history.say("uno")
        history.disk.turn()
        (line,) = history.reports
        assert line == "El historial no se guarda: database is locked"
        other.execute("COMMIT")
    history.say("dos")
    history.disk.turn()
    assert history.reports[1:] == ["El historial se guarda de nuevo; faltan 0 mensajes."]
    history.close()
    assert [text for _, text in texts_in(tmp_path / "chat.db")] == ["uno", "dos"]


def test_a_lock_at_the_start_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    History(path).close()
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = Timer(0.3, lambda: other.execute("COMMIT"))
        timer.start()
        History(path).close()
        timer.join()
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="database is locked"):
            History(path)


def make_directory(path: Path) -> None:
    path.mkdir()


def write_garbage(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)


def make_future(path: Path) -> None:
    History(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 999")


def make_foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE recipes (name TEXT)")


def break_lock(path: Path) -> None:
    Path(f"{path}.lock").mkdir()


def leave_out(path: Path) -> None:
    path.parent.rmdir()


START_ERRORS = {
    make_directory: "Is a directory",
    write_garbage: "file is not a database",
    make_future: "la ha escrito una versión más nueva de sock_chat",
    make_foreign: "es de otro programa",
    break_lock: "Is a directory",
    leave_out: "No such file or directory",
}


@pytest.mark.parametrize(("prepare", "reason"), START_ERRORS.items())
def test_a_database_that_cannot_be_used(
    prepare: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "folder" / "chat.db"
    path.parent.mkdir()
    prepare(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(StoreError) as info:
        History(path)
    assert str(info.value) == f"No se puede usar {path}: {reason}"
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_one_server_a_file(tmp_path: Path) -> None:
    history = History(tmp_path / "chat.db")
    with pytest.raises(StoreError, match="la usa otro servidor"):
        History(tmp_path / "chat.db")
    history.close()
    History(tmp_path / "chat.db").close()


def test_a_backup_of_a_running_server_is_whole(tmp_path: Path, start: Start) -> None:
    process = start(tmp_path / "chat.db")
    first, _ = process.do("say", "general", 1000)
    process.tell("flood")
    for _ in range(20):
        process.answer()
    with closing(sqlite3.connect(tmp_path / "chat.db")) as database:
        while not database.execute("SELECT total(count) FROM said").fetchone()[0]:
            process.answer()
        database.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
    process.kill()
    history = History(tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    rows = texts_in(tmp_path / "copy.db")
    assert [text for _, text in rows[:3]] == [str(first + i) for i in range(3)]
    history.close()


def test_old_messages_go_a_few_at_a_time(tmp_path: Path) -> None:
    history = History(tmp_path / "chat.db", keep=10_000)
    history.say(*map(str, range(5000)))
    history.close()
    history = History(tmp_path / "chat.db", keep=100)
    counts: list[int] = []
    while not counts or history.disk.timers:
        if not counts:
            history.say("last")
        history.disk.turn()
        counts.append(len(texts_in(tmp_path / "chat.db")))
    assert 5001 - 501 <= counts[0] < 4600 and counts[-1] == 101, "whole chunks"
    assert all(a - b <= 501 for a, b in pairwise(counts))
    assert history.latest(count=200)[-1] == "last"
    past = history.after("general", 1, 1000, history.log.position)
    assert past.gap and len(past.messages) == 101
    history.close()


def test_a_speaker_waits_when_its_share_of_the_queue_is_full(tmp_path: Path) -> None:
    history, woken = History(tmp_path / "chat.db"), []

    class Author:
        def wake(self) -> None:
            woken.append(self)

    ana, bea, carla = Author(), Author(), Author()
    text = "x" * 4000
    while not history.log.full(ana):
        history.say(*[text] * 15, author=ana)
    assert QUEUE_SIZE // 2 <= history.log._size < QUEUE_SIZE // 2 + 65_000
    while not history.log.full(bea):
        history.say(*[text] * 15, author=bea)
    assert QUEUE_SIZE * 3 // 4 <= history.log._size < QUEUE_SIZE * 3 // 4 + 130_000
    assert not history.log.full(carla)
    assert not woken
    history.disk.turn()
    assert set(woken) == {ana, bea}
    assert not history.log.full(ana) and not history.log._size and not history.log._shares
    history.disk.refusing = True
    for _ in range(100):
        history.say(*[text] * 15, author=ana)
        history.disk.turn()
        assert not history.log.full(ana), "nobody waits for a disk that refuses"
        assert history.log._size <= QUEUE_SIZE + 65_000
    assert len(history.reports) == 1
    history.disk.refusing = False
    history.close()


def test_an_idle_log_does_nothing(tmp_path: Path) -> None:
    history = History(tmp_path / "chat.db")
    history.say("hola")
    while history.disk.timers:
        history.disk.turn()
    assert history.disk.calls.empty()
    mode = os.stat(history.path).st_mode & 0o777
    assert mode == 0o600, "passwords are in it"
    history.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["chat.db", "chat.db.lock"]


def test_memory_keeps_nothing() -> None:
    log = MemoryLog("epoch")
    log.subscribe(lambda turn: None, lambda turn, text: None)
    log.append(turn("general", *map(str, range(300))))
    pasts: list[Past] = []
    log.latest("general", 2, log.position, pasts.append)
    log.after("general", 50, 1000, log.position, pasts.append)
    log.after("general", 299, 1000, log.position, pasts.append)
    assert [([s.text for s in past.messages], past.gap) for past in pasts] == [
        (["298", "299"], True),
        ([str(number) for number in range(100, 300)], True),
        (["299"], False),
    ]


# The server


def test_history_before_the_greeting_and_after_the_stop(serve: Serve, tmp_path: Path) -> None:
    server = serve("--db", str(tmp_path / "chat.db"))
    ana = Guest(server, "ana")
    ana.say(*map(str, range(60)), "/join cine", "hola", "/list")
    ana.lines("* En cine: ana.", "* En cine (1): ana")
    server.stop()
    assert len(texts_in(tmp_path / "chat.db")) == 61
    server = serve("--db", str(tmp_path / "chat.db"))
    bea = Guest(server)
    bea.say("bea")
    shown = [bea.line() for _ in range(20)]
    assert re.fullmatch(r"\[20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\] ana dice: 40", shown[0])
    assert [line.split()[-1] for line in shown] == list(map(str, range(40, 60)))
    bea.lines("* Hola, bea. En general: bea.")
    bea.say("/history")
    assert [bea.line().split()[-1] for _ in range(50)] == list(map(str, range(10, 60)))
    bea.say("/join cine")
    assert bea.line().endswith("] ana dice: hola")
    bea.lines("* En cine: bea.")


def test_a_killed_server_keeps_what_was_said(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    with Server("v5", arguments=["--db", str(path)]) as server:
        ana = Guest(server, "ana")
        ana.say(*map(str, range(5000)), "/list")
        ana.lines("* En general (1): ana")
        deadline = time.monotonic() + 10
        while len(texts_in(path)) < 5000:
            assert time.monotonic() < deadline
        server.kill()
    server = serve("--db", str(path))
    bea = Guest(server)
    bea.say("bea", "/history 200", "hola")
    assert [bea.line().split()[-1] for _ in range(20)] == list(map(str, range(4980, 5000)))
    bea.line()
    assert [bea.line().split()[-1] for _ in range(200)] == list(map(str, range(4800, 5000)))
    server.stop()
    positions = [position for position, _ in texts_in(path)]
    assert positions[:-1] == list(range(1, 5001)) and positions[-1] > 5000


@pytest.mark.parametrize(("prepare", "reason"), START_ERRORS.items())
def test_a_server_whose_database_cannot_be_used_says_so_in_one_line(
    prepare: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "folder" / "chat.db"
    path.parent.mkdir()
    prepare(path)
    command = [sys.executable, "stages/v5/server.py", "--port", "0", "--db", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=15)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"No se puede usar {path}: {reason}\n"


def test_a_disk_that_refuses_costs_the_room_nothing(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    server = serve("--db", str(path), "--quiet")
    ana, bea = Guest(server, "ana"), Guest(server, "bea")
    ana.line()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ana.say("uno")
        bea.lines("ana dice: uno")
        server.log.wait("El historial no se guarda: database is locked".__eq__)
        carla = Guest(server)
        carla.say("carla")
        assert carla.line().endswith("] ana dice: uno")
        other.execute("COMMIT")
    server.log.wait("El historial se guarda de nuevo; faltan 0 mensajes.".__eq__)
    server.stop()
    assert [text for _, text in texts_in(path)] == ["uno"]


def test_a_stop_in_a_flood_keeps_all_that_was_heard(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    server = serve("--db", str(path), "--quiet")
    ana, bea = Guest(server, "ana"), Guest(server, "bea")
    ana.line()

    def flood() -> None:
        with suppress(OSError):
            for first in range(0, 10_000_000, 100):
                ana.say(*map(str, range(first, first + 100)))

    thread = Thread(target=flood)
    thread.start()
    bea.take(100_000)
    server.process.terminate()
    heard = bea.rest().decode().split("\n")
    thread.join()
    assert server.process.wait(10) == 0
    last = next(line for line in reversed(heard[:-1]) if line.startswith("ana dice: "))
    texts = [text for _, text in texts_in(path)]
    assert texts == list(map(str, range(len(texts))))
    assert len(texts) > int(last.removeprefix("ana dice: "))


def test_the_journal_of_a_server_shrinks_when_a_reader_has_gone(tmp_path: Path) -> None:
    """A reader's snapshot keeps the WAL from being begun anew."""
    history = History(tmp_path / "chat.db")
    journal = tmp_path / "chat.db-wal"
    with closing(sqlite3.connect(history.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM said").fetchone()
        while journal.stat().st_size < 3 * JOURNAL_SIZE // 2:
            history.say(*["x" * 4000] * 300)
            history.disk.turn()
    for _ in range(8):
        history.say(*["x" * 4000] * 300)
        history.disk.turn()
    assert journal.stat().st_size <= JOURNAL_SIZE
    history.close()
    assert not journal.exists()
