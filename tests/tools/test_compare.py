"""-m benchmarks.compare: its figures are right, its files belong together, and it ends cleanly.

Nothing here asserts on a time that was measured.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare import __main__ as compare
from benchmarks.compare import figures, samples, tables
from benchmarks.harness import roster
from benchmarks.harness.files import ROOT
from benchmarks.harness.process import DEADLINE
from benchmarks.harness.server import SILENT
from tests.support.needed import needed_in_ci

FILES = ["comparison.json", "comparison.md", "cpu-per-delivery.svg", "readiness.svg"]


@pytest.fixture(autouse=True)
def _matplotlib() -> None:
    if not importlib.util.find_spec("matplotlib"):
        needed_in_ci("no matplotlib (pip install -e '.[peers]')")


def taken(workload: str, server: str, n: int, **columns: Sequence[float]) -> list[dict[str, Any]]:
    """Samples of some rounds: each column has a value for each."""
    about = {"workload": workload, "server": server, "n": n}
    rows = enumerate(zip(*columns.values()), 1)
    return [{**about, "round": number, **dict(zip(columns, row))} for number, row in rows]


def loaded(
    load: str, server: str, *cpu: float, deliveries: int = 100_000, per_send: int = 1
) -> Any:
    workload, n = load.split()
    rounds = len(cpu)
    return taken(
        *(workload, server, int(n)),
        cpu_seconds=cpu,
        deliveries=[deliveries] * rounds,
        segments=[deliveries // per_send] * rounds,
        wall_seconds=[1.0] * rounds,
        p50_seconds=[0.0001] * rounds,
        p99_seconds=[0.0025] * rounds,
    )


ABOUT = json.loads("""{
    "environment": {"command": "python -m benchmarks.compare", "date": "2024-02-29 12:34 UTC",
        "commit": "0123abc, changed", "cpu": "Abacus", "cpus": "2", "kernel": "Linux 6.0",
        "python": "CPython 3.11.0", "calibration_us": {"getppid": 0.123}},
    "parameters": {"servers": ["v3", "v4", "epoll", "c"], "silent": ["v1"],
        "missing": {"trio": "trio is not installed"}, "versions": {"cc": "cc 12"}, "rounds": 5,
        "workloads": ["lock-step 10", "flood 10"], "message_bytes": 32, "in_flight": 4,
        "senders": {"10": 2}, "saturating": true, "cpu_seconds": 0.2, "waits": ["select"],
        "placement": "the server runs on CPU 1, the load on CPU 0", "descriptors": [10, 10000],
        "beside": [10, 20]},
    "problems": [
        {"server": "v3", "workload": "flood 10", "kind": "limit", "reason": "lleno"},
        {"server": "epoll", "workload": "lock-step 10", "kind": "failed", "reason": "lost it"},
        {"server": "v4", "workload": "memory", "kind": "failed", "reason": "fell over"},
        {"server": "select", "workload": "wait 10000", "kind": "limit", "reason": "too far"}]
}""")


def results() -> dict[str, Any]:
    """Five rounds of one flood by three servers, made up so that one can follow by hand."""
    samples = [
        *loaded("flood 10", "v4", 0.4, 0.8, 0.3, 0.4, 0.4),
        *loaded("flood 10", "epoll", 0.2, 0.2, 0.9, 0.3, 0.1, per_send=4),
        *loaded("flood 10", "c", 0.95, 0.9, 1.0, 0.95, 0.95, per_send=2),
        *loaded("lock-step 10", "v3", 0.045, deliveries=9_000),
        *loaded("lock-step 10", "epoll", 0.045, deliveries=9_000),
        *taken("memory", "c", 2000, before_kib=[1500] * 3, after_kib=[2000, 1990, 2010]),
        *taken("wait", "select", 10, calls=[1000] * 3, cpu_seconds=[0.002, 0.001, 0.004]),
    ]
    turns = {"v3": ((10, 20, 30), (30, 30, 80)), "epoll": ((10, 20, 30), (15, 15, 20))}
    for server, costs in turns.items():
        for n, cpu in zip((10, 20), costs):
            samples += taken("turn", server, n, turns=[1_000_000] * 3, cpu_seconds=cpu)
    return {**ABOUT, "samples": samples}


def test_compare_figures_by_hand() -> None:
    found = figures.derived(results())

    def values(figure: str, server: str, workload: str = "flood 10") -> Any:
        return [found[figure][workload][server][key] for key in ("low", "median", "high")]

    assert values("cpu_us", "c") == pytest.approx([9.5, 9.5, 9.5])
    assert values("cpu_us", "epoll") == pytest.approx([2, 2, 3])
    assert values("busy", "v4") == pytest.approx([0.4, 0.4, 0.4])
    assert values("messages_per_send", "epoll")[1] == 4
    assert values("cpu_per_send_us", "epoll")[1] == pytest.approx(8)
    assert values("p99_us", "v3", "lock-step 10")[1] == pytest.approx(2500)
    assert values("memory_kib", "c", "memory") == pytest.approx([0.2475, 0.25, 0.2525])
    assert values("wait_us", "select", "wait 10") == pytest.approx([1.5, 2, 3])
    assert "epoll" not in found["cpu_us"]["lock-step 10"], "the sample before it failed counts"


def test_compare_ratios_are_taken_within_a_round() -> None:
    """2/4, 2/8, 9/3, 3/4 and 1/4."""
    spread = {"median": 0.5, "low": 0.25, "high": 0.75, "min": 0.25, "max": 3}
    pair = ("flood 10", "epoll"), ("flood 10", "v4")
    assert figures.ratio(results(), "cpu_us", *pair) == pytest.approx(spread)
    across = figures.ratio(results(), "turn_us", ("turn 20", "v3"), ("turn 10", "v3"))
    assert across["median"] == pytest.approx(80 / 30)
    with pytest.raises(ValueError, match="no values"):
        figures.ratio(results(), "cpu_us", ("flood 10", "v3"), ("flood 10", "c"))


def test_compare_bound_of_an_idle_client() -> None:
    """Slopes of (2, 1, 5) us a client, and of (0.5, -0.5, -1)."""
    shown = {**results(), "derived": figures.derived(results())}
    assert figures.idle_in_turn(shown, "v3") == "2.00 µs"
    assert figures.idle_in_turn(shown, "epoll") == "at most 1.0 µs"
    assert figures.idle_in_turn(shown, "c") == "-"


def test_compare_targets_are_met_or_not() -> None:
    """0.8 of 0.75 is within the tenth that the reference has, 0.83 is not; another has none."""
    about = results()
    rivals = {"c": 1.0, "epoll": 0.8, "uring": 0.83, "go": 0.79, "c-uring": 0.7}
    about["parameters"] = {**about["parameters"], "servers": [*rivals]}
    about["samples"] = [
        sample for name, cpu in rivals.items() for sample in loaded("idle 5000", name, cpu)
    ]
    about["samples"] += taken("memory", "epoll", 1000, before_kib=[0], after_kib=[1001])
    about["samples"] += taken("start", "v5", 0, wall_seconds=[0.5, 0.3, 0.7])
    text = tables.markdown({**about, "problems": []})
    found = {row: cells[-1] for row, cells in rows(text, "Targets").items()}
    assert found["epoll` over `c"] == "0.800; target 0.75: met"
    assert found["uring` over `c"] == "0.830; target 0.6: not met"
    assert found["uring` over `c-uring"] == "1.19; target 1.2: met"
    assert found["epoll` over `go"] == "1.01; target 1: not met"
    assert "epoll` over `node --cork" not in found, "nobody has measured it"
    assert "\nMemory of an idle client, KiB: `epoll` 1.0; target 1: not met.\n" in text
    assert "until it is ready, s: 0.500 (0.400-0.600); target 0.6: met.\n" in text


def test_compare_measures_what_has_a_target() -> None:
    for pair, limits in tables.TARGETS.items():
        for load, limit in zip(tables.TARGET_LOADS, limits):
            workload, n = load.split()
            if limit is not None:
                assert all(compare.takes_part(server, workload, int(n)) for server in pair)


def rows(text: str, title: str) -> dict[str, list[str]]:
    """The cells of a table, by the first of each row."""
    table = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    found = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()]
    return {row[0].strip("`"): row[1:] for row in found if row}


def test_compare_tables_say_what_is_not_there() -> None:
    text = tables.markdown(results())
    lock_step, flood = rows(text, "Lock-step 10"), rows(text, "Flood 10")
    epoll = ["2.00 (2.00-3.00) †", "0.222 (0.211-0.316)", "20 (20-30)", "4.00", "100", "2500"]
    assert flood["epoll"] == epoll
    assert flood["c"][0] == "9.50", "a server that was busy has no mark"
    assert flood["v3"] == ["limit [2]"] * len(flood["v3"])
    assert lock_step["epoll"][0] == "failed [1]" and lock_step["v3"][0] == "5.00"
    assert "c" not in lock_step, "what was not measured has no row"
    assert "busy for less than 90% of the time" in text
    memory = rows(text, "Memory per connection, KiB")
    assert memory["c"] == ["0.25 (0.25-0.25)"] and memory["v4"] == ["failed [3]"]
    assert rows(text, "CPU time of one wait, µs")["select"] == ["2.00 (1.50-3.00)", "too far"]
    assert rows(text, "CPU time of a turn, µs")["epoll"][-1] == "at most 1.0 µs"
    assert rows(text, "The names")["c"] == [roster.PEERS["c"].about, "none"]
    assert "[1] `epoll`, lock-step 10: lost it." in text.splitlines()
    assert "Left out: `trio` (trio is not installed)." in text.splitlines()
    assert "2024-02-29 12:34 UTC, commit 0123abc, changed, 2 x Abacus" in text
    assert "the server runs on CPU 1, the load on CPU 0" in text and "not saturated" not in text
    about = {**ABOUT["parameters"], "saturating": False}
    text = tables.markdown({**results(), "parameters": about})
    assert "The flood is in Python: not saturated." in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.9996, "1.00"), (0.0571, "0.0571"), (99.96, "100"), (12345.6, "12300")],
)
def test_compare_numbers(value: float, text: str) -> None:
    assert figures.number(value) == text


def test_compare_results_belong_together() -> None:
    """comparison.md is what comparison.json gives, and the charts are of the same run."""
    folder = compare.RESULTS
    if not (folder / "comparison.json").exists():
        pytest.skip("no results in the tree")
    found = figures.load(folder / "comparison.json")
    again = "run: python -m benchmarks.compare --from benchmarks/results/comparison.json"
    assert [*json.loads((folder / "comparison.json").read_text("utf-8"))] == [*figures.KEYS], again
    text = (folder / "comparison.md").read_text("utf-8")
    assert text == tables.markdown(found), again
    pictures = re.findall(r"\]\(([^)]+\.svg)\)", text)
    assert pictures
    for picture in pictures:
        assert found["environment"]["date"] in (folder / picture).read_text("utf-8"), again


@pytest.mark.alone
def test_compare_small_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All files, of all servers and workloads, and the same files again from the JSON. A server
    that dies is named with the reason, the others are measured, and the exit status is 1."""
    mortal, first, again = (tmp_path / name for name in ("mortal.py", "first", "again"))
    mortal.write_text(
        "import socket, sys\n"
        "clients = []\n"
        "listener = socket.create_server(('127.0.0.1', int(sys.argv[2])))\n"
        "while len(clients) < 5: clients.append(listener.accept()[0])\n"
        "sys.exit('out of luck')\n"
    )
    monkeypatch.setitem(roster.PEERS, "mortal", roster.Peer(str(mortal), "a mayfly"))
    monkeypatch.setattr(compare, "NAMES", (*compare.NAMES, "mortal"))
    monkeypatch.setattr(compare, "LOADS", (("lock-step", 5), ("flood", 5), ("idle", 7)))
    little = {"CPU_SECONDS": 0.01, "TURNS": 30, "DESCRIPTORS": (10,), "BESIDE": (3, 5)}
    for name, value in {**little, "IDLE_CLIENTS": 20}.items():
        monkeypatch.setattr(samples, name, value)
    if roster.PEERS["c"].missing():
        needed_in_ci("no C compiler")
    names = ["v4", "epoll", "c"]
    options = ["--servers", "v4,epoll,c,mortal", "--rounds", "1", "--output", str(first)]
    assert compare.main(options) == 1
    assert "failed: mortal, flood 5: " in capsys.readouterr().err
    assert sorted(path.name for path in first.iterdir()) == FILES
    found = figures.load(first / "comparison.json")
    taken = [(s["server"], figures.label(s), s["n"]) for s in found["samples"]]
    assert sorted(taken) == sorted(
        [
            *((name, f"{load} 5", 5) for name in names for load in ("lock-step", "flood")),
            *((name, "idle 7", 7) for name in ("epoll", "c")),
            *((name, "memory", 20) for name in names),
            *((name, f"turn {n}", n) for name in ("v4", "epoll") for n in (3, 5)),
            *((kind, "wait 10", 10) for kind in samples.WAITS),
        ]
    )
    for one in found["samples"]:
        if one["workload"] in figures.LOADS:
            assert one["deliveries"] > 0 and one["segments"] > 0
            assert 0 < one["p50_seconds"] <= one["p99_seconds"] <= one["wall_seconds"]
    problems = {problem["workload"]: problem for problem in found["problems"]}
    assert [*problems] == ["lock-step 5", "flood 5", "memory"]
    for problem in problems.values():
        assert problem["server"] == "mortal" and problem["kind"] == "failed"
        assert "out of luck" in problem["reason"]
    assert "failed [1]" in (first / "comparison.md").read_text("utf-8")
    assert str(tmp_path) not in (first / "comparison.json").read_text("utf-8")

    assert compare.main(["--from", str(first / "comparison.json"), "--output", str(again)]) == 1
    for name in FILES:
        text = (first / name).read_bytes()
        assert text == (again / name).read_bytes(), f"{name} differs, but the results are the same"
        assert found["environment"]["date"].encode() in text


