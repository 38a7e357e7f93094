"""A connection that is not read, in this process, with short times."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from benchmarks.harness.process import DEADLINE
from sock_chat import connection
from sock_chat.config import Config
from sock_chat.doors import Door
from sock_chat.server import Server
from sock_chat.system import listen
from tests.chat.conftest import QUESTION

RUN: dict[str, Callable[[Coroutine[Any, Any, None]], None]] = {
    "asyncio": asyncio.run,
    "uvloop": uvloop.run,
}
LINGER_RESET = struct.pack("ii", 1, 0)

Drive = Callable[[Server, socket.socket], Coroutine[Any, Any, None]]


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.fixture(params=RUN)
def drive(request: pytest.FixtureRequest) -> Callable[[Drive], None]:
    """Run a coroutine with a server that reads five lines at once and one a second afterwards, and
    a client of it that has a nick."""

    async def run(test: Drive) -> None:
        listener = listen("127.0.0.1", 0)
        server = Server(
            Config(db=":memory:", rate=1, burst=5, quiet=True), [Door("", listener)], 1000
        )
        await server.start()
        with socket.create_connection(listener.getsockname()) as sock:
            sock.sendall(b"ana\n")
            await until(lambda: server.chat.rooms.general.count)
            await test(server, sock)
        await server.stop()

    return lambda test: RUN[request.param](run(test))


def test_a_reset_is_seen_while_it_is_not_read(
    drive: Callable[[Drive], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LOOK", 0.05)

    async def test(server: Server, sock: socket.socket) -> None:
        sock.sendall(b"hola\n" * 10_000)
        await asyncio.sleep(0.1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        sock.close()
        await until(lambda: not server.chat.rooms.general.count)

    drive(test)


def test_after_its_fin_it_is_heard_out_but_not_for_ever(
    drive: Callable[[Drive], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LOOK", 0.05)
    monkeypatch.setattr(connection, "HEARD_OUT", 0.5)

    async def test(server: Server, sock: socket.socket) -> None:
        sock.sendall(b"hola\n" * 10_000)
        sock.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.1)
        assert server.chat.rooms.general.count == 1
        await until(lambda: not server.chat.rooms.general.count)

    drive(test)


def test_a_client_that_is_not_read_but_there_stays(
    drive: Callable[[Drive], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LOOK", 0.01)

    async def test(server: Server, sock: socket.socket) -> None:
        sock.sendall(b"hola\n" * 7)
        await until(lambda: server.chat.log.position == 7)
        assert server.chat.rooms.general.count == 1

    drive(test)


def test_nobody_stays_at_the_door(drive: Callable[[Drive], None]) -> None:
    async def test(server: Server, sock: socket.socket) -> None:
        server.chat.naming_time = 0.2
        reader, writer = await asyncio.open_connection(*sock.getpeername())
        text = await asyncio.wait_for(reader.read(), DEADLINE)
        writer.close()
        assert text.decode() == f"{QUESTION}\n* Sin apodo en 0.2 s.\n"
        assert server.chat.rooms.general.count == 1

    drive(test)


def test_an_idle_client_has_no_timer(drive: Callable[[Drive], None]) -> None:
    async def test(server: Server, sock: socket.socket) -> None:
        (connection,) = server.connections
        await until(lambda: connection._next is None)
        assert (connection._look, connection._end, connection._expiry) == (None, None, None)

    drive(test)
