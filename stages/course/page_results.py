"""The blocks of the pages that are made of results: what was measured, as tables.

Each is a function of the page and of the words behind its name in the marker, and ends with what
its results were measured on. Whatever the results do not have is "-" in a table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.compare.tables import PICTURES, cell, number
from benchmarks.harness.server import BROADCASTING
from calls.rounds import FIRST_PORT
from page_code import SERVERS
from page_inputs import Page, PageError, code, known, table
from page_source import line_of

PER_SEND = "cpu_per_send_us"
FLOODS = ("flood 10", "flood 100", "flood 1000")
LOADS = ("lock-step 10", "lock-step 100", "flood 100")
PICTURED = ("v3", "v4", "uvloop", "epoll --flush message", "epoll", "c", "go", "node --cork")
COALESCING = (
    *("v4", "uvloop", "epoll --flush message", "epoll", "c --flush message", "c"),
    *("uvloop-protocol --coalesce", "go"),
)
_OURS = re.compile(r"(\S+\.py):(\d+)")


def calls_per_message(page: Page, server: str) -> str:
    """ "1 `select` + 1 `recvfrom` + (N - 1) `sendto`" """
    found = page.inputs.syscalls["servers"].get(server)
    if not found:
        return "-"
    parts = []
    for call, formula in found["formula"].items():
        shown = formula or "?"
        shown = f"({shown})" if " - " in shown and "(" not in shown else shown
        parts.append(f"{shown} `{call}`")
    text = " + ".join(parts)
    return f"{text} to the log" if server in ("v1", "v2") else text


def idle_in_turn(page: Page, server: str) -> str:
    """The CPU time that an idle client adds to each turn: the slope between the fewest and the
    most that were measured, if what was measured beside these and beside those does not overlap."""
    found = page.inputs.comparison["derived"]["turn_us"].get(server, {})
    counts = sorted(map(int, found))
    if len(counts) < 2:
        return "-"
    low, high = (found[str(count)] for count in (counts[0], counts[-1]))
    if low["max"] >= high["min"]:
        return "nothing of a turn"
    slope = (high["median"] - low["median"]) / (counts[-1] - counts[0])
    return f"{number(slope)} µs of each turn"


def memory(page: Page, server: str) -> str:
    kib = page.inputs.comparison["derived"]["memory_kib"].get(server)
    return "-" if kib is None else f"{number(kib)} KiB"


def figure(page: Page, name: str, workload: str, server: str) -> Mapping[str, float] | None:
    found: Any = page.inputs.comparison["derived"][name].get(workload, {}).get(server)
    return found or None


def spread(page: Page, name: str, workload: str, server: str) -> str:
    """The cell of comparison.md."""
    found = figure(page, name, workload, server)
    rounds = page.inputs.comparison["parameters"]["rounds"]
    return cell(dict(found), rounds) if found else "-"


def servers(page: Page) -> str:
    """All of ours: who waits, and what that costs."""
    rows = [
        (
            *("server", "who waits, for what", "system calls per message, N clients"),
            *("an idle client costs", "breaks at"),
        )
    ]
    for name, about in SERVERS.items():
        rows.append(
            (
                f"{page.link(name, about.file)} {about.model}".strip(),
                about.waits,
                calls_per_message(page, name),
                f"{memory(page, name)}; {idle_in_turn(page, name)}",
                page.link(about.limit, about.tests, line_of(page.inputs, about.tests, about.test)),
            )
        )
    note = (
        "From v3 on the calls are counted with `--quiet`: else the log costs one `write` more. "
        "uvloop's `epoll_wait` is epoll_pwait(2). An idle client costs memory, the server's "
        "without the kernel's, and what it adds to the CPU time of each turn."
    )
    return f"{table(rows)}\n\n{note}\n\n{page.sources('syscalls', 'comparison')}"


def picture(page: Page) -> str:
    """The chart, what it was measured on, and its figures for a few of the servers."""
    name = "cpu-per-delivery.svg"
    rows = [["server", *(f"{flood}, µs" for flood in FLOODS), "messages per send"]]
    for server in PICTURED:
        costs = [figure(page, "cpu_us", workload, server) for workload in FLOODS]
        if any(costs):
            cells = [number(one["median"]) if one else "-" for one in costs]
            rows.append([f"`{server}`", *cells, medians(page, "messages_per_send", server)])
    return "\n\n".join(
        [
            f"!{page.link(PICTURES[name], f'benchmarks/results/{name}')}",
            table(rows, numbers=True),
            "CPU time of the server per delivery; messages per send with 10, 100 and 1000 clients. "
            f"Medians of {page.inputs.comparison['parameters']['rounds']} rounds.",
            page.sources("comparison"),
        ]
    )


def cost(page: Page, server: str, previous: str = "") -> str:
    """What a message and an idle client cost this server, and the one before it."""
    names = [server, previous] if previous else [server]
    for name in names:
        known(name, tuple(SERVERS), "server")
    rows = [("", *(f"`{name}`" for name in names))]

    def add(title: str, cells: Sequence[str]) -> None:
        rows.append((title, *cells))

    add("system calls per message", [calls_per_message(page, name) for name in names])
    for workload in LOADS:
        cells = [spread(page, "cpu_us", workload, name) for name in names]
        if set(cells) != {"-"}:
            add(f"CPU time per delivery, {workload}, µs", cells)
    turns = page.inputs.comparison["derived"]["turn_us"]
    rounds = page.inputs.comparison["parameters"]["rounds"]
    for idle in page.inputs.comparison["parameters"].get("beside", []):
        found = [turns.get(name, {}).get(str(idle)) for name in names]
        cells = [cell(dict(one), rounds) if one else "-" for one in found]
        add(f"CPU time of a turn beside {idle} idle clients, µs", cells)
    add("an idle client, resident memory", [memory(page, name) for name in names])
    add("an idle client, CPU time", [idle_in_turn(page, name) for name in names])
    return f"{table(rows)}\n\n{page.sources('syscalls', 'comparison')}"


def coalescing(page: Page) -> str:
    """What a delivery costs, how many share a send, and what a send costs."""
    rows = [["server", *FLOODS, "messages per send", "µs per send"]]
    for server in COALESCING:
        cells = [spread(page, "cpu_us", workload, server) for workload in FLOODS]
        if set(cells) != {"-"}:
            cells += [medians(page, name, server) for name in ("messages_per_send", PER_SEND)]
            rows.append([f"`{server}`", *cells])
    note = (
        "CPU time of the server per delivery, µs, with the number of clients that the flood is "
        "named after; in the last two columns the medians of the three floods."
    )
    return f"{table(rows, numbers=True)}\n\n{note}\n\n{page.sources('comparison')}"


def medians(page: Page, name: str, server: str) -> str:
    """Of a figure in each flood: "1.00, 1.00, 1.00"."""
    found = (figure(page, name, workload, server) for workload in FLOODS)
    return ", ".join(number(one["median"]) if one else "-" for one in found)


def readiness(page: Page) -> str:
    """One wait against the number of idle descriptors."""
    comparison = page.inputs.comparison
    parameters = comparison["parameters"]
    counts = [str(count) for count in parameters["descriptors"]]
    rows = [("CPU time of one wait, µs", *(f"K = {count}" for count in counts))]
    for kind, found in comparison["derived"]["readiness_us"].items():
        limits = parameters["readiness_limits"].get(kind, {})
        rows.append(
            (
                f"`{kind}`",
                *(
                    cell(found[count], parameters["rounds"])
                    if count in found
                    else limits.get(count, "-")
                    for count in counts
                ),
            )
        )
    note = "One descriptor is ready, K others are idle."
    return f"{table(rows, numbers=True)}\n\n{note}\n\n{page.sources('comparison')}"


def round_of(page: Page, server: str) -> str:
    """One message among a few clients, call by call."""
    found = page.inputs.rounds
    known(server, tuple(found["servers"]), "server")
    rows = [("", "system call", "source line", "what for")]

    def place(text: str) -> str:
        def linked(match: re.Match[str]) -> str:
            name = match[1].rpartition("/")[2]
            return page.link(f"{name}:{match[2]}", match[1], int(match[2]))

        return _OURS.sub(linked, text)

    for count, step in enumerate(found["servers"][server], 1):
        lines = [f"{place(where)} {code(text)}".strip() for where, text in step["lines"]]
        rows.append((str(count), code(step["text"]), "<br>".join(lines), step["why"]))
    if len(rows) == 1:
        raise PageError(f"there is no call of {server} in the results")
    note = f"One message among {found['clients']} clients. {FIRST_PORT + 1} stands for the port of "
    note += "client 1, whatever it was."
    if server in BROADCASTING:
        note += " The server was `--quiet`: else there is one `write` more, the log."
    return f"{table(rows)}\n\n{note}\n\n{page.sources('rounds')}"


BLOCKS: dict[str, Callable[..., str]] = {
    "servers": servers,
    "picture": picture,
    "cost": cost,
    "coalescing": coalescing,
    "readiness": readiness,
    "round": round_of,
}
