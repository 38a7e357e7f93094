"""-m benchmarks.load, as its user calls it: what it reports, and that there is no number when a
line was lost, doubled or out of order, or when the server has gone."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.compiled import no_compiler
from benchmarks.harness.flood import SOURCE, Target
from benchmarks.harness.process import DEADLINE, ServerError, free_port, wait_until
from benchmarks.harness.server import BROWSERS, Server
from benchmarks.load import __main__ as load
from tests.support.faulty import (
    FAULTS,
    Deliveries,
    Fault,
    Faulty,
    doubled_late,
    dropped,
    last_dropped,
)
from tests.support.needed import needed_in_ci
from tests.support.run import MARK, processes, running

CLIENTS = 20
SMALL = ("--clients", "20", "--senders", "4", "--rate", "100")
SHORT = (*SMALL, "--duration", "0.5", "--warm-up", "0.1")
LONG = (*SMALL, "--duration", "600", "--warm-up", "0")
FEW = ("--clients", "4", "--senders", "2", "--rate", "400", "--warm-up", "0")

Tool = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def tool(tmp_path: Path) -> Iterator[Tool]:
    """Start it as the leader of a session, as from a shell."""
    if no_compiler(SOURCE):
        needed_in_ci("no C compiler")
    with ExitStack() as stack:

        def tool(*arguments: str) -> subprocess.Popen[str]:
            process = running(
                [sys.executable, "-m", "benchmarks.load", *arguments],
                env={**os.environ, MARK: str(tmp_path)},
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            return stack.enter_context(process)

        yield tool


@pytest.fixture
def server() -> Iterator[Server]:
    """One that logs what is said."""
    with Server("epoll") as server:
        yield server


def at(server: Target) -> tuple[str, str]:
    return "--connect", "{}:{}".format(*server.address)


def report(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err
    result: dict[str, Any] = json.loads(out)
    return result


def assert_fails(process: subprocess.Popen[str], status: int, text: str) -> None:
    """One line that says so, and no number."""
    out, err = process.communicate(timeout=DEADLINE)
    assert (out, process.returncode) == ("", status), err
    assert re.fullmatch(rf"load\.py: .*{text}.*\n", err)


def own_server(mark: Path) -> int:
    """The pid of the server that the tool has started, once all clients are with it."""
    servers: list[int] = []

    def is_full() -> bool:
        lines = processes(mark).items()
        servers[:] = [pid for pid, line in lines if " -m lowlevel " in line and "{" not in line]
        return bool(servers) and len(os.listdir(f"/proc/{servers[0]}/fd")) >= CLIENTS

    wait_until(is_full, "the server of load.py does not get its clients")
    return servers[0]


# What it reports.


def test_load_of_a_server_it_starts_counts_each_delivery(tool: Tool) -> None:
    result = report(tool("--server", "epoll", *SHORT, "--json", "-"))
    assert result["messages"] == 50
    assert result["deliveries"] == 50 * (CLIENTS - 1)
    assert result["warm_up_deliveries"] == 10 * (CLIENTS - 1)
    latencies = [*result["latency_us"].values()]
    assert [*result["latency_us"]] == ["p50", "p90", "p99", "p99.9", "max"]
    assert latencies == sorted(latencies) and latencies[0] > 0
    # At least 1, but that a segment which the kernel sends again, on a busy machine, counts, too.
    assert 0.9 < result["messages_per_data_segment"] <= 60
    assert 0 < result["load_cpu_percent"] <= 110
    assert result["server_process"]["cpu_seconds"] > 0
    assert result["server_process"]["resident_kib"] > 1024
    assert not result["interrupted"] and result["parameters"]["size"] == 32
    assert {"command", "date", "cpu", "kernel", "python"} <= {*result["environment"]}
    assert result["environment"]["command"].startswith("python -m benchmarks.load --server epoll ")
    for percent, doubted in ((90, False), (91, True)):
        text = "\n".join(load.lines({**result, "load_cpu_percent": percent}))
        assert ("had hardly any CPU left" in text) == doubted


def test_load_of_a_server_that_runs_already_goes_into_table_and_file(
    tool: Tool, server: Server, tmp_path: Path
) -> None:
    arguments = (*SMALL, "--senders", "20", "--size", "9", "--duration", "0.3", "--warm-up", "0")
    file = tmp_path / "load.json"
    process = tool(*at(server), *arguments, "--json", str(file))
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (0, "")
    result = json.loads(file.read_text())
    assert result["server_process"] is None and result["pinning"] is None
    assert result["deliveries"] == result["messages"] * (CLIENTS - 1)
    first, *others = out.splitlines()
    assert first.startswith("{}:{}: 20 clients, of which 20 send".format(*server.address))
    assert any(line.split() == ["deliveries", "570,", "each", "checked"] for line in others)
    assert any(line.startswith("latency p99.9 ") for line in others)


def test_load_of_browsers(tool: Tool) -> None:
    with Server(BROWSERS) as server:
        result = report(tool(*at(server), "--asks", "--web", *SHORT, "--json", "-"))
    assert result["deliveries"] == 50 * (CLIENTS - 1)


def test_load_over_ipv6_of_lines_longer_than_a_segment(tool: Tool) -> None:
    try:
        server = Server("epoll", arguments=["--quiet", "--host", "::1"])
    except ServerError:
        needed_in_ci("::1 is not there")
    with server:
        where = ("--connect", f"[::1]:{server.address[1]}")
        result = report(tool(*where, *FEW, "--size", "65536", "--duration", "0.05", "--json", "-"))
    assert result["deliveries"] == 20 * 3
    assert 0 < result["messages_per_data_segment"] <= 1


# What it refuses.


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("--server nginx", "--server nginx"),
        ("--server v2", "does not broadcast"),
        ("", "--server"),
        ("--server epoll --clients 1", "--clients 1"),
        ("--server epoll --clients 4 --senders 5", "--senders 5"),
        ("--server epoll --senders 0", "--senders 0"),
        ("--server epoll --size 8", "--size 8"),
        ("--server epoll --size 65537", "--size 65537"),
        ("--server epoll --rate 0", "--rate"),
        ("--server epoll --rate nan", "--rate"),
        ("--server epoll --rate 0.1 --duration 1", "no message"),
        ("--server epoll --warm-up -1", "--warm-up"),
        ("--connect ::1:8080", "brackets"),
        ("--connect 127.0.0.1:0", "HOST:PORT"),
        ("--server epoll --json no/such/folder", "no/such/folder"),
    ],
)
def test_load_refuses_nonsense(
    arguments: str, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["load.py", *arguments.split()])
    with pytest.raises(SystemExit) as exit_:
        load.parse_args()
    out, err = capsys.readouterr()
    assert (exit_.value.code, out, err.count("\n")) == (2, "", 1)
    assert text in err


def test_load_exits_with_status_2_on_a_bad_argument(tool: Tool) -> None:
    assert_fails(tool("--server", "nginx"), 2, "--server nginx: neither a command")


def test_load_says_that_nothing_listens(tool: Tool) -> None:
    where = f"127.0.0.1:{free_port()}"
    assert_fails(tool("--connect", where, *SHORT), 1, "cannot connect: Connection refused")


def test_load_says_that_a_command_cannot_be_started(tool: Tool) -> None:
    assert_fails(tool("--server", "no-such-command {port}", *SHORT), 1, "no-such-command")


# Servers that break what they promise.


@pytest.mark.parametrize("fault", [dropped, doubled_late, last_dropped])
def test_load_gives_no_number_when_a_delivery_is_wrong(tool: Tool, fault: Fault) -> None:
    with Faulty(fault) as server:
        arguments = (*at(server), *FEW, "--duration", "0.05", "--deadline", "1")
        assert_fails(tool(*arguments), 1, FAULTS[fault])


def test_load_counts_from_when_a_message_was_due(tool: Tool) -> None:
    """20 messages are due within 0.05 s, of which the server takes none for 0.3 s: an omission that
    is coordinated with the server would leave 19 of them out."""

    def late(server: Faulty, sender: int, line: bytes, others: list[int]) -> Deliveries:
        if not server.kept:
            server.kept.append((sender, line))
            time.sleep(0.3)
        return [(fd, line) for fd in others]

    with Faulty(late) as server:
        result = report(tool(*at(server), *FEW, "--duration", "0.05", "--json", "-"))
    assert result["messages"] == 20 and result["latency_us"]["p50"] > 200_000


def test_load_says_that_the_server_is_full(tool: Tool) -> None:
    with Server("epoll", limits={resource.RLIMIT_NOFILE: (32, 32)}) as server:
        assert_fails(tool(*at(server), *SHORT), 1, "the server is full: it refused a client")


# Ends.


def test_load_says_that_the_server_has_died_half_way(tool: Tool, server: Server) -> None:
    process = tool(*at(server), *LONG)
    server.log.wait(lambda line: " dice: 0000" in line)
    os.kill(server.pid, signal.SIGKILL)
    assert_fails(process, 1, f"the server closed {CLIENTS} of {CLIENTS} connections")


def test_load_says_how_its_own_server_has_died(tool: Tool, tmp_path: Path) -> None:
    process = tool("--server", "epoll", *LONG)
    os.kill(own_server(tmp_path), signal.SIGKILL)
    assert_fails(process, 1, "the server has ended: killed by signal 9")


def test_ctrl_c_prints_what_was_measured_until_then(
    tool: Tool, server: Server, tmp_path: Path
) -> None:
    """At once, although the server has stopped and the deadline is far."""
    far = ("--size", "65536", "--duration", "600", "--deadline", "600")
    process = tool(*at(server), *FEW, *far, "--json", "-")
    server.log.wait(lambda line: " dice: 00000005" in line)
    assert len(processes(tmp_path)) == 2, "load.py and the load"
    os.kill(server.pid, signal.SIGSTOP)
    try:
        full = time.monotonic() + 1  # 26 MB are due meanwhile
        wait_until(lambda: time.monotonic() > full, "the clock has stopped")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, err = process.communicate(timeout=DEADLINE)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert process.returncode == 130, err
    result = json.loads(out)
    assert result["interrupted"] and result["messages"] > 20
    assert 0 < result["deliveries"] < result["messages"] * 3
    assert 0 < result["messages_held_back"] < result["messages"]
    assert "Traceback" not in err and "interrupted after" in err
    wait_until(lambda: not processes(tmp_path), "the load has outlived load.py")


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_nothing_outlives_it(tool: Tool, tmp_path: Path, signum: int, status: int) -> None:
    process = tool("--server", "epoll", *LONG)
    own_server(tmp_path)
    assert len(processes(tmp_path)) == 3, "load.py, the load and the server"
    process.send_signal(signum)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == status, err
    assert "Traceback" not in err
    wait_until(lambda: not processes(tmp_path), "something has outlived load.py")
