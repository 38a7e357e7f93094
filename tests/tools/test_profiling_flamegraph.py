"""profiling/flamegraph.py: what it writes about servers under load, and what it leaves when it
cannot."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.files import ROOT
from benchmarks.harness.process import DEADLINE
from tests.conftest import has_uvloop
from tests.support.needed import needed_in_ci

SCRIPT = ROOT / "profiling" / "flamegraph.py"
SHORT = ("--duration", "0.5", "--clients", "10", "--rate", "500")
SVG = "{http://www.w3.org/2000/svg}"
EPERM = """\
Error: Failed to suspend process

Caused by:
    0: EPERM: Operation not permitted
    1: EPERM: Operation not permitted

Stack backtrace:
   0: py_spy::python_spy::PythonSpy::get_stack_traces
"""
DIES = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
clients = []
listener.settimeout(0.005)
while True:
    try:
        clients.append(listener.accept()[0])
        clients[-1].settimeout(0.005)
    except TimeoutError:
        pass
    for client in clients[:]:
        try:
            data = client.recv(4096)
        except TimeoutError:
            continue
        if not data:
            clients.remove(client)
        if b"." in data:
            sys.exit("out of order")
        for other in clients:
            if other is not client and data:
                name = f"{client.getpeername()} dice: "
                other.sendall(b"".join(name.encode() + l + b"\\n" for l in data.splitlines()))
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of profiling/, by name."""
    monkeypatch.syspath_prepend(str(ROOT / "profiling"))
    return importlib.import_module


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [environment.pop("python", sys.executable), str(SCRIPT), *arguments],
        capture_output=True,
        encoding="utf-8",
        timeout=4 * DEADLINE,
        env={**os.environ, **environment},
        check=False,
    )


def need_py_spy() -> None:
    if not shutil.which("py-spy") and not (Path(sys.executable).parent / "py-spy").exists():
        needed_in_ci("py-spy is not installed (pip install py-spy)")


