"""What an event loop costs around its callbacks: TURNS turns with R ready descriptors each.

Every callback takes the byte out of its eventfd and puts the next one in, so that it is ready
again, with an edge of its own. These two system calls are the same for all; the rest is the loop.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.conftest import eventfds
from lowlevel.epoll_backend import EpollBackend
from lowlevel.reactor import READABLE, Backend, Reactor
from lowlevel.selectors_backend import SelectorsBackend

TURNS = 20
Driver = tuple[Callable[[], None], Callable[[], None]]
"""What runs TURNS turns, and what closes the loop."""

BACKENDS: dict[str, Callable[[], Backend]] = {
    "selectors": SelectorsBackend,
    "epoll": EpollBackend,
    "epoll-et": lambda: EpollBackend(edge_triggered=True),
}


class Counter:
    """A handler that is ready again as soon as it has been called."""

    def __init__(self, fd: int, called: list[int]):
        self.fd = fd
        self.called = called

    def fileno(self) -> int:
        return self.fd

    def handle(self, mask: int) -> None:
        os.eventfd_read(self.fd)
        os.eventfd_write(self.fd, 1)
        self.called[0] += 1


def on_reactor(backend: str, counters: list[Counter], called: list[int]) -> Driver:
    reactor = Reactor(BACKENDS[backend]())
    for counter in counters:
        reactor.register(counter, READABLE)

    def turns() -> None:
        wanted = called[0] + TURNS * len(counters)
        while called[0] < wanted:
            reactor.poll(None)

    return turns, reactor.close


def on_asyncio(
    loop: asyncio.AbstractEventLoop, counters: list[Counter], called: list[int]
) -> Driver:
    wanted = 0

    def handle(counter: Counter) -> None:
        counter.handle(READABLE)
        if called[0] == wanted:
            loop.stop()

    for counter in counters:
        loop.add_reader(counter.fd, handle, counter)

    def turns() -> None:
        nonlocal wanted
        wanted = called[0] + TURNS * len(counters)
        loop.run_forever()

    return turns, loop.close


@pytest.mark.parametrize("loop", [*BACKENDS, "asyncio", "uvloop"])
@pytest.mark.parametrize("ready", [1, 10, 100, 1000])
@pytest.mark.benchmark(timer=time.thread_time, max_time=0.2, min_rounds=5)
def test_dispatch(benchmark: Any, loop: str, ready: int) -> None:
    benchmark.group = f"dispatch: {TURNS} turns, {ready} ready"
    called = [0]
    with eventfds(ready) as fds:
        counters = [Counter(fd, called) for fd in fds]
        for fd in fds:
            os.eventfd_write(fd, 1)
        if loop in BACKENDS:
            turns, close = on_reactor(loop, counters, called)
        elif loop == "asyncio":
            turns, close = on_asyncio(asyncio.SelectorEventLoop(), counters, called)
        else:
            why_not = "uvloop is not installed: pip install uvloop"
            uvloop = pytest.importorskip("uvloop", reason=why_not)
            turns, close = on_asyncio(uvloop.new_event_loop(), counters, called)
        try:
            benchmark(turns)
        finally:
            close()
    benchmark.extra_info["microseconds per callback"] = (
        benchmark.stats["median"] / TURNS / ready * 1e6
    )
    assert called[0] % ready == 0
