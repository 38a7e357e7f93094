"""Optional parts that a run may lack, and CI may not."""

from __future__ import annotations

import functools
import os
import subprocess
from typing import NoReturn

import pytest

from benchmarks.harness.server import ROOT


def needed_in_ci(reason: str) -> NoReturn:
    """Skip the test, but fail it where everything has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"must be there when CI=true: {reason}")
    pytest.skip(reason)


@functools.lru_cache(maxsize=None)
def uring_needed(python: str) -> None:
    """Skip the test where io_uring cannot be had; but in CI the kernel must be the reason."""
    command = [python, "-S", "-c", "from lowlevel.uring.ring import Ring; Ring(8)"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        if "hace falta Linux" in reason:
            pytest.skip(reason)
        needed_in_ci(reason)
