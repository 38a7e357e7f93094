"""The pages' generated parts: what stands in them is what the results and the sources say today."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.compare.tables import number
from benchmarks.harness.server import ROOT, SERVERS
from tests.contract.test_syscalls import EXPECTED
from tests.support.needed import needed_in_ci

COURSE = ROOT / "stages" / "course"
MODELS = [name for name in SERVERS if "--" not in name]
ANEW = "run: python stages/course/pages.py"
MEASURED_ANEW = (
    "run: python profiling/roundtrip.py --output profiling/results && python stages/course/pages.py"
)
RESULTS = {
    # A block of results, and the files that it stands on.
    "servers": ("syscalls", "comparison"),
    "picture": ("comparison",),
    "cost v1": ("syscalls", "comparison"),
    "cost v4 v3": ("syscalls", "comparison"),
    "coalescing": ("comparison",),
    "readiness": ("comparison",),
    **{f"round {name}": ("rounds",) for name in MODELS},
}
Make = Callable[..., str]


@pytest.fixture(scope="module")
def pages() -> Iterator[ModuleType]:
    """stages/course/pages.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "profiling"))
        patch.syspath_prepend(str(COURSE))
        import pages

        yield pages


@pytest.fixture(scope="module")
def make(pages: ModuleType) -> Make:
    """The text of a page in the repository's folder, made anew."""
    inputs = pages.Inputs()

    def make(text: str, path: str = "README.md") -> str:
        made: str = pages.made(pages.Page(ROOT / path, inputs), text)
        return made

    return make


def block(words: str) -> str:
    return f"<!-- begin: {words} -->\n<!-- end -->\n"


def value(expression: str) -> str:
    return f"<!-- value: {expression} --><!-- end -->"


def text_of(made: str) -> str:
    """What a value has become."""
    found = re.fullmatch(r"<!-- value: .*? -->(.*)<!-- end -->", made)
    assert found, made
    return found[1]


def test_pages_are_made_of_today_s_results_and_sources(pages: ModuleType) -> None:
    found = list(pages.pages(ROOT))
    assert ROOT / "README.md" in found
    for path, old, new in pages.remade(found, pages.Inputs()):
        name = pages.shown(path, ROOT)
        difference = "\n".join(pages.unified(name, old, new))
        assert not difference, f"{ANEW}\n{difference}"


