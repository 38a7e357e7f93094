"""Optional parts that a run may lack, and CI may not."""

from __future__ import annotations

import functools
import os
import subprocess
from typing import NoReturn

import pytest

from benchmarks.harness.files import ROOT

TOO_OLD = "hace falta Linux 6.1"


def needed_in_ci(reason: str) -> NoReturn:
    """Skip the test, but fail it where everything has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"must be there when CI=true: {reason}")
    pytest.skip(reason)


@functools.lru_cache(maxsize=None)
def why_no_uring(python: str) -> str:
    """What stops the server on io_uring, in its own words; "": nothing."""
    command = [python, "-S", "-c", "from lowlevel.uring.ring import Ring; Ring(8)"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stderr.strip().rpartition("Unavailable: ")[2]


def needs_uring(python: str) -> None:
    """Skip the test where there is no io_uring; in CI only a kernel too old for it is a reason."""
    reason = why_no_uring(python)
    if TOO_OLD in reason:
        pytest.skip(reason)
    if reason:
        needed_in_ci(reason)
