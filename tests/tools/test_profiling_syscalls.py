"""profiling/syscalls.py and profiling/roundtrip.py, run as their users run them."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.files import ROOT
from benchmarks.harness.process import DEADLINE
from tests.contract.test_syscalls import EXPECTED
from tests.support.needed import needed_in_ci

CLIENTS = (2, 3, 5)
PROFILING = ROOT / "profiling"

DYING = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.accept()[0].close()  # the one who asks whether it accepts
(a, name), (b, _) = listener.accept(), listener.accept()
for word in (b"ready", b"begin"):
    b.recv(100)
    a.sendall(b"%r dice: %s\\n" % (b.getpeername(), word))
for number in range(int(sys.argv[2])):
    b.sendall(b"%r dice: " % (name,) + a.recv(100))
    if number % 3 == 0:
        os.getppid()
os.kill(os.getpid(), 9)
"""
"""A room for two, which dies after some messages. After each third it makes a call more."""


@pytest.fixture(autouse=True, scope="module")
def _strace() -> None:
    if not shutil.which("strace"):
        needed_in_ci("strace is not installed (apt-get install strace)")


def command(script: str, *arguments: str) -> list[str]:
    return [sys.executable, str(PROFILING / f"{script}.py"), *arguments]


def run(
    script: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(script, *arguments),
        capture_output=True,
        text=True,
        timeout=4 * DEADLINE,
        check=False,
        env={**os.environ, **(environment or {})},
    )


