"""What the tests do to a server from outside: peers, and a room full of them.

A `Peer` is one TCP connection with deadlines instead of sleeps. A `Room` knows who has to hear
what: for servers that broadcast it listens at every other peer, for those that log at their log,
and it takes any line that is lost, doubled, reordered or under another's name as a failure.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import os
import resource
import select
import selectors
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from benchmarks.harness.crowd import greeting_of, new_nick
from benchmarks.harness.process import DEADLINE, Lines, ServerError, wait_until
from benchmarks.harness.server import READY, SERVERS, SILENT, Server
from tests.support.run import running, stat

PROMPTLY = 1.0
"""Seconds: no delivery may be later because of what another client does (the contract)."""

FULL = b"servidor lleno\n"
MAX_LINE = 65536
HIGH_WATER = 1 << 20
KERNEL_BUFFERS = 16 << 20
"""More than the send and the receive buffer of one loopback connection take, tcp(7)."""


class Closed(Exception):
    """The server has closed or reset the connection."""


open_peers: list[Peer] = []


def close_peers() -> None:
    """Close every peer of the test that has ended, however it ended."""
    while open_peers:
        open_peers.pop().close()


class Peer:
    """One connection to a server.

    receive_buffer: SO_RCVBUF, to make it a slow one.
    source: the address that it comes from; 127.0.0.0/8 has many.
    nick: what it answers a server that asks. Of what that says, it receives what comes after its
        greeting, without the server's own lines, each when it is whole.
    """

    def __init__(
        self,
        address: tuple[object, ...],
        receive_buffer: int | None = None,
        source: str = "",
        nick: str = "",
    ):
        host, port = str(address[0]), address[1]
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        open_peers.append(self)
        self.sock.settimeout(DEADLINE)
        if receive_buffer is not None:  # before connect: it decides the window that is offered
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.sock.bind((source, 0))
        self.sock.connect((host, port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address = str(self.sock.getsockname())  # its name in the log
        self.name = nick or self.address  # for the others
        self._received = bytearray()
        self._greeting = greeting_of(nick) if nick else b""
        self._greeted = False
        self._partial = b""
        if nick:
            self.say(nick)

    def say(self, *texts: str) -> None:
        """Send lines, all of them in one go."""
        self.send("".join(f"{text}\n" for text in texts).encode())

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def delivery(self, *texts: str) -> bytes:
        """What the others receive when it says these lines."""
        return "".join(f"{self.name} dice: {text}\n" for text in texts).encode()

    def finish(self) -> None:
        """Half-close: a FIN to the server, which may still send."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave with an RST: SO_LINGER with time 0, socket(7)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    def await_greeting(self) -> None:
        self._receive_until(lambda: self._greeted, DEADLINE)

    def answered(self) -> bool:
        """Whether anything is there to be received, if only the end."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    # Each raises TimeoutError after `within` seconds, the first two Closed.

    def line(self, within: float = DEADLINE) -> str:
        """The next line."""
        self._receive_until(lambda: b"\n" in self._received, within)
        return self._cut(self._received.index(b"\n") + 1)[:-1].decode()

    def take(self, count: int, within: float = DEADLINE) -> bytes:
        """The next `count` bytes."""
        self._receive_until(lambda: len(self._received) >= count, within)
        return self._cut(count)

    def rest(self, within: float = DEADLINE) -> bytes:
        """All that comes until the server closes."""
        with contextlib.suppress(Closed):
            self._receive_until(lambda: False, within)
        return bytes(self._received) + self._partial

    def _cut(self, count: int) -> bytes:
        data = bytes(self._received[:count])
        del self._received[:count]
        return data

    def _receive_until(self, enough: Callable[[], bool], within: float) -> None:
        deadline = time.monotonic() + within
        while not enough():
            remaining = deadline - time.monotonic()
            try:
                if remaining <= 0:
                    raise TimeoutError
                self.sock.settimeout(remaining)
                data = self.sock.recv(1 << 18)
            except TimeoutError:
                so_far = f"so far {self._received[-80:]!r}"
                raise TimeoutError(f"{self.name}: nothing came in time; {so_far}") from None
            except ConnectionResetError:
                raise Closed(f"{self.name}: reset by the server") from None
            finally:
                self.sock.settimeout(DEADLINE)
            if not data:
                raise Closed(f"{self.name}: closed by the server after {self._received[-80:]!r}")
            self._received += self._said_by_others(data) if self._greeting else data

    def _said_by_others(self, data: bytes) -> bytes:
        whole, newline, self._partial = (self._partial + data).rpartition(b"\n")
        lines = (whole + newline).split(b"\n")[:-1]
        if not self._greeted:
            found = [n for n, line in enumerate(lines) if line.startswith(self._greeting)]
            self._greeted = bool(found)
            lines = lines[found[0] + 1 :] if found else []
        return b"".join([line + b"\n" for line in lines if not line.startswith(b"* ")])


class Room:
    """The peers of one server, and what they must hear.

    logs: whether what it prints is looked at, too; if it is a server of ours.
    """

    def __init__(self, server: Server, *, logs: bool = True):
        self.server = server
        self.broadcasts = server.name not in SILENT
        self.log: Lines | None = server.log if logs and server.name in SERVERS else None
        self._logs_messages = self.log is not None and not server.asks
        self.listeners: list[Peer] = []
        self._logged = 0  # lines of the log that have been looked at

    def join(self, *, listens: bool = True, receive_buffer: int | None = None) -> Peer:
        """A new peer, which the server knows when this returns.

        listens: it hears everything that `hear` is told of, and reads it.
        """
        peer = self.connect(receive_buffer)
        if self.log or self.server.asks:
            come_in(self.server, peer)
        elif self.listeners:
            self.say(peer, "here I am")
        if listens:
            self.listeners.append(peer)
        return peer

    def connect(self, receive_buffer: int | None = None) -> Peer:
        """A new peer, which the server need not know yet."""
        nick = new_nick() if self.server.asks else ""
        return Peer(self.server.address, receive_buffer, nick=nick)

    def join_slow(self) -> Peer:
        """A new peer that nobody reads from but the test, and whose kernel, like the server's,
        holds a few KiB for it."""
        peer = self.join(listens=False, receive_buffer=4096)
        self.server.shrink_send_buffer(peer.sock)
        return peer

    def say(self, sender: Peer, *texts: str, within: float = DEADLINE) -> None:
        """The sender says these lines, in one go, and everyone hears them."""
        sender.say(*texts)
        self.hear(sender, *texts, within=within)

    def hear(self, sender: Peer, *texts: str, within: float = DEADLINE) -> None:
        """Everyone but the sender hears these lines of the sender next, and nothing else."""
        deadline = time.monotonic() + within
        for text in texts:
            expected = f"{sender.name} dice: {text}"
            for peer in self.listeners if self.broadcasts else []:
                if peer is not sender:
                    line = peer.line(deadline - time.monotonic())
                    assert line == expected, (
                        f"{peer.name} heard {line[:120]!r}, expected {expected[:120]!r}: a line "
                        "lost, doubled, out of order, or sent to its own sender"
                    )
            if self.log and self._logs_messages:
                self._logged = self.log.wait(is_message, self._logged) + 1
                line = self.log[self._logged - 1]
                assert line == expected, f"logged {line[:120]!r}, not {expected[:120]!r}"
        assert time.monotonic() < deadline, f"{texts[-1]!r} came later than {within:g} s"

    def hear_all(self, expected: set[str]) -> None:
        """Everyone hears these lines next, from whomever and in any order, and nothing else."""
        for peer in self.listeners if self.broadcasts else []:
            assert {peer.line() for _ in expected} == expected
        if self.log and self._logs_messages:
            first = self._logged
            for _ in expected:
                self._logged = self.log.wait(is_message, self._logged) + 1
            assert set(filter(is_message, self.log.all()[first : self._logged])) == expected

    def leave(self, peer: Peer) -> None:
        """From now on this peer need not hear anything."""
        if peer in self.listeners:
            self.listeners.remove(peer)

    def gone(self, *peers: Peer, reason: str = "") -> None:
        """The server knows that these have left, and says why it ended them, if it did."""
        for peer in peers:
            self.leave(peer)
            if self.log:
                line = f"Cliente desconectado: {peer.address}"
                self.log.wait((f"{line} ({reason})" if reason else line).__eq__)


def padded(count: int, size: int) -> list[str]:
    """As many lines of so many characters, all different."""
    return [f"{number:03} ".ljust(size, "x") for number in range(count)]


def is_message(line: str) -> bool:
    """Whether a line of the log is what somebody has said."""
    return " dice: " in line


def come_in(server: Server, *peers: Peer) -> None:
    """Wait until the log says that they are in, or they have been greeted."""
    for peer in peers:
        if server.asks:
            peer.await_greeting()
        else:
            server.log.wait(f"Cliente conectado: {peer.address}".__eq__)


def limit_memory(server: Server, spare: int) -> None:
    """No more address space than it uses now and so many MiB."""
    pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (spare << 20)
    resource.prlimit(server.pid, resource.RLIMIT_AS, (limit, limit))


@contextlib.contextmanager
def stopped(server: Server) -> Iterator[None]:
    """What is done meanwhile is there in one wakeup of the server.

    SIGSTOP takes effect when the server wakes up for it, which must not be for anything else.
    """
    os.kill(server.pid, signal.SIGSTOP)
    wait_until(lambda: stat(server.pid)[0] in "Tt", "it does not stop")
    yield
    os.kill(server.pid, signal.SIGCONT)


@contextlib.contextmanager
def logging_into_a_pipe(
    command: list[str], prepare: Callable[[int], object]
) -> Iterator[tuple[Any, TextIO]]:
    """The address of a server, and its log, which nobody reads but the test; prepare: is called
    with the end that the server writes into."""
    reader, writer = os.pipe()
    prepare(writer)
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    with open(reader, encoding="utf-8") as log, running(
        [*command, "--port", "0"], stdout=writer, env=environment
    ) as process:
        os.close(writer)
        ready = READY.match(log.readline())
        assert ready
        yield ast.literal_eval(ready[1]), log
        process.terminate()
        assert process.communicate(timeout=DEADLINE)[1] == ""
    assert process.returncode == 0


class Flood:
    """One peer that sends short lines without end, which cost a server the most, each being a
    message of its own; and peers that read them. As fast as the readers read: at most two
    batches are under way. Anybody else may speak meanwhile, which the loads of benchmarks/harness,
    who check every delivery, take for an error."""

    LINES = 8192
    """in a batch, and one more that ends it"""

    def __init__(self, room: Room, flooder: Peer, readers: list[Peer]):
        self._room = room
        self._flooder = flooder
        self._readers = readers
        for peer in [flooder, *readers]:
            room.leave(peer)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        counts = dict.fromkeys((peer.sock for peer in self._readers), 0)
        logged = 0
        with contextlib.suppress(OSError, ServerError), selectors.DefaultSelector() as selector:
            for peer in [self._flooder, *self._readers]:
                selector.register(peer.sock, selectors.EVENT_READ, peer.sock)
            for batch in itertools.count():
                self._flooder.send(b"x\n" * self.LINES + f"end {batch}\n".encode())
                if batch and not self._room.broadcasts:
                    end = f"{self._flooder.name} dice: end {batch - 1}"
                    logged = self._room.server.log.wait(end.__eq__, logged)
                while self._room.broadcasts and min(counts.values()) < batch * (self.LINES + 1):
                    for key, _ in selector.select(0.1):
                        data = key.data.recv(1 << 18)
                        if not data:
                            return  # the server is gone
                        if key.data in counts:
                            counts[key.data] += data.count(b"\n")
                    if self._stop.is_set():
                        return
                if self._stop.is_set():
                    return

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def refused(server: Server) -> None:
    """A newcomer is told that the server is full, and closed."""
    peer = Peer(server.address)
    assert peer.rest() == FULL, "a newcomer that has no place must be told `servidor lleno`"
    peer.close()
