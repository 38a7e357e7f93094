"""Claims: what a page says in numbers, and what in the repository proves it.

`blocks()` leaves of a page what somebody has written by hand, `claims()` finds the numbers in it,
and `Proofs` looks for what they rest on. test_claims.py tells the rules and applies them.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import isclose
from pathlib import Path

from benchmarks.strace import READS, SAME, SENDS, WAITS

listed = str.split

# What is measured, and what is counted.

MEASURES: dict[str, tuple[str, float]] = {
    # Name of a unit -> its dimension, and its size in the dimension's base unit.
    name: (dimension, size)
    for names, dimension, size in (
        ("s second seconds", "s", 1.0),
        ("ms millisecond milliseconds", "s", 1e-3),
        ("µs μs microsecond microseconds", "s", 1e-6),
        ("ns nanosecond nanoseconds", "s", 1e-9),
        ("min minute minutes", "s", 60.0),
        ("h hour hours", "s", 3600.0),
        ("byte bytes", "byte", 1.0),
        ("kB KB kilobyte kilobytes", "byte", 1e3),
        ("MB megabyte megabytes", "byte", 1e6),
        ("GB gigabyte gigabytes", "byte", 1e9),
        ("KiB kibibyte kibibytes", "byte", 2.0**10),
        ("MiB mebibyte mebibytes", "byte", 2.0**20),
        ("GiB gibibyte gibibytes", "byte", 2.0**30),
        ("% percent", "share", 0.01),
        ("Hz", "Hz", 1.0),
        ("kHz", "Hz", 1e3),
        ("MHz", "Hz", 1e6),
        ("GHz", "Hz", 1e9),
        ("x \u00d7 times", "ratio", 1.0),
    )
    for name in names.split()
}
NOUNS = {
    # Plural -> singular; each is a dimension of its own.
    **{
        f"{noun}s": noun
        for noun in listed(
            "call syscall send receive wait read write accept connect wakeup wake-up turn round "
            "client connection newcomer visitor sender reader thread core CPU task coroutine "
            "descriptor socket message line segment packet event test bit character sample"
        )
    },
    "processes": "process",
    "switches": "switch",
    "deliveries": "delivery",
    "copies": "copy",
}
CALLS = listed(
    "epoll_wait epoll_pwait epoll_ctl select pselect6 poll ppoll recv recvfrom recvmsg read readv "
    "send sendto sendmsg sendall write writev accept accept4 connect close shutdown bind listen "
    "socket mmap munmap mremap madvise mprotect brk futex getpid getsockopt setsockopt getsockname "
    "fcntl ioctl sigwait nanosleep sched_yield clone"
)
SMALL = listed(
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
TENS = listed("twenty thirty forty fifty sixty seventy eighty ninety")
WORDS = {
    **{word: value for value, word in enumerate(SMALL, 2)},
    **{word: value for value, word in zip(range(20, 100, 10), TENS)},
    **{"a": 1, "an": 1, "one": 1, "dozen": 12, "hundred": 100, "thousand": 1000},
    "million": 1_000_000,
}
PARTS = {"third": 3, "quarter": 4, "fifth": 5, "tenth": 10, "hundredth": 100}


def either(words: Iterable[str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


S = r"[\s\u00a0\u202f]"
_SMALL = rf"(?:(?:{either(TENS)})(?:-(?:one|{either(SMALL)}))?|{either(SMALL)})"
_WORD = rf"(?i:\b(?:(?:(?:{_SMALL}|an?|one)[ -])?(?:hundred|thousand|million|dozen)|{_SMALL})\b)"
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\.?\d)"
_BARE = rf"(?:\d+ ?<< ?\d+|{_DIGITS}|{_WORD})"
# A part of `v3`, `0x1f`, 127.0.0.1, epoll(7), UTF-8, tests/x.py::test_9 or x=1 is none.
_NUMBER = rf"(?<![\w.:/#=$@+\\-])(?<!\w\(){_BARE}"
_COMMA = rf"(?<=[\d`]),{S}*(?:and{S}|or{S})?"
_NUMBERS = rf"{_NUMBER}(?:(?:{_COMMA}|{S}*(?:-|\u2013|to|or|and)){S}*{_BARE})*"
_NEAR, _APART = rf"[`*]*(?:{S}+|-)?[`*]*", rf"[`*]*(?:{S}+|-)[`*]*"  # from a number to its unit
_CALLS = rf"[`*]*{S}+"  # and to the name of a call
_OF = rf"(?:of{S}+(?:the|its|our|their|these|those|your|all){S}+)?"
_STOP = (
    "and or nor but of the to in a an for with than as at on by per that which who whom is are was "
    "were be been has have had it its they them not no if when where each every from into"
)
_ADJECTIVES = rf"(?:(?!(?:{either(_STOP.split())})\b)[a-z][a-z-]*{S}+){{0,2}}?"
_SYMBOL = rf"(?:%|\u00d7|per{S}cent\b|(?:{either(filter(str.isalpha, MEASURES))})\b)"
_CALL = rf"(?:`(?:{either(CALLS)})(?:\(\))?`|(?:{either(CALLS)})(?:\(\)|(?![\w(])))"
_NOUN = rf"(?:(?:system{S}+)?(?:{either({*NOUNS, *NOUNS.values()})})\b)"
_NAME = r"`?\b[A-Z_][A-Z0-9_]{2,}\b`?"

# A formula in the number of clients, N, and of messages, M: (N-1), 2 N + 4, M·(N-1).
_PLUS = r"N ?[-+\u2212\u2013] ?\d+"
_TIMES = r"(?: ?[·*\u00d7] ?| )?"
_MANY = rf"(?<![\w.])(?:(?:(?:\d+|M){_TIMES})?(?:\({_PLUS}\)|{_PLUS})|\d+{_TIMES}N)(?!\w|\.\d)"
_KIND = r"(?:wait|receive|read|send|write|call)s?\b"
_TERM = rf"(?:{_MANY}|{_NUMBER}){_CALLS}(?:{_CALL}|{_KIND})"

FORMULA = re.compile(
    rf"(?P<terms>{_TERM}(?:{S}*\+{S}*{_TERM})+|{_MANY}{_CALLS}(?:{_CALL}|{_KIND}))"
    rf"|(?P<bare>{_MANY})"
)
TERM = re.compile(rf"({_MANY}|{_NUMBER}){_CALLS}({_CALL}|{_KIND})")
PROPORTION = re.compile(r"(?<![\w.:-])(\d+(?:\.\d+)?):(\d+)(?![\w:.])")
MEASURED = re.compile(
    rf"(?P<numbers>{_NUMBERS})(?:{_NEAR}(?P<symbol>{_SYMBOL})|{_CALLS}(?P<call>{_CALL})"
    rf"|{_APART}{_OF}{_ADJECTIVES}(?P<noun>{_NOUN}))"
)
BESIDE = re.compile(
    rf"(?P<number>{_NUMBER})(?:{S}+and{S}+up|{S}+or{S}+more)?{S}*\((?P<name>{_NAME})\)"
    rf"|(?P<name2>{_NAME})(?:,{S}|{S}(?:=|is|of){S}|{S}\()(?P<number2>{_BARE})"
)
NUMBERED = re.compile(
    rf"\b(?:descriptors?|limit){S}+(?:(?:from|of|at|above|below){S}+)?`?(?P<numbers>{_NUMBER})"
)
TIMES = re.compile(
    rf"(?i:\b(?:(?P<two>twice|double[sd])|(?P<three>thrice)|(?P<fold>{_SMALL})fold"
    rf"|(?P<half>halve[sd]|half(?={S}+(?:the|of|as|its|an?{S}+(?:second|minute|hour|[km]ib))\b))"
    rf"|(?:an?|one|(?P<many>two|three)){S}+(?P<part>third|quarter|fifth|tenth|hundredth)s?"
    rf"(?={S}+of\b))\b)|(?<![\w.-])(?P<times>{_DIGITS})-fold\b"
)
NAMED = re.compile(  # the number after one of these is a name
    r"\b(?:C?Python|Linux|uvloop|glibc|version|port|status|step|chapter|section|exercise|stage"
    rf"|line){S}+`?$"
)


@dataclass(frozen=True)
class Number:
    """value, and how many decimals of it are given."""

    value: float
    decimals: int = 0

    def rounds(self, value: float) -> bool:
        """Whether `value`, rounded to the decimals given, is this number."""
        return abs(value - self.value) <= 0.5 * 10.0**-self.decimals + 1e-9


def number(text: str) -> Number:
    if "<<" in text:
        base, shift = text.split("<<")
        return Number(int(base) << int(shift))
    if text[0].isdigit():
        return Number(float(text.replace(",", "")), len(text.partition(".")[2]))
    total = 0
    for word in re.split(r"[ -]", text.lower()):
        multiplies = word in ("dozen", "hundred", "thousand", "million")
        total = (total or 1) * WORDS[word] if multiplies else total + WORDS[word]
    return Number(total)


def numbers(text: str) -> tuple[Number, ...]:
    return tuple(map(number, re.findall(_BARE, text)))


@dataclass(frozen=True)
class Block:
    """A paragraph, a list item, a table row, a heading, or a field of a docstring.

    prose: what is searched for claims, from `start` of the file on; refs: what is searched for
    references, with the head's of a table for each of its rows; head: the cells of that head.
    """

    start: int
    prose: str
    refs: str
    head: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """numbers: of one unit; terms: of a formula, which has no numbers: count and call, "" if it
    is about none."""

    text: str
    line: int
    sentence: str
    block: Block
    numbers: tuple[Number, ...] = ()
    unit: str = ""
    dimension: str = ""
    size: float = 1.0
    terms: tuple[tuple[str, str], ...] = ()

    def meanings(self) -> set[tuple[float, str]]:
        return {(round(one.value * self.size, 12), self.dimension) for one in self.numbers}


# The collector.


def blanked(pattern: str, text: str, filler: str = " ") -> str:
    """`text`, of the same length and lines, without what the pattern (its first group) finds."""

    def blank(match: re.Match[str]) -> str:
        start, end = match.span(match.re.groups and 1)
        start, end = start - match.start(), end - match.start()
        return match[0][:start] + re.sub(r"[^\n]", filler, match[0][start:end]) + match[0][end:]

    return re.sub(pattern, blank, text, flags=re.MULTILINE | re.DOTALL)


def prose(path: Path, text: str) -> tuple[str, str]:
    """What is searched for claims, and what for references: `text` with blanks for the rest."""
    if path.suffix == ".py":
        docstring = ast.parse(text).body[0]
        lines = text.splitlines(keepends=True)
        first, last = docstring.lineno - 1, docstring.end_lineno
        parts = ("".join(part) for part in (lines[:first], lines[first:last], lines[last:]))
        before, within, after = parts
        refs = blanked(".+", before) + blanked('[rR]?"""', within) + blanked(".+", after)
        return refs, refs
    refs = blanked(r"^ *<!-- begin: [^\n]*-->$.*?^ *<!-- end -->$", text)
    refs = blanked(r"^ *(?:```|~~~)[^\n]*\n.*?^ *(?:```|~~~) *$", refs)
    refs = blanked(r"(?<=\n\n)(?: {4}[^\n]*\n)+", refs)  # code by its indentation
    refs = blanked(r"<!-- value: .*?-->.*?<!-- end -->", refs, "…")
    refs = blanked(r"<!--.*?-->", refs)
    words = blanked(r"\]\(([^()\s]*)\)", refs)
    words = blanked(r"^\[[^\]\n]+\]:[^\n]*$|<?https?://[^\s)>]+>?|</?[a-z][^>\n]*>", words)
    words = blanked(r"^ *\d+[.)](?= )", words)  # the number of a list's item
    return words, refs


def indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def divided(markdown: bool, lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where the blocks of a paragraph begin and end."""
    depth = min(map(indentation, lines))
    hanging = any(indentation(line) > depth for line in lines)

    def begins(index: int) -> bool:
        if markdown:
            before = lines[index - 1].lstrip()[:1]
            return bool(re.match(r"\s*(?:[-*+]|\d+[.)])\s|\s*\||#", lines[index])) or before in "#|"
        return hanging and indentation(lines[index]) == depth

    starts = [0, *filter(begins, range(1, len(lines))), len(lines)]
    return zip(starts, starts[1:])


def cells(row: str) -> list[tuple[int, str]]:
    """The cells of a table's row, each with its place."""
    bars = [match.start() for match in re.finditer(r"(?<!\\)\|", row)]
    return [(start + 1, row[start + 1 : end]) for start, end in zip(bars, bars[1:])]


def blocks(path: Path, text: str) -> Iterator[Block]:
    markdown = path.suffix == ".md"
    searched, refs = prose(path, text)
    lines = [searched.splitlines(keepends=True), text.splitlines(keepends=True)]
    places = [0]
    for line in lines[0]:
        places.append(places[-1] + len(line))
    index = 0
    while index < len(lines[0]):
        first = index
        while index < len(lines[0]) and lines[0][index].strip():
            index += 1
        found: list[Block] = []
        for start, end in divided(markdown, lines[1][first:index]) if index > first else ():
            start, end = places[first + start], places[first + end]
            found.append(Block(start, searched[start:end], refs[start:end]))
        ruled = len(found) > 1 and re.fullmatch(r"[\s|:-]*-[\s|:-]*", found[1].prose)
        if markdown and ruled:
            names = tuple(cell for _, cell in cells(found[0].prose))
            rows = (replace(row, refs=found[0].refs + row.refs, head=names) for row in found[2:])
            found = [found[0], *rows]
        yield from found
        index += index == first


def unit_of(match: re.Match[str]) -> tuple[str, str, float] | None:
    """(unit, dimension, size) of what MEASURED has found, or None when it is none after all."""
    if symbol := match["symbol"]:
        if symbol == "x" and re.match(r"\s+[A-Z\d]", match.string[match.end() :]):
            return None  # 2 x AMD
        symbol = "percent" if symbol.startswith("per") else symbol
        return (symbol, *MEASURES[symbol])
    if call := match["call"]:
        if "`" not in call and "(" not in call and not re.search(r"\d", match["numbers"]):
            return None  # the two read
        return call, call.strip("`()"), 1.0
    noun = re.sub(r"system\s+", "", match["noun"])
    hyphen = match.string[match.end("numbers")] == "-"
    if noun not in NOUNS and not hyphen and numbers(match["numbers"]) != (Number(1),):
        return None  # the two send
    noun = NOUNS.get(noun, noun)
    return noun, {"syscall": "call", "wake-up": "wakeup"}.get(noun, noun), 1.0


def ratio(match: re.Match[str]) -> Number:
    if match["part"]:
        many = WORDS[(match["many"] or "one").lower()]
        return Number(many / PARTS[match["part"].lower()], 2)
    if match["half"]:
        return Number(0.5, 1)
    return number(match["times"] or match["fold"] or ("two" if match["two"] else "three"))


def found_in(path: Path, block: Block) -> Iterator[tuple[tuple[int, int], dict[str, object]]]:
    """Where a block has a claim, and what: the fields of Claim. What comes first, holds."""
    words = block.prose
    for match in FORMULA.finditer(words):
        counts = TERM.findall(match["terms"] or "") or [(match["bare"], "")]
        yield match.span(), {"terms": tuple((count, call.strip("`()")) for count, call in counts)}
    for match in PROPORTION.finditer(words):
        if not len(match[1]) == len(match[2]) == 2:  # 22:13
            both = (number(match[1]), number(match[2]))
            yield match.span(), {"numbers": both, "dimension": "ratio"}
    for match in MEASURED.finditer(words):
        if known := unit_of(match):
            fields = dict(zip(("unit", "dimension", "size"), known))
            yield match.span(), {"numbers": numbers(match["numbers"]), **fields}
    for match in BESIDE.finditer(words):
        name = match["name"] or match["name2"]
        if "`" in name or path.suffix == ".py":
            given = (number(match["number"] or match["number2"]),)
            yield match.span(), {"numbers": given, "dimension": "constant", "unit": name.strip("`")}
    for match in NUMBERED.finditer(words):
        yield match.span(), {"numbers": numbers(match["numbers"]), "dimension": "descriptor"}
    for match in TIMES.finditer(words):
        yield match.span(), {"numbers": (ratio(match),), "dimension": "ratio"}
    for (at, cell), name in zip(cells(words) if block.head else [], block.head):
        above = re.search(rf"{_SYMBOL}|{_NOUN}", name)
        if above and re.fullmatch(rf"\W*{_NUMBERS}\W*(?:\(\W*{_NUMBERS}\W*\)\W*)?", cell):
            unit = NOUNS.get(above[0], above[0])
            dimension, size = MEASURES.get(unit, (unit, 1.0))
            span = at + len(cell) - len(cell.lstrip()), at + len(cell.rstrip())
            fields = {"unit": unit, "dimension": dimension, "size": size}
            yield span, {"numbers": numbers(cell), **fields}


def sentence(text: str, start: int, end: int) -> str:
    """That in which text[start:end] stands."""
    begin = max((match.end() for match in re.finditer(r"[.!?]\s+", text[:start])), default=0)
    stop = re.search(r"[.!?](?=\s|$)", text[end:])
    said = " ".join(text[begin : end + stop.end() if stop else None].split())
    return re.sub(r"\]\( *\)", "]", re.sub(r"…+", "…", said))


def claims(path: Path, text: str) -> Iterator[Claim]:
    """What a page claims, in its order."""
    for block in blocks(path, text):
        found: dict[tuple[int, int], Claim] = {}
        for (start, end), fields in found_in(path, block):
            taken = any(start < last and first < end for first, last in found)
            if taken or NAMED.search(block.prose[:start]):
                continue
            found[start, end] = Claim(
                text=" ".join(block.prose[start:end].split()),
                line=text.count("\n", 0, block.start + start) + 1,
                sentence=sentence(block.prose, start, end),
                block=block,
                **fields,  # type: ignore[arg-type]
            )
        yield from (found[place] for place in sorted(found))


# What proves a claim.

Values = tuple[float, ...]
Known = Callable[[str], Values]


@lru_cache(maxsize=None)
def module(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def evaluated(node: ast.AST | None, known: Known) -> Values:
    """The numbers that an expression of constants stands for; none, if it is something else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return () if isinstance(node.value, bool) else (float(node.value),)
    if isinstance(node, ast.Name):
        return known(node.id)
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return tuple(value for part in node.elts for value in evaluated(part, known))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return tuple(-value for value in evaluated(node.operand, known))
    if isinstance(node, ast.BinOp):
        left, right = evaluated(node.left, known), evaluated(node.right, known)
        if len(left) == len(right) == 1:
            return calculated(node.op, left[0], right[0])
    return ()


def calculated(operator: ast.operator, left: float, right: float) -> Values:
    if isinstance(operator, ast.Add):
        return (left + right,)
    if isinstance(operator, ast.Sub):
        return (left - right,)
    if isinstance(operator, ast.Mult):
        return (left * right,)
    if isinstance(operator, ast.Div) and right:
        return (left / right,)
    if isinstance(operator, ast.FloorDiv) and right:
        return (left // right,)
    if isinstance(operator, ast.LShift) and 0 <= right < 64:
        return (left * 2**right,)
    if isinstance(operator, ast.Pow) and 0 <= right < 64:
        return (left**right,)
    return ()


@lru_cache(maxsize=None)
def constants(path: Path) -> dict[str, Values]:
    """The numbers that the names of a module stand for."""
    found: dict[str, Values] = {}
    for node in module(path).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(node, (ast.Assign, ast.AnnAssign)):
                found[target.id] = evaluated(node.value, lambda name: found.get(name, ()))
    return {name: values for name, values in found.items() if values}


def numbers_in(node: ast.AST, known: Known) -> Iterator[float]:
    """The numbers that code works with: not those of its docstrings, messages and indices."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.keyword) and node.arg in ("reason", "ids"):
        return
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name in ("fail", "skip", "needed_in_ci"):
            return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        for text in re.findall(rf"(?<![\w.:/-]){_DIGITS}(?!\w)", node.value):
            yield number(text).value
    yield from evaluated(node, known)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.LShift, ast.Pow)):
        return  # 128 << 10 is neither 128 nor 10
    if isinstance(node, ast.Assert):
        yield from numbers_in(node.test, known)
    elif isinstance(node, ast.Subscript):
        yield from numbers_in(node.value, known)
    else:
        for child in ast.iter_child_nodes(node):
            yield from numbers_in(child, known)


