"""What it costs to tell N clients the M messages of a turn, on real sockets, in four ways.

A send per message is what a room does that does not coalesce. Coalesced, all messages are joined
once, and each client is sent the same object. Per-recipient lists joined, and sendmsg() with a list
of buffers, are what one might do instead so that each sender misses its own. CPU time of the
sending thread, which on loopback does the receiving side's work in the kernel, too.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from benchmarks.conftest import tell_per

CLIENTS = 100
MESSAGE = b"('127.0.0.1', 52344) dice: a line of thirty-two bytes, say\n"


def send_per_message(clients: list[socket.socket], messages: list[bytes]) -> None:
    for message in messages:
        for client in clients:
            client.send(message)


def coalesced(clients: list[socket.socket], messages: list[bytes]) -> None:
    joined = b"".join(messages)
    for client in clients:
        client.send(joined)


def join_per_recipient(clients: list[socket.socket], messages: list[bytes]) -> None:
    waiting: dict[socket.socket, list[bytes]] = {client: [] for client in clients}
    for message in messages:
        for client in clients:
            waiting[client].append(message)
    for client, parts in waiting.items():
        client.send(b"".join(parts))


def sendmsg(clients: list[socket.socket], messages: list[bytes]) -> None:
    for client in clients:
        client.sendmsg(messages)


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as listener:
        pairs = []
        for _ in range(CLIENTS):
            theirs = stack.enter_context(socket.create_connection(listener.getsockname()))
            ours = stack.enter_context(listener.accept()[0])
            ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pairs.append((ours, theirs))
        yield pairs


@pytest.mark.parametrize("way", [send_per_message, coalesced, join_per_recipient, sendmsg])
@pytest.mark.parametrize("messages", [1, 10, 40])
@pytest.mark.benchmark(timer=time.thread_time)
def test_fanout(
    benchmark: Any,
    pairs: list[tuple[socket.socket, socket.socket]],
    way: Callable[[list[socket.socket], list[bytes]], None],
    messages: int,
) -> None:
    benchmark.group = f"fan-out: {messages} messages to {CLIENTS} clients"
    arguments = ([ours for ours, _ in pairs], [MESSAGE] * messages)
    listeners = [theirs for _, theirs in pairs]

    def read(*_: object) -> None:
        for theirs in listeners:
            left = len(MESSAGE) * messages
            while left:
                left -= len(theirs.recv(left))

    benchmark.pedantic(way, args=arguments, teardown=read, rounds=30, warmup_rounds=3, iterations=1)
    tell_per(benchmark, "delivery", messages * CLIENTS)
    for theirs in listeners:
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
