"""Drive a server from outside: a room in lock-step, or turn by turn. Its floods are in flood.py.

All clients live in one thread of this process, and every delivery is checked: its sender, its
order, that it comes once, and that nobody hears itself. A benchmark whose server loses, doubles
or mixes up a line raises DeliveryError instead of giving a number.

    with Server("epoll", arguments=["--quiet"]) as server, Crowd(server.address, 100) as crowd:
        crowd.lock_step(rounds=200)

A message is a line of `size` bytes with its newline: a number that counts the sender's messages,
and padding.
"""

from __future__ import annotations

import fcntl
import itertools
import select
import socket
import ssl
import struct
import sys
import termios
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.harness import frames
from benchmarks.harness.process import DEADLINE, ServerError
from benchmarks.harness.server import Server

RECEIVE_SIZE = 1 << 18
NICKS = 100
"""Clients that come in at the same time, where the server asks for their nicks."""
TCPI_DATA_SEGS_IN = slice(152, 156)
"""In struct tcp_info, linux/tcp.h, since Linux 4.6: after eight __u8, 24 __u32 and four __u64 come
segs_out, segs_in, notsent_bytes, min_rtt, and this."""


class DeliveryError(Exception):
    """A line was lost, doubled, out of order, under another's name, or did not come in time."""


_numbers = itertools.count()  # of nicks: a crowd may come while another one is there


def new_nick() -> str:
    """One that no client of this process has had."""
    return f"n{next(_numbers)}"


def greeting_of(nick: str) -> bytes:
    """How the line begins with which a server that asks for a nick lets a client in."""
    return f"* Hola, {nick}. ".encode()


def message(number: int, size: int) -> bytes:
    """The line with which a client says `number`; at least 9 bytes."""
    return b"%08d" % number + b"." * (size - 9) + b"\n"


