"""What is written: the stages' copies, the contract's constants, the shape of the tree."""

from __future__ import annotations

import ast
import difflib
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.harness.files import ROOT
from benchmarks.harness.server import SERVERS
from stages.course import blocks

STAGES = ("v1", "v2", "v3", "v4")
STEPS = list(pairwise(STAGES))


def path_of(stage: str) -> str:
    paths = {"uvloop": "lowlevel/uvloop_server.py", "system": "lowlevel/system.py"}
    return paths.get(stage, f"stages/{stage}/server.py")


def source(stage: str) -> str:
    return (ROOT / path_of(stage)).read_text()


def functions(stage: str) -> dict[str, str]:
    """The source of each function and method, by qualified name, in order."""
    lines = source(stage).splitlines()
    places = blocks.functions(path_of(stage)).items()
    return {name: "\n".join(lines[first - 1 : last]) for name, (first, last) in places}


@pytest.mark.parametrize(("older", "newer"), STEPS)
def test_functions_with_the_same_job_keep_their_order(older: str, newer: str) -> None:
    before, after = list(functions(older)), list(functions(newer))
    assert [name for name in before if name in after] == [name for name in after if name in before]


@pytest.mark.parametrize(("older", "newer"), STEPS)
def test_constants_keep_their_value_and_comment(older: str, newer: str) -> None:
    def constants(stage: str) -> dict[str, str]:
        text = source(stage).replace("READ_SIZE = 16384  #", "READ_SIZE = 16384\n#")  # of threads
        return dict(re.findall(r"^([A-Z_]+) = (.*)$", text, re.MULTILINE))

    before, after = constants(older), constants(newer)
    differing = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    assert differing <= {"NAME", *(("ACCEPTS",) if newer == "v4" else ())}


def test_stages_end_in_the_same_lines() -> None:
    """What is no part of a model stands below one heading, byte for byte."""
    heading = re.compile(r"^# --- The same in every stage: .* -+$", re.MULTILINE)
    ends = {heading.split(source(stage))[1] for stage in (*STAGES, "uvloop")}
    assert len(ends) == 1
    before = [heading.split(source(stage))[0] for stage in (*STAGES, "uvloop")]
    same = ("say", "visible", "listen", "prepare_process", "parse_args", "main")
    assert not [name for name in same if any(f"def {name}(" in text for text in before)]


def test_client_of_v3_is_that_of_v2() -> None:
    v2, v3 = (ROOT / "stages" / stage / "client.py" for stage in ("v2", "v3"))
    assert v2.read_bytes() == v3.read_bytes()


def test_pipe_of_v5_speaks_to_its_streams_as_the_client_of_v4() -> None:
    """But for how it ends: what it has of the terminal's it gives back."""
    stages = ROOT / "stages"
    ours = (stages / "v5/sock_chat/client/pipe.py").read_text().replace(" end(1)", " os._exit(1)")
    for name in ("say", "read_keyboard"):
        body = re.compile(rf"^def {name}\(.*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
        assert body.findall(ours) == body.findall((stages / "v4/client.py").read_text()) != []


def test_lowlevel_has_the_functions_of_the_stages() -> None:
    """system.py is what they repeat, and uvloop_server.py is v4."""
    stage, copies = functions("v4"), functions("system")
    assert len(copies) >= 5
    assert copies == {name: stage[name] for name in copies}
    constants = r"^([A-Z_]+) = (.*)$"
    system = dict(re.findall(constants, source("system"), re.MULTILINE))
    assert system.items() <= dict(re.findall(constants, source("v4"), re.MULTILINE)).items()


def test_v5_has_the_functions_of_lowlevel() -> None:
    ours, theirs = (
        (ROOT / folder / "system.py").read_text().partition("\nBACKLOG = ")[2]
        for folder in ("stages/v5/sock_chat", "lowlevel")
    )
    assert ours.replace("failed_streams: set", "failed_streams: Set") == theirs


def test_uvloop_is_v4_with_at_most_four_lines_changed() -> None:
    """Outside the docstrings, as difflib counts."""
    before, after = (source(name).split('"""\n', 2)[1:] for name in ("v4", "uvloop"))
    before, after = ("".join(parts).splitlines() for parts in (before, after))
    added = [line for line in difflib.ndiff(before, after) if line.startswith("+ ")]
    assert 3 <= len(added) <= 4, added


@pytest.mark.parametrize(
    "path",
    [*ROOT.glob("stages/v*/*.py"), *ROOT.glob("lowlevel/*.py")],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_servers_import_only_the_standard_library(path: Path) -> None:
    own = {"uvloop_server.py": "uvloop"}.get(path.name, "")
    own = own or {"lowlevel": "lowlevel", "v5": "sock_chat"}.get(path.parent.name, "")
    for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 8))):
        modules = [name.name for name in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            modules = [str(node.module)]
        assert {name.split(".")[0] for name in modules} <= sys.stdlib_module_names | {own}


def test_shape_of_the_tree() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    for name in ("profiling/__init__.py", "stages/__init__.py"):
        assert not (ROOT / name).exists(), "it would shadow a standard package, or be installed"
    assert tracked, "this test reads what git tracks"
    for path in map(Path, tracked):
        if path.suffix == ".py":
            assert path.stem not in sys.stdlib_module_names, path
    pyproject = (ROOT / "pyproject.toml").read_text()
    tables = re.findall(r"^\[(.+)\]$", pyproject, re.MULTILINE)
    assert {table.split(".")[0] for table in tables} == {"build-system", "tool"}
    assert all(table.startswith("tool.ruff") for table in tables if table.startswith("tool"))
    assert set(SERVERS) >= set(STAGES)
