"""What it costs to tell N clients the M messages of a turn, on real sockets, in four ways.

A send per message is what a room does that does not coalesce. The log is sent once to each, the
same object to all. Per-recipient lists joined, and sendmsg() with a list of buffers, are what one
might do instead so that each sender misses its own. CPU time of the sending thread, which on
loopback does the receiving side's work in the kernel, too.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

CLIENTS = 100
MESSAGE = b"('127.0.0.1', 52344) dice: a line of thirty-two bytes, say\n"
Tell = Callable[[list[socket.socket], list[bytes]], None]


def send_per_message(clients: list[socket.socket], messages: list[bytes]) -> None:
    for message in messages:
        for client in clients:
            client.send(message)


def coalesced_log(clients: list[socket.socket], messages: list[bytes]) -> None:
    log = b"".join(messages)
    for client in clients:
        client.send(log)


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


WAYS: dict[str, Tell] = {
    "send per message": send_per_message,
    "coalesced log": coalesced_log,
    "join per recipient": join_per_recipient,
    "sendmsg": sendmsg,
}


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    pairs = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(CLIENTS):
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
            ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pairs.append((ours, theirs))
    yield pairs
    for pair in pairs:
        for sock in pair:
            sock.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("messages", [1, 10, 40])
@pytest.mark.benchmark(timer=time.thread_time)
def test_fanout(
    benchmark: Any,
    pairs: list[tuple[socket.socket, socket.socket]],
    way: str,
    messages: int,
) -> None:
    benchmark.group = f"fan-out: {messages} messages to {CLIENTS} clients"
    ours = [pair[0] for pair in pairs]
    log = [MESSAGE] * messages
    size = len(MESSAGE) * messages

    def read(*_: object) -> None:
        for pair in pairs:
            left = size
            while left:
                left -= len(pair[1].recv(left))

    benchmark.pedantic(
        WAYS[way], args=(ours, log), teardown=read, rounds=30, warmup_rounds=3, iterations=1
    )
    benchmark.extra_info["microseconds per delivery"] = (
        benchmark.stats["median"] / messages / CLIENTS * 1e6
    )
    for pair in pairs:
        pair[1].setblocking(False)
        with pytest.raises(BlockingIOError):
            pair[1].recv(1)