def data_segments_in(sock: socket.socket) -> int:
    """How many segments with data this end of a TCP connection has received. Those that come
    twice, because an acknowledgement was late, count twice. 0: the kernel does not tell."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCPI_DATA_SEGS_IN.stop)
    return int.from_bytes(info[TCPI_DATA_SEGS_IN], sys.byteorder)


def unread(sock: socket.socket) -> int:
    """Bytes in its receive buffer, FIONREAD of tcp(7)."""
    answer = fcntl.ioctl(sock.fileno(), termios.FIONREAD, struct.pack("i", 0))
    count: int = struct.unpack("i", answer)[0]
    return count


class Client:
    """One connection of a Crowd. nick: what it answers a server that asks. websocket: it speaks in
    frames, and hears lines all the same. sent: messages."""

    def __init__(
        self,
        address: Sequence[Any],
        index: int,
        nick: str = "",
        tls: ssl.SSLContext | None = None,
        websocket: bool = False,
    ):
        self.index = index
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(tuple(address))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:  # a recv() gives a whole record; what follows it stays in the kernel's buffer
            self.sock = tls.wrap_socket(self.sock, server_hostname=address[0])
        self.name = nick or str(self.sock.getsockname())
        self.prefix = f"{self.name} dice: ".encode()
        self.sent = 0
        self.rest = b""  # of a line that has not come to its end
        self._is_json = bool(nick)
        self._frames: frames.FrameReader | None = None
        if websocket:
            self.sock.sendall(frames.request(*address[:2]))
            answer = b""
            while frames.ANSWER_ENDS not in answer:
                answer += self.receive()
            if not answer.startswith(frames.GRANTED):
                raise DeliveryError(f"{self.name} asked for frames, and heard {answer!r}")
            self._frames = frames.FrameReader()
            self._lines_of(answer.partition(frames.ANSWER_ENDS)[2])  # a question

    def await_greeting(self) -> None:
        """What the server says after it may have come, too, and is dropped."""
        greeting = greeting_of(self.name)
        while not (self.rest.endswith(b"\n") and greeting in self.rest):
            self.rest += self.receive()
        self.rest = b""

    def say(self, size: int) -> bytes:
        """Its next message; the line that all others must hear."""
        line = message(self.sent, size)
        self.sent += 1
        try:
            self.tell(line)
        except OSError as error:
            raise DeliveryError(f"{self.name}: {error.strerror}") from None
        return self.prefix + line

    def tell(self, line: bytes) -> None:
        if self._frames:
            line = frames.client_frame(frames.TEXT, line[:-1])
        self.sock.sendall(line)

    def receive(self) -> bytes:
        """What has come, of frames the lines of those that are whole. DeliveryError: nothing
        will."""
        try:
            data = self.sock.recv(RECEIVE_SIZE)
        except TimeoutError:
            raise DeliveryError(f"{self.name} heard nothing for {DEADLINE:g} s") from None
        except OSError as error:
            raise DeliveryError(f"{self.name}: {error.strerror}") from None
        if not data:
            raise DeliveryError(f"{self.name} was closed by the server")
        return self._lines_of(data) if self._frames else data

    def _lines_of(self, data: bytes) -> bytes:
        assert self._frames
        lines = []
        for opcode, text in self._frames.receive(data):
            if opcode == frames.PING:
                self.sock.sendall(frames.client_frame(frames.PONG, text))
            elif opcode == frames.TEXT:
                lines.append(frames.lines_of(text, is_json=self._is_json))
            else:
                raise DeliveryError(f"{self.name} got a frame of type {opcode} with {text!r}")
        return b"".join(lines)


class Crowd(ExitStack):
    """`count` clients of the server at `address`, all of whom it knows when this returns.

    asks: it asks for a nick first. tls: what they go by, if it speaks TLS. websocket: they are
    browsers."""

    def __init__(
        self,
        address: Sequence[Any],
        count: int,
        *,
        broadcasts: bool = True,
        asks: bool = False,
        tls: ssl.SSLContext | None = None,
        websocket: bool = False,
    ):
        super().__init__()
        self.clients: list[Client] = []
        self._by_fd: dict[int, Client] = {}
        self._epoll = self.enter_context(select.epoll())
        try:
            for index in range(count):
                client = Client(address, index, new_nick() if asks else "", tls, websocket)
                self.enter_context(client.sock)
                self.clients.append(client)
                self._by_fd[client.sock.fileno()] = client
                self._epoll.register(client.sock.fileno(), select.EPOLLIN)
            if asks:
                self._give_nicks()
            if broadcasts and count > 1:
                self._gather()
        except BaseException:
            self.close()
            raise

    def _give_nicks(self) -> None:
        """To many at once: one by one, each would be told of by itself to all before it."""
        for first in range(0, len(self.clients), NICKS):
            newcomers = self.clients[first : first + NICKS]
            for client in newcomers:
                client.tell(f"{client.name}\n".encode())
            for client in newcomers:
                client.await_greeting()

    def _gather(self) -> None:
        """A message is the barrier: who has heard it is in. Servers that let newcomers in one by
        one may not have done so for all when the last one speaks, so it speaks until they have,
        and then says "begin", after which nobody has anything of it left to hear, nor of who has
        come in."""
        caller, deadline = self.clients[-1], time.monotonic() + DEADLINE
        waiting = set(self.clients[:-1])
        while waiting:
            if time.monotonic() > deadline:
                raise DeliveryError(f"{len(waiting)} clients were not let in")
            caller.tell(b"ready\n")
            again = time.monotonic() + 0.2
            while waiting and time.monotonic() < again:
                for client in self.ready(max(0.0, again - time.monotonic())):
                    client.rest += client.receive()
                    waiting.discard(client)
        caller.tell(b"begin\n")
        for client in self.clients[:-1]:
            while not client.rest.endswith(b"begin\n"):
                client.rest += client.receive()
            lines = {line for line in client.rest.splitlines() if not line.startswith(b"* ")}
            if lines != {caller.prefix + b"ready", caller.prefix + b"begin"}:
                raise DeliveryError(f"{client.name} heard {client.rest[:200]!r}")
            client.rest = b""

    def ready(self, within: float) -> list[Client]:
        """Who has something to read, in the order in which it came."""
        return [self._by_fd[fd] for fd, _ in self._epoll.poll(within, len(self.clients))]

    def lock_step(self, rounds: int, size: int = 32, latencies: list[float] | None = None) -> int:
        """One message, all its deliveries, the next; by one client after the other. How many
        deliveries. `latencies` gets the seconds of each, from the send of its message until it is
        read; listeners are read in the order in which the server has sent."""
        clients, clock, ready = self.clients, time.perf_counter, self.ready
        record = (latencies if latencies is not None else []).append
        for number in range(rounds):
            sender, left = clients[number % len(clients)], len(clients) - 1
            sent_at = clock()
            expected = sender.say(size)
            while left:
                events = ready(DEADLINE)
                if not events:
                    raise DeliveryError(f"{left} clients heard nothing for {DEADLINE:g} s")
                for client in events:
                    client.rest += client.receive()
                    latency = clock() - sent_at
                    due = expected if client is not sender else b""
                    if not due.startswith(client.rest):
                        raise DeliveryError(f"{client.name} heard {client.rest!r}, not {due!r}")
                    if client.rest == expected:
                        client.rest = b""
                        left -= 1
                        record(latency)
        return rounds * (len(clients) - 1)

    def assert_silent(self) -> None:
        """Nobody hears anything more: nothing came twice."""
        for client in self.ready(0):
            if lines := client.receive():  # and not only an acknowledgement, or a ping
                raise DeliveryError(f"{client.name} hears more: {lines!r}")


class Trickle(ExitStack):
    """One client that sends bytes without a newline, each of which is read in a turn of its own,
    beside idle clients: nobody is told anything, so what is left is the turn itself.

    ServerError: pidfd_getfd(2), which shows that a byte has been read, is not to be had.
    """

    def __init__(self, server: Server, idle: int):
        super().__init__()
        self._name = server.name
        try:
            socks = []
            for _ in range(idle + 1):
                sock = self.enter_context(socket.create_connection(server.address, DEADLINE))
                socks.append(sock)
            for asked in socks if server.asks else []:
                asked.sendall(f"{new_nick()}\n".encode())
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.wait_until_at_rest()
            theirs = server.end_of(sock)
            if theirs is None:
                raise ServerError("pidfd_getfd(2) is needed to see when a byte is read: Linux 5.6")
            self._sock, self._theirs = sock, self.enter_context(theirs)
        except BaseException:
            self.close()
            raise

    def run(self, turns: int) -> None:
        for _ in range(turns):
            self._sock.send(b"x")
            deadline = time.monotonic() + DEADLINE
            while unread(self._theirs):
                if time.monotonic() > deadline:
                    raise DeliveryError(f"{self._name} does not read")
