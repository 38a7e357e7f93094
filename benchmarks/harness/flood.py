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
import ssl
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from benchmarks.harness import compiled
from benchmarks.harness.cpus import pinned
from benchmarks.harness.crowd import Client, Crowd, DeliveryError, data_segments_in
from benchmarks.harness.process import DEADLINE, cpu_seconds, starter

SOURCE = Path(__file__).with_name("flood.c")
TICK = 0.02
"""Seconds after which run_until() asks again."""


class Target(Protocol):
    """What is flooded: a harness.Server, or whatever else has an address and a process."""

    @property
    def pid(self) -> int: ...

    @property
    def address(self) -> tuple[Any, ...]: ...

    @property
    def asks(self) -> bool:
        """Whether it asks for a nick first."""

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What its clients go by, if it speaks TLS: only the loads in Python do."""

    @property
    def websocket(self) -> bool:
        """Whether its clients are browsers: each message of theirs is a frame."""


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


class Load(contextlib.ExitStack):
    """All clients are in when it is made. DeliveryError, of any method: something was delivered
    wrong, or not within DEADLINE, or the server has closed a connection."""

    saturating: bool
    """Whether it can keep a server busy that coalesces."""

    def __init__(self, clients: int, senders: int, in_flight: int, size: int):
        super().__init__()
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
    """In C where that can be."""
    if server.tls or compiled.no_compiler(SOURCE):
        return FloodInPython(server, clients, senders, in_flight, size)
    return FloodInC(server, clients, senders, in_flight, size, cpu=cpu)


class FloodInC(Load):
    """flood.c, which ends with us. CompileError: there is no compiler.

    cpu: the one that it has for itself; where it has none, it sleeps while it waits.
    deadline: seconds after which a delivery counts as lost.
    others: servers that are one chat with the first; the clients go to them in turn.
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
        deadline: float | None = None,
        others: Sequence[Target] = (),
    ):
        super().__init__(clients, senders, in_flight, size)
        host = server.address[0]
        ports = ",".join(str(each.address[1]) for each in (server, *others))
        arguments = [host, ports, clients, self.senders, in_flight, size, deadline or DEADLINE]
        arguments += [server.pid, int(cpu is not None), int(server.asks), int(server.websocket)]
        command = starter(signum=signal.SIGKILL, parent=os.getpid(), session=True)
        command += [str(compiled.program(SOURCE)), *map(str, arguments)]
        with pinned(cpu):
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
            )
        self.callback(self._kill)
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._stderr = self._process.stderr
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def run(self, messages: int) -> Measurement:
        return self._measure(messages, None)

    def run_until(self, done: Callable[[], bool]) -> Measurement:
        return self._measure(0, done)

    def _measure(self, messages: int, done: Callable[[], bool] | None) -> Measurement:
        answer = self.at_rate(0, 0, messages, done)
        half, _, most, *_ = answer["latency"]
        both = {field.name for field in dataclasses.fields(Measurement)} & answer.keys()
        taken = {name: answer[name] for name in both}
        return Measurement(**taken, p50_seconds=half, p99_seconds=most)

    def at_rate(
        self, rate: float, unmeasured: int, messages: int, done: Callable[[], bool] | None
    ) -> dict[str, Any]:
        """An open loop: so many messages a second in all; a closed one at rate 0. What flood.c
        answers; `done` ends it with what was measured until then, whatever is under way."""
        self._command(f"{rate!r} {unmeasured} {messages}")
        stopped = False
        while done and not select.select([self._stdout], [], [], TICK)[0]:
            if done() and not stopped:
                self._command("stop")
                stopped = True
        return self._answer()

    def _command(self, text: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # its answer is an error
            self._stdin.write(f"{text}\n")
            self._stdin.flush()

    def _answer(self) -> dict[str, Any]:
        """It comes, or an error does: the program sees to the deadlines itself."""
        answer = self._stdout.readline()
        if not answer:
            status = self._process.wait()
            raise DeliveryError(self._stderr.read().strip() or f"exit status {status}")
        return dict(json.loads(answer))

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._stdin, self._stdout, self._stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class _InPython(Load):
    """The clients of a Crowd, in this process."""

    saturating = False

    def __init__(
        self, server: Target, clients: int, senders: int, in_flight: int = 4, size: int = 32
    ):
        super().__init__(clients, senders, in_flight, size)
        self._pid = server.pid
        how: Any = {"asks": server.asks, "tls": server.tls, "websocket": server.websocket}
        self._crowd = self.enter_context(Crowd(server.address, clients, **how))

    def _measure(self, work: Callable[[list[float]], object]) -> Measurement:
        """work: what is measured; it is given a list for the latencies of its deliveries."""
        clients, first = self._crowd.clients, self._crowd.clients[0].sent
        latencies: list[float] = []
        segments = sum(data_segments_in(client.sock) for client in clients)
        gc.collect()
        gc.disable()  # a collection would be measured
        try:
            own, server = time.process_time(), cpu_seconds(self._pid)
            started = time.perf_counter()
            work(latencies)
            wall = time.perf_counter() - started
            server, own = cpu_seconds(self._pid) - server, time.process_time() - own
        finally:
            gc.enable()
        segments = sum(data_segments_in(client.sock) for client in clients) - segments
        latencies.sort()
        half, most = (latencies[math.ceil(len(latencies) * part) - 1] for part in (0.5, 0.99))
        last = clients[0].sent
        self._crowd.lock_step(min(2, self.senders), self.size)  # what has come twice, comes before
        self._crowd.assert_silent()
        return Measurement(len(latencies), first, last, wall, server, own, segments, half, most)


class LockStep(_InPython):
    """One message, all its deliveries, the next; by one client after the other. A server that
    sends each delivery by itself has nothing to coalesce here."""

    def __init__(self, server: Target, clients: int, size: int = 32):
        super().__init__(server, clients, clients, 1, size)

    def run(self, messages: int) -> Measurement:
        """So many messages in all."""
        return self._measure(partial(self._crowd.lock_step, messages, self.size))


@dataclass
class _Line:
    """A message of a sender, as the others hear it. missing: deliveries that are yet to come."""

    sender: Client
    number: int
    missing: int
    sent_at: float


class FloodInPython(_InPython):
    def run(self, messages: int) -> Measurement:
        return self._measure(partial(self._flood, messages, lambda: False))

    def run_until(self, done: Callable[[], bool]) -> Measurement:
        return self._measure(partial(self._flood, math.inf, done))

    def _flood(self, messages: float, done: Callable[[], bool], latencies: list[float]) -> None:
        senders = self._crowd.clients[: self.senders]
        goals = {sender: sender.sent + messages for sender in senders}
        # By listener and sender: the number of the message that must come next.
        due = {
            listener: {sender: sender.sent for sender in senders if sender is not listener}
            for listener in self._crowd.clients
        }
        under_way: dict[bytes, _Line] = {}

        def say(sender: Client) -> None:
            if sender.sent < goals[sender]:
                line = _Line(sender, sender.sent, self.clients - 1, time.perf_counter())
                under_way[sender.say(self.size)[:-1]] = line

        for _ in range(self.in_flight):
            for sender in senders:
                say(sender)
        heard_at = asked_at = time.perf_counter()
        while under_way:
            events, now = self._crowd.ready(TICK), time.perf_counter()
            for listener in events:
                now = heard_at = time.perf_counter()
                *lines, listener.rest = (listener.rest + listener.receive()).split(b"\n")
                for text in lines:
                    line, numbers = under_way.get(text), due[listener]
                    if not line or line.number != numbers.get(line.sender):
                        raise DeliveryError(f"{listener.name} heard {text!r}, not due to it now")
                    numbers[line.sender] += 1
                    latencies.append(now - line.sent_at)
                    line.missing -= 1
                    if not line.missing:
                        del under_way[text]
                        say(line.sender)
            if now > heard_at + DEADLINE:
                raise DeliveryError(f"{len(under_way)} messages are not heard by all")
            if now > asked_at + TICK:
                asked_at = now
                if done():
                    goals, asked_at = dict.fromkeys(goals, 0), math.inf
