"""Random schedules of faults (`schedules`)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.harness.broker import Nats
from tests.bus import schedules


@pytest.mark.unsteady
def test_a_few_schedules(nats: Nats) -> None:
    asyncio.run(schedules.run(range(2), nats))


@pytest.mark.unsteady
@pytest.mark.parametrize("first", range(0, 130, 10))
def test_many_schedules(nats: Nats, first: int) -> None:
    asyncio.run(schedules.run(range(first, first + 10), nats))


@pytest.mark.unsteady
@pytest.mark.parametrize("first", range(130, 210, 10))
def test_many_schedules_while_nats_is_killed(tmp_path: Path, first: int) -> None:
    with Nats(tmp_path / "nats") as nats:
        asyncio.run(schedules.run(range(first, first + 10), nats, restarts=True))
