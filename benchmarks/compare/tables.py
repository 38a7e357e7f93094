"""What the samples of compare.py say: medians, ratios, and the tables of comparison.md.

Nothing here measures and nothing needs an installed package: the same results give the same text,
byte for byte, wherever and whenever it is made.

A ratio is taken between two samples of the same round, which ran within seconds of each other; what
is given is the median of these ratios with the smallest and the largest, not a ratio of medians.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.environment import sentence

REFERENCES = ("c", "v4")
"""The servers that the others are divided by."""

PICTURES = {
    "cpu-per-delivery.svg": "CPU time per delivery in a flood, against the number of clients",
    "coalescing.svg": "Messages per send in a flood",
    "latency.svg": "Wall time of a lock-step round",
    "memory.svg": "Resident memory per connection",
    "readiness.svg": "CPU time of one wait against the number of idle descriptors",
}

Results = dict[str, Any]
Spread = dict[str, float]
KEYS = ("environment", "parameters", "samples", "problems", "memory", "readiness")


class ResultsError(Exception):
    """A file does not hold the results of compare.py; the text says why."""


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
        raise ResultsError(f"{path}: not results of compare.py, there is no {lacking[0]!r}")
    try:
        results["derived"] = derived(results)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ResultsError(f"{path}: {type(error).__name__}: {error}") from None
    return dict(results)


def label(sample: Mapping[str, Any]) -> str:
    """The name of a workload in tables and charts: "flood 100"."""
    return f"{sample['workload']} {sample['clients']}"


def spread(values: Iterable[float]) -> Spread:
    """Median, smallest, largest."""
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "min": ordered[0], "max": ordered[-1]}


def derived(results: Results) -> dict[str, Any]:
    """What the tables and the charts show, as {figure: {workload: {server: Spread}}}.

    A server that has failed in a workload, in whatever round, has no figure there.
    """
    void = {(problem["server"], problem["workload"]) for problem in results["problems"]}
    samples = [s for s in results["samples"] if (s["server"], label(s)) not in void]
    cost = {
        (s["server"], label(s), s["round"]): s["cpu_seconds"] / s["deliveries"] for s in samples
    }

    def figure(value: Callable[[Mapping[str, Any]], float | None]) -> dict[str, dict[str, Spread]]:
        values: dict[str, dict[str, list[float]]] = {}
        for sample in samples:
            found = value(sample)
            if found is not None:
                of_workload = values.setdefault(label(sample), {})
                of_workload.setdefault(sample["server"], []).append(found)
        return {
            workload: {server: spread(found) for server, found in servers.items()}
            for workload, servers in values.items()
        }

    def ratio(reference: str) -> Callable[[Mapping[str, Any]], float | None]:
        def to_reference(sample: Mapping[str, Any]) -> float | None:
            other = cost.get((reference, label(sample), sample["round"]))
            own = cost[sample["server"], label(sample), sample["round"]]
            return own / other if other else None

        return to_reference

    readiness: dict[str, dict[str, list[float]]] = {}
    for sample in results["readiness"]:
        of_kind = readiness.setdefault(sample["kind"], {})
        costs = of_kind.setdefault(str(sample["descriptors"]), [])
        costs.append(sample["cpu_seconds"] / sample["calls"] * 1e6)
    turns: dict[str, dict[str, list[float]]] = {}
    for sample in results.get("turns", []):
        of_server = turns.setdefault(sample["server"], {})
        costs = of_server.setdefault(str(sample["idle"]), [])
        costs.append(sample["cpu_seconds"] / sample["turns"] * 1e6)
    return {
        "cpu_us": figure(lambda s: s["cpu_seconds"] / s["deliveries"] * 1e6),
        **{f"to_{reference}": figure(ratio(reference)) for reference in REFERENCES},
        "p50_us": figure(lambda s: s["p50_seconds"] * 1e6 if "p50_seconds" in s else None),
        "p99_us": figure(lambda s: s["p99_seconds"] * 1e6 if "p99_seconds" in s else None),
        "messages_per_send": figure(
            lambda s: s["deliveries"] / s["segments"] if s["workload"] == "flood" else None
        ),
        "cpu_per_send_us": figure(
            lambda s: s["cpu_seconds"] / s["segments"] * 1e6 if s["workload"] == "flood" else None
        ),
        "memory_kib": {
            m["server"]: (m["after_kib"] - m["before_kib"]) / m["clients"]
            for m in results["memory"]
        },
        "readiness_us": {
            kind: {count: spread(costs) for count, costs in counts.items()}
            for kind, counts in readiness.items()
        },
        "turn_us": {
            server: {idle: spread(costs) for idle, costs in of_server.items()}
            for server, of_server in turns.items()
        },
    }


def number(value: float) -> str:
    """Three digits that count, and never an exponent."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    return f"{rounded:.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def cell(found: Spread, rounds: int) -> str:
    if rounds == 1:
        return number(found["median"])
    return f"{number(found['median'])} ({number(found['min'])}-{number(found['max'])})"


def markdown(results: Results) -> str:
    """comparison.md: every table, what they were measured on, and what is not in them and why."""
    environment, parameters = results["environment"], results["parameters"]
    found = derived(results)
    notes: list[str] = []
    text = [
        "<!-- Generated by `python -m benchmarks.compare`; `--from` makes it anew from "
        "comparison.json. Do not edit. -->",
        "# The servers compared",
        sentence(environment),
        _how(parameters),
    ]
    for kind, names in _left_out(parameters):
        text.append(f"{kind}: {names}.")
    floods = [name for name in parameters["workloads"] if name.startswith("flood")]
    lock_steps = [name for name in parameters["workloads"] if name.startswith("lock-step")]

    def table(figure: str, workloads: Sequence[str]) -> str:
        rows = [["server", *workloads]]
        for server in parameters["servers"]:
            row = [f"`{server}`"]
            for workload in workloads:
                of_server = found[figure].get(workload, {}).get(server)
                if of_server:
                    row.append(cell(of_server, parameters["rounds"]))
                else:
                    row.append(_why_not(results, server, workload, notes))
            rows.append(row)
        return _table(rows)

    text += [
        "## CPU time of the server per delivery, µs",
        _picture("cpu-per-delivery.svg"),
        table("cpu_us", parameters["workloads"]),
    ]
    for reference in REFERENCES:
        if reference in parameters["servers"]:
            text += [
                f"## The same, over that of `{reference}`",
                table(f"to_{reference}", parameters["workloads"]),
            ]
    text += [
        "## Messages per send",
        "Deliveries over the data segments that reached the clients (`tcpi_data_segs_in`, tcp(7)). "
        "On loopback a send is a segment, unless it waits in the kernel and the next one joins it; "
        "what TCP repeats counts twice.",
        _picture("coalescing.svg"),
        table("messages_per_send", floods),
        "CPU time of the server per send, µs: what a server costs beside how much it coalesces. "
        "How much it can depends on how many messages the load has sent by its next turn.",
        table("cpu_per_send_us", floods),
    ]
    if lock_steps:
        text += [
            "## Wall time of a lock-step round, µs",
            "From the send of a message to its last delivery, as the load sees it: its own receives"
            " are in it, and the wake-ups between two CPUs.",
            _picture("latency.svg"),
            "Half of the rounds took no longer than (p50):",
            table("p50_us", lock_steps),
            "99 of 100 took no longer than (p99):",
            table("p99_us", lock_steps),
        ]
    text += [
        "## Resident memory per connection, KiB",
        "What VmRSS grew by, over the idle clients that came in. What the kernel keeps for a "
        "connection is not in it.",
        _picture("memory.svg"),
        _memory(results, found, notes),
        "## CPU time of one wait, µs",
        "One descriptor is ready, K others are idle: eventfds, looked at from this process.",
        _picture("readiness.svg"),
        _readiness(parameters, found),
    ]
    if found["turn_us"]:
        text += [
            "## CPU time of a turn, µs",
            "A client sends a byte that ends no line, and the server reads it and waits again; "
            "nobody is told anything. K other clients are idle.",
            _turns(results, found, notes),
        ]
    if notes:
        text.append("\n".join(f"[{n}] {note}" for n, note in enumerate(notes, 1)))
    return "\n\n".join(text) + "\n"


def _how(parameters: Mapping[str, Any]) -> str:
    rounds = parameters["rounds"]
    senders = ", ".join(f"{n} of {of}" for of, n in parameters["senders"].items())
    given = (
        f"Given are medians of {rounds} rounds, with the smallest and the largest; a ratio is "
        "taken within a round."
        if rounds > 1
        else "There was one round only: no figure here tells how far it strays."
    )
    return (
        f"Each measurement starts its server anew; {parameters['placement']}. Every delivery is "
        f"checked. Messages of {parameters['message_bytes']} bytes, TCP_NODELAY. Lock-step: one "
        f"message, all its deliveries, the next. Flood: closed loop, {parameters['in_flight']} "
        f"messages in flight for each sender; of the clients, {senders} send. A warm-up finds how "
        f"much work is about {parameters['cpu_seconds']:g} s of the server's CPU time, and that is "
        f"measured. {given}"
    )


def _left_out(parameters: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    if parameters["versions"]:
        yield "Versions", ", ".join(f"{name}: {v}" for name, v in parameters["versions"].items())
    if parameters["missing"]:
        missing = parameters["missing"].items()
        yield "Left out", "; ".join(f"`{name}` ({reason})" for name, reason in missing)


def _why_not(results: Results, server: str, workload: str, notes: list[str]) -> str:
    for problem in results["problems"]:
        if (problem["server"], problem["workload"]) == (server, workload):
            note = f"`{server}`, {workload}: {problem['reason']}."
            if note not in notes:
                notes.append(note)
            return f"{problem['kind']} [{notes.index(note) + 1}]"
    return "-"


def _memory(results: Results, found: Mapping[str, Any], notes: list[str]) -> str:
    rows = [["server", "KiB per connection", "clients"]]
    clients = {measured["server"]: str(measured["clients"]) for measured in results["memory"]}
    for server in idle(results):
        kib = found["memory_kib"].get(server)
        shown = _why_not(results, server, "memory", notes) if kib is None else number(kib)
        rows.append([f"`{server}`", shown, clients.get(server, "-")])
    return _table(rows)


def idle(results: Mapping[str, Any]) -> list[str]:
    """The servers whose memory was measured: those of the workloads, and those that tell nobody."""
    parameters = results["parameters"]
    return [*parameters.get("silent", []), *parameters["servers"]]


def _readiness(parameters: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    counts = [str(count) for count in parameters["descriptors"]]
    rows = [["", *(f"K = {count}" for count in counts)]]
    for kind, of_kind in found["readiness_us"].items():
        limits = parameters["readiness_limits"].get(kind, {})
        rows.append(
            [
                f"`{kind}`",
                *(
                    cell(of_kind[count], parameters["rounds"])
                    if count in of_kind
                    else limits.get(count, "-")
                    for count in counts
                ),
            ]
        )
    return _table(rows)


def _turns(results: Results, found: Mapping[str, Any], notes: list[str]) -> str:
    parameters = results["parameters"]
    rows = [["server", *(f"K = {idle}" for idle in parameters["beside"])]]
    for server, costs in found["turn_us"].items():
        row = [f"`{server}`"]
        for idle in parameters["beside"]:
            cost = costs.get(str(idle))
            why_not = _why_not(results, server, f"a turn beside {idle}", notes)
            row.append(cell(cost, parameters["rounds"]) if cost else why_not)
        rows.append(row)
    return _table(rows)


def _picture(name: str) -> str:
    return f"![{PICTURES[name]}]({name})"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
