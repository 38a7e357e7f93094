"""profiling/flamegraph.py: what it shows of servers under load, and how it tells what they do."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.files import ROOT
from flames import page, perf, stacks
from tests.support.needed import needed_in_ci
from tests.tools.test_profiling_ends import run

SHORT = ("--duration", "1", "--clients", "10", "--rate", "500")


def pictures(page: Path) -> Any:
    """What d3-flame-graph is given."""
    [data] = re.findall(
        r'<script type="application/json".*?>(.*?)</script>', page.read_text("utf-8")
    )
    return json.loads(data)


def frames(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(frame for child in node["children"] for frame in frames(child))]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run over three servers has written."""
    folder = tmp_path_factory.mktemp("flamegraph") / "made" / "for it"
    done = run(
        "flamegraph", "v3", "epoll", "v2", *SHORT, "--output", str(folder), "--diff", "v3", "epoll"
    )
    for reason in ("may not trace", "py-spy is not installed"):
        if reason in done.stderr:
            needed_in_ci(done.stderr)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\| function +\| +self v3 \| +self epoll \|", done.stdout)
    return folder


@pytest.mark.alone
@pytest.mark.parametrize(
    ("number", "server", "wanted"),
    [
        (0, "v3", [r"(Server\.)?turn", r"(Server\.)?broadcast", r"(Server\.)?try_send"]),
        (1, "epoll", [r"(Reactor\.)?poll", "send_each", r"(Reactor\.)?run"]),
        (2, "v2", [r"(Server\.)?turn", r"say"]),
    ],
)
def test_flamegraph_shows_what_the_server_did(
    results: Path, number: int, server: str, wanted: list[str]
) -> None:
    text = (results / f"{server}.folded").read_text("utf-8")
    assert str(ROOT) not in text and str(Path.home()) not in text, "a path of this machine"
    counts = stacks.parse_stacks(text)
    page = (results / "index.html").read_text("utf-8")
    assert re.findall('<section id="(.+?)">', page)[number] == server
    root, total = pictures(results / "index.html")[number], sum(counts.values())
    assert (root["name"], root["value"]) == ("all", total)
    assert root["text"].startswith(f"{total:,} of {total:,} samples, 100.0%: ")
    names = {frame["name"] for frame in frames(root)}
    assert names == {"all", *(frame for stack in counts for frame in stack.split(";"))}
    for pattern in wanted:
        assert any(re.fullmatch(rf"{pattern} \(.*", name) for name in names), pattern
    for frame in frames(root):
        assert frame["value"] >= sum(child["value"] for child in frame["children"])
    assert re.search(rf"> *{total:,}</td>", page) and f"{total:,} samples in" in page


@pytest.mark.alone
def test_flamegraph_pages_need_nothing_else(results: Path) -> None:
    folded = ["epoll.folded", "v2.folded", "v3.folded"]
    written = sorted(path.name for path in results.iterdir())
    assert written == ["diff-v3-epoll.html", folded[0], "index.html", *folded[1:]]
    for name in ("index.html", "diff-v3-epoll.html"):
        page = (results / name).read_text("utf-8")
        loads = r"<(?:link|img|iframe|object)\b|\bsrc=|@import|\b(?:url|fetch|import)\("
        assert not re.search(loads, page)
        assert set(re.findall(r'href="(.+?)"', page)) == (
            {*folded} if name == "index.html" else set()
        )
        assert "Apache License" in page and "Mike Bostock" in page
        assert str(results) not in page and "{{" not in page
    page = (results / "index.html").read_text("utf-8")
    assert "flood: 10 clients, 5 of them send" in page
    assert "python profiling/flamegraph.py v3 epoll v2 --duration 1" in page


@pytest.mark.alone
def test_flamegraph_diff_of_an_earlier_run(results: Path) -> None:
    picture = pictures(results / "diff-v3-epoll.html")
    again = run("flamegraph", "--diff", "v3", "epoll", "--output", str(results))
    assert again.returncode == 0, again.stderr
    assert "Recorded by an earlier run" in again.stdout and "send_each" in again.stdout
    assert pictures(results / "diff-v3-epoll.html") == picture
    missing = run("flamegraph", "v3", "--diff", "v3", "selectors", "--output", str(results))
    assert missing.returncode == 1 and "v3: 5 s" not in missing.stderr, "it began to record"
    assert "selectors.folded cannot be read: No such file or directory" in missing.stderr
    assert "python profiling/flamegraph.py v3 selectors" in missing.stderr


STACKS = Counter(
    {
        "<module> (a.py:1);run (a.py:2);next_line (stages/v3/server.py:9999)": 6,
        "<module> (a.py:1);run (a.py:3);handle (stages/v3/server.py:9999)": 3,
        "<module> (a.py:1);run (a.py:3)": 1,
    }
)


