"""Which servers live: each renews a key, its lease, and the others look whether it does.

They judge by their own clocks, and only while they can renew their own: when NATS was away, or this
server stood still, everybody's time begins anew. A lease that was not renewed for long enough is
ended by a message in the stream, once, by its id; where that stands, all agree that the server is
gone, itself included, should it still live. Then its nicks are removed, and its key last, so that
whoever does this may die on the way, and another one does it again. The server with the smallest
lease is the first to do it; the others give it time.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from nats.js.errors import NotFoundError

from sock_chat.bucket import Bucket, Conflict
from sock_chat.bus import Bus
from sock_chat.replica import Replica
from sock_chat.stream_reader import FAILURES
from sock_chat.wire import Ended, encode

KIND = "lease"


class Watch:
    """When each lease was renewed last, sans-IO. interval: in which this server renews its own.
    limit: seconds after which one is over."""

    def __init__(self, interval: float, limit: float):
        self._interval = interval
        self._limit = limit
        self._renewed: dict[str, float] = {}
        self._own = 0.0

    @property
    def leases(self) -> list[str]:
        return list(self._renewed)

    def renewed(self, lease: str, now: float) -> None:
        self._renewed[lease] = now

    def removed(self, lease: str) -> None:
        self._renewed.pop(lease, None)

    def begin(self, now: float) -> None:
        """Nobody's time that has passed so far counts."""
        self._renewed = dict.fromkeys(self._renewed, now)
        self._own = now

    def judge(self, own: str, now: float) -> list[str]:
        """Which leases are over, as far as this server has to see to it. To be called whenever it
        has renewed its own."""
        if now - self._own > 2 * self._interval:
            self.begin(now)
        self._own = now
        living = [lease for lease, last in self._renewed.items() if now - last < self._limit]
        rank = sorted({*living, own}).index(own)
        limit = self._limit + rank * self._interval
        return [
            lease for lease, last in self._renewed.items() if lease != own and now - last >= limit
        ]


class Leases:
    """clear: removes the nicks of a lease that has ended."""

    def __init__(
        self,
        bus: Bus,
        bucket: Bucket,
        replica: Replica,
        clear: Callable[[str], Coroutine[Any, Any, None]],
    ):
        self.own = secrets.token_hex(8)
        self.taken = asyncio.Event()  # the others can know of it
        self._bus = bus
        self._bucket = bucket
        self._replica = replica
        self._clear = clear
        self._watch = Watch(bus.intervals.renew, bus.intervals.lease)
        self._ready: dict[str, str] = {}  # the process of each; empty while it starts
        self._process = ""
        self._ending: set[str] = set()
        bucket.watch(KIND, self._changed)

    def _changed(self, lease: str, value: bytes | None, revision: int) -> None:
        self._ready[lease] = (value or b"").decode()
        if value is None:
            del self._ready[lease]
            self._watch.removed(lease)
            self._replica.forget(lease)
        else:
            self._watch.renewed(lease, time.monotonic())

    def is_there(self, lease: str) -> bool:
        return lease in self._watch.leases

    def others(self) -> dict[str, bool]:
        """Their leases, and whether each may have clients."""
        return {each: process != "" for each, process in self._ready.items() if each != self.own}

    async def bury(self) -> None:
        """End the leases of those who are known to be dead: processes of this very machine."""
        for lease, process in list(self._ready.items()):
            if process and process.split()[:2] == this_process().split()[:2]:
                pid = process.split()[2]
                if process != this_process(pid):
                    await self._end(lease)

    def renounce(self) -> str:
        """From now on this server has another lease, which it has to take()."""
        self.taken.clear()
        self.own = secrets.token_hex(8)
        return self.own

    async def take(self) -> None:
        await self._bucket.put(KIND, self.own, self._process.encode(), after=0)
        self.taken.set()

    async def open(self) -> None:
        """From now on there may be clients."""
        self._process = this_process()
        with suppress(Conflict):
            await self._bucket.put(KIND, self.own, self._process.encode())

    def start(self) -> None:
        self._watch.begin(time.monotonic())
        self._bus.do(self._renew())

    def resume(self) -> None:
        """NATS is back."""
        self._watch.begin(time.monotonic())

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._bus.intervals.renew)
            with suppress(Conflict):  # it has been ended; the stream says so
                await self._bucket.put(KIND, self.own, self._process.encode())
                for lease in self._watch.judge(self.own, time.monotonic()):
                    if lease not in self._ending:
                        self._ending.add(lease)
                        self._bus.do(self._end(lease))

    async def has_ended(self, lease: str) -> bool:
        """Whether its end stands in the stream."""
        subjects = self._bus.subjects

        async def look() -> bool:
            try:
                await self._bus.api.get_last_msg(subjects.stream, subjects.end(lease))
            except NotFoundError:
                return False
            return True

        return await self._bus.insist(look)

    async def _end(self, lease: str) -> None:
        try:
            if lease not in self._replica.ended:
                await self.write_end(lease)
            await self._clear(lease)
            await self._bucket.put(KIND, lease, None)
        except Conflict:  # it lives after all, or another one has done it
            pass
        finally:
            self._ending.discard(lease)

    async def write_end(self, lease: str) -> None:
        """Have its end in the stream."""
        subject, headers = self._bus.subjects.end(lease), {"Nats-Msg-Id": f"end-{lease}"}
        while lease not in self._replica.ended:
            await self._bus.wait()
            with suppress(*FAILURES):
                await self._bus.api.publish(subject, encode(Ended(lease)), headers=headers)
            await asyncio.sleep(self._bus.intervals.retry)


def this_process(pid: str = "self") -> str:
    """Which it is, of all processes of all machines at all times: the boot, the PID namespace, and
    there the PID and when it began. Empty: there is none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        number, _, rest = Path(f"/proc/{pid}/stat").read_text().partition(" (")
        began = rest.rpartition(")")[2].split()[19]
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino} {number} {began}"
    except OSError:
        return ""
