"""The blocks of v5's page: its options, commands and metrics, and what its features cost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields

from benchmarks.compare import figures
from benchmarks.compare.figures import cell
from benchmarks.harness.roster import LINE_PEERS, PEERS
from benchmarks.harness.server import BROWSERS, TLS
from benchmarks.harness.tables import table
from stages.course.blocks import FLOODS, block, code, results, sources, spread

FEATURE_LOADS = ("lock-step 100", *FLOODS, "python-flood 10")
FEATURES = {
    "names, rooms, commands": ("v5", "uvloop-protocol --coalesce"),
    "history in a file": ("v5 --db FILE", "v5"),
    "the rate limit": ("v5 --rate 1e6", "v5"),
    "TLS": (TLS, "v5"),
    "asyncio's own loop instead of uvloop": ("v5 --loop asyncio", "v5"),
    "browsers instead of lines": (BROWSERS, "v5"),
}
BROWSER_LOADS = FLOODS[1:]
"""Of v5: the server that has it, and the one beside it."""


def options() -> str:
    """What the operator of v5 may choose."""
    from sock_chat.config import Config

    rows = [["option", "default", "meaning"]]
    for option in fields(Config):
        name, value = f"--{option.name.replace('_', '-')}", option.default
        metavar = option.metadata["metavar"] or option.name.upper()
        if option.metadata["choices"]:
            metavar = "\\|".join(option.metadata["choices"])
        switch = value is False
        meaning = re.sub(r" \([^()]*\)$", "", option.metadata["help"] % {"default": ""})
        default = "" if switch or value in (None, (), "") else f"`{value}`"
        rows.append([f"`{name}`" if switch else f"`{name} {metavar}`", default, meaning])
    return block(table(rows, numbers=False))


def commands() -> str:
    """What /help of v5 says, and where each command may be given."""
    from sock_chat import commands as commands  # it fills the table
    from sock_chat.table import TABLE

    rows = [["command", "`/help` says", "where"]]
    for command in TABLE.values():
        where = "at the door, too" if command.at_door else ""
        rows.append(
            [code(command.usage), command.help, where or "operators" * command.for_operators]
        )
    return block(table(rows, numbers=False))


def metrics() -> str:
    """What Prometheus gets of v5."""
    from sock_chat.metrics import METRICS, PREFIX

    rows = [["metric", "type", "meaning"]]
    for entry in METRICS:
        values = [each.name.lower() for each in entry.values]
        label = f"{{{entry.label}}}" if values else ""
        by = f" {entry.label}: {', '.join(values)}." if values else ""
        rows.append([f"`{PREFIX}{entry.name}{label}`", entry.type, entry.help + by])
    return block(table(rows, numbers=False))


def features() -> str:
    """What each feature of v5 costs: the server that has it over the same one without it."""
    rows = _ratios("feature", FEATURES, FEATURE_LOADS)
    note = (
        "CPU time per delivery, a ratio of two servers in the same round. python-flood: the load "
        "is in Python, since flood.c speaks no TLS, and keeps the server waiting. KiB: memory of "
        "an idle client of the first of the two."
    )
    return block(table(rows, numbers=False), note, sources("comparison"))


def browsers() -> str:
    """What those cost from whom one might take the WebSocket, over v5 with browsers."""
    peers = {peer.about: (name, BROWSERS) for name, peer in PEERS.items() if name not in LINE_PEERS}
    rows = _ratios("what it is", peers, BROWSER_LOADS)
    return block(table(rows, numbers=False), sources("comparison"))


def _ratios(
    corner: str, pairs: Mapping[str, tuple[str, str]], loads: Sequence[str]
) -> list[list[str]]:
    """A row for each pair, of which the first has the memory."""
    rows = [[corner, "servers", *loads, "KiB"]]
    for title, (server, reference) in pairs.items():
        costs = [_over(load, server, reference) for load in loads]
        costs.append(spread("memory_kib", "memory", server, 2))
        if set(costs) == {"-"}:
            costs[0] = "not measured"
        rows.append([title, f"`{server}` over `{reference}`", *costs])
    return rows


def _over(workload: str, server: str, reference: str) -> str:
    """The cell of a ratio."""
    try:
        values = figures.ratio(
            results("comparison"), "cpu_us", (workload, server), (workload, reference)
        )
    except ValueError:
        return "-"
    return cell(values, results("comparison")["parameters"]["rounds"])
