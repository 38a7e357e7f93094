"""The server: its listeners, those who come in by them, the start and the stop."""

from __future__ import annotations

import asyncio
import signal
import ssl
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM
from pathlib import Path
from typing import Any

from sock_chat import names, service_manager
from sock_chat.chat import Chat
from sock_chat.config import Config
from sock_chat.connection import Connection
from sock_chat.counters import Counters
from sock_chat.doors import Door
from sock_chat.exposition import Exposition
from sock_chat.files import load
from sock_chat.journal import Journal
from sock_chat.limits import ConnectionLimiter
from sock_chat.link import Reason
from sock_chat.log import Turn
from sock_chat.proxy import HeaderReader, is_trusted
from sock_chat.rooms import Rooms
from sock_chat.storage import Storage, storage_class
from sock_chat.system import RESERVE, STDERR, say, visible
from sock_chat.tls import make_context
from sock_chat.turns import Turns
from sock_chat.ws import Pings

NO_RESOURCES = (EMFILE, ENFILE, ENOBUFS, ENOMEM)  # what accept() may fail for
CROWDED = "Demasiadas conexiones desde tu dirección."
RETURNS = 500  # clients per second that are to come back after a stop
RETRY_AFTER = 1.0  # seconds, for the first of them
DRAIN = 1.0  # seconds in which what waits for clients is sent at the stop
STOP_TIME = 1.8  # seconds in which all is over
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def make_chat(
    config: Config,
    storage: Storage,
    counters: Counters,
    begin: Callable[[], None],
    record: Callable[[Turn], None] | None,
) -> Chat:
    """Everything that sessions share."""
    return Chat(
        rooms=Rooms(storage.log, time.monotonic, today, begin, counters, record),
        log=storage.log,
        names=storage.names,
        accounts=storage.accounts,
        people=storage.people,
        counters=counters,
        clock=time.monotonic,
        today=today,
        operators=frozenset(nick.folded for each in config.operator if (nick := names.parse(each))),
        rate=config.rate,
        burst=config.burst,
    )


def _set_alarm(signum: int, frame: object) -> None:
    """Then the process ends, whatever holds it up: a stdout that takes nothing, for one."""
    # At exit a second one would kill.
    signal.pthread_sigmask(signal.SIG_BLOCK, (*STOP_SIGNALS, signal.SIGHUP))
    signal.setitimer(signal.ITIMER_REAL, STOP_TIME)


def today() -> datetime:
    return datetime.fromtimestamp(int(time.time()), timezone.utc)


