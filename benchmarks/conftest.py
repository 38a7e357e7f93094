"""What the benchmarks share: CPUs, descriptors, and a clock that runs in the server."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from benchmarks.harness.cpus import pinned, two_cpus
from benchmarks.harness.environment import environment, sentence
from benchmarks.harness.server import Server

SERVER_CPU, LOAD_CPU = two_cpus()


_measured: list[Server] = []


def server_cpu_seconds() -> float:
    """CPU time of the server under measurement, all its threads, as a timer for pytest-benchmark.

    It stands still while the server waits, so calibration, which waits for a clock to move, would
    never end: pedantic mode only.
    """
    return _measured[-1].cpu_seconds()


def pytest_report_header(config: pytest.Config) -> list[str]:
    if not config.getoption("benchmark_only"):
        return []
    pins = f"server on CPU {SERVER_CPU}, load on CPU {LOAD_CPU}"
    return [
        f"sock_chat: {sentence(environment())}",
        f"sock_chat: {'unpinned' if LOAD_CPU is None else pins}",
    ]


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]
) -> None:
    output_json["sock_chat"] = environment()


@pytest.fixture(autouse=True)
def _pinned() -> Iterator[None]:
    """All on one CPU, and servers on the other, as in a comparison."""
    with pinned(LOAD_CPU):
        yield


StartServer = Callable[..., Server]


@pytest.fixture
def start() -> Iterator[StartServer]:
    """Start a server on a CPU of its own, with the load on the other; its clock is the timer."""
    with ExitStack() as stack:

        def start(name: str, *arguments: str, **options: Any) -> Server:
            server = Server(name, arguments=arguments, cpu=SERVER_CPU, **options)
            _measured.append(stack.enter_context(server))
            return server

        yield start


@contextlib.contextmanager
def eventfds(count: int) -> Iterator[list[int]]:
    """`count` descriptors that are not ready; os.eventfd_write() makes one readable."""
    fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(count)]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def new_uvloop() -> asyncio.AbstractEventLoop:
    """Skips the test where there is no uvloop."""
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed: pip install uvloop")
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def tell_per(benchmark: Any, unit: str, count: int) -> None:
    """The median of a round that has so many of these, for each of them."""
    benchmark.extra_info[f"microseconds per {unit}"] = benchmark.stats["median"] / count * 1e6
