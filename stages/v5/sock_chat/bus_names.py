"""services.Names for many servers: a nick is a key of the bucket, its value says who holds it.

To take a nick is to write its key after the revision that is known, and then to wait until that
has been read (`bucket`). By then all that was written before is known, on whatever server. So the
revisions decide between two who want nicks that look alike: who was earlier has his, the other one
takes his key back. The same holds for a nick that got an owner meanwhile.

A claim is worth nothing when its lease has ended, or when its session has on this server. An owner
who takes his nick over from another server writes over its key, and into the stream that the other
session is evicted: so the room hears that it leaves before it hears that it comes.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, cast

import msgspec

from sock_chat import names
from sock_chat.bucket import Bucket, Conflict
from sock_chat.bus import Bus
from sock_chat.jetstream_log import JetStreamLog
from sock_chat.lease import Leases
from sock_chat.link import Reason
from sock_chat.log import Author
from sock_chat.names import Nick
from sock_chat.registry import Table
from sock_chat.rooms import GENERAL
from sock_chat.services import Answer, Holder, Return, Verdict
from sock_chat.wire import Claim, Gone, decode_claim, decode_gone, encode, to_ascii

if TYPE_CHECKING:
    from sock_chat.session import Session

KIND, GONE = "nick", "token"
LOST = "El chat ha estado demasiado tiempo sin su bus."


class Held(NamedTuple):
    claim: Claim
    revision: int

    @property
    def who(self) -> tuple[str, int]:
        return self.claim.lease, self.claim.author

    @property
    def nick(self) -> Nick:
        claim = self.claim
        return Nick(claim.shown, names.fold(claim.shown), frozenset(claim.skeletons))


class BusNames:
    """leases: who lives. It is set before anything is asked."""

    def __init__(self, bus: Bus, bucket: Bucket, log: JetStreamLog):
        self.owned = Table()
        self.is_banned: Callable[[Nick], bool] = lambda nick: False
        self.is_stopping = False  # then others remove what this server has
        self.leases: Leases
        self._bus = bus
        self._bucket = bucket
        self._log = log
        self._taken = Table()
        self._claims: dict[str, Held] = {}  # by their keys, of all servers
        self._resumable: dict[str, str] = {}  # the keys, by the hash of the token
        self._gone: dict[str, Gone] = {}  # by the hash of the token
        self._count = count(1)
        self._numbers: dict[Holder, int] = {}  # of this server's own
        self._holders: dict[int, Holder] = {}  # the same the other way round
        self._own: dict[str, tuple[Nick, Holder]] = {}  # by the keys
        self._tokens: dict[Holder, str] = {}
        bucket.watch(KIND, self._changed)
        bucket.watch(GONE, self._gone_changed)

    # The bucket

    def _changed(self, key: str, value: bytes | None, revision: int) -> None:
        old = self._claims.pop(key, None)
        if old:
            self._taken.discard(old.nick)
            self._resumable.pop(old.claim.token, None)
        if value is None:
            return
        held = self._claims[key] = Held(decode_claim(value), revision)
        self._taken.add(held.nick)
        if held.claim.token:
            self._resumable[held.claim.token] = key
        if held.claim.lease != self._log.lease and (own := self._own.pop(key, None)):
            nick, holder = own
            holder.displace(nick)

    def _gone_changed(self, token: str, value: bytes | None, revision: int) -> None:
        if value is None:
            self._gone.pop(token, None)
        else:
            self._gone[token] = decode_gone(value)
            self._bus.later(self._bus.intervals.resume, lambda: self._gone.pop(token, None))

    async def clear(self, lease: str) -> None:
        """Remove the nicks of a lease that has ended. Its sessions can be resumed for a while."""
        for key, held in list(self._claims.items()):
            if held.claim.lease == lease:
                await self._remove(key, held, self._room(held))

    async def _remove(self, key: str, held: Held, room: str) -> None:
        claim = held.claim
        if claim.token:
            gone = encode(Gone(claim.shown, room, claim.owner))
            with suppress(Conflict):
                await self._bucket.put(GONE, claim.token, gone, ttl=int(self._bus.intervals.resume))
        current: Held | None = held
        while current and current.who == held.who:  # or somebody else has it already
            with suppress(Conflict):
                await self._bucket.put(KIND, key, None, current.revision)
                return
            current = None if key in self._own else self._claims.get(key)

    def _room(self, held: Held) -> str:
        holder = self._local(held)
        return holder.room_name if holder else self._log.replica.room(*held.who) or GENERAL

    # jetstream_log.Numbers

    def number(self, author: Author) -> int:
        return self._numbers.get(cast(Holder, author), 0)

    def author(self, number: int) -> Author | None:
        return cast("Author | None", self._holders.get(number))

    def evict(self, author: Author) -> None:
        session = cast("Session", author)
        if session.nick:
            session.displace(session.nick)

    def lose(self) -> None:
        """The lease is over, and with it all that its clients had."""
        for holder in list(self._numbers):
            session = cast("Session", holder)
            session.finish(Reason.NO_BUS, LOST)
        self._own.clear()

    # Who is who

    def __iter__(self) -> Iterator[Session]:
        """All who hold a nick on this server."""
        return iter([cast("Session", each) for each in self._numbers if not each.ended])

    def find(self, nick: Nick) -> Held | None:
        """Who holds a nick, wherever."""
        held = self._claims.get(to_ascii(nick.folded))
        return held if held and self._is_valid(held) else None

    def session(self, number: int) -> Session | None:
        """One of this server's."""
        holder = self._holders.get(number)
        return cast("Session", holder) if holder and not holder.ended else None

    def who(self, holder: Holder) -> tuple[str, int]:
        return self._log.lease, self._numbers.get(holder, 0)

    def local(self, held: Held) -> Session | None:
        return self.session(held.claim.author) if held.claim.lease == self._log.lease else None

    def _local(self, held: Held) -> Holder | None:
        return self._holders.get(held.claim.author) if held.claim.lease == self._log.lease else None

    def _is_valid(self, held: Held) -> bool:
        lease = held.claim.lease
        if lease == self._log.lease:
            return self.session(held.claim.author) is not None
        replica = self._log.replica
        return lease not in replica.ended and (
            lease in replica.peers or self.leases.is_there(lease)
        )

    # services.Names

    def take(
        self, nick: Nick, holder: Holder, owner: bool, done: Callable[[Verdict], None]
    ) -> None:
        async def take() -> None:
            done(await self._take(nick, holder, owner, None))

        self._bus.do(take())

    async def _take(
        self, nick: Nick, holder: Holder, owner: bool, earlier: tuple[str, int] | None
    ) -> Verdict:
        """earlier: whose nick it may be as well."""
        if holder not in self._numbers:
            number = self._numbers[holder] = next(self._count)
            self._holders[number] = holder
        who = self._log.lease, self._numbers[holder]
        own = (who, earlier)
        key, claim = to_ascii(nick.folded), self._claim(nick, holder, owner)
        while True:
            current = self.find(nick)
            was_own = current is not None and current.who in own
            refusal = self._judge(nick, own, owner, was_own, sys.maxsize)
            if not refusal and current and not (owner or was_own):
                refusal = Verdict(Answer.IN_USE)
            if refusal:
                self._forget(holder, nick)
                return refusal
            try:
                revision = await self._bucket.put(KIND, key, encode(claim))
            except Conflict:
                continue
            break
        refusal = self._judge(nick, own, owner, was_own, revision)
        if refusal or who[0] != self._log.lease:
            back = encode(current.claim) if current and current.who == who else None
            with suppress(Conflict):
                await self._bucket.put(KIND, key, back, revision)
            self._forget(holder, nick)
            return refusal or Verdict(Answer.IN_USE)
        self._own[key] = nick, holder
        if current and current.who != who:
            if local := self._local(current):
                local.displace(nick)
            else:
                self._log.evict(*current.who)
        return Verdict(Answer.TAKEN)

    def _judge(
        self,
        nick: Nick,
        own: Sequence[tuple[str, int] | None],
        owner: bool,
        was_own: bool,
        revision: int,
    ) -> Verdict | None:
        """Why it may not be taken, after what was written before a revision."""
        if self.is_banned(nick):
            return Verdict(Answer.BANNED)
        if owner:
            return None
        if not was_own and self.owned.get(nick):
            return Verdict(Answer.OWNED)
        for other in self.owned.alike(nick):
            return Verdict(Answer.ALIKE, other.shown)
        for other in self._taken.alike(nick):
            held = self.find(other)
            if held and held.who not in own and held.revision < revision:
                return Verdict(Answer.ALIKE, other.shown)
        return None

    def _claim(self, nick: Nick, holder: Holder, owner: bool) -> Claim:
        session, token = cast("Session", holder), ""
        if session.link.codec.resumes:
            token = _hash(self.token(holder))
        looks = sorted(nick.skeletons)
        number = self._numbers[holder]
        return Claim(self._log.lease, number, nick.shown, looks, holder.address, owner, token)

    def own(self, nick: Nick, owner: bool) -> None:
        """The nick of a client of this server's has an owner now, or none any more."""

        async def write() -> None:
            held = self._claims.get(key)
            if held and held.claim.owner != owner and self._local(held):
                claim = msgspec.structs.replace(held.claim, owner=owner)
                with suppress(Conflict):
                    await self._bucket.put(KIND, key, encode(claim), held.revision)

        key = to_ascii(nick.folded)
        self._bus.do(write())

    def release(self, nick: Nick, holder: Holder) -> None:
        key = to_ascii(nick.folded)
        held = self._claims.get(key)
        if self._own.get(key) == (nick, holder):
            del self._own[key]
            if held and self._local(held) is holder and not self.is_stopping:
                if holder.nick not in (nick, None):  # it goes on under another one
                    held = held._replace(claim=msgspec.structs.replace(held.claim, token=""))
                self._bus.do(self._remove(key, held, holder.room_name))
        self._forget(holder, nick)

    def _forget(self, holder: Holder, nick: Nick) -> None:
        """It does not have this nick any more, or has not got it: maybe it has none."""
        if holder.nick in (nick, None):
            self._tokens.pop(holder, None)
            self._holders.pop(self._numbers.pop(holder, 0), None)

    def token(self, holder: Holder) -> str:
        if holder not in self._tokens:
            self._tokens[holder] = secrets.token_urlsafe(16)
        return self._tokens[holder]

    def resume(self, token: str, holder: Holder, done: Callable[[Return | None], None]) -> None:
        self._bus.do(self._resume(token, holder, done))

    async def _resume(
        self, token: str, holder: Holder, done: Callable[[Return | None], None]
    ) -> None:
        hashed = _hash(token)
        held = self._claims.get(self._resumable.get(hashed, ""))
        if held:
            shown, room, owner = held.claim.shown, self._room(held), held.claim.owner
        elif gone := self._gone.get(hashed):
            shown, room, owner = gone.shown, gone.room, gone.owner
        else:
            done(None)
            return
        nick = names.parse(shown)
        assert nick
        owner = owner and self.owned.get(nick) is not None
        # The answer may be cut off as well, and the same token come once more.
        self._tokens[holder] = token
        verdict = await self._take(nick, holder, owner, held.who if held else None)
        if verdict.answer is not Answer.TAKEN:
            self._tokens.pop(holder, None)
        done(Return(verdict, nick, room, owner))


def _hash(token: str) -> str:
    return sha256(token.encode()).hexdigest()
