"""Drive a server from outside: a room in lock-step or in a closed-loop flood, or turn by turn.

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
import select
import socket
import struct
import termios
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from benchmarks.harness.server import DEADLINE, Server, ServerError

RECEIVE_SIZE = 1 << 18
CONNECTS = 200
"""Connections that are under way at the same time; servers listen with a backlog of 1024."""


class DeliveryError(Exception):
    """A line was lost, doubled, out of order, under another's name, or did not come in time."""


def message(number: int, size: int) -> bytes:
    """The line with which a client says `number`; at least 9 bytes."""
    return b"%08d" % number + b"." * (size - 9) + b"\n"


class Client:
    """One connection of a Crowd."""

    def __init__(self, address: Sequence[Any], index: int):
        self.index = index
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(tuple(address))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.name = str(self.sock.getsockname())
        self.prefix = f"{self.name} dice: ".encode()
        self.said = 0
        self.heard: dict[bytes, int] = {}  # the next number, by the sender's prefix
        self.rest = b""  # of a line that has not come to its end


class Crowd:
    """`count` clients of the server at `address`, all of whom it knows when this returns."""

    def __init__(self, address: Sequence[Any], count: int, *, broadcasts: bool = True):
        self.clients: list[Client] = []
        self._by_fd: dict[int, Client] = {}
        self._epoll = select.epoll()
        self._parsed: dict[bytes, list[tuple[bytes, int]]] = {}
        try:
            for index in range(count):
                client = Client(address, index)
                self.clients.append(client)
                self._by_fd[client.sock.fileno()] = client
            if broadcasts and count > 1:
                self._gather()
            for client in self.clients:
                client.sock.setblocking(False)
                self._epoll.register(client.sock.fileno(), select.EPOLLIN)
        except BaseException:
            self.close()
            raise

    def _gather(self) -> None:
        """A message is the barrier: who has heard it is in. Servers that let newcomers in one by
        one may not have done so for all when the last one speaks, so it speaks until they have."""
        speaker, deadline = self.clients[-1], time.monotonic() + DEADLINE
        waiting = {client.sock.fileno(): client for client in self.clients[:-1]}
        poll = select.epoll()
        for fd in waiting:
            poll.register(fd, select.EPOLLIN)
        calls = 0
        while waiting:
            if time.monotonic() > deadline:
                raise DeliveryError(f"{len(waiting)} clients were not let in")
            speaker.sock.sendall(b"ready %d\n" % calls)
            calls += 1
            again = time.monotonic() + 0.2
            while waiting and time.monotonic() < again:
                for fd, _ in poll.poll(max(0.0, again - time.monotonic())):
                    del waiting[fd]
                    poll.unregister(fd)
        poll.close()
        last = speaker.prefix + b"ready %d\n" % (calls - 1)
        for client in self.clients[:-1]:  # and what it says last, all of them hear
            heard = b""
            while not heard.endswith(last):
                heard += self._receive(client)

    def _receive(self, client: Client) -> bytes:
        try:
            data = client.sock.recv(RECEIVE_SIZE)
        except TimeoutError:
            raise DeliveryError(f"{client.name} heard nothing for {DEADLINE:g} s") from None
        except OSError as error:
            raise DeliveryError(f"{client.name}: {error.strerror}") from None
        if not data:
            raise DeliveryError(f"{client.name} was closed by the server")
        return data

    def lock_step(self, rounds: int, size: int = 32, timings: list[float] | None = None) -> int:
        """One message, all its deliveries, the next; by one client after the other. How many
        deliveries; `timings` gets the seconds of each round."""
        clients = self.clients
        for client in clients:
            client.sock.settimeout(DEADLINE)
        for number in range(rounds):
            sender = clients[number % len(clients)]
            expected = sender.prefix + message(sender.said, size)
            started = time.perf_counter()
            sender.sock.send(expected[len(sender.prefix) :])
            sender.said += 1
            for client in clients:
                if client is not sender:
                    heard = self._receive(client)
                    while len(heard) < len(expected):
                        heard += self._receive(client)
                    if heard != expected:
                        raise DeliveryError(f"{client.name} heard {heard!r}, not {expected!r}")
            if timings is not None:
                timings.append(time.perf_counter() - started)
        for client in clients:
            client.sock.setblocking(False)
            for sender in clients:
                client.heard[sender.prefix] = sender.said
        return rounds * (len(clients) - 1)

    def flood(self, senders: int, messages: int, in_flight: int = 4, size: int = 32) -> int:
        """Closed loop: each of the first `senders` clients has `in_flight` messages under way, and
        says the next one when all others have heard one. How many deliveries, of `messages` from
        each."""
        clients, others = self.clients, len(self.clients) - 1
        speakers = {client.prefix: client for client in clients[:senders]}
        ends = {prefix: client.said + messages for prefix, client in speakers.items()}
        missing: dict[tuple[bytes, int], int] = {}  # deliveries of a message yet to come
        for listener in clients:
            for prefix, client in speakers.items():
                listener.heard[prefix] = client.said

        def say(client: Client) -> None:
            missing[client.prefix, client.said] = others
            client.sock.send(message(client.said, size))
            client.said += 1

        for _ in range(min(in_flight, messages)):
            for client in speakers.values():
                say(client)
        while missing:
            ready = self._epoll.poll(DEADLINE)
            if not ready:
                raise DeliveryError(f"{len(missing)} messages are not heard by all")
            for fd, _ in ready:
                listener = self._by_fd[fd]
                for prefix, number in self._lines(listener):
                    if listener.heard.get(prefix) != number or prefix == listener.prefix:
                        raise DeliveryError(
                            f"{listener.name} heard {number} from {prefix!r}, "
                            f"not {listener.heard.get(prefix)}"
                        )
                    listener.heard[prefix] = number + 1
                    key = (prefix, number)
                    left = missing[key] - 1
                    if left:
                        missing[key] = left
                    else:
                        del missing[key]
                        speaker = speakers[prefix]
                        if speaker.said < ends[prefix]:
                            say(speaker)
        return senders * messages * others

    def _lines(self, listener: Client) -> list[tuple[bytes, int]]:
        """What it has just heard: (prefix of the sender, number). Listeners mostly hear the same
        bytes, which are taken apart once."""
        data = listener.rest + self._receive(listener)
        end = data.rfind(b"\n") + 1
        listener.rest, data = data[end:], data[:end]
        parsed = self._parsed.get(data)
        if parsed is None:
            parsed = []
            for line in data.split(b"\n")[:-1]:
                prefix, found, text = line.partition(b" dice: ")
                if not found or not text[:8].isdigit():
                    raise DeliveryError(f"{listener.name} heard {line!r}")
                parsed.append((prefix + found, int(text[:8])))
            if len(self._parsed) > 64:
                self._parsed.clear()
            self._parsed[data] = parsed
        return parsed

    def assert_silent(self) -> None:
        """Nobody hears anything more: nothing came twice."""
        for fd, _ in self._epoll.poll(0):
            client = self._by_fd[fd]
            raise DeliveryError(f"{client.name} hears more: {self._receive(client)!r}")

    def close(self) -> None:
        self._epoll.close()
        for client in self.clients:
            client.sock.close()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Trickle:
    """One client that sends bytes without a newline, each of which is read in a turn of its own,
    beside idle clients: nobody is told anything, so what is left is the turn itself.

    ServerError: pidfd_getfd(2), which shows that a byte has been read, is not to be had.
    """

    def __init__(self, server: Server, idle: int):
        self._name = server.name
        self._socks: list[socket.socket] = []
        try:
            for _ in range(idle + 1):
                self._socks.append(socket.create_connection(server.address, DEADLINE))
            self._sock = self._socks[-1]
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.wait_until_at_rest()
            theirs = server.end_of(self._sock)
            if theirs is None:
                raise ServerError("pidfd_getfd(2) is needed to see when a byte is read: Linux 5.6")
            self._theirs = theirs
            self._socks.append(theirs)
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

    def close(self) -> None:
        for sock in self._socks:
            sock.close()

    def __enter__(self) -> Trickle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def unread(sock: socket.socket) -> int:
    """Bytes in its receive buffer, FIONREAD of tcp(7)."""
    answer = fcntl.ioctl(sock.fileno(), termios.FIONREAD, struct.pack("i", 0))
    count: int = struct.unpack("i", answer)[0]
    return count
