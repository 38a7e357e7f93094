"""profiling/syscalls.py and roundtrip.py: the counts, and the lines that make the calls."""

from __future__ import annotations

import json
import os
import platform
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.files import ROOT
from calls import counts
from tests.contract.test_syscalls import EXPECTED
from tests.support.needed import needed_in_ci
from tests.tools.test_profiling_ends import DYING, program, run

CLIENTS = (2, 3, 5)


@pytest.fixture(autouse=True, scope="module")
def _strace() -> None:
    if not shutil.which("strace"):
        needed_in_ci("strace is not installed (apt-get install strace)")


def results(output: Path, *arguments: str) -> Any:
    """What is written into a folder that is not there yet."""
    done = run("syscalls", *arguments, "--output", str(output / "made"))
    if "may not use tracepoints" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    return json.loads(next((output / "made").glob("*.json")).read_text())


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("output")


@pytest.fixture(scope="module")
def counted(output: Path) -> Any:
    return results(output, *EXPECTED, "--clients", ",".join(map(str, CLIENTS)), "--rounds", "5")


def test_counts_and_formulas(counted: Any) -> None:
    for server, expected in EXPECTED.items():
        if server in counted["missing"]:
            needed_in_ci(counted["missing"][server])
        counts = counted["servers"][server]
        for n in CLIENTS:
            assert counts["per_round"][str(n)] == expected(n), server
            by_formula = {call: eval(text, {"N": n}) for call, text in counts["formula"].items()}
            assert by_formula == expected(n), server
            assert eval(counts["all"], {"N": n}) == sum(expected(n).values())


def test_comparison_is_written(counted: Any, output: Path) -> None:
    files = sorted(path.name for path in (output / "made").iterdir())
    assert files == ["syscalls.json", "syscalls.md"]
    text = " ".join((output / "made" / "syscalls.md").read_text().split())
    assert "| v3 | `select` | `recvfrom` | N - 1 `sendto` | | N + 1 |" in text
    assert "| v1 | | `recvfrom` | `write` (the log) | | 2 |" in text
    assert counted["environment"]["command"].startswith("python profiling/syscalls.py v1 v2")
    assert f"strace {counted['environment']['strace']}" in text
    for place in (ROOT, output):
        assert str(place) not in text + json.dumps(counted), "a path of this machine"


def test_a_large_read_costs_memory_calls_until_somebody_has_left(tmp_path: Path) -> None:
    """asyncio's read of 256 KiB is beyond malloc's first threshold; a block that is freed whole,
    as after an EOF, raises it for good, unless the environment holds it."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("another malloc than glibc's")
    arguments = ("asyncio-protocol", "--clients", "2,3,4", "--rounds", "3")
    raised = results(tmp_path, *arguments)["servers"]["asyncio-protocol"]["formula"]
    assert raised == {"epoll_wait": "1", "recvfrom": "1", "sendto": "N - 1"}
    held = run("syscalls", *arguments, MALLOC_MMAP_THRESHOLD_="131072")
    assert (held.returncode, held.stderr) == (0, "")
    assert [" ".join(line.split()) for line in held.stdout.splitlines()[:8]] == [
        "asyncio-protocol N=2 N=3 N=4 per round",
        "epoll_wait (wait) 1 1 1 1",
        "recvfrom 1 1 1 1",
        "sendto (send) 1 2 3 N - 1",
        "mmap 1 1 1 1",
        "mremap 1 1 1 1",
        "munmap 1 1 1 1",
        "all 6 7 8 N + 4",
    ]


def test_count_that_is_not_the_same_in_all_rounds(tmp_path: Path) -> None:
    server = program(tmp_path, DYING, "1000000")
    done = run("syscalls", "--cmd", server, "--clients", "2", "--rounds", "10")
    assert done.returncode == 1
    assert done.stderr.startswith("syscalls: not exact: ")
    assert "getppid: 3 (N = 2) in 10 rounds" in done.stderr
    assert done.stderr.count("\n") == 1, "about that call only"


@pytest.mark.parametrize("tool", ["strace", "perf"])
def test_flood(tool: str, tmp_path: Path) -> None:
    if tool == "perf" and not (shutil.which("perf") and os.geteuid() == 0):
        pytest.skip("perf needs to be there, and the right to use tracepoints")
    arguments = ("--load", "v3", "epoll", "--clients", "4", "--messages", "20", "--tool", tool)
    for flood in results(tmp_path, *arguments)["servers"]:
        sends = flood["calls"]["sendto"]
        assert flood["deliveries"] == 4 * 20 * 3 + 6
        assert flood["messages_per_send"] == flood["deliveries"] / sends
        if flood["server"] == "v3":
            assert sends == flood["deliveries"], "v3 sends each message by itself"
        else:
            assert sends <= flood["deliveries"]


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda n: 2, "2"),
        (lambda n: 0, "0"),
        (lambda n: n, "N"),
        (lambda n: n - 1, "N - 1"),
        (lambda n: n + 2, "N + 2"),
        (lambda n: 2 * n - 2, "2 (N - 1)"),
        (lambda n: 3 * n + 1, "3 N + 1"),
        (lambda n: n * n, None),
        (lambda n: n // 4, None),
    ],
)
def test_formula(function: Any, text: str | None) -> None:
    assert counts.formula({n: Fraction(function(n)) for n in (2, 10, 50)}) == text
    assert counts.formula({n: Fraction(function(n)) for n in (2, 10)}) is None, "any two are a line"


def test_roundtrip_lines_are_those_of_the_source() -> None:
    done = run("roundtrip", "v3")
    assert (done.returncode, done.stderr) == (0, "")
    head, *steps = done.stdout.strip().split("\n\n")
    assert head == "v3, 3 clients: one round, system calls: 4"
    words = ("= select.select(", ".recv(", ".send(", ".send(")
    source = (ROOT / "stages" / "v3" / "server.py").read_text("utf-8").splitlines()
    for step, word, call in zip(steps, words, ("select", "recvfrom", "sendto", "sendto")):
        shown, made_by = step.splitlines()[:2]
        place, text = made_by.split(None, 1)
        path, _, line = place.partition(":")
        assert call in shown.partition("(")[0]  # pselect6() is a select, too
        assert path == "stages/v3/server.py" and source[int(line) - 1].strip() == text
        assert word in text
    assert "client 1" in steps[1]
    assert [step.splitlines()[-1].strip() for step in steps[2:]] == [
        "delivers to client 2",
        "delivers to client 3",
    ]


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("v4", ["_sock.recv(", "await", ".write(", "timeout, max"]),
        ("epoll", ["_epoll.poll(", "_sock.recv(", "map(transmit, remaining)"]),
        ("uvloop", ["uvloop", "await", "uvloop, for "]),
    ],
)
def test_roundtrip_of_what_a_library_calls(server: str, words: list[str]) -> None:
    done = run("roundtrip", server)
    if server == "uvloop" and "not installed" in done.stderr:
        needed_in_ci(done.stderr)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"system calls: {sum(EXPECTED[server](3).values())}" in done.stdout.splitlines()[0]
    for word in words:
        assert word in done.stdout
    assert str(ROOT) not in done.stdout, "a path of this machine"
