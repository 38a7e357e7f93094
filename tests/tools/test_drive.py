"""The benchmarks' way of driving a room: that it counts right, and that it believes no server."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path

import pytest

from benchmarks.harness.compiled import no_compiler
from benchmarks.harness.cpus import pinned, two_cpus
from benchmarks.harness.crowd import Client, Crowd, DeliveryError
from benchmarks.harness.environment import differences, environment, sentence
from benchmarks.harness.files import ROOT
from benchmarks.harness.flood import SOURCE, FloodInC, FloodInPython, Load, LockStep, Target
from benchmarks.harness.process import ServerError, wait_until
from benchmarks.harness.server import Server
from benchmarks.harness.strace import calls, calls_between, window
from tests.support.faulty import FAULTS, Deliveries, Fault, Faulty, ended, honest
from tests.support.needed import needed_in_ci

LOADS: dict[str, Callable[[Target], Load]] = {
    "lock-step": lambda server: LockStep(server, 3),
    "flood.c": lambda server: FloodInC(server, 3, 2),
    "flood in Python": lambda server: FloodInPython(server, 3, 2),
}
IN_FRAMES = {f"{kind}, in frames": load for kind, load in LOADS.items()}


@pytest.fixture(params=LOADS)
def load(request: pytest.FixtureRequest) -> Callable[[Target], Load]:
    kind: str = request.param
    if kind.startswith("flood.c") and no_compiler(SOURCE):
        needed_in_ci("no C compiler")
    return {**LOADS, **IN_FRAMES}[kind]


@pytest.mark.parametrize("load", [*LOADS, *IN_FRAMES], indirect=True)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_spoiled_delivery_is_an_error(
    load: Callable[[Target], Load],
    fault: Fault,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    for module in ("crowd", "flood"):  # what is lost is waited for
        monkeypatch.setattr(f"benchmarks.harness.{module}.DEADLINE", 0.5)
    faulty = Faulty(fault, websocket="in frames" in request.node.name)
    with faulty as server, load(server) as driven:
        in_c = isinstance(driven, FloodInC)
        with pytest.raises(DeliveryError, match=FAULTS[fault] if in_c else None):
            driven.run(30 if isinstance(driven, LockStep) else 10)


@pytest.mark.parametrize("load", [*LOADS][1:], indirect=True)
def test_a_flood_goes_on_until_it_is_told(load: Callable[[Target], Load]) -> None:
    """And before that it ends when the server does."""
    answers = chain([False, False], repeat(True))
    with Faulty(honest) as server, load(server) as driven:
        first = driven.run_until(lambda: next(answers))
        assert first.deliveries > 0 and first.deliveries % 2 == 0
        again = driven.run(5)
        assert again.deliveries == 5 * 2 * 2 and again.first == first.last + 1
        assert again.last == again.first + 5
    closed = pytest.raises(DeliveryError, match=r"closed|Broken pipe|reset")
    with Faulty(ended) as server, load(server) as driven, closed:
        driven.run_until(lambda: False)


def test_lock_step_reads_in_the_order_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whom a server tells first is its own affair. Here nobody is told before the one before it
    has read, so a load with an order of its own would wait for ever."""
    served: list[int] = []
    read: list[int] = []
    shuffle = random.Random(1).shuffle

    def one_by_one(server: Faulty, sender: int, line: bytes, others: list[int]) -> Deliveries:
        shuffle(others)
        for fd in others:
            served.append(by_port[server.socks[fd].getpeername()[1]])
            server.deliver([(fd, line)])
            wait_until(lambda: read == served, "it is not read")
        return []

    def receive(client: Client) -> bytes:
        data = received(client)
        read.append(client.index)
        return data

    received = Client.receive
    with Faulty(one_by_one) as server, Crowd(server.address, 8) as crowd:
        by_port = {client.sock.getsockname()[1]: client.index for client in crowd.clients}
        monkeypatch.setattr(Client, "receive", receive)
        latencies: list[float] = []
        assert crowd.lock_step(16, latencies=latencies) == 16 * 7 == len(latencies)
        crowd.assert_silent()
    assert read == served
    assert read[:7] != sorted(read[:7])


