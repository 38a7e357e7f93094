"""What the server has counted and what it holds now, as Prometheus reads it.

METRICS is the table that all of it is made from. What a label says is a member of an enumeration:
the number of series is known beforehand, and no client can add one. Beside them stand the metrics
of the process that every Prometheus client has: CPU time, memory, descriptors.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector
from prometheus_client import generate_latest as write
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from sock_chat.counters import Histogram
from sock_chat.link import Kind, Reason
from sock_chat.services import Check

if TYPE_CHECKING:
    from sock_chat.server import Server

CONTENT_TYPE = CONTENT_TYPE_LATEST
PREFIX = "sock_chat_"
COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

Value = float | Mapping[Any, float] | Histogram


class Entry(NamedTuple):
    """A row of the table. read: its value. values: those of its label, if it has one."""

    name: str
    type: str
    help: str
    read: Callable[[Server], Value]
    label: str = ""
    values: Sequence[Enum] = ()


def _clients(server: Server) -> Mapping[Enum, float]:
    counts: dict[Enum, float] = dict.fromkeys(Kind, 0)
    for connection in server.connections:
        if connection.session:
            counts[connection.kind] += 1
    return counts


def _people(server: Server) -> int:
    sessions = [connection.session for connection in server.connections]
    return sum([session is not None and session.room is not None for session in sessions])


METRICS = (
    Entry(
        "connections_accepted_total", COUNTER,
        "Connections accepted; browser: by HTTP, whatever for.",
        lambda server: server.counters.accepted, "kind", tuple(Kind),
    ),
    Entry(
        "connections_closed_total", COUNTER,
        "Connections that have ended, by why the server closed them; quit: the client left.",
        lambda server: server.counters.closed, "reason", tuple(Reason),
    ),
    Entry(
        "connections", GAUGE, "Connections that are open, those at a handshake included.",
        lambda server: len(server.connections),
    ),
    Entry(
        "clients", GAUGE, "Connections that have come in: they talk, or are asked for a nick.",
        _clients, "kind", tuple(Kind),
    ),
    Entry("people", GAUGE, "Clients that are in a room.", _people),
    Entry("rooms", GAUGE, "Rooms with somebody in them, and general.", lambda s: len(s.chat.rooms)),
    Entry(
        "messages_total", COUNTER, "Messages that the rooms have been told.",
        lambda server: server.counters.messages,
    ),
    Entry(
        "deliveries_total", COUNTER, "Messages times the clients of this server that heard each.",
        lambda server: server.counters.deliveries,
    ),
    Entry(
        "turns_total", COUNTER, "Writes to a room: what was said together goes out together.",
        lambda server: server.counters.turns,
    ),
    Entry(
        "waiting_bytes", GAUGE, "Bytes that wait to be sent, of all clients.",
        lambda server: sum([connection.waiting for connection in server.connections]),
    ),
    Entry(
        "rate_limited_seconds_total", COUNTER,
        "Time for which the rate limit has held back lines, of all clients.",
        lambda server: server.counters.limited,
    ),
    Entry(
        "password_checks_total", COUNTER,
        "Passwords given, by what came of it; too_many: not looked at, there were too many.",
        lambda server: server.counters.passwords, "result", tuple(Check),
    ),
    Entry(
        "passwords_waiting", GAUGE, "Passwords that wait for the threads that hash them.",
        lambda server: server.storage.accounts.waiting,
    ),
    Entry(
        "tls_handshakes_total", COUNTER, "TLS handshakes begun.",
        lambda server: server.counters.tls_handshakes,
    ),
    Entry(
        "tls_handshake_failures_total", COUNTER, "TLS handshakes that came to nothing.",
        lambda server: server.counters.tls_failures,
    ),
    Entry(
        "websocket_handshakes_total", COUNTER, "WebSocket handshakes begun: requests for /ws.",
        lambda server: server.counters.websocket_handshakes,
    ),
    Entry(
        "websocket_handshake_failures_total", COUNTER, "WebSocket handshakes that were refused.",
        lambda server: server.counters.websocket_failures,
    ),
    Entry(
        "history_queue_messages", GAUGE, "Messages that wait to be written to the history.",
        lambda server: server.storage.log.queue[0],
    ),
    Entry(
        "history_queue_bytes", GAUGE,
        "Room that those take in the queue; when it is full, speakers wait.",
        lambda server: server.storage.log.queue[1],
    ),
    Entry(
        "history_lost_messages_total", COUNTER,
        "Messages that were said and are not in the history, for the disk refused them.",
        lambda server: server.counters.lost,
    ),
    Entry(
        "commit_duration_seconds", HISTOGRAM, "Time that a transaction of the database has taken.",
        lambda server: server.counters.commits,
    ),
    Entry(
        "commits_refused_total", COUNTER, "Transactions that the disk refused.",
        lambda server: server.counters.refused_commits,
    ),
    Entry(
        "internal_errors_total", COUNTER, "Errors of the server's own, each with a line on stderr.",
        lambda server: server.counters.errors,
    ),
    Entry(
        "start_time_seconds", GAUGE, "When the server was started, in seconds since 1970.",
        lambda server: server.started,
    ),
)  # fmt: skip


def exposition(server: Server) -> bytes:
    """All of it in Prometheus' text format, of the type CONTENT_TYPE."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Metrics(server))
    ProcessCollector(registry=registry)
    return write(registry)


class _Metrics(Collector):
    def __init__(self, server: Server):
        self._server = server

    def collect(self) -> Iterable[Metric]:
        yield _build_info(self._server)
        for entry in METRICS:
            yield _family(entry, entry.read(self._server))


def _family(entry: Entry, value: Value) -> Metric:
    name, labels = PREFIX + entry.name, [entry.label] if entry.label else []
    if isinstance(value, Histogram):
        histogram = HistogramMetricFamily(name, entry.help)
        histogram.add_metric([], _buckets(value), value.sum)
        return histogram
    family = (CounterMetricFamily if entry.type == COUNTER else GaugeMetricFamily)(
        name, entry.help, labels=labels
    )
    if isinstance(value, Mapping):
        for each in entry.values:
            family.add_metric([each.name.lower()], value[each])
    else:
        family.add_metric([], value)
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Each holds those before it, as Prometheus has it."""
    buckets, count = [], 0
    for bound, more in zip([*histogram.bounds, float("inf")], histogram.counts, strict=True):
        count += more
        buckets.append(("+Inf" if bound == float("inf") else str(bound), float(count)))
    return buckets


def _build_info(server: Server) -> Metric:
    try:
        release = version("sock_chat")
    except PackageNotFoundError:  # it runs from its folder
        release = ""
    info = GaugeMetricFamily(
        PREFIX + "build_info", "1; what runs, in its labels.", labels=["version", "python", "loop"]
    )
    info.add_metric([release, platform.python_version(), server.config.loop], 1)
    return info
