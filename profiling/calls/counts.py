"""System calls per round, counted: how, the formula in N that fits them, and their tables.

counted = count("v3", [2, 10, 50], rounds=200, ...)
counted.per_round("sendto", 10)     # Fraction(9, 1)
counted.formula("sendto")           # "N - 1"
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from benchmarks.harness.crowd import DeliveryError
from benchmarks.harness.environment import PACKAGES, sentence
from benchmarks.harness.process import ServerError
from benchmarks.harness.server import SILENT
from benchmarks.harness.strace import READS, SENDS, WAITS, calls_between
from calls.tracing import APART, RESTLESS, WARM_UP, LockStep, Trace, failure, marker, quiet

WHY = {
    "futex": "a thread asked for the interpreter (GIL) or a lock while another one had it, or a "
    "run time woke a thread of its own",
    "brk": "the allocator changed the size of its heap",
    "mmap": "the allocator took memory for a large block",
    "munmap": "the allocator gave a large block back",
    "mremap": "the allocator shrank a large block",
    "madvise": "the allocator gave pages back",
    "mprotect": "a just-in-time compiler wrote code",
    "nanosleep": "a run time's own thread looked around",
    "clone": "a thread was started",
}
"""Why a call may come in some rounds and not in others."""
OTHERWISE = "the room was not at rest between two rounds, or the server does something now and then"

NOTES = {
    "v4": "The bytes wake the coroutine, which runs in the loop's next turn: before it, the loop "
    "looks at epoll once more, with timeout 0.",
    "asyncio-protocol": "Until the first client leaves, each round costs mmap, mremap and munmap "
    "besides: a read of 256 KiB is beyond malloc's threshold (128 KiB), and a block that is freed "
    "after it was cut down to the message leaves the threshold as it is. The EOF of a client that "
    "leaves frees such a block whole, glibc's malloc raises the threshold above it, mallopt(3), "
    "and from then on the memory comes from the heap. Here somebody has left before the first "
    "round: whoever asked whether the server accepts. MALLOC_MMAP_THRESHOLD_=131072 in the "
    "environment keeps the threshold where it begins, and shows the three.",
    "uvloop-protocol --coalesce": "getpid: asyncio.get_running_loop() asks whether this process "
    "is still the one that started the loop.",
    "twisted": "write() only stores the data: EPOLLOUT is asked for, waited for and taken back for "
    "each client. That is 3 calls per delivery.",
    "tornado": "Each write makes a Future, and with it a getpid: asyncio asks whether this process "
    "is still the one that started the loop. A second recvfrom finds out that nothing more has "
    "come, and two looks with timeout 0 stand between the callbacks.",
    "trio": "The second recvfrom finds out that nothing more has come, epoll_ctl asks to be told "
    "(EPOLLONESHOT), and two looks with timeout 0 stand between the tasks.",
    "gevent": "sendall() asks for the size of the send buffer each time (getsockopt). The second "
    "recvfrom finds out that nothing more has come, and libev asks by getpid whether it has been "
    "forked.",
    "go": "The run time's threads wake each other (futex), take turns in sleeping (nanosleep) and "
    "in looking at epoll: these differ from round to round. read comes twice, the second one finds "
    "out that nothing more has come.",
    "node": "After the callbacks, libuv looks at epoll once more, with timeout 0. What is not "
    "whole is the work of V8 on its own memory and code, and differs from round to round.",
}
NOTES["node --cork"] = NOTES["node"]


class Counted:
    """What one server was seen to do. counts: by the number of clients."""

    def __init__(self, name: str, rounds: int, counts: Mapping[int, Mapping[str, int]]):
        self.name = name
        self.rounds = rounds
        self.counts = counts
        self.clients = sorted(counts)
        names = {call for count in counts.values() for call in count}
        self.calls = sorted(names, key=lambda call: (_place(call), call))

    def per_round(self, call: str, clients: int) -> Fraction:
        return Fraction(self.counts[clients].get(call, 0), self.rounds)

    def all(self, clients: int) -> Fraction:
        return Fraction(sum(self.counts[clients].values()), self.rounds)

    def uneven(self) -> list[str]:
        """The calls whose counts the rounds do not divide."""
        return [
            call
            for call in self.calls
            if any(self.per_round(call, n).denominator > 1 for n in self.clients)
        ]

    def complaints(self) -> list[str]:
        """A line for each of these: which, how often, and why that may be. One for all where
        nothing else can be expected."""
        found = []
        if self.uneven() and not self.must_be_even():
            means = (
                f"{call} {', '.join(shown(self.per_round(call, n)) for n in self.clients)}"
                for call in self.uneven()
            )
            numbers = ", ".join(map(str, self.clients))
            return [f"{self.name}: means, with N = {numbers}: {'; '.join(means)}"]
        for call in self.uneven():
            counts = ", ".join(f"{self.counts[n].get(call, 0)} (N = {n})" for n in self.clients)
            why = WHY.get(call, OTHERWISE)
            found.append(f"{self.name}: {call}: {counts} in {self.rounds} rounds: perhaps {why}")
        return found

    def must_be_even(self) -> bool:
        return self.name not in RESTLESS

    def formula(self, call: str) -> str | None:
        return formula({n: self.per_round(call, n) for n in self.clients})

    def about(self, call: str) -> str:
        """Of an uneven call: the formula of its means in whole numbers, or these. "0": it comes
        now and then."""
        means = {n: Fraction(round(self.per_round(call, n))) for n in self.clients}
        text = formula(means) or ", ".join(map(str, means.values()))
        return f"~({text})" if " " in text else text if text == "0" else f"~{text}"

    def total(self) -> str | None:
        return formula({n: self.all(n) for n in self.clients})

    def as_json(self) -> dict[str, Any]:
        return {
            "per_round": {
                str(n): {call: number(self.per_round(call, n)) for call in self.calls}
                for n in self.clients
            },
            "formula": {call: self.formula(call) for call in self.calls},
            "all": self.total(),
            "uneven": self.uneven(),
        }


def count(name: str, clients: Sequence[int], rounds: int) -> Counted:
    """All system calls of a server in `rounds` rounds, for each number of clients: one process,
    one room after the other. TracingError: it cannot be seen through."""
    windows: dict[int, tuple[int, int]] = {}
    with Trace(name, quiet(name)) as trace:
        try:
            for index, n in enumerate(clients, 1):
                with LockStep(trace.server, n, index * APART) as room:
                    room.run(WARM_UP)
                    windows[n] = (room.run(rounds), room.run(1))
            trace.server.stop()
        except (DeliveryError, ServerError, OSError) as error:
            raise failure(trace.server, error) from None
        text = trace.read()
    found = {}
    for n, (first, last) in windows.items():
        try:
            found[n] = Counter(calls_between(text, marker(first), marker(last)))
        except ValueError as error:
            raise failure(trace.server, error) from None
    return Counted(name, rounds, found)


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


def number(count: Fraction) -> float:
    """A whole number where it is one."""
    return int(count) if count.denominator == 1 else float(count)


def shown(count: Fraction) -> str:
    """A count in a table; "~" stands before one that is a mean."""
    return str(count) if count.denominator == 1 else f"~{float(count):.2f}"


def _place(call: str) -> int:
    """Waits, then reads, then sends, then the rest."""
    for place, kind in enumerate((WAITS, READS, SENDS)):
        if call in kind:
            return place
    return 3


def fitted(text: str | None, clients: Sequence[int]) -> str:
    return text or ("not linear" if len(clients) > 2 else "")


def table(counted: Counted) -> str:
    """For the terminal: a line for each call, a column for each N."""
    rows = [[counted.name, *(f"N={n}" for n in counted.clients), "per round"]]
    for call in counted.calls:
        kind = {0: " (wait)", 2: " (send)"}.get(_place(call), "")
        if counted.name in SILENT and call == "write":
            kind = " (log)"
        counts = [shown(counted.per_round(call, n)) for n in counted.clients]
        rows.append([call + kind, *counts, fitted(counted.formula(call), counted.clients)])
    counts = [shown(counted.all(n)) for n in counted.clients]
    rows.append(["all", *counts, fitted(counted.total(), counted.clients)])
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """The first and the last column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(max(widths[0], 28))]
        cells += [text.rjust(width) for text, width in zip(row[1:-1], widths[1:-1])]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines)


