"""Inline values: one figure of the results within a sentence, with its unit.

FIGURE/WORKLOAD/SERVER    cpu_us/flood 100/epoll         a median of comparison.json, in its unit
memory_kib/SERVER         memory_kib/v4                  resident memory of an idle client
readiness_us/KIND/K       readiness_us/select/1000       one wait beside K idle descriptors
turn_us/SERVER/K          turn_us/v2/900                 a turn beside K idle clients
ratio QUANTITY QUANTITY   ratio cpu_us/flood 100/v4 cpu_us/flood 100/c      of any two of these
calls/SERVER/N            calls/v4/10                    all system calls for a message, N clients
rounds/comparison                                        how many rounds the medians are of

A ratio here is that of two medians; to_c and to_v4 are the medians of ratios within a round.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from benchmarks.compare.tables import number
from page_inputs import Inputs, PageError, evaluate

FIGURES = {
    "cpu_us": " µs",
    "to_c": "",
    "to_v4": "",
    "p50_us": " µs",
    "p99_us": " µs",
    "messages_per_send": "",
    "cpu_per_send_us": " µs",
}
"""The derived figures of comparison.json that are by workload and server, and their units."""
_NAMES = "|".join((*FIGURES, "memory_kib", "readiness_us", "turn_us"))
_RATIO = re.compile(rf"ratio ((?:{_NAMES})/.+) ((?:{_NAMES})/.+)")


def value(inputs: Inputs, expression: str) -> str:
    """The text that stands for an expression. PageError: there is no such figure."""
    if ratio := _RATIO.fullmatch(expression):
        (above, unit), (below, other) = (quantity(inputs, part) for part in ratio.groups())
        if unit != other:
            raise PageError(f"ratio of{unit or ' a number'} and{other or ' a number'}")
        if not below:
            raise PageError(f"{ratio[2]} is 0")
        return number(above / below)
    name, *rest = expression.split("/")
    if name == "calls" and len(rest) == 2 and rest[1].isdecimal():
        return calls(inputs, *rest)
    if expression == "rounds/comparison":
        return str(inputs.comparison["parameters"]["rounds"])
    found, unit = quantity(inputs, expression)
    return f"{number(found)}{unit}"


def quantity(inputs: Inputs, expression: str) -> tuple[float, str]:
    """A figure of comparison.json, and its unit with the space before it."""
    name, *keys = expression.split("/")
    derived = inputs.comparison["derived"]
    if name in FIGURES and len(keys) == 2:
        return float(at(derived[name], expression, *keys)["median"]), FIGURES[name]
    if name == "memory_kib" and len(keys) == 1:
        return float(at(derived[name], expression, *keys)), " KiB"
    if name in ("readiness_us", "turn_us") and len(keys) == 2:
        return float(at(derived[name], expression, *keys)["median"]), " µs"
    raise PageError(f"value: not an expression: {expression!r}")


def at(found: Mapping[str, Any], expression: str, *keys: str) -> Any:
    for key in keys:
        if key not in found:
            raise PageError(f"{expression}: there is no {key!r}, only {', '.join(found)}")
        found = found[key]
    return found


def calls(inputs: Inputs, server: str, clients: str) -> str:
    """By the formula where there is one, else as counted with so many clients: "~12.2"."""
    found = at(inputs.syscalls["servers"], f"calls/{server}/{clients}", server)
    if found["all"]:
        return str(evaluate(found["all"], int(clients)))
    counted = at(found["per_round"], f"calls/{server}/{clients}", clients)
    return f"~{number(sum(counted.values()))}"
