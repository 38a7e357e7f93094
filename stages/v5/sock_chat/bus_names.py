"""services.Names for many servers: a nick is a key of the bucket, its value says who holds it.

To take a nick is to write its key after the revision that is known, and then to wait until that
has been read (`bucket`). By then all that was written before is known, on whatever server. So the
revisions decide between two who want nicks that look alike: who was earlier has his, the other one
takes his key back. The same holds for a nick that got an owner meanwhile.

An owner who takes his nick over from another server writes over its key, and into the stream that
the other session is evicted: so the room hears that it leaves before it hears that it comes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, cast

import msgspec

from sock_chat import names
from sock_chat.bucket import Bucket, Conflict
from sock_chat.bus import Bus
from sock_chat.claims import GONE, KIND, Claims, Held
from sock_chat.clients import Clients
from sock_chat.jetstream_log import JetStreamLog
from sock_chat.lease import Leases
from sock_chat.link import Reason
from sock_chat.names import Nick
from sock_chat.registry import Table
from sock_chat.rooms import GENERAL
from sock_chat.services import Answer, Holder, Return, Verdict
from sock_chat.wire import Claim, Gone, encode, to_ascii

if TYPE_CHECKING:
    from sock_chat.session import Session

LOST = "El chat ha estado demasiado tiempo sin su bus."


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
        self.claims = Claims(bus, bucket, self._is_valid, self._written)
        self.clients = Clients()
        self._own: dict[str, tuple[Nick, Holder]] = {}  # by the keys

    # The bucket

    def _written(self, key: str, held: Held, old: Held | None) -> None:
        """A stranger can have it only after the end of this server's lease, which the stream tells;
        whoever takes it over is the owner, or the same client."""
        claim = held.claim
        if claim.lease != self._log.lease and (own := self._own.pop(key, None)):
            nick, holder = own
            if claim.owner or (old and claim.token and claim.token == old.claim.token):
                holder.displace(nick)

    async def clear(self, lease: str) -> None:
        """Remove the nicks of a lease that has ended. Its sessions can be resumed for a while."""
        for key, held in self.claims.of(lease):
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
            current = None if key in self._own else self.claims.get(key)

    def _room(self, held: Held) -> str:
        holder = self.local(held)
        return holder.room_name if holder else self._log.replica.room(*held.who) or GENERAL

    def lose(self) -> None:
        """The lease is over, and with it all that its clients had."""
        for session in self.clients:
            session.finish(Reason.NO_BUS, LOST)
        self._own.clear()

    def who(self, holder: Holder) -> tuple[str, int]:
        return self._log.lease, self.clients.number(holder)

    def local(self, held: Held) -> Holder | None:
        """Whose it is, on this server."""
        own = held.claim.lease == self._log.lease
        return self.clients.holder(held.claim.author) if own else None

    def _is_valid(self, held: Held) -> bool:
        lease = held.claim.lease
        if lease == self._log.lease:
            return self.clients.session(held.claim.author) is not None
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
        await self.leases.taken.wait()
        who = self._log.lease, self.clients.add(holder)
        own = (who, earlier)
        key, claim = to_ascii(nick.folded), self._claim(nick, holder, owner)
        while True:
            current = self.claims.find(nick)
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
            if local := self.local(current):
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
        for held in self.claims.alike(nick):
            if held.who not in own and held.revision < revision:
                return Verdict(Answer.ALIKE, held.claim.shown)
        return None

    def _claim(self, nick: Nick, holder: Holder, owner: bool) -> Claim:
        session, token = cast("Session", holder), ""
        if session.link.codec.resumes:
            token = _hash(self.token(holder))
        looks = sorted(nick.skeletons)
        number = self.clients.number(holder)
        return Claim(self._log.lease, number, nick.shown, looks, holder.address, owner, token)

    def own(self, nick: Nick, owner: bool) -> None:
        """The nick of a client of this server's has an owner now, or none any more."""

        async def write() -> None:
            held = self.claims.get(key)
            if held and held.claim.owner != owner and self.local(held):
                claim = msgspec.structs.replace(held.claim, owner=owner)
                with suppress(Conflict):
                    await self._bucket.put(KIND, key, encode(claim), held.revision)

        key = to_ascii(nick.folded)
        self._bus.do(write())

    def release(self, nick: Nick, holder: Holder) -> None:
        key = to_ascii(nick.folded)
        held = self.claims.get(key)
        if self._own.get(key) == (nick, holder):
            del self._own[key]
            if held and self.local(held) is holder and not self.is_stopping:
                if holder.nick not in (nick, None):  # it goes on under another one
                    held = held._replace(claim=msgspec.structs.replace(held.claim, token=""))
                self._bus.do(self._remove(key, held, holder.room_name))
        self._forget(holder, nick)

    def _forget(self, holder: Holder, nick: Nick) -> None:
        """It does not have this nick any more, or has not got it: maybe it has none."""
        if holder.nick in (nick, None):
            self.clients.forget(holder)

    def token(self, holder: Holder) -> str:
        return self.clients.token(holder)

    def resume(self, token: str, holder: Holder, done: Callable[[Return | None], None]) -> None:
        self._bus.do(self._resume(token, holder, done))

    async def _resume(
        self, token: str, holder: Holder, done: Callable[[Return | None], None]
    ) -> None:
        hashed = _hash(token)
        left, who = self.claims.resumable(hashed), None
        if left is None:
            done(None)
            return
        if isinstance(left, Held):
            who, left = left.who, Gone(left.claim.shown, self._room(left), left.claim.owner)
        nick = names.parse(left.shown)
        assert nick
        owner = left.owner and self.owned.get(nick) is not None
        # The answer may be cut off as well, and the same token come once more.
        self.clients.token(holder, token)
        verdict = await self._take(nick, holder, owner, who)
        done(Return(verdict, nick, left.room, owner))


def _hash(token: str) -> str:
    return sha256(token.encode()).hexdigest()
