"""The log: what has happened in the rooms, in one order for everybody. What it is kept in is for
others to say; here is what they have to do.

A room does not tell what happens in it. It gives the turn to the log, and tells what the log gives
back. A log on the disk of the only server gives a turn back at once, before append() returns. One
that several servers write to gives it back when it is read, and gives every server the turns of the
others as well, in the same order. That order decides everything: who was in the room when something
was said, and what a newcomer has to be shown of the past.

Only what is said takes a position, a number from one growing series for all rooms.
"""

from collections.abc import Callable, Hashable, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from sock_chat.events import RoomEvent, Said

# Who did it: the session, where it is one of this server's; what stands for it, where it is not.
Author = Hashable


class Speaker(Author, Protocol):
    """Who can be made to wait: a session of this server's."""

    def wake(self) -> None: ...


class Turn(NamedTuple):
    """What has happened in a room in a turn of the loop."""

    room: str
    at: datetime
    entries: Sequence[tuple[Author, RoomEvent]]

    def number(self, position: int) -> int:
        """Give positions to what was said, from this one on; the first that is left."""
        at = self.at
        for _, event in self.entries:
            if isinstance(event, Said):
                event.position = position
                event.at = at
                position += 1
        return position


class Past(NamedTuple):
    messages: Sequence[Said]  # oldest first, public()
    gap: bool  # there were more in between than were wanted, or are kept


class Log(Protocol):
    @property
    def epoch(self) -> str:
        """A word that nobody has used before, made when the positions began."""

    @property
    def position(self) -> int:
        """The newest; while a turn is delivered, the last that it has, or has passed."""

    def subscribe(
        self, deliver: Callable[[Turn], None], refuse: Callable[[Turn, str], None]
    ) -> None:
        """Have turns given back, numbered: each once, and those of a room in their order. A turn
        may be refused instead, with a word about why. Then what was said in it has not been said;
        entering, leaving and new names have happened on this server, or nobody would be where he
        believes to be, and it is for the log to see that other servers learn of them."""

    def append(self, turn: Turn) -> None:
        """Take a turn, to number and to deliver it, now or later."""

    def latest(self, room: str, count: int, upto: int, done: Callable[[Past], None]) -> None:
        """The newest `count` messages of a room, of those up to and with a position."""

    def after(
        self, room: str, since: int, count: int, upto: int, done: Callable[[Past], None]
    ) -> None:
        """The same, but nothing up to and with `since`."""

    def full(self, author: Speaker) -> bool:
        """Whether what this author has said fills its share of what waits to be written. It is not
        read from, until the log calls its wake()."""
