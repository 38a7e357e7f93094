"""What it costs to ask who is ready, with K descriptors to ask about.

The picture that explains epoll: select() and poll() hand over all K each time and walk through
them, epoll's list of the ready is kept by the kernel. One descriptor is ready, or all are. CPU
time of the asking thread; the descriptors are eventfds.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.compare.samples import FD_SETSIZE, WAITS, ask_by
from benchmarks.conftest import eventfds

COUNTS = (10, 100, 1000, 10_000)


@pytest.fixture
def fds(count: int, asker: str) -> Iterator[list[int]]:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if count + 200 > limit:
        pytest.skip(f"{count} descriptors are more than the limit of {limit} permits")
    with eventfds(count) as fds:
        if asker == "select" and max(fds) >= FD_SETSIZE:
            pytest.skip(f"select(2) takes no descriptor of {FD_SETSIZE} or more")
        yield fds


@pytest.mark.parametrize("asker", WAITS)
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("ready", ["one", "all"])
@pytest.mark.benchmark(timer=time.thread_time, max_time=0.2, min_rounds=5)
def test_readiness(benchmark: Any, fds: list[int], asker: str, count: int, ready: str) -> None:
    benchmark.group = f"readiness: {ready} of {count} ready"
    for fd in fds if ready == "all" else fds[count // 2 :][:1]:
        os.eventfd_write(fd, 1)
    answer = benchmark(ask_by(asker, fds, count))
    assert len(answer) == (count if ready == "all" else 1)
