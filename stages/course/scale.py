"""The blocks of SCALE.md: what servers on one NATS cost, and what many people need."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.compare.figures import number
from benchmarks.harness.tables import table
from stages.course.blocks import block, results, sources

Sample = Mapping[str, Any]
FULL = 0.5
"""Of a CPU, what a server uses in the mean: the rest is for moments when more is said."""
READING = 0.25
"""Of a CPU, what a server uses at most to read the stream before a chat is divided."""
PEOPLE = (10_000, 100_000, 1_000_000)
HABITS = ((20, 1), (100, 1), (100, 4))
"""People of a room, and messages that each of them says in a minute."""


@dataclass(frozen=True)
class Costs:
    """The inputs, of messages that come alone. CPU in seconds.

    delivery: of a server. publish, read: of a server for each message that one of its clients
        says, and for each that anybody says. nats, nats_reader: of NATS for a message, and for
        each server that reads it.
    in_bytes, out_bytes, reader_bytes: of NATS likewise. own, elsewhere, base: KiB of a server for
        each of its clients, for each client of another server, and without any.
    """

    delivery: float
    publish: float
    read: float
    nats: float
    nats_reader: float
    in_bytes: float
    out_bytes: float
    reader_bytes: float
    own: float
    elsewhere: float
    base: float


@dataclass(frozen=True)
class Need:
    """messages, deliveries: a second. servers: of each chat. kib: of a server."""

    messages: float
    deliveries: float
    chats: int
    servers: int
    kib: float
    nats_cpu: float
    nats_in: float
    nats_out: float
    nats_bytes: float


def need(costs: Costs, people: int, room: int, per_minute: float) -> Need:
    """The formula of the page."""
    messages = people * per_minute / 60
    chats = math.ceil(messages * costs.read / READING)
    said = messages / chats
    work = said * (costs.publish + (room - 1) * costs.delivery)
    servers = math.ceil(work / (FULL - said * costs.read))
    here = people / chats / servers
    kib = costs.base + here * costs.own + (people / chats - here) * costs.elsewhere
    return Need(
        messages,
        messages * (room - 1),
        chats,
        servers,
        kib,
        messages * (costs.nats + servers * costs.nats_reader),
        messages,
        messages * (1 + servers),
        messages * (costs.in_bytes + costs.out_bytes + servers * costs.reader_bytes),
    )


def _samples(servers: int, load: str) -> Iterator[Sample]:
    for sample in results("scale")["samples"]:
        if (sample["servers"], sample["load"]) == (servers, load):
            yield sample


def _median(servers: int, load: str, figure: Callable[[Sample], float]) -> float:
    return median(figure(sample) for sample in _samples(servers, load))


def _cpu(sample: Sample) -> float:
    """Of all servers, for a message."""
    return float(sum(sample["cpu_seconds"]) / sample["messages"])


def _nats_cpu(sample: Sample) -> float:
    return float(sample["nats_cpu_seconds"] / sample["messages"])


def _counter(name: str) -> Callable[[Sample], float]:
    return lambda sample: float(sample["nats"][name] / sample["messages"])


def _reading(load: str) -> float:
    """CPU time for a message of a server that has no clients."""
    loads = [each["loads"][load] for each in results("scale")["elsewhere"]]
    return median(float(each["cpu_seconds"][1] / each["messages"]) for each in loads)


def measured() -> Costs:
    """Out of scale.json: medians of the rounds. What each server adds is the difference between 4
    and 1, over 3."""

    def line(figure: Callable[[Sample], float]) -> tuple[float, float]:
        one, four = (_median(count, "alone 100", figure) for count in (1, 4))
        each = max(0.0, (four - one) / 3)
        return max(0.0, one - each), each

    deliveries = _median(0, "alone 100", lambda sample: sample["deliveries"] / sample["messages"])
    alone, on_bus = (_median(count, "alone 100", _cpu) for count in (0, 1))
    read = _reading("alone 100")
    apart = results("scale")["elsewhere"]
    return Costs(
        alone / deliveries,
        max(0.0, on_bus - alone - read),
        read,
        *line(_nats_cpu),
        _median(1, "alone 100", _counter("in_bytes")),
        *line(_counter("out_bytes")),
        median(each["kib_per_client"] for each in apart),
        median(each["kib_per_client_elsewhere"] for each in apart),
        median(each["base_kib"][0] for each in apart),
    )


# Blocks and values.


def few_servers() -> str:
    """What was measured with 0, 1, 2 and 4 servers."""
    head = ["load", "servers", "CPU per delivery, µs", "NATS: CPU per message, µs"]
    head += ["messages in", "messages out", "bytes in", "bytes out", "p50, ms"]
    rows = [head]
    for load in dict.fromkeys(sample["load"] for sample in results("scale")["samples"]):
        for servers in (0, 1, 2, 4):

            def of(figure: Callable[[Sample], float], load: str = load, n: int = servers) -> str:
                return number(_median(n, load, figure))

            row = [load, str(servers or "1, no bus")]
            row.append(of(lambda s: sum(s["cpu_seconds"]) / s["deliveries"] * 1e6))
            row.append(of(lambda s: _nats_cpu(s) * 1e6) if servers else "-")
            for name in ("in_msgs", "out_msgs", "in_bytes", "out_bytes"):
                row.append(of(_counter(name)) if servers else "-")
            rows.append([*row, of(lambda s: s["p50_seconds"] * 1e3)])
    note = (
        "CPU per delivery: of all servers together. Messages and bytes: of NATS, for each message "
        "that is said; bytes without those of TCP. p50: from the send of a message to its delivery."
    )
    return block(table(rows), note, sources("scale"))


def inputs() -> str:
    """The costs that the formula takes."""
    costs = measured()
    rows = [["", "what", "value"]]
    for name, what, value in (
        ("d", "a server's CPU for a delivery", f"{number(costs.delivery * 1e6)} µs"),
        ("p", "a server's CPU to publish a message", f"{number(costs.publish * 1e6)} µs"),
        ("e", "each server's CPU to read a message", f"{number(costs.read * 1e6)} µs"),
        ("a", "NATS' CPU for a message", f"{number(costs.nats * 1e6)} µs"),
        ("b", "and for each server that reads it", f"{number(costs.nats_reader * 1e6)} µs"),
        ("", "bytes into NATS for a message", number(costs.in_bytes)),
        ("", "bytes out of it for a message", number(costs.out_bytes)),
        ("", "and for each server that reads it", number(costs.reader_bytes)),
        ("k", "memory of a client on its own server", f"{number(costs.own)} KiB"),
        ("f", "and on each other server of its chat", f"{number(costs.elsewhere)} KiB"),
        ("", "memory of a server without clients", f"{number(costs.base / 1024)} MiB"),
        ("u", "of a CPU, what a server may use", f"{FULL:.0%}"),
        ("q", "and what of that to read", f"{READING:.0%}"),
    ):
        rows.append([name and f"*{name}*", what, value])
    return block(table(rows, numbers=False), sources("scale"))


def needs() -> str:
    """For many people."""
    head = ["people", "in a room", "messages a minute of each", "messages/s", "deliveries/s"]
    head += ["chats", "servers of each", "servers", "MiB of a server", "NATS: in/s", "out/s"]
    rows = [[*head, "MB/s", "CPUs"]]
    costs = measured()
    for people in PEOPLE:
        for room, per_minute in HABITS:
            it = need(costs, people, room, per_minute)
            row = [f"{people:,}", str(room), str(per_minute)]
            row += [f"{it.messages:,.0f}", f"{it.deliveries:,.0f}", f"{it.chats}", f"{it.servers}"]
            row += [f"{it.chats * it.servers:,}", f"{it.kib / 1024:,.0f}", f"{it.nats_in:,.0f}"]
            row += [f"{it.nats_out:,.0f}", f"{it.nats_bytes / 1e6:,.1f}", f"{it.nats_cpu:,.1f}"]
            rows.append(row)
    return block(table(rows), sources("scale"))


def full_reader(load: str, part: float = 1.0) -> str:
    """Messages a second that take so much of a reader's CPU."""
    return f"{part / _reading(load):,.0f}"


def percent(part: float) -> str:
    return f"{part:.0%}"
