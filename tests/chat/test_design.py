"""What the modules may know, and how much of it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from benchmarks.harness.files import ROOT

PACKAGE = ROOT / "stages" / "v5" / "sock_chat"
MODULES = sorted(PACKAGE.rglob("*.py"))
CORE = (
    *("audience", "codec", "commands", "counters", "door", "events", "limits", "names", "naming"),
    *("registry", "repeats", "room", "rooms", "script", "session", "table"),
)
OUTSIDE = {
    *("asyncio", "os", "select", "selectors", "signal", "socket", "sqlite3", "ssl", "threading"),
    *("time", "uvloop"),
}


def imported(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("module", CORE)
def test_the_core_knows_no_socket_no_loop_and_no_clock(module: str) -> None:
    tree = ast.parse((PACKAGE / f"{module}.py").read_text("utf-8"))
    assert not {name.partition(".")[0] for name in imported(tree)} & OUTSIDE
    calls = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not calls & {"now", "utcnow"}


def test_a_database_is_not_committed() -> None:
    """In whatever folder the server has been started, with what SQLite puts beside it."""
    assert "sock_chat.db*" in (ROOT / ".gitignore").read_text("utf-8").split()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_says_its_job_and_is_read_in_one_sitting(path: Path) -> None:
    text = path.read_text("utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert text.count("\n") <= 250
