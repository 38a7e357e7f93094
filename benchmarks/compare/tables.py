"""What the samples of a comparison say: medians, ratios, and the tables of comparison.md.

Nothing here measures: the same results give the same text, byte for byte, wherever and whenever it
is made.

All that a server was seen to do is a sample of a workload in a round: "flood 100", "lock-step 10",
"memory", "turn 900" beside so many idle clients, "wait 1000" for so many descriptors. Two of them
are compared within a round, where they were taken within minutes of each other: a ratio is the
median of these ratios with the smallest and the largest, never a ratio of medians.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.environment import sentence
from benchmarks.harness.tables import table

REFERENCES = ("c", "v4")
"""The servers that the others are divided by."""
BUSY = 0.9
"""Of the time that a flood takes; with less, the server has waited for its load or its CPU."""
MARK = "†"

PICTURES = {
    "cpu-per-delivery.svg": "CPU time per delivery in a flood, against the number of clients",
    "coalescing.svg": "Messages per send in a flood",
    "latency.svg": "Latency of deliveries in lock-step",
    "memory.svg": "Memory per connection",
    "readiness.svg": "CPU time of one wait against the number of idle descriptors",
}

Results = dict[str, Any]
Sample = Mapping[str, Any]
Spread = dict[str, float]
Rounds = dict[str, dict[str, dict[int, float]]]


def _us(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e6


KEYS = ("environment", "parameters", "samples", "problems")

FIGURES: Mapping[str, tuple[tuple[str, ...], Callable[[Sample], float | None]]] = {
    "cpu_us": (("lock-step", "flood"), lambda s: s["cpu_seconds"] / s["deliveries"] * 1e6),
    "busy": (("lock-step", "flood"), lambda s: s["cpu_seconds"] / s["wall_seconds"]),
    "deliveries_per_second": (
        ("lock-step", "flood"),
        lambda s: s["deliveries"] / s["wall_seconds"],
    ),
    "p50_us": (("lock-step", "flood"), lambda s: _us(s.get("p50_seconds"))),
    "p99_us": (("lock-step", "flood"), lambda s: _us(s.get("p99_seconds"))),
    "messages_per_send": (("flood",), lambda s: s["deliveries"] / s["segments"]),
    "cpu_per_send_us": (("flood",), lambda s: s["cpu_seconds"] / s["segments"] * 1e6),
    "memory_kib": (("memory",), lambda s: (s["after_kib"] - s["before_kib"]) / s["n"]),
    "turn_us": (("turn",), lambda s: s["cpu_seconds"] / s["turns"] * 1e6),
    "wait_us": (("wait",), lambda s: s["cpu_seconds"] / s["calls"] * 1e6),
}
"""By name: the workloads that have it, and how it is made of a sample; None: it cannot be."""


class ResultsError(Exception):
    """A file does not hold the results of a comparison; the text says why."""


def load(path: Path) -> Results:
    """The results in a comparison.json."""
    try:
        results = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ResultsError(f"{path}: not JSON: {error}") from None
    lacking = [key for key in KEYS if not isinstance(results, dict) or key not in results]
    if lacking:
        raise ResultsError(f"{path}: not results of a comparison, there is no {lacking[0]!r}")
    try:
        results["derived"] = derived(results)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ResultsError(f"{path}: {type(error).__name__}: {error}") from None
    return dict(results)


def label(sample: Sample) -> str:
    """The name of a workload in tables and charts: "flood 100"."""
    return "memory" if sample["workload"] == "memory" else f"{sample['workload']} {sample['n']}"


def spread(values: Iterable[float]) -> Spread:
    """Median, smallest, largest. ValueError: there are none."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    return {"median": statistics.median(ordered), "min": ordered[0], "max": ordered[-1]}


def by_round(results: Results, figure: str) -> Rounds:
    """A figure as {workload: {server: {round: value}}}. A server that has failed in a workload, in
    whatever round, has none there."""
    kinds, value = FIGURES[figure]
    void = {(problem["server"], problem["workload"]) for problem in results["problems"]}
    found: Rounds = {}
    for sample in results["samples"]:
        if sample["workload"] in kinds and (sample["server"], label(sample)) not in void:
            figure_of = value(sample)
            if figure_of is not None:
                servers = found.setdefault(label(sample), {})
                servers.setdefault(sample["server"], {})[sample["round"]] = figure_of
    return found


def ratio(results: Results, figure: str, above: tuple[str, str], below: tuple[str, str]) -> Spread:
    """A figure of one (workload, server) over that of another: in each round that has both.
    ValueError: none has."""
    return _ratio(by_round(results, figure), above, below)


def _ratio(values: Rounds, above: tuple[str, str], below: tuple[str, str]) -> Spread:
    over, under = (values.get(workload, {}).get(server, {}) for workload, server in (above, below))
    return spread(over[r] / under[r] for r in over.keys() & under.keys() if under[r])