def test_folded_stacks_there_and_back() -> None:
    assert stacks.parse_stacks(stacks.folded(STACKS)) == STACKS
    assert stacks.parse_stacks("a b 1;c 2\na b 1;c 3\n") == {"a b 1;c": 5}
    for wrong in ("no count", "a;b -1", "7"):
        with pytest.raises(ValueError, match="line 1 is no stack"):
            stacks.parse_stacks(wrong)


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
def test_frames_without_paths_of_this_machine(frame: str, short: str) -> None:
    assert stacks.shortened({frame: 1}) == {short: 1}


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
        ("next_line", "stages/v3/server.py", "def next_line", "parse"),
        ("Server.send", "stages/v4/server.py", "transport.write(data)", "send"),
        ("send_each", "lowlevel/room.py", "map(transmit", "send"),
        ("Room.say", "lowlevel/room.py", "self._size +=", "room"),
        ("EpollBackend.wait", "lowlevel/epoll_backend.py", "self._epoll.poll(", "wait"),
        ("SelectorsBackend.wait", "lowlevel/selectors_backend.py", ".select(timeout)", "wait"),
        ("ReadinessConnection._receive", "lowlevel/readiness.py", "self._sock.recv(", "recv"),
        ("Ring._enter", "lowlevel/uring/ring.py", "_syscall(ENTER", "ring"),
        ("LineProtocol.receive", "lowlevel/protocol.py", "def receive", "parse"),
    ],
)
def test_kind_of_a_line(function: str, file: str, text: str, kind: str) -> None:
    stack = f"main (x.py:1);{function} ({file}:{line_of(file, text)})"
    assert stacks.kind(stack) == kind


def test_kind_of_native_frames() -> None:
    kind = stacks.kind
    assert kind("f (x.py:1);sock_send (socketmodule.c:1);send (libc.so.6)") == "send"
    assert kind("run (asyncio/runners.py:1);uv__read (stream.c:1);read (libc.so.6)") == "recv"
    assert kind("f (x.py:1);epoll_wait (libc.so.6)") == "wait"
    assert kind("say (stages/v1/server.py:1);os_write (posixmodule.c:1);write (libc.so.6)") == "log"
    assert kind("[no symbol] (libc.so.6)") == "rest"


def test_shares_of_kinds_and_functions() -> None:
    shares = stacks.shares(STACKS)
    assert set(shares) == set(stacks.KINDS) and sum(shares.values()) == pytest.approx(1)
    assert (shares["parse"], shares["room"], shares["loop"]) == (0.6, 0.3, 0.1)
    functions = stacks.functions(STACKS)
    assert functions["run (a.py)"] == (0.1, 1.0)
    assert functions["next_line (server.py)"] == (0.6, 0.6)
    assert stacks.functions({"f (a.py:1);f (a.py:1)": 2}) == {"f (a.py)": (1.0, 1.0)}


def test_picture_of_stacks() -> None:
    root = page.picture(STACKS)
    assert root == page.picture(Counter(dict(reversed(STACKS.items()))))
    texts = {frame["name"]: frame["text"] for frame in frames(root)}
    assert len(frames(root)) == 6  # all, <module>, run at two lines, and two above
    assert texts["next_line (stages/v3/server.py:9999)"] == "6 of 10 samples, 60.0%: parse 60.0%"
    fills = {frame["name"]: frame["fill"] for frame in frames(root)}
    assert fills["run (a.py:2)"] == page.COLOURS["parse"] and fills["all"] == page.MIXED


def test_difference_of_stacks() -> None:
    other = Counter({"<module> (a.py:9);run (a.py:9);handle (stages/v4/server.py:1)": 4})
    head, *rows = page.difference_rows(STACKS, other, ("v3", "v4"))
    assert head[:4] == ["function", "self v3", "self v4", "difference"]
    assert rows[0][:4] == ["handle (server.py)", "30.0", "100.0", "+70.0"]
    assert rows[1][:4] == ["next_line (server.py)", "60.0", "0.0", "-60.0"]
    assert sum(float(row[3]) for row in rows) == pytest.approx(0)
    same = page.difference_rows(STACKS, STACKS, ("v3", "v3"))
    assert {row[3] for row in same[1:]} == {"+0.0"}
    both = page.difference_picture(STACKS, other, ("v3", "v4"))
    texts = {frame["name"]: frame["text"] for frame in frames(both)}
    assert texts["next_line (server.py)"] == "v3: 60.0%, v4: 0.0%, difference -60.0"
    assert texts["run (a.py)"] == "v3: 100.0%, v4: 100.0%, difference +0.0"


def test_shares_by_perf() -> None:
    shares = perf.shares
    kernel, user = "\tffffffff81000000 ", "\t          7f00 "
    send = f"{kernel}tcp_sendmsg\n{kernel}__sys_sendto\n{user}__send\n{user}sock_send\n"
    stub = f"{kernel}do_syscall_64\n{user}__send\n{user}sock_send\n"
    around = f"{user}take_gil\n{user}sock_send\n{user}_PyEval_EvalFrameDefault\n"
    write = f"{kernel}sock_write_iter\n{kernel}ksys_write\n"
    wait = f"{kernel}do_epoll_wait\n"
    log = f"{kernel}anon_pipe_write\n{user}__GI___libc_write\n{user}os_write\n"
    python = f"{user}_PyEval_EvalFrameDefault\n"
    script = "\n".join([send, stub, around, write, wait, log, python, python])
    assert shares(script) == {
        "send": (0.375, 0.125),
        "recv": (0, 0),
        "wait": (0.125, 0),
        "log": (0.125, 0),
    }
    assert "may not look into the kernel" in shares(python)
    assert "no sample" in shares("\n")