def names_unit(text: str, unit: str) -> bool:
    """Whether a text speaks of a unit, in any of its spellings."""
    spellings = either(name for name, what in MEASURES.items() if what == MEASURES.get(unit))
    return bool(re.search(rf"(?i:(?<![^\W\d_])(?<!')(?:{spellings})(?![^\W\d_]))", text))


# Formulas: {server: for each number of clients its {call: count}}.

CLIENTS = (2, 10, 50)
Formulas = dict[str, list[dict[str, float]]]


def count_at(formula: str, clients: int) -> float:
    """`2 (N - 1)` for so many clients, and one message if it speaks of M. ValueError: none."""
    if re.fullmatch(_WORD, formula):
        return number(formula).value
    text = re.sub("[·\u00d7]", "*", re.sub("[\u2212\u2013]", "-", formula.replace(",", "")))
    text = re.sub(r"(?<=[\dM])\s*(?=[(N])", "*", text)
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(formula) from error
    meaning = {"N": (float(clients),), "M": (1.0,)}
    found = evaluated(node, lambda name: meaning.get(name, ()))
    if len(found) != 1:
        raise ValueError(formula)
    return found[0]


def counted(counts: Mapping[str, float], call: str) -> float | None:
    """How many of these calls there are; sends are those of any name."""
    call = {"recv": "recvfrom", **SAME}.get(call, call)
    if call in counts:
        return counts[call]
    kinds = {"wait": WAITS, "receive": READS, "read": READS, "send": SENDS, "write": SENDS}
    call = NOUNS.get(call, call)
    if call == "call":
        return sum(counts.values())
    if call in kinds:
        return sum(count for name, count in counts.items() if name in kinds[call])
    return None


