"""What the pages are made of: result files, sources, and the means to name both in a page.

Nothing here measures. What is read is read once, so that all pages of a run stand on the same
bytes, and what cannot be read or does not have what is asked for is a PageError.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare import tables
from benchmarks.harness.environment import ROOT, sentence

FILES = {
    "comparison": "benchmarks/results/comparison.json",
    "syscalls": "profiling/results/syscalls.json",
    "rounds": "profiling/results/rounds.json",
}
SHOWN = {**FILES, "comparison": "benchmarks/results/comparison.md"}
SHOWN["syscalls"] = "profiling/results/syscalls.md"
"""Where a reader finds the results of a file."""

_SLOPE = re.compile(r"(?:(\d+) )?(?:(\(N - 1\))|N(?: ([+-]) (\d+))?)")

Results = dict[str, Any]


class PageError(Exception):
    """A page cannot be made; the text says why, in one line."""


class Inputs:
    """The results and the sources below `root`."""

    def __init__(self, root: Path = ROOT):
        self.root = root
        self._texts: dict[str, str] = {}

    def text(self, path: str) -> str:
        """A file by its path from the root."""
        if path not in self._texts:
            try:
                self._texts[path] = (self.root / path).read_text("utf-8")
            except OSError as error:
                raise PageError(f"{path}: {error.strerror}") from None
            except UnicodeDecodeError:
                raise PageError(f"{path}: not UTF-8") from None
        return self._texts[path]

    @functools.cached_property
    def comparison(self) -> Results:
        """comparison.json, with the figures that its tables show under "derived"."""
        try:
            found = tables.load(self.root / FILES["comparison"])
        except tables.ResultsError as error:
            raise PageError(str(error).replace(f"{self.root}{os.sep}", "")) from None
        return whole("comparison", found)

    @functools.cached_property
    def syscalls(self) -> Results:
        return whole("syscalls", self._json("syscalls"))

    @functools.cached_property
    def rounds(self) -> Results:
        return whole("rounds", self._json("rounds"))

    def _json(self, name: str) -> Any:
        try:
            return json.loads(self.text(FILES[name]))
        except ValueError as error:
            raise PageError(f"{FILES[name]}: not JSON: {error}") from None


PARTS: dict[str, Callable[[Any], object]] = {
    "comparison": lambda found: [
        found["parameters"][key] for key in ("rounds", "descriptors", "readiness_limits")
    ],
    "syscalls": lambda found: [
        server[key]
        for server in found["servers"].values()
        for key in ("per_round", "formula", "all")
    ],
    "rounds": lambda found: [
        (found["clients"], call[key])
        for calls in found["servers"].values()
        for call in calls
        for key in ("call", "text", "lines", "why")
    ],
}
"""What a page relies on, looked at."""


def whole(name: str, found: Any) -> Results:
    """These results. PageError: something of them is not there."""
    try:
        sentence(found["environment"])
        PARTS[name](found)
    except (AttributeError, KeyError, TypeError) as error:
        raise PageError(f"{FILES[name]}: not whole: {type(error).__name__}: {error}") from None
    return dict(found)


class Page:
    """A page while it is made: where it is, and what it is made of."""

    def __init__(self, path: Path, inputs: Inputs):
        self.path = path
        self.inputs = inputs

    def relative(self, target: str) -> str:
        """The address, in this page, of a file named from the root."""
        return Path(os.path.relpath(self.inputs.root / target, self.path.parent)).as_posix()

    def link(self, text: str, target: str, line: int | None = None) -> str:
        if not (self.inputs.root / target).exists():
            raise PageError(f"{target} is not there")
        return f"[{text}]({self.relative(target)}{f'#L{line}' if line else ''})"

    def sources(self, *names: str) -> str:
        """The foot of a block: what made the results it shows, when, and on what. The versions of
        packages stand in the results themselves."""
        parts = []
        for name in names:
            found = getattr(self.inputs, name)["environment"]
            told = "`{command}`, {date}, {cpus} x {cpu}, {kernel}, {python}".format(**found)
            parts.append(f"{self.link(Path(SHOWN[name]).name, SHOWN[name])}: {told}")
        return f"<sub>{'<br>'.join(parts)}</sub>"


def known(name: str, servers: Sequence[str], what: str) -> None:
    if name not in servers:
        raise PageError(f"{what} {name!r}: none of {', '.join(servers)}")


def table(rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    """The first row is the head. numbers: all but the first column to the right."""
    head, *body = rows
    rule = ["---", *(["---:" if numbers else "---"] * (len(head) - 1))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])


def code(text: str) -> str:
    """Text between backquotes, fit for the cell of a table."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}".replace("|", "\\|") if text else ""


def evaluate(formula: str, clients: int) -> int:
    """The value of a formula of syscalls.json, "2 (N - 1)", with so many clients."""
    if formula.isdecimal():
        return int(formula)
    match = _SLOPE.fullmatch(formula)
    if not match:
        raise PageError(f"not a formula of syscalls.py: {formula!r}")
    factor, less_one, sign, offset = match.groups()
    value = int(factor or 1) * (clients - 1 if less_one else clients)
    return value + int((sign or "+") + (offset or "0"))
