"""What stands in the pages between markers: tables of results, listings, figures.

Each function gives text. None measures: they read comparison.json, syscalls.json, rounds.json and
the sources, so that the same inputs give the same text on any machine. A link begins with a slash,
at the repository's root; __main__ makes it relative to its page. What the results do not have is
"-" in a table and an error within a sentence.
"""

from __future__ import annotations

import ast
import difflib
import functools
import json
import re
from collections.abc import Iterator
from typing import Any

from benchmarks.compare import figures
from benchmarks.compare.figures import BUSY, cell, number, unsaturated
from benchmarks.compare.tables import MARK, Page
from benchmarks.harness.environment import differences
from benchmarks.harness.files import ROOT
from benchmarks.harness.server import BROADCASTING, SILENT
from benchmarks.harness.tables import table

RESULTS = {
    "comparison": "benchmarks/results/comparison.json",
    "syscalls": "profiling/results/syscalls.json",
    "rounds": "profiling/results/rounds.json",
    "scale": "benchmarks/results/scale.json",
}
FILES = {
    **{stage: f"stages/{stage}/server.py" for stage in ("v1", "v2", "v3", "v4")},
    "uvloop": "lowlevel/uvloop_server.py",
}
FLOODS = ("flood 10", "flood 100", "flood 1000")
LOADS = ("lock-step 10", "lock-step 100", "flood 100")


# The inputs.


@functools.lru_cache(maxsize=None)
def results(name: str) -> dict[str, Any]:
    path = ROOT / RESULTS[name]
    return figures.load(path) if name == "comparison" else dict(json.loads(path.read_text("utf-8")))


def median(name: str, workload: str, server: str) -> float:
    """Of a derived figure of comparison.json. KeyError: it has none."""
    return float(results("comparison")["derived"][name][workload][server]["median"])


@functools.lru_cache(maxsize=None)
def functions(path: str) -> dict[str, tuple[int, int]]:
    """The first and the last line of each function of a file, by its qualified name."""

    def walk(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, tuple[int, int]]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield prefix + child.name, (child.lineno, child.end_lineno or child.lineno)
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{child.name}.")

    return dict(walk(ast.parse((ROOT / path).read_text("utf-8"))))


# Values within a sentence or the cell of a table.


def cpu(workload: str, server: str) -> str:
    """CPU time of the server per delivery."""
    return f"{number(median('cpu_us', workload, server))} µs"


def room_size(server: str) -> int:
    """The size of a room whose members' lines, one of each, take a second; to the hundred."""
    return int((1e6 / median("cpu_us", "lock-step 100", server)) ** 0.5 / 100) * 100


def ratio(workload: str, server: str, reference: str) -> str:
    """CPU time per delivery over that of another server: the median of the rounds' ratios."""
    pair = (workload, server), (workload, reference)
    return number(figures.ratio(results("comparison"), "cpu_us", *pair)["median"])


def memory(server: str) -> str:
    """Private memory of an idle client."""
    return f"{number(median('memory_kib', 'memory', server), 2)} KiB"


def idle(server: str) -> str:
    """The CPU time that an idle client adds to each turn."""
    return f"{figures.idle_in_turn(results('comparison'), server)} of each turn"


def calls(server: str) -> str:
    """For a message: "1 `select` + 1 `recvfrom` + (N - 1) `sendto`"."""
    formulas = results("syscalls")["servers"][server]["formula"].items()
    logs = server in (*SILENT, "uring")
    parts = (
        (f"({count}) `{call}`" if count.startswith("N ") else f"{count} `{call}`")
        + " to the log" * (logs and call == "write")
        for call, count in formulas
    )
    return " + ".join(parts)


# Blocks.


def sources(*names: str) -> str:
    """The foot of a block: what made the results it shows, when, and on what. The versions of
    packages stand in the results themselves."""
    parts = []
    for name in names:
        shown = (
            RESULTS[name] if name in ("rounds", "scale") else RESULTS[name].replace(".json", ".md")
        )
        about = {"commit": "-", **results(name)["environment"]}
        measured = "`{command}`, {date}, commit {commit}, {cpus} x {cpu}, {kernel}, {python}"
        parts.append(f"{link(shown.rpartition('/')[2], shown)}: {measured.format(**about)}")
    apart = differences(*(results(name)["environment"] for name in (names[0], names[-1])))
    return f"<sub>{'<br>'.join([*parts, apart] if apart else parts)}</sub>"


