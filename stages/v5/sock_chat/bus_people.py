"""services.People for many servers. Who holds a nick is known everywhere (`bus_names`); the server
that he is on is asked to tell or to do something, by core NATS: nothing of a private message is
stored. Bans are keys of the bucket, and each server throws out whom they meet on it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import ceil
from typing import NamedTuple

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from sock_chat.bucket import Bucket, Conflict
from sock_chat.bus import Bus
from sock_chat.bus_names import BusNames
from sock_chat.events import Private
from sock_chat.jetstream_log import JetStreamLog
from sock_chat.limits import Recent, party
from sock_chat.names import Nick
from sock_chat.services import Ban, Holder
from sock_chat.stream_reader import FAILURES
from sock_chat.wire import BanValue, decode_ban, encode, to_ascii

KIND = "ban"
REPEATED = 120.0  # seconds within which a request with the same id is the same request
ANSWER_TIME = 1.0
YES, NO = b"1", b"0"


class Request(msgspec.Struct, array_like=True):
    """To the server of a session. private: what to tell it; None: kick it, for this reason."""

    id: str
    author: int
    private: Private | None
    reason: str
    after: int = 0  # the sequence up to which it has to have heard the rooms


decode_request = msgspec.msgpack.Decoder(Request).decode


class Active(NamedTuple):
    value: BanValue
    end: float


class BusPeople:
    """clock: tells seconds that never go back. date: tells those since 1970."""

    def __init__(
        self,
        bus: Bus,
        bucket: Bucket,
        log: JetStreamLog,
        names: BusNames,
        clock: Callable[[], float],
        date: Callable[[], float],
    ):
        self._bus = bus
        self._bucket = bucket
        self._log = log
        self._names = names
        self._clock = clock
        self._date = date
        self._bans: dict[str, Active] = {}  # by who
        self._who: dict[str, str] = {}  # by the keys
        self._done: Recent[bytes] = Recent(REPEATED)
        self._subscription: Subscription | None = None
        names.is_banned = lambda nick: self._meets(nick.folded)
        bucket.watch(KIND, self._changed)

    async def listen(self, lease: str) -> None:
        """Do what other servers ask for."""
        if self._subscription:
            with suppress(*FAILURES):
                await self._subscription.unsubscribe()
        subject = self._bus.subjects.to(lease)
        self._subscription = await self._bus.client.subscribe(subject, cb=self._obey)

    async def _obey(self, message: Msg) -> None:
        self._bus.do(self._answer(message))

    async def _answer(self, message: Msg) -> None:
        request = decode_request(message.data)
        await self._log.reach(request.after)
        now = self._clock()
        answer = self._done.get(request.id, now)
        if answer is None:
            answer = YES if self._do(request) else NO
            self._done.put(request.id, answer, now)
        await message.respond(answer)

    def _do(self, request: Request) -> bool:
        session = self._names.clients.session(request.author)
        if session and request.private:
            session.tell(request.private)
        elif session:
            session.kick(request.reason)
        return session is not None

    def tell(self, nick: Nick, event: Private, done: Callable[[bool], None]) -> None:
        self._ask(nick, event, "", done)

    def kick(self, nick: Nick, reason: str, done: Callable[[bool], None]) -> None:
        self._ask(nick, None, reason, done)

    def _ask(
        self, nick: Nick, private: Private | None, reason: str, done: Callable[[bool], None]
    ) -> None:
        held = self._names.claims.find(nick)
        request = Request(secrets.token_hex(8), held.claim.author if held else 0, private, reason)
        if held is None:
            done(False)
        elif self._names.local(held):
            self._log.settle(lambda: done(self._do(request)))
        else:
            who = held.who
            self._log.settle(lambda: self._bus.do(self._send(nick, who, request, done)))

    async def _send(
        self, nick: Nick, who: tuple[str, int], request: Request, done: Callable[[bool], None]
    ) -> None:
        """Until it is answered, or he is not there any more."""
        request.after = self._log.sequence
        subject, data = self._bus.subjects.to(who[0]), encode(request)
        while (held := self._names.claims.find(nick)) and held.who == who:
            await self._bus.wait()
            with suppress(*FAILURES):
                reply = await self._bus.client.request(subject, data, timeout=ANSWER_TIME)
                done(reply.data == YES)
                return
            await asyncio.sleep(self._bus.intervals.retry)
        done(False)

    # Bans

    def bars(self, address: str) -> bool:
        return bool(self._bans) and self._meets(party(address))

    def _meets(self, who: str) -> bool:
        ban = self._bans.get(who)
        return ban is not None and ban.end > self._clock()

    def _changed(self, key: str, value: bytes | None, revision: int) -> None:
        self._bans.pop(self._who.pop(key, ""), None)
        if value is None:
            return
        ban = decode_ban(value)
        # Should the date have gone back, it lasts no longer than it was given for.
        left = min(ban.until - self._date(), ban.minutes * 60)
        if left <= 0:
            return
        self._who[key] = ban.who
        self._bans[ban.who] = Active(ban, self._clock() + left)
        for session in self._names.clients:
            nick = session.nick.folded if session.nick else ""
            is_by = self._names.who(session) == (ban.lease, ban.author)
            if not is_by and ban.who in (nick, party(session.address)):
                session.ban()

    def ban(
        self, who: Nick | str, minutes: int, by: Holder, done: Callable[[Sequence[Ban]], None]
    ) -> None:
        banned: list[str] = []
        if isinstance(who, str):
            banned.append(party(who))
        else:
            if held := self._names.claims.find(who):
                banned.append(party(held.claim.address))
            if self._names.owned.get(who):
                banned.append(who.folded)
        self._bus.do(self._ban(banned, minutes, by, done))

    async def _ban(
        self,
        banned: Sequence[str],
        minutes: int,
        by: Holder,
        done: Callable[[Sequence[Ban]], None],
    ) -> None:
        for name in banned:
            until = int(self._date()) + minutes * 60
            value = encode(BanValue(name, until, minutes, *self._names.who(by)))
            await self._put(name, value, minutes * 60)
        done([Ban(name, minutes) for name in banned])

    async def _put(self, name: str, value: bytes | None, seconds: int = 0) -> None:
        while True:
            with suppress(Conflict):
                await self._bucket.put(KIND, to_ascii(name), value, ttl=seconds)
                return

    def unban(self, who: Nick | str, done: Callable[[bool], None]) -> None:
        name = party(who) if isinstance(who, str) else who.folded

        async def remove() -> None:
            banned = self._meets(name)
            if banned:
                await self._put(name, None)
            done(banned)

        self._bus.do(remove())

    def bans(self, done: Callable[[Sequence[Ban]], None]) -> None:
        now = self._clock()
        self._bans = {who: ban for who, ban in self._bans.items() if ban.end > now}
        done([Ban(who, ceil((ban.end - now) / 60)) for who, ban in sorted(self._bans.items())])
