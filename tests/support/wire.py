"""What the tests do to a server from outside: peers, and a room full of them.

A `Peer` is one TCP connection with deadlines instead of sleeps. A `Room` knows who has to hear
what: for servers that broadcast it listens at every other peer, for those that log at their log,
and it takes any line that is lost, doubled, reordered or under another's name as a failure.
"""

from __future__ import annotations

import contextlib
import itertools
import selectors
import socket
import struct
import threading
import time

from benchmarks.harness.process import DEADLINE, Lines, ServerError
from benchmarks.harness.server import Server

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
    """One connection to a server. receive_buffer: SO_RCVBUF, to make it a slow one."""

    def __init__(self, address: tuple[object, ...], receive_buffer: int | None = None):
        host, port = str(address[0]), address[1]
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        open_peers.append(self)
        self.sock.settimeout(DEADLINE)
        if receive_buffer is not None:  # before connect: it decides the window that is offered
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.connect((host, port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.name = str(self.sock.getsockname())
        self._received = bytearray()

    def say(self, *texts: str) -> None:
        """Send lines, all of them in one go."""
        self.send("".join(f"{text}\n" for text in texts).encode())

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def as_heard(self, *texts: str) -> bytes:
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

    def line(self, within: float = DEADLINE) -> str:
        """The next line. Raises Closed, or TimeoutError after `within` seconds."""
        deadline = time.monotonic() + within
        while b"\n" not in self._received:
            self._receive(deadline)
        end = self._received.index(b"\n")
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line.decode()

    def take(self, count: int, within: float = DEADLINE) -> bytes:
        """The next `count` bytes. Raises Closed, or TimeoutError after `within` seconds."""
        deadline = time.monotonic() + within
        while len(self._received) < count:
            self._receive(deadline)
        data = bytes(self._received[:count])
        del self._received[:count]
        return data

    def rest(self, within: float = DEADLINE) -> bytes:
        """All that comes until the server closes. TimeoutError: it does not."""
        deadline = time.monotonic() + within
        with contextlib.suppress(Closed):
            while True:
                self._receive(deadline)
        return bytes(self._received)

    def _receive(self, deadline: float) -> None:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError(
                f"{self.name}: nothing came in time; so far {self._received[-80:]!r}"
            )
        self.sock.settimeout(remaining)
        try:
            data = self.sock.recv(1 << 18)
        except ConnectionResetError:
            raise Closed(f"{self.name}: reset by the server") from None
        except socket.timeout:
            return
        finally:
            self.sock.settimeout(DEADLINE)
        if not data:
            raise Closed(f"{self.name}: closed by the server after {self._received[-80:]!r}")
        self._received += data


class Room:
    """The peers of one server, and what they must hear."""

    def __init__(self, server: Server, *, broadcasts: bool = True, logs: bool = True):
        self.server = server
        self.broadcasts = broadcasts
        self.log: Lines | None = server.log if logs else None
        self.listeners: list[Peer] = []
        self._heard = 0  # lines of the log
        self._joined = 0

    def join(self, *, listens: bool = True, receive_buffer: int | None = None) -> Peer:
        """A new peer, which the server knows when this returns.

        listens: it hears everything that `hear` is told of, and reads it.
        """
        peer = Peer(self.server.address, receive_buffer)
        if self.log:
            self.log.wait(f"Cliente conectado: {peer.name}".__eq__)
        elif self.listeners:
            self._joined += 1
            peer.say(f"joins as number {self._joined}")
            self.hear(peer, f"joins as number {self._joined}")
        if listens:
            self.listeners.append(peer)
        return peer

    def join_slow(self) -> Peer:
        """A new peer that nobody reads from but the test, and whose kernel, like the server's,
        holds a few KiB for it."""
        peer = self.join(listens=False, receive_buffer=4096)
        self.server.shrink_send_buffer(peer.sock)
        return peer

    def hear(self, sender: Peer, *texts: str, within: float = DEADLINE) -> None:
        """Everyone but the sender hears these lines of the sender next, and nothing else."""
        deadline = time.monotonic() + within
        for text in texts:
            expected = f"{sender.name} dice: {text}"
            for peer in self.listeners if self.broadcasts else []:
                if peer is not sender:
                    heard = peer.line(deadline - time.monotonic())
                    assert heard == expected, (
                        f"{peer.name} heard {heard[:120]!r}, expected {expected[:120]!r}: a line "
                        "lost, doubled, out of order, or sent to its own sender"
                    )
            if self.log:
                self._heard = self.log.wait(lambda line: " dice: " in line, self._heard) + 1
                logged = self.log[self._heard - 1]
                assert logged == expected, f"logged {logged[:120]!r}, not {expected[:120]!r}"
        assert time.monotonic() < deadline, f"{texts[-1]!r} came later than {within:g} s"

    def leave(self, peer: Peer) -> None:
        """From now on this peer need not hear anything."""
        if peer in self.listeners:
            self.listeners.remove(peer)

    def gone(self, peer: Peer, reason: str = "") -> None:
        """The server knows that this peer has left, and says why it ended it, if it did."""
        self.leave(peer)
        if self.log:
            prefix = f"Cliente desconectado: {peer.name}"
            line = self.log[self.log.wait(lambda line: line.startswith(prefix))]
            assert line == prefix + (f" ({reason})" if reason else "")


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


def refused(server: Server) -> Peer:
    """A newcomer that is told that the server is full, and closed."""
    peer = Peer(server.address)
    assert peer.rest() == FULL, "a newcomer that has no place must be told `servidor lleno`"
    peer.close()
    return peer
