"""What the servers of one chat keep together (`storage` is for one alone): history in a stream of
NATS, names, accounts and bans in a bucket of it; and what becomes of the clients while NATS is
away, and of a server that was taken for dead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone

from sock_chat import intervals, names
from sock_chat.bucket import Bucket
from sock_chat.bus import Bus
from sock_chat.bus_accounts import BusAccounts, remove_account
from sock_chat.bus_names import BusNames
from sock_chat.bus_people import BusPeople
from sock_chat.config import Config
from sock_chat.counters import Counters
from sock_chat.events import Notice
from sock_chat.intervals import Intervals
from sock_chat.introduction import Introduction
from sock_chat.jetstream_log import JetStreamLog
from sock_chat.lease import Leases
from sock_chat.store import Post, StoreError
from sock_chat.wire import Subjects

AWAY = "El chat espera a su bus."


class BusStorage:
    """The same as storage.Storage."""

    def __init__(
        self,
        config: Config,
        post: Post,
        later: Callable[[float, Callable[[], None]], object],
        report: Callable[[str], None],
        counters: Counters,
        chosen: Intervals | None = None,
    ):
        self._config = config
        self._report = report
        self._bus = Bus(
            config.bus,
            Subjects(config.bus_name),
            chosen or intervals.INTERVALS,
            self._away,
            self._back,
        )
        self._bucket = Bucket(self._bus)
        self.log = JetStreamLog(self._bus, _today, report, self._lost)
        self.names = BusNames(self._bus, self._bucket, self.log)
        self.accounts = BusAccounts(self._bus, self._bucket, self.names, time.monotonic, post)
        self.people = BusPeople(
            self._bus, self._bucket, self.log, self.names, time.monotonic, time.time
        )
        self.log.numbers = self.names.clients
        self._introduction = Introduction(self._bus, self.log.replica)
        self._leases = Leases(self._bus, self._bucket, self.log.replica, self.names.clear)
        self.names.leases = self._leases

    @property
    def healthy(self) -> bool:
        return not self._bus.is_away

    async def start(self) -> None:
        """Come to know the others, and to be known. Raises StoreError."""
        await self.log.open(self._config.keep, self._config.bus_replicas)
        try:
            await asyncio.wait_for(self._begin(), self._bus.intervals.start)
        except asyncio.TimeoutError:
            raise StoreError(f"El bus {self._config.bus[0]} no responde") from None
        if not self.log.replica.knows_all:
            self._report("Espera a otros servidores, que no responden, o a que se den por muertos.")
            await self._leases.bury()
        await self.log.introduced()
        await self._leases.open()

    async def _begin(self) -> None:
        await self._bucket.load()
        replica, others = self.log.replica, self._leases.others()
        await self._leases.take()
        await self.people.listen(self._leases.own)
        if state := await self._introduction.ask(list(others), self.log.end):
            self.log.load(state)
        else:
            for lease, is_open in others.items():
                if await self._leases.has_ended(lease):
                    replica.ended[lease] = {}
                else:
                    replica.adopt(lease, known=not is_open)
        await self.log.start(self._leases.own)
        await self._introduction.listen(self._leases.own, lambda: self.log.sequence)
        self._bus.start()
        self._leases.start()

    async def finish(self, timeout: float) -> None:
        """All sessions have been stopped: have the others know it."""
        self.names.is_stopping = True
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._finish(), timeout)
        await self._bus.close()

    async def _finish(self) -> None:
        await self.log.finish()
        await self._leases.write_end(self._leases.own)

    def close(self) -> None:
        self.accounts.close()

    def _away(self) -> None:
        self._report("El bus no responde.")
        for session in self.names.clients:
            if session.room:
                session.tell(Notice(AWAY))

    def _back(self) -> None:
        self._report("El bus responde.")
        self._leases.resume()
        self.log.resume()

    def _lost(self) -> None:
        """Go on under a new lease, without those who had come in."""
        if self.names.is_stopping:
            return  # it has said itself that it ends
        self._report("Los demás servidores han dado a este por muerto.")
        self.names.lose()
        self.log.begin(self._leases.renounce())
        self._bus.do(self._renew())

    async def _renew(self) -> None:
        await self._leases.take()
        await self.people.listen(self._leases.own)
        await self._introduction.listen(self._leases.own, lambda: self.log.sequence)
        self.log.write()


def _today() -> datetime:
    return datetime.fromtimestamp(int(time.time()), timezone.utc)


def forget_on_bus(config: Config) -> str | None:
    """storage.forget(), whatever servers run."""

    async def forget(folded: str) -> bool:
        subjects = Subjects(config.bus_name)
        connection = Bus(config.bus, subjects, intervals.INTERVALS, lambda: None, lambda: None)
        await connection.connect(config.keep, config.bus_replicas)
        bucket = Bucket(connection)
        await bucket.load()
        try:
            return await remove_account(bucket, folded)
        finally:
            await connection.close()

    nick = names.parse(config.forget)
    assert nick
    try:
        return (
            None if asyncio.run(forget(nick.folded)) else f"El apodo {nick.shown} no tiene dueño."
        )
    except StoreError as error:
        return str(error)