def makes(calls: Sequence[Mapping[str, float]], terms: Sequence[tuple[str, str]]) -> bool:
    """Whether a server makes the calls of all terms; a term without a call may be any one's."""
    for count, call in terms:
        try:
            wanted = [count_at(count, clients) for clients in CLIENTS]
        except ValueError:
            return False
        if call:
            given = [[counted(counts, call) for counts in calls]]
        else:
            given = [[counts[name] for counts in calls] for name in calls[0]]
            given.append([sum(counts.values()) for counts in calls])
        if wanted not in given:
            return False
    return True


# What is looked up: all of it once.


@lru_cache(maxsize=None)
def imported(root: Path, path: Path) -> dict[str, Values]:
    """The numbers that a module's names stand for, those from another module of ours included."""
    found: dict[str, Values] = {}
    for node in module(path).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            other = root / f"{node.module.replace('.', '/')}.py"
            theirs = constants(other) if other.is_file() else {}
            found.update(
                (name.name, theirs[name.name]) for name in node.names if name.name in theirs
            )
    return {**found, **constants(path)}


@lru_cache(maxsize=None)
def source_of(root: Path, path: Path, test: str) -> tuple[str, frozenset[float]] | None:
    """The source of a test, or of a whole module, and the numbers that it works with."""
    known = imported(root, path)
    lines = path.read_text().splitlines()
    for node in [module(path)] if not test else module(path).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == test:
            lines = lines[min(n.lineno for n in (node, *node.decorator_list)) - 1 : node.end_lineno]
        elif test:
            continue
        return "\n".join(lines), frozenset(numbers_in(node, lambda name: known.get(name, ())))
    return None


