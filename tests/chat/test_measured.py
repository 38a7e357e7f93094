"""v5 under the loads and tools that measure all servers, and what it asks of the kernel."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.harness.compiled import no_compiler
from benchmarks.harness.crowd import Crowd
from benchmarks.harness.flood import SOURCE, FloodInC, FloodInPython, LockStep, flood
from benchmarks.harness.process import wait_until
from benchmarks.harness.server import TLS, VARIANTS, Server
from benchmarks.harness.strace import calls, window
from tests.chat.conftest import Guest, Serve
from tests.chat.history import texts_in
from tests.conftest import Strace
from tests.support.needed import needed_in_ci

ROUNDS = 20


def test_loads_of_a_server_that_asks_for_a_nick(serve: Serve) -> None:
    server = serve("--quiet")
    with LockStep(server, 4) as load:
        assert load.run(8).deliveries == 24
    with FloodInPython(server, 5, 2) as load:
        assert load.run(50).deliveries == 2 * 50 * 4


def test_flood_c_gives_nicks(serve: Serve) -> None:
    if no_compiler(SOURCE):
        needed_in_ci("no C compiler")
    with FloodInC(serve("--quiet"), 50, 5) as load:
        assert load.run(100).deliveries == 5 * 100 * 49


def test_system_calls_per_message(strace: Strace, tmp_path: Path) -> None:
    """A wait, a read, and a write for each who hears it; as with N clients on a bare uvloop. It is
    no more for several lines that come at once."""
    with Server("v5", arguments=["--quiet"], wrapper=strace("-s", "100")) as server:
        guests: list[Guest] = []
        for clients in (2, 25):
            guests += [Guest(server, f"n{n}") for n in range(len(guests), clients)]
            server.wait_until_at_rest()
            for number in range(-10, ROUNDS + 1):  # the first ones to warm up
                server.wait_until_at_rest()
                guests[0].say(f"round {number} of {clients}.")
                for guest in guests[1:]:
                    while guest.line() != f"n0 dice: round {number} of {clients}.":
                        pass
        for number in range(ROUNDS + 1):
            server.wait_until_at_rest()
            guests[0].say(f"burst {number}.", *"abc")
            for guest in guests[1:]:
                while guest.line() != "n0 dice: c":
                    pass
        assert server.stop() == 0
    trace = calls((tmp_path / "trace").read_text())
    for clients, first, last in (
        (2, "round 0 of 2.", f"round {ROUNDS} of 2."),
        (25, "round 0 of 25.", f"round {ROUNDS} of 25."),
        (25, "burst 0.", f"burst {ROUNDS}."),
    ):
        rounds = window(trace, first, last)
        counted = Counter(call for call, _ in rounds)
        assert counted == {
            "epoll_wait": ROUNDS,
            "read": ROUNDS,
            "write": (clients - 1) * ROUNDS,
        }


@pytest.mark.parametrize("variant", VARIANTS)
def test_loads_of_v5_with_one_feature_more(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files that it needs are there, and gone when it has ended."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Server(variant) as server:
        assert bool(server.tls) == (variant == TLS)
        with LockStep(server, 4) as load:
            assert load.run(8).deliveries == 24
        with flood(server, 5, 2) as load:
            assert load.run(50).deliveries == 2 * 50 * 4
        assert server.stop() == 0
        files = {path.name for path in tmp_path.rglob("*.*")}
    wanted = {"v5 --db FILE": {"sock_chat.db"}, TLS: {"cert.pem", "key.pem"}}
    assert files >= wanted.get(variant, set())
    assert not list(tmp_path.iterdir())


def test_idle_clients_cost_no_wakeup(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    server = serve("--quiet", "--rate", "5", "--db", str(path))
    with Crowd(server.address, 500, asks=True):
        wait_until(lambda: texts_in(path)[-1:] and texts_in(path)[-1][1] == "begin", "not written")
        server.wait_until_at_rest()
        before = server.context_switches()
        time.sleep(1)
        assert server.context_switches() == before
