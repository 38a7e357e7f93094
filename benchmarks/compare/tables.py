"""The page of a comparison, comparison.md.

Nothing here measures: the same results give the same text, byte for byte, wherever and whenever it
is made.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import zip_longest

from benchmarks.compare.figures import (
    BUSY,
    REFERENCE,
    Results,
    Spread,
    cell,
    derived,
    idle_in_turn,
    number,
    ratio,
    unsaturated,
)
from benchmarks.harness.environment import sentence
from benchmarks.harness.roster import LINE_PEERS, PEERS
from benchmarks.harness.server import BROWSERS
from benchmarks.harness.tables import table

MARK = "†"
Columns = Mapping[str, Callable[[str], str]]
"""The cells of a table below each head, by the row's name."""

TARGETS: Mapping[tuple[str, str], tuple[float | None, ...]] = {
    ("epoll", REFERENCE): (1.15, 1.2, 0.75, 0.7, 0.75),
    ("uring", REFERENCE): (1.0, 1.15, 0.65, 0.55, 0.6),
    ("uring", "c-uring"): (1.2,) * 5,
    ("v5", REFERENCE): (1.6, 1.6, 0.95, 0.9),
    ("v5 --db FILE", "v5"): (1.3, 1.3, 1.3),
    (BROWSERS, "v5"): (None, 1.15, 1.15, 1.15),
    **{(BROWSERS, name): (None, None, 0.5, 0.5) for name, peer in PEERS.items() if peer.websocket},
    **{
        (server, rival): (1.0,) * 5
        for server in ("epoll", "uring")
        for rival in ("uvloop-protocol --coalesce", "go", "node --cork")
    },
}
"""What the CPU time per delivery of one server over that of another shall be at most."""
TARGET_LOADS = ("lock-step 100", "flood 10", "flood 100", "flood 1000", "idle 5000")
SLACK = 1.1
"""By which a target over the reference may be missed: two runs on one machine differ by more."""
TARGET_KIB = {"epoll": 1.0, "uring": 1.0, "v5": 6.0, BROWSERS: 12.0}
"""Of memory for an idle client, at most."""
TARGET_START = 0.6
"""Seconds from the start of v5 until it is ready, at most."""


TEXT = """\
<!-- Made by `python -m benchmarks.compare`; `--from` makes it anew from comparison.json. -->

# The servers compared

{environment}

Each measurement starts its server anew; {placement}. Every delivery is checked. Messages of
{message_bytes} bytes, TCP_NODELAY. Lock-step: one message, all its deliveries, the next. Flood:
closed loop, {in_flight} messages in flight for each sender; of the clients, {speakers} send.
Python-flood: the same by a load in Python, which speaks TLS, too, and does not saturate. Idle: the
flood of 10 beside so many clients that say nothing, and hear all of it; left out are those that
send each line by itself, which take seconds for a few messages.{not_saturated} After a warm-up as
much work is measured as is about {cpu_seconds:g} s of the server's CPU time. {given}

What the columns say. µs: CPU time of the server per delivery; over `c`: the same over that of `c`.
Busy: CPU time over wall time. p50, p99: latency of half of the deliveries, and of 99 of 100, from
the send of their message until they are read; in lock-step the load's own receives are in it, and
the wake-ups between two CPUs. Messages per send: deliveries over the data segments that have
reached the clients (`tcpi_data_segs_in`, tcp(7)); on loopback a send is a segment, unless it waits
in the kernel and the next one joins it, and what TCP repeats counts twice. †: the server was
busy for less than {busy:.0%} of the time; its load, or others on its CPU, kept it waiting, and the
figures say something of these, too.

## The names

`v1` to `v5` are the stages, `selectors`, `epoll`, `epoll-et`, `uring` and `uvloop` the servers of
`lowlevel`; with `--flush message` each line is sent at once, with `--looks 0` nobody looks again
before the batch goes out. `v5` keeps nothing and limits nobody; with an option it has one feature
more: the history in a file, a limit of the rate that nobody reaches, asyncio's own loop, lines over
TLS, browsers in the place of lines. The others are in `benchmarks/peers`; which tests
of the contract they fail, and why, stands in `benchmarks/harness/roster.py`. Browsers, and what is
for them, speak WebSocket: a message is a text frame.

{peers}

{provenance}

## Targets

CPU time per delivery of one server over that of another, and what it shall be at most. A target
over `c` counts as met by a median within {slack} of it; `c` does not look again.

{targets}

Memory of an idle client, KiB: {memory_targets}.

From the start of `v5` until it is ready, s: {start_target}.

![CPU time per delivery in a flood, against the number of clients](cpu-per-delivery.svg)

{workloads}

## Memory per connection, KiB

What the server's private memory grew by (Private_Clean + Private_Dirty in smaps_rollup, proc(5):
what would be free if it ended), over the idle clients that came in. What the kernel keeps for a
connection is not in it.

{memory}

## CPU time of one wait, µs

One descriptor is ready, K others are idle: eventfds, looked at from this process.

![CPU time of one wait against the number of idle descriptors](readiness.svg)

{waits}

## CPU time of a turn, µs

A client sends a byte that ends no line, and the server reads it and waits again; nobody is told
anything. K other clients are idle.

{turns}

{notes}
"""
ONE_ROUND = "There was one round only: no figure here tells how far it strays."
ROUNDS = """\
Given are medians of {} rounds, each column by itself, with the quartiles in
parentheses; a ratio is taken within a round."""
NOT_SATURATED = " The flood is in Python: not saturated."