class Server:
    """doors: the last is announced last. limit: of descriptors, RESERVE included.
    context: what TLS goes by; it is made anew when the certificate is. Raises store.StoreError."""

    def __init__(
        self,
        config: Config,
        doors: Sequence[Door],
        limit: int,
        context: ssl.SSLContext | None = None,
    ):
        self.config = config
        self.context = context
        self.loop: asyncio.AbstractEventLoop
        self.started: float = time.time()
        self.counters: Counters = Counters()
        self.turns = Turns(lambda: self.chat.rooms.flush())
        self.storage: Storage = storage_class(config)(
            config,
            post=lambda call: self.loop.call_soon_threadsafe(call),
            later=lambda seconds, call: self.loop.call_later(seconds, call),
            report=lambda line: say(visible(line)),
            counters=self.counters,
        )
        self.journal = Journal(config, today)
        record = self.journal.record if self.journal.wants_messages else None
        self.chat: Chat = make_chat(config, self.storage, self.counters, self.turns.begin, record)
        self.files = load()
        self.origins = config.origin
        self.trusted = config.trust_proxy
        self.pings = Pings()
        self.exposition = Exposition(self)
        self._stopping = False
        self._doors = doors
        self._limit = limit - RESERVE
        self.connections: set[Connection] = set()
        self._counted: dict[Connection, ConnectionLimiter] = {}  # with who counts it
        self._inside = ConnectionLimiter(config.per_address)
        self._outside = ConnectionLimiter(config.per_address)

    # web.Site

    def admit(self, connection: Connection) -> bool:
        transport = connection.transport
        self.connections.add(connection)
        self.counters.accepted[connection.kind] += 1
        if transport.get_extra_info("socket").fileno() >= self._limit:
            transport.write(connection.full)  # an empty send buffer takes these few bytes at once
            connection.close(Reason.FULL)
            self.journal.full(f"no quedan descriptores por debajo del {self._limit}")
            return False
        self.journal.has_room()
        if connection.proxy_header and is_trusted(connection.address, self.trusted):
            transport.set_protocol(HeaderReader(connection, self.loop))
            return False
        return True

    def count_outside(self, connection: Connection) -> bool:
        if not connection.proxy_header and is_trusted(connection.address, self.trusted):
            return True  # it is no client
        return self._count(connection, self._outside)

    def _count(self, connection: Connection, limiter: ConnectionLimiter) -> bool:
        self._forget(connection)
        if admitted := limiter.admit(connection.address):
            self._counted[connection] = limiter
        return admitted

    def _forget(self, connection: Connection) -> None:
        if limiter := self._counted.pop(connection, None):
            limiter.leave(connection.address)

    def enter(self, connection: Connection) -> None:
        session = connection.session
        assert session
        self.journal.connected(connection)
        if self._count(connection, self._inside):
            session.start()
        else:
            session.finish(Reason.CROWDED, CROWDED)

    def leave(self, connection: Connection, reason: Reason) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
            self.counters.closed[reason] += 1
        self._forget(connection)
        self.journal.gone(connection, reason)

    def health(self) -> str:
        if self._stopping:
            return "El servidor se cierra."
        return "" if self.storage.healthy else "El bus no responde."

    # From the start to the stop

    async def serve(self) -> None:
        """Serve until SIGINT or SIGTERM."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for signum in STOP_SIGNALS:
            loop.add_signal_handler(signum, stopping.set)
            signal.signal(signum, _set_alarm)  # beside it, and at once
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        await self.start()
        for door in self._doors:
            say(door.announcement)
        service_manager.tell(service_manager.READY)
        await stopping.wait()
        service_manager.tell(service_manager.STOPPING)
        await self.stop()

    async def start(self) -> None:
        self.loop = self.turns.loop = self.pings.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(self._complain)
        await self.storage.start()
        self._listening = [await door.open(self) for door in self._doors]

    async def stop(self) -> None:
        """Say goodbye to all, and wait a little until it has been sent."""
        for door in self._doors:  # a close() amid an accept() trips asyncio 3.12 and later
            self.loop.remove_reader(door.listener)
        await asyncio.sleep(0)
        for listening in self._listening:
            listening.close()
        self._stopping = True
        deadline = self.loop.time() + DRAIN
        self.chat.rooms.flush()
        sessions = [each.session for each in self.connections if each.session]
        for index, session in enumerate(sessions):
            session.stop(RETRY_AFTER + index / RETURNS)
        self.chat.rooms.flush()
        await self.storage.finish(deadline - self.loop.time())
        while self.loop.time() < deadline and any(
            each.session or each.waiting for each in self.connections
        ):
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.transport.abort()
        await asyncio.sleep(0)

    def _reload(self) -> None:
        """SIGHUP: whoever comes in by TLS from now on sees the certificate as it is now."""
        service_manager.tell(service_manager.reloading())
        if self.config.tls_cert:
            try:
                self.context = make_context(self.config.tls_cert, self.config.tls_key)
            except OSError as error:
                say(f"El certificado sigue siendo el de antes: {error}", STDERR)
        service_manager.tell(service_manager.READY)

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """One line for what asyncio would log with a traceback. What an exception says, and with
        which arguments a callback was called, may be a password, so that is not in it."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in NO_RESOURCES:
            self.journal.full(str(error))  # accept() failed; asyncio tries again after a second
        elif error:
            self.counters.errors += 1
            say(f"Error interno: {type(error).__name__} en {_places(error)}", STDERR)
        else:
            say(context["message"], STDERR)


def _places(error: BaseException) -> str:
    """Where it was raised, and by way of which lines."""
    frames = traceback.extract_tb(error.__traceback__)
    return " > ".join([f"{Path(each.filename).name}:{each.lineno}" for each in frames]) or "?"
