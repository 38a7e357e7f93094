"""A chat without sockets, loop and disk: fakes that answer at once, or late, when they are told to.

A World has queues of what has not been answered yet, one for each service, and a clock that stands
still. turn() is a turn of the loop: everybody's lines, then the end of the rooms' turns.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import count
from typing import Any, cast

from sock_chat import names
from sock_chat.chat import Chat, Visit
from sock_chat.codec import LINES, Codec, Input, LineDecoder
from sock_chat.counters import Counters
from sock_chat.events import Private, Said
from sock_chat.limits import Throttle
from sock_chat.link import Reason
from sock_chat.log import Author, Past, Turn
from sock_chat.names import Nick
from sock_chat.registry import LocalNames
from sock_chat.rooms import Rooms
from sock_chat.services import Ban, Check, Holder, Return, Verdict
from sock_chat.session import Session

START = datetime(2026, 11, 24, 16, 45, 10, tzinfo=timezone.utc)
READ_SIZE = 16384
ADDRESS = "192.0.2.1"
PASSWORD = "correct horse"

Call = Callable[[], object]


class FakeLog:
    epoch = "epoch"
    forgotten = 0  # the newest position that may be missing

    def __init__(self, later: Callable[[str, Call], None]):
        self.later = later
        self.position = 0
        self.refusing = False
        self.messages: list[tuple[str, Said]] = []
        self.turns: list[Turn] = []
        self.busy: set[Author] = set()

    def subscribe(
        self, deliver: Callable[[Turn], None], refuse: Callable[[Turn, str], None]
    ) -> None:
        self.deliver = deliver
        self.refuse = refuse

    def append(self, turn: Turn) -> None:
        self.later("log", partial(self.give_back, turn))

    def give_back(self, turn: Turn) -> None:
        if self.refusing:
            self.refuse(turn, "No se ha dicho: el bus no lo toma.")
            return
        self.position = turn.number(self.position + 1) - 1
        self.turns.append(turn)
        messages = [event for _, event in turn.entries if isinstance(event, Said)]
        self.messages += [(turn.room, event.public()) for event in messages]
        self.deliver(turn)

    def latest(self, room: str, count: int, upto: int, done: Callable[[Past], None]) -> None:
        self.after(room, 0, count, upto, done)

    def after(
        self, room: str, since: int, count: int, upto: int, done: Callable[[Past], None]
    ) -> None:
        def read() -> None:
            past = [s for name, s in self.messages if name == room and since < s.position <= upto]
            done(Past(past[-count:], gap=len(past) > count or since < self.forgotten))

        self.later("history", read)

    def full(self, author: Author) -> bool:
        return author in self.busy


class FakeNames(LocalNames):
    later: Callable[[str, Call], None]

    def take(
        self, nick: Nick, holder: Holder, owner: bool, done: Callable[[Verdict], None]
    ) -> None:
        """Decided at once, as a server far away does, and heard of late."""
        super().take(
            nick, holder, owner, lambda verdict: self.later("names", partial(done, verdict))
        )

    def resume(self, token: str, holder: Holder, done: Callable[[Return | None], None]) -> None:
        super().resume(token, holder, lambda back: self.later("names", partial(done, back)))


class FakeAccounts:
    def __init__(self, world: World):
        self.world = world
        self.passwords: dict[str, str] = {}
        self.throttle = Throttle()

    def later(self, done: Callable[[Any], None], answer: object) -> None:
        self.world.later("accounts", partial(done, answer))

    def check(self, nick: Nick, password: str, address: str, done: Callable[[Check], None]) -> None:
        right = self.passwords.get(nick.folded)
        if right is None:
            self.later(done, Check.NO_OWNER)
        elif not self.throttle.begin(address, self.world.clock):
            self.later(done, Check.TOO_MANY)
        else:
            if right == password:
                self.throttle.succeed(address, self.world.clock)
            self.later(done, Check.RIGHT if right == password else Check.WRONG)

    def register(self, nick: Nick, password: str, done: Callable[[bool], None]) -> None:
        fresh = nick.folded not in self.passwords
        if fresh:
            self.passwords[nick.folded] = password
            self.world.names.owned.add(nick)
        self.later(done, fresh)

    def change(self, nick: Nick, password: str, done: Callable[[bool], None]) -> None:
        if known := nick.folded in self.passwords:
            self.passwords[nick.folded] = password
        self.later(done, known)

    def unregister(self, nick: Nick, done: Callable[[bool], None]) -> None:
        self.world.names.owned.discard(nick)
        self.later(done, self.passwords.pop(nick.folded, None) is not None)


class FakePeople:
    def __init__(self, world: World):
        self.world = world
        self.banned: dict[str, int] = {}

    def holder(self, nick: Nick) -> Session | None:
        return cast("Session | None", self.world.names.find(nick))

    def tell(self, nick: Nick, event: Private, done: Callable[[bool], None]) -> None:
        def deliver() -> None:
            if holder := self.holder(nick):
                holder.tell(event)
            done(holder is not None)

        self.world.later("people", deliver)

    def kick(self, nick: Nick, reason: str, done: Callable[[bool], None]) -> None:
        if holder := self.holder(nick):
            holder.kick(reason)
        self.world.later("people", partial(done, holder is not None))

    def ban(
        self, who: Nick | str, minutes: int, by: Holder, done: Callable[[Sequence[Ban]], None]
    ) -> None:
        banned = [who] if isinstance(who, str) else []
        if isinstance(who, Nick):
            banned = [holder.address] if (holder := self.holder(who)) else []
            banned += [owned.folded] if (owned := self.world.names.owned.get(who)) else []
        self.banned |= dict.fromkeys(banned, minutes)
        for session in cast("list[Session]", list(self.world.names)):
            if session is not by and session.address in banned:
                session.ban()
        self.world.later("people", lambda: done([Ban(name, minutes) for name in banned]))

    def unban(self, who: Nick | str, done: Callable[[bool], None]) -> None:
        name = who if isinstance(who, str) else who.folded
        known = self.banned.pop(name, None) is not None
        self.world.later("people", partial(done, known))

    def bars(self, address: str) -> bool:
        return address in self.banned

    def bans(self, done: Callable[[Sequence[Ban]], None]) -> None:
        bans = [Ban(who, minutes) for who, minutes in sorted(self.banned.items())]
        self.world.later("people", partial(done, bans))


class Client:
    """A client's end of a session, and its Link."""

    waiting = 0
    woken = False

    def __init__(self, world: World, visit: Visit, codec: Codec):
        self.world = world
        self.codec = codec
        self.writes: list[bytes] = []
        self.seen = 0  # of the writes
        self.closed: Reason | None = None
        self.decoder = LineDecoder()
        self.session = Session(world.chat, self, visit)

    def write(self, data: bytes) -> None:
        assert data, "an empty write"
        if self.closed is None:
            self.writes.append(data)

    def abort(self, reason: Reason) -> None:
        self.close(reason)
        self.session.lost()

    def close(self, reason: Reason) -> None:
        self.closed = self.closed or reason

    def wake(self) -> None:
        self.woken = True

    def slept(self) -> bool:
        """Whether it has been woken since the last look."""
        woken, self.woken = self.woken, False
        return woken

    def send(self, *lines: str | Input) -> Client:
        """Put lines into the session; nothing is handled before the turn."""
        for line in lines:
            data = self.decoder.receive(f"{line}\n".encode()) if isinstance(line, str) else [line]
            self.session.feed(data)
        return self

    def new(self) -> list[str]:
        """The lines that it has got since the last look."""
        fresh, self.seen = self.writes[self.seen :], len(self.writes)
        return b"".join(fresh).decode().split("\n")[:-1]

    def new_events(self) -> list[dict[str, Any]]:
        fresh, self.seen = self.writes[self.seen :], len(self.writes)
        return [event for data in fresh for event in json.loads(data)]


