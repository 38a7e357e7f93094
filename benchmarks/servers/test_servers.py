"""What whole servers cost, in their own CPU time: a process each, its clock as the timer.

A broadcast round is one message and all its deliveries, each of them checked. In a flood several
messages are under way: of browsers, who are told in frames, and of v5's clients with lines. Ingest
is lines that are only read and printed, which is all that v1 and v2 do. A trickle is bytes without
a newline beside K idle clients: nobody is told anything, so what is left is the turn itself.
"""

from __future__ import annotations

import socket
import statistics
from typing import Any

import pytest

from benchmarks.conftest import LOAD_CPU, StartServer, server_cpu_seconds, tell_per
from benchmarks.harness.crowd import Crowd, Trickle
from benchmarks.harness.flood import flood
from benchmarks.harness.process import DEADLINE
from benchmarks.harness.roster import LINE_PEERS, PEERS
from benchmarks.harness.server import BROADCASTING, BROWSERS, SERVERS

ROUNDS = 20
"""Broadcast rounds in one round of the benchmark."""
FLOOD = 20
"""Messages of each sender."""
LINES = 4000
TRICKLE = 100

pytestmark = pytest.mark.benchmark(timer=server_cpu_seconds)


@pytest.mark.parametrize("name", BROADCASTING)
@pytest.mark.parametrize("clients", [2, 10, 100])
def test_broadcast(benchmark: Any, start: StartServer, name: str, clients: int) -> None:
    benchmark.group = f"broadcast: {ROUNDS} rounds among {clients}"
    server = start(name, "--quiet")
    latencies: list[float] = []
    with Crowd(server.address, clients, asks=server.asks) as crowd:
        benchmark.pedantic(
            crowd.lock_step, args=(ROUNDS, 32, latencies), rounds=15, warmup_rounds=2, iterations=1
        )
        crowd.assert_silent()
    tell_per(benchmark, "delivery", ROUNDS * (clients - 1))
    hundredths = statistics.quantiles(latencies, n=100, method="inclusive")
    benchmark.extra_info["latency in microseconds, p50 p90 p99"] = [
        round(hundredths[index - 1] * 1e6, 1) for index in (50, 90, 99)
    ]


@pytest.mark.parametrize(
    "name", ["v5", BROWSERS, *(name for name in PEERS if name not in LINE_PEERS)]
)
@pytest.mark.parametrize("clients", [10, 100])
def test_flood_of_browsers(benchmark: Any, start: StartServer, name: str, clients: int) -> None:
    benchmark.group = f"browsers: a flood of {clients}"
    if name in PEERS and (missing := PEERS[name].missing()):
        pytest.skip(missing)
    senders, server = clients // 5, start(name, *["--quiet"][: name == "v5"])
    with flood(server, clients, senders, cpu=LOAD_CPU) as load:
        benchmark.pedantic(load.run, args=(FLOOD,), rounds=8, warmup_rounds=2, iterations=1)
    tell_per(benchmark, "delivery", FLOOD * senders * (clients - 1))


@pytest.mark.parametrize("name", [name for name in SERVERS if " " not in name and name != "v5"])
def test_ingest(benchmark: Any, start: StartServer, name: str) -> None:
    """LINES lines of one client, in pieces of 64, until the last one is on stdout."""
    benchmark.group = f"ingest: {LINES} lines to stdout"
    server = start(name)
    with socket.create_connection(server.address, DEADLINE) as sock:
        prefix = f"{sock.getsockname()} dice: "
        sent = 0

        def ingest() -> None:
            nonlocal sent
            texts = [f"line {number:024d}" for number in range(sent, sent + LINES)]
            for index in range(0, LINES, 64):
                sock.sendall("".join(f"{text}\n" for text in texts[index : index + 64]).encode())
            server.log.wait(f"{prefix}{texts[-1]}".__eq__, sent)
            sent += LINES

        benchmark.pedantic(ingest, rounds=6, warmup_rounds=1, iterations=1)
        logged = [line for line in server.log.all() if line.startswith(prefix)]
    assert logged == [f"{prefix}line {number:024d}" for number in range(sent)]
    tell_per(benchmark, "line", LINES)


@pytest.mark.parametrize(
    "name", ["v2", "v3", "v4", "v5", "selectors", "epoll", "epoll-et", "uvloop"]
)
@pytest.mark.parametrize("idle", [10, 100, 900])
def test_trickle(benchmark: Any, start: StartServer, name: str, idle: int) -> None:
    """TRICKLE bytes, each read in a turn of its own: select()'s turn grows with the idle ones."""
    benchmark.group = f"trickle: {TRICKLE} bytes beside {idle} idle"
    with Trickle(start(name, "--quiet"), idle) as trickle:
        benchmark.pedantic(trickle.run, args=(TRICKLE,), rounds=8, warmup_rounds=1, iterations=1)
    tell_per(benchmark, "turn", TRICKLE)
