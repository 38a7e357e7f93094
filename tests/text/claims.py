"""Claims: the numbers in the prose of a page. tests/text/proofs.py looks for what they rest on.

Prose is what somebody has written by hand. Left out are what is generated (from `<!-- begin: -->`
or `<!-- value: -->` to `<!-- end -->`), blocks of code and comments; of a module, all but the
docstring at its top.

A claim is
- a number with a unit of time, bytes or share, or with `times`: 64 KiB, 15 %, ten times;
- a number of what is counted here, NOUNS and CALLS below, with up to two words between: 500 idle
  clients, two of its threads, 2 `epoll_wait`;
- a formula in N, with its calls or without: (N-1) `sendto`, M (N - 1) sends, N + 1;
- a number beside the name of a constant: 16 (`RESERVE`); `descriptor 1024`, `limit of 1024`;
- `twice`, `half the`, `a third of`: RATIOS below.
A number is digits, or a word from two on. A part of a name is none: `v3`, `UTF-8`, `epoll(7)`,
127.0.0.1. Of a range or a list each number is claimed. In a table a cell of nothing but numbers
has the unit that the head of its column names.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MEASURES = {
    # A unit -> its dimension, and its size in the base unit of that.
    unit: (dimension, size)
    for units, dimension, size in (
        ("s, second, seconds", "s", 1.0),
        ("ms, millisecond, milliseconds", "s", 1e-3),
        ("µs, μs, microsecond, microseconds", "s", 1e-6),
        ("ns, nanosecond, nanoseconds", "s", 1e-9),
        ("minute, minutes", "s", 60.0),
        ("hour, hours", "s", 3600.0),
        ("byte, bytes", "byte", 1.0),
        ("kB, KB", "byte", 1e3),
        ("MB", "byte", 1e6),
        ("GB", "byte", 1e9),
        ("KiB", "byte", 2.0**10),
        ("MiB", "byte", 2.0**20),
        ("GiB", "byte", 2.0**30),
        ("%, percent, per cent", "share", 0.01),
        ("times, x, \u00d7", "ratio", 1.0),
    )
    for unit in units.split(", ")
}
NOUNS = (
    "call|syscall|send|receive|wait|read|write|accept|connect|wakeup|turn|round|client|connection|"
    "newcomer|sender|reader|thread|process|core|CPU|task|coroutine|descriptor|socket|message|line|"
    "segment|packet|event|switch|bit|test|delivery|deliveries|copy|copies"
)
CALLS = (
    "epoll_wait|epoll_pwait|epoll_ctl|select|poll|recv|recvfrom|sendto|sendall|close|shutdown|mmap|"
    "munmap|mremap|futex|getpid|getsockopt"
)
RATIOS = {
    # What it says -> the number of times.
    "twice": "2",
    "double": "2",
    "half": "0.5",
    "halve": "0.5",
    "a third": "0.33",
    "a quarter": "0.25",
    "a tenth": "0.1",
}
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
TENS = "ten twenty thirty forty fifty sixty seventy eighty ninety"
MULTIPLES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 1_000_000}
WORDS = {
    **{word: value for value, word in enumerate(ONES.split())},
    **{word: 10 * value for value, word in enumerate(TENS.split(), 1)},
}

DIGITS = r"\d+(?:,\d{3})*(?:\.\d+)?"
_WORD = rf"(?:{'|'.join({*WORDS, *MULTIPLES} - {'zero', 'one'})})"
NUMBER = rf"(?:{DIGITS}|(?i:\b{_WORD}(?:[ -](?:one|{_WORD}))*\b))"
_BEGIN = r"(?<![\w.:/#=$+\\-])(?<![\w\]]\()"  # not within a name, nor where a link leads
_NUMBERS = rf"{_BEGIN}{NUMBER}(?:\s*(?:[-\u2013,]|,?\s(?:and|or)\s|\sto\s)\s*{NUMBER})*"
_FACTOR = r"(?:\d+|M)\s?[·*\u00d7]?\s?"
_FORMULA = rf"(?<![\w.])(?:(?:{_FACTOR})?(?:\(N\s?[-+]\s?\d+\)|N\s?[-+]\s?\d+)|{_FACTOR}N\b)"
_NAME = r"(?:`[A-Z][A-Z0-9_]+`|[A-Z]+_[A-Z0-9_]+)"
_MEASURE = rf"(?P<measure>{'|'.join(map(re.escape, MEASURES))})(?!\w)"
_NOUN = rf"(?P<noun>{NOUNS}|{CALLS})(?:e?s)?(?:\(\))?(?![\w(])"
_NO_ADJECTIVE = r"(?:and|or|but|to|in|a|for|with|than|as|on|by|that|which|who|is|are|it|each)\b"
_BETWEEN = rf"(?:(?!{_NO_ADJECTIVE})[a-z][a-z-]*\s+){{0,2}}?"

_LINK = r"(?:,|\s+(?:is|=|of|from|at|above|below))?\s+[`(]?"
CLAIM = re.compile(
    rf"""(?: (?P<before>\bdescriptor|\blimit|{_NAME})s?{_LINK} )?
        (?: (?P<formula>{_FORMULA}) | (?P<numbers>{_NUMBERS}) )
        (?: [`*]*(?:\s+|-)?{_MEASURE}
        | [`*]*(?:\s+|-)[`*]*{_BETWEEN}`?{_NOUN}
        | (?:\s+[a-z]+){{0,2}}\s+\((?P<after>{_NAME})\)
        | (?(before)|(?(formula)|(?!))) )  # or nothing, if one of these is there
    | (?i:\b(?P<ratio>twice|double|halve|half(?=\s+(?:of|the|as|its|a\s+second)\b)
        |a\s+(?:third|quarter|tenth)(?=\s+of\b))[sd]?\b)""",
    re.VERBOSE,
)
HEAD = re.compile(rf"{_MEASURE}|\b{_NOUN}")


@dataclass(frozen=True)
class Block:
    """A paragraph, an item of a list, a row of a table, or a field of a docstring.

    head: that of the table.
    """

    start: int
    text: str
    head: str = ""


@dataclass(frozen=True)
class Claim:
    """numbers: as they are written, or one formula; unit: one of MEASURES, or what is counted, or
    the name of a constant, or nothing."""

    text: str
    line: int
    block: Block
    numbers: tuple[str, ...]
    unit: str

    @property
    def dimension(self) -> str:
        return MEASURES.get(self.unit, (self.unit,))[0]

    @property
    def size(self) -> float:
        return MEASURES.get(self.unit, ("", 1.0))[1]


def number(text: str) -> float:
    """The value of what NUMBER has found."""
    if text[0].isdigit():
        return float(text.replace(",", ""))
    total = 0
    for word in re.split("[ -]", text.lower()):
        total = (total or 1) * MULTIPLES[word] if word in MULTIPLES else total + WORDS[word]
    return total


def prose(path: Path, text: str) -> str:
    """The text, with dots for what is not searched for claims, each line where it was."""
    if path.suffix == ".py":
        module = ast.parse(text)
        return "\n" * (module.body[0].lineno - 1) + (ast.get_docstring(module, clean=False) or "")
    for left_out in (
        r"^ *<!-- begin: .*?^ *<!-- end -->",
        r"^ *```.*?^ *```",
        r"<!-- value: .*?<!-- end -->",
        r"<!--.*?-->",
    ):
        found = re.compile(left_out, re.MULTILINE | re.DOTALL)
        text = found.sub(lambda match: re.sub(r"[^\n]", "…", match[0]), text)
    return text


def blocks(text: str) -> Iterator[Block]:
    """Each begins at an empty line, or where an item, a row, a heading or a field does."""
    begin = r"^(?=[ \t]*$|[ \t]*(?:[-*]|\d+\.)[ \t]|[ \t]*\||#|[A-Z][\w ,]*: )"
    starts = [match.start() for match in re.finditer(begin, text, re.MULTILINE)]
    head = ""
    for start, end in zip([0, *starts], [*starts, len(text)]):
        row = text[start:end].lstrip().startswith("|")
        yield Block(start, text[start:end], head if row else "")
        head = (head or text[start:end]) if row else ""


def found_in(block: Block) -> Iterator[tuple[int, int, tuple[str, ...], str]]:
    """Where a block has a claim, its numbers and its unit."""
    for match in CLAIM.finditer(block.text):
        if match["ratio"]:
            ratio = " ".join(match["ratio"].lower().split())
            yield *match.span(), (RATIOS[ratio],), "times"
            continue
        numbers = re.findall(NUMBER, match["numbers"] or "") or [match["formula"]]
        units = (match[group] for group in ("measure", "noun", "after", "before"))
        yield *match.span(), tuple(numbers), next(filter(None, units), "").strip("`")
    columns = re.findall(r"[^|\n]+", block.head)
    for column, cell in zip(columns, re.finditer(r"[^|\n]+", block.text)):
        above = HEAD.search(column)
        if above and re.fullmatch(r"[\W\d]*\d[\W\d]*", cell[0]):
            unit = above["measure"] or above["noun"]
            yield *cell.span(), tuple(re.findall(DIGITS, cell[0])), unit


def claims(path: Path, text: str) -> Iterator[Claim]:
    """What a page claims, block after block."""
    text = prose(path, text)
    for block in blocks(text):
        for start, end, numbers, unit in found_in(block):
            line = text.count("\n", 0, block.start + start) + 1
            said = " ".join(block.text[start:end].split())
            yield Claim(said, line, block, numbers, unit)
