"""Who holds which nick on whatever server, as far as the bucket has been read (`bucket`).

A claim is worth nothing when its lease has ended, or when its session has on this server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from sock_chat import names
from sock_chat.bucket import Bucket
from sock_chat.bus import Bus
from sock_chat.names import Nick
from sock_chat.registry import Table
from sock_chat.wire import Claim, Gone, decode_claim, decode_gone, to_ascii

KIND, GONE = "nick", "token"


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


class Claims:
    """is_valid: whether the lease, and the session if it is one of this server's, is there.
    written: called with a key, how it is now, and how it was before."""

    def __init__(
        self,
        bus: Bus,
        bucket: Bucket,
        is_valid: Callable[[Held], bool],
        written: Callable[[str, Held, Held | None], None],
    ):
        self._bus = bus
        self._is_valid = is_valid
        self._written = written
        self._taken = Table()
        self._claims: dict[str, Held] = {}  # by their keys
        self._keys: dict[str, str] = {}  # by the hash of the token
        self._gone: dict[str, Gone] = {}  # by the hash of the token
        bucket.watch(KIND, self._changed)
        bucket.watch(GONE, self._gone_changed)

    def _changed(self, key: str, value: bytes | None, revision: int) -> None:
        old = self._claims.pop(key, None)
        if old:
            self._taken.discard(old.nick)
            self._keys.pop(old.claim.token, None)
        if value is None:
            return
        held = self._claims[key] = Held(decode_claim(value), revision)
        self._taken.add(held.nick)
        if held.claim.token:
            self._keys[held.claim.token] = key
        self._written(key, held, old)

    def _gone_changed(self, token: str, value: bytes | None, revision: int) -> None:
        if value is None:
            self._gone.pop(token, None)
        else:
            self._gone[token] = decode_gone(value)
            self._bus.later(self._bus.intervals.resume, lambda: self._gone.pop(token, None))

    def get(self, key: str) -> Held | None:
        """Whether it is worth anything or not."""
        return self._claims.get(key)

    def of(self, lease: str) -> Iterable[tuple[str, Held]]:
        return [each for each in self._claims.items() if each[1].claim.lease == lease]

    def find(self, nick: Nick) -> Held | None:
        held = self._claims.get(to_ascii(nick.folded))
        return held if held and self._is_valid(held) else None

    def alike(self, nick: Nick) -> Iterable[Held]:
        """Those of nicks that look like it."""
        return [held for other in self._taken.alike(nick) if (held := self.find(other))]

    def resumable(self, token: str) -> Held | Gone | None:
        """What a session left or has that got a token with this hash."""
        return self._claims.get(self._keys.get(token, "")) or self._gone.get(token)
