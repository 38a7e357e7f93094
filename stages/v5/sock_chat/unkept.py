"""Accounts and people of one process that keeps nothing: no nick has an owner, nobody is banned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from sock_chat.events import Private
from sock_chat.names import Nick
from sock_chat.registry import LocalNames
from sock_chat.services import Ban, Check, Holder
from sock_chat.session import Session


class LocalPeople:
    def __init__(self, names: LocalNames):
        self._names = names

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
        done([])

    def unban(self, who: Nick | str, done: Callable[[bool], None]) -> None:
        done(False)

    def bans(self, done: Callable[[Sequence[Ban]], None]) -> None:
        done([])


class NoAccounts:
    def check(self, nick: Nick, password: str, address: str, done: Callable[[Check], None]) -> None:
        done(Check.NO_OWNER)

    def register(self, nick: Nick, password: str, done: Callable[[bool], None]) -> None:
        done(False)

    def change(self, nick: Nick, password: str, done: Callable[[bool], None]) -> None:
        done(False)

    def unregister(self, nick: Nick, done: Callable[[bool], None]) -> None:
        done(False)
