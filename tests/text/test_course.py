"""The pages that are read: their links lead somewhere, their commands name what is there, and the
servers that they show to be wrong are wrong in the way they say."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness.files import ROOT
from benchmarks.harness.process import DEADLINE
from benchmarks.harness.server import SERVERS, Server
from benchmarks.harness.strace import SAME, WAITS
from stages.course.blocks import functions
from tests.support.wire import Peer, come_in, padded

PAGES = [
    *(ROOT / folder / "README.md" for folder in (".", "lowlevel", "profiling")),
    *sorted(ROOT.glob("stages/**/*.md")),
]
SERVED = [*ROOT.glob("stages/v*/**/*.py"), *ROOT.glob("lowlevel/**/*.py")]
OURS = {name for path in SERVED for name in functions(str(path.relative_to(ROOT)))}
PYTHON = (builtins, os, select, signal, socket.socket, asyncio.StreamReader, asyncio.StreamWriter)
TESTS = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/**/test_*.py")]
CHOSEN = " ".join(
    f"{path} {' '.join(functions(path))}"
    for path in (str(path.relative_to(ROOT)) for path in TESTS)
)
"""What `-k` chooses from."""
OWN = r"(?:benchmarks|lowlevel|profiling|stages|tests)/"
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchor(heading: str) -> str:
    """As the usual forges make it of a heading."""
    plain = re.sub(r"[`*_]|\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


@each_page
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        assert "://" not in target, f"{target}: the project stands for itself"
        path, _, fragment = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if re.fullmatch(r"L\d+", fragment):
            assert int(fragment[1:]) <= file.read_text().count("\n"), target
        elif fragment:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert fragment in map(anchor, headings), target
    for path in re.findall(rf"(?<![/.\w]){OWN}[\w./-]*\w", page.read_text()):
        assert (ROOT / path).exists(), path


@each_page
def test_functions_and_files_that_are_named_exist(page: Path) -> None:
    """`Class.method` of ours, `function()` of ours or Python's or a call, `file::test`, `test`."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for path, test in re.findall(r"`([\w./-]+\.py)::(\w+)`", text):
        assert test in functions(path), f"{path} has no {test}"
    for name in re.findall(r"`([A-Z][a-z]\w*\.\w+)(?:\(\))?`", text):
        assert name in OURS, name
    for name in re.findall(r"`(\w+)\(\)`", text):
        short = {own.rpartition(".")[2] for own in OURS}
        assert name in {*short, *WAITS, *SAME, "io_uring_enter"} or any(
            hasattr(part, name) for part in PYTHON
        ), name
    for name in re.findall(r"`(test_\w+)`", text):
        assert name in CHOSEN, name
    for name in re.findall(r"[\w-]+\.patch", text):
        assert (ROOT / "tests" / "exercises" / name).exists(), name


def commands(page: Path) -> list[str]:
    """The lines of the `sh` blocks of a page."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@each_page
def test_commands_name_what_is_there(page: Path, pytestconfig: pytest.Config) -> None:
    """Tests, and the options of pytest."""
    for command in commands(page):
        for file, test in re.findall(r"([\w/]+\.py)::(\w+)", command):
            assert test in functions(file), command
        arguments = command.partition(" -m pytest")[2]
        for option in re.findall(r" --([a-z][\w-]*)", re.sub(r'"[^"]*"', "", arguments)):
            pytestconfig.getoption(option.replace("-", "_"))  # ValueError: there is none
        chosen = re.search(r' -k (?:"([^"]+)"|(\S+))', arguments)
        for word in set(re.findall(r"[\w-]+", (chosen[1] or chosen[2]) if chosen else "")):
            assert word in {"and", "or", "not", *SERVERS} or word in CHOSEN, f"-k {word}"


def test_tools_have_the_options_of_the_commands() -> None:
    found = "\n".join(command for page in PAGES for command in commands(page))
    tools = re.findall(r"python3? (profiling/\w+\.py|-m benchmarks\.\w+|-m lowlevel)(.*)", found)
    for tool in sorted({tool for tool, _ in tools}):
        command = [sys.executable, *tool.split(), "--help"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        used = " ".join(arguments for name, arguments in tools if name == tool)
        for option in set(re.findall(r" (--[a-z][\w-]*)", re.sub(r'"[^"]*"', "", used))):
            assert re.search(rf"{option}\b", done.stdout), f"{tool} has no {option}"


def test_the_two_commands() -> None:
    """The README begins with them, and the one that tests is what .ci/run calls; so are the
    options that make pytest test something else."""
    found = commands(ROOT / "README.md")
    assert found[0] == "python3 stages/v4/server.py"
    assert found[1].startswith("python3 -m venv .venv && ")
    script = (ROOT / ".ci" / "run").read_text()
    assert f"\n{found[1]}\n" in script
    for option in ("--server", "--server-python"):
        assert any(f"pytest {option} " in command for command in found)
        assert f"pytest {option} " in script, "a command that nobody runs"


def snippet(page: str) -> str:
    """The first piece of Python on a page."""
    return (ROOT / page).read_text().partition("```python\n")[2].partition("```")[0]


def server_of(tmp_path: Path, source: str) -> Server:
    program = tmp_path / "program.py"
    program.write_text(source)
    return Server(f"{sys.executable} -u {program} --port {{port}}")


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Server]:
    """The server that v1's page begins with."""
    source = snippet("stages/v1/README.md")
    assert source.count("8080") == 1
    with server_of(tmp_path, source.replace("8080", "int(__import__('sys').argv[2])")) as server:
        yield server