@pytest.mark.servers(*SILENT)
def test_memory_of_those_who_tell_nobody(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are asked by their log who is in."""
    monkeypatch.setattr(samples, "IDLE_CLIENTS", 60)
    kib = samples.memory(name, (None, None))
    assert kib["after_kib"] >= kib["before_kib"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--servers v1,v2", "there is nothing to measure"),
        ("--servers epoll --output {tmp}/file/results", "cannot write to {tmp}/file/results: "),
        *(
            (f"--from {{tmp}}/{name} --output {{tmp}}/output", f"{{tmp}}/{name}: ")
            for name in ("none", "file", "list", "empty", "half")
        ),
    ],
)
def test_compare_that_cannot_be_done(
    options: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Said in one line, before anything is measured, and nothing is written."""
    monkeypatch.setattr(compare, "measure_all", lambda *_: pytest.fail("it measures first"))
    contents = {"file": "", "list": "[]", "empty": "{}", "half": '{"environment": {}}'}
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    assert compare.main(options.format(tmp=tmp_path).split()) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"compare: {words.format(tmp=tmp_path)}")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(contents)


def test_compare_unknown_server(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        compare.main(["--servers", "epoll,nginx"])
    assert error.value.code == 2
    assert "'nginx' is none of v1, v2, v3, v4, " in capsys.readouterr().err


@pytest.mark.parametrize("whom", ["it alone", "as the terminal does"])
def test_compare_interrupted(tmp_path: Path, whom: str) -> None:
    """Ctrl-C while a server is measured: exit status 130, one line, no file, no process."""
    options = ["--servers", "epoll,v4", "--output", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.compare", *options],
        cwd=ROOT,
        env={**os.environ, "SOCK_CHAT_TEST": str(tmp_path)},
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    mark = f"SOCK_CHAT_TEST={tmp_path}"
    try:
        assert process.stderr
        line = process.stderr.readline()
        assert line == "round 1 of 9, lock-step 10\n", line + process.stderr.read()
        deadline = time.monotonic() + DEADLINE
        while not any(b"--port" in command for command in commands_with(mark)):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.001)  # nothing can be waited for: the server is not our child
        (os.kill if whom == "it alone" else os.killpg)(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == 130
    assert err.splitlines()[-1] == "compare: stopped, nothing is written" and "Trace" not in err
    assert list(tmp_path.iterdir()) == [] and commands_with(mark) == []


def commands_with(mark: str) -> list[bytes]:
    """The command lines of the processes that were started with this variable."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # not ours, or it has just ended
            if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes())
    return found


def test_compare_without_matplotlib(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that says how to get it, before anything is measured."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert compare.main(["--servers", "epoll"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "matplotlib is not installed: pip install" in lines[0]


def test_compare_starts_without_matplotlib() -> None:
    """Importing it loads no package that draws: the tables need none."""
    code = "import sys, benchmarks.compare; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
