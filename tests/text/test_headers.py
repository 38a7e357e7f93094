"""The docstring at the top of each stage: each of its fields is true.

Who waits, for what
Changed since     names exactly the functions that differ from the stage before, as ast sees it
Cost per message  is the formula that profiling/results/syscalls.json has
Breaks when       names the test that shows it
Try               is run here, word for word but for the port
"""

from __future__ import annotations

import ast
import re
import subprocess
from contextlib import ExitStack
from typing import cast

import pytest

from benchmarks.harness.files import ROOT
from benchmarks.harness.server import BROADCASTING, SERVERS, Server
from stages.course import blocks
from tests.support.run import running
from tests.text.test_text import STEPS, functions, source

HEADER = (
    "Who waits, for what",
    "Changed since",
    "Cost per message",
    "Cost of an idle client",
    "Breaks when",
    "Next",
    "Try",
)
BEFORE = {"v1": "nothing", "v2": "v1", "v3": "v2", "v4": "v3", "uvloop": "v4"}


def fields(stage: str) -> dict[str, str]:
    """The fields of a header by name, each in one line; that of the predecessor is cut off."""
    header = ast.get_docstring(ast.parse(source(stage)))
    assert header
    assert header.startswith(f"{stage}: ")
    named = re.findall(r"^([A-Z][^:\n]*): (.*(?:\n    .*)*)", header, re.MULTILINE)
    since = f" since {BEFORE[stage]}"
    return {name.replace(since, " since"): re.sub(r"\s+", " ", text) for name, text in named}


@pytest.mark.parametrize("stage", BEFORE)
def test_header_has_all_fields_in_their_order(stage: str) -> None:
    assert tuple(fields(stage)) == HEADER


@pytest.mark.parametrize(("older", "newer"), [*STEPS, ("v4", "uvloop")])
def test_changed_since_names_what_differs(older: str, newer: str) -> None:
    """All other functions stand in both, byte for byte. A class stands for its __init__()."""

    def plain(name: str) -> str:
        return name.removesuffix(".__init__").rpartition(".")[2]

    before, after = functions(older), functions(newer)
    differ = {
        "Changed": {name for name in before if name in after and before[name] != after[name]},
        "New": after.keys() - before.keys(),
        "Gone": before.keys() - after.keys(),
    }
    known = set(map(plain, [*before, *after]))
    parts = re.findall(r"(Changed|New|Gone): (.*?)\.(?= New: | Gone: |$)", fields(newer)[HEADER[1]])
    assert [kind for kind, _ in parts] == list(differ)
    for kind, text in parts:
        named = set(re.findall(r"(\w+)\(\)", text)) & known
        assert named == set(map(plain, differ[kind])), f"{newer}: {kind}: a copy has drifted?"


@pytest.mark.parametrize("stage", BEFORE)
def test_cost_per_message_is_what_was_counted(stage: str) -> None:
    cost = fields(stage)["Cost per message"].replace("epoll_pwait", "epoll_wait")
    stated = re.findall(r"(?:^| \+ )(\d+|\(N-1\)) ([a-z_]+)", cost)
    formula = blocks.results("syscalls")["servers"][stage]["formula"].items()
    assert stated == [(count.replace("N - 1", "(N-1)"), call) for call, count in formula]


@pytest.mark.parametrize("stage", BEFORE)
def test_breaks_when_names_the_test_that_shows_it(stage: str) -> None:
    named = re.findall(r"tests/([\w/]+\.py)::(\w+)", fields(stage)["Breaks when"])
    assert named
    for file, test in named:
        limits = [
            ast.literal_eval(argument)
            for node in ast.parse((ROOT / "tests" / file).read_text()).body
            if isinstance(node, ast.FunctionDef) and node.name == test
            for mark in node.decorator_list
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.limit"
            for argument in mark.args
        ]
        assert stage in limits, f"{file} has no {test}() that expects {stage} to fail"


@pytest.mark.servers(*BEFORE)
def test_try_works(name: str, python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the header: a server, and one client or two, of whom one speaks."""
    text = fields(name)["Try"]
    command, client = re.findall(r"python3 ([^,]+)", text)
    clients = 2 if "in two other terminals: " in text else 1
    assert clients == (2 if name in BROADCASTING else 1)
    monkeypatch.setitem(cast(dict[str, list[str]], SERVERS), "try", command.split())
    with ExitStack() as stack:
        server = stack.enter_context(Server("try", python=python))
        words = [python, *client.split(), "--port", str(server.address[1])]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        speaker, *listeners = (
            stack.enter_context(running(words, encoding="utf-8", **pipes)) for _ in range(clients)
        )
        connected = re.compile("Cliente conectado: ").match
        first = server.log.wait(connected)
        if listeners:
            server.log.wait(connected, first + 1)
        assert speaker.stdin
        print("hola", file=speaker.stdin, flush=True)
        message = server.log[server.log.wait(lambda line: line.endswith(" dice: hola"))]
        for listener in listeners:
            assert listener.stdout
            assert listener.stdout.readline() == f"{message}\n"
        assert server.stop() == 0
