"""A whole room of lowlevel on a back end that nobody can trust.

The kernel is replaced: by sockets that live in memory, and a back end that reports what is ready in
any order, together with what is not, and descriptors that have just been given to somebody else;
or by a ring on which things complete in any order and in pieces. Whatever it does, the transcript
of the room must hold.
"""

from __future__ import annotations

import errno
import itertools
import random
import re
from collections import deque
from contextlib import suppress
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lowlevel import acceptor, connection, readiness, room
from lowlevel.__main__ import on_completions, on_readiness
from lowlevel.acceptor import Acceptor
from lowlevel.reactor import HANGUP, READABLE, WRITABLE
from lowlevel.room import Flush
from lowlevel.uring import completion
from lowlevel.uring import connection as uring_connection
from lowlevel.uring.completion import Completions
from tests.lowlevel.completion_kernel import FakeRing

FIRST = 1_000_000
"""The lowest descriptor of a client."""


class FakeKernel:
    """The listener; gives out descriptor numbers, the lowest that is free like the real one."""

    def __init__(self) -> None:
        self.sockets: dict[int, FakeSocket] = {}
        self.backlog: deque[FakeSocket] = deque()
        self.knock = False  # the listener's edge

    def fileno(self) -> int:
        return FIRST - 1

    def setblocking(self, blocking: bool) -> None:
        assert not blocking

    def accept(self) -> tuple[FakeSocket, str]:
        if not self.backlog:
            raise BlockingIOError(errno.EAGAIN, "nobody")
        sock = self.backlog.popleft()
        if sock.name == "nobody":
            raise ConnectionAbortedError(errno.ECONNABORTED, "gone before it came")
        sock.fd = next(fd for fd in itertools.count(FIRST) if fd not in self.sockets)
        self.sockets[sock.fd] = sock
        return sock, sock.name


class FakeSocket:
    """The server's end of a connection; its other end is the attributes."""

    def __init__(self, kernel: FakeKernel, name: str, space: int):
        self.kernel = kernel
        self.name = name
        self.received = bytearray()  # sent by the client, unread
        self.sent = bytearray()  # in the send buffer
        self.heard = bytearray()  # read by the client
        self.space = space  # of the send buffer
        self.fin = False
        self.error: OSError | None = None  # told once
        self.reset = False
        self.edge = True
        self.fd = -1
        self.detached = False

    def fileno(self) -> int:
        return -1 if self.detached else self.fd

    def setblocking(self, blocking: bool) -> None:
        assert not blocking

    def recv(self, size: int) -> bytes:
        if self.received:
            data = bytes(self.received[:size])
            del self.received[:size]
            return data
        self._raise_error()
        if self.fin or self.reset:
            return b""
        raise BlockingIOError(errno.EAGAIN, "nothing to read")

    def send(self, data: bytes) -> int:
        self._raise_error()
        if self.reset:
            raise BrokenPipeError(errno.EPIPE, "reset")
        free = self.space - len(self.sent)
        if free <= 0:
            raise BlockingIOError(errno.EAGAIN, "no space")
        self.sent += data[:free]
        return min(free, len(data))

    def _raise_error(self) -> None:
        assert self.fd >= 0, "closed"
        if self.error:
            error, self.error = self.error, None
            raise error

    def close(self) -> None:
        assert self.fd >= 0, "closed twice"
        del self.kernel.sockets[self.fd]
        self.fd = -1

    def detach(self) -> int:
        """Somebody else closes it. Until then the kernel knows it by its number."""
        assert self.fd >= 0, "closed twice"
        self.detached = True
        return self.fd

    # What the client does.

    def say(self, data: bytes) -> None:
        self.received += data
        self.edge = True

    def finish(self) -> None:
        self.fin = self.edge = True

    def abort(self) -> None:
        self.reset = self.edge = True
        odd = int(self.name.split()[-1]) % 2
        self.error = OSError(errno.ETIMEDOUT if odd else errno.ECONNRESET, "gone")
        self.sent.clear()

    def read(self, size: int) -> None:
        self.heard += self.sent[:size]
        del self.sent[:size]
        self.edge = True

    def mask(self) -> int:
        readable = bool(self.received) or self.fin or self.reset
        writable = self.reset or len(self.sent) < self.space
        hangup = self.reset or self.fin
        return READABLE * readable | WRITABLE * writable | HANGUP * hangup


