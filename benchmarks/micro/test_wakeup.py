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
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.conftest import StartServer, server_clock
from benchmarks.harness.process import DEADLINE
from benchmarks.harness.server import SERVERS
from lowlevel.epoll_backend import EpollBackend
from lowlevel.reactor import Reactor

WAKEUPS = 200
CONNECTS = 500
Wake = tuple[Callable[[], object], Callable[[], None]]


def by_eventfd(answer: Callable[[], None]) -> Wake:
    fd, running = os.eventfd(0), [True]
    epoll = select.epoll()
    epoll.register(fd, select.EPOLLIN)

    def serve() -> None:
        while running[0]:
            epoll.poll()
            os.eventfd_read(fd)
            answer()

    thread = threading.Thread(target=serve)
    thread.start()

    def stop() -> None:
        running[0] = False
        os.eventfd_write(fd, 1)
        thread.join()
        epoll.close()
        os.close(fd)

    return (lambda: os.eventfd_write(fd, 1)), stop


def by_self_pipe(answer: Callable[[], None]) -> Wake:
    """Reactor.wakeup(): a socket pair, which a signal can write to as well."""
    reactor = Reactor(EpollBackend())
    reactor.before_wait = answer
    thread = threading.Thread(target=reactor.run)
    thread.start()

    def stop() -> None:
        reactor.stop()
        reactor.wakeup()
        thread.join()
        reactor.close()

    return reactor.wakeup, stop


def by_loop(loop: asyncio.AbstractEventLoop) -> Callable[[Callable[[], None]], Wake]:
    def make(answer: Callable[[], None]) -> Wake:
        thread = threading.Thread(target=loop.run_forever)
        thread.start()

        def stop() -> None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

        return (lambda: loop.call_soon_threadsafe(answer)), stop

    return make


def on_uvloop(answer: Callable[[], None]) -> Wake:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed: pip install uvloop")
    return by_loop(uvloop.new_event_loop())(answer)


def on_asyncio(answer: Callable[[], None]) -> Wake:
    return by_loop(asyncio.SelectorEventLoop())(answer)


WAYS = {
    "eventfd": by_eventfd,
    "self-pipe (reactor)": by_self_pipe,
    "call_soon_threadsafe (asyncio)": on_asyncio,
    "call_soon_threadsafe (uvloop)": on_uvloop,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.benchmark(timer=time.process_time)
def test_wakeup(benchmark: Any, way: str) -> None:
    benchmark.group = f"wakeup: {WAKEUPS} from another thread"
    answered = os.eventfd(0)
    wake, stop = WAYS[way](lambda: os.eventfd_write(answered, 1))

    def round_trips() -> None:
        for _ in range(WAKEUPS):
            wake()
            os.eventfd_read(answered)

    try:
        benchmark.pedantic(round_trips, rounds=15, warmup_rounds=2, iterations=1)
    finally:
        stop()
        os.close(answered)


@pytest.mark.parametrize("name", [name for name in SERVERS if " " not in name])
@pytest.mark.benchmark(timer=server_clock)
def test_accept(benchmark: Any, start: StartServer, name: str) -> None:
    benchmark.group = f"accept: a burst of {CONNECTS}"
    server = start(name)
    address = ("127.0.0.1", server.address[1])
    seen = 1
    crowd: list[socket.socket] = []

    def burst() -> None:
        nonlocal seen
        for _ in range(CONNECTS):
            crowd.append(socket.create_connection(address, DEADLINE))
        for sock in crowd:
            port = sock.getsockname()[1]
            line = f"Cliente conectado: ('127.0.0.1', {port})"
            server.log.wait(line.__eq__, seen)
        seen = len(server.log.all())

    def leave() -> None:
        nonlocal seen
        for sock in crowd:
            name = str(sock.getsockname())
            sock.close()
            server.log.wait(f"Cliente desconectado: {name}".__eq__, seen)
        crowd.clear()
        server.wait_until_at_rest()
        seen = len(server.log.all())

    benchmark.pedantic(burst, teardown=leave, rounds=4, warmup_rounds=1, iterations=1)