def grid(corner: str, rows: Iterable[str], columns: Columns, *, numbers: bool = True) -> str:
    """A table with a row for each name."""
    cells = ([f"`{row}`", *(value(row) for value in columns.values())] for row in rows)
    return table([[corner, *columns], *cells], numbers=numbers)


class Page:
    """comparison.md, with the notes that its cells ask for."""

    def __init__(self, results: Results):
        self.results = {**results, "derived": derived(results)}
        self.parameters = results["parameters"]
        self.rounds: int = self.parameters["rounds"]
        self.servers: list[str] = self.parameters["servers"]
        self.all_servers = [*self.parameters["silent"], *self.servers]
        self.notes: list[str] = []

    def text(self) -> str:
        """Every table, what they were measured on, and what is not in them and why."""
        senders = self.parameters["senders"].items()
        parts = {
            **{"busy": BUSY, "slack": SLACK},
            "workloads": "\n\n".join(map(self.workload, self.parameters["workloads"])),
            "environment": sentence(self.results["environment"]),
            "speakers": ", ".join(f"{n} of {of}" for of, n in senders),
            "not_saturated": "" if self.parameters["saturating"] else NOT_SATURATED,
            "given": ROUNDS.format(self.rounds) if self.rounds > 1 else ONE_ROUND,
            "peers": self.peers(),
            "provenance": self.provenance(),
            "targets": self.targets(),
            "memory_targets": self.memory_targets(),
            "start_target": self.start_target(),
            "memory": grid(
                "server", self.all_servers, {"KiB": self.cells("memory_kib", "memory", 2)}
            ),
            "waits": self.waits(),
            "turns": self.turns(),
            "notes": "\n".join(f"[{n}] {note}" for n, note in enumerate(self.notes, 1)),
        }
        text = TEXT.format(**{**self.parameters, **parts})
        return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"

    def peers(self) -> str:
        """What stands behind their names."""
        columns: Columns = {
            "what it is": lambda name: PEERS[name].about,
            "contract tests that it fails": lambda name: (
                str(len(PEERS[name].fails) or "none") if name in LINE_PEERS else "for browsers"
            ),
        }
        return grid("peer", filter(PEERS.__contains__, self.servers), columns, numbers=False)

    def provenance(self) -> str:
        """In which version, and what is left out."""
        versions = ", ".join(f"{name}: {v}" for name, v in self.parameters["versions"].items())
        missing = "; ".join(f"`{n}` ({why})" for n, why in self.parameters["missing"].items())
        parts = (("Versions", versions), ("Left out", missing))
        return "\n\n".join(f"{kind}: {names}." for kind, names in parts if names)

    def targets(self) -> str:
        """The ratios that are aimed at, and whether they are reached."""
        rows = []
        for (server, over), limits in TARGETS.items():
            cells = []
            for workload, limit in zip_longest(TARGET_LOADS, limits):
                if limit is None:
                    cells.append("-")
                    continue
                values = self.ratio(server, over, workload)
                met = values and _met(values, limit * (SLACK if over == REFERENCE else 1))
                text = f"{cell(values, self.rounds)}; target {limit:g}: {met}" if values else "-"
                cells.append(text)
            if {*cells} != {"-"}:
                rows.append([f"`{server}` over `{over}`", *cells])
        return table([["", *TARGET_LOADS], *rows])

    def memory_targets(self) -> str:
        kib = self.results["derived"]["memory_kib"].get("memory", {})
        texts = (
            f"`{name}` {number(kib[name]['median'], 2)}; target {limit:g}: {_met(kib[name], limit)}"
            for name, limit in TARGET_KIB.items()
            if name in kib
        )
        return ", ".join(texts) or "-"

    def start_target(self) -> str:
        values = self.results["derived"]["start_s"].get("start", {}).get("v5")
        if not values:
            return "-"
        text = f"{cell(values, self.rounds)}; target {TARGET_START:g}"
        return f"{text}: {_met(values, TARGET_START)}"

    def ratio(self, server: str, over: str, workload: str) -> Spread | None:
        with contextlib.suppress(ValueError):  # nobody has measured both
            return ratio(self.results, "cpu_us", (workload, server), (workload, over))
        return None

    def workload(self, workload: str) -> str:
        """A row for each server, with all its figures."""
        derived = self.results["derived"]
        without = {p["server"] for p in self.results["problems"] if p["workload"] == workload}
        rows = [s for s in self.servers if s in without or s in derived["cpu_us"].get(workload, {})]
        cost = self.cells("cpu_us", workload)
        marked = {name for name in rows if unsaturated(self.results, workload, name)}
        columns: dict[str, Callable[[str], str]] = {
            "µs": lambda name: cost(name) + f" {MARK}" * (name in marked),
            f"over `{REFERENCE}`": lambda name: self.over_reference(name, workload),
            "busy, %": self.cells("busy", workload, 2, scale=100),
            "messages per send": self.cells("messages_per_send", workload),
            "p50, µs": self.cells("p50_us", workload),
            "p99, µs": self.cells("p99_us", workload),
        }
        if workload not in derived["messages_per_send"]:
            del columns["messages per send"]
        return f"## {workload.capitalize()}\n\n{grid('server', rows, columns)}"

    def over_reference(self, server: str, workload: str) -> str:
        values = self.ratio(server, REFERENCE, workload)
        return cell(values, self.rounds) if values else self.why_not(server, workload)

    def cells(
        self, figure: str, workload: str, digits: int = 3, scale: float = 1
    ) -> Callable[[str], str]:
        """A column: by server the figure, or why there is none."""
        values = self.results["derived"][figure].get(workload, {})

        def text(server: str) -> str:
            if server not in values:
                return self.why_not(server, workload)
            scaled = {key: value * scale for key, value in values[server].items()}
            return cell(scaled, self.rounds, digits)

        return text

    def why_not(self, server: str, workload: str) -> str:
        for problem in self.results["problems"]:
            if (problem["server"], problem["workload"]) == (server, workload):
                note = f"`{server}`, {workload}: {problem['reason']}."
                if note not in self.notes:
                    self.notes.append(note)
                return f"{problem['kind']} [{self.notes.index(note) + 1}]"
        return "-"

    def waits(self) -> str:
        """A row for each way to wait; where there is no figure, the reason."""
        reasons = {(p["server"], p["workload"]): p["reason"] for p in self.results["problems"]}

        def column(workload: str) -> Callable[[str], str]:
            value = self.cells("wait_us", workload)
            return lambda kind: reasons.get((kind, workload)) or value(kind)

        counts = self.parameters["descriptors"]
        columns = {f"K = {n}": column(f"wait {n}") for n in counts}
        return grid("", self.parameters["waits"], columns)

    def turns(self) -> str:
        counts = self.parameters["beside"]
        measured = self.results["derived"]["turn_us"].get(f"turn {counts[0]}", {})
        columns: Columns = {
            **{f"K = {n}": self.cells("turn_us", f"turn {n}") for n in counts},
            "one more idle client": lambda server: idle_in_turn(self.results, server),
        }
        return grid("server", filter(measured.__contains__, self.all_servers), columns)


def markdown(results: Results) -> str:
    """comparison.md."""
    return Page(results).text()


def _met(values: Spread, limit: float) -> str:
    return "met" if values["median"] <= limit else "not met"