class FakeBackend:
    """Reports everything that a real one may, in any order, and more."""

    def __init__(self, kernel: FakeKernel, edge_triggered: bool, seed: int):
        self.kernel = kernel
        self.edge_triggered = edge_triggered
        self.random = random.Random(seed)
        self.interest: dict[int, int] = {}
        self.spurious = 0.3

    def add(self, fd: int, interest: int) -> None:
        assert fd not in self.interest
        self.interest[fd] = 0
        self.modify(fd, interest)

    def modify(self, fd: int, interest: int) -> None:
        assert fd in self.interest
        assert interest
        self.interest[fd] = interest
        if fd in self.kernel.sockets:  # who is asked about anew is looked at anew
            self.kernel.sockets[fd].edge = True

    def remove(self, fd: int) -> None:
        del self.interest[fd]

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        events = []
        for fd, interest in self.interest.items():
            sock = self.kernel.sockets.get(fd)
            if sock:
                # RDHUP is asked about edge-triggered only; HUP and ERR come always.
                hangup = HANGUP if self.edge_triggered or sock.reset else 0
                mask = sock.mask() & (interest | hangup)
                if mask and (sock.edge or not self.edge_triggered):
                    sock.edge = False
                    if mask & HANGUP and self.random.random() < 0.5:
                        mask = HANGUP  # which is enough to say
                    events.append((fd, mask))
                elif self.random.random() < self.spurious:
                    mask = self.random.choice((READABLE, WRITABLE, READABLE | WRITABLE))
                    events.append((fd, mask))
            elif fd == self.kernel.fileno() and self._somebody_knocks():
                events.append((fd, READABLE))
        self.random.shuffle(events)
        if self.random.random() < self.spurious:
            events.append((FIRST + self.random.randrange(8), READABLE))  # somebody's, long ago
        return events

    def _somebody_knocks(self) -> bool:
        knock, self.kernel.knock = self.kernel.knock, False
        return bool(self.kernel.backlog) and (knock or not self.edge_triggered)

    def close(self) -> None: ...


class Theatre:
    """A server on a FakeKernel, and its audience."""

    def __init__(self, loop: str, flush: Flush, seed: int):
        self.kernel = FakeKernel()
        self.random = random.Random(seed)
        self.log: list[str] = []
        log = lambda lines: self.log.extend(lines.split("\n"))  # noqa: E731
        self.fake: FakeBackend | FakeRing
        if loop == "uring":
            self.fake = FakeRing(self.kernel, seed)
            completions = Completions(cast(Any, self.fake))
            self.reactor, self.room, let_in = on_completions(completions, 2, flush, log)
        else:
            self.fake = FakeBackend(self.kernel, loop == "edge", seed)
            self.reactor, self.room, let_in = on_readiness(self.fake, 2, flush, log)
        self.reactor.before_wait = self.room.flush
        Acceptor(cast(Any, self.kernel), self.reactor, let_in, 1 << 30, self.log.append).open()
        self.clients: list[FakeSocket] = []
        self.words: dict[str, bytes] = {}

    def connect(self, space: int) -> None:
        client = FakeSocket(self.kernel, f"client {len(self.clients)}", space)
        self.kernel.backlog.append(client)
        if self.random.random() < 0.2:
            self.kernel.backlog.append(FakeSocket(self.kernel, "nobody", 0))
        self.kernel.knock = True
        self.clients.append(client)
        self.words[client.name] = b""

    def say(self, client: FakeSocket, data: bytes) -> None:
        if not client.fin and not client.reset:
            self.words[client.name] += data
            client.say(data)

    def turn(self) -> None:
        self.reactor.poll(0)
        for member in self.room._members:
            assert isinstance(member, connection.Connection)
            assert member._waiting() <= connection.HIGH_WATER

    def settle(self) -> None:
        """Let everybody read until nothing moves any more. What is left then is lost: no edge
        will come for it."""
        if isinstance(self.fake, FakeRing):
            self.fake.eager = True
        else:
            self.fake.spurious = 0
        still, before = 0, [0]
        while still < 4:
            for client in self.clients:
                if client.sent:
                    client.read(1 << 30)
            self.turn()
            now = [len(self.log), *(len(client.heard) for client in self.clients)]
            still = still + 1 if now == before and not self.reactor._requeued else 0
            before = now

    def check(self) -> None:
        assert self.log.count("") == 0
        for client in self.clients:
            name, prefix = client.name, f"{client.name} dice: "
            came = self.log.index(f"Cliente conectado: {name}")
            left = re.compile(rf"Cliente desconectado: {name}( \(.+\))?").fullmatch
            ends = [at for at, line in enumerate(self.log) if left(line)]
            assert len(ends) <= 1
            kicked = bool(ends) and self.log[ends[0]].endswith(")")
            assert bool(ends) == (client.fin or client.reset or kicked), f"{name}: {self.log}"
            cut_off = client.reset or kicked
            # What it said is in the log, once, in order, and to its end unless it was cut off.
            logged = [line.removeprefix(prefix) for line in self.log if line.startswith(prefix)]
            *words, unfinished = self.words[name].decode().split("\n")
            words = [word for word in (*words, unfinished if client.fin else "") if word]
            assert logged == (words[: len(logged)] if cut_off else words)
            # What it heard is what others said while it was in, in the order of the log.
            stayed = self.log[came : ends[0] if ends else None]
            others = [s for s in stayed if " dice: " in s and not s.startswith(prefix)]
            owed = "".join(f"{line}\n" for line in others).encode()
            assert client.heard == (owed[: len(client.heard)] if cut_off else owed)
        assert not self.reactor._requeued
        assert len(self.kernel.sockets) == len(self.room._members)
        if isinstance(self.fake, FakeRing):
            armed = {request.fd for request in self.fake.requests}
        else:
            armed = set(self.fake.interest)
        assert {fd for fd in armed if fd >= FIRST} == set(self.kernel.sockets)


