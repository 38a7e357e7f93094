"""The blocks of the pages that are made of the source, and what is said there of each server.

servers(), for its part, is made of results, with the phrases from here. The order of SERVERS and of
READING is that of the tables.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from page_inputs import Inputs, Page, known, table
from page_source import Source, changed_lines, new_lines, prose, source

LIMITS = "tests/contract/test_limits.py"


@dataclass(frozen=True)
class About:
    """What is said of a server. limit: where it breaks; test: the one that shows it."""

    file: str
    model: str
    waits: str
    limit: str
    test: str
    tests: str = LIMITS


DESCRIPTORS = (
    "the limit of descriptors",
    "test_full_of_descriptors",
    "tests/contract/test_resources.py",
)
REACTOR = "the reactor, in"
SERVERS = {
    "v1": About(
        "stages/v1/server.py",
        "thread per client",
        "a thread for each client, in `recv()`",
        "threads: address space",
        "test_small_address_space",
    ),
    "v2": About(
        "stages/v2/server.py",
        "`select()`",
        "one thread, in `select()`",
        "descriptor 1024",
        "test_1100_clients",
    ),
    "v3": About(
        "stages/v3/server.py",
        "`select()`, broadcast",
        "one thread, in `select()`",
        "descriptor 1024",
        "test_1100_clients",
    ),
    "v4": About(
        "stages/v4/server.py",
        "asyncio",
        "the loop, in `epoll_wait()`; a coroutine for each client, in `readline()`",
        "a write to a client that has closed",
        "test_last_words_in_a_flood",
    ),
    "selectors": About(
        "lowlevel/selectors_backend.py",
        "",
        f"{REACTOR} the `selectors` module's epoll",
        *DESCRIPTORS,
    ),
    "epoll": About(
        "lowlevel/epoll_backend.py",
        "",
        f"{REACTOR} `epoll_wait()`, level-triggered",
        *DESCRIPTORS,
    ),
    "epoll-et": About(
        "lowlevel/epoll_backend.py",
        "",
        f"{REACTOR} `epoll_wait()`, edge-triggered",
        *DESCRIPTORS,
    ),
    "uvloop": About(
        "lowlevel/uvloop_server.py",
        "",
        "libuv, in `epoll_pwait()`; v4's coroutines above it",
        "an `accept()` that fails",
        "test_accept_fails_all_the_same",
    ),
}
FILES = {name: SERVERS[name].file for name in ("v1", "v2", "v3", "v4", "uvloop")}
"""The servers that are one file: those that a diff can be made of."""


@dataclass(frozen=True)
class Step:
    """A row of the reading order. old: the file that its code is compared with.

    how: "skim" a page; read a file as a "diff" to `old`; "" as long as you like, and no minutes.
    """

    files: tuple[str, ...]
    gain: str
    old: str = ""
    how: str = "read"


def stage(name: str, gain: str, old: str = "") -> Step:
    files = (f"stages/{name}/README.md", f"stages/{name}/server.py")
    return Step(files, gain, old and f"stages/{old}/server.py")


READING = (
    Step(("README.md",), "what there is, how to run it, and in what the models differ"),
    stage("v1", "framing; what blocks, and what a thread for each client costs; how to stop"),
    stage("v2", "readiness, turns, and where the state of a connection goes", "v1"),
    stage("v3", "partial writes: out-buffer, interest, backpressure, budgets, half-close", "v2"),
    Step(("stages/README.md",), "what every server promises, in words you know by now", how="skim"),
    stage("v4", "what asyncio does of this by itself, and what it leaves to you", "v3"),
    Step(("lowlevel/README.md",), "of which parts a reactor is made, and the way of a byte"),
    Step(("lowlevel/epoll_backend.py",), "what epoll is; level- and edge-triggered"),
    Step(("lowlevel/reactor.py",), "an event loop: turns, timers, wakeup, requeueing"),
    Step(("lowlevel/protocol.py",), "a parser that knows no socket"),
    Step(("lowlevel/room.py",), "coalescing: many messages, one send; loops that run in C"),
    Step(
        ("lowlevel/connection.py",),
        "the out-buffer and its marks on a reactor; when to stop reading",
    ),
    Step(("lowlevel/acceptor.py",), "newcomers, and what to do when there is no place"),
    Step(("lowlevel/__main__.py",), "how the parts are put together; the stop"),
    Step(
        ("lowlevel/uvloop_server.py",),
        "what another loop beneath the same code changes",
        "stages/v4/server.py",
        "diff",
    ),
    Step(
        ("benchmarks/results/comparison.md",),
        "what each of them costs, beside C, Go, Node and other frameworks",
        how="skim",
    ),
    Step(("stages/exercises.md",), "whether you could have written it", how=""),
)
WORDS_A_MINUTE = 200
SKIMMED_A_MINUTE = 600
LINES_A_MINUTE = 15


def work(inputs: Inputs, step: Step) -> tuple[int, int, int]:
    """Words, lines of code that are new, and minutes, at least 1."""
    words = lines = 0
    for path in step.files:
        if path.endswith(".md"):
            words += prose(inputs.text(path))
            continue
        found = source(inputs, path)
        if step.how == "diff":
            numbers = changed_lines(found, source(inputs, step.old))
        else:
            numbers = new_lines(found, source(inputs, step.old) if step.old else None)
        words += sum(found.words.get(number, 0) for number in numbers)
        lines += len(found.code & numbers)
    pace = SKIMMED_A_MINUTE if step.how == "skim" else WORDS_A_MINUTE
    return words, lines, math.ceil(words / pace + lines / LINES_A_MINUTE)


def reading(page: Page) -> str:
    """What to read in which order, and how long it takes."""
    rows = [("", "read", "and you know", "new lines of code", "minutes")]
    total = 0
    for number, step in enumerate(READING, 1):
        _, lines, minutes = work(page.inputs, step)
        links = [page.link(shown(path), path) for path in step.files]
        what = ", ".join(links)
        what += {"skim": ", skimmed", "diff": ", as a diff to v4"}.get(step.how, "")
        total += minutes if step.how else 0
        minutes_shown = str(minutes) if step.how else "as you like"
        rows.append((str(number), what, step.gain, str(lines or ""), minutes_shown))
    rows.append(("", "all of it", "", "", str(total)))
    note = (
        f"Minutes: {WORDS_A_MINUTE} words of prose and comments ({SKIMMED_A_MINUTE} where you "
        f"skim) or {LINES_A_MINUTE} new lines of code in one, rounded up, without the commands. "
        "A function is new if it is absent from the stage before or differs there. In the pages, "
        "pictures and generated blocks are not counted."
    )
    return f"{table(rows)}\n\n{note}"


def shown(path: str) -> str:
    """ "v1/server.py", "README.md"."""
    parts = Path(path).parts
    return "/".join(parts[-2:])


def diff(page: Page, old: str, new: str) -> str:
    """What changes from one server to the next, without the module's docstring."""
    for name in (old, new):
        known(name, tuple(FILES), "server")
    before, after = (source(page.inputs, FILES[name]) for name in (old, new))
    changes = "\n".join(hunks(before, after))
    return f"```diff\n--- {FILES[old]}\n+++ {FILES[new]}\n{changes}\n```"


def hunks(before: Source, after: Source, context: int = 1) -> Iterator[str]:
    """A unified diff whose hunks are headed by the function they are in, as git does."""
    old, new = before.lines[before.header :], after.lines[after.header :]
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for group in matcher.get_grouped_opcodes(context):
        yield f"@@ {_heading(group, before, after)} @@"
        for kind, i1, i2, j1, j2 in group:
            if kind == "equal":
                yield from (f" {line}".rstrip() for line in old[i1:i2])
            else:
                yield from (f"-{line}" for line in old[i1:i2])
                yield from (f"+{line}" for line in new[j1:j2])


def _heading(group: Sequence[tuple[str, int, int, int, int]], before: Source, after: Source) -> str:
    """The function of the first line that differs; outside of all, "module"."""
    for kind, i1, i2, j1, j2 in group:
        if kind != "equal":
            sides = ((after, j1, j2), (before, i1, i2))
            for side, first, last in sides:
                for number in range(first, last):
                    name = side.inside(number + side.header + 1)
                    if name:
                        return name
    return "module"
