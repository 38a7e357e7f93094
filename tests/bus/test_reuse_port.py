"""Several processes behind one port: SO_REUSEPORT."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack

import pytest

from benchmarks.harness.broker import Nats
from benchmarks.harness.process import free_port, wait_until
from benchmarks.harness.server import Server
from tests.chat.conftest import Guest

PROCESSES = 3
CLIENTS = 120


def counts(servers: list[Server]) -> list[int]:
    """How many clients have come in by each."""
    return [sum("Cliente conectado" in line for line in server.log.all()) for server in servers]


@pytest.mark.long
def test_the_kernel_spreads_newcomers_over_the_processes(nats: Nats) -> None:
    """By a hash of both addresses and ports: nearly evenly, and to those that are left when one
    has died; the clients of the others do not notice."""
    options = ("--bus", nats.url, "--bus-name", "reuse", "--reuse-port", "--port", str(free_port()))
    with ExitStack() as stack:
        servers = [stack.enter_context(Server("v5", arguments=options)) for _ in range(PROCESSES)]
        address = servers[0].address
        assert {server.address for server in servers} == {address}
        guests = [Guest(servers[0]) for _ in range(CLIENTS)]
        wait_until(lambda: sum(counts(servers)) == CLIENTS, f"{counts(servers)}")
        shares = counts(servers)
        print(f"{CLIENTS} clients on {PROCESSES} processes: {shares}")
        assert min(shares) > CLIENTS / PROCESSES / 3, shares
        servers[0].kill()
        late = [Guest(servers[1]) for _ in range(CLIENTS)]
        wait_until(lambda: sum(counts(servers)) == 2 * CLIENTS, f"{counts(servers)}")
        assert counts(servers)[0] == shares[0]
        late[0].say("ana")
        assert late[0].line() == "* Hola, ana. En general: ana."
        late[1].say("bea")
        assert late[1].line() == "* Hola, bea. En general: ana, bea."
        assert len(guests) == len(late)


def test_a_port_is_shared_on_a_bus_only() -> None:
    command = [sys.executable, "-m", "sock_chat", "--reuse-port"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--reuse-port needs --bus" in done.stderr
