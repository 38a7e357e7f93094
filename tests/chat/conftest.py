"""What the tests of v5 as a process share: the server, and clients who give their nicks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from benchmarks.harness.server import Server
from tests.support.wire import Peer

QUESTION = "* Bienvenido a sock_chat. ¿Qué apodo quieres?"

Serve = Callable[..., Server]


class Guest(Peer):
    """A client that has come in as `nick`, and has read its greeting; without a nick one that has
    read the question."""

    def __init__(
        self, server: Server, nick: str = "", receive_buffer: int | None = None, source: str = ""
    ):
        super().__init__(server.address, receive_buffer, source)
        assert self.line() == QUESTION
        if nick:
            self.say(nick)
            while not self.line().startswith(f"* Hola, {nick}. En "):
                pass

    def lines(self, *expected: str) -> None:
        for line in expected:
            assert self.line() == line

    def ends(self, *expected: str) -> None:
        """These lines, and the end."""
        assert self.rest().decode() == "".join(f"{line}\n" for line in expected)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve("--rate", "5")` starts v5. At the end each stops with exit status 0 and an empty
    stderr, unless it has ended before."""
    with ExitStack() as stack:
        servers: list[Server] = []

        def start(*arguments: str, **options: Any) -> Server:
            servers.append(stack.enter_context(Server("v5", arguments=arguments, **options)))
            return servers[-1]

        yield start
        for server in servers:
            status = server.process.poll()
            if status is None:
                status = server.stop()
            assert (status, server.errors.rest()) == (0, [])


@pytest.fixture(params=["uvloop", pytest.param("asyncio", marks=pytest.mark.long)])
def server(request: pytest.FixtureRequest, serve: Serve) -> Server:
    """v5 on each of its loops."""
    return serve("--loop", request.param)