def _cell(counted: Counted, kind: Iterable[str] | None) -> str:
    """The calls of a kind with their formulas; None: those of no kind."""
    parts, rare = [], []
    for call in counted.calls:
        if call in kind if kind is not None else _place(call) == 3:
            text = counted.formula(call)
            if text is None and call in counted.uneven():
                text = counted.about(call)
            elif text is None:
                text = ", ".join(shown(counted.per_round(call, n)) for n in counted.clients)
            if text == "0":
                rare.append(f"`{call}`")
            else:
                parts.append(f"`{call}`" if text == "1" else f"{text} `{call}`")
    return " + ".join(parts + (["now and then " + ", ".join(rare)] if rare else []))


def markdown(counted: Sequence[Counted], missing: Mapping[str, str], found: dict[str, str]) -> str:
    """The comparison of all of them."""
    clients = counted[0].clients
    lines = [
        "# System calls per round",
        "",
        "A round is one message and all that follows from it, the server's return to its wait "
        "included; N is the number of clients. All calls of all threads, seen by strace(1); "
        "start-up, joins and stop are outside. v1 and v2, which tell nobody, print the line; the "
        "others are silent (`--quiet`). `sendto` and `write` are both sends, as is `writev`.",
        "",
        "| server | waits | reads | sends | besides | all |",
        "|---|---|---|---|---|---|",
    ]
    for one in counted:
        total = one.total() or ", ".join(shown(one.all(n)) for n in clients)
        sends = _cell(one, SENDS)
        if one.name in SILENT:
            sends += " (the log)"
        cells = (_cell(one, WAITS), _cell(one, READS), sends, _cell(one, None), total)
        lines.append(f"| {one.name} | {' | '.join(cells)} |")
    lines += ["", f"Counted in {counted[0].rounds} rounds each with N = "]
    lines[-1] += ", ".join(map(str, clients)) + ". "
    lines[-1] += (
        "A formula holds at each of these N, to the call."
        if len(clients) > 2
        else "From fewer than three N no formula is made; the counts stand in this order."
    )
    if any(one.uneven() for one in counted):
        lines[-1] += " `~`: a mean; the number is not the same in every round."
    for one in counted:
        if one.name in NOTES:
            lines += ["", f"**{one.name}.** {NOTES[one.name]}"]
        if one.uneven():
            lines += ["", *(f"- {complaint}" for complaint in one.complaints())]
    for name, reason in missing.items():
        lines += ["", f"Not there: {name} ({reason})."]
    return "\n".join([*lines, "", full_sentence(found), ""])


def full_sentence(found: Mapping[str, str]) -> str:
    """The environment with everything in it that is not there in each result."""
    known = ("command", "date", "cpu", "cpus", "kernel", "python", *PACKAGES)
    others = [f"{name} {version}" for name, version in found.items() if name not in known]
    return ", ".join([sentence(dict(found)), *others])
