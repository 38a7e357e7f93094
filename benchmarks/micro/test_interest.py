"""What it costs to change what is asked about, for one of K descriptors.

A server asks about writability only while bytes wait, so it changes its mind with every partial
send. With epoll that is a system call; with select() it is a change in a list of ours, paid for at
the next call, which is handed all of it.
"""

from __future__ import annotations

import select
import selectors
import time
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.conftest import eventfds

COUNTS = (10, 900)


@pytest.fixture
def fds(count: int) -> Iterator[list[int]]:
    with eventfds(count) as fds:
        yield fds


pytestmark = [
    pytest.mark.parametrize("count", COUNTS),
    pytest.mark.benchmark(timer=time.thread_time, max_time=0.2, min_rounds=5),
]


def test_epoll_modify(benchmark: Any, fds: list[int], count: int) -> None:
    benchmark.group = f"interest: twice for one of {count}"
    with select.epoll() as epoll:
        for fd in fds:
            epoll.register(fd, select.EPOLLIN)
        fd = fds[count // 2]

        def change() -> None:
            epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)
            epoll.modify(fd, select.EPOLLIN)

        benchmark(change)


def test_selectors_modify(benchmark: Any, fds: list[int], count: int) -> None:
    benchmark.group = f"interest: twice for one of {count}"
    with selectors.DefaultSelector() as selector:
        for fd in fds:
            selector.register(fd, selectors.EVENT_READ)
        fd = fds[count // 2]

        def change() -> None:
            selector.modify(fd, selectors.EVENT_READ | selectors.EVENT_WRITE)
            selector.modify(fd, selectors.EVENT_READ)

        benchmark(change)


def test_select_sets(benchmark: Any, fds: list[int], count: int) -> None:
    """v3's way: two sets that every select() walks through; the walk is counted in readiness."""
    benchmark.group = f"interest: twice for one of {count}"
    readers, writers = set(fds), set[int]()
    fd = fds[count // 2]

    def change() -> None:
        writers.add(fd)
        writers.discard(fd)

    benchmark(change)
    assert (len(readers), len(writers)) == (count, 0)


def test_select_lists_rebuilt(benchmark: Any, fds: list[int], count: int) -> None:
    """The way of many a tutorial: a list of writers made anew for each call."""
    benchmark.group = f"interest: twice for one of {count}"
    waiting = dict.fromkeys(fds, b"")

    def change() -> list[int]:
        fd = fds[count // 2]
        waiting[fd] = b"x"
        writers = [other for other in fds if waiting[other]]
        waiting[fd] = b""
        return writers + [other for other in fds if waiting[other]]

    assert benchmark(change) == fds[count // 2 :][:1]
