"""Those who are in, where one process has them all, and those who may not come in.

A ban is for a nick, by its folded form, or for an address: of IPv6, for its /64 (`limits.party`).
Bans are in memory, on the clock that never goes back, and in the database with date and time, for
the next start. Should the date have gone back by then, a ban lasts no longer than it was given for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import ceil
from typing import NamedTuple, cast

from sock_chat.events import Private
from sock_chat.limits import party
from sock_chat.names import Nick
from sock_chat.registry import LocalNames
from sock_chat.services import Ban, Holder
from sock_chat.session import Session
from sock_chat.store import Store


class Row(NamedTuple):
    """A ban in the database."""

    who: str
    until: int  # seconds since 1970
    minutes: int


class LocalPeople:
    """services.People in the memory of a process, and its database.

    clock: tells seconds that never go back. date: tells those since 1970. report: takes a line for
    the operator."""

    def __init__(
        self,
        store: Store,
        names: LocalNames,
        clock: Callable[[], float],
        date: Callable[[], float],
        report: Callable[[str], None],
    ):
        self._store = store
        self._names = names
        self._clock = clock
        self._date = date
        self._report = report
        self._bans: dict[str, float] = {}  # when each ends
        now = date()
        for who, until, minutes in store.wait(partial(_load, int(now))):
            self._bans[who] = clock() + min(until - now, minutes * 60)
        names.is_banned = self.is_banned

    def is_banned(self, nick: Nick) -> bool:
        return self._meets(nick.folded)

    def bars(self, address: str) -> bool:
        return bool(self._bans) and self._meets(party(address))

    def _meets(self, who: str) -> bool:
        return self._bans.get(who, 0.0) > self._clock()

    def _find(self, nick: Nick) -> Session | None:
        return cast("Session | None", self._names.find(nick))

    def tell(self, nick: Nick, event: Private, done: Callable[[bool], None]) -> None:
        session = self._find(nick)
        if session:
            session.tell(event)
        done(session is not None)

    def kick(self, nick: Nick, reason: str, done: Callable[[bool], None]) -> None:
        session = self._find(nick)
        if session:
            session.kick(reason)
        done(session is not None)

    def ban(
        self, who: Nick | str, minutes: int, by: Holder, done: Callable[[Sequence[Ban]], None]
    ) -> None:
        banned: list[str] = []
        if isinstance(who, str):
            banned.append(party(who))
        else:
            if holder := self._names.find(who):
                banned.append(party(holder.address))
            if self._names.owned.get(who):
                banned.append(who.folded)
        for name in banned:
            self._bans[name] = self._clock() + minutes * 60
        until = int(self._date()) + minutes * 60
        rows = [Row(name, until, minutes) for name in banned]
        self._store.do(partial(_put, rows), lambda _: None, self._refused)
        for session in cast("list[Session]", list(self._names)):
            nick = session.nick.folded if session.nick else ""
            if session is not by and (nick in banned or party(session.address) in banned):
                session.ban()
        done([Ban(name, minutes) for name in banned])

    def unban(self, who: Nick | str, done: Callable[[bool], None]) -> None:
        name = party(who) if isinstance(who, str) else who.folded
        banned = self._meets(name)
        self._bans.pop(name, None)
        self._store.do(partial(_remove, name), lambda _: None, self._refused)
        done(banned)

    def bans(self, done: Callable[[Sequence[Ban]], None]) -> None:
        now = self._clock()
        self._bans = {who: end for who, end in self._bans.items() if end > now}
        done([Ban(who, ceil((end - now) / 60)) for who, end in sorted(self._bans.items())])

    def _refused(self, error: Exception) -> None:
        self._report(f"Una prohibición no se guarda: {error}")


def _load(now: int, database: sqlite3.Connection) -> list[Row]:
    database.execute("DELETE FROM bans WHERE until <= ?", (now,))
    return [Row(*row) for row in database.execute("SELECT who, until, minutes FROM bans")]


def _put(rows: Iterable[Row], database: sqlite3.Connection) -> None:
    database.executemany("INSERT OR REPLACE INTO bans VALUES (?, ?, ?)", rows)


def _remove(who: str, database: sqlite3.Connection) -> None:
    database.execute("DELETE FROM bans WHERE who = ?", (who,))