@pytest.mark.servers("v4", "epoll")
def test_loads_count_what_they_say(name: str, load: Callable[[Target], Load]) -> None:
    """And the server has said just that: its log is the witness."""
    with Server(name) as server:
        with load(server) as driven:
            measured = driven.run(50)
        assert server.stop() == 0
        lines = [line for line in server.log.rest() if " dice: 0" in line]
    assert measured.deliveries == 50 * driven.senders * 2 // (3 if driven.senders == 3 else 1)
    assert len(lines) == measured.deliveries // 2 + 2  # the last two see that nothing comes twice
    assert 0 < measured.p50_seconds <= measured.p99_seconds <= measured.wall_seconds
    assert 0 < measured.segments <= measured.deliveries + 100  # TCP may repeat some


def test_unknown_server() -> None:
    with pytest.raises(ServerError, match=r"'v9' is neither one of v1, .* nor a command"):
        Server("v9")


def test_pinned_is_for_what_is_started_meanwhile() -> None:
    server_cpu, load_cpu = two_cpus()
    if server_cpu is None:
        pytest.skip("one CPU only")
    before = os.sched_getaffinity(0)
    with pinned(load_cpu), Server("v3", cpu=server_cpu) as server:
        assert os.sched_getaffinity(server.pid) == {server_cpu}
        assert os.sched_getaffinity(0) == {load_cpu}
    assert os.sched_getaffinity(0) == before


def test_environment_names_what_a_result_needs() -> None:
    about = environment(["python", "-m", "benchmarks.compare", "--quick"])
    assert about["command"] == "python -m benchmarks.compare --quick"
    assert {"date", "commit", "cpu", "cpus", "kernel", "python"} <= about.keys()
    assert str(ROOT) not in json.dumps(environment())
    calls = about.pop("calibration_us")
    for value in about.values():
        assert value in sentence(about)
    assert len(calls) == 3 and min(calls.values()) > 0
    assert all(call in sentence({**about, "calibration_us": calls}) for call in calls)


def test_environments_that_are_apart_are_told() -> None:
    one = {"calibration_us": {"getppid": 0.1, "an empty epoll_wait": 0.4}}
    assert (
        differences(one, {"calibration_us": {"getppid": 0.13, "an empty epoll_wait": 0.31}}) == ""
    )
    assert differences(one, {"calibration_us": {"getppid": 0.07, "an empty epoll_wait": 0.4}}) == (
        "Not measured under the same conditions: getppid took 0.1 µs and 0.07 µs."
    )
    assert differences(one, {}) == "", "an older result does not tell"


TRACE = """\
7 epoll_wait(3, [{events=EPOLLIN, data={u32=5}}], 1023, -1) = 1
7 recvfrom(5, "first.\\n", 16384, 0, NULL, NULL) = 7
8 futex(0x1, FUTEX_WAIT <unfinished ...>
7 sendto(6, "x", 1, 0, NULL, 0) = 1
8 <... futex resumed>) = 0
7 epoll_pwait(3, [], 1023, -1, NULL, 8) = 1
7 read(5, "last.\\n", 16384) = 6
"""


def test_trace_is_cut_where_messages_were_received() -> None:
    assert calls_between(TRACE, "first.", "last.") == ["recvfrom", "sendto", "futex", "epoll_wait"]
    with pytest.raises(ValueError, match="'never'"):
        window(calls(TRACE), "first.", "never")


@pytest.mark.alone
def test_benchmarks_run_with_one_option_and_write_json(tmp_path: Path) -> None:
    """A few of them, for real; `pytest` alone runs none."""
    file = tmp_path / "benchmarks.json"
    some = "one-10-epoll or broadcast and 2-epoll-et or trickle and 10-v3 or 1-coalesced"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "benchmarks", "-k"]
    options = ["--benchmark-only", f"--benchmark-json={file}", "--benchmark-max-time=0.05"]
    run = subprocess.run(
        [*command, some, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(file.read_text())
    assert {"date", "cpu", "kernel", "python"} <= result["sock_chat"].keys()
    by_name = {entry["name"].split("[")[0]: entry for entry in result["benchmarks"]}
    assert by_name.keys() == {"test_readiness", "test_broadcast", "test_trickle", "test_fanout"}
    assert by_name["test_broadcast"]["extra_info"]["microseconds per delivery"] > 0
    assert all(entry["stats"]["median"] > 0 for entry in result["benchmarks"])