Line = tuple[str, frozenset[float]]


@lru_cache(maxsize=None)
def results(path: Path) -> tuple[frozenset[str], list[tuple[str, list[Line]]]]:
    """What a file of results has rows about, and each section: its text, and its lines with the
    numbers that stand there."""
    text = path.read_text()
    rows = frozenset(re.findall(r"^\| *`?([^|`]+?)`? *\|", text, re.MULTILINE))
    sections: list[tuple[str, list[Line]]] = []
    for section in re.split(r"(?m)^(?=#)", text) if path.suffix == ".md" else [text]:
        lines = section.splitlines()
        dateless = (re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "", line) for line in lines)
        given = (re.findall(rf"(?<![\w.]){_DIGITS}(?![\w])", line) for line in dateless)
        found = (frozenset(number(one).value for one in line) for line in given)
        sections.append((section, list(zip(lines, found))))
    return rows, sections


def same(one: float, other: float) -> bool:
    return isclose(one, other, rel_tol=1e-9)


@dataclass(frozen=True)
class Page:
    path: Path
    text: str

    @property
    def claims(self) -> list[Claim]:
        return list(claims(self.path, self.text))

    @property
    def whole(self) -> Block:
        """All of it as one block."""
        return Block(0, *prose(self.path, self.text))


@dataclass(frozen=True)
class Reference:
    """A file that a block names, and the test in it, if it names one."""

    path: Path
    test: str = ""


