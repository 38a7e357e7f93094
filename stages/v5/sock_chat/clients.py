"""The clients of this server that others know, or are about to know: each has a number.

It gets it with its first nick, and nobody else gets the same while this process lives.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, cast

from sock_chat.log import Author
from sock_chat.services import Holder

if TYPE_CHECKING:
    from sock_chat.session import Session


class Clients:
    """jetstream_log.Numbers."""

    def __init__(self) -> None:
        self._count = count(1)
        self._numbers: dict[Holder, int] = {}
        self._holders: dict[int, Holder] = {}  # the same the other way round
        self._tokens: dict[Holder, str] = {}

    def __iter__(self) -> Iterator[Session]:
        """Those that have not ended."""
        return iter([cast("Session", each) for each in self._numbers if not each.ended])

    def add(self, holder: Holder) -> int:
        if holder not in self._numbers:
            self._numbers[holder] = next(self._count)
            self._holders[self._numbers[holder]] = holder
        return self._numbers[holder]

    def forget(self, holder: Holder) -> None:
        self._tokens.pop(holder, None)
        self._holders.pop(self._numbers.pop(holder, 0), None)

    def number(self, author: object) -> int:
        return self._numbers.get(cast(Holder, author), 0)

    def author(self, number: int) -> Author | None:
        return cast("Author | None", self._holders.get(number))

    def holder(self, number: int) -> Holder | None:
        """Whether it has ended or not."""
        return self._holders.get(number)

    def session(self, number: int) -> Session | None:
        holder = self._holders.get(number)
        return cast("Session", holder) if holder and not holder.ended else None

    def evict(self, author: Author) -> None:
        session = cast("Session", author)
        if session.nick:
            session.displace(session.nick)

    def token(self, holder: Holder, token: str = "") -> str:
        """What its session can be resumed with. token: which it has already."""
        if token:
            self._tokens[holder] = token
        return self._tokens.setdefault(holder, "") or self.token(holder, secrets.token_urlsafe(16))
