"""Proofs: what the claims of a page rest on.

A claim is proven where it stands: in its paragraph, its item of a list, its row of a table (or in
the head of that), its field of a docstring. Something that is named there has to have each of its
numbers:
- a constant of the servers, if it is the same in all that have it: `MAX_LINE`;
- a test, `tests/file.py::test_name`: in its code, its strings or a constant that it uses, not in
  its docstring or a message; in the base unit (bytes, s, a share of 1), or in the claim's own if
  the test speaks of that;
- results, `benchmarks/results/*.md` or `profiling/results/*.md`, rounded to the decimals given: in
  a section that speaks of the unit (but for a ratio), and there in the text, or in that row of a
  table whose name stands beside the claim, too;
- the contract, `stages/README.md`: as a limit, in the same unit;
- for counts of calls, `tests/contract/test_syscalls.py` or `profiling/results/syscalls.md`, which
  test_pages.py holds together: for a server that is named, too, or else for one that the page is
  about. A docstring is always about its own, and need not name the test.
The contract's own limits are constants, or CONTRACT of test_claims.py names the test for them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property, lru_cache
from math import isclose
from pathlib import Path

from benchmarks.harness.strace import READS, SAME, SENDS, WAITS
from tests.text.claims import DIGITS, Claim, claims, number

Counts = Mapping[str, int]
CALLS = {"wait": WAITS, "receive": READS, "read": READS, "send": SENDS, "write": SENDS}
COUNTED = ("tests/contract/test_syscalls.py", "profiling/results/syscalls.md")
REACTORS = ("selectors", "epoll", "epoll-et", "uvloop")
SUMS = (ast.Constant, ast.Name, ast.Load, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop)


def digits_in(text: str) -> list[str]:
    return re.findall(rf"(?<![\w.:/]){DIGITS}(?!\w)", text)


def names_in(text: str) -> set[str]:
    """The servers and the like that are named: as code, or where the name is no word."""
    return {*re.findall(r"`([^`]+)`", text), *re.findall(r"\b(?:v\d|uvloop|epoll-et)\b", text)}


def speaks_of(text: str, unit: str) -> bool:
    return bool(re.search(rf"(?i)(?<![a-zµ']){re.escape(unit)}(?:e?s)?(?![a-z])", text))


# The numbers in code.


def evaluated(node: ast.AST, known: Mapping[str, float]) -> float | None:
    """What an expression of numbers, and of names for numbers, comes to."""
    if isinstance(node, ast.expr) and all(isinstance(part, SUMS) for part in ast.walk(node)):
        with suppress(NameError, TypeError, ArithmeticError):
            value = eval(compile(ast.Expression(node), "", "eval"), {}, dict(known))
            if type(value) in (int, float):
                return float(value)
    return None


@lru_cache(maxsize=None)
def constants(root: Path, path: Path) -> dict[str, float]:
    """The names of a module that stand for numbers, with those that it imports."""
    found: dict[str, float] = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            other = root / f"{node.module.replace('.', '/')}.py"
            found.update(constants(root, other) if other.is_file() else {})
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = evaluated(node.value, found)
            if value is not None:
                found[node.targets[0].id] = value
    return found


def numbers_in(node: ast.AST, known: Mapping[str, float]) -> Iterator[float]:
    """The numbers that code works with: not those of its docstrings, messages and indices."""
    value = evaluated(node, known)
    if value is not None:
        yield value  # 128 << 10, and neither 128 nor 10
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from map(number, digits_in(node.value))
    elif isinstance(node, ast.Assert):
        yield from numbers_in(node.test, known)
    elif isinstance(node, ast.Subscript):
        yield from numbers_in(node.value, known)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    elif not isinstance(node, ast.keyword) or node.arg != "reason":
        for child in ast.iter_child_nodes(node):
            yield from numbers_in(child, known)


@lru_cache(maxsize=None)
def tested(root: Path, path: Path, test: str) -> tuple[str, frozenset[float]]:
    """The source of a test, and the numbers that it works with; nothing if there is none."""
    text = path.read_text() if path.is_file() else ""
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == test:
            source = ast.get_source_segment(text, node) or ""
            return source, frozenset(numbers_in(node, constants(root, path)))
    return "", frozenset()


# The counts of system calls.


def counted(counts: Counts, call: str) -> set[int]:
    """How many of these calls there are; of a formula without a call, what it may be about."""
    call = {"recv": "recvfrom", **SAME}.get(call, call)
    if call in counts:
        return {counts[call]}
    if call in CALLS:
        return {sum(counts.get(name, 0) for name in CALLS[call])}
    total = sum(counts.values())
    return {"": {total, *counts.values()}, "call": {total}, "syscall": {total}}.get(call, set())


def count_at(text: str, clients: int) -> float:
    """`2 (N - 1)` for so many clients and one message."""
    if "N" not in text:
        return number(text)
    product = re.sub(r"(?<=[\dM])\s?[·*\u00d7]?\s?(?=[(N])", "*", text)
    return float(eval(f"({product})", {"N": clients, "M": 1}))


def same(one: float, other: float) -> bool:
    return isclose(one, other, rel_tol=1e-9)


def in_results(text: str, claim: Claim, one: str) -> bool:
    """Whether a file of results has a number of a claim."""
    half = 0.5 * 10.0 ** -len(one.partition(".")[2]) + 1e-9
    named = names_in(claim.block.text)
    for section in re.split(r"(?m)^(?=#)", text):
        if claim.dimension == "ratio" or speaks_of(section, claim.unit):
            for line in section.splitlines():
                row = re.match(r"\| *`?([^|`]+?)`? *\|", line)
                if (not row or row[1] in named) and " UTC, " not in line:  # where, when, with what
                    given = map(number, digits_in(line))
                    if any(abs(value - number(one)) <= half for value in given):
                        return True
    return False


class Proofs:
    """What a repository proves.

    expected: the counts that tests/contract/test_syscalls.py holds, for so many clients.
    held: a snippet of the contract -> the test that holds the servers to it.
    exceptions: a snippet of a page -> why it claims nothing about this project.
    used: what of the latter two was needed.
    """

    def __init__(
        self,
        root: Path,
        expected: Mapping[str, Callable[[int], Counts]],
        held: Mapping[str, str],
        exceptions: Mapping[str, str],
    ) -> None:
        self.root = root
        self.expected = expected
        self.held = held
        self.exceptions = exceptions
        self.used: set[str] = set()
        self.contract = root / "stages" / "README.md"

    @cached_property
    def limits(self) -> dict[str, set[float]]:
        """For each dimension the numbers that the contract names, in its base unit."""
        found: dict[str, set[float]] = {}
        for claim in claims(self.contract, self.contract.read_text()):
            values = {number(one) * claim.size for one in claim.numbers if "N" not in one}
            found.setdefault(claim.dimension, set()).update(values)
        return found

    @cached_property
    def constants(self) -> dict[str, set[float]]:
        """For each constant of the servers the values that it has there."""
        found: dict[str, set[float]] = {}
        for path in (*self.root.glob("stages/v*/server.py"), *self.root.glob("lowlevel/*.py")):
            for name, value in constants(self.root, path).items():
                found.setdefault(name, set()).add(value)
        return found

    def about(self, claim: Claim, snippets: Iterable[str]) -> list[str]:
        """Those of the snippets in which a claim stands."""
        said = " ".join(claim.block.text.split())
        found = [snippet for snippet in snippets if snippet in said and claim.text in snippet]
        self.used.update(found)
        return found

    def references(self, page: Path, claim: Claim) -> Iterator[tuple[str, Path, str]]:
        """The files that are named beside a claim, and the test in each, if one is named."""
        named = [claim.block.head, claim.block.text]
        if page == self.contract:
            named += [self.held[snippet] for snippet in self.about(claim, self.held)]
        for name, test in re.findall(r"([\w./-]+\.(?:py|md))(?:::(\w+))?", " ".join(named)):
            beside, in_root = ((folder / name).resolve() for folder in (page.parent, self.root))
            yield name, beside if beside.is_file() else in_root, test

    def servers(self, page: Path, claim: Claim) -> list[str]:
        """Those that a claim is about."""
        own = {page.parent.name, *(REACTORS if page.parent.name == "lowlevel" else ())}
        named = own if page.suffix == ".py" else names_in(claim.block.text)
        for those in (named, own, self.expected):
            if found := [server for server in self.expected if server in those]:
                return found
        return []

    # What is named beside a claim, and whether it has one of the claim's numbers.

    def in_calls(self, page: Path, claim: Claim, one: str) -> Iterator[tuple[str, bool]]:
        held = {self.root / name for name in COUNTED}
        if page.suffix == ".py" or any(path in held for _, path, _ in self.references(page, claim)):
            for server in self.servers(page, claim):
                few, many = (counted(self.expected[server](n), claim.unit) for n in (2, 10))
                if few:
                    yield f"{server}'s calls", count_at(one, 2) in few and count_at(one, 10) in many

    def in_constants(self, claim: Claim, one: str) -> Iterator[tuple[str, bool]]:
        words = set(re.findall(r"\w+", claim.block.head + claim.block.text))
        for name in {claim.unit} & self.constants.keys() or words & self.constants.keys():
            values = sorted(self.constants[name])
            told = f"{name} ({' or '.join(f'{value:g}' for value in values)})"
            yield told, len(values) == 1 and same(number(one) * claim.size, *values)

    def in_files(self, page: Path, claim: Claim, one: str) -> Iterator[tuple[str, bool]]:
        value = number(one) * claim.size
        for name, path, test in self.references(page, claim):
            if path == self.contract != page:
                limits = self.limits.get(claim.dimension, ())
                yield name, any(same(value, limit) for limit in limits)
            elif test:
                source, given = tested(self.root, path, test)
                meant = {value, number(one) if speaks_of(source, claim.unit) else value}
                yield f"{name}::{test}", any(same(this, that) for this in meant for that in given)
            elif path.parent.name == "results" and path.is_file():
                yield name, in_results(path.read_text(), claim, one)

    def unproven(self, page: Path, text: str) -> list[str]:
        """What a page claims and nothing proves, told so that its author can mend it."""
        found = []
        for claim in claims(page, text):
            if self.about(claim, self.exceptions):
                continue
            for one in claim.numbers:
                looked_at = dict(self.in_calls(page, claim, one))
                if "N" not in one:
                    looked_at.update(self.in_constants(claim, one))
                    looked_at.update(self.in_files(page, claim, one))
                if not any(looked_at.values()):
                    place = f"{page.relative_to(self.root)}:{claim.line}: {claim.text!r}"
                    names = ", ".join(sorted(looked_at)) or "it: nothing is named that could"
                    found.append(f"{place}: {one} does not stand in {names}")
        return found
