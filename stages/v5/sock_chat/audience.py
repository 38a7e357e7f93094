"""Who hears a room, and what each of them hears of a turn.

A turn is encoded once for all with the same codec, and each of them gets one write. Whoever did
nothing in it, and that is nearly everybody, gets the same object. The others get it with a Cut:
whoever spoke, without its own part; who came in, what came after; who left, what came before. A cut
is made of slices of what is encoded already, for a turn put together anew for each speaker would
cost more than a loop in C wins.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate, repeat
from typing import cast

from sock_chat.codec import Codec
from sock_chat.events import RoomEvent, Said
from sock_chat.link import HIGH_WATER, Member, Reason
from sock_chat.log import Author

SMALL = 4096  # bytes of a turn that are copied sooner than a view of them is made

Entries = Sequence[tuple[Author, RoomEvent]]


class Newcomer:
    """Stands in a room for a member that has not seen the past yet, and keeps what it hears."""

    def __init__(self, member: Member):
        self.codec = member.codec
        self.member = member
        self.waiting = 0
        self.kept: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.kept.append(data)
        self.waiting += len(data)
        if self.waiting > HIGH_WATER:
            self.kept.clear()
            self.abort(Reason.SLOW)

    def abort(self, reason: Reason) -> None:
        self.member.abort(reason)


class Cut:
    """What a member does not hear of a turn."""

    __slots__ = ("end", "member", "own", "start")

    def __init__(self, member: Member):
        self.member = member
        self.start = 0  # the first event that it hears
        self.end: int | None = None  # the first that it does not hear any more
        self.own: list[int] = []  # what it has said itself


class Audience:
    def __init__(self) -> None:
        self._groups: defaultdict[Codec, dict[Author, Member]] = defaultdict(dict)
        self.size = 0

    def get(self, author: Author) -> Member | None:
        for group in self._groups.values():
            if author in group:
                return group[author]
        return None

    def put(self, author: Author, member: Member) -> None:
        group = self._groups[member.codec]
        self.size += author not in group
        group[author] = member

    def remove(self, author: Author) -> None:
        for group in self._groups.values():
            self.size -= group.pop(author, None) is not None

    def cut(self, author: Author, cuts: dict[Author, Cut]) -> Cut | None:
        """The cut of somebody who hears the room."""
        if author not in cuts and (member := self.get(author)):
            cuts[author] = Cut(member)
        return cuts.get(author)

    def tell(self, entries: Entries, cuts: dict[Author, Cut]) -> None:
        for codec, group in list(self._groups.items()):
            apart = {author: cut for author, cut in cuts.items() if cut.member.codec is codec}
            if not group and not apart:
                continue
            parts = codec.encode([event for _, event in entries])
            body = codec.separator.join(parts)
            silent = group.copy()
            for author in apart:
                silent.pop(author, None)
            if silent:
                data = codec.wrap(body)
                for member in silent.values():  # where this server spends its life
                    member.write(data)
            if apart:
                gap = len(codec.separator)
                starts = list(accumulate([len(part) + gap for part in parts], initial=0))
                own = [entries[index][1] for cut in apart.values() for index in cut.own]
                acks = iter(codec.acks(cast("list[Said]", own))) if codec.acks else repeat(b"")
                text = body if len(body) < SMALL else memoryview(body)
                for cut in apart.values():
                    _tell_rest(len(entries), cut, text, starts, acks)


def _tell_rest(
    size: int, cut: Cut, body: bytes | memoryview, starts: Sequence[int], acks: Iterator[bytes]
) -> None:
    """Tell a member what the cut leaves of a turn of this size that is encoded already. acks: the
    next are its own."""
    codec = cut.member.codec
    gap = len(codec.separator)
    end = size if cut.end is None else cut.end
    rest: list[bytes | memoryview] = []
    index = cut.start
    for own, ack in zip(cut.own, acks):  # noqa: B905
        if index < own:
            rest.append(body[starts[index] : starts[own] - gap])
        if ack:
            rest.append(ack)
        index = own + 1
    if index < end:
        rest.append(body[starts[index] : starts[end] - gap])
    if rest:
        cut.member.write(codec.wrap(codec.separator.join(rest)))