def samples_of(svg: str) -> list[str]:
    """The tooltip of each frame."""
    return [
        title.text or ""
        for group in ElementTree.fromstring(svg).iter(f"{SVG}g")
        for title in group.iter(f"{SVG}title")
    ]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run over three servers has written."""
    need_py_spy()
    names = ["v3", "epoll"] + (["uvloop"] if has_uvloop(sys.executable) else [])
    folder = tmp_path_factory.mktemp("flamegraph") / "made" / "for it"
    done = run(*names, *SHORT, "--output", str(folder), "--diff", "v3", "epoll")
    if "may not trace" in done.stderr:
        needed_in_ci(done.stderr)
    assert done.returncode == 0, done.stderr
    assert "| function | self v3 | self epoll |" in done.stdout
    return folder


@pytest.mark.parametrize(
    ("kind", "frames"),
    [
        ("v3", [r"Server\.turn|turn", r"(Server\.)?broadcast", r"(Server\.)?try_send"]),
        ("epoll", [r"(Reactor\.)?poll", "send_each", r"(Reactor\.)?run"]),
        ("uvloop", [r"run", r"(Server\.)?receive", r"(Server\.)?broadcast"]),
    ],
)
def test_flamegraph_shows_what_the_server_did(
    results: Path, kind: str, frames: list[str], module: Any
) -> None:
    if kind == "uvloop" and not has_uvloop(sys.executable):
        needed_in_ci("uvloop is not installed (pip install uvloop)")
    text = (results / f"{kind}.folded").read_text("utf-8")
    assert str(ROOT) not in text and str(Path.home()) not in text, "a path of this machine"
    stacks = module("flames.stacks").parse(text)
    functions = {re.sub(r" \(.*", "", frame) for stack in stacks for frame in stack.split(";")}
    for wanted in frames:
        assert any(re.fullmatch(wanted, function) for function in functions), wanted
    total = sum(stacks.values())
    profile = json.loads((results / f"{kind}.speedscope.json").read_text("utf-8"))
    [sampled] = profile["profiles"]
    assert sum(sampled["weights"]) == sampled["endValue"] == total
    assert len(sampled["samples"]) == len(sampled["weights"]) == len(stacks)
    assert max(max(stack) for stack in sampled["samples"]) == len(profile["shared"]["frames"]) - 1
    tooltips = samples_of((results / f"{kind}.svg").read_text("utf-8"))
    assert tooltips[0].splitlines()[:2] == ["all", f"{total:,} of {total:,} samples, 100.0%"]
    page = (results / "index.html").read_text("utf-8")
    assert f"<td>{total:,}</td>" in page and f"{total:,} samples in" in page


def test_flamegraph_page_needs_nothing_else(results: Path) -> None:
    page = (results / "index.html").read_text("utf-8")
    assert set(re.findall(r"https?://[^\"'<> ]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(script|link|img|iframe|object)\b|@import|url\(", page)
    linked = set(re.findall(r'href="([^"]+)"', page))
    assert linked == {
        file.name for file in results.iterdir() if not file.name.startswith(("diff", "index"))
    }
    assert "--output" not in page and str(results) not in page
    assert all(not file.name.startswith(".") for file in results.iterdir())


def test_flamegraph_diff_of_an_earlier_run(results: Path) -> None:
    picture = (results / "diff-v3-epoll.svg").read_text("utf-8")
    table = (results / "diff-v3-epoll.md").read_text("utf-8")
    again = run("--diff", "v3", "epoll", "--output", str(results))
    assert again.returncode == 0, again.stderr
    assert (results / "diff-v3-epoll.svg").read_text("utf-8") == picture
    assert "Recorded by an earlier run" in again.stdout and "Recorded" not in table
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert rows == [line for line in again.stdout.splitlines() if line.startswith("| `")]
    assert any("`send_each" in row for row in rows)
    missing = run("v3", "--diff", "v3", "selectors", "--output", str(results))
    assert missing.returncode == 1 and "v3: 5 s" not in missing.stderr, "it began to record"
    assert "selectors.folded cannot be read: No such file or directory" in missing.stderr
    assert "python profiling/flamegraph.py v3 selectors" in missing.stderr


def failed(done: subprocess.CompletedProcess[str], words: str, folder: Path) -> None:
    assert done.returncode == 1, done.stderr
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not folder.exists(), list(folder.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [["v5"], ["--cmd", "x"], ["--format", "png"], ["--rate", "0"], ["--clients", "1"]],
)
def test_flamegraph_bad_arguments(arguments: list[str], tmp_path: Path) -> None:
    done = run(*arguments, "--output", str(tmp_path / "out"))
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert arguments[-1] in done.stderr.splitlines()[-1]


def test_flamegraph_server_that_does_not_start(tmp_path: Path) -> None:
    need_py_spy()
    command = f"{sys.executable} -c 'import sys; sys.exit(\"no {{port}} for me\")'"
    done = run("--cmd", command, "--output", str(tmp_path / "out"))
    failed(done, "cannot be profiled", tmp_path / "out")
    assert "for me" in done.stderr


def test_flamegraph_server_that_dies_under_load(tmp_path: Path, results: Path) -> None:
    server = tmp_path / "server.py"
    server.write_text(DIES)
    command = f"{sys.executable} -S {server} {{port}}"
    done = run("--cmd", command, "--clients", "3", "--output", str(tmp_path / "out"))
    failed(done, "the server died under load: out of order", tmp_path / "out")


def test_flamegraph_server_that_is_killed_while_py_spy_looks(tmp_path: Path, results: Path) -> None:
    process = start(tmp_path)
    try:
        _, server = recording(process.pid, tmp_path)
        os.kill(server, signal.SIGKILL)
        _, errors = process.communicate(timeout=2 * DEADLINE)
    finally:
        process.kill()
    assert process.returncode == 1, errors
    assert "v3: the server died under load" in errors.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_flamegraph_without_the_right_to_trace(tmp_path: Path) -> None:
    spy = tmp_path / "bin" / "py-spy"
    spy.parent.mkdir()
    spy.write_text(f"#!/bin/sh\n[ $1 = record ] || exit 0\ncat >&2 <<'END'\n{EPERM}END\nexit 1\n")
    spy.chmod(0o755)
    path = f"{spy.parent}:{os.environ['PATH']}"
    done = run("v3", *SHORT, "--output", str(tmp_path / "out"), PATH=path)
    failed(done, "py-spy may not trace the server", tmp_path / "out")
    assert "kernel.yama.ptrace_scope" in done.stderr


def test_flamegraph_without_py_spy(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.symlink_to(os.path.realpath(sys.executable))
    done = run("v3", "--output", str(tmp_path / "out"), PATH=str(tmp_path), python=str(python))
    failed(done, "py-spy is not installed: pip install -e '.[profiling]'", tmp_path / "out")


def test_flamegraph_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("v3", "--output", str(tmp_path / "file" / "out"))
    assert done.returncode == 1
    assert done.stderr == "flamegraph.py: cannot write to --output: Not a directory\n"


def test_flamegraph_too_few_samples(tmp_path: Path, results: Path) -> None:
    options = ["--duration", "0.1", "--clients", "5", "--rate", "20"]
    done = run("v3", *options, "--output", str(tmp_path / "out"))
    failed(done, "samples are too few for a picture, 50 are needed", tmp_path / "out")


def start(tmp_path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), "v3", "--duration", "60", "--clients", "5"]
    return subprocess.Popen(
        [*command, "--output", str(tmp_path / "out")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def recording(pid: int, tmp_path: Path) -> tuple[int, int]:
    """The pids of py-spy and of the server, once py-spy looks."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        for child in children(pid):
            for log in tmp_path.glob("out/.recording-*/*/py-spy.log"):
                if "Sampling process" in log.read_text() and children(child):
                    return child, children(child)[0]
        time.sleep(0.01)
    raise AssertionError(f"py-spy did not begin within {DEADLINE} s")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_flamegraph_interrupted(tmp_path: Path, results: Path, signum: int) -> None:
    process = start(tmp_path)
    spy, server = recording(process.pid, tmp_path)
    os.kill(process.pid, signum)
    process.communicate(timeout=DEADLINE)
    deadline = time.monotonic() + DEADLINE
    while any(is_alive(pid) for pid in (spy, server)):  # SIGKILL: the kernel ends them after it
        assert time.monotonic() < deadline, "py-spy or the server has outlived the recording"
        time.sleep(0.01)
    if signum != signal.SIGKILL:
        assert process.returncode == 128 + signum
        assert not (tmp_path / "out").exists()


