"""-m benchmarks.scale, and what the page computes from its results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.harness.compiled import no_compiler
from benchmarks.harness.flood import SOURCE
from benchmarks.scale import __main__ as scale
from stages.course.scale import Costs, need
from tests.support.needed import needed_in_ci

COSTS = Costs(
    delivery=10e-6, publish=400e-6, read=100e-6, nats=50e-6, nats_reader=20e-6,
    in_bytes=100.0, out_bytes=10.0, reader_bytes=90.0, own=6.0, elsewhere=2.0, base=20_000.0,
)  # fmt: skip


@pytest.mark.long
def test_a_small_run(tmp_path: Path) -> None:
    """Each load on each number of servers; a message that comes alone is one of NATS, which every
    server reads."""
    if reason := no_compiler(SOURCE):
        needed_in_ci(reason)
    assert scale.main(["--rounds", "1", "--part", "0.05", "--output", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "scale.json").read_text("utf-8"))
    assert results["environment"]["nats-server"]
    loads = {(sample["servers"], sample["load"]): sample for sample in results["samples"]}
    assert {*loads} == {(count, load) for count in scale.SERVERS for load in scale.LOADS}
    for (count, load), sample in loads.items():
        assert len(sample["cpu_seconds"]) == (count or 1)
        assert sample["deliveries"] == sample["messages"] * (scale.LOADS[load][0] - 1)
        if count and load == "alone 100":
            assert sample["nats"]["in_msgs"] >= sample["messages"]
            assert sample["nats"]["out_msgs"] >= sample["messages"] * (1 + count)


def test_what_people_need() -> None:
    """60,000 who say one message a minute, in rooms of 21: 1,000 messages and 20,000 deliveries a
    second, so 0.6 CPUs of serving where each server has 0.5 - 0.1 for it."""
    it = need(COSTS, 60_000, 21, 1)
    assert (it.messages, it.deliveries, it.chats, it.servers) == (1000, 20_000, 1, 2)
    assert it.kib == 20_000 + 30_000 * 6 + 30_000 * 2
    assert (it.nats_in, it.nats_out, it.nats_bytes) == (1000, 3000, 1000 * 290)
    assert it.nats_cpu == pytest.approx(0.09)


def test_a_chat_is_divided_before_its_servers_only_read() -> None:
    """9,800 messages a second take nearly a whole CPU to be read: four chats, at a quarter."""
    it = need(COSTS, 588_000, 21, 1)
    assert (it.chats, it.servers) == (4, 6)
    assert it.kib == pytest.approx(20_000 + 24_500 * 6 + 122_500 * 2)