class World:
    """late: the services whose answers wait until answer() is called, or turn()."""

    def __init__(
        self,
        late: Iterable[str] = (),
        operators: Iterable[str] = (),
        rate: float = 0,
        burst: int = 20,
    ):
        self.late = set(late)
        self.queues: dict[str, deque[Call]] = {}
        self.clock = 1000.0
        self.begun = False
        self.clients: list[Client] = []
        tokens = count(1)
        self.counters = Counters()
        self.log = FakeLog(self.later)
        self.names = FakeNames(lambda: self.clock, lambda: f"token{next(tokens)}")
        self.names.later = self.later
        self.accounts = FakeAccounts(self)
        self.people = FakePeople(self)
        self.names.is_banned = lambda nick: nick.folded in self.people.banned
        self.rooms = Rooms(self.log, lambda: self.clock, self.today, self.begin, self.counters)
        self.chat = Chat(
            rooms=self.rooms, log=self.log, names=self.names, accounts=self.accounts,
            people=self.people, counters=self.counters, clock=lambda: self.clock, today=self.today,
            operators=frozenset(operators), rate=rate, burst=burst,
        )  # fmt: skip

    def today(self) -> datetime:
        return START + timedelta(seconds=self.clock - 1000.0)

    def later(self, service: str, call: Call) -> None:
        if service in self.late:
            self.queues.setdefault(service, deque()).append(call)
        else:
            call()

    def answer(self, service: str) -> bool:
        """Let the oldest question to a service be answered."""
        queue = self.queues.get(service)
        if not queue:
            return False
        queue.popleft()()
        return True

    def own(self, nick: str, password: str = PASSWORD) -> None:
        """Give a nick an owner."""
        parsed = names.parse(nick)
        assert parsed
        self.accounts.register(parsed, password, lambda fresh: None)

    def connect(
        self,
        *lines: str | Input,
        codec: Codec = LINES,
        address: str = ADDRESS,
        secure: bool = True,
        **visit: Any,
    ) -> Client:
        """A client that has said this."""
        client = Client(self, Visit(address, secure, **visit), codec)
        self.clients.append(client)
        client.session.start()
        client.send(*lines)
        if lines:
            self.turn()
        return client

    def enter(self, *nicks: str, **visit: Any) -> Iterator[Client]:
        """Clients that are in and have seen what there was to see."""
        clients = [self.connect(nick, **visit) for nick in nicks]
        for client in clients:
            client.seen = len(client.writes)
        return iter(clients)

    def run(self) -> list[float]:
        return [client.session.run(READ_SIZE) for client in self.clients]

    def turn(self) -> None:
        """Turns, until everything has been handled, told and answered."""
        busy = True
        while busy:
            self.begun = False
            waits = self.run()
            self.rooms.flush()
            answered = [self.answer(service) for service in self.late]
            woken = [client.slept() for client in self.clients]
            busy = any(answered) or any(woken) or self.begun or 0.0 in waits

    def begin(self) -> None:
        self.begun = True
