"""Keep a server busy that only prints, and see how busy a server was.

Lines are pushed at it as fast as it takes them; those that broadcast are flooded by
benchmarks.harness.flood.
"""

from __future__ import annotations

import contextlib
import math
import select
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness.crowd import Crowd, DeliveryError, message
from benchmarks.harness.flood import TICK
from benchmarks.harness.process import DEADLINE
from benchmarks.harness.server import Server

SENDERS = 5
SIZE = 32
"""Bytes of a line, with its newline."""
BLOCK = message(0, SIZE) * 512
"""What is given to one send."""


class Ingest(Crowd):
    """The first clients push lines at a server that prints them."""

    def __init__(self, server: Server, clients: int):
        super().__init__(server.address, clients, broadcasts=False)
        self.words = (
            f"ingest: {clients} clients, {min(SENDERS, clients)} of them push lines of {SIZE} "
            "bytes as fast as stdout is read"
        )

    def run_until(self, done: Callable[[], bool]) -> int:
        """How many lines the kernel has taken. DeliveryError: none any more."""
        waiting = {client.sock.fileno(): client for client in self.clients[:SENDERS]}
        rest = dict.fromkeys(waiting, BLOCK)
        poll = select.poll()
        for fd in waiting:
            poll.register(fd, select.POLLOUT)
        taken, last = 0, time.monotonic()
        while not done():
            for fd, _ in poll.poll(TICK * 1000):
                try:
                    sent = waiting[fd].sock.send(rest[fd])
                except OSError as error:
                    name = waiting[fd].name
                    raise DeliveryError(f"{name} cannot send: {error.strerror}") from None
                rest[fd] = rest[fd][sent:] or BLOCK
                taken, last = taken + sent, time.monotonic()
            if time.monotonic() > last + DEADLINE:
                raise DeliveryError(f"the server took nothing for {DEADLINE:g} s")
        return taken // SIZE


def clocks(server: Server) -> tuple[float, float, float]:
    """Seconds: now, of its CPU time, and for which its one thread was ready and had no CPU; NaN,
    where it has several or the kernel does not tell."""
    queued = math.nan
    # Of the first thread: "time on a CPU, time in a run queue, time slices", proc_schedstats.
    with contextlib.suppress(FileNotFoundError):  # a kernel without CONFIG_SCHED_INFO
        if server.threads() == 1:
            schedstat = Path(f"/proc/{server.pid}/schedstat").read_text()
            queued = int(schedstat.split()[1]) / 1e9
    return time.perf_counter(), server.cpu_seconds(), queued
