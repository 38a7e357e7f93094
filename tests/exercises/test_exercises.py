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
    *("-p", "no:xdist", "-o", "addopts=--import-mode=importlib --strict-markers"),
]
"""For pytest: what none of these tests uses takes longer to import than some of them to run."""
NARROWED = {"profiling/syscalls.py": ["--clients", "10", "--messages", "50"]}
"""What is added to the page's command, so that it is quick."""
COPIED = (
    *("benchmarks", "lowlevel", "profiling", "stages", "tests"),
    *("conftest.py", "pyproject.toml", "setup.cfg"),
)
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


@dataclass
class Outcome:
    """What the commands of a part did: of each test, by its id, whether it passed."""

    output: str = ""
    passed: dict[str, bool] = field(default_factory=dict)

    def failed(self) -> set[str]:
        return {test for test, passed in self.passed.items() if not passed}


def run(part: Part, folder: Path) -> Outcome:
    """Run the commands of a part in a copy of the tree."""
    tree = folder / "tree"
    copy_tree(tree)
    if part.id in IMPATIENT:
        harness = tree / "benchmarks" / "harness" / "process.py"
        text = harness.read_text()
        assert text.count("DEADLINE = 15.0\n") == 1
        harness.write_text(text.replace("DEADLINE = 15.0\n", "DEADLINE = 2.0\n"))
    outcome = Outcome()
    commands = list(part.commands)
    while commands and re.match(r"cp \S+ mine\.py$", commands[0]):
        _, source, target = commands.pop(0).split()
        shutil.copy(tree / source, tree / target)
    for patch in part.patches:
        call(["git", "apply", str(PATCHES / f"{patch}.patch")], tree)
    if part.id == UNCHANGED:  # what remains tells how to apply a patch
        commands = [command for command in commands if CHECKS in command]
    for command in commands:
        if not command.startswith("git restore "):
            run_command(shlex.split(command), tree, outcome)
    return outcome


def run_command(words: list[str], tree: Path, outcome: Outcome) -> None:
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
    outcome.output += call(words, tree)
    if "pytest" not in words:
        return
    assert report.exists(), outcome.output
    cases = list(ElementTree.parse(report).iter("testcase"))
    assert cases, f"no test ran: {words}"
    for case in cases:
        test = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
        if case.find("skipped") is not None:
            needed_in_ci(f"what {test} needs")
        bad = case.find("failure") is not None or case.find("error") is not None
        outcome.passed[test] = not bad


def call(words: list[str], tree: Path) -> str:
    # Its own session, so that it can be ended together with the servers that it started. A
    # tree that happens to lie in a repository must not change what `git apply` does.
    with subprocess.Popen(
        words,
        cwd=tree,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0 or words[0] == sys.executable, output
    return output


def copy_tree(tree: Path) -> None:
    tree.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("results", "go", "__pycache__")
            shutil.copytree(ROOT / name, tree / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, tree / name)


def without_numbers(text: str) -> str:
    """Ports, times and counts are of one run."""
    return re.sub(r"\d+(\.\d+)?", "0", text)


def assert_printed(shown: str, output: str) -> None:
    """Each line of an error that the page shows, up to a …, was printed."""
    printed = without_numbers(output)
    for line in re.findall(r"^E +(.*)", shown, re.MULTILINE):
        assert without_numbers(line.partition("…")[0]) in printed, f"shown, not printed: {line}"


@pytest.mark.long
@pytest.mark.parametrize("part", PARTS)
def test_page_shows_what_its_commands_do(part: str, tmp_path: Path) -> None:
    page, seen = PARTS[part], run(PARTS[part], tmp_path)
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
    if part == UNCHANGED:
        passed = seen.passed.keys() - seen.failed()
        # A check that cannot fail proves nothing. nagle's fails when its exercise is done.
        assert passed == {f"{CHECKS}::test_nagle_keeps_no_line_back[v3]"}
        before = [other.before for other in PARTS.values() if other.before]
        assert len(before) == 4
        for text in before:
            assert "\nE " in f"\n{text}"
            assert_printed(text, seen.output)
    if part == "5-coalesce":
        rows = re.findall(r"^.* (\S+) +sendto \d", seen.output, re.MULTILINE)
        if not rows and not shutil.which("strace"):
            needed_in_ci("strace is not installed (apt-get install strace)")
        of_v3, of_mine = map(float, rows)
        assert of_v3 == 1 < of_mine, "messages per send"


def test_every_patch_applies(tmp_path: Path) -> None:
    copy_tree(tmp_path / "tree")
    for part in PARTS.values():
        for command in part.commands:
            if command.startswith("cp ") and command.endswith(" mine.py"):
                shutil.copy(ROOT / command.split()[1], tmp_path / "tree" / "mine.py")
        for patch in part.patches:  # of several each is for the copy
            call(["git", "apply", "--check", str(PATCHES / f"{patch}.patch")], tmp_path / "tree")


def test_every_patch_is_on_the_page_and_numbered_as_its_exercise() -> None:
    linked = {patch for part in PARTS.values() for patch in part.patches}
    assert linked == {path.stem for path in PATCHES.glob("*.patch")}
    number = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            number = line.split()[1]
        for patch in re.findall(r"\[(?:A solution|The breakage)\]\(\S+/([\w-]+)\.patch\)", line):
            assert f"{patch.partition('-')[0]}." == number
