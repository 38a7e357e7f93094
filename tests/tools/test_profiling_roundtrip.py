"""rounds.json, of which the pages show a round of each server, call by call."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.files import ROOT
from benchmarks.harness.server import SERVERS
from tests.support.needed import needed_in_ci

PROGRAM = ROOT / "profiling" / "roundtrip.py"
ROUNDS = ROOT / "profiling" / "results" / "rounds.json"
ANEW = "run: python profiling/roundtrip.py --output profiling/results && python -m stages.course"
MODELS = [name for name in SERVERS if "--" not in name and name != "v5"]
SHORT = ("v3", "uring")
"""One of those whose calls are seen, and the one whose operations are."""


def test_what_chance_puts_into_a_round_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    from calls.rounds import steady

    def call(kind: str, text: str, why: str) -> dict[str, Any]:
        return {"call": kind, "text": text, "lines": [["a.py:1", "x"]], "why": why}

    line = "\"('127.0.0.1', 40007) dice: 40007\""
    event = "{{events=EPOLLIN, data={{u32=8{}}}}}"
    calls = [
        call("epoll_wait", f"epoll_wait(5, [{event.format(', u64=77')}], 5, -1) = 1", ""),
        call("sendto", f"sendto(9, {line})", "delivers to client 10"),
        call("sendto", f"sendto(8, {line})", "delivers to client 9"),
        call("write", f"write(1, {line})", "the log, to stdout"),
    ]
    assert [row["text"] for row in steady(calls, {"40007": 2})] == [
        f"epoll_wait(5, [{event.format('')}], 5, -1) = 1",
        "sendto(8, \"('127.0.0.1', 50002) dice: 40007\")",
        "sendto(9, \"('127.0.0.1', 50002) dice: 40007\")",
        "write(1, \"('127.0.0.1', 50002) dice: 40007\")",
    ]


@pytest.mark.parametrize(
    "arguments",
    [["v1", "v2"], ["--output", "results", "--cmd", "x {port}"], ["--output", "x", "--json", "v3"]],
)
def test_rounds_of_bad_arguments(arguments: list[str]) -> None:
    command = [sys.executable, str(PROGRAM), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: " in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "server",
    [name if name in SHORT else pytest.param(name, marks=pytest.mark.long) for name in MODELS],
)
def test_rounds_are_those_of_today_s_source(server: str, tmp_path: Path) -> None:
    """Which calls, made by which lines of ours, and what for; the latter under the same Python."""
    if not shutil.which("strace"):
        needed_in_ci("strace is not installed (apt-get install strace)")
    command = [sys.executable, str(PROGRAM), server, "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "uvloop is not installed" in done.stderr:
        needed_in_ci(done.stderr)
    assert done.returncode == 0, done.stderr
    measured = (tmp_path / "rounds.json").read_text("utf-8")
    assert str(ROOT) not in measured, "a path of this machine"
    rounds = json.loads(ROUNDS.read_text("utf-8"))
    major, minor = sys.version_info[:2]
    same = rounds["environment"]["python"].startswith(f"CPython {major}.{minor}.")

    def kept(results: Any) -> list[list[Any]]:
        return [
            [
                call["call"],
                [line for line in call["lines"] if re.search(r"\.py:\d", line[0])],
                call["why"] if same else "",
            ]
            for call in results["servers"][server]
        ]

    assert kept(json.loads(measured)) == kept(rounds), ANEW
