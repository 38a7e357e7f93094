"""A chat server for a handful of clients that breaks its promise, and the ways to break it."""

from __future__ import annotations

import contextlib
import itertools
import operator
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness.process import DEADLINE

Deliveries = list[tuple[int, bytes]]
"""Who is sent what, by descriptor."""
Fault = Callable[["Faulty", int, bytes, list[int]], Deliveries]
"""What becomes of a message: of its sender, the line, and all who should be sent it."""
LAST, AFTER = b" 00000009", b" 00000010"
"""Of ten messages of a client, and of what it says afterwards, to show that nothing comes twice."""


class Faulty(threading.Thread):
    """fault: is asked about each line that begins with a number; all others go to all others.

    websocket: each line is a text frame, and short."""

    def __init__(self, fault: Fault, websocket: bool = False):
        super().__init__(daemon=True)
        self.fault = fault
        self.pid = os.getpid()
        self.asks, self.tls, self.websocket = False, None, websocket
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address: tuple[Any, ...] = self.listener.getsockname()
        self.socks: dict[int, socket.socket] = {}
        self.kept: Deliveries = []
        self.stop_reading, self.stop_writing = socket.socketpair()

    def run(self) -> None:
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        poll.register(self.stop_reading, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self.stop_reading.fileno():
                    return
                if fd == self.listener.fileno():
                    sock, _ = self.listener.accept()
                    self.socks[sock.fileno()] = sock
                    poll.register(sock, select.POLLIN)
                    continue
                try:
                    data = self.socks[fd].recv(65536)
                except OSError:
                    data = b""
                if not data:
                    poll.unregister(fd)
                    self.socks.pop(fd).close()
                    continue
                with contextlib.suppress(OSError):  # ENOTCONN: it left while it spoke
                    name = str(self.socks[fd].getpeername())
                    for line in self.lines_of(fd, data):
                        self.say(fd, f"{name} dice: ".encode() + line)

    def lines_of(self, fd: int, data: bytes) -> list[bytes]:
        if not self.websocket:
            return data.splitlines(keepends=True)
        if data.startswith(b"GET "):
            self.socks[fd].sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            return []
        lines = []
        while data:
            mask, end = data[2:6], 6 + (data[1] & 0x7F)
            lines.append(bytes(map(operator.xor, data[6:end], itertools.cycle(mask))) + b"\n")
            data = data[end:]
        return lines

    def say(self, sender: int, line: bytes) -> None:
        others = [fd for fd in self.socks if fd != sender]
        fault = self.fault if b" dice: 0" in line else honest
        self.deliver(fault(self, sender, line, others))

    def deliver(self, deliveries: Deliveries) -> None:
        for fd, text in deliveries:
            if self.websocket:
                text = bytes([0x81, len(text) - 1]) + text[:-1]
            with contextlib.suppress(KeyError, OSError):  # this client has seen enough
                self.socks[fd].sendall(text)

    def __enter__(self) -> Faulty:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_writing.close()
        self.join(DEADLINE)
        for sock in (self.listener, self.stop_reading, *self.socks.values()):
            sock.close()


def honest(_: Faulty, sender: int, line: bytes, others: list[int]) -> Deliveries:
    return [(fd, line) for fd in others]


def doubled(_: Faulty, sender: int, line: bytes, others: list[int]) -> Deliveries:
    first = [(others[0], line)] if b" 00000003" in line else []
    return [*first, *((fd, line) for fd in others)]


def last_doubled(_: Faulty, sender: int, line: bytes, others: list[int]) -> Deliveries:
    first = [(others[0], line)] if LAST in line else []
    return [*((fd, line) for fd in others), *first]


def doubled_late(server: Faulty, sender: int, line: bytes, others: list[int]) -> Deliveries:
    """What the first client has heard last comes again after it has said one more itself, and all
    others have heard that."""
    first = next(iter(server.socks), 0)
    if LAST in line and sender != first:
        server.kept = [(first, line)]
    if AFTER in line and sender == first:
        server.deliver([(fd, line) for fd in others])
        time.sleep(0.1)
        return server.kept
    return [(fd, line) for fd in others]


def reordered(server: Faulty, sender: int, line: bytes, others: list[int]) -> Deliveries:
    deliveries = [(fd, line) for fd in others]
    if b" 00000003" in line:
        server.kept += deliveries[:1]
        return deliveries[1:]
    if b" 00000004" in line and server.kept:
        return [*deliveries, server.kept.pop()]
    return deliveries


def dropped(_: Faulty, sender: int, line: bytes, others: list[int]) -> Deliveries:
    return [(fd, line) for fd in others if b" 00000003" not in line or fd != others[0]]


def last_dropped(_: Faulty, sender: int, line: bytes, others: list[int]) -> Deliveries:
    return [(fd, line) for fd in others if LAST not in line or fd != others[0]]


def echoed(_: Faulty, sender: int, line: bytes, others: list[int]) -> Deliveries:
    return [(fd, line) for fd in [*others, sender]]


def renamed(_: Faulty, sender: int, line: bytes, others: list[int]) -> Deliveries:
    return [(fd, line.replace(b"127.0.0.1", b"127.0.0.9")) for fd in others]


def garbled(_: Faulty, sender: int, line: bytes, others: list[int]) -> Deliveries:
    return [(fd, line.replace(b".\n", b",\n")) for fd in others]


def swapped(server: Faulty, sender: int, line: bytes, others: list[int]) -> Deliveries:
    """What one of the two has said, under the name of the other."""
    server.kept.append((sender, line.partition(b" dice: ")[0]))
    names = [name for fd, name in server.kept if fd != sender]
    return [
        (fd, names[0] + b" dice: " + line.partition(b" dice: ")[2] if names else line)
        for fd in others
    ]


def ended(server: Faulty, sender: int, line: bytes, others: list[int]) -> Deliveries:
    """One connection, however many say their third message before anybody has seen it."""
    if b" 00000003" in line and not server.kept:
        server.kept.append((sender, line))
        server.socks[others[0]].shutdown(socket.SHUT_RDWR)
    return [(fd, line) for fd in others]


FAULTS: dict[Fault, str] = {
    doubled: r"heard message 3 of \('127.0.0.1', \d+\) twice",
    last_doubled: r"heard message 9 of \('127.0.0.1', \d+\) twice",
    doubled_late: r"heard message 9 of \('127.0.0.1', \d+\) twice",
    reordered: "before message 3: one is lost, or they are out of order",
    dropped: "before message 3: one is lost, or they are out of order",
    last_dropped: "deliveries did not come within",
    echoed: "heard itself say message 0",
    renamed: "which nobody said",
    garbled: "which nobody said",
    swapped: "heard ",
    ended: r"the server closed 1 of \d connections",
}
"""Each with what flood.c says of it, where a client says ten messages."""
