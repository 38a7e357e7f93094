"""One run of load.py, seen from its main process: the server, the workers, the clock, the sums.

No process outlives this one, however it ends: its children get SIGKILL from the kernel when it is
gone (PR_SET_PDEATHSIG), and they are in sessions of their own, so that Ctrl-C does not reach them
before their results are in.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from benchmarks.harness.process import DEADLINE, descriptor_limit_raised, has_ended
from benchmarks.harness.server import SERVERS, Server
from benchmarks.load.plan import STOP_SIGNALS, LoadError, Plan, histogram
from benchmarks.load.worker import work

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
TICK = 0.1
OWN_DESCRIPTORS = 48
"""Beside those of the clients, in a worker or in a server."""


class Interrupted(Exception):
    """By a signal, before anything was measured."""


class Signals:
    """SIGINT, SIGTERM and SIGHUP: noted; the first raises Interrupted while `raising`."""

    def __init__(self) -> None:
        self.number = 0
        self._raises = False
        for signum in STOP_SIGNALS:
            signal.signal(signum, self._note)

    def _note(self, signum: int, _frame: object) -> None:
        if not self.number:
            self.number = signum
            if self._raises:
                raise Interrupted

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        self._raises = True
        try:
            self.check()
            yield
        finally:
            self._raises = False

    def check(self) -> None:
        if self.number:
            raise Interrupted


class Crew:
    """The worker processes. They are forked: before there is any thread."""

    def __init__(self, plan: Plan, cpus: Sequence[int]):
        self.clients = plan.clients
        self.controls: list[Connection[Any, Any]] = []
        self.processes: list[BaseProcess] = []
        self.progress: dict[Connection[Any, Any], tuple[int, int]] = {}
        context = multiprocessing.get_context("fork")
        # A signal between fork and setsid is for the parent alone.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            for number in range(plan.workers):
                ours, theirs = context.Pipe()
                cpu = cpus[number % len(cpus)] if cpus else None
                arguments = (number, plan, theirs, cpu, os.getpid())
                process = context.Process(target=work, args=arguments, daemon=True)
                process.start()
                theirs.close()  # so that EOF tells of its end
                self.controls.append(ours)
                self.processes.append(process)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def tell(self, command: str, *arguments: Any, only: Connection[Any, Any] | None = None) -> None:
        for control in [only] if only else self.controls:
            with contextlib.suppress(ConnectionError):  # recv() finds out why
                control.send((command, *arguments))

    def answers(
        self, command: str, tick: Callable[[], float | None], workers: int | None = None
    ) -> list[Any]:
        """What they answer to a command; only the first `workers` of them, if that is given.
        `tick` is called meanwhile, after as many seconds as it returns, or TICK."""
        asked = self.controls[:workers]
        found: dict[Connection[Any, Any], Any] = {}
        while len(found) < len(asked):
            pause = tick() or TICK
            for ready in wait([control for control in asked if control not in found], pause):
                assert isinstance(ready, Connection)
                kind, value = self._receive(ready)
                if kind == command:
                    found[ready] = value
                elif kind == "progress":
                    self.progress[ready] = value
        return [found[control] for control in asked]

    def _receive(self, control: Connection[Any, Any]) -> tuple[str, Any]:
        try:
            kind, value = control.recv()
        except (EOFError, ConnectionError):
            process = self.processes[self.controls.index(control)]
            process.join(1)
            raise LoadError(f"a worker has ended: exit status {process.exitcode}") from None
        if kind == "failed":
            raise LoadError(value)
        if kind == "closed":
            count, name = value
            others = [other for other in self.controls if other is not control]
            until = time.monotonic() + 0.2
            while others and time.monotonic() < until:
                for ready in wait(others, until - time.monotonic()):
                    assert isinstance(ready, Connection)
                    others.remove(ready)
                    with contextlib.suppress(EOFError, ConnectionError):
                        kind, value = ready.recv()
                        if kind == "closed":
                            count += value[0]
                        elif kind == "progress":
                            others.append(ready)
            raise LoadError(
                f"the server closed {count} of {self.clients} connections, one of them {name}"
                + ("; it drops those that read too slowly?" if count < self.clients else "")
            )
        return kind, value

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()


class Bar:
    """What happens, on stderr, if that is a terminal and rich is installed."""

    def __init__(self, deliveries: int):
        self._progress = None
        if sys.stderr.isatty() and importlib.util.find_spec("rich"):
            from rich.console import Console
            from rich.progress import Progress

            self._progress = Progress(
                console=Console(stderr=True), auto_refresh=False, transient=True
            )
            self._task = self._progress.add_task("starting", total=deliveries)
            self._progress.start()

    def show(self, what: str, done: int = 0) -> None:
        if self._progress:
            self._progress.update(self._task, description=what, completed=done, refresh=True)

    def close(self) -> None:
        if self._progress:
            self._progress.stop()
            self._progress = None


class Load:
    """One run, in the order of its methods.

    server: as for harness.Server; or the host and the port of one that runs already, of whose
        process nothing is known.
    pin: the server gets the first CPU for itself, the workers and this process get the others.
    """

    def __init__(self, plan: Plan, server: str | tuple[str, int], *, pin: bool, signals: Signals):
        self.plan, self.target, self.signals = plan, server, signals
        self.server: Server | None = None
        self.empty = self.resident = 0
        self.cpu_from = self.cpu_until = (0.0, 0.0)  # monotonic time, CPU time of the server
        cpus = sorted(os.sched_getaffinity(0))
        self.cpus = cpus if pin and isinstance(server, str) and len(cpus) > 1 else []

    def run(self) -> dict[str, Any]:
        with ExitStack() as stack:
            hard = stack.enter_context(descriptor_limit_raised())
            plan = self.plan
            need = plan.clients
            if not isinstance(self.target, str):
                need = plan.share(plan.clients, 0)
            if need + OWN_DESCRIPTORS > hard:
                raise LoadError(
                    f"{need} clients need {need + OWN_DESCRIPTORS} descriptors in one process; "
                    f"the hard limit is {hard} (ulimit -Hn)"
                )
            crew = Crew(plan, self.cpus[1:])
            stack.callback(crew.kill)
            if self.cpus:
                os.sched_setaffinity(0, self.cpus[1:])
            bar = Bar(plan.total * (plan.clients - 1))
            stack.callback(bar.close)
            with self.signals.raising():
                family, address = self._start(stack)
            try:
                self._gather(crew, bar, family, address)
                return self._measure(crew, bar)
            except LoadError:
                if self.server and has_ended(self.server.process.pid, 0.5):
                    raise LoadError(self._obituary()) from None
                raise

    def _start(self, stack: ExitStack) -> tuple[int, Sequence[Any]]:
        """Where to connect."""
        if not isinstance(self.target, str):
            host, port = self.target
            try:
                found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            except OSError as error:
                raise LoadError(f"{host}: {error.strerror}") from None
            return found[0], found[4]
        self.server = Server(
            self.target,
            arguments=["--quiet"] if self.target in SERVERS else [],
            tied=True,
            cpu=self.cpus[0] if self.cpus else None,
        )
        stack.enter_context(self.server)
        self._cpu()
        self.empty = self.resident
        address = self.server.address
        return (socket.AF_INET6 if ":" in address[0] else socket.AF_INET), address

    def _gather(self, crew: Crew, bar: Bar, family: int, address: Sequence[Any]) -> None:
        """All connect, the caller last of all, and all hear the caller."""
        plan, check = self.plan, self.signals.check
        bar.show("connecting")
        for number, control in enumerate(crew.controls):
            count = plan.share(plan.clients, number) - (number == 0)
            crew.tell("connect", family, address, count, only=control)
        found = [pair for pairs in crew.answers("connect", check) for pair in pairs]
        crew.tell("connect", family, address, 1, only=crew.controls[0])
        [caller] = crew.answers("connect", check, 1)
        names = dict([*found, *caller])
        bar.show("waiting until all are in")
        crew.tell("gather", [names[sender] for sender in range(plan.senders)], caller[0][1])
        crew.answers("heard", check)
        crew.tell("begin")
        crew.answers("gather", check)
        crew.answers("begin", check)

    def _measure(self, crew: Crew, bar: Bar) -> dict[str, Any]:
        plan, stopped_at = self.plan, 0.0
        start = time.monotonic() + 0.05
        window = start + plan.warm_up_messages / plan.rate

        def tick() -> float:
            nonlocal stopped_at
            now = time.monotonic()
            if not self.cpu_from[0] and now >= window:
                self.cpu_from = self._cpu()
            if self.signals.number and not stopped_at:
                stopped_at = now
                crew.tell("stop")
            if stopped_at and now > stopped_at + DEADLINE:
                raise LoadError(f"a worker did not answer for {DEADLINE:g} s")
            done = sum(deliveries for deliveries, _ in crew.progress.values())
            bar.show("warming up" if now < window else "measuring", done)
            return min(TICK, window - now) if now < window else TICK

        crew.tell("run", start)
        heard_at = crew.answers("run", tick)
        interrupted_at = stopped_at
        self.cpu_until = self._cpu()
        crew.tell("finish")
        found = crew.answers("finish", tick)
        until = interrupted_at or max(*heard_at, start + plan.total / plan.rate)
        return self._report(found, until - window, bool(interrupted_at))

    def _cpu(self) -> tuple[float, float]:
        """Now, and the server's CPU time; its memory, too."""
        if not self.server:
            return time.monotonic(), 0.0
        try:
            self.resident = self.server.resident_kib()
            return time.monotonic(), self.server.cpu_seconds()
        except (OSError, AssertionError):  # a zombie has neither
            raise LoadError("the server has ended") from None

    def _obituary(self) -> str:
        assert self.server
        status = self.server.process.wait()
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        last = self.server.errors.rest()[-1:]
        return f"the server has ended: {how}" + (f"; stderr: {last[0]}" if last else "")

    def _report(self, found: Sequence[Any], seconds: float, interrupted: bool) -> dict[str, Any]:
        plan = self.plan

        def sum_of(key: str) -> Any:
            return sum(worker[key] for worker in found)

        latencies, lateness = histogram(), histogram()
        for worker in found:
            latencies.decode_and_add(worker["latencies"])
            lateness.decode_and_add(worker["lateness"])
        measured, all_deliveries = sum_of("measured"), sum_of("deliveries")
        assert latencies.get_total_count() == measured
        segments = sum_of("segments")
        report = {
            "pinning": self._pinning(),
            "interrupted": interrupted,
            "seconds": seconds,
            "messages": lateness.get_total_count(),
            "deliveries": measured,
            "warm_up": {
                "messages": sum_of("sent") - lateness.get_total_count(),
                "deliveries": all_deliveries - measured,
            },
            "deliveries_per_second": sum_of("in_window") / seconds if seconds > 0 else None,
            "latency_us": percentiles(latencies),
            "latency_histogram": latencies.encode().decode(),
            "send_lateness_us": percentiles(lateness),
            "sends_held_back": sum_of("held_back"),
            "data_segments": segments or None,
            "messages_per_data_segment": all_deliveries / segments if segments else None,
            "worker_cpu_percent": [100 * worker["busy"] for worker in found],
            "server_process": None,
        }
        elapsed, used = (b - a for a, b in zip(self.cpu_from, self.cpu_until))
        if self.server and self.cpu_from[0]:
            report["server_process"] = {
                "cpu_seconds": used,
                "cpu_percent": 100 * used / elapsed if elapsed > 0 else None,
                "cpu_us_per_delivery": 1e6 * used / (sum_of("in_window") or math.inf),
                "resident_kib": self.resident,
                "resident_kib_empty": self.empty,
                "resident_kib_per_client": (self.resident - self.empty) / plan.clients,
            }
        return report

    def _pinning(self) -> dict[str, list[int]] | None:
        return {"server": self.cpus[:1], "workers": self.cpus[1:]} if self.cpus else None


def percentiles(of: Any) -> dict[str, int] | None:
    """Microseconds; None: nothing was recorded."""
    if not of.get_total_count():
        return None
    found = of.get_percentile_to_value_dict([*PERCENTILES])
    return {**{f"p{p:g}": found[p] for p in PERCENTILES}, "max": of.get_max_value()}
