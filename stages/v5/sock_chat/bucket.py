"""A KV bucket of JetStream's, in memory as well: names, accounts, bans and leases of all servers.

Every server watches the whole bucket. So nobody who looks something up waits for NATS, and whoever
has written waits until it has read that itself: then it knows all that was written before, by
whomever. What is written names the revision that it comes after, and does not happen if somebody
was faster.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from nats.aio.msg import Msg
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from sock_chat.bus import Bus
from sock_chat.limits import Recent
from sock_chat.stream_reader import FAILURES

WRONG_LAST_SEQUENCE = 10071
OPERATION = "KV-Operation"
DELETED = {"DEL", "PURGE"}
MARKER_TIME = 60  # seconds for which a key that has been removed is known to be


class Conflict(Exception):
    """Somebody was faster. What he has written has been read."""


class Bucket:
    def __init__(self, bus: Bus):
        self._bus = bus
        self._revisions: dict[str, int] = {}
        self._removed: Recent[int] = Recent(MARKER_TIME)  # the same, of keys that are not there
        self._watchers: dict[str, Callable[[str, bytes | None, int], None]] = {}
        self._reader = bus.reader(bus.subjects.bucket, self._read)

    def watch(self, kind: str, changed: Callable[[str, bytes | None, int], None]) -> None:
        """changed: called with the name, value and revision of each key of a kind; None: it is
        not there any more."""
        self._watchers[kind] = changed

    async def load(self) -> None:
        restart = partial(self._reader.restart, last_of_each=True)
        await self._reader.catch_up(await self._bus.insist(restart))

    def _read(self, sequence: int, message: Msg) -> None:
        key = message.subject.removeprefix(self._bus.subjects.keys)
        headers = message.headers or {}
        removed = headers.get(OPERATION) in DELETED or "Nats-Marker-Reason" in headers
        if removed:
            self._revisions.pop(key, None)
            self._removed.put(key, sequence, time.monotonic())
        else:
            self._revisions[key] = sequence
        kind, _, name = key.partition(".")
        if kind in self._watchers:
            self._watchers[kind](name, None if removed else message.data, sequence)

    async def put(
        self, kind: str, name: str, value: bytes | None, after: int | None = None, ttl: int = 0
    ) -> int:
        """Write a value, or remove it, and wait until that has been read; its revision. It is
        waited for, however long NATS is away. after: the revision that it must have; None: that
        which it has here. ttl: seconds for which it is kept, where NATS can do that; 0: forever.
        Raises Conflict."""
        key = f"{kind}.{name}"
        if after is None:
            after = self.revision(key)
        headers = {"Nats-Expected-Last-Subject-Sequence": str(after)}
        if value is None:
            headers[OPERATION], ttl = "DEL", MARKER_TIME
        if ttl and self._bus.has_ttl:
            headers["Nats-TTL"] = str(ttl)
        subject = self._bus.subjects.keys + key
        while True:
            await self._bus.wait()
            try:
                ack = await self._bus.api.publish(subject, value or b"", headers=headers)
            except ServiceUnavailableError:
                pass
            except APIError as error:
                if error.err_code == WRONG_LAST_SEQUENCE:
                    return await self._compare(key, value)
            except FAILURES:
                self._bus.recover()
            else:
                await self._reader.reach(ack.seq)
                return ack.seq
            await asyncio.sleep(self._bus.intervals.retry)

    def has(self, kind: str, name: str) -> bool:
        return f"{kind}.{name}" in self._revisions

    def revision(self, key: str) -> int:
        return self._revisions.get(key) or self._removed.get(key, time.monotonic()) or 0

    async def _compare(self, key: str, value: bytes | None) -> int:
        """Somebody was faster, if it was not this server itself, whose first try has arrived."""
        subject = self._bus.subjects.keys + key
        while True:
            await self._bus.wait()
            with suppress(*FAILURES):
                try:
                    last = await self._bus.api.get_last_msg(self._bus.subjects.bucket, subject)
                except NotFoundError:
                    self._revisions.pop(key, None)
                    self._removed.drop(key)
                    if value is None:
                        return 0
                    raise Conflict from None
                assert last.seq
                await self._reader.reach(last.seq)
                removed = (last.headers or {}).get(OPERATION) in DELETED
                if value == (None if removed else last.data or b""):
                    return last.seq
                raise Conflict
            await asyncio.sleep(self._bus.intervals.retry)
