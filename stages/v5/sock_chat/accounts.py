"""Which nicks have an owner, and whether a password is the owner's.

All accounts are in memory as well as in the database: nobody who logs in waits for a disk. What is
slow is the hashing, and it is meant to be: argon2id, tens of milliseconds and MEMORY KiB for each
password. It is done by two threads, so that the loop goes on, at a lower priority, so that it goes
on when there is only one CPU; and no password is looked at for an address that has had too many
wrong ones (`limits.Throttle`).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar

from argon2 import PasswordHasher, Type

from sock_chat import names
from sock_chat.limits import Throttle
from sock_chat.names import Nick
from sock_chat.registry import Table
from sock_chat.services import Check
from sock_chat.store import Job, Post, Store, leave_signals

MEMORY = 19456  # KiB
TIME = 2
PARALLELISM = 1
THREADS = 2
NICENESS = 10  # of these threads
QUEUE = 1000  # passwords that wait to be hashed, 15 s of work; with more nobody gets a try

INSERT = "INSERT OR IGNORE INTO accounts (shown, hash, folded) VALUES (?, ?, ?)"
UPDATE = "UPDATE accounts SET shown = ?, hash = ? WHERE folded = ?"
REHASH = f"{UPDATE} AND hash = ?"
DELETE = "DELETE FROM accounts WHERE folded = ?"

T = TypeVar("T")
Done = Callable[[bool | None], None]


class Account(NamedTuple):
    shown: str
    hash: str


class Change(NamedTuple):
    """What is to be kept. account: None: it is removed. fresh: there must be none yet, otherwise
    there must be one. old: the hash that it must have; empty: any."""

    nick: Nick
    account: Account | None
    fresh: bool = False
    old: str = ""


class HashedAccounts:
    """services.Accounts but for where they are kept. owned: the nicks that have an owner.
    clock: tells seconds that never go back. post: calls a function in the loop, from a thread."""

    def __init__(self, owned: Table, clock: Callable[[], float], post: Post):
        self._owned = owned
        self._clock = clock
        self._post = post
        self._throttle = Throttle()
        self._hasher = PasswordHasher(TIME, MEMORY, PARALLELISM, type=Type.ID)
        self._pool = ThreadPoolExecutor(THREADS, "hash", _prepare_thread)
        self.waiting = 0  # passwords, for a thread
        self._accounts: dict[str, Account] = {}  # by the folded nick

    def _keep(self, change: Change, done: Done) -> None:
        """done: called with whether there was what the change is for; None: it cannot be kept."""
        raise NotImplementedError

    def _add(self, folded: str, account: Account) -> None:
        self._accounts[folded] = account
        if nick := names.parse(account.shown):
            self._owned.add(nick)

    def check(self, nick: Nick, password: str, address: str, done: Callable[[Check], None]) -> None:
        account, began = self._accounts.get(nick.folded), self._clock()
        if account is None:
            done(Check.NO_OWNER)
        elif self.waiting >= QUEUE or not self._throttle.begin(address, began):
            done(Check.TOO_MANY)
        else:

            def checked(right: bool | None) -> None:
                if right:
                    self._throttle.succeed(address, began)
                if self._accounts.get(nick.folded) != account:  # changed, or gone, meanwhile
                    right = False
                elif right and self._hasher.check_needs_rehash(account.hash):
                    self._set(nick, password, lambda changed: None, old=account.hash)
                done(Check.RIGHT if right else Check.WRONG)

            self._hash(partial(self._hasher.verify, account.hash, password), checked)

    def register(self, nick: Nick, password: str, done: Done) -> None:
        if nick.folded in self._accounts:
            done(False)
            return

        def registered(fresh: bool | None) -> None:
            if nick.folded not in self._accounts:
                self._owned.discard(nick)
            done(fresh)

        self._owned.add(nick)  # whoever has gone before the hash is there leaves it to nobody
        self._set(nick, password, registered, fresh=True)

    def change(self, nick: Nick, password: str, done: Done) -> None:
        self._set(nick, password, done)

    def unregister(self, nick: Nick, done: Done) -> None:
        def removed(was_there: bool | None) -> None:
            if was_there is not None:
                self._accounts.pop(nick.folded, None)
                self._owned.discard(nick)
            done(was_there)

        self._keep(Change(nick, None), removed)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _set(
        self, nick: Nick, password: str, done: Done, fresh: bool = False, old: str = ""
    ) -> None:
        def hashed(hash: str | None) -> None:
            if hash is None:
                done(None)
                return
            account = Account(nick.shown, hash)
            self._keep(Change(nick, account, fresh, old), partial(kept, account))

        def kept(account: Account, applied: bool | None) -> None:
            if applied:
                self._accounts[nick.folded] = account
                self._owned.add(nick)
            done(applied)

        self._hash(partial(self._hasher.hash, password), hashed)

    def _hash(self, work: Callable[[], T], done: Callable[[T | None], None]) -> None:
        """Have something done in the pool, and done() called in the loop with the outcome; None:
        it has failed, because it is another password, for want of memory, or for whatever reason,
        for somebody waits for it."""

        def finish(result: T | None) -> None:
            self.waiting -= 1
            done(result)

        def run() -> None:
            result = None
            with suppress(Exception):
                result = work()
            with suppress(RuntimeError):  # the loop has ended
                self._post(partial(finish, result))

        self.waiting += 1
        self._pool.submit(run)


class LocalAccounts(HashedAccounts):
    """They are kept in a database."""

    def __init__(self, store: Store, owned: Table, clock: Callable[[], float], post: Post):
        super().__init__(owned, clock, post)
        self._store = store
        for folded, *account in store.wait(_load):
            self._add(folded, Account(*account))

    def _keep(self, change: Change, done: Done) -> None:
        nick, account = change.nick, change.account
        values: Sequence[str] = (nick.folded,)
        statement = DELETE
        if account:
            statement = INSERT if change.fresh else REHASH if change.old else UPDATE
            values = (account.shown, account.hash, *values, *filter(None, [change.old]))
        job = partial(_change, statement, values)
        self._store.do(job, lambda count: done(count > 0), lambda error: done(None))


def _prepare_thread() -> None:
    """Linux has a niceness for each thread."""
    leave_signals()
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _load(database: sqlite3.Connection) -> list[tuple[str, str, str]]:
    return database.execute("SELECT folded, shown, hash FROM accounts").fetchall()


def _change(statement: str, values: Sequence[str], database: sqlite3.Connection) -> int:
    return database.execute(statement, values).rowcount


def forget(nick: Nick) -> Job[int]:
    """Remove the owner of a nick: a job for when no server runs. How many there were."""
    return partial(_change, DELETE, (nick.folded,))
