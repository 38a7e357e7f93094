"""What it costs to change what is asked about, for one of K descriptors.

A server asks about writability only while bytes wait, so it changes its mind with every partial
send. With epoll that is a system call; with select() it is a change in a list of ours, paid for at
the next call, which is handed all of it.
"""

from __future__ import annotations

import select
import selectors
import time
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.conftest import eventfds

Change = Callable[[], object]
"""Asks about writability for the one in the middle, and no more."""


def epoll_modify(fds: list[int]) -> Change:
    epoll, one = select.epoll(), fds[len(fds) // 2]
    for fd in fds:
        epoll.register(fd, select.EPOLLIN)

    def change() -> None:
        epoll.modify(one, select.EPOLLIN | select.EPOLLOUT)
        epoll.modify(one, select.EPOLLIN)

    return change


def selectors_modify(fds: list[int]) -> Change:
    selector, one = selectors.DefaultSelector(), fds[len(fds) // 2]
    for fd in fds:
        selector.register(fd, selectors.EVENT_READ)

    def change() -> None:
        selector.modify(one, selectors.EVENT_READ | selectors.EVENT_WRITE)
        selector.modify(one, selectors.EVENT_READ)

    return change


def select_sets(fds: list[int]) -> Change:
    """v3's way: sets that every select() walks through; the walk is counted in readiness."""
    writers, one = set[int](), fds[len(fds) // 2]

    def change() -> None:
        writers.add(one)
        writers.discard(one)

    return change


def select_lists_rebuilt(fds: list[int]) -> Change:
    """The way of many a tutorial: a list of writers made anew for each call."""
    waiting, one = dict.fromkeys(fds, b""), fds[len(fds) // 2]

    def change() -> tuple[list[int], list[int]]:
        waiting[one] = b"x"
        writers = [fd for fd in fds if waiting[fd]]
        waiting[one] = b""
        return writers, [fd for fd in fds if waiting[fd]]

    return change


@pytest.mark.parametrize("way", [epoll_modify, selectors_modify, select_sets, select_lists_rebuilt])
@pytest.mark.parametrize("count", [10, 900])
@pytest.mark.benchmark(timer=time.thread_time, max_time=0.2, min_rounds=5)
def test_interest(benchmark: Any, way: Callable[[list[int]], Change], count: int) -> None:
    benchmark.group = f"interest: twice for one of {count}"
    with eventfds(count) as fds:
        benchmark(way(fds))