def derived(results: Results) -> dict[str, dict[str, dict[str, Spread]]]:
    """What tables, charts and pages show, as {figure: {workload: {server: Spread}}}: FIGURES;
    to_SERVER, the CPU time per delivery over that of SERVER; idle_in_turn_us, see there."""
    found: dict[str, dict[str, dict[str, Spread]]] = {
        figure: {
            workload: {server: spread(rounds.values()) for server, rounds in servers.items()}
            for workload, servers in by_round(results, figure).items()
        }
        for figure in FIGURES
    }
    costs = by_round(results, "cpu_us")
    for reference in REFERENCES:
        found[f"to_{reference}"] = {
            workload: {
                server: _ratio(costs, (workload, server), (workload, reference))
                for server in servers
                if servers[server].keys() & servers[reference].keys()
            }
            for workload, servers in costs.items()
            if reference in servers
        }
    found["idle_in_turn_us"] = {"turn": _slopes(results)}
    return found


def _slopes(results: Results) -> dict[str, Spread]:
    """The CPU time that one more idle client adds to a turn, by server: in each round the slope
    between the fewest and the most clients that were measured."""
    turns = by_round(results, "turn_us")
    counts = sorted(int(workload.split()[1]) for workload in turns)
    if len(counts) < 2:
        return {}
    few, many = turns[f"turn {counts[0]}"], turns[f"turn {counts[-1]}"]
    return {
        server: spread(
            (many[server][r] - few[server][r]) / (counts[-1] - counts[0])
            for r in many[server].keys() & few[server].keys()
        )
        for server in many
        if server in few and many[server].keys() & few[server].keys()
    }


def idle_in_turn(results: Results, server: str) -> str:
    """What an idle client costs in each turn: "0.251 µs"; where the rounds do not agree that it
    costs anything, or there is only one, the largest that was measured: "at most 0.0014 µs"; "-":
    nothing was."""
    slope = results["derived"]["idle_in_turn_us"]["turn"].get(server)
    if not slope:
        return "-"
    if slope["min"] > 0 and results["parameters"]["rounds"] > 1:
        return f"{number(slope['median'])} µs"
    return f"at most {number(max(-slope['min'], slope['max']), 2)} µs"


