"""What it costs to wake an event loop from another thread; and to let a burst of newcomers in.

A wakeup is a message to a thread that sleeps in the kernel, and its answer: CPU time of both
threads, which is mostly the kernel's and the GIL's. A burst is CONNECTS connections at once, CPU
time of the server until all are in.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from benchmarks.conftest import StartServer, new_uvloop, server_cpu_seconds
from benchmarks.harness.process import DEADLINE
from benchmarks.harness.server import SERVERS
from lowlevel.epoll_backend import EpollBackend
from lowlevel.reactor import Reactor

WAKEUPS = 200
CONNECTS = 500
Way = Iterator[Callable[[], object]]
"""What wakes a thread, which then calls `answer`, while it is yielded."""


@contextmanager
def running(target: Callable[[], object]) -> Iterator[None]:
    """In a thread, whose end is waited for."""
    thread = threading.Thread(target=target, daemon=True)  # in a test that fails nobody stops it
    thread.start()
    yield
    thread.join()


@contextmanager
def by_eventfd(answer: Callable[[], None]) -> Way:
    fd, stopped = os.eventfd(0), threading.Event()

    def serve() -> None:
        while not stopped.is_set():
            epoll.poll()
            os.eventfd_read(fd)
            answer()

    with select.epoll() as epoll:
        epoll.register(fd, select.EPOLLIN)
        with running(serve):
            yield lambda: os.eventfd_write(fd, 1)
            stopped.set()
            os.eventfd_write(fd, 1)
    os.close(fd)


@contextmanager
def by_self_pipe(answer: Callable[[], None]) -> Way:
    """Reactor.wakeup(): a socket pair, which a signal can write to as well."""
    reactor = Reactor(EpollBackend())
    reactor.before_wait = answer
    with running(reactor.run):
        yield reactor.wakeup
        reactor.stop()
        reactor.wakeup()
    reactor.close()


@contextmanager
def by_loop(loop: asyncio.AbstractEventLoop, answer: Callable[[], None]) -> Way:
    with running(loop.run_forever):
        yield lambda: loop.call_soon_threadsafe(answer)
        loop.call_soon_threadsafe(loop.stop)
    loop.close()


WAYS: dict[str, Callable[[Callable[[], None]], AbstractContextManager[Callable[[], object]]]] = {
    "eventfd": by_eventfd,
    "self-pipe (reactor)": by_self_pipe,
    "call_soon_threadsafe (asyncio)": lambda answer: by_loop(asyncio.SelectorEventLoop(), answer),
    "call_soon_threadsafe (uvloop)": lambda answer: by_loop(new_uvloop(), answer),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.benchmark(timer=time.process_time)
def test_wakeup(benchmark: Any, way: str) -> None:
    benchmark.group = f"wakeup: {WAKEUPS} from another thread"
    answered = os.eventfd(0)
    with WAYS[way](lambda: os.eventfd_write(answered, 1)) as wake:

        def round_trips() -> None:
            for _ in range(WAKEUPS):
                wake()
                os.eventfd_read(answered)

        benchmark.pedantic(round_trips, rounds=15, warmup_rounds=2, iterations=1)
    os.close(answered)


@pytest.mark.parametrize("name", [name for name in SERVERS if " " not in name])
@pytest.mark.benchmark(timer=server_cpu_seconds)
def test_accept(benchmark: Any, start: StartServer, name: str) -> None:
    benchmark.group = f"accept: a burst of {CONNECTS}"
    server = start(name)
    address = ("127.0.0.1", server.address[1])
    crowd: list[socket.socket] = []
    logged = 1

    def wait_until_logged(event: str) -> None:
        """Of each of the crowd."""
        for sock in crowd:
            server.log.wait(f"Cliente {event}: {sock.getsockname()}".__eq__, logged)

    def burst() -> None:
        for _ in range(CONNECTS):
            crowd.append(socket.create_connection(address, DEADLINE))
        wait_until_logged("conectado")

    def leave() -> None:
        nonlocal logged
        for sock in crowd:
            sock.shutdown(socket.SHUT_WR)
        wait_until_logged("desconectado")
        while crowd:
            crowd.pop().close()
        server.wait_until_at_rest()
        logged = len(server.log.all())

    benchmark.pedantic(burst, teardown=leave, rounds=4, warmup_rounds=1, iterations=1)