def floods(*servers: str) -> str:
    """What a delivery costs in the floods, how many share a send, and what a send costs."""
    rows = [["server", *FLOODS, "messages per send", "µs per send", "busy"]]
    marked = False
    for server in servers:
        costs = []
        for flood in FLOODS:
            mark = f" {MARK}" if unsaturated(results("comparison"), flood, server) else ""
            costs.append(spread("cpu_us", flood, server) + mark)
            marked = marked or bool(mark)
        row = [f"`{server}`", *costs]
        for name in ("messages_per_send", "cpu_per_send_us"):
            row.append(", ".join(number(median(name, flood, server)) for flood in FLOODS))
        row.append(", ".join(f"{median('busy', flood, server):.0%}" for flood in FLOODS))
        rows.append(row)
    note = (
        "CPU time of the server per delivery, µs, with the number of clients that the flood is "
        "named after; in the other columns the medians of the three floods. Busy: the server's "
        "CPU time over the time that passed."
    )
    if marked:
        note += (
            f" {MARK} Busy for less than {BUSY:.0%}: the figure says something of the load, too."
        )
    return block(table(rows), note, sources("comparison"))


def cost(*servers: str) -> str:
    """What a message and an idle client cost a server, and the one before it."""
    rows = [["", *(f"`{name}`" for name in servers)]]

    def row(title: str, name: str, workload: str, digits: int = 3) -> None:
        cells = [spread(name, workload, server, digits) for server in servers]
        if set(cells) != {"-"}:
            rows.append([title, *cells])

    rows.append(["system calls per message", *map(calls, servers)])
    for load in LOADS:
        row(f"CPU time per delivery, {load}, µs", "cpu_us", load)
    for beside in results("comparison")["parameters"]["beside"]:
        row(f"CPU time of a turn beside {beside} idle clients, µs", "turn_us", f"turn {beside}")
    row("an idle client, memory, KiB", "memory_kib", "memory", 2)
    rows.append(["an idle client, CPU time", *map(idle, servers)])
    return block(table(rows, numbers=False), sources("syscalls", "comparison"))


def readiness() -> str:
    """One wait against the number of idle descriptors."""
    note = "CPU time of one wait, µs. One descriptor is ready, K others are idle."
    return block(Page(results("comparison")).waits(), note, sources("comparison"))


def round_of(server: str) -> str:
    """One message among a few clients, call by call, each with the line that made it."""
    rows = [["", "system call", "source line", "what for"]]
    count = 0
    for call in results("rounds")["servers"][server]:
        made_by = (f"{_place(where)} {code(text)}".strip() for where, text in call["lines"])
        in_a_ring = call["call"].startswith("IORING_OP_")
        count += not in_a_ring
        number = "" if in_a_ring else str(count)
        rows.append([number, code(call["text"]), "<br>".join(made_by), call["why"]])
    note = f"One message among {results('rounds')['clients']} clients, whose ports are made up."
    if server in BROADCASTING:
        note += " The server was `--quiet`: else there is one `write` more, the log."
    return block(table(rows, numbers=False), note, sources("rounds"))


def diff(old: str, new: str) -> str:
    """What changes from one server to the next, without the docstring at the top. Each hunk is
    headed by the function that it is in, as git does it."""

    files = FILES[old], FILES[new]
    texts = [(ROOT / path).read_text("utf-8") for path in files]
    headers = [ast.parse(text).body[0].end_lineno or 0 for text in texts]
    before, after = (text.splitlines()[header:] for text, header in zip(texts, headers))

    def heading(hunk: re.Match[str]) -> str:
        changed = headers[1] + int(hunk[1]) + 1  # after one line of context
        inside = (name for name, (a, b) in functions(files[1]).items() if a <= changed <= b)
        return f"@@ {next(inside, 'module')} @@"

    unified = difflib.unified_diff(before, after, *files, n=1, lineterm="")
    changes = (re.sub(r"^@@ -\S+ \+(\d+).* @@$", heading, line).rstrip() for line in unified)
    return block("\n".join(["```diff", *changes, "```"]))


# Markdown.


def block(*paragraphs: str) -> str:
    return "\n".join(["", "\n\n".join(paragraphs), ""])


def link(text: str, path: str, number: int | None = None) -> str:
    return f"[{text}](/{path}{f'#L{number}' if number else ''})"


def spread(name: str, workload: str, server: str, digits: int = 3) -> str:
    """The cell of comparison.md."""
    figure = results("comparison")["derived"][name].get(workload, {}).get(server)
    rounds = results("comparison")["parameters"]["rounds"]
    return cell(figure, rounds, digits) if figure else "-"


def code(text: str) -> str:
    """Text between backquotes, fit for the cell of a table."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}".replace("|", "\\|") if text else ""


def _place(text: str) -> str:
    """With links for the lines of ours that it names."""

    def linked(match: re.Match[str]) -> str:
        return link(f"{match[1].rpartition('/')[2]}:{match[2]}", match[1], int(match[2]))

    return re.sub(r"(\S+\.py):(\d+)", linked, text)
