"""The server: a listener, those who come in by it, the end of a turn, the end of all.

A turn of the chat begins with the first thing that happens in a room, and ends when all have been
heard who are to be heard: by call_soon(), after the callbacks of this turn of the loop. Where
several have spoken it hops LOOKS times more, and the loop asks the kernel each time: while a
turn is sent, those who get it first answer, and all their answers go out in one more turn instead
of two. A hop that has brought nobody is the last, and where clients speak one by one there is none.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable
from datetime import datetime, timezone
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM
from typing import Any

from sock_chat import names
from sock_chat.chat import Chat
from sock_chat.config import Config
from sock_chat.kept import Kept, forget
from sock_chat.link import Reason
from sock_chat.rooms import Rooms
from sock_chat.store import StoreError
from sock_chat.system import (
    BACKLOG,
    RESERVE,
    STDERR,
    listen,
    prepare_process,
    say,
    visible,
)
from sock_chat.tcp import Connection

NAME = "chat"
LOOKS = 2  # hops before a turn of several speakers is told; more hops gather few messages more
CROWDED = 8  # turns after such a one that hop, too
ACCEPTS = 4  # newcomers per turn of asyncio, which schedules a retry for each when it fails
NO_RESOURCES = (EMFILE, ENFILE, ENOBUFS, ENOMEM)  # what accept() may fail for
KEEPALIVE = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}
FULL = b"servidor lleno\n"
DRAIN = 1.0  # seconds in which what waits for clients is sent at the stop
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def make_chat(config: Config, kept: Kept, begin: Callable[[], None]) -> Chat:
    """Everything that sessions share."""
    return Chat(
        rooms=Rooms(kept.log, time.monotonic, today, begin),
        log=kept.log,
        names=kept.names,
        accounts=kept.accounts,
        people=kept.people,
        clock=time.monotonic,
        today=today,
        operators=frozenset(nick.folded for each in config.operator if (nick := names.parse(each))),
        rate=config.rate,
        burst=config.burst,
    )


def today() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)


class Server:
    """limit: of descriptors, RESERVE included. Raises StoreError."""

    def __init__(self, config: Config, listener: socket.socket, limit: int):
        self.config = config
        self.loop: asyncio.AbstractEventLoop
        self.kept = Kept(
            config,
            post=lambda call: self.loop.call_soon_threadsafe(call),
            later=lambda seconds, call: self.loop.call_later(seconds, call),
            report=lambda line: say(visible(line)),
        )
        self.chat = make_chat(config, self.kept, self.begin_turn)
        self.reads = 0
        self._listener = listener
        self._limit = limit - RESERVE
        self._connections: set[Connection] = set()
        self._full = False
        self._looks = 0  # hops that the turn has left
        self._crowded = 0  # turns that will still hop
        self._reads_seen = 0

    # Turns

    def begin_turn(self) -> None:
        self._looks, self._reads_seen = LOOKS, 0
        self.loop.call_soon(self._hop)

    def _hop(self) -> None:
        reads = self.reads
        busy = reads > 1 or self._crowded
        if busy and self._looks and reads > self._reads_seen:
            self._looks -= 1
            self._reads_seen = reads
            self.loop.call_soon(self._hop)
        else:
            self._crowded = CROWDED if reads > 1 else max(0, self._crowded - 1)
            self.reads = 0
            self.chat.rooms.flush()

    # Those who come and go

    def admit(self, connection: Connection) -> bool:
        self._connections.add(connection)
        sock = connection.transport.get_extra_info("socket")
        if sock.fileno() >= self._limit:
            connection.transport.write(FULL)  # an empty send buffer takes these few bytes at once
            connection.transport.close()
            self._say_full(f"no quedan descriptores por debajo del {self._limit}")
            return False
        self._full = False
        self._log(f"Cliente conectado: {connection.name}")
        return True

    def leave(self, connection: Connection, reason: Reason) -> None:
        self._connections.discard(connection)
        if connection.session:
            why = f" ({reason.value})" if reason.value else ""
            self._log(f"Cliente desconectado: {connection.name}{why}")

    def _log(self, line: str) -> None:
        if not self.config.quiet:
            say(visible(line))

    def _say_full(self, reason: str) -> None:
        """Once per episode, which lasts until a newcomer is let in again."""
        if not self._full:
            self._full = True
            say(f"Servidor lleno: {reason}")

    # From the start to the stop

    async def serve(self) -> None:
        """Serve until SIGINT or SIGTERM."""
        stopping = asyncio.Event()
        for signum in STOP_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
        await self.start()
        say(f"Servidor {NAME} iniciado en {self._listener.getsockname()}")
        await stopping.wait()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # no handler outlives the end
        await self.stop()

    async def start(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(self._complain)
        for name, value in KEEPALIVE.items():  # accepted sockets inherit them
            self._listener.setsockopt(socket.IPPROTO_TCP, name, value)
        self._listening = await self.loop.create_server(
            lambda: Connection(self), sock=self._listener, backlog=ACCEPTS
        )
        self._listener.listen(BACKLOG)  # the loop takes `backlog` for this queue, too

    async def stop(self) -> None:
        """Say goodbye to all, and wait a little until it has been sent."""
        # A close() amid an accept() trips asyncio 3.12 and later.
        self.loop.remove_reader(self._listener)
        await asyncio.sleep(0)
        self._listening.close()
        deadline = self.loop.time() + DRAIN
        self.chat.rooms.flush()
        for connection in list(self._connections):
            if connection.session:
                connection.session.stop(0.0)
        self.chat.rooms.flush()
        while self._connections and self.loop.time() < deadline:
            await asyncio.sleep(0.01)
        for connection in list(self._connections):
            connection.transport.abort()
        await asyncio.sleep(0)

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """One line for what asyncio would log with a traceback."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in NO_RESOURCES:
            self._say_full(str(error))  # accept() failed; asyncio tries again after a second
        else:
            say(f"{context['message']}: {error!r}", STDERR)


def main(config: Config) -> str | None:
    """Serve. Returns why it cannot, for sys.exit()."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # _complain() says what is to be said
    if config.forget:
        return forget(config.db, config.forget)
    limit = prepare_process()
    if limit < 2 * RESERVE:
        return f"El límite de {limit} descriptores no deja sitio a nadie"
    try:
        listener = listen(config.host, config.port)
    except (OSError, UnicodeError) as error:
        return f"No se puede escuchar en {(config.host, config.port)}: {error}"
    try:
        server = Server(config, listener, limit)
    except StoreError as error:
        return str(error)
    try:
        if config.loop == "asyncio":
            asyncio.run(server.serve())
        else:
            import uvloop

            uvloop.run(server.serve())
    finally:
        server.kept.close()
    return None
