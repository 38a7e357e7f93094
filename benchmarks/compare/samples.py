"""Take one sample: of a server under a workload, of its memory, of a wait for readiness.

Whatever keeps a sample from being taken is an Unmeasured with the reason, never a number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import resource
import select
import selectors
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

from benchmarks.harness.crowd import Crowd, DeliveryError, Trickle
from benchmarks.harness.files import ROOT, held_back
from benchmarks.harness.flood import FloodInPython, LockStep, flood
from benchmarks.harness.process import ServerError, has_ended
from benchmarks.harness.roster import PeerError
from benchmarks.harness.server import BROADCASTING, SILENT, Server

IN_FLIGHT = 4
MESSAGE = 32  # bytes
TALKERS = 10
"""The clients beside whom the others are idle: they talk as in a flood of so many."""
IDLE_CLIENTS = 900
"""To see the memory of a connection: below the limit of select(2)."""
BESIDE = (10, 100, 900)
"""Idle clients beside which a turn is measured; the last is below that limit, too."""
TURNS = 2000
DESCRIPTORS = (10, 100, 1000, 10000)
CPU_SECONDS = 0.25
"""Of the server, that a sample of a load is about."""
WAIT_SECONDS = 0.02
FD_SETSIZE = 1024  # select(2)

Sample = dict[str, Any]
Cpus = tuple[Optional[int], Optional[int]]
"""Of the server and of its load."""


def senders(clients: int) -> int:
    """How many of the clients speak in a flood."""
    return min(clients, 2 if clients < 100 else 5 if clients < 1000 else 10)


class Unmeasured(Exception):
    """There is no figure, and why. kind: "limit", which is known beforehand, or "failed"."""

    def __init__(self, kind: str, reason: str):
        self.kind, self.reason = kind, reason


@contextlib.contextmanager
def running(name: str, clients: int, cpu: int | None) -> Iterator[Server]:
    """A fresh server that is about to get so many clients; Unmeasured: it failed meanwhile. Of ours
    those that tell nobody keep a log: it says who is in."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if clients + 50 > limit:
        raise Unmeasured("limit", f"the load may open {limit} descriptors only (ulimit -n)")
    server: Server | None = None
    try:
        with held_back():  # nobody else would end a server that is not yet ours
            server = Server(name, arguments=["--quiet"] if name in BROADCASTING else [], cpu=cpu)
        yield server
        if server.process.poll() is not None:
            raise ServerError("it has ended")
    except (DeliveryError, PeerError, ServerError, OSError) as error:
        reason = one_line(error)
        if server and has_ended(server.process.pid, 0.5):  # or it has only lost a line
            reason += f"; exit status {server.process.wait()}"
            reason += "".join(f"; {one_line(line)}" for line in server.errors.rest()[-1:])
        raise Unmeasured("failed", reason) from None
    finally:
        if server:
            server.kill()


def one_line(error: object) -> str:
    """Short, and without this machine's paths."""
    text = " ".join(str(error).replace(f"{ROOT}/", "").replace("|", "/").split())
    return text if len(text) <= 300 else f"{text[:300]}…"


_amounts: dict[tuple[str, str, int], int] = {}
"""How many messages have been about CPU_SECONDS of a server, by server and load."""


def load(name: str, workload: str, n: int, cpus: Cpus) -> Sample:
    """One sample of a server, after a warm-up. The first one finds how much work is about
    CPU_SECONDS, and is half as long as that; those of later rounds begin with what is known."""
    cpu, load_cpu = cpus
    clients, speakers = (n + TALKERS, senders(TALKERS)) if workload == "idle" else (n, senders(n))
    with running(name, clients, cpu) as server, (
        LockStep(server, clients, MESSAGE)
        if workload == "lock-step"
        else FloodInPython(server, clients, speakers, IN_FLIGHT, MESSAGE)
        if workload == "python-flood"
        else flood(server, clients, speakers, in_flight=IN_FLIGHT, size=MESSAGE, cpu=load_cpu)
    ) as driven:
        known = _amounts.get((name, workload, n))
        amount = known // 5 if known else 10 if workload == "lock-step" else 2
        used = driven.run(max(1, amount)).cpu_seconds
        while not known and used < CPU_SECONDS / 3:
            # What the hypervisor has stolen is taken off the clock later: it may stand still.
            amount = math.ceil(amount * min(10, CPU_SECONDS / 2 / max(used, 1e-6)))
            used = driven.run(amount).cpu_seconds
        # More messages than are in flight, or the loop is never closed.
        messages = max(IN_FLIGHT + 1, known or math.ceil(amount * CPU_SECONDS / used))
        measured = driven.run(messages)
        factor = min(2, CPU_SECONDS / max(measured.cpu_seconds, 1e-6))
        _amounts[name, workload, n] = math.ceil(messages * factor)
        return {**dataclasses.asdict(measured), "saturating": driven.saturating}


