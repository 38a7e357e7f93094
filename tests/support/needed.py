"""Optional parts that a run may lack, and CI may not."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def needed_in_ci(reason: str) -> NoReturn:
    """Skip the test, but fail it where everything has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"must be there when CI=true: {reason}")
    pytest.skip(reason)
