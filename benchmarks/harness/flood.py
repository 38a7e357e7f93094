"""Loads of a server: a closed-loop flood, in which each sender has so many messages under way and
says the next one when all others have heard one; and lock-step. Every delivery is checked.

    with flood(server, clients=100, senders=5) as load:
        load.run(1000)                          # so many messages of each sender
        load.run_until(lambda: spy_has_ended())

The flood is flood.c, in a process of its own: a server that coalesces makes deliveries faster than
Python takes them, and what one measures then is the load. Without a C compiler it is Python all the
same, which is not `saturating`: what it says of a server that coalesces is not to be compared.

More clients than senders are listeners, who say nothing and hear all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import math
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.harness import compiled
from benchmarks.harness.cpus import pinned
from benchmarks.harness.crowd import Client, Crowd, DeliveryError, data_segments_in, message
from benchmarks.harness.process import DEADLINE, Closing, cpu_seconds, starter

SOURCE = Path(__file__).with_name("flood.c")
TICK = 0.02
"""Seconds after which run_until() asks again."""


class Target(Protocol):
    """What is flooded: a harness.Server, or whatever else has an address and a process."""

    @property
    def pid(self) -> int: ...

    @property
    def address(self) -> tuple[Any, ...]: ...


@dataclass(frozen=True)
class Measurement:
    """What came of it, from the first message to the last delivery.

    first, last: the numbers of the message with which the first client began, and of one that it
        says afterwards, when all else has been heard. They mark a flood in a trace.
    cpu_seconds: of the server. segments: with data, that have reached the clients.
    p50_seconds, p99_seconds: of deliveries, from the send of their message to their being read.
    """

    deliveries: int
    first: int
    last: int
    wall_seconds: float
    cpu_seconds: float
    load_cpu_seconds: float
    segments: int
    p50_seconds: float
    p99_seconds: float


class Load(Closing):
    """All clients are in when it is made. DeliveryError, of any method: something was delivered
    wrong, or not within DEADLINE, or the server has closed a connection."""

    saturating: bool
    """Whether it can keep a server busy that coalesces."""

    def __init__(self, clients: int, senders: int, in_flight: int, size: int):
        self.clients, self.senders = clients, min(senders, clients)
        self.in_flight, self.size = in_flight, size

    @property
    def words(self) -> str:
        return (
            f"flood: {self.clients} clients, {self.senders} of them send, each has "
            f"{self.in_flight} messages of {self.size} bytes in flight"
        )

    def run(self, messages: int) -> Measurement:
        """So many messages of each sender, and all their deliveries."""
        raise NotImplementedError

    def run_until(self, done: Callable[[], bool]) -> Measurement:
        """Until `done`, which is asked every TICK; then what is under way is heard to its end, and
        `done` still asked, for it may raise an error."""
        raise NotImplementedError


def flood(
    server: Target,
    clients: int,
    senders: int,
    *,
    in_flight: int = 4,
    size: int = 32,
    cpu: int | None = None,
) -> Load:
    """cpu: the one that the load has for itself; where it has none, it sleeps when it waits."""
    if compiled.no_compiler(SOURCE):
        return FloodInPython(server, clients, senders, in_flight, size)
    return FloodInC(server, clients, senders, in_flight, size, cpu=cpu, spin=cpu is not None)


class FloodInC(Load):
    """flood.c, which ends with us. CompileError: there is no compiler.

    deadline: seconds after which a delivery counts as lost.
    spin: it does not sleep while it waits; where it has no CPU for itself it had better.
    """

    saturating = True

    def __init__(
        self,
        server: Target,
        clients: int,
        senders: int,
        in_flight: int = 4,
        size: int = 32,
        *,
        cpu: int | None = None,
        spin: bool = False,
        deadline: float | None = None,
    ):
        super().__init__(clients, senders, in_flight, size)
        host, port = server.address[:2]
        given = (host, port, clients, self.senders, in_flight, size, deadline or DEADLINE)
        begin = starter(signum=signal.SIGKILL, parent=os.getpid(), session=True)
        program = str(compiled.program(SOURCE))
        with pinned(cpu):
            self._process = subprocess.Popen(
                [*begin, program, *map(str, given), str(server.pid), str(int(spin))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
            )
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def run(self, messages: int) -> Measurement:
        return _measurement(self._ask(f"run {messages}"))

    def run_until(self, done: Callable[[], bool]) -> Measurement:
        return _measurement(self._ask("start", done))

    def at_rate(
        self, rate: float, unmeasured: int, messages: int, done: Callable[[], bool]
    ) -> dict[str, Any]:
        """An open loop: so many messages a second in all. What flood.c answers; `done` ends it
        with what was measured until then, whatever is under way."""
        return self._ask(f"rate {rate!r} {unmeasured} {messages}", done)

    def _ask(self, command: str, done: Callable[[], bool] | None = None) -> dict[str, Any]:
        self._command(command)
        if done:
            assert self._process.stdout
            stopped = False
            while not select.select([self._process.stdout], [], [], TICK)[0]:
                if done() and not stopped:
                    self._command("stop")
                    stopped = True
        return self._answer()

    def _command(self, text: str) -> None:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # its answer is an error
            self._process.stdin.write(f"{text}\n")
            self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        """It comes, or an error does: the program sees to the deadlines itself."""
        assert self._process.stdout and self._process.stderr
        answer = self._process.stdout.readline()
        if not answer:
            status = self._process.wait()
            raise DeliveryError(self._process.stderr.read().strip() or f"exit status {status}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def _measurement(answer: dict[str, Any]) -> Measurement:
    half, _, most, *_ = answer["latency"]
    names = (field.name for field in dataclasses.fields(Measurement) if field.name in answer)
    return Measurement(**{name: answer[name] for name in names}, p50_seconds=half, p99_seconds=most)


class _InPython(Load):
    """The clients of a Crowd, in this process."""

    saturating = False

    def __init__(self, server: Target, clients: int, senders: int, in_flight: int, size: int):
        super().__init__(clients, senders, in_flight, size)
        self._pid, self._crowd = server.pid, Crowd(server.address, clients)

    def close(self) -> None:
        self._crowd.close()

    def _measure(self, work: Callable[[], list[float]]) -> Measurement:
        """work: what is measured; it returns the latency of each delivery."""
        clients, first = self._crowd.clients, self._crowd.clients[0].sent
        segments = sum(data_segments_in(client.sock) for client in clients)
        gc.collect()
        gc.disable()  # a collection would be measured
        try:
            own, server = time.process_time(), cpu_seconds(self._pid)
            started = time.perf_counter()
            latencies = work()
            wall = time.perf_counter() - started
            server, own = cpu_seconds(self._pid) - server, time.process_time() - own
        finally:
            gc.enable()
        segments = sum(data_segments_in(client.sock) for client in clients) - segments
        latencies.sort()
        half, most = (latencies[math.ceil(len(latencies) * part) - 1] for part in (0.5, 0.99))
        last = clients[0].sent
        self._crowd.lock_step(1, self.size)  # what has come twice, comes before it
        self._crowd.assert_silent()
        return Measurement(len(latencies), first, last, wall, server, own, segments, half, most)


class LockStep(_InPython):
    """One message, all its deliveries, the next; by one client after the other. A server that
    sends each delivery by itself has nothing to coalesce here."""

    def __init__(self, server: Target, clients: int, size: int = 32):
        super().__init__(server, clients, clients, 1, size)

    def run(self, messages: int) -> Measurement:
        """So many messages in all."""
        latencies: list[float] = []

        def work() -> list[float]:
            self._crowd.lock_step(messages, self.size, latencies)
            return latencies

        return self._measure(work)


class FloodInPython(_InPython):
    def __init__(
        self, server: Target, clients: int, senders: int, in_flight: int = 4, size: int = 32
    ):
        super().__init__(server, clients, senders, in_flight, size)
        self._senders = {client.prefix: client for client in self._crowd.clients[: self.senders]}
        self._parsed: dict[bytes, list[tuple[bytes, int]]] = {}

    def run(self, messages: int) -> Measurement:
        return self._measure(lambda: self._flood(messages, lambda: False))

    def run_until(self, done: Callable[[], bool]) -> Measurement:
        return self._measure(lambda: self._flood(math.inf, done))

    def _flood(self, messages: float, done: Callable[[], bool]) -> list[float]:
        senders = self._senders
        # By listener and sender: the number of the message that must come next.
        due = [{p: c.sent for p, c in senders.items()} for _ in self._crowd.clients]
        goals = {prefix: client.sent + messages for prefix, client in senders.items()}
        missing: dict[tuple[bytes, int], int] = {}  # deliveries of a message yet to come
        sent_at: dict[tuple[bytes, int], float] = {}
        latencies: list[float] = []

        def say(client: Client) -> None:
            if client.sent < goals[client.prefix]:
                key = client.prefix, client.sent
                missing[key], sent_at[key] = self.clients - 1, time.perf_counter()
                client.say(self.size)

        for _ in range(self.in_flight):
            for client in senders.values():
                say(client)
        heard_at = asked_at = time.perf_counter()
        while missing:
            events, now = self._crowd.ready(TICK), time.perf_counter()
            for listener in events:
                now = heard_at = time.perf_counter()
                for prefix, number in self._lines(listener):
                    key, expected = (prefix, number), due[listener.index].get(prefix)
                    if number != expected or key not in missing or prefix == listener.prefix:
                        raise DeliveryError(
                            f"{listener.name} heard {number} from {prefix!r}, not {expected}"
                        )
                    due[listener.index][prefix] = number + 1
                    latencies.append(now - sent_at[key])
                    missing[key] -= 1
                    if not missing[key]:
                        del missing[key], sent_at[key]
                        say(senders[prefix])
            if now > heard_at + DEADLINE:
                raise DeliveryError(f"{len(missing)} messages are not heard by all")
            if now > asked_at + TICK:
                asked_at = now
                if done():
                    goals, asked_at = dict.fromkeys(goals, 0), math.inf
        return latencies

    def _lines(self, listener: Client) -> list[tuple[bytes, int]]:
        """What it has just heard: (prefix of the sender, number). Listeners mostly hear the same
        bytes, which are taken apart once."""
        data = listener.rest + listener.receive()
        end = data.rfind(b"\n") + 1
        listener.rest, data = data[end:], data[:end]
        parsed = self._parsed.get(data)
        if parsed is None:
            parsed = []
            for line in data.split(b"\n")[:-1]:
                prefix, colon, text = line.partition(b" dice: ")
                if not text[:8].isdigit() or text + b"\n" != message(int(text[:8]), self.size):
                    raise DeliveryError(f"{listener.name} heard {line!r}")
                parsed.append((prefix + colon, int(text[:8])))
            if len(self._parsed) > 64:
                self._parsed.clear()
            self._parsed[data] = parsed
        return parsed