def steps() -> st.SearchStrategy[list[tuple[Any, ...]]]:
    """What clients do between the turns of one play."""
    client = st.integers(0, 7)
    say = st.tuples(st.just("say"), client, st.integers(1, 12))
    poll = st.tuples(st.just("poll"))
    step = st.one_of(
        *(say, say, poll, poll),
        st.tuples(st.just("connect"), st.sampled_from([5, 60, 100_000])),
        st.tuples(st.just("piece"), client, st.sampled_from(["a", "b\n", "\n"])),
        st.tuples(st.sampled_from(["finish", "abort"]), client),
        st.tuples(st.just("read"), client, st.integers(1, 300)),
    )
    return st.lists(step, max_size=60)


SMALL: list[tuple[Any, str, int]] = [
    *((module, "READ_SIZE", 48) for module in (connection, readiness, uring_connection)),
    *((connection, "LOW_WATER", 150), (connection, "HIGH_WATER", 500)),
    *((completion, "BUFFERS", 4), (completion, "BUFFER_SIZE", 16), (acceptor, "ACCEPTS", 2)),
    *((room, "BATCH_SIZE", 100), (room, "SEND_COST", 4)),
]
"""Bounds, so that a few lines meet all of them."""


@pytest.mark.parametrize("plays", [60, pytest.param(2000, marks=pytest.mark.long)])
@pytest.mark.parametrize("flush", Flush)
@pytest.mark.parametrize("loop", ["edge", "level", "uring"])
def test_transcript_holds_whatever_the_back_end_does(
    loop: str, flush: Flush, plays: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing lost, doubled, out of order or under another's name."""
    for bound in SMALL:
        monkeypatch.setattr(*bound)

    @settings(max_examples=plays, deadline=None)
    @given(steps=steps(), seed=st.integers(0, 1 << 16))
    @example(steps=[("say", 0, 3), ("finish", 1), ("say", 0, 3), ("poll",)], seed=255)
    def play(steps: list[tuple[Any, ...]], seed: int) -> None:
        theatre = Theatre(loop, flush, seed)
        theatre.connect(100_000)
        theatre.connect(60)
        theatre.turn()
        counter = 0
        for action, *arguments in steps:
            if action == "poll":
                theatre.turn()
            elif action == "connect":
                theatre.connect(*arguments)
            else:
                client = theatre.clients[arguments[0] % len(theatre.clients)]
                if action == "say":
                    texts = range(counter, counter := counter + arguments[1])
                    theatre.say(client, "".join(f"word {text}\n" for text in texts).encode())
                elif action == "piece":
                    theatre.say(client, arguments[1].encode())
                elif action == "read":
                    client.read(arguments[1])
                elif not client.fin and not client.reset:
                    getattr(client, action)()
        theatre.settle()
        theatre.check()
        theatre.room.close()
        with suppress(OSError):
            theatre.reactor.close()

    play()
