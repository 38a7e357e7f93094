"""What the stream says, sans-IO: which servers there are, who is in which room, and what happened.

Every server reads the same messages in the same order, and all come to the same conclusions from
them, for these are the rules:

- A message counts if its number is the next of its lease. One that comes once more (a retry whose
  first try had arrived after all) is void, and so is one that has overtaken another that was lost
  on the way: its server reads that as well, and writes both again.
- Nothing counts that a lease writes after its end.
- Of a client that has been evicted nothing counts but that it leaves.

A server that comes late starts at some message. It knows which leases there are (adopt()), and
asks for their Members by its Started. What it did not know before enters and leaves then, so that
all servers agree again, whenever the answer comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from sock_chat.events import Joined, Left, RoomEvent
from sock_chat.log import Author, Turn
from sock_chat.wire import (
    Ended,
    Evicted,
    JoinedEntry,
    LeftEntry,
    Members,
    Message,
    Person,
    RenamedEntry,
    Started,
    State,
    Turned,
    to_event,
)

Entries = list[tuple[Author, RoomEvent]]


class Stranger(NamedTuple):
    """Stands for a client of another server's."""

    lease: str
    author: int


class Peer:
    """A server, as far as it has been read. known: all its people are."""

    def __init__(self, number: int | None, known: bool):
        self.number = number  # of its last message; None: the next is the first that is seen
        self.known = known
        self.people: dict[int, Person] = {}
        self.evicted: set[int] = set()
        self.parts: list[Person] = []  # of Members that are not complete


class Replica:
    """author: who stands for a client in what read() returns."""

    def __init__(self, author: Callable[[str, int], Author]):
        self._author = author
        self._peers: dict[str, Peer] = {}
        self.ended: dict[str, Mapping[int, Person]] = {}  # with who was there until then

    @property
    def peers(self) -> Mapping[str, Peer]:
        """Those who live, by their leases."""
        return self._peers

    @property
    def knows_all(self) -> bool:
        return all(peer.known for peer in self._peers.values())

    def adopt(self, lease: str, known: bool, number: int | None = None) -> None:
        """There is such a lease. known: nobody has come in by it so far."""
        if lease not in self.ended:
            self._peers.setdefault(lease, Peer(number, known))

    def load(self, state: State, now: datetime) -> list[Turn]:
        """Begin with what another server knows."""
        self.ended = {lease: {} for lease in state.ended}
        turns: list[Turn] = []
        for part in state.peers:
            peer = self._peers.setdefault(part.lease, Peer(part.number, part.known))
            peer.evicted.update(part.evicted)
            peer.people.update({each.author: each for each in part.people})
            turns += self._enter(part.lease, part.people, now)
        return turns

    def room(self, lease: str, author: int) -> str | None:
        """Where somebody is, or was when his lease ended."""
        peer = self._peers.get(lease)
        person = (peer.people if peer else self.ended.get(lease, {})).get(author)
        return person.room if person else None

    def forget(self, lease: str) -> None:
        """Nobody asks any more for those who were there until it ended."""
        if lease in self.ended:
            self.ended[lease] = {}

    def read(
        self, message: Message, now: datetime, own: Entries | None = None
    ) -> list[Turn] | None:
        """What happened by it. None: it is void. now: where the message does not say when.
        own: the entries as they were before they were written, if this server knows them."""
        lease = message.lease
        if lease in self.ended:
            return None
        if isinstance(message, Ended):
            peer = self._peers.pop(lease, None)
            self.ended[lease] = peer.people if peer else {}
            return self._leave(lease, peer.people.values(), now) if peer else []
        if isinstance(message, Started):
            self._peers.setdefault(lease, Peer(None, True))
        peer = self._peers.get(lease)
        if peer is None or peer.number not in (None, message.number - 1):
            return None
        peer.number = message.number
        if isinstance(message, Turned):
            entries = self._happen(peer, message, own)
            return [Turn(message.room, message.time, entries)] if entries else []
        if isinstance(message, Members):
            peer.parts += message.people
            return [] if message.more else self._learn(lease, peer, now)
        if isinstance(message, Evicted):
            return self._evict(message, now)
        return []

    def _happen(self, peer: Peer, message: Turned, own: Entries | None) -> Entries:
        entries: Entries = []
        at = message.time
        for index, entry in enumerate(message.entries):
            number = entry.author
            evicted = number in peer.evicted
            if isinstance(entry, JoinedEntry):
                peer.people[number] = Person(number, entry.nick, message.room)
            elif number not in peer.people and (
                peer.known or evicted or isinstance(entry, (LeftEntry, RenamedEntry))
            ):
                continue
            elif isinstance(entry, RenamedEntry):
                peer.people[number] = Person(number, entry.to, message.room)
            elif isinstance(entry, LeftEntry):
                del peer.people[number]
            author = self._author(message.lease, number)
            entries.append(own[index] if own else (author, to_event(entry, at)))
            if evicted and number in peer.people:  # it lost its nick while it came in
                del peer.people[number]
                entries.append((author, Left(entry.nick)))
        return entries

    def _learn(self, lease: str, peer: Peer, now: datetime) -> list[Turn]:
        """Let those enter and leave who are missing, or are too many."""
        named = {each.author: each for each in peer.parts if each.author not in peer.evicted}
        old, peer.people, peer.parts, peer.known = peer.people, named, [], True
        gone = [each for number, each in old.items() if named.get(number) != each]
        turns = self._leave(lease, gone, now)
        come = [each for number, each in named.items() if old.get(number) != each]
        return [*turns, *self._enter(lease, come, now)]

    def _enter(self, lease: str, people: Iterable[Person], now: datetime) -> list[Turn]:
        return [
            Turn(
                room, now, [(self._author(lease, each.author), Joined(each.nick)) for each in come]
            )
            for room, come in _by_room(people)
        ]

    def _evict(self, message: Evicted, now: datetime) -> list[Turn]:
        peer = self._peers.get(message.other)
        if peer is None:
            return []
        peer.evicted.add(message.author)
        person = peer.people.pop(message.author, None)
        return self._leave(message.other, [person], now) if person else []

    def _leave(self, lease: str, people: Iterable[Person], now: datetime) -> list[Turn]:
        return [
            Turn(
                room, now, [(self._author(lease, each.author), Left(each.nick)) for each in members]
            )
            for room, members in _by_room(people)
        ]


def _by_room(people: Iterable[Person]) -> Iterable[tuple[str, list[Person]]]:
    rooms: dict[str, list[Person]] = {}
    for person in people:
        rooms.setdefault(person.room, []).append(person)
    return rooms.items()
