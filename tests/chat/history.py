"""A log on a disk that refuses when it is told to, without a loop."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from sock_chat import archive
from sock_chat.log import Past
from sock_chat.sqlite_log import SqliteLog
from sock_chat.store import Job, Store
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


def texts_in(path: Path) -> list[tuple[int, str]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(
            "SELECT value ->> 'position', value ->> 'text' FROM chunks, json_each(messages)"
            " ORDER BY 1"
        ).fetchall()
