"""Optional parts that a run may lack, and CI may not."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from benchmarks.harness.server import missing

TOO_OLD = "hace falta Linux 6.1"


def needed_in_ci(reason: str) -> NoReturn:
    """Skip the test, but fail it where everything has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"must be there when CI=true: {reason}")
    pytest.skip(reason)


def needs(name: str, python: str) -> None:
    """Skip the test where this server cannot be started; a kernel too old for it is a reason in CI,
    too."""
    reason = missing(name, python)
    if TOO_OLD in reason:
        pytest.skip(reason)
    if reason:
        needed_in_ci(f"{python}: {reason}")
