"""The pages' generated parts: what stands in them is what the results and the sources say today."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cogapp.cogapp import CogError

from benchmarks.compare import figures
from benchmarks.harness.files import ROOT
from stages.course import blocks, chat
from stages.course.__main__ import PROLOGUE, Pages, main, pages
from tests.contract.test_syscalls import EXPECTED
from tests.tools.test_compare import ABOUT, loaded, rows

ANEW = "run: python -m stages.course"


@pytest.fixture
def process() -> Callable[..., str]:
    """A page's text, made anew."""
    cog = Pages()
    cog.options.print_output = True
    cog.options.prologue = PROLOGUE

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


def test_blocks_values_and_lines_are_made_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And with --check only told."""
    text = (
        '<!-- [[[cog print(link("a page", "README.md")) ]]] -->\n{}\n<!-- [[[end]]] -->\n'
        'It asks <!-- value: calls("v1") -->{}<!-- end -->, <!-- another comment -->\n'
        "[`Server.send`]({}stages/v3/server.py#L{}).\n"
    )
    page, root = tmp_path / "page.md", f"{os.path.relpath(ROOT, tmp_path)}/"
    old = text.format("old", 7, root, 7)
    send = blocks.functions("stages/v3/server.py")["Server.send"][0]
    lines = (ROOT / "stages/v3/server.py").read_text().splitlines()
    assert lines[send - 1].startswith("    def send(")
    new = text.format(
        f"[a page]({root}README.md)", "1 `recvfrom` + 1 `write` to the log", root, send
    )
    page.write_text(old, "utf-8")
    monkeypatch.setattr("stages.course.__main__.pages", lambda: [str(page)])
    assert main(["--check"]) == 5
    assert '\n-It asks <!-- value: calls("v1") -->7<!-- end -->' in capsys.readouterr().out
    assert page.read_text("utf-8") == old
    assert main([]) == 0
    assert page.read_text("utf-8") == new
    assert main(["--check"]) == 0
    assert main(["--chek"]) == 2


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


def test_features_are_ratios_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """3/2, 2/2 and 4/2. What nobody has measured says so, and asks for nothing."""
    samples = [*loaded("flood 10", "v5", 2, 2, 2), *loaded("flood 10", "v5 --db FILE", 3, 2, 4)]
    made_up = {**ABOUT, "problems": [], "samples": samples}
    made_up["derived"] = figures.derived(made_up)
    for module in (blocks, chat):
        monkeypatch.setattr(module, "results", lambda name: made_up)
    cells = rows(f"\n## v5\n{chat.features()}", "v5")
    assert cells["history in a file"][1:] == ["-", "1.50 (1.25-1.75)", "-", "-", "-", "-"]
    assert cells["TLS"][1:] == ["not measured", *["-"] * 5]
