"""All rooms: which there are, whose turns have to end, and what was said once already.

A room comes with the first who enters it and goes with the last who leaves. `general` stays.
"""

from collections.abc import Callable, Iterable
from datetime import datetime

from sock_chat.counters import Counters
from sock_chat.events import Error, Post, RoomEvent, Said
from sock_chat.link import Member
from sock_chat.log import Author, Log, Turn
from sock_chat.names import fold
from sock_chat.repeats import Repeats
from sock_chat.room import Room

GENERAL = "general"
MAX_ROOMS = 1000  # beside general


class Rooms:
    """clock: tells seconds that never go back. today: date and time, in UTC.
    begin: called when a turn begins; flush() has to be called in the same turn of the loop, or a
    few turns later, when others have spoken, too.
    told: called with each turn that has been told."""

    def __init__(
        self,
        log: Log,
        clock: Callable[[], float],
        today: Callable[[], datetime],
        begin: Callable[[], None],
        counters: Counters,
        record: Callable[[Turn], None] | None = None,
    ):
        self._log = log
        self._today = today
        self._begin = begin
        self._counters = counters
        self._record = record
        self._begun: list[Room] = []  # in the order in which their turns have begun
        self.repeats = Repeats(clock)
        self.general = self._create(GENERAL)
        self._rooms = {GENERAL: self.general}
        log.subscribe(self._deliver, self._refuse)

    def open(self, name: str) -> Room | None:
        """A room to enter. A place in it is kept until it is entered, or given back by way of
        close(). None: there are too many rooms."""
        room = self._rooms.get(name)
        if room is None:
            if len(self._rooms) > MAX_ROOMS:
                return None
            room = self._rooms[name] = self._create(name)
        room.places += 1
        return room

    def close(self, room: Room) -> None:
        """Give back a place."""
        room.places -= 1
        self._end(room)

    def __len__(self) -> int:
        return len(self._rooms)

    def counts(self) -> list[tuple[str, int]]:
        return sorted((name, room.count) for name, room in self._rooms.items())

    def flush(self) -> None:
        """End the turns of all rooms."""
        # What a turn's end brings about, as entering the next room, is for the next turn.
        begun, self._begun = self._begun, []
        for room in begun:
            room.flush()

    def post(
        self, room: Room, author: Author, member: Member, post: Post, former: Iterable[str]
    ) -> None:
        """Say a line with an id, unless it has been said, under this nick or a former one of the
        same client: then it is only acknowledged."""
        if self.repeats.begin((fold(post.nick), *former), post.id, member):
            room.say(author, post)

    def _posted(self, post: Post) -> None:
        self.repeats.finish(fold(post.nick), post.ack())

    def _refuse(self, turn: Turn, text: str) -> None:
        """Tell those who have said something in the turn that it has not been said. The rest of it
        happens all the same: who enters, leaves or has a new name waits for it."""
        members: dict[Member, None] = {}
        others: list[tuple[Author, RoomEvent]] = []
        for author, event in turn.entries:
            if not isinstance(event, Said):
                others.append((author, event))
                continue
            if isinstance(event, Post):
                members |= dict.fromkeys(self.repeats.drop(fold(event.nick), event.id))
            if (room := self._rooms.get(turn.room)) and (member := room.member(author)):
                members[member] = None
        for member in members:
            member.write(member.codec.write(Error(text)))
        if others:
            self._deliver(turn._replace(entries=others))

    def _create(self, name: str) -> Room:
        return Room(name, self._log, self._today, self._turn, self._posted, self._counters)

    def _turn(self, room: Room) -> None:
        if not self._begun:
            self._begin()
        self._begun.append(room)

    def _deliver(self, turn: Turn) -> None:
        room = self._rooms.get(turn.room)
        if room is None:  # made on another server
            room = self._rooms[turn.room] = self._create(turn.room)
        room.deliver(turn)
        if self._record:
            self._record(turn)
        self._end(room)

    def _end(self, room: Room) -> None:
        if room.is_over and room is not self.general:
            self._rooms.pop(room.name, None)
