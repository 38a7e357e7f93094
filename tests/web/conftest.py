"""What the tests of the web port share: a server on each loop, requests byte by byte, browsers that
are no browsers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from benchmarks.harness.process import DEADLINE
from benchmarks.harness.server import Server
from tests.chat.conftest import serve as serve
from tests.support.wire import Peer

PROXY = "127.0.0.9"  # trusted
OTHER_ORIGIN = "https://chat.example.org"
LOOPS = ("uvloop", "asyncio")


@pytest.fixture(scope="module", params=LOOPS)
def shared(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server for all tests of a module, which it survives without a word."""
    arguments = ["--trust-proxy", f"{PROXY}/32", "--origin", f"{OTHER_ORIGIN}/"]
    with Server("v5", arguments=["--loop", request.param, *arguments]) as server:
        yield server
        assert (server.stop(), server.errors.rest()) == (0, [])


def head(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def answer(server: Server, *segments: bytes, source: str = "") -> tuple[int, str]:
    """Status and the whole of what comes until the server closes."""
    assert server.web
    peer = Peer(server.web, source=source)
    for segment in segments:
        peer.send(segment)
    text = peer.rest().decode("latin-1")
    return int(text.split()[1]) if text else 0, text


def upgrade(**headers: str) -> bytes:
    """A request for a WebSocket; an empty header is left out."""
    known = {
        "Host": "chat",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    path = known.pop("path", "/ws")
    return head(f"GET {path} HTTP/1.1", *[f"{k}: {v}" for k, v in known.items() if v])


class Browser:
    """A WebSocket, and the events that come by it."""

    def __init__(self, server: Server, nick: str = "", path: str = "/ws", **options: Any):
        assert server.web
        host, port = server.web
        scheme = "wss" if "ssl" in options else "ws"
        self.events: list[dict[str, Any]] = []
        url = f"{scheme}://{host}:{port}{path}"
        self._stack = ExitStack()
        self.socket: ClientConnection = self._stack.enter_context(
            connect(url, compression=None, ping_interval=None, **options)
        )
        assert self.event()["type"] == "ask"
        if nick:
            self.socket.send(nick)
            self.welcome = self.next("welcome")

    def event(self) -> dict[str, Any]:
        while not self.events:
            self.events += json.loads(self.socket.recv(timeout=DEADLINE))
        return self.events.pop(0)

    def next(self, kind: str) -> dict[str, Any]:
        """The next event of a kind; what comes before is dropped."""
        while (event := self.event())["type"] != kind:
            pass
        return event

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
