"""The page of exercises is true: each patch of tests/exercises/ is applied to a copy of the tree,
the page's commands are run there, and the tests that fail are those that the page shows.

The page is taken apart into parts, at its headings. A part that links to patches is an exercise:
its ```sh blocks are run, but for what restores the tree; its ```text blocks are compared with what
that printed, those after "Before" with what the checks say about the servers as they are.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.harness.files import ROOT
from tests.support.needed import needed_in_ci

PAGE = ROOT / "stages" / "exercises.md"
PATCHES = ROOT / "tests" / "exercises"
CHECKS = "tests/exercises/exercise_checks.py"
UNCHANGED = "unchanged"
"""The run of the checks without a patch."""

IMPATIENT = {"1-framing", "2-threads", "7-one-newcomer"}
"""Where a test fails because nothing comes. What has not come after 2 s instead of 15 s does not
come: whatever passes in these runs does so within milliseconds, and the contract allows 1 s."""
QUICK = [
    *("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:benchmark"),
    *("-o", "addopts=--import-mode=importlib --strict-markers"),
]
"""For pytest: what none of these tests uses takes longer to import than some of them to run."""
NARROWED = {"profiling/syscalls.py": ["--clients", "10", "--messages", "50"]}
"""What is added to the page's command, so that it is quick."""
COPIED = ("benchmarks", "lowlevel", "profiling", "stages", "tests", "pyproject.toml", "setup.cfg")
AT_A_TIME = 4
PATIENCE = 100.0
"""Seconds for one command."""


@dataclass
class Part:
    """What is under one heading of the page."""

    text: str
    patches: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    before: str = ""
    after: str = ""

    @property
    def id(self) -> str:
        return "+".join(self.patches) or UNCHANGED


def parts() -> list[Part]:
    found = []
    for section in re.split(r"^(?=##)", PAGE.read_text(), flags=re.MULTILINE):
        part = Part(section, re.findall(r"tests/exercises/([\w-]+)\.patch\)", section))
        prose = ""
        for text, language, block in re.findall(
            r"(.*?)(?:^```(\w+)\n(.*?)^```$|\Z)", section, re.DOTALL | re.MULTILINE
        ):
            prose = text.strip().rpartition("\n\n")[2] or prose
            if language == "sh":
                part.commands += block.splitlines()
            elif prose.startswith("Before"):
                part.before += block
            elif language:
                part.after += block
        if part.commands:
            found.append(part)
    return found


PARTS = {part.id: part for part in parts()}
EXERCISES = [part for part in PARTS if part != UNCHANGED]


@dataclass
class Outcome:
    """What the commands of a part did: of each test, by its id, whether it passed."""

    output: str = ""
    passed: dict[str, bool] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)

    def failed(self) -> set[str]:
        return {test for test, passed in self.passed.items() if not passed}


