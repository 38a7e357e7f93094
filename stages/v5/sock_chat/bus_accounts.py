"""The accounts of many servers, in a bucket of NATS (`bucket`): all of them have all in memory."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sock_chat import names
from sock_chat.accounts import Account, Change, Done, HashedAccounts
from sock_chat.bucket import Bucket, Conflict
from sock_chat.bus import Bus
from sock_chat.bus_names import BusNames
from sock_chat.store import Post
from sock_chat.wire import encode, to_ascii

KIND = "account"

decode_account = msgspec.msgpack.Decoder(Account).decode


class BusAccounts(HashedAccounts):
    def __init__(
        self, bus: Bus, bucket: Bucket, names: BusNames, clock: Callable[[], float], post: Post
    ):
        super().__init__(names.owned, clock, post)
        self._bus = bus
        self._bucket = bucket
        self._names = names
        self._nicks: dict[str, str] = {}  # the folded ones, by the key
        bucket.watch(KIND, self._changed)

    def _changed(self, key: str, value: bytes | None, revision: int) -> None:
        if value is not None:
            account = decode_account(value)
            folded = self._nicks[key] = names.fold(account.shown)
            self._add(folded, account)
        elif folded := self._nicks.pop(key, ""):
            known = self._accounts.get(folded)
            if known and (nick := names.parse(known.shown)):
                self._owned.discard(nick)
            self._accounts.pop(folded, None)

    def _keep(self, change: Change, done: Done) -> None:
        self._bus.do(self._write(change, done))

    async def _write(self, change: Change, done: Done) -> None:
        key = to_ascii(change.nick.folded)
        value = encode(change.account) if change.account else None
        while True:
            there = self._accounts.get(change.nick.folded) if key in self._nicks else None
            if (there is None) != change.fresh or change.old not in ("", there and there.hash):
                done(False)
                return
            try:
                await self._bucket.put(KIND, key, value)
            except Conflict:
                continue
            self._names.own(change.nick, change.account is not None)
            done(True)
            return


async def remove_account(bucket: Bucket, folded: str) -> bool:
    """Remove the owner of a nick; whether there was one."""
    key = to_ascii(folded)
    if not bucket.has(KIND, key):
        return False
    await bucket.put(KIND, key, None)
    return True