@contextlib.contextmanager
def crowd_of(server: Server, clients: int) -> Iterator[Crowd]:
    """So many clients, all of whom the server has let in."""
    broadcasts = server.name not in SILENT
    how: Any = {"asks": server.asks, "tls": server.tls, "websocket": server.websocket}
    with Crowd(server.address, clients, broadcasts=broadcasts, **how) as crowd:
        if server.name in SILENT:
            for client in crowd.clients:
                server.log.wait(f"Cliente conectado: {client.name}".__eq__)
        yield crowd


def memory(name: str, cpus: Cpus) -> Sample:
    """Private memory before and after idle clients come in. A few that were there before have
    paid for what a server allocates once."""
    with running(name, IDLE_CLIENTS, cpus[0]) as server, crowd_of(server, 10):
        before = server.private_kib()
        with crowd_of(server, IDLE_CLIENTS):
            return {"before_kib": before, "after_kib": server.private_kib()}


def start(name: str, cpus: Cpus) -> Sample:
    """From the start of the process until it says that it is ready."""
    started = time.perf_counter()
    with running(name, 0, cpus[0]):
        return {"wall_seconds": time.perf_counter() - started}


def turn(name: str, idle: int, cpus: Cpus) -> Sample:
    """CPU time of turns in which nobody is told anything, beside so many idle clients."""
    with running(name, idle, cpus[0]) as server, Trickle(server, idle) as trickle:
        trickle.run(TURNS // 10)
        before = server.cpu_seconds()
        trickle.run(TURNS)
        return {"turns": TURNS, "cpu_seconds": round(server.cpu_seconds() - before, 6)}


WAITERS = {"poll": select.poll, "epoll": select.epoll, "selectors": selectors.DefaultSelector}
WAITS = ("select", *WAITERS)


def ask_by(kind: str, fds: Sequence[int], most: int) -> Callable[[], Sequence[object]]:
    """A call that asks which of these are ready; epoll is told how many it may name at once."""
    if kind == "select":
        return lambda: select.select(fds, [], [], 0)[0]
    waiter: Any = WAITERS[kind]()
    for fd in fds:
        waiter.register(fd, select.POLLIN)  # which is EPOLLIN and EVENT_READ, too
    if kind == "epoll":
        return lambda: waiter.poll(0, most)
    ask = waiter.select if kind == "selectors" else waiter.poll
    return lambda: ask(0)


def wait(kind: str, idle: int) -> Sample:
    """CPU time of waits that find one descriptor ready among so many idle ones."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if idle + 50 > limit:
        raise Unmeasured("limit", f"beyond our limit of {limit} descriptors")
    fds = [os.eventfd(int(number == idle)) for number in range(idle + 1)]
    try:
        if kind == "select" and fds[-1] >= FD_SETSIZE:
            raise Unmeasured("limit", f"beyond its limit of {FD_SETSIZE}")
        ask = ask_by(kind, fds, -1)
        calls = 0
        started = time.thread_time()
        while (used := time.thread_time() - started) < WAIT_SECONDS:
            for _ in range(20):
                ask()
            calls += 20
        return {"calls": calls, "cpu_seconds": round(used, 6)}
    finally:
        for fd in fds:
            os.close(fd)


def take(workload: str, n: int, name: str, cpus: Cpus) -> Sample:
    """One sample of a server, or of a way to wait, in a workload of so many clients or descriptors.
    Unmeasured: there is none."""
    if workload == "memory":
        return memory(name, cpus)
    if workload == "start":
        return start(name, cpus)
    if workload == "turn":
        return turn(name, n, cpus)
    return wait(name, n) if workload == "wait" else load(name, workload, n, cpus)
