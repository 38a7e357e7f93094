"""A room: who is in it, what happens in it in a turn, and who hears what of it.

A turn begins with the first event after the last flush() and ends with the next. Then it goes to
the log, and when the log gives it back, deliver() tells it (`audience`).

Who is in the room is what the log says, too: entering, leaving and changing one's name are events,
and have happened when they are delivered. A newcomer is then shown the past up to that very point
of the log, which may take a while; what is said meanwhile waits for it, so that it misses nothing
and hears nothing twice.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple

from sock_chat.audience import Audience, Cut, Newcomer
from sock_chat.counters import Counters
from sock_chat.events import Joined, Left, Post, Renamed, RoomEvent, Said, Welcome
from sock_chat.link import HIGH_WATER, Member
from sock_chat.log import Author, Log, Past, Turn
from sock_chat.names import fold
from sock_chat.tails import MESSAGE_SIZE

RECENT = 20  # messages that a newcomer gets to see
MISSED = 1000  # messages at most that one who comes back gets to see
PAST_SIZE = HIGH_WATER // 2  # bytes of them, quotation marks not yet escaped
TURN_SIZE = 1 << 16  # characters of a turn that goes out before its end


class Arrival(NamedTuple):
    """How somebody comes in, and what it knows already."""

    nick: str
    welcome: type[Welcome]
    since: int | None = None  # the newest position that it knows
    epoch: str = ""  # in which it was; empty: it does not say
    token: str = ""


class Room:
    """today: tells date and time, in UTC.
    begin: called with the room when a turn of it begins.
    posted: called with each Post that has been delivered."""

    def __init__(
        self,
        name: str,
        log: Log,
        today: Callable[[], datetime],
        begin: Callable[["Room"], None],
        posted: Callable[[Post], None],
        counters: Counters,
    ):
        self.name = name
        self.places = 0  # that are kept for those who are on their way
        self._log = log
        self._today = today
        self._begin = begin
        self._posted = posted
        self._counters = counters
        self._entries: list[tuple[Author, RoomEvent]] = []  # of the turn
        self._size = 0
        self._nicks: dict[Author, str] = {}  # of all in it, on whatever server
        self._sorted: list[tuple[str, str]] = []  # the same, folded and shown
        self._audience = Audience()
        self._arrivals: dict[Author, tuple[Member, Arrival, Callable[[], None]]] = {}
        self._waiting: defaultdict[Author, list[Callable[[], None]]] = defaultdict(list)

    @property
    def count(self) -> int:
        return len(self._nicks)

    @property
    def names(self) -> list[str]:
        return [shown for _, shown in self._sorted]

    @property
    def is_over(self) -> bool:
        return not (self._nicks or self._arrivals or self._entries or self.places)

    def member(self, author: Author) -> Member | None:
        """Who hears this room here."""
        return self._audience.get(author)

    def say(self, author: Author, message: Said) -> None:
        self._append(author, message)
        self._size += len(message.nick) + len(message.text)
        if self._size >= TURN_SIZE:
            self.flush()

    def enter(
        self, author: Author, member: Member, arrival: Arrival, done: Callable[[], None]
    ) -> None:
        """Take the place that is kept. done: called when it has been welcomed."""
        self.places -= 1
        self._arrivals[author] = member, arrival, done
        self._append(author, Joined(arrival.nick))

    def rename(self, author: Author, nick: str, to: str, done: Callable[[], None]) -> None:
        """done: called when all have heard of it."""
        self._waiting[author].append(done)
        self._append(author, Renamed(nick, to))

    def leave(self, author: Author, event: Left, listens: bool, done: Callable[[], None]) -> None:
        """done: called when all have heard of it. listens: until then it hears the room."""
        self._waiting[author].append(done)
        if not listens:
            self._audience.remove(author)
        self._append(author, event)

    def _append(self, author: Author, event: RoomEvent) -> None:
        if not self._entries:
            self._begin(self)
        self._entries.append((author, event))

    def flush(self) -> None:
        """End the turn, if there is one."""
        if self._entries:
            entries, self._entries, self._size = self._entries, [], 0
            self._log.append(Turn(self.name, self._today(), entries))

    def deliver(self, turn: Turn) -> None:
        """Tell a turn that the log gives back."""
        cuts: dict[Author, Cut] = {}
        after: list[Callable[[], None]] = []  # for when all have heard of it
        first = next((event for _, event in turn.entries if isinstance(event, Said)), None)
        position = first.position - 1 if first else self._log.position
        messages = deliveries = 0
        for index, (author, event) in enumerate(turn.entries):
            if isinstance(event, Said):
                position = event.position
                messages += 1
                deliveries += self._audience.size
                if cut := self._audience.cut(author, cuts):
                    cut.own.append(index)
                    deliveries -= 1
                if isinstance(event, Post):
                    after.append(partial(self._posted, event))
            elif isinstance(event, Joined):
                self._set_nick(author, event.nick)
                if author in self._arrivals:
                    after.append(self._let_in(author, position))
                    if cut := self._audience.cut(author, cuts):
                        cut.start = index + 1
            elif isinstance(event, Renamed):
                if author in self._nicks:
                    self._set_nick(author, event.to)
                after += self._waiting[author][:1]
                del self._waiting[author][:1]
            else:
                self._set_nick(author, None)
                if cut := self._audience.cut(author, cuts):
                    cut.end = index
                    self._audience.remove(author)
                after += self._waiting.pop(author, [])
        self._audience.tell(turn.entries, cuts)
        counters = self._counters
        counters.turns += 1
        counters.messages += messages
        counters.deliveries += deliveries
        for call in after:
            call()

    def _set_nick(self, author: Author, nick: str | None) -> None:
        old = self._nicks.pop(author, None)
        if old is not None:
            del self._sorted[bisect_left(self._sorted, (fold(old), old))]
        if nick is not None:
            self._nicks[author] = nick
            insort(self._sorted, (fold(nick), nick))

    def _let_in(self, author: Author, position: int) -> Callable[[], None]:
        """From now on it hears the room; what is returned asks for the past and then shows it."""
        member, arrival, done = self._arrivals.pop(author)
        newcomer = Newcomer(member)
        self._audience.put(author, newcomer)
        names = [shown for _, shown in self._sorted[: member.codec.names]]
        count = len(self._nicks)
        since, epoch = arrival.since, self._log.epoch
        known = since is None or (since <= position and arrival.epoch in ("", epoch))

        def welcome(past: Past) -> None:
            if self._audience.get(author) is not newcomer:
                return  # it has left
            self._audience.put(author, member)
            messages = _newest(past.messages)
            more = past.gap or len(messages) < len(past.messages)
            gap = more if known and since is not None else not known
            event = arrival.welcome(
                arrival.nick, self.name, names, count,
                messages, position, epoch, gap, arrival.token,
            )  # fmt: skip
            member.write(b"".join([member.codec.write(event), *newcomer.kept]))
            done()

        if since is None:
            return lambda: self._log.latest(self.name, RECENT, position, welcome)
        return lambda: self._log.after(self.name, since if known else 0, MISSED, position, welcome)


def _newest(messages: Sequence[Said]) -> Sequence[Said]:
    """As many as a client may have waiting for it, or its welcome would be its end each time."""
    start, free = len(messages), PAST_SIZE
    while start and (free := free - MESSAGE_SIZE - len(messages[start - 1].text.encode())) >= 0:
        start -= 1
    return messages[start:]
