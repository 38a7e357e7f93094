"""The pages' generated parts: what stands in them is what the results and the sources say today."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cogapp.cogapp import CogError

from benchmarks.harness.files import ROOT
from stages.course import blocks
from stages.course.__main__ import Pages, main, pages
from tests.contract.test_syscalls import EXPECTED

ANEW = "run: python -m stages.course"


@pytest.fixture
def process() -> Callable[..., str]:
    """A page's text, made anew."""
    cog = Pages()
    cog.options.print_output = True
    cog.options.prologue = "from stages.course.blocks import *"

    def process(text: str, path: str = "stages/v3/README.md") -> str:
        result: str = cog.process_string(text, str(ROOT / path))
        return result

    return process


@pytest.mark.parametrize("path", pages(), ids=lambda path: os.path.relpath(path, ROOT))
def test_pages_are_made_of_today_s_results_and_sources(
    process: Callable[..., str], path: str
) -> None:
    text = (ROOT / path).read_text("utf-8")
    difference = "\n".join(
        difflib.unified_diff(text.split("\n"), process(text, path).split("\n"), path, lineterm="")
    )
    assert not difference, f"{ANEW}\n{difference}"


def test_blocks_values_and_lines_in_a_text(process: Callable[..., str]) -> None:
    text = (
        '<!-- [[[cog print(link("a page", "README.md")) ]]] -->\n{}\n<!-- [[[end]]] -->\n'
        'It asks <!-- value: calls("v1") -->{}<!-- end -->, <!-- another comment -->\n'
        "[`Server.send`](server.py#L{}) and [`next_line`](../v1/server.py#L{}).\n"
    )
    send = blocks.functions("stages/v3/server.py")["Server.send"][0]
    next_line = blocks.functions("stages/v1/server.py")["next_line"][0]
    source = (ROOT / "stages/v3/server.py").read_text().splitlines()
    assert source[send - 1].startswith("    def send(")
    expected = ("[a page](../../README.md)", "1 `recvfrom` + 1 `write` to the log", send, next_line)
    assert process(text.format("old", 7, 7, 7)) == text.format(*expected)


@pytest.mark.parametrize(
    "text",
    [
        '<!-- value: cpu("flood 100", "v9") -->7 µs<!-- end -->',
        "<!-- value: unknown() -->7<!-- end -->",
        "<!-- value: cpu( -->7<!-- end -->",
        "[`Server.sing`](server.py#L7)",
        "[`send`](gone.py#L7)",
        "<!-- [[[cog print(unknown()) ]]] -->\n<!-- [[[end]]] -->",
        "<!-- [[[cog print(readiness()) ]]] -->\n",
    ],
)
def test_a_marker_that_is_wrong(process: Callable[..., str], text: str) -> None:
    with pytest.raises(CogError):
        process(text)


def test_check_writes_nothing_and_tells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text('<!-- value: calls("v1") -->7<!-- end -->\n', "utf-8")
    monkeypatch.setattr("stages.course.__main__.pages", lambda: [str(page)])
    assert main(["--check"]) == 5
    assert '\n-<!-- value: calls("v1") -->7<!-- end -->\n+<!-- value' in capsys.readouterr().out
    assert "-->7<!--" in page.read_text("utf-8")
    assert main([]) == 0
    assert "-->1 `recvfrom` + 1 `write` to the log<!--" in page.read_text("utf-8")
    assert main(["--check"]) == 0
    assert main(["--chek"]) == 2


@pytest.mark.parametrize("results", blocks.RESULTS)
def test_results_say_what_they_were_measured_on(results: str) -> None:
    foot = blocks.sources(results)
    for part in ("command", "date", "cpu", "kernel", "python"):
        assert blocks.results(results)["environment"][part] in foot


@pytest.mark.parametrize("server", EXPECTED)
def test_counts_are_those_that_the_tests_hold(server: str) -> None:
    found = blocks.results("syscalls")["servers"][server]["formula"]
    for clients in (2, 3, 7, 100):
        assert {call: eval(text, {"N": clients}) for call, text in found.items()} == (
            EXPECTED[server](clients)
        ), "run: python profiling/syscalls.py --output profiling/results, and then stages.course"
