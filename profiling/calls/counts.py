"""System calls per round, counted: how, the formula in N that fits them, and their tables.

counted = count("v3", [2, 10, 50], rounds=200)
counted.per_round("sendto")         # {2: Fraction(1, 1), 10: Fraction(9, 1), ...}
counted.formula("sendto")           # "N - 1"
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from benchmarks.harness.strace import READS, SENDS, WAITS, calls_between
from benchmarks.harness.tables import table
from calls.tracing import APART, LOGGING, RESTLESS, WARM_UP, LockStep, Trace, explained, marker

KINDS = ("wait", "", "send", "")
"""Waits, reads, sends, the rest; as a table calls them."""
ALL = "all"
"""Stands beside the names of calls, for their sum."""


class Counted:
    """What one server was seen to do. counts: by the number of clients. exact: they must be the
    same in each round."""

    def __init__(self, name: str, rounds: int, counts: Mapping[int, Counter[str]]):
        self.name, self.rounds = name, rounds
        self.clients = sorted(counts)
        self.calls = sorted({c for n in counts for c in counts[n]}, key=lambda c: (_place(c), c))
        self.counts = {n: {**counts[n], ALL: counts[n].total()} for n in self.clients}
        self.exact = name not in RESTLESS

    def per_round(self, call: str) -> dict[int, Fraction]:
        return {n: Fraction(self.counts[n].get(call, 0), self.rounds) for n in self.clients}

    def formula(self, call: str) -> str | None:
        return formula(self.per_round(call))

    def uneven(self) -> list[str]:
        """The calls whose counts the rounds do not divide."""
        return [c for c in self.calls if any(n.denominator > 1 for n in self.per_round(c).values())]

    def complaints(self) -> list[str]:
        """A line for each of these, or one for all where nothing else can be expected."""
        if self.exact:
            return [
                f"{self.name}: {call}: "
                + ", ".join(f"{self.counts[n].get(call, 0)} (N = {n})" for n in self.clients)
                + f" in {self.rounds} rounds: perhaps the room was not at rest between two of them,"
                " or the server, its run time or its allocator does something now and then"
                for call in self.uneven()
            ]
        means = "; ".join(f"{call} {', '.join(self.shown(call))}" for call in self.uneven())
        numbers = ", ".join(map(str, self.clients))
        return [f"{self.name}: means, with N = {numbers}: {means}"] if means else []

    def shown(self, call: str) -> list[str]:
        """A count for each N; "~" stands before one that is a mean."""
        return [
            str(count) if count.denominator == 1 else f"~{float(count):.2f}"
            for count in self.per_round(call).values()
        ]

    def about(self, call: str) -> str:
        """The formula; or that of the means in whole numbers, or these. "0": now and then."""
        text = self.formula(call)
        if text or call not in self.uneven():
            return text or ", ".join(self.shown(call))
        means = {n: Fraction(round(count)) for n, count in self.per_round(call).items()}
        text = formula(means) or ", ".join(map(str, means.values()))
        return f"~({text})" if " " in text else text if text == "0" else f"~{text}"

    def as_json(self) -> dict[str, Any]:
        whole = {c: self.per_round(c) for c in self.calls}
        return {
            "per_round": {
                str(n): {
                    c: float(whole[c][n]) if whole[c][n] % 1 else int(whole[c][n]) for c in whole
                }
                for n in self.clients
            },
            "formula": {call: self.formula(call) for call in self.calls},
            "all": self.formula(ALL),
            "uneven": self.uneven(),
        }


def count(name: str, clients: Sequence[int], rounds: int) -> Counted:
    """All system calls of a server in `rounds` rounds, for each number of clients: one process,
    one room after the other. ProfilingError: it cannot be seen through."""
    windows: dict[int, tuple[int, int]] = {}
    with Trace(name) as trace, explained(trace.server):
        for index, n in enumerate(clients, 1):
            with LockStep(trace.server, n, index * APART) as room:
                room.run(WARM_UP)
                windows[n] = (room.run(rounds), room.run(1))
        trace.server.stop()
        text = trace.read()
        counts = {
            n: Counter(calls_between(text, marker(first), marker(last)))
            for n, (first, last) in windows.items()
        }
    return Counted(name, rounds, counts)


def formula(counts: Mapping[int, Fraction]) -> str | None:
    """The line through the counts at each N: "N - 1". None: there is none, or with fewer than
    three points nothing that could tell."""
    points = sorted(counts.items())
    if len(points) < 3:
        return None
    (n0, c0), (n1, c1) = points[:2]
    slope = (c1 - c0) / (n1 - n0)
    offset = c0 - slope * n0
    if slope.denominator > 1 or any(count != slope * n + offset for n, count in points):
        return None
    if slope == 0:
        return str(offset)
    if slope > 1 and offset == -slope:
        return f"{slope} (N - 1)"
    start = "N" if slope == 1 else f"{slope} N"
    if offset == 0:
        return start
    return f"{start} {'+' if offset > 0 else '-'} {abs(offset)}"


def _place(call: str) -> int:
    """Of its kind in KINDS."""
    return next((i for i, kind in enumerate((WAITS, READS, SENDS)) if call in kind), 3)


def terminal(counted: Counted) -> str:
    """A line for each call, a column for each N."""
    rows = [[counted.name, *(f"N={n}" for n in counted.clients), "per round"]]
    for call in [*counted.calls, ALL]:
        kind = "log" if counted.name in LOGGING and call == "write" else KINDS[_place(call)]
        text = counted.formula(call) or ("not linear" if len(counted.clients) > 2 else "")
        rows.append([f"{call} ({kind})" if kind else call, *counted.shown(call), text])
    return table(rows, style="plain")


def _cell(counted: Counted, place: int) -> str:
    """The calls of a kind with their formulas."""
    parts, rare = [], []
    for call in counted.calls:
        if _place(call) == place:
            text = counted.about(call)
            if text == "0":
                rare.append(f"`{call}`")
            else:
                parts.append(f"`{call}`" if text == "1" else f"{text} `{call}`")
    log = " (the log)" if counted.name in LOGGING and place == 2 else ""
    return " + ".join(parts + (["now and then " + ", ".join(rare)] if rare else [])) + log


def markdown(results: Sequence[Counted], missing: Mapping[str, str], made_on: str) -> str:
    """The comparison of all of them."""
    clients = results[0].clients
    rows = [["server", "waits", "reads", "sends", "besides", "all"]]
    for one in results:
        total = one.formula(ALL) or ", ".join(one.shown(ALL))
        rows.append([one.name, *(_cell(one, place) for place in range(len(KINDS))), total])
    counted = (
        f"Counted in {results[0].rounds} rounds each with N = {', '.join(map(str, clients))}. "
    )
    counted += (
        "A formula holds at each of these N, to the call."
        if len(clients) > 2
        else "From fewer than three N no formula is made; the counts stand in this order."
    )
    if any(one.uneven() for one in results):
        counted += " `~`: a mean; the number is not the same in every round."
    paragraphs = [
        "# System calls per round",
        "A round is one message and all that follows from it, the server's return to its wait "
        "included; N is the number of clients. All calls of all threads, seen by strace(1); "
        "start-up, joins and stop are outside. v1 and v2, which tell nobody, print the line; the "
        "others are silent (`--quiet`). `sendto` and `write` are both sends, as is `writev`.",
        table(rows, numbers=False),
        f"{counted} Where the calls come from that are neither wait, read nor send: "
        "[profiling/README.md](../README.md).",
        *(f"- {complaint}" for one in results for complaint in one.complaints()),
        *(f"Not there: {name} ({reason})." for name, reason in missing.items()),
        made_on,
    ]
    return "\n\n".join(paragraphs) + "\n"