def test_blocks_and_values_in_a_text(
    make: Make, pages: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pages.BLOCKS, "echo", lambda page, a, b="-": f"made of {a}\nand {b}")
    text = (
        "before\n<!-- begin: echo 'one thing' -->\nold\n```\n<!-- end -->\nbetween\n"
        f"Calls: <!-- value: calls/v3/10 -->7<!-- end --> and {value('calls/v3/2')},\n"
        "in code `<!-- begin: x -->` and `` <!-- value: ` --> ``, <!-- another comment -->\n"
        "```md\n<!-- begin: unknown -->\n<!-- end -->\n```\n"
    )
    made = make(f"{text}{block('echo a b')}last")
    assert made == (
        "before\n<!-- begin: echo 'one thing' -->\n\nmade of one thing\nand -\n\n<!-- end -->\n"
        "between\n"
        "Calls: <!-- value: calls/v3/10 -->11<!-- end --> and "
        "<!-- value: calls/v3/2 -->3<!-- end -->,\n"
        "in code `<!-- begin: x -->` and `` <!-- value: ` --> ``, <!-- another comment -->\n"
        "```md\n<!-- begin: unknown -->\n<!-- end -->\n```\n"
        "<!-- begin: echo a b -->\n\nmade of a\nand b\n\n<!-- end -->\nlast"
    )
    assert make(made) == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n<!-- begin: nothing -->\n<!-- end -->", "2: no block is called 'nothing', only "),
        ("<!-- begin: readiness -->\n\n", "1: the block has no <!-- end -->"),
        (block("readiness v3"), "1: 'readiness v3': wanted is 'readiness'"),
        (block("round"), "1: 'round': wanted is 'round SERVER'"),
        (block("cost"), "1: 'cost': wanted is 'cost SERVER [PREVIOUS]'"),
        (block("cost v9"), "1: server 'v9': none of v1, v2"),
        (block("round c"), "1: server 'c': none of v1, v2"),
        (block("diff v3 epoll"), "1: server 'epoll': none of v1, v2, v3, v4, uvloop"),
        (block("places v1 selectors"), "1: v1 and selectors have no job in common"),
        (block("cost 'v3"), '1: "cost \'v3": No closing quotation'),
        (
            "<!-- begin: readiness -->\n<!-- begin: servers -->\n<!-- end -->\n<!-- end -->",
            "2: a marker in the block that begins in line 1",
        ),
        (
            f"<!-- begin: readiness -->\n{value('rounds/comparison')}\n<!-- end -->",
            "2: a marker in the block that begins in line 1",
        ),
        ("text\n<!-- end -->", "2: 'end' is not alone in its line, or ends nothing"),
        ("a <!-- begin: servers -->", "1: 'begin' is not alone in its line, or ends nothing"),
        ("<!-- value: rounds/comparison -->9", "1: a value has no <!-- end --> in its line"),
        (value("rounds"), "1: value: not an expression: 'rounds'"),
        (value("cpu_us/flood 100/v9"), "1: cpu_us/flood 100/v9: there is no 'v9', only v3"),
        (value("calls/v9/3"), "1: calls/v9/3: there is no 'v9', only v1"),
        (value("ratio cpu_us/flood 100/v4 memory_kib/v4"), "1: ratio of µs and KiB"),
    ],
)
def test_a_marker_that_is_wrong(make: Make, pages: ModuleType, text: str, message: str) -> None:
    with pytest.raises(pages.PageError) as error:
        make(text)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_command_line(pages: ModuleType, tmp_path: Path, capsys: Any) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"calls: {value('calls/v3/10')}\n", "utf-8")
    assert pages.main(["--check", str(page)]) == 1
    shown = capsys.readouterr().out
    assert "\n-calls: <!-- value: calls/v3/10 --><!-- end -->\n+calls: <!-- value" in shown
    assert "11" not in page.read_text("utf-8"), "--check writes nothing"
    assert pages.main([str(page)]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    assert "-->11<!--" in page.read_text("utf-8")
    assert pages.main([str(page)]) == 0
    assert pages.main(["--check", str(page)]) == 0
    assert capsys.readouterr() == ("", "")
    other = tmp_path / "other.md"
    page.write_text(value("calls/v3/10"), "utf-8")
    other.write_text("\n<!-- end -->", "utf-8")
    assert pages.main([str(page), str(other)]) == 1
    assert capsys.readouterr().err == (
        f"pages: {other}:2: 'end' is not alone in its line, or ends nothing\n"
    )
    assert page.read_text("utf-8") == value("calls/v3/10"), "all pages, or none"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.md", "page.md"]


@pytest.mark.parametrize("words", RESULTS)
def test_a_block_of_results_says_what_they_were_measured_on(
    make: Make, pages: ModuleType, words: str
) -> None:
    made = make(block(words), "stages/v3/README.md")
    for name in RESULTS[words]:
        found = getattr(pages.Inputs(), name)["environment"]
        for part in ("command", "date", "cpu", "kernel", "python"):
            assert found[part] in made, f"{name}: {part}"
    assert str(ROOT) not in made, "a path of this machine"


def test_values(make: Make, pages: ModuleType) -> None:
    from page_values import FIGURES

    inputs = pages.Inputs()
    derived = inputs.comparison["derived"]

    def made(expression: str) -> str:
        return text_of(make(value(expression)))

    for figure, unit in FIGURES.items():
        workload = "flood 100" if "send" in figure else "lock-step 100"
        median = derived[figure][workload]["epoll --flush message"]["median"]
        assert made(f"{figure}/{workload}/epoll --flush message") == f"{number(median)}{unit}"
    assert made("memory_kib/v4") == f"{number(derived['memory_kib']['v4'])} KiB"
    waits = derived["readiness_us"]
    assert made("readiness_us/select/1000") == f"{number(waits['select']['1000']['median'])} µs"
    assert made("ratio readiness_us/select/1000 readiness_us/epoll/1000") == number(
        waits["select"]["1000"]["median"] / waits["epoll"]["1000"]["median"]
    )
    assert made("calls/v4/100") == "102"
    assert made("calls/go/10").startswith("~")
    assert made("rounds/comparison") == str(inputs.comparison["parameters"]["rounds"])


@pytest.mark.parametrize("server", EXPECTED)
def test_the_counts_are_those_that_the_tests_hold(pages: ModuleType, server: str) -> None:
    from page_inputs import evaluate

    found = pages.Inputs().syscalls["servers"][server]
    for clients in (2, 3, 7, 100):
        expected = EXPECTED[server](clients)
        assert {call: evaluate(text, clients) for call, text in found["formula"].items()} == (
            expected
        ), "run: python profiling/syscalls.py --output profiling/results, and then pages.py"
        assert evaluate(found["all"], clients) == sum(expected.values())


def test_formulas(pages: ModuleType) -> None:
    from page_inputs import evaluate

    texts = ("3", "N", "N - 1", "N + 2", "2 (N - 1)", "3 N", "2 N + 4")
    assert [evaluate(text, 10) for text in texts] == [3, 10, 9, 12, 18, 30, 24]
    with pytest.raises(pages.PageError):
        evaluate("N * N", 10)


def test_places_are_functions_that_exist(make: Make, pages: ModuleType) -> None:
    from page_source import line_of

    for pair in ("v1 v2", "v2 v3", "v3 v4", "v4 epoll", "selectors epoll"):
        made = make(block(f"places {pair}"), "stages/v3/README.md")
        links = re.findall(r"\[`([\w.]+)`\]\(([\w./]+)#L(\d+)\)", made)
        assert len(links) > 5
        for name, path, line in links:
            text = (ROOT / "stages" / "v3" / path).read_text("utf-8").splitlines()
            assert f"def {name.rpartition('.')[2]}(" in text[int(line) - 1]
    with pytest.raises(pages.PageError, match="has no function Server"):
        line_of(pages.Inputs(), "stages/v3/server.py", "Server.sing")


def test_a_diff_leads_from_one_server_to_the_next(make: Make) -> None:
    """Its lines are those of the files, the docstrings apart, and hunks name their function."""
    made = make(block("diff v2 v3"))
    assert "\n@@ Server.turn @@\n" in made
    body = [line for line in made.splitlines() if line[:1] in "+-" and line[:3] not in "---+++"]
    for sign, stage in (("-", "v2"), ("+", "v3")):
        text = (ROOT / "stages" / stage / "server.py").read_text("utf-8").splitlines()
        assert {line[1:] for line in body if line[0] == sign} <= set(text)
    assert "\n+    uvloop.run(" in make(block("diff v4 uvloop"))


def test_reading_does_not_count_what_is_generated(pages: ModuleType) -> None:
    from page_source import prose

    text = f"four words stand here\n```sh\nnone\n```\n{value('x')} is [one](two/three).\n"
    assert prose(text) == prose(f"{text}<!-- begin: x -->\nmore and more\n<!-- end -->\n") == 7


@pytest.mark.parametrize(
    ("results", "text", "message"),
    [
        ("comparison", None, "comparison.json: No such file"),
        ("comparison", "{}", "there is no 'environment'"),
        ("syscalls", None, "syscalls.json: No such file"),
        ("syscalls", "[", "not JSON"),
        ("syscalls", "{}", "not whole: KeyError: 'environment'"),
        ("rounds", "[]", "not whole: TypeError: "),
    ],
)
def test_results_that_are_not_there_or_not_whole(
    pages: ModuleType, tmp_path: Path, results: str, text: str | None, message: str
) -> None:
    from page_inputs import FILES

    path = tmp_path / FILES[results]
    if text is not None:
        path.parent.mkdir(parents=True)
        path.write_text(text)
    words = {"comparison": "readiness", "syscalls": "cost v3", "rounds": "round v3"}[results]
    with pytest.raises(pages.PageError) as error:
        pages.made(pages.Page(tmp_path / "page.md", pages.Inputs(tmp_path)), block(words))
    assert message in str(error.value)
    assert str(error.value).startswith(f"1: {FILES[results]}: ")
    assert "\n" not in str(error.value)


def test_what_chance_puts_into_a_round_is_taken_out(pages: ModuleType) -> None:
    from calls.rounds import steady

    def call(kind: str, text: str, why: str) -> dict[str, Any]:
        return {"call": kind, "text": text, "lines": [["a.py:1", "x"]], "why": why}

    said = "\"('127.0.0.1', 40007) dice: 40007\""
    found = [
        call(
            "epoll_wait", "epoll_wait(5, [{events=EPOLLIN, data={u32=8, u64=77}}], 5, -1) = 1", ""
        ),
        call("sendto", f"sendto(9, {said})", "delivers to client 10"),
        call("sendto", f"sendto(8, {said})", "delivers to client 9"),
        call("write", f"write(1, {said})", "the log, to stdout"),
    ]
    assert [row["text"] for row in steady(found, {"40007": 2})] == [
        "epoll_wait(5, [{events=EPOLLIN, data={u32=8}}], 5, -1) = 1",
        "sendto(8, \"('127.0.0.1', 50002) dice: 40007\")",
        "sendto(9, \"('127.0.0.1', 50002) dice: 40007\")",
        "write(1, \"('127.0.0.1', 50002) dice: 40007\")",
    ]


@pytest.mark.parametrize(
    "arguments",
    [["v1", "v2"], ["--output", "results", "--cmd", "x {port}"], ["--output", "x", "--json", "v3"]],
)
def test_rounds_of_bad_arguments(arguments: list[str]) -> None:
    command = [sys.executable, str(ROOT / "profiling" / "roundtrip.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: " in done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A round of each server, as roundtrip.py measures it now; or what it says instead."""
    if not shutil.which("strace"):
        needed_in_ci("strace is not installed (apt-get install strace)")
    folder = tmp_path_factory.mktemp("rounds")

    def measure(name: str) -> Any:
        output = folder / name
        command = [
            sys.executable,
            str(ROOT / "profiling" / "roundtrip.py"),
            name,
            "--output",
            str(output),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return done.stderr
        found = json.loads((output / "rounds.json").read_text("utf-8"))
        assert str(ROOT) not in json.dumps(found), "a path of this machine"
        return found["servers"][name]

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(MODELS, pool.map(measure, MODELS)))


@pytest.mark.parametrize("server", MODELS)
def test_rounds_are_those_of_today_s_source(
    pages: ModuleType, measured: dict[str, Any], server: str
) -> None:
    """Which calls, made by which lines of ours, and what for; the latter under the same Python."""
    found = measured[server]
    if isinstance(found, str):
        assert "uvloop is not installed" in found, found
        needed_in_ci(found)
    rounds = pages.Inputs().rounds
    major, minor = sys.version_info[:2]
    same = rounds["environment"]["python"].startswith(f"CPython {major}.{minor}.")

    def kept(calls: Any) -> Any:
        return [
            (
                call["call"],
                [line for line in call["lines"] if re.search(r"\.py:\d", line[0])],
                *([call["why"]] if same else []),
            )
            for call in calls
        ]

    assert kept(found) == kept(rounds["servers"][server]), MEASURED_ANEW