def number(value: float, digits: int = 3) -> str:
    """With so many digits that count, and never an exponent."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits}g}")
    places = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:.{places}f}"


def cell(found: Spread, rounds: int, digits: int = 3) -> str:
    median, least, most = (number(found[key], digits) for key in ("median", "min", "max"))
    return median if rounds == 1 or found["min"] == found["max"] else f"{median} ({least}-{most})"


def unsaturated(results: Results, workload: str, server: str) -> bool:
    """Whether a server has waited for the load of a flood: what was measured is the load, too."""
    busy = results["derived"]["busy"].get(workload, {}).get(server)
    return workload.startswith("flood") and bool(busy) and busy["median"] < BUSY


def idle(results: Results) -> list[str]:
    """The servers whose memory was measured: those of the workloads, and those that tell nobody."""
    return [*results["parameters"]["silent"], *results["parameters"]["servers"]]


class Page:
    """comparison.md, with the notes that its cells ask for."""

    def __init__(self, results: Results):
        self.results = {**results, "derived": derived(results)}
        self.parameters = results["parameters"]
        self.rounds: int = self.parameters["rounds"]
        self.notes: list[str] = []

    def text(self) -> str:
        """Every table, what they were measured on, and what is not in them and why."""
        workloads = self.parameters["workloads"]
        text = [
            "<!-- Generated by `python -m benchmarks.compare`; `--from` makes it anew from "
            "comparison.json. Do not edit. -->",
            "# The servers compared",
            sentence(self.results["environment"]),
            self.how(),
            *self.left_out(),
            _picture("cpu-per-delivery.svg"),
            _picture("coalescing.svg"),
            _picture("latency.svg"),
            "What the columns say. µs: CPU time of the server per delivery; over `c`, over `v4`: "
            "the same over theirs. Busy: CPU time over wall time. p50, p99: latency of half of the "
            "deliveries, and of 99 of 100, from the send of their message until they are read; in "
            "lock-step the load's own receives are in it, and the wake-ups between two CPUs. "
            "Messages per send: deliveries over the data segments that have reached the clients "
            "(`tcpi_data_segs_in`, tcp(7)); on loopback a send is a segment, unless it waits in "
            "the kernel and the next one joins it, and what TCP repeats counts twice. µs per send: "
            "what a server costs beside how much it coalesces.",
        ]
        for workload in workloads:
            text += [f"## {workload[0].upper()}{workload[1:]}", self.workload(workload)]
        text += [
            "## Memory per connection, KiB",
            "What the server's private memory grew by (Private_Clean + Private_Dirty in "
            "smaps_rollup, proc(5): what would be free if it ended), over the idle clients that "
            "came in. What the kernel keeps for a connection is not in it.",
            _picture("memory.svg"),
            self.memory(),
            "## CPU time of one wait, µs",
            "One descriptor is ready, K others are idle: eventfds, looked at from this process.",
            _picture("readiness.svg"),
            self.waits(),
        ]
        if self.results["derived"]["turn_us"]:
            text += [
                "## CPU time of a turn, µs",
                "A client sends a byte that ends no line, and the server reads it and waits again; "
                "nobody is told anything. K other clients are idle.",
                self.turns(),
            ]
        text += ["\n".join(f"[{n}] {note}" for n, note in enumerate(self.notes, 1))]
        return "\n\n".join(part for part in text if part) + "\n"

    def workload(self, workload: str) -> str:
        """A row for each server, with all its figures."""
        references = [name for name in REFERENCES if name in self.parameters["servers"]]
        figures = ["cpu_us", *(f"to_{name}" for name in references)]
        figures += ["busy", "deliveries_per_second", "p50_us", "p99_us"]
        heads = ["server", "µs", *(f"over `{name}`" for name in references)]
        heads += ["busy", "deliveries per second", "p50, µs", "p99, µs"]
        if workload.startswith("flood"):
            figures += ["messages_per_send", "cpu_per_send_us"]
            heads += ["messages per send", "µs per send"]
        rows = [heads]
        marked = False
        for server in self.parameters["servers"]:
            row = [self.cell(figure, workload, server) for figure in figures]
            if unsaturated(self.results, workload, server):
                marked, row[0] = True, f"{row[0]} {MARK}"
            rows.append([f"`{server}`", *row])
        note = (
            f"{MARK} The server was busy for less than {BUSY:.0%} of the time: its load, or others "
            "on its CPU, kept it waiting, and the figures say something of these, too."
        )
        return "\n\n".join([table(rows), note] if marked else [table(rows)])

    def cell(self, figure: str, workload: str, server: str, digits: int = 3) -> str:
        found = self.results["derived"][figure].get(workload, {}).get(server)
        if not found:
            return self.why_not(server, workload)
        if figure == "busy":
            return f"{found['median']:.0%}"
        with_spread = figure not in ("deliveries_per_second", "p99_us", "cpu_per_send_us")
        return cell(found, self.rounds if with_spread else 1, digits)

    def how(self) -> str:
        parameters, rounds = self.parameters, self.rounds
        senders = ", ".join(f"{n} of {of}" for of, n in parameters["senders"].items())
        given = (
            f"Given are medians of {rounds} rounds, with the smallest and the largest; a ratio is "
            "taken within a round."
            if rounds > 1
            else "There was one round only: no figure here tells how far it strays."
        )
        load = "" if parameters["saturating"] else " The flood is in Python: not saturated."
        return (
            f"Each measurement starts its server anew; {parameters['placement']}. Every delivery "
            f"is checked. Messages of {parameters['message_bytes']} bytes, TCP_NODELAY. Lock-step: "
            "one message, all its deliveries, the next. Flood: closed loop, "
            f"{parameters['in_flight']} messages in flight for each sender; of the clients, "
            f"{senders} send.{load} A warm-up finds how much work is about "
            f"{parameters['cpu_seconds']:g} s of the server's CPU time, and that is measured. "
            f"{given}"
        )

    def left_out(self) -> list[str]:
        versions = ", ".join(f"{name}: {v}" for name, v in self.parameters["versions"].items())
        missing = "; ".join(f"`{n}` ({why})" for n, why in self.parameters["missing"].items())
        return [
            f"{kind}: {names}."
            for kind, names in (("Versions", versions), ("Left out", missing))
            if names
        ]

    def why_not(self, server: str, workload: str) -> str:
        for problem in self.results["problems"]:
            if (problem["server"], problem["workload"]) == (server, workload):
                note = f"`{server}`, {workload}: {problem['reason']}."
                if note not in self.notes:
                    self.notes.append(note)
                return f"{problem['kind']} [{self.notes.index(note) + 1}]"
        return "-"

    def memory(self) -> str:
        clients = {
            sample["server"]: str(sample["n"])
            for sample in self.results["samples"]
            if sample["workload"] == "memory"
        }
        rows = [["server", "KiB per connection", "clients"]]
        for server in idle(self.results):
            kib = self.cell("memory_kib", "memory", server, digits=2)
            rows.append([f"`{server}`", kib, clients.get(server, "-")])
        return table(rows)

    def waits(self) -> str:
        """A row for each way to wait; where there is no figure, the reason."""
        reasons = {(p["server"], p["workload"]): p["reason"] for p in self.results["problems"]}
        counts = self.parameters["descriptors"]
        rows = [["", *(f"K = {n}" for n in counts)]]
        for kind in self.parameters["waits"]:
            workloads = [f"wait {n}" for n in counts]
            costs = (reasons.get((kind, w)) or self.cell("wait_us", w, kind) for w in workloads)
            rows.append([f"`{kind}`", *costs])
        return table(rows)

    def turns(self) -> str:
        counts = self.parameters["beside"]
        rows = [["server", *(f"K = {n}" for n in counts), "one more idle client"]]
        measured = self.results["derived"]["turn_us"][f"turn {counts[0]}"]
        for server in filter(measured.__contains__, idle(self.results)):
            row = [self.cell("turn_us", f"turn {n}", server) for n in counts]
            rows.append([f"`{server}`", *row, idle_in_turn(self.results, server)])
        return table(rows)


def markdown(results: Results) -> str:
    """comparison.md."""
    return Page(results).text()


def _picture(name: str) -> str:
    return f"![{PICTURES[name]}]({name})"
