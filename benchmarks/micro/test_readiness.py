"""What it costs to ask who is ready, with K descriptors to ask about.

The picture that explains epoll: select() and poll() hand over all K each time and walk through
them, epoll's list of the ready is kept by the kernel. One descriptor is ready, or all are. CPU
time of the asking thread; the descriptors are eventfds.
"""

from __future__ import annotations

import os
import select
import selectors
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from benchmarks.conftest import eventfds

Ask = Callable[[], Any]


def ask_select(fds: Sequence[int]) -> tuple[Ask, Callable[[], None]]:
    return (lambda: select.select(fds, [], [], 0)), (lambda: None)


def ask_poll(fds: Sequence[int]) -> tuple[Ask, Callable[[], None]]:
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return (lambda: poll.poll(0)), (lambda: None)


def ask_epoll(fds: Sequence[int]) -> tuple[Ask, Callable[[], None]]:
    epoll = select.epoll()
    for fd in fds:
        epoll.register(fd, select.EPOLLIN)
    return (lambda: epoll.poll(0, len(fds))), epoll.close


def ask_selectors(fds: Sequence[int]) -> tuple[Ask, Callable[[], None]]:
    selector = selectors.DefaultSelector()
    for fd in fds:
        selector.register(fd, selectors.EVENT_READ)
    return (lambda: selector.select(0)), selector.close


ASKERS = {"select": ask_select, "poll": ask_poll, "epoll": ask_epoll, "selectors": ask_selectors}
COUNTS = (10, 100, 1000, 10_000)


@pytest.fixture
def fds(count: int, asker: str, descriptors: int) -> Iterator[list[int]]:
    if count + 200 > descriptors:
        pytest.skip(f"{count} descriptors are more than the limit of {descriptors} permits")
    made = eventfds(count)
    try:
        if asker == "select" and max(made) >= 1024:
            pytest.skip("select(2) takes no descriptor above 1023")
        yield made
    finally:
        for fd in made:
            os.close(fd)


@pytest.mark.parametrize("asker", ASKERS)
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("ready", ["one", "all"])
@pytest.mark.benchmark(timer=time.thread_time, max_time=0.2, min_rounds=5)
def test_readiness(benchmark: Any, fds: list[int], asker: str, count: int, ready: str) -> None:
    benchmark.group = f"readiness: {ready} of {count} ready"
    for fd in fds if ready == "all" else fds[count // 2 :][:1]:
        os.eventfd_write(fd, 1)
    ask, close = ASKERS[asker](fds)
    try:
        answer = benchmark(ask)
    finally:
        close()
    found = answer[0] if asker == "select" else answer
    assert len(found) == (count if ready == "all" else 1)