def is_alive(pid: int) -> bool:
    """A zombie is not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


STACKS = Counter(
    {
        "<module> (a.py:1);run (a.py:2);next_line (stages/v3/server.py:9999)": 6,
        "<module> (a.py:1);run (a.py:3);handle (stages/v3/server.py:9999)": 3,
        "<module> (a.py:1);run (a.py:3)": 1,
    }
)


def test_folded_stacks_there_and_back(module: Any) -> None:
    stacks = module("flames.stacks")
    assert stacks.parse(stacks.folded(STACKS)) == STACKS
    assert stacks.parse("a b 1;c 2\na b 1;c 3\n") == {"a b 1;c": 5}
    for wrong in ("no count", "a;b -1", "7"):
        with pytest.raises(ValueError, match="line 1 is no stack"):
            stacks.parse(wrong)


@pytest.mark.parametrize(
    ("frame", "short"),
    [
        (f"f ({ROOT}/lowlevel/room.py:7)", "f (lowlevel/room.py:7)"),
        (f"f ({os.__file__}:7)", "f (os.py:7)"),
        (f"f ({pytest.__file__}:7)", "f (pytest/__init__.py:7)"),
        ("f (/somewhere/else/x.py:7)", "f (x.py:7)"),
        ("send (/usr/lib/libc.so.6)", "send (libc.so.6)"),
        ("0x7f2480 (/usr/lib/libc.so.6)", "[no symbol] (libc.so.6)"),
        ("f<int (*)()> (/src/a.c:7)", "f<int (*)()> (a.c:7)"),
        ("<module> (<frozen runpy>:8)", "<module> (<frozen runpy>:8)"),
        ("alone", "alone"),
    ],
)
def test_frames_without_paths_of_this_machine(module: Any, frame: str, short: str) -> None:
    assert module("flames.stacks").shortened({frame: 1}) == {short: 1}


def line_of(file: str, text: str) -> int:
    lines = (ROOT / file).read_text("utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


@pytest.mark.parametrize(
    ("function", "file", "text", "kind"),
    [
        ("Server.try_send", "stages/v3/server.py", "client.sock.send(data)", "send"),
        ("Server.turn", "stages/v3/server.py", "= select.select(", "wait"),
        ("Server.turn", "stages/v3/server.py", "for sock in writable", "loop"),
        ("Server.receive", "stages/v3/server.py", "client.sock.recv(", "recv"),
        ("say", "stages/v3/server.py", "os.write(stream", "log"),
        ("text_of", "stages/v3/server.py", "def text_of", "parse"),
        ("Server.send", "stages/v4/server.py", "transport.write(data)", "send"),
        ("send_each", "lowlevel/room.py", "map(transmit", "send"),
        ("Room.say", "lowlevel/room.py", "self._size +=", "room"),
        ("EpollBackend.wait", "lowlevel/epoll_backend.py", "self._epoll.poll(", "wait"),
        ("SelectorsBackend.wait", "lowlevel/selectors_backend.py", ".select(timeout)", "wait"),
        ("ReadinessConnection._receive", "lowlevel/readiness.py", "self._sock.recv(", "recv"),
        ("LineProtocol.receive", "lowlevel/protocol.py", "def receive", "parse"),
    ],
)
def test_kind_of_a_line(module: Any, function: str, file: str, text: str, kind: str) -> None:
    stack = f"main (x.py:1);{function} ({file}:{line_of(file, text)})"
    assert module("flames.stacks").kind(stack) == kind


def test_kind_of_native_frames(module: Any) -> None:
    kind = module("flames.stacks").kind
    assert kind("f (x.py:1);sock_send (socketmodule.c:1);send (libc.so.6)") == "send"
    assert kind("run (asyncio/runners.py:1);uv__read (stream.c:1);read (libc.so.6)") == "recv"
    assert kind("f (x.py:1);epoll_wait (libc.so.6)") == "wait"
    assert kind("say (stages/v1/server.py:1);os_write (posixmodule.c:1);write (libc.so.6)") == "log"
    assert kind("[no symbol] (libc.so.6)") == "rest"


def test_shares_of_kinds_and_functions(module: Any) -> None:
    stacks = module("flames.stacks")
    shares = stacks.shares(STACKS)
    assert set(shares) == set(stacks.KINDS) and sum(shares.values()) == pytest.approx(1)
    assert (shares["parse"], shares["room"], shares["loop"]) == (0.6, 0.3, 0.1)
    functions = stacks.functions(STACKS)
    assert functions["run (a.py)"] == (0.1, 1.0)
    assert functions["next_line (server.py)"] == (0.6, 0.6)
    assert stacks.functions({"f (a.py:1);f (a.py:1)": 2}) == {"f (a.py)": (1.0, 1.0)}


def test_speedscope_is_the_same_stacks(module: Any) -> None:
    found = json.loads(module("flames.stacks").speedscope(STACKS, "name"))
    frames, [profile] = found["shared"]["frames"], found["profiles"]
    assert frames[0] == {"name": "<module>", "file": "a.py", "line": 1}
    seen: Counter[str] = Counter()
    for stack, weight in zip(profile["samples"], profile["weights"]):
        named = [frames[index] for index in stack]
        seen[";".join(f"{f['name']} ({f['file']}:{f['line']})" for f in named)] += weight
    assert seen == STACKS
    assert (profile["type"], profile["unit"], profile["startValue"]) == ("sampled", "none", 0)


def test_svg_is_the_same_stacks(module: Any) -> None:
    svg = module("flames.svg")
    picture = svg.flame_graph(STACKS, "a < b & c", ["told"])
    assert picture == svg.flame_graph(
        Counter(dict(reversed(STACKS.items()))), "a < b & c", ["told"]
    )
    root = ElementTree.fromstring(picture)
    assert root.findtext(f"{SVG}title") == "a < b & c"
    tooltips = samples_of(picture)
    assert len(tooltips) == 6  # all, <module>, run at two lines, and two above
    assert "next_line (stages/v3/server.py:9999)\n6 of 10 samples, 60.0%\nparse 60.0%" in tooltips
    for rect in root.iter(f"{SVG}rect"):
        left, width = float(rect.get("x", 0)), float(rect.get("width", 0))
        assert left >= 0 and left + width <= svg.WIDTH
    for group in root.iter(f"{SVG}g"):
        box, text = group.find(f"{SVG}rect"), group.find(f"{SVG}text")
        if box is not None and text is not None:
            assert len(text.text or "") * svg.LETTER <= float(box.get("width", 0))


def test_diff_of_stacks(module: Any) -> None:
    other = Counter({"<module> (a.py:9);run (a.py:9);handle (stages/v4/server.py:1)": 4})
    rows = module("flames.diff").rows(STACKS, other)
    assert [row.function for row in rows[:2]] == ["handle (server.py)", "next_line (server.py)"]
    assert rows[0].difference == pytest.approx(0.7)
    assert rows[1].difference == pytest.approx(-0.6)
    assert sum(row.difference for row in rows) == pytest.approx(0)
    same = module("flames.diff").rows(STACKS, STACKS)
    assert all(row.difference == 0 for row in same)
    tooltips = samples_of(module("flames.svg").difference(STACKS, other, ("v3", "v4"), []))
    assert "next_line (server.py)\nv3: 60.0%, v4: 0.0%, difference -60.0" in tooltips
    assert "run (a.py)\nv3: 100.0%, v4: 100.0%, difference +0.0" in tooltips


def test_shares_by_perf(module: Any) -> None:
    shares = module("flames.perf").shares
    send = "\tffffffff81000000 tcp_sendmsg\n\tffffffff81000001 __sys_sendto\n\t 7f00 send\n"
    write = "\tffffffff81000000 sock_write_iter\n\tffffffff81000001 ksys_write\n"
    wait = "\tffffffff81000000 do_epoll_wait\n"
    log = "\tffffffff81000000 anon_pipe_write\n"
    python = "\t 7f00 _PyEval_EvalFrameDefault\n"
    script = "\n".join([send, write, wait, log, python])
    assert shares(script) == {"send": 0.4, "recv": 0, "wait": 0.2, "log": 0.2}
    assert "may not look into the kernel" in shares(python)
    assert "no sample" in shares("\n")