@pytest.fixture
def naive(tmp_path: Path) -> Iterator[Server]:
    """v2 with the line that v3's page begins with."""
    log = '            self.log(f"{client.name} dice: {text}")\n'
    loop = "            data = text.encode() + b'\\n'\n"
    # The loop's variable must not be the client who speaks, about whom receive() goes on.
    loop += textwrap.indent(snippet("stages/v3/README.md"), " " * 12)
    source = (ROOT / "stages/v2/server.py").read_text()
    assert source.count(log) == 1
    with server_of(tmp_path, source.replace(log, log + loop)) as server:
        # Or whoever speaks first is ended by the one who only looked whether it accepts.
        server.log.wait(re.compile("Cliente desconectado: ").match)
        yield server


def test_first_server_hears_one_client_at_a_time(first: Server) -> None:
    ana, bea = Peer(first.address), Peer(first.address)
    bea.say("me, too")
    for text in ("one", "two"):
        ana.say(text)
        first.log.wait(f"{ana.name} dice: {text}".__eq__)
    assert not any(bea.name in line for line in first.log.all())
    ana.close()
    first.log.wait(f"{bea.name} dice: me, too".__eq__)


def test_first_server_takes_what_comes_together_for_a_message(first: Server) -> None:
    ana = Peer(first.address)
    ana.say("one", "two")
    first.log.wait(f"{ana.name} dice: one".__eq__)
    first.log.wait("two".__eq__)  # without a name before it


def test_first_server_ends_at_a_letter_cut_in_two(first: Server) -> None:
    Peer(first.address).send("é".encode()[:1])
    assert first.wait() == 1
    assert "UnicodeDecodeError" in first.errors.rest()[-1]


def test_naive_room_loses_what_the_kernel_does_not_take(naive: Server) -> None:
    ana, bea = Peer(naive.address), Peer(naive.address, receive_buffer=4096)
    come_in(naive, ana, bea)
    naive.shrink_send_buffer(bea.sock)
    texts = padded(2000, 1000)
    reader = threading.Thread(target=ana.rest)  # she hears herself, and reads
    reader.start()
    for text in texts:
        ana.say(text)
    ana.finish()
    naive.log.wait(f"Cliente desconectado: {ana.name}".__eq__)
    reader.join(DEADLINE)
    bea.finish()
    lines = bea.rest().decode().splitlines()
    assert lines[0] == texts[0]
    assert lines != texts, "then the page is wrong"


def test_naive_room_ends_the_one_who_speaks(naive: Server) -> None:
    """Whoever resets while the others' lines are told: the error comes up at the speaker's turn."""
    ana = Peer(naive.address)
    reader = threading.Thread(target=ana.rest)
    reader.start()
    end = f"Cliente desconectado: {ana.name}"
    while end not in naive.log.all():
        bea = Peer(naive.address)
        come_in(naive, bea)
        with contextlib.suppress(OSError):  # she has just been ended
            ana.say(*["x"] * 8000)
        bea.take(1)
        bea.reset()
        naive.log.wait({end, f"Cliente desconectado: {bea.name}"}.__contains__)
    reader.join(DEADLINE)
