"""One worker of load.py: a process with a share of the clients in one epoll loop.

It obeys its commands one after the other, each a method of Worker: connect, gather, begin, run,
finish. The main process sends a command and waits for the answers before it sends the next; only
`stop` may come in the middle of `run`.

The clock. Message k of the whole room is due at `start + k / rate`, said by sender `k % senders` as
its message `k // senders`. All workers know `start` (time.monotonic() is the same clock in all
processes of a Linux system), so the number in a line tells when it was due, and the latency of a
delivery is the time of its recv() minus that: a line that left late, because server or worker were
busy, counts from when it should have left. No coordinated omission.

A delivery is there when its client has read it, and a worker reads one client after the other: with
many clients its own reading is a part of the latency, as it is on a machine that holds them all.

Who is in. The last client that connects is the caller. It says "ready", again and again, until each
client has heard it once, which it does only after the server has let it in; then "begin", once,
and the clock starts when all have heard that. At the end it says "over": whoever hears it has heard
nothing twice. That is a few lines in all, not one for each client.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import time
from array import array
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.harness.crowd import CONNECTS, DeliveryError, data_segments_in, message
from benchmarks.harness.starter import end_with_parent
from benchmarks.load.plan import STOP_SIGNALS, Closed, Counts, LoadError, Plan

RECEIVE_SIZE = 1 << 16
EVENTS = 64
"""Clients that are read, or lines that are sent, before the loop looks at the schedule again."""
MEMORY = 512
"""Chunks, and eight times as many lines, whose meaning is remembered."""
PROGRESS = 0.2
FULL = b"servidor lleno"
READY, BEGIN, OVER = b"ready", b"begin", b"over"
NOT_MINE = 0xFFFFFFFF
"""The number that a sender expects from itself: none that any line carries."""

_PR_SET_TIMERSLACK = 29  # linux/prctl.h


class Client:
    """One connection."""

    __slots__ = ("heard", "name", "out", "rest", "sender", "sock")

    def __init__(self, sock: socket.socket, sender: int | None):
        self.sock = sock
        self.name = str(sock.getsockname())
        self.sender = sender
        self.heard = array("I")  # the next number, by sender
        self.rest = b""  # of a line that has not come to its end
        self.out = b""  # what the kernel has not taken


Said = tuple[int, int, float]
"""What a line says: the sender, its number, when it was due; 0.0: in the warm-up."""


class Worker:
    def __init__(self, number: int, plan: Plan, control: Connection[Any, Any]):
        self.number, self.plan, self.control = number, plan, control
        self.epoll = select.epoll()
        self.epoll.register(control.fileno(), select.EPOLLIN)
        self.clients: dict[int, Client] = {}
        self.speakers: dict[int, Client] = {}
        self.caller: Client | None = None  # if it is one of ours
        self.calls: dict[bytes, bytes] = {}  # whole lines as they are heard, without the newline
        self.names: list[str] = []  # of all senders
        self.numbers: dict[bytes, int] = {}  # of all senders, by their names
        self.start = 0.0
        self.stopped = False
        self.segments = 0
        self.deliveries = self.in_window = self.sent = self.held_back = 0
        self.heard_at = 0.0
        self.busy = 0.0
        self.latencies, self.lateness = Counts(), Counts()
        self._chunks: dict[bytes, list[Said]] = {}
        self._lines: dict[bytes, Said] = {}

    def serve(self) -> None:
        """Obey until the main process has its result, or is gone."""
        with contextlib.suppress(EOFError, ConnectionError):
            try:
                while True:
                    command, *arguments = self.control.recv()
                    self.control.send((command, getattr(self, command)(*arguments)))
            except Closed as closed:
                self.control.send(("closed", (closed.count, closed.name)))
            except (LoadError, DeliveryError) as error:
                self.control.send(("failed", str(error)))
            except OSError as error:
                self.control.send(("failed", error.strerror or str(error)))

    # Commands.

    def connect(self, family: int, address: Sequence[Any], count: int) -> list[tuple[int, str]]:
        """Connect `count` clients more: (sender, name) of the senders among them; of the caller,
        which is the last of all, too."""
        plan, connecting = self.plan, select.epoll()
        pending: dict[int, socket.socket] = {}
        fresh: list[Client] = []
        while len(fresh) < count:
            while len(pending) < CONNECTS and len(pending) + len(fresh) < count:
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                sock.connect_ex(tuple(address))  # its error comes with the event
                pending[sock.fileno()] = sock
                connecting.register(sock.fileno(), select.EPOLLOUT)
            ready = connecting.poll(plan.deadline)
            if not ready:
                raise LoadError(f"cannot connect: no answer for {plan.deadline:g} s")
            for fd, _ in ready:
                connecting.unregister(fd)
                sock = pending.pop(fd)
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise LoadError(f"cannot connect: {os.strerror(error)}")
                try:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    sender = self.number + (len(self.clients) * plan.workers)
                    client = Client(sock, sender if sender < plan.senders else None)
                except OSError as failed:  # EINVAL: a reset has come already
                    raise LoadError(f"cannot connect: {failed.strerror}") from None
                fresh.append(client)
                self.clients[fd] = client
                self.epoll.register(fd, select.EPOLLIN | select.EPOLLRDHUP)
        connecting.close()
        if len(self.clients) == plan.share(plan.clients, self.number) and self.number == 0:
            self.caller = fresh[-1]
        return [
            (-1 if client.sender is None else client.sender, client.name)
            for client in fresh
            if client.sender is not None or client is self.caller
        ]

    def gather(self, names: list[str], caller: str) -> None:
        """Until each client of ours has heard the caller, which is answered with `heard`. The
        caller goes on until the next command is there: clients of other workers still wait for
        its calls. Those workers read nothing meanwhile, or they would hear BEGIN too early."""
        plan, self.names = self.plan, names
        self.numbers = {name.encode(): sender for sender, name in enumerate(names)}
        self.calls = {
            word: b"%s dice: %s" % (caller.encode(), word) for word in (READY, BEGIN, OVER)
        }
        for client in self.clients.values():
            client.heard = array("I", bytes(4 * plan.senders))
            if client.sender is not None:
                client.heard[client.sender] = NOT_MINE
                self.speakers[client.sender] = client
        self._hear(READY)
        self.control.send(("heard", None))
        if self.caller:
            self._hear(READY, until_commanded=True)

    def begin(self) -> None:
        if self.caller:
            self._call(BEGIN)
        self._hear(BEGIN)
        self.segments = self._segments()

    def run(self, start: float) -> float:
        """The schedule, until our clients have heard all of it or `stop` comes: when they had."""
        self.start = self.heard_at = start
        gc.collect()
        gc.disable()  # nothing below makes cycles; a collection would be measured
        began, cpu = time.monotonic(), time.process_time()
        self._run()
        self.segments = self._segments() - self.segments  # before any worker says more
        self.busy = (time.process_time() - cpu) / max(1e-9, time.monotonic() - began)
        return self.heard_at

    def stop(self) -> None:
        """It has crossed with the end of `run`."""
        self.stopped = True

    def finish(self) -> dict[str, Any]:
        """What was counted, after a last look that nothing comes twice."""
        if not self.stopped:
            if self.caller:
                self._call(OVER)
            self._hear(OVER)
        return {
            "deliveries": self.deliveries,
            "measured": sum(self.latencies.values()),
            "in_window": self.in_window,
            "sent": self.sent,
            "held_back": self.held_back,
            "heard_at": self.heard_at,
            "busy": self.busy,
            "segments": self.segments,
            "latencies": self.latencies.encode(),
            "lateness": self.lateness.encode(),
        }

    # The calls, before and after.

    def _call(self, word: bytes) -> None:
        assert self.caller
        with contextlib.suppress(OSError):  # who reads from it next sees why
            self.caller.sock.send(word + b"\n")

    def _hear(self, word: bytes, until_commanded: bool = False) -> None:
        """Until every client but the caller has heard `word`, or until the next command is there.
        As long as it is READY, the caller repeats it, more and more seldom."""
        waiting = {fd for fd, client in self.clients.items() if client is not self.caller}
        wanted, deadline = self.calls[word], time.monotonic() + self.plan.deadline
        pause, call_at = 0.2, time.monotonic() + (0.2 if until_commanded else 0.0)
        while waiting or until_commanded:
            now = time.monotonic()
            if self.caller and word is READY and now >= call_at:
                self._call(READY)
                call_at, pause = now + pause, min(2 * pause, 2.0)
            for fd, _ in self.epoll.poll(max(0.0, min(call_at, deadline) - now) or 0.2):
                client = self.clients.get(fd)
                if client is None:
                    if until_commanded:
                        return
                    self.control.recv()  # EOFError: the main process is gone
                    continue
                for line in self._whole_lines(client):
                    if line == wanted and fd in waiting:
                        waiting.discard(fd)
                        deadline = time.monotonic() + self.plan.deadline
                    elif line == FULL:
                        raise LoadError("the server is full: it refused a client")
                    elif line != self.calls[READY] or client is self.caller:
                        self._check(client, self._meaning(client, line))
            if waiting and not until_commanded and time.monotonic() > deadline:
                raise DeliveryError(
                    f"{len(waiting)} of {len(self.clients)} clients of a worker did not hear "
                    f"{word.decode()!r} for {self.plan.deadline:g} s"
                    + ("; does the server broadcast?" if word is READY else "")
                )

    def _whole_lines(self, client: Client) -> list[bytes]:
        try:
            data = client.sock.recv(RECEIVE_SIZE)
        except OSError:
            data = b""
        if not data:
            raise self._closed(client)
        *lines, client.rest = (client.rest + data).split(b"\n")
        return lines

    # The schedule.

    def _run(self) -> None:
        plan, clients, clock, start = self.plan, self.clients, time.monotonic, self.start
        poll, ready = self.epoll.poll, [self.epoll.fileno()]
        control, chunks, latencies = self.control.fileno(), self._chunks, self.latencies
        said = sum(plan.said_by(sender) for sender in self.speakers)
        left = len(clients) * plan.total - said
        window = start + plan.warm_up_messages / plan.rate
        longest = plan.size + max(map(len, self.names)) + 16
        schedule = self._schedule()
        due, speaker, line = next(schedule)
        report_at = start
        while left:
            now, budget = clock(), EVENTS
            while due <= now and budget:
                assert speaker
                self._say(speaker, line, now - due if due >= window else None)
                due, speaker, line = next(schedule)
                budget -= 1
                now = clock()
            if now >= report_at:
                report_at = now + PROGRESS
                self.control.send(("progress", (self.deliveries, self.sent)))
            events = poll(0, EVENTS)
            if not events:
                if now > self.heard_at + plan.deadline:  # and there is nothing to read
                    self._assert_not_stalled(now)
                # epoll_wait(2) sleeps for whole milliseconds; select(2), told to look at the
                # epoll descriptor, does not.
                pause = min(due, report_at) - clock()
                if pause > 0:
                    select.select(ready, (), (), pause)
                continue
            for fd, mask in events:
                if fd == control:
                    self.control.recv()  # stop, or EOFError
                    self.stopped = True
                    return
                client = clients[fd]
                if mask & select.EPOLLOUT:
                    self._flush(client)
                    if mask == select.EPOLLOUT:
                        continue
                try:
                    data = client.sock.recv(RECEIVE_SIZE)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                now = clock()
                if not data:
                    raise self._closed(client)
                if client.rest or data[-1] != 10:
                    whole, newline, client.rest = (client.rest + data).rpartition(b"\n")
                    data = whole + newline
                    if len(client.rest) > longest:
                        raise DeliveryError(f"{client.name} heard {client.rest[:60]!r}... too long")
                heard = client.heard
                parsed = chunks.get(data)
                if parsed is None:
                    parsed = self._parse(client, data)
                for sender, number, due_then in parsed:
                    if heard[sender] != number:
                        self._check(client, (sender, number, due_then))
                    heard[sender] = number + 1
                    if due_then:  # Counts.add(), without the call
                        micro = int((now - due_then) * 1e6)
                        if micro >= 2048:
                            shift = micro.bit_length() - 11
                            micro = micro >> shift << shift
                        latencies[micro] += 1
                left -= len(parsed)
                self.deliveries += len(parsed)
                if now >= window:
                    self.in_window += len(parsed)
                self.heard_at = now

    def _schedule(self) -> Iterator[tuple[float, Client | None, bytes]]:
        """(when, who, what) of all that our senders say; then nothing, ever."""
        plan, own = self.plan, sorted(self.speakers.items())
        for number in range(-(-plan.total // plan.senders)):
            for sender, client in own:
                k = number * plan.senders + sender
                if k < plan.total:
                    yield self.start + k / plan.rate, client, message(number, plan.size)
        while True:
            yield float("inf"), None, b""

    def _say(self, client: Client, line: bytes, late: float | None) -> None:
        self.sent += 1
        if late is not None:
            self.lateness.add(late)
        if client.out:
            self.held_back += 1
            client.out += line
            return
        client.out = line
        self._flush(client)
        if client.out:
            self.held_back += 1
            self.epoll.modify(
                client.sock.fileno(), select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLOUT
            )

    def _flush(self, client: Client) -> None:
        try:
            client.out = client.out[client.sock.send(client.out) :]
        except BlockingIOError:
            return
        except OSError:
            raise self._closed(client) from None
        if not client.out:
            self.epoll.modify(client.sock.fileno(), select.EPOLLIN | select.EPOLLRDHUP)

    def _assert_not_stalled(self, now: float) -> None:
        """A delivery is late when the first message that is due after the last one we heard is
        the deadline ago. Each worker has two clients, so each message is heard in each."""
        plan = self.plan
        following = int((self.heard_at - self.start) * plan.rate) + 1
        due = self.start + min(following, plan.total - 1) / plan.rate
        if now > max(due, self.heard_at) + plan.deadline:
            raise DeliveryError(self._missing())

    # What lines mean, and what is wrong with them.

    def _parse(self, client: Client, data: bytes) -> list[Said]:
        """What a chunk of whole lines says. Listeners mostly hear the same chunks, and if not
        that, the same lines: each is taken apart once."""
        parsed = []
        for line in data.split(b"\n")[:-1]:
            said = self._lines.get(line)
            if said is None:
                said = self._meaning(client, line)
                if len(self._lines) >= 8 * MEMORY:
                    self._lines.clear()
                self._lines[line] = said
            parsed.append(said)
        if len(self._chunks) >= MEMORY:
            self._chunks.clear()
        self._chunks[data] = parsed
        return parsed

    def _meaning(self, client: Client, line: bytes) -> Said:
        plan = self.plan
        name, _, text = line.partition(b" dice: ")
        if line in self.calls.values():
            what = "itself say" if client is self.caller else "once too often"
            raise DeliveryError(f"{client.name} heard {what}: {line.decode()!r}")
        sender = self.numbers.get(name)
        digits = text[:8]
        if (
            sender is None
            or not digits.isdigit()
            or text + b"\n" != message(int(digits), plan.size)
        ):
            raise DeliveryError(f"{client.name} heard {line[:100]!r}, which nobody said")
        number = int(digits)
        if number >= plan.said_by(sender):
            raise DeliveryError(f"{client.name} heard {line[:100]!r}, which was not said")
        k = number * plan.senders + sender
        return sender, number, self.start + k / plan.rate if k >= plan.warm_up_messages else 0.0

    def _check(self, client: Client, said: Said) -> None:
        sender, number, _ = said
        name, expected = self.names[sender], client.heard[sender]
        if sender == client.sender:
            raise DeliveryError(f"{client.name} heard itself say message {number}")
        if number < expected:
            raise DeliveryError(f"{client.name} heard message {number} of {name} twice")
        if number > expected:
            raise DeliveryError(
                f"{client.name} heard message {number} of {name} before message {expected}: "
                "one is lost, or they are out of order"
            )

    def _missing(self) -> str:
        """How many deliveries of what was due the deadline ago did not come, and one of them."""
        plan, count, example = self.plan, 0, ""
        due = int((time.monotonic() - plan.deadline - self.start) * plan.rate) + 1
        due = min(plan.total, due)
        for client in self.clients.values():
            for sender, number in enumerate(client.heard):
                missing = due // plan.senders + (sender < due % plan.senders) - number
                if missing > 0:
                    count += missing
                    example = example or f"{client.name}, message {number} of {self.names[sender]}"
        return f"{count} deliveries did not come within {plan.deadline:g} s, one of them: {example}"

    def _closed(self, client: Client) -> Closed:
        """With all that are closed by now, or in the next moment."""
        gone = {client.sock.fileno()}
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            for fd, mask in self.epoll.poll(0.01, len(self.clients) + 1):
                if mask & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
                    gone.add(fd)
            time.sleep(0.005)
        return Closed(len(gone - {self.control.fileno()}), client.name)

    def _segments(self) -> int:
        """Data segments that our clients have received."""
        return sum(data_segments_in(client.sock) for client in self.clients.values())


def work(
    number: int, plan: Plan, control: Connection[Any, Any], cpu: int | None, parent: int
) -> None:
    """A worker process, from start to end. Its own session: Ctrl-C is for the main process, which
    still wants to hear from it."""
    os.setsid()
    end_with_parent(parent)
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)  # ns: wake up when a line is due, not 50 µs on
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    Worker(number, plan, control).serve()
