"""A log, accounts and people of one process that keeps nothing: what was said is in its memory, no
nick has an owner, nobody is banned."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import cast

from sock_chat.events import Private, Said
from sock_chat.log import Author, Past, Turn
from sock_chat.names import Nick
from sock_chat.registry import LocalNames
from sock_chat.services import Ban, Check, Holder
from sock_chat.session import Session


class MemoryLog:
    """keep: how many messages, of all rooms together."""

    def __init__(self, keep: int):
        self.epoch = secrets.token_hex(8)
        self.position = 0
        self._keep = keep
        self._dropped = 0  # the newest position that is not kept any more
        self._messages: dict[str, deque[Said]] = {}  # by room
        self._order: deque[str] = deque()  # the room of each, oldest first

    def subscribe(
        self, deliver: Callable[[Turn], None], refuse: Callable[[Turn, str], None]
    ) -> None:
        self._deliver = deliver

    def append(self, turn: Turn) -> None:
        self.position = turn.number(self.position + 1) - 1
        messages = [event for _, event in turn.entries if isinstance(event, Said)]
        if messages:
            self._messages.setdefault(turn.room, deque()).extend(messages)
            self._order.extend([turn.room] * len(messages))
            while len(self._order) > self._keep:
                self._drop(self._order.popleft())
        self._deliver(turn)

    def _drop(self, room: str) -> None:
        messages = self._messages[room]
        self._dropped = messages.popleft().position
        if not messages:
            del self._messages[room]

    def latest(self, room: str, count: int, upto: int, done: Callable[[Past], None]) -> None:
        self.after(room, 0, count, upto, done)

    def after(
        self, room: str, since: int, count: int, upto: int, done: Callable[[Past], None]
    ) -> None:
        newest = reversed(self._messages.get(room, ()))
        past = [
            message.public()
            for message in takewhile(lambda message: message.position > since, newest)
            if message.position <= upto
        ]
        gap = len(past) > count or self._dropped > since
        done(Past(past[:count][::-1], gap))

    def full(self, author: Author) -> bool:
        return False


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
