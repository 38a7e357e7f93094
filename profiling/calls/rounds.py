"""What of a traced round is the same in every run of it: that is what rounds.json keeps.

Descriptors are, as each is the lowest that is free. Made the same are the ports of the clients, and
the order of deliveries where a server keeps its clients in a set, whose order is that of addresses
in memory. Dropped are the half of an event that nobody has written, and, of Python's own library,
the numbers of the lines, which differ from one patch release to the next.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.harness.strace import SENDS

FIRST_PORT = 50_000
"""Before the ports that stand for those of the clients: 50001 is client 1's."""
_UNWRITTEN = re.compile(r"\{(u32=\d+), u64=\d+\}")
_NAME = re.compile(r"(\('127\.0\.0\.1', )(\d+)(?=\))")

Row = dict[str, Any]


def steady(rows: Iterable[Row], ports: Mapping[str, int]) -> list[Row]:
    """The calls of a round, {"call", "text", "lines", "why"}, without what chance has put there.

    ports: the number of the client behind each.
    """

    def port(match: re.Match[str]) -> str:
        client = ports.get(match[2])
        return f"{match[1]}{FIRST_PORT + client if client else match[2]}"

    rows = [{**row, "text": _UNWRITTEN.sub(r"{\1}", _NAME.sub(port, row["text"]))} for row in rows]
    ordered: list[Row] = []
    for (call, _), group in itertools.groupby(rows, key=lambda row: (row["call"], row["lines"])):
        sends = list(group)
        ordered += sorted(sends, key=_client) if call in (*SENDS, "IORING_OP_SEND") else sends
    return ordered


def _client(row: Row) -> tuple[int, str]:
    """By the number that the purpose ends with."""
    return len(row["why"]), row["why"]