def results(script: str, *arguments: str, **options: Any) -> Any:
    done = run(script, *arguments, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """It has failed, and said why in one line."""
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("output") / "made" / "results"


@pytest.fixture(scope="module")
def counted(output: Path) -> Any:
    arguments = ["--clients", ",".join(map(str, CLIENTS)), "--rounds", "5"]
    return results("syscalls", *EXPECTED, *arguments, "--output", str(output), "--json", "-")


@pytest.mark.parametrize("server", EXPECTED)
def test_counts_and_formulas(counted: Any, server: str) -> None:
    if server in counted["missing"]:
        needed_in_ci(counted["missing"][server])
    found = counted["servers"][server]
    for n in CLIENTS:
        expected = EXPECTED[server](n)
        assert found["per_round"][str(n)] == expected
        made = {call: eval(text, {"N": n}) for call, text in found["formula"].items()}
        assert made == expected
        assert eval(found["all"], {"N": n}) == sum(expected.values())


def test_results_name_what_they_were_made_with(counted: Any) -> None:
    environment = counted["environment"]
    assert environment["command"].startswith("python profiling/syscalls.py v1 v2")
    assert environment["strace"]
    assert str(ROOT) not in json.dumps(counted)


def test_a_large_read_costs_memory_calls_until_somebody_has_left() -> None:
    """asyncio's read of 256 KiB is beyond malloc's first threshold; a block that is freed whole,
    as after an EOF, raises it for good, unless the environment holds it."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("another malloc than glibc's")
    arguments = ("syscalls", "asyncio-protocol", "--clients", "2,3,4", "--rounds", "3")
    raised = results(*arguments, "--json", "-")["servers"]["asyncio-protocol"]["formula"]
    assert raised == {"epoll_wait": "1", "recvfrom": "1", "sendto": "N - 1"}
    held = run(*arguments, environment={"MALLOC_MMAP_THRESHOLD_": "131072"})
    assert (held.returncode, held.stderr) == (0, "")
    assert [line.split() for line in held.stdout.splitlines()[:8]] == [
        ["asyncio-protocol", "N=2", "N=3", "N=4", "per", "round"],
        ["epoll_wait", "(wait)", "1", "1", "1", "1"],
        ["recvfrom", "1", "1", "1", "1"],
        ["sendto", "(send)", "1", "2", "3", "N", "-", "1"],
        ["mmap", "1", "1", "1", "1"],
        ["mremap", "1", "1", "1", "1"],
        ["munmap", "1", "1", "1", "1"],
        ["all", "6", "7", "8", "N", "+", "4"],
    ]


def test_comparison_is_written(counted: Any, output: Path) -> None:
    assert sorted(path.name for path in output.iterdir()) == ["syscalls.json", "syscalls.md"]
    text = (output / "syscalls.md").read_text()
    assert "| v3 | `select` | `recvfrom` | N - 1 `sendto` |  | N + 1 |" in text
    assert "| v1 |  | `recvfrom` | `write` (the log) |  | 2 |" in text
    assert str(output) not in text, "a path of this machine"
    assert json.loads((output / "syscalls.json").read_text()) == counted


@pytest.mark.parametrize("tool", ["strace", "perf"])
def test_flood(tool: str) -> None:
    if tool == "perf" and not (shutil.which("perf") and os.geteuid() == 0):
        pytest.skip("perf needs to be there, and the right to use tracepoints")
    names = ("v3", "epoll") if tool == "strace" else ("v3",)
    arguments = ("--load", *names, "--clients", "4", "--messages", "20", "--json", "-")
    done = run("syscalls", *arguments, "--tool", tool)
    if tool == "perf" and "may not use tracepoints" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    for found in json.loads(done.stdout)["servers"]:
        sends = found["calls"]["sendto"]
        assert found["deliveries"] == 4 * 20 * 3 + (3 if tool != "strace" else 0)
        assert found["messages_per_send"] == found["deliveries"] / sends
        if found["server"] == "v3":
            assert sends == found["deliveries"], "v3 sends each message by itself"
        else:
            assert sends <= found["deliveries"]


def test_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROFILING))
    from calls import counts

    formula: Callable[[dict[int, Fraction]], str | None] = counts.formula

    def made(function: Callable[[int], int]) -> str | None:
        return formula({n: Fraction(function(n)) for n in (2, 10, 50)})

    assert made(lambda n: 2) == "2"
    assert made(lambda n: 0) == "0"
    assert made(lambda n: n) == "N"
    assert made(lambda n: n - 1) == "N - 1"
    assert made(lambda n: n + 2) == "N + 2"
    assert made(lambda n: 2 * n - 2) == "2 (N - 1)"
    assert made(lambda n: 3 * n + 1) == "3 N + 1"
    assert made(lambda n: n * n) is None
    assert made(lambda n: n // 4) is None
    assert formula({2: Fraction(1), 10: Fraction(9)}) is None, "a line goes through any two"


def test_roundtrip_lines_are_those_of_the_source() -> None:
    steps = results("roundtrip", "v3", "--json")
    assert [step["call"] for step in steps] == ["select", "recvfrom", "sendto", "sendto"]
    text = (ROOT / "stages" / "v3" / "server.py").read_text("utf-8").splitlines()
    for step, word in zip(steps, ("select.select(", ".recv(", ".send(", ".send(")):
        path, line, _function = step["at"]
        assert path == "stages/v3/server.py"
        assert text[line - 1].strip() == step["source"]
        assert word in step["source"]
        assert step["ours"] == step["at"]
    assert "client 1" in steps[1]["why"]
    assert {step["why"] for step in steps[2:]} == {"delivers to client 2", "delivers to client 3"}


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("v4", ["_sock.recv(", "await reader.readline()", "transport.write(data)", "timeout, max"]),
        ("epoll", ["_epoll.poll(", "_sock.recv(", "map(transmit, remaining)"]),
        ("uvloop", ["uvloop", "await reader.readline()", "uvloop, for lowlevel/uvloop_server.py"]),
    ],
)
def test_roundtrip_as_a_table(server: str, words: list[str]) -> None:
    done = run("roundtrip", server, "--markdown")
    if server == "uvloop" and "not installed" in done.stderr:
        needed_in_ci(done.stderr)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")][2:]
    assert len(rows) == sum(EXPECTED[server](3).values())
    for word in words:
        assert word in done.stdout
    assert str(ROOT) not in done.stdout, "a path of this machine"


@pytest.mark.parametrize("script", ["syscalls", "roundtrip"])
def test_bad_arguments(script: str) -> None:
    for arguments in (["v9"], ["--cmd", "true"], ["v3", "--clients", "1"]):
        done = run(script, *arguments)
        assert done.returncode == 2
        assert "error: " in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("script", ["syscalls", "roundtrip"])
def test_without_strace(script: str, tmp_path: Path) -> None:
    done = run(script, "v3", environment={"PATH": str(tmp_path)})
    one_line(done, "strace is not installed: apt-get install strace")


@pytest.mark.parametrize(
    ("script", "messages"), [("syscalls", 0), ("syscalls", 11), ("roundtrip", 12)]
)
def test_server_that_dies(script: str, messages: int, tmp_path: Path) -> None:
    program = tmp_path / "dying.py"
    program.write_text(DYING)
    server = shlex.join([sys.executable, str(program), "{port}", str(messages)])
    done = run(script, "--cmd", server, "--clients", "2")
    one_line(done, "dying.py")


def test_count_that_is_not_the_same_in_all_rounds(tmp_path: Path) -> None:
    program = tmp_path / "uneven.py"
    program.write_text(DYING)
    server = shlex.join([sys.executable, str(program), "{port}", "1000"])
    done = run("syscalls", "--cmd", server, "--clients", "2", "--rounds", "10")
    assert done.returncode == 1
    assert done.stderr.startswith("syscalls: not exact: ")
    assert "getppid: 3 (N = 2) in 10 rounds" in done.stderr
    assert done.stderr.count("\n") == 1, "about that call only"


@pytest.mark.parametrize("script", ["syscalls", "roundtrip"])
def test_server_that_does_not_start(script: str) -> None:
    done = run(script, "--cmd", shlex.join([sys.executable, "-c", "exit(3)", "{port}"]))
    one_line(done, "ended at once")


@pytest.mark.parametrize("folder", ["/dev/null/results", "/proc/results"])
def test_output_folder_that_cannot_be(folder: str) -> None:
    one_line(run("syscalls", "v3", "--output", folder), "cannot write to", folder)


def below(pid: int) -> list[int]:
    """The processes that have come from this one."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [found for child in map(int, children) for found in (child, *below(child))]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("signum", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_stopped_in_the_middle(signum: signal.Signals, status: int, tmp_path: Path) -> None:
    """Neither a process nor a file is left; Ctrl-C reaches the whole group of the terminal."""
    output = tmp_path / "results"
    arguments = ["v3", "--rounds", "1000000", "--output", str(output)]
    process = subprocess.Popen(
        command("syscalls", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,  # if nohup'ed
    )
    deadline = time.monotonic() + DEADLINE
    sockets = 0
    while sockets < 4:  # strace, the server, its listener, wakeup and clients: it is in the room
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        children = below(process.pid)
        sockets = 0
        for pid in children[1:]:
            try:
                links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
            except (FileNotFoundError, ProcessLookupError):
                continue
            sockets = sum(link.startswith("socket:") for link in links)
    if signum == signal.SIGINT:
        os.killpg(process.pid, signum)
    else:
        process.send_signal(signum)
    stdout, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == status
    assert stdout == ""
    said = "syscalls: stopped, nothing is written\n"
    assert stderr == (said if signum == signal.SIGINT else "")
    while any(map(alive, children)):
        assert time.monotonic() < deadline, "a process is left"
    if signum != signal.SIGKILL:
        assert not output.exists()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
