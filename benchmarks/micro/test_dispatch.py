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

from benchmarks.conftest import eventfds, new_uvloop, tell_per
from lowlevel.epoll_backend import EpollBackend
from lowlevel.reactor import READABLE, Backend, Reactor
from lowlevel.selectors_backend import SelectorsBackend

TURNS = 20
Driver = tuple[Callable[[], None], Callable[[], None]]
"""What runs TURNS turns, and what closes the loop."""


class Counter:
    """A handler that is ready again as soon as it has been called."""

    calls = 0  # of all of them

    def __init__(self, fd: int):
        self.fd = fd

    def fileno(self) -> int:
        return self.fd

    def handle(self, mask: int) -> None:
        os.eventfd_read(self.fd)
        os.eventfd_write(self.fd, 1)
        Counter.calls += 1


def on_reactor(backend: Backend, counters: list[Counter]) -> Driver:
    reactor = Reactor(backend)
    for counter in counters:
        reactor.register(counter, READABLE)

    def turns() -> None:
        wanted = Counter.calls + TURNS * len(counters)
        while Counter.calls < wanted:
            reactor.poll(None)

    return turns, reactor.close


def on_asyncio(loop: asyncio.AbstractEventLoop, counters: list[Counter]) -> Driver:
    wanted = 0

    def handle(counter: Counter) -> None:
        counter.handle(READABLE)
        if Counter.calls == wanted:
            loop.stop()

    for counter in counters:
        loop.add_reader(counter.fd, handle, counter)

    def turns() -> None:
        nonlocal wanted
        wanted = Counter.calls + TURNS * len(counters)
        loop.run_forever()

    return turns, loop.close


LOOPS: dict[str, Callable[[list[Counter]], Driver]] = {
    "selectors": lambda counters: on_reactor(SelectorsBackend(), counters),
    "epoll": lambda counters: on_reactor(EpollBackend(), counters),
    "epoll-et": lambda counters: on_reactor(EpollBackend(edge_triggered=True), counters),
    "asyncio": lambda counters: on_asyncio(asyncio.SelectorEventLoop(), counters),
    "uvloop": lambda counters: on_asyncio(new_uvloop(), counters),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("ready", [1, 10, 100, 1000])
@pytest.mark.benchmark(timer=time.thread_time, max_time=0.2, min_rounds=5)
def test_dispatch(benchmark: Any, loop: str, ready: int) -> None:
    benchmark.group = f"dispatch: {TURNS} turns, {ready} ready"
    before = Counter.calls
    with eventfds(ready) as fds:
        for fd in fds:
            os.eventfd_write(fd, 1)
        turns, close = LOOPS[loop]([Counter(fd) for fd in fds])
        try:
            benchmark(turns)
        finally:
            close()
    tell_per(benchmark, "callback", TURNS * ready)
    assert (Counter.calls - before) % ready == 0
