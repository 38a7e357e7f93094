"""The messages of this server: turns, and what it says about itself, each with its number.

A turn that is too long for a message is two. Packer also knows who will be in the rooms from here
when all that it has packed has happened, for others may ask (`introduce`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sock_chat.events import RoomEvent, Said
from sock_chat.log import Author, Turn
from sock_chat.wire import (
    MAX_ENTRIES,
    Entry,
    Evicted,
    LeftEntry,
    Members,
    Numbered,
    Person,
    RenamedEntry,
    SaidEntry,
    Started,
    Subjects,
    Turned,
    encode,
    to_entry,
)

PEOPLE = 1000  # in a message


class Parcel:
    """A message with a number. turn: what it tells, if it is one.
    is_delivered: that has happened here already."""

    __slots__ = ("is_delivered", "message", "payload", "subject", "turn")

    def __init__(self, subject: str, message: Numbered, turn: Turn | None = None):
        self.subject = subject
        self.message = message
        self.payload = encode(message)
        self.turn = turn
        self.is_delivered = False

    def strip(self) -> None:
        """Leave out what was said, which has been refused; the rest has happened."""
        assert self.turn and isinstance(self.message, Turned)
        self.turn = self.turn._replace(entries=without_messages(self.turn))
        self.message.entries = [e for e in self.message.entries if not isinstance(e, SaidEntry)]
        self.payload = encode(self.message)
        self.is_delivered = True


def without_messages(turn: Turn) -> list[tuple[Author, RoomEvent]]:
    return [entry for entry in turn.entries if not isinstance(entry[1], Said)]


class Packer:
    def __init__(self, subjects: Subjects):
        self.people: dict[int, Person] = {}
        self._subjects = subjects
        self._lease = ""
        self._next = 1  # number

    @property
    def last(self) -> int:
        """The newest number."""
        return self._next - 1

    def begin(self, lease: str) -> Parcel:
        """From now on under this lease. It says first that the server is there."""
        self._lease, self._next = lease, 1
        self.people.clear()
        return self._own(Started(lease, self._number()))

    def evict(self, lease: str, author: int) -> Parcel:
        return self._own(Evicted(self._lease, self._number(), lease, author))

    def introduce(self) -> Iterable[Parcel]:
        """Who is here."""
        people = list(self.people.values())
        for start in range(0, len(people) or 1, PEOPLE):
            part = people[start : start + PEOPLE]
            more = start + PEOPLE < len(people)
            yield self._own(Members(self._lease, self._number(), more, part))

    def pack(self, turn: Turn, number: Callable[[Author], int], max_size: int) -> Iterable[Parcel]:
        """A single event may be longer than max_size all the same."""
        entries = [to_entry(number(author), event) for author, event in turn.entries]
        for entry in entries:
            if isinstance(entry, LeftEntry):
                self.people.pop(entry.author, None)
            elif not isinstance(entry, SaidEntry):
                nick = entry.to if isinstance(entry, RenamedEntry) else entry.nick
                self.people[entry.author] = Person(entry.author, nick, turn.room)
        return self._split(turn, entries, max_size)

    def _split(self, turn: Turn, entries: Sequence[Entry], max_size: int) -> Iterable[Parcel]:
        at = int(turn.at.timestamp())
        message = Turned(self._lease, self._next, at, turn.room, list(entries))
        parcel = Parcel(self._subjects.room(turn.room), message, turn)
        count = len(entries)
        if count > 1 and (count > MAX_ENTRIES or len(parcel.payload) > max_size):
            half = count // 2
            for part in (slice(half), slice(half, count)):
                piece = turn._replace(entries=turn.entries[part])
                yield from self._split(piece, entries[part], max_size)
        else:
            self._number()
            yield parcel

    def _number(self) -> int:
        self._next += 1
        return self._next - 1

    def _own(self, message: Numbered) -> Parcel:
        return Parcel(self._subjects.server(self._lease), message)
