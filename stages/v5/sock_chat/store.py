"""The database of one server: an SQLite file, and the only thread that touches it.

The loop never waits for the disk. It hands over jobs, functions that get the connection; they are
done one by one, in their order, and what comes of them is brought back by `post`, which calls a
function in the loop from another thread. Each statement of a job is a transaction by itself, unless
the job begins one; it ends with the job.

Only one server may use a file. It says so by flock() on FILE.lock, not by a lock of SQLite's, so
that others may read: `VACUUM INTO` makes a copy of the running server's history.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

from sock_chat.counters import Counters

MEMORY = ":memory:"
VERSION = 1
HEADER = b"SQLite format 3\0"  # fileformat2.html
SCHEMA = """
CREATE TABLE log (epoch TEXT NOT NULL, reserved INTEGER NOT NULL, forgotten INTEGER NOT NULL);
INSERT INTO log VALUES (lower(hex(randomblob(8))), 0, 0);

-- What was said in a room, a chunk in a row. position, last: of its first message and its last one.
CREATE TABLE chunks (position INTEGER PRIMARY KEY, last INTEGER NOT NULL, count INTEGER NOT NULL,
    room TEXT NOT NULL, messages TEXT NOT NULL);
CREATE INDEX chunks_of_room ON chunks (room); -- and in the order of the positions, as every index

CREATE TABLE accounts (folded TEXT PRIMARY KEY, shown TEXT NOT NULL, hash TEXT NOT NULL);
CREATE TABLE bans (who TEXT PRIMARY KEY, until INTEGER NOT NULL, minutes INTEGER NOT NULL)"""
START_TIMEOUT = 2.0  # seconds to wait at the start for a lock of another program's
TIMEOUT = 0.1  # and later, before the disk counts as one that refuses
CLOSE_TIMEOUT = 0.4  # twice: for what is waiting, and for the file; the stop may take 2 s in all
JOURNAL_SIZE = 16 << 20  # bytes that the WAL keeps when all of it is in the database

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]
Post = Callable[[Callable[[], None]], object]


class StoreError(Exception):
    """Why a database cannot be used, in one line."""


class _Order(NamedTuple):
    job: Job[Any]
    done: Callable[[Any], None]
    failed: Callable[[Exception], None]


class Store:
    def __init__(self, path: str, post: Post, counters: Counters | None = None):
        """Open the file, or make it. Raises StoreError."""
        self._path = path
        self._post = post
        self.counters = counters or Counters()
        self._lock = -1
        try:
            if path != MEMORY:
                _refuse_stranger(path)
                self._lock = _lock(path)
            self._database = _open(path)
        except (OSError, sqlite3.Error, StoreError) as error:
            self._unlock()
            reason = error.strerror if isinstance(error, OSError) else error
            raise StoreError(f"No se puede usar {path}: {reason}") from None
        self._orders: SimpleQueue[_Order | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def do(
        self, job: Job[T], done: Callable[[T], None], failed: Callable[[Exception], None]
    ) -> None:
        """Have a job done. failed: called instead of done when the disk refuses; then nothing of
        its transaction is written."""

        def post(call: Callable[[Any], None], value: object) -> None:
            with suppress(RuntimeError):  # the loop has ended
                self._post(partial(call, value))

        self._orders.put(_Order(job, partial(post, done), partial(post, failed)))

    def wait(self, job: Job[T], timeout: float | None = None) -> T:
        """Have a job done, and wait for it: before the loop runs, or after. Raises StoreError."""
        future: Future[T] = Future()
        self._orders.put(_Order(job, future.set_result, future.set_exception))
        try:
            return future.result(timeout)
        except (sqlite3.Error, futures.TimeoutError) as error:
            reason = str(error) or "el disco no responde"
            raise StoreError(f"No se puede usar {self._path}: {reason}") from None

    def relax(self) -> None:
        """From the start to service: a commit waits neither for the disk nor, for long, for other
        programs. A killed process loses nothing by that; a power failure, the last commits."""

        def set_pragmas(database: sqlite3.Connection) -> None:
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(f"PRAGMA busy_timeout = {TIMEOUT * 1000:g}")

        self._orders.put(_Order(set_pragmas, lambda _: None, lambda error: None))

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Do what is to be done still, and close the file. A disk that takes longer than that is
        left alone: what is written is in the WAL."""
        self._orders.put(None)
        self._thread.join(timeout)
        if not self._thread.is_alive():
            self._unlock()

    def _run(self) -> None:
        leave_signals()
        database, counters = self._database, self.counters
        while order := self._orders.get():
            begun, changes = perf_counter(), database.total_changes
            try:
                result = order.job(database)
                if database.in_transaction:
                    database.execute("COMMIT")
            except Exception as error:  # nothing may end this thread
                counters.refused_commits += 1
                with suppress(sqlite3.Error):
                    database.rollback()
                order.failed(error)
            else:
                if database.total_changes != changes:
                    counters.commits.observe(perf_counter() - begun)
                order.done(result)
        with suppress(sqlite3.Error):
            database.close()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def leave_signals() -> None:
    """Leave them to the main thread, which blocks them at the end. The kernel would give them to
    this one then, and what the loop has restored is that they kill."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))


def _refuse_stranger(path: str) -> None:
    """A file that is no database stays as it is, and gets no lock beside it."""
    if os.path.exists(path):
        with open(path, "r+b", buffering=0) as file:
            if not os.path.isfile(path) or file.read(len(HEADER)) not in (b"", HEADER):
                raise StoreError("file is not a database")


def _lock(path: str) -> int:
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreError("la usa otro servidor") from None
    return descriptor


def _open(path: str) -> sqlite3.Connection:
    if path != MEMORY:  # passwords are in it, though hashed; the WAL gets the same permissions
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    database = sqlite3.connect(
        path, timeout=START_TIMEOUT, isolation_level=None, check_same_thread=False
    )
    try:
        # What promises that no position is used twice has to outlive a power failure, too.
        database.execute("PRAGMA synchronous = FULL")
        database.execute("BEGIN IMMEDIATE")
        _migrate(database)
        database.execute("COMMIT")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA journal_size_limit = {JOURNAL_SIZE}")
        return database
    except BaseException:
        database.close()
        raise


def _migrate(database: sqlite3.Connection) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version > VERSION:
        raise StoreError("la ha escrito una versión más nueva de sock_chat")
    if version == 0:
        if tables:
            raise StoreError("es de otro programa")
        for statement in SCHEMA.split(";"):
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {VERSION}")