Notes = list[str]
"""Why something is no proof. Nothing where one could be returned, None, means that it is one."""


class Proofs:
    """What a repository proves.

    expected: the formulas that tests/test_syscalls.py holds, as functions of N.
    held: a snippet of stages/README.md -> the test that holds the servers to it.
    exceptions: a snippet of a page -> why it claims nothing about this project.
    used: what of the latter two was needed.
    """

    def __init__(
        self,
        root: Path,
        expected: Mapping[str, Callable[[int], Mapping[str, int]]],
        held: Mapping[str, str],
        exceptions: Mapping[str, str],
    ) -> None:
        self.root = root
        self.exceptions = exceptions
        self.held = held
        self.expected: Formulas = {
            server: [dict(formula(clients)) for clients in CLIENTS]
            for server, formula in expected.items()
        }
        self.used: set[str] = set()
        self.contract = root / "stages" / "README.md"

    @cached_property
    def limits(self) -> set[tuple[float, str]]:
        """The numbers with their units that the contract names; a ratio is no limit."""
        found = claims(self.contract, self.contract.read_text())
        dimensions = {"s", "byte", "share", *NOUNS.values()}
        return {key for claim in found for key in claim.meanings() if key[1] in dimensions}

    @cached_property
    def modules(self) -> list[Path]:
        folders = ("stages", "lowlevel", "benchmarks", "tests", "profiling")
        found = (path for folder in folders for path in (self.root / folder).rglob("*.py"))
        return sorted(path for path in found if path.stem not in ("claims", "test_claims"))

    @cached_property
    def formulas(self) -> Formulas:
        """Those of profiling/results/syscalls.json that are exact."""
        path = self.root / "profiling" / "results" / "syscalls.json"
        found: Formulas = {}
        for server, counts in json.loads(path.read_text())["servers"].items():
            with suppress(TypeError, ValueError, AttributeError):
                found[server] = [
                    {call: count_at(count, clients) for call, count in counts["formula"].items()}
                    for clients in CLIENTS
                ]
        return found

    # What a block names.

    def references(self, page: Page, block: Block) -> list[Reference]:
        found = []
        file = r"(\]\()?([\w./-]+\.(?:py|md|json))(?:::(\w+))?"
        for link, name, test in re.findall(file, block.refs):
            folders = [self.root, page.path.parent]  # a link begins at its page
            paths = [(folder / name).resolve() for folder in (folders[1:] if link else folders)]
            path = next(filter(Path.is_file, paths), paths[0])
            found.append(Reference(path, test))
        for name, target in re.findall(r"\[`?(test_\w+)`?\]\(([\w./-]+\.py)\b", block.refs):
            found.append(Reference((page.path.parent / target).resolve(), name))
        return found

    def name_of(self, reference: Reference) -> str:
        inside = self.root in reference.path.parents
        path = reference.path.relative_to(self.root) if inside else reference.path
        return "::".join(filter(None, (path.as_posix(), reference.test)))

    def own_servers(self, page: Page) -> list[str]:
        """Those that a page is about."""
        folder = page.path.parent
        if folder.parent == self.root / "stages":
            return [folder.name]
        if folder == self.root / "lowlevel" and page.path.suffix == ".py":
            uvloop = page.path.name == "uvloop_server.py"
            return ["uvloop"] if uvloop else ["selectors", "epoll", "epoll-et"]
        return []

    def servers(self, page: Page, block: Block) -> list[str]:
        """Those that a block speaks of, or else its page."""
        named = spoken_of(block)
        found = [server for server in {**self.formulas, **self.expected} if server in named]
        return found or self.own_servers(page) or [*{**self.formulas, **self.expected}]

    def has_constant(self, name: str) -> bool:
        return any(name in constants(path) for path in self.modules)

    def constant(self, page: Page, block: Block, name: str) -> Values:
        """The value of a constant in the nearest place that has it; none, if modules that are
        equally near differ."""
        having = [path for path in self.modules if name in constants(path)]
        named = {reference.path for reference in self.references(page, block)}
        servers = {self.root / "stages", self.root / "lowlevel"}
        for near in (
            [path for path in having if path in named],
            [path for path in having if path.parent == page.path.parent],
            [path for path in having if servers & {*path.parents}],
            having,
        ):
            if near:
                values = {constants(path)[name] for path in near}
                return values.pop() if len(values) == 1 else ()
        return ()

    def about(self, claim: Claim, snippets: Iterable[str]) -> list[str]:
        """Those of the snippets in which a claim stands."""
        said = " ".join(claim.block.prose.split())
        found = [snippet for snippet in snippets if snippet in said and claim.text in snippet]
        self.used.update(found)
        return found

    # The proofs: of one number of a claim, or of a formula.

    def by_constant(self, page: Page, claim: Claim, one: Number) -> Notes | None:
        code = claim.block.refs
        if page.path.suffix == ".md":
            code = " ".join(re.findall(r"`[^`]*`", code))
        names = dict.fromkeys(re.findall(r"\b[A-Z_][A-Z0-9_]{2,}\b", code))
        if claim.dimension == "constant":
            names = {claim.unit: None}
        notes = []
        for name in names:
            values = self.constant(page, claim.block, name)
            if any(same(value, one.value * claim.size) for value in values):
                return None
            if values:
                notes.append(f"`{name}` is {', '.join(f'{value:g}' for value in values)}")
            elif self.has_constant(name):
                notes.append(f"`{name}` is not the same in all modules: name one of them")
        return notes

    def by_limit(self, page: Page, claim: Claim, one: Number) -> Notes | None:
        if page.path == self.contract:
            for snippet in self.about(claim, self.held):
                path, _, test = self.held[snippet].partition("::")
                return self.by_test(Reference(self.root / path, test), claim, one)
            return ["no test is named for it in CONTRACT of tests/test_claims.py"]
        if (round(one.value * claim.size, 12), claim.dimension) not in self.limits:
            return []
        if any(reference.path == self.contract for reference in self.references(page, page.whole)):
            return None
        return ["the contract has this limit, but this page has no link to it"]

    def by_tests(self, page: Page, claim: Claim, one: Number) -> Notes | None:
        notes = []
        for reference in self.references(page, claim.block):
            named = reference.path.parent == self.root / "tests" and reference.test
            benchmark = reference.path.parent == self.root / "benchmarks"
            if (named or benchmark) and reference.path.name.startswith("test_"):
                wrong = self.by_test(reference, claim, one)
                if wrong is None:
                    return None
                notes += wrong
        return notes

    def by_test(self, test: Reference, claim: Claim, one: Number) -> Notes | None:
        name = self.name_of(test)
        found = test.path.is_file() and source_of(self.root, test.path, test.test)
        if not found:
            return [f"there is no {name}"]
        source, given = found
        wanted = [one.value * claim.size]
        if claim.size != 1 and names_unit(source, claim.unit):
            wanted.append(one.value)  # where KiB are counted, 1 is 1 KiB
        if any(same(value, number) for value in given for number in wanted):
            return None
        return [f"{name} does not work with {one.value:g}"]

    def by_results(self, page: Page, claim: Claim, one: Number) -> Notes | None:
        notes = []
        folders = [self.root / folder / "results" for folder in ("benchmarks", "profiling")]
        for path in {reference.path for reference in self.references(page, claim.block)}:
            if path.parent not in folders or not path.is_file():
                continue
            rows, sections = results(path)
            named = rows & spoken_of(claim.block)
            for section, lines in sections:
                measured = path.suffix == ".md" and claim.dimension in ("s", "byte", "share")
                if measured and not names_unit(section, claim.unit):
                    continue
                for line, given in lines:
                    others = {row for row in rows if speaks_of(line, row)}
                    if named and others and not named & others:
                        continue
                    if any(map(one.rounds if path.suffix == ".md" else one.value.__eq__, given)):
                        return None
            about = f" beside {', '.join(sorted(named))}" if named else ""
            notes.append(f"{path.relative_to(self.root)} does not have {one.value:g}{about}")
        return notes

    def by_formula(
        self, page: Page, claim: Claim, terms: Sequence[tuple[str, str]]
    ) -> Notes | None:
        own = self.own_servers(page) if page.path.suffix == ".py" else []
        notes = []
        if own:
            known = self.formulas
            if all(server in known and makes(known[server], terms) for server in own):
                return None
            notes.append(
                f"profiling/results/syscalls.json has another formula for {', '.join(own)}"
            )
        for reference in self.references(page, claim.block):
            name = self.name_of(reference)
            known = {
                "tests/test_syscalls.py": self.expected,
                "profiling/results/syscalls.md": self.formulas,
                "profiling/results/syscalls.json": self.formulas,
            }.get(name.partition("::")[0], {})
            servers = [server for server in self.servers(page, claim.block) if server in known]
            if any(makes(known[server], terms) for server in servers):
                return None
            if known:
                notes.append(f"{name} has another formula for {', '.join(servers)}")
        return notes

    def missing(self, page: Page, claim: Claim) -> Notes | None:
        """None if the claim is proven."""
        if claim.dimension == "constant" and not self.has_constant(claim.unit):
            return None  # SIGTERM, 15: a name, but none of ours
        if self.about(claim, self.exceptions):
            return None
        if claim.terms:
            return self.by_formula(page, claim, claim.terms)
        for one in claim.numbers:
            notes: Notes = []
            for proof in (self.by_constant, self.by_limit, self.by_tests, self.by_results):
                wrong = proof(page, claim, one)
                if wrong is None:
                    break
                notes += wrong
            else:
                counted = claim.dimension in {*CALLS, "wait", "receive", "call"}
                terms = ((f"{one.value:g}", claim.dimension),)
                wrong = self.by_formula(page, claim, terms) if counted else []
                if wrong is not None:
                    return [*notes, *wrong, *self.suggested(claim, one)]
        return None

    def suggested(self, claim: Claim, one: Number) -> Notes:
        """Constants with this value, unless it is one that many have."""
        value = one.value * claim.size
        names = {
            name
            for path in self.modules
            for name, values in constants(path).items()
            if values == (value,) and value > len(SMALL)
        }
        return [f"that is `{'`, `'.join(sorted(names))}`"] if names else []

    def unproven(self, page: Page) -> list[str]:
        """What a page claims and nothing proves, told so that its author can mend it."""
        found = []
        for claim in page.claims:
            notes = self.missing(page, claim)
            if notes is not None:
                place = f"{page.path.relative_to(self.root)}:{claim.line}"
                looked_at = "; ".join(notes) or "nothing is named that could prove it"
                found.append(f"{place}: {claim.text!r} in: {claim.sentence}\n    {looked_at}")
        return found


def speaks_of(text: str, name: str) -> bool:
    return bool(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-]| --)", text))


def spoken_of(block: Block) -> set[str]:
    """Servers and the like that a block names: what stands there as code or as a link, and the
    names that are no words."""
    spans = re.findall(r"`([^`]+)`|\[`?([^\]`]+)`?\]\(", block.refs)
    named = {" ".join(name.split()) for pair in spans for name in pair if name}
    return named | set(re.findall(r"(?<![\w-])(?:v[1-4]|uvloop|epoll-et)(?![\w-])", block.refs))
