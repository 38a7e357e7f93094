"""What the samples of a comparison say: medians with their quartiles, and ratios.

All that a server was seen to do is a sample of a workload in a round: "flood 100", "lock-step 10",
"idle 5000", "memory", "start", "turn 900" beside so many idle clients, "wait 1000" for so many
descriptors.
Two of them are compared within a round, where they were taken within minutes of each other: a ratio
is the median of these ratios with its quartiles, never a ratio of medians.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

REFERENCE = "c"
"""The server that the others are divided by."""
BUSY = 0.9
"""Of the time that a flood takes; with less, the server has waited for its load or its CPU."""
KEYS = ("environment", "parameters", "samples", "problems")
"""Of a comparison.json."""

Results = dict[str, Any]
Sample = Mapping[str, Any]
Spread = dict[str, float]
Rounds = dict[str, dict[str, dict[int, float]]]
LOADS = ("lock-step", "flood", "python-flood", "idle")
FLOODS = ("flood", "python-flood", "idle")
WITHOUT_NUMBER = ("memory", "start")
"""Workloads that there is one of."""
FIGURES: Mapping[str, tuple[tuple[str, ...], Callable[[Sample], float]]] = {
    "cpu_us": (LOADS, lambda s: s["cpu_seconds"] / s["deliveries"] * 1e6),
    "busy": (LOADS, lambda s: s["cpu_seconds"] / s["wall_seconds"]),
    "p50_us": (LOADS, lambda s: s["p50_seconds"] * 1e6),
    "p99_us": (LOADS, lambda s: s["p99_seconds"] * 1e6),
    "messages_per_send": (FLOODS, lambda s: s["deliveries"] / s["segments"]),
    "cpu_per_send_us": (FLOODS, lambda s: s["cpu_seconds"] / s["segments"] * 1e6),
    "memory_kib": (("memory",), lambda s: (s["after_kib"] - s["before_kib"]) / s["n"]),
    "start_s": (("start",), lambda s: s["wall_seconds"]),
    "turn_us": (("turn",), lambda s: s["cpu_seconds"] / s["turns"] * 1e6),
    "wait_us": (("wait",), lambda s: s["cpu_seconds"] / s["calls"] * 1e6),
}
"""By name: the workloads that have it, and how it is made of a sample."""


class ResultsError(Exception):
    """A file does not hold the results of a comparison; the text says why."""


def load(path: Path) -> Results:
    """The results in a comparison.json, with what is derived from them."""
    try:
        content = json.loads(path.read_text("utf-8"))
        results: Results = {key: content[key] for key in KEYS}
        return {**results, "derived": derived(results)}
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror}") from None
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ResultsError(f"{path}: {type(error).__name__}: {error}") from None


def label(sample: Sample) -> str:
    """The name of a workload in tables and charts: "flood 100"."""
    kind: str = sample["workload"]
    return kind if kind in WITHOUT_NUMBER else f"{kind} {sample['n']}"


def spread(values: Iterable[float]) -> Spread:
    """ValueError: there are none."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    low = median = high = ordered[0]
    if len(ordered) > 1:
        low, median, high = statistics.quantiles(ordered, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high, "min": ordered[0], "max": ordered[-1]}


def by_round(results: Results, figure: str) -> Rounds:
    """A figure as {workload: {server: {round: value}}}. A server that has failed in a workload, in
    whatever round, has none there."""
    kinds, value = FIGURES[figure]
    void = {(problem["server"], problem["workload"]) for problem in results["problems"]}
    rounds: Rounds = {}
    for sample in results["samples"]:
        if sample["workload"] in kinds and (sample["server"], label(sample)) not in void:
            servers = rounds.setdefault(label(sample), {})
            servers.setdefault(sample["server"], {})[sample["round"]] = value(sample)
    return rounds


def ratio(results: Results, figure: str, above: tuple[str, str], below: tuple[str, str]) -> Spread:
    """A figure of one (workload, server) over that of another: in each round that has both.
    ValueError: none has."""
    values = by_round(results, figure)
    over, under = (values.get(workload, {}).get(server, {}) for workload, server in (above, below))
    return spread(over[r] / under[r] for r in over.keys() & under.keys() if under[r])


def derived(results: Results) -> dict[str, dict[str, dict[str, Spread]]]:
    """What tables, charts and pages show, as {figure: {workload: {server: Spread}}}: FIGURES, and
    idle_in_turn_us, the CPU time that one more idle client adds to a turn: in each round the slope
    between the fewest and the most clients that were measured."""
    spreads = {
        figure: {
            workload: {server: spread(rounds.values()) for server, rounds in servers.items()}
            for workload, servers in by_round(results, figure).items()
        }
        for figure in FIGURES
    }
    turns, (few, *_, many) = by_round(results, "turn_us"), results["parameters"]["beside"]
    slopes = {}
    for server, rounds in turns.get(f"turn {many}", {}).items():
        fewer = turns[f"turn {few}"].get(server, {})
        values = [(rounds[r] - fewer[r]) / (many - few) for r in rounds.keys() & fewer.keys()]
        if values:
            slopes[server] = spread(values)
    return {**spreads, "idle_in_turn_us": {"turn": slopes}}


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


def cell(values: Spread, rounds: int, digits: int = 3) -> str:
    """The median, and the quartiles in parentheses, where there are any."""
    median, low, high = (number(values[key], digits) for key in ("median", "low", "high"))
    return median if rounds == 1 or values["low"] == values["high"] else f"{median} ({low}-{high})"


def unsaturated(results: Results, workload: str, server: str) -> bool:
    """Whether a server has waited for the load of a flood: what was measured is the load, too."""
    busy = results["derived"]["busy"].get(workload, {}).get(server)
    return workload.split()[0] in FLOODS and bool(busy) and busy["median"] < BUSY
