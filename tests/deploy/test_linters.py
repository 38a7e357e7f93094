"""The files that containers are made of, read as their linters read them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.files import ROOT
from tests.support.needed import needed_in_ci

IMAGES = sorted((ROOT / "tests/container/images").iterdir())


@pytest.mark.parametrize(
    "command",
    [
        f"hadolint Dockerfile {' '.join(map(str, IMAGES))}",
        "check-jsonschema --builtin-schema vendor.compose-spec compose.yaml",
    ],
    ids=lambda command: command.split()[0],
)
def test_linter_has_nothing_to_say(command: str) -> None:
    program, *arguments = command.split()
    path = Path(sys.executable).with_name(program)
    if not path.exists():
        needed_in_ci(f"{program} is not installed: pip install -e '.[dev]'")
    done = subprocess.run([path, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