class Runner:
    """Runs the page's commands, in copies of the tree, and leaves no process behind."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._processes: list[subprocess.Popen[str]] = []
        self._closing = False

    def run(self, part: Part) -> Outcome:
        tree = self._folder / part.id
        copy_tree(tree)
        if part.id in IMPATIENT:
            harness = tree / "benchmarks" / "harness" / "server.py"
            text = harness.read_text()
            assert text.count("DEADLINE = 15.0\n") == 1
            harness.write_text(text.replace("DEADLINE = 15.0\n", "DEADLINE = 2.0\n"))
        outcome = Outcome()
        commands = list(part.commands)
        while commands and re.match(r"cp \S+ mine\.py$", commands[0]):
            _, source, target = commands.pop(0).split()
            shutil.copy(tree / source, tree / target)
        for patch in part.patches:
            self._call(["git", "apply", str(PATCHES / f"{patch}.patch")], tree)
        if part.id == UNCHANGED:  # what remains tells how to apply a patch
            commands = [command for command in commands if CHECKS in command]
        for command in commands:
            if not command.startswith("git restore "):
                self._command(shlex.split(command), tree, outcome)
        return outcome

    def _command(self, words: list[str], tree: Path, outcome: Outcome) -> None:
        report = tree / "report.xml"
        report.unlink(missing_ok=True)
        if words[0] == ".venv/bin/python":
            # -S: no site-packages, which no server here needs; and python3 may be a slow shim.
            python3 = f"{shlex.quote(sys.executable)} -S "
            words = [re.sub(r"^python3 (?=.*\{port\})", lambda _: python3, word) for word in words]
            words[0] = sys.executable
            words += NARROWED.get(words[1], [])
            if words[1:3] == ["-m", "pytest"]:
                if "-k" not in words and not words[3].startswith("tests/"):
                    words.append("tests/contract/test_contract.py")  # the only file with wire tests
                words += [*QUICK, f"--junitxml={report}"]
        outcome.output += self._call(words, tree)
        if "pytest" not in words:
            return
        assert report.exists(), outcome.output
        cases = list(ElementTree.parse(report).iter("testcase"))
        assert cases, f"no test ran: {words}"
        for case in cases:
            test = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
            if case.find("skipped") is not None:
                outcome.skipped.add(test)
            else:
                bad = case.find("failure") is not None or case.find("error") is not None
                outcome.passed[test] = not bad

    def _call(self, words: list[str], tree: Path) -> str:
        # Its own session, so that it can be ended together with the servers that it started. A
        # tree that happens to lie in a repository must not change what `git apply` does.
        environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(self._folder)}
        with subprocess.Popen(
            words,
            cwd=tree,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        ) as process:
            self._processes.append(process)
            if self._closing:
                self._end(process)
            try:
                output, _ = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                self._end(process)
                output, _ = process.communicate()
                output += f"\n{words}: still running after {PATIENCE:g} s"
        assert process.returncode == 0 or words[0] == sys.executable, output
        return output

    def _end(self, process: subprocess.Popen[str]) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def close(self) -> None:
        self._closing = True
        for process in self._processes:
            if process.poll() is None:
                self._end(process)


def copy_tree(tree: Path) -> None:
    tree.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("results", "go")
            shutil.copytree(ROOT / name, tree / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, tree / name)


@pytest.fixture(scope="module")
def outcome(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Outcome]]:
    """What came of a part of the page. All parts that the tests of this run ask for are begun at
    once, a few at a time."""
    runner = Runner(tmp_path_factory.mktemp("exercises"))
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    wanted = {item.callspec.params.get("part") for item in tests if hasattr(item, "callspec")}
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        futures: dict[str, Future[Outcome]] = {
            name: pool.submit(runner.run, part)
            for name, part in sorted(PARTS.items(), key=lambda item: item[0] not in IMPATIENT)
            if name in wanted or name == UNCHANGED
        }
        try:
            yield lambda part: futures[part].result()
        finally:
            for future in futures.values():
                future.cancel()
            runner.close()


def without_numbers(text: str) -> str:
    """Ports, times and counts are of one run."""
    return re.sub(r"\d+(\.\d+)?", "0", text)


def assert_printed(shown: str, output: str) -> None:
    """Each line of an error that the page shows, up to a …, was printed."""
    printed = without_numbers(output)
    for line in re.findall(r"^E +(.*)", shown, re.MULTILINE):
        assert without_numbers(line.partition("…")[0]) in printed, f"shown, not printed: {line}"


def whole(outcome: Outcome) -> Outcome:
    """If nothing was skipped."""
    if outcome.skipped:
        needed_in_ci(f"what {', '.join(sorted(outcome.skipped))} needs")
    return outcome


@pytest.mark.parametrize("part", PARTS)
def test_page_shows_what_its_commands_do(outcome: Callable[[str], Outcome], part: str) -> None:
    page, seen = PARTS[part], whole(outcome(part))
    shown = set(re.findall(r"^FAILED (\S+(?: .*\])?)$", page.after, re.MULTILINE))
    if "\n…\n" in page.after:
        assert shown <= seen.failed(), seen.output[-5000:]
    else:
        assert shown == seen.failed(), seen.output[-5000:]
    for name in re.findall(r"`(test_\w+)`", page.text):
        here = {test: passed for test, passed in seen.passed.items() if f"::{name}[" in test}
        assert here, f"{name} is not among the tests that the commands run"
        failing = any(f"::{name}[" in test for test in shown)
        assert failing or all(here.values()), f"{name} fails, and the page does not say so"
    assert_printed(page.after, seen.output)


@pytest.mark.parametrize("part", [name for name in EXERCISES if PARTS[name].before])
def test_page_shows_what_the_checks_say_before(
    outcome: Callable[[str], Outcome], part: str
) -> None:
    assert "\nE " in f"\n{PARTS[part].before}"
    assert_printed(PARTS[part].before, whole(outcome(UNCHANGED)).output)


def test_all_checks_but_nagle_fail_before(outcome: Callable[[str], Outcome]) -> None:
    """A check that cannot fail proves nothing. nagle's fails when its exercise is done."""
    passed = [test for test, passed in whole(outcome(UNCHANGED)).passed.items() if passed]
    assert passed == [f"{CHECKS}::test_nagle_keeps_no_line_back[v3]"]


@pytest.mark.parametrize("part", ["6-pause"])
def test_pause_breaks_one_promise_of_the_contract(
    outcome: Callable[[str], Outcome], part: str
) -> None:
    slow = "test_one_who_does_not_read_delays_nobody_and_is_disconnected[custom]"
    assert whole(outcome(part)).failed() == {f"tests/contract/test_contract.py::{slow}"}


@pytest.mark.parametrize("part", ["5-coalesce"])
def test_coalesce_needs_fewer_sends(outcome: Callable[[str], Outcome], part: str) -> None:
    rows = re.findall(r"^.* (\S+)  sendto \d", outcome(part).output, re.MULTILINE)
    if not rows and not shutil.which("strace"):
        needed_in_ci("strace is not installed (apt-get install strace)")
    of_v3, of_mine = map(float, rows)
    assert of_v3 == 1
    assert of_mine > 1


def test_every_patch_is_on_the_page_and_numbered_as_its_exercise() -> None:
    linked = {patch for part in PARTS.values() for patch in part.patches}
    assert linked == {path.stem for path in PATCHES.glob("*.patch")}
    number = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            number = line.split()[1]
        for patch in re.findall(r"\[(?:A solution|The breakage)\]\(\S+/([\w-]+)\.patch\)", line):
            assert f"{patch.partition('-')[0]}." == number


def test_what_the_page_names_is_there() -> None:
    page = PAGE.read_text()
    for path in re.findall(r"\]\(([\w./-]+)\)", page):
        assert (PAGE.parent / path).exists(), path
    for path in re.findall(
        r"(?<![/.\w])(?:benchmarks|lowlevel|profiling|stages|tests)/[\w./-]*\w", page
    ):
        assert (ROOT / path).exists(), path
