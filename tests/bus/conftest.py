"""What the tests of many servers share: NATS, servers on it, clients on the servers."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.broker import Nats
from benchmarks.harness.server import READY, Server

SHORT = {"renew": 0.4, "lease": 1.6, "heartbeat": 0.5, "ping": 0.5, "members": 1.0}
SERVE = f"{sys.executable} {Path(__file__).with_name('serve.py')}"

Serve = Callable[..., Server]


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """One for the tests of a module that do it no harm. Each has a chat of its own."""
    with Nats(tmp_path_factory.mktemp("nats")) as nats:
        yield nats


@pytest.fixture
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """`serve(URL)` starts v5 on a NATS, under the name of the test. At the end each stops with exit
    status 0 and an empty stderr, unless it has ended before."""
    name = "".join(char for char in request.node.name if char.isalnum())[-32:]
    with ExitStack() as stack:
        servers: list[Server] = []

        def start(*urls: str, arguments: str = "", **intervals: Any) -> Server:
            options = " ".join(f"--bus {url}" for url in urls)
            short = shlex.quote(json.dumps({**SHORT, **intervals}))
            ours = f"--port {{port}} --web-port 0 --rate 0 --bus-name {name} {options}"
            command = f"{SERVE} {short} {ours} {arguments}"
            server = stack.enter_context(Server(command, asks=True))
            servers.append(server)
            server.log.wait(READY.fullmatch)
            return server

        yield start
        for server in servers:
            status = server.process.poll()
            if status is None:
                status = server.stop()
            assert (status, server.errors.rest()) == (0, []) or status < 0
