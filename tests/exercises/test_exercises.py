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
from tests.support.run import running

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
    """What is under one heading of the page: its prose, and its blocks."""

    text: str
    patches: list[str]
    copied: str = ""  # what its first command makes mine.py of
    commands: list[list[str]] = field(default_factory=list)
    before: str = ""
    after: str = ""


def parts() -> dict[str, Part]:
    """By the names of their patches."""
    by_id = {}
    for section in re.split(r"^(?=##)", PAGE.read_text(), flags=re.MULTILINE):
        part = Part(section, re.findall(r"tests/exercises/([\w-]+)\.patch\)", section))
        prose = ""
        for text, language, block in re.findall(
            r"(.*?)^```(\w+)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE
        ):
            prose = text.strip().rpartition("\n\n")[2] or prose
            if language == "sh":
                part.commands += map(shlex.split, block.splitlines())
            elif prose.startswith("Before"):
                part.before += block
            else:
                part.after += block
        if part.commands and part.commands[0][0] == "cp" and part.commands[0][2] == "mine.py":
            part.copied = part.commands.pop(0)[1]
        if part.commands:
            by_id["+".join(part.patches) or UNCHANGED] = part
    # What remains of the part without a patch tells how to apply one.
    by_id[UNCHANGED].commands = [words for words in by_id[UNCHANGED].commands if CHECKS in words]
    return by_id


PARTS = parts()


@dataclass
class Outcome:
    """What the commands of a part printed, and which tests passed and failed, by their ids."""

    output: str = ""
    passed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)


def copy_tree(tree: Path) -> None:
    """What a reader has before the first command, but for the results."""
    ignored = shutil.ignore_patterns("results", "go", "__pycache__")
    tree.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, tree / name)


def run(name: str, tree: Path) -> Outcome:
    """Run the commands of a part in a copy of the tree."""
    part, outcome = PARTS[name], Outcome()
    copy_tree(tree)
    if part.copied:
        shutil.copy(tree / part.copied, tree / "mine.py")
    if name in IMPATIENT:
        harness = tree / "benchmarks" / "harness" / "process.py"
        text = harness.read_text()
        assert text.count("DEADLINE = 15.0\n") == 1
        harness.write_text(text.replace("DEADLINE = 15.0\n", "DEADLINE = 2.0\n"))
    for patch in part.patches:
        call(["git", "apply", str(PATCHES / f"{patch}.patch")], tree)
    for words in part.commands:
        if words[:2] != ["git", "restore"]:
            run_command(words, tree, outcome)
    return outcome


def run_command(words: list[str], tree: Path, outcome: Outcome) -> None:
    report = tree / "report.xml"
    report.unlink(missing_ok=True)
    if words[0] == ".venv/bin/python":
        # -S: no site-packages, which no server here needs; and python3 may be a slow shim.
        python3 = f"{shlex.quote(sys.executable)} -S "
        words = [re.sub(r"^python3 (?=.*\{port\})", lambda _: python3, word) for word in words]
        words = [sys.executable, *words[1:], *NARROWED.get(words[1], [])]
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
        results = {child.tag for child in case}
        if "skipped" in results:
            needed_in_ci(f"what {test} needs")
        (outcome.failed if results & {"failure", "error"} else outcome.passed).add(test)


def call(words: list[str], tree: Path) -> str:
    # Its own session, so that it can be ended together with the servers that it started. A
    # tree that happens to lie in a repository must not change what `git apply` does.
    with running(
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


def without_numbers(text: str) -> str:
    """Ports, times and counts are of one run."""
    return re.sub(r"\d+(\.\d+)?", "0", text)


def assert_printed(shown: str, output: str) -> None:
    """Each line of an error that the page shows, up to a …, was printed."""
    printed = without_numbers(output)
    for line in re.findall(r"^E +(.*)", shown, re.MULTILINE):
        assert without_numbers(line.partition("…")[0]) in printed, f"shown, not printed: {line}"


@pytest.mark.long
@pytest.mark.parametrize("exercise", PARTS)
def test_page_shows_what_its_commands_do(exercise: str, tmp_path: Path) -> None:
    part, outcome = PARTS[exercise], run(exercise, tmp_path / "tree")
    failed = outcome.failed
    shown = set(re.findall(r"^FAILED (\S+(?: .*\])?)$", part.after, re.MULTILINE))
    complete = "\n…\n" not in part.after
    assert shown == failed if complete else shown <= failed, outcome.output[-5000:]
    for test in re.findall(r"`(test_\w+)`", part.text):
        here = {id for id in outcome.passed | failed if f"::{test}[" in id}
        assert here, f"{test} is not among the tests that the commands run"
        assert here & shown or not here & failed, f"{test} fails, and the page does not say so"
    assert_printed(part.after, outcome.output)
    if exercise == UNCHANGED:
        # A check that cannot fail proves nothing. nagle's fails when its exercise is done.
        assert outcome.passed == {f"{CHECKS}::test_nagle_keeps_no_line_back[v3]"}
        before = [other.before for other in PARTS.values() if other.before]
        assert len(before) == 4
        for text in before:
            assert "\nE " in f"\n{text}"
            assert_printed(text, outcome.output)
    if exercise == "5-coalesce":
        rows = re.findall(r"^.* (\S+) +sendto \d", outcome.output, re.MULTILINE)
        if not rows and not shutil.which("strace"):
            needed_in_ci("strace is not installed (apt-get install strace)")
        of_v3, of_mine = map(float, rows)
        assert of_v3 == 1 < of_mine, "messages per send"


def test_every_patch_applies(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    copy_tree(tree)
    for part in PARTS.values():
        if part.copied:
            shutil.copy(tree / part.copied, tree / "mine.py")
        for patch in part.patches:  # of several each is for the copy
            call(["git", "apply", "--check", str(PATCHES / f"{patch}.patch")], tree)


def test_every_patch_is_on_the_page_and_numbered_as_its_exercise() -> None:
    linked = {patch for part in PARTS.values() for patch in part.patches}
    assert linked == {path.stem for path in PATCHES.glob("*.patch")}
    number = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            number = line.split()[1]
        for patch in re.findall(r"\[(?:A solution|The breakage)\]\(\S+/([\w-]+)\.patch\)", line):
            assert f"{patch.partition('-')[0]}." == number
