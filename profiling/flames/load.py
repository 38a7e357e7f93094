"""Keep a server busy: the loads under which flamegraph.py looks at it.

Flood   a closed loop on a room: so many messages under way at any time, and the next one leaves
        when one has been heard.
Ingest  lines pushed at a server that only prints, as fast as it takes them.

`Crowd.flood` checks every delivery when it comes, which takes longer than a server that coalesces
needs to make it: half of the time such a server would wait for its load. Here one listener
follows each message, the others read now and then, many messages at a time, and what is checked is
how many lines each of them has heard. A server cannot tell: until they read, the kernel has it.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness.crowd import RECEIVE_SIZE, Client, Crowd, DeliveryError, message
from benchmarks.harness.process import DEADLINE
from benchmarks.harness.server import Server

SENDERS = 5
IN_FLIGHT = 8
SIZE = 32
"""Bytes of a message, with its newline."""
BACKLOG = 256
"""Messages after which the other listeners read; some 16 KiB for each, which the kernel holds."""
PAUSE = 0.02
"""Seconds after which they read and `done` is asked, if there are fewer."""
BLOCK = 1 << 14
"""Bytes of one send of Ingest."""


class Flood:
    """The first `senders` clients of a crowd talk, and all others hear it."""

    def __init__(self, crowd: Crowd):
        self.clients = crowd.clients
        self.senders = min(SENDERS, len(self.clients) - 1)
        self.turns = itertools.cycle(self.clients[: self.senders])
        # The first of those who only listen: where everybody is told in order, most sends are yet
        # to come when it has heard a message, and the next ones are there before they are done.
        self.follower = self.clients[self.senders]
        self.others = [client for client in self.clients if client is not self.follower]
        self.said = 0
        self.heard = dict.fromkeys((client.index for client in self.clients), 0)
        for client in self.clients:
            client.sent = 0
            client.sock.settimeout(DEADLINE)

    @property
    def words(self) -> str:
        return (
            f"flood: {len(self.clients)} clients, {self.senders} of them send, "
            f"{self.senders * IN_FLIGHT} messages of {SIZE} bytes in flight"
        )

    def run(self, done: Callable[[], bool]) -> int:
        """Until `done`; how many messages. DeliveryError: somebody has not heard all of them."""
        first, heard = self.said, self.heard
        while True:
            until = self.said + BACKLOG
            look = time.monotonic() + PAUSE
            while self.said < until and time.monotonic() < look:
                self._say(heard[self.follower.index] + self.senders * IN_FLIGHT - self.said)
                self._hear(self.follower)
            for client in self.others:
                if client.sent + heard[client.index] < heard[self.follower.index]:
                    self._hear(client)
            if done():
                break
        for client in self.clients:
            while client.sent + heard[client.index] < self.said:
                self._hear(client)
            if client.sent + heard[client.index] > self.said:
                raise DeliveryError(f"{client.name} heard more than was said")
        return self.said - first

    def _say(self, count: int) -> None:
        """Each in its turn says up to IN_FLIGHT messages at once."""
        while count > 0:
            client = next(self.turns)
            lines = min(count, IN_FLIGHT)
            text = b"".join(message(client.sent + i, SIZE) for i in range(lines))
            try:
                client.sock.sendall(text)
            except OSError as error:
                raise DeliveryError(f"{client.name} cannot send: {_words(error)}") from None
            client.sent += lines
            self.said += lines
            count -= lines

    def _hear(self, client: Client) -> None:
        try:
            data = client.sock.recv(RECEIVE_SIZE)
        except OSError as error:
            raise DeliveryError(f"{client.name} cannot receive: {_words(error)}") from None
        if not data:
            raise DeliveryError(f"{client.name} was closed by the server")
        self.heard[client.index] += data.count(b"\n")


class Ingest:
    """The first clients of a crowd push lines at a server that prints them."""

    def __init__(self, crowd: Crowd):
        self.clients = crowd.clients
        self.senders = min(SENDERS, len(self.clients))
        self.block = message(0, SIZE) * (BLOCK // SIZE)

    @property
    def words(self) -> str:
        return (
            f"ingest: {len(self.clients)} clients, {self.senders} of them push lines of {SIZE} "
            "bytes as fast as stdout is read"
        )

    def run(self, done: Callable[[], bool]) -> int:
        """Until `done`; how many messages the kernel has taken. DeliveryError: none any more."""
        waiting = {client.sock.fileno(): client for client in self.clients[: self.senders]}
        rest = dict.fromkeys(waiting, self.block)
        poll = select.poll()
        for fd, client in waiting.items():
            client.sock.setblocking(False)
            poll.register(fd, select.POLLOUT)
        taken = 0
        last = time.monotonic()
        while not done():
            for fd, _ in poll.poll(PAUSE * 1000):
                try:
                    sent = waiting[fd].sock.send(rest[fd])
                except OSError as error:
                    name = waiting[fd].name
                    raise DeliveryError(f"{name} cannot send: {_words(error)}") from None
                rest[fd] = rest[fd][sent:] or self.block
                taken += sent
                last = time.monotonic()
            if time.monotonic() > last + DEADLINE:
                raise DeliveryError(f"the server took nothing for {DEADLINE:g} s")
        return taken // SIZE


class Clock:
    """How long a server ran, and how long it was ready to and had to wait for a CPU."""

    def __init__(self, server: Server):
        self._server = server
        self.seconds, self.cpu, self.queued = self._now()

    def _now(self) -> tuple[float, float, float | None]:
        queued = None
        # Of the first thread: "time on a CPU, time in a run queue, time slices", proc_schedstats.
        with contextlib.suppress(FileNotFoundError):  # a kernel without CONFIG_SCHED_INFO
            if self._server.threads() == 1:
                schedstat = Path(f"/proc/{self._server.pid}/schedstat").read_text()
                queued = int(schedstat.split()[1]) / 1e9
        return time.perf_counter(), self._server.cpu_seconds(), queued

    def stop(self) -> None:
        """From now on the attributes say how much each has grown."""
        seconds, cpu, queued = self._now()
        self.seconds, self.cpu = seconds - self.seconds, cpu - self.cpu
        both = queued is not None and self.queued is not None
        self.queued = (queued or 0.0) - (self.queued or 0.0) if both else None


def _words(error: OSError) -> str:
    """A timeout has no errno and no words of the kernel's."""
    return error.strerror or f"nothing happened for {DEADLINE:g} s"
