"""The picture of the page: what stands in the README, and the command that has made it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL.PngImagePlugin import PngImageFile

from benchmarks.harness import browser
from stages.course.picture import DESK, PHONE, PICTURE, SCALE
from tests.support.needed import needed_in_ci
from tests.support.run import ends

COMMAND = "python -m stages.course.picture"
LARGEST = 300_000
"""Bytes: what a reader of the README waits for."""


def check(path: Path, command: str) -> None:
    with PngImageFile(path) as image:
        assert image.height == DESK[1] * SCALE
        assert image.width > (DESK[0] + PHONE[0]) * SCALE
        about = image.text
    assert about["command"] == command
    assert about.keys() >= {"browser", "commit", "date", "kernel", "python"}
    assert path.stat().st_size < LARGEST


def test_picture_says_what_has_made_it() -> None:
    check(PICTURE, COMMAND)


@pytest.mark.long
def test_command_makes_it(tmp_path: Path) -> None:
    if reason := browser.missing():
        needed_in_ci(reason)
    output = str(tmp_path / "page.png")
    ends([sys.executable, *COMMAND.split()[1:], "--output", output], 0)
    check(Path(output), f"{COMMAND} --output {output}")
