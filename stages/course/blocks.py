"""What stands in the pages between markers: tables of results, listings, links to lines.

Each function gives text. None measures: they read comparison.json, syscalls.json, rounds.json and
the sources, so that the same inputs give the same text on any machine. A link begins with a slash,
at the repository's root; __main__ makes it relative to its page. What the results do not have is
"-" in a table and an error within a sentence. A ratio is taken within a round.
"""

from __future__ import annotations

import ast
import difflib
import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.compare import tables
from benchmarks.compare.tables import PICTURES, cell, number
from benchmarks.harness.files import ROOT
from benchmarks.harness.server import BROADCASTING

RESULTS = {
    "comparison": "benchmarks/results/comparison.json",
    "syscalls": "profiling/results/syscalls.json",
    "rounds": "profiling/results/rounds.json",
}
FILES = {
    **{stage: f"stages/{stage}/server.py" for stage in ("v1", "v2", "v3", "v4")},
    "uvloop": "lowlevel/uvloop_server.py",
}
FLOODS = ("flood 10", "flood 100", "flood 1000")
LOADS = ("lock-step 10", "lock-step 100", "flood 100")
PICTURED = ("v3", "v4", "uvloop", "epoll --flush message", "epoll", "c", "go", "node --cork")
COALESCING = (
    *("v4", "uvloop", "epoll --flush message", "epoll", "c --flush message", "c"),
    *("uvloop-protocol --coalesce", "go"),
)

Figure = Mapping[str, float]


# The inputs.


@functools.lru_cache(maxsize=None)
def results(name: str) -> dict[str, Any]:
    path = ROOT / RESULTS[name]
    return tables.load(path) if name == "comparison" else dict(json.loads(path.read_text("utf-8")))


def figure(name: str, *keys: str) -> Figure | None:
    """A derived figure of comparison.json: its median, smallest and largest."""
    found: Any = results("comparison")["derived"][name]
    for key in keys:
        found = found.get(key, {})
    return found or None


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
    found = figure("cpu_us", workload, server)
    if not found:
        raise LookupError(f"there is no {server} in {workload}")
    return f"{number(found['median'])} µs"


def ratio(workload: str, server: str, reference: str) -> str:
    """CPU time per delivery over that of another server: the median of the rounds' ratios."""
    costs: dict[str, dict[int, float]] = {server: {}, reference: {}}
    for sample in results("comparison")["samples"]:
        if tables.label(sample) == workload and sample["server"] in costs:
            cost = sample["cpu_seconds"] / sample["deliveries"]
            costs[sample["server"]][sample["round"]] = cost
    above, below = costs[server], costs[reference]
    return number(tables.spread(above[r] / below[r] for r in above.keys() & below)["median"])


def memory(server: str) -> str:
    """Resident memory of an idle client."""
    kib = results("comparison")["derived"]["memory_kib"].get(server)
    return "-" if kib is None else f"{number(kib)} KiB"


def idle(server: str) -> str:
    """The CPU time that an idle client adds to each turn: the slope between the fewest and the
    most that were measured, if what was measured beside these and beside those does not overlap."""
    found = results("comparison")["derived"]["turn_us"].get(server, {})
    if len(found) < 2:
        return "-"
    few, *_, many = sorted(found, key=int)
    low, high = found[few], found[many]
    if low["max"] >= high["min"]:
        return "nothing of a turn"
    return f"{number((high['median'] - low['median']) / (int(many) - int(few)))} µs of each turn"


def calls(server: str) -> str:
    """For a message: "1 `select` + 1 `recvfrom` + (N - 1) `sendto`"."""
    formulas = results("syscalls")["servers"][server]["formula"].items()
    parts = (
        f"({count}) `{call}`" if count.startswith("N ") else f"{count} `{call}`"
        for call, count in formulas
    )
    return " + ".join(parts) + (" to the log" if server not in BROADCASTING else "")


# Blocks.


def sources(*names: str) -> str:
    """The foot of a block: what made the results it shows, when, and on what. The versions of
    packages stand in the results themselves."""
    parts = []
    for name in names:
        shown = RESULTS[name] if name == "rounds" else RESULTS[name].replace(".json", ".md")
        measured = "`{command}`, {date}, {cpus} x {cpu}, {kernel}, {python}"
        environment = measured.format(**results(name)["environment"])
        parts.append(f"{link(shown.rpartition('/')[2], shown)}: {environment}")
    return f"<sub>{'<br>'.join(parts)}</sub>"


def picture() -> str:
    """The chart of the floods, and its figures for a few of the servers."""
    rows = [["server", *(f"{flood}, µs" for flood in FLOODS), "messages per send"]]
    for server in PICTURED:
        costs = (medians("cpu_us", server, [flood]) for flood in FLOODS)
        rows.append([f"`{server}`", *costs, medians("messages_per_send", server, FLOODS)])
    name = "cpu-per-delivery.svg"
    note = (
        "CPU time of the server per delivery; messages per send with 10, 100 and 1000 clients. "
        f"Medians of {results('comparison')['parameters']['rounds']} rounds."
    )
    chart = f"!{link(PICTURES[name], f'benchmarks/results/{name}')}"
    return block(chart, table(rows, numbers=True), note, sources("comparison"))


def cost(*servers: str) -> str:
    """What a message and an idle client cost a server, and the one before it."""
    rows = [["", *(f"`{name}`" for name in servers)]]
    rows.append(["system calls per message", *map(calls, servers)])
    for load in LOADS:
        cells = [spread(figure("cpu_us", load, server)) for server in servers]
        if set(cells) != {"-"}:
            rows.append([f"CPU time per delivery, {load}, µs", *cells])
    for beside in map(str, results("comparison")["parameters"]["beside"]):
        cells = [spread(figure("turn_us", server, beside)) for server in servers]
        rows.append([f"CPU time of a turn beside {beside} idle clients, µs", *cells])
    rows.append(["an idle client, resident memory", *map(memory, servers)])
    rows.append(["an idle client, CPU time", *map(idle, servers)])
    return block(table(rows), sources("syscalls", "comparison"))


def coalescing() -> str:
    """What a delivery costs, how many share a send, and what a send costs."""
    rows = [["server", *FLOODS, "messages per send", "µs per send"]]
    for server in COALESCING:
        cells = [spread(figure("cpu_us", flood, server)) for flood in FLOODS]
        per_send = ("messages_per_send", "cpu_per_send_us")
        rows.append([f"`{server}`", *cells, *(medians(name, server, FLOODS) for name in per_send)])
    note = (
        "CPU time of the server per delivery, µs, with the number of clients that the flood is "
        "named after; in the last two columns the medians of the three floods."
    )
    return block(table(rows, numbers=True), note, sources("comparison"))


def readiness() -> str:
    """One wait against the number of idle descriptors."""
    parameters = results("comparison")["parameters"]
    counts = [str(count) for count in parameters["descriptors"]]
    rows = [["CPU time of one wait, µs", *(f"K = {count}" for count in counts)]]
    for kind, found in results("comparison")["derived"]["readiness_us"].items():
        limits = parameters["readiness_limits"].get(kind, {})
        cells = (limits.get(count) or spread(found.get(count)) for count in counts)
        rows.append([f"`{kind}`", *cells])
    note = "One descriptor is ready, K others are idle."
    return block(table(rows, numbers=True), note, sources("comparison"))


def round_of(server: str) -> str:
    """One message among a few clients, call by call, each with the line that made it."""
    rows = [["", "system call", "source line", "what for"]]
    for count, call in enumerate(results("rounds")["servers"][server], 1):
        made_by = (f"{_place(where)} {_code(text)}".strip() for where, text in call["lines"])
        rows.append([str(count), _code(call["text"]), "<br>".join(made_by), call["why"]])
    note = f"One message among {results('rounds')['clients']} clients, whose ports are made up."
    if server in BROADCASTING:
        note += " The server was `--quiet`: else there is one `write` more, the log."
    return block(table(rows), note, sources("rounds"))


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


def table(rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    """The first row is the head. numbers: all but the first column to the right."""
    head, *body = rows
    rule = ["---", *(["---:" if numbers else "---"] * (len(head) - 1))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])


def spread(found: Figure | None) -> str:
    rounds = results("comparison")["parameters"]["rounds"]
    return cell(dict(found), rounds) if found else "-"


def medians(name: str, server: str, workloads: Iterable[str]) -> str:
    """Of a figure in each of the workloads: "1.00, 1.00, 1.00"."""
    found = (figure(name, workload, server) for workload in workloads)
    return ", ".join(number(one["median"]) if one else "-" for one in found)


def _code(text: str) -> str:
    """Text between backquotes, fit for the cell of a table."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}".replace("|", "\\|") if text else ""


def _place(text: str) -> str:
    """With links for the lines of ours that it names."""

    def linked(match: re.Match[str]) -> str:
        return link(f"{match[1].rpartition('/')[2]}:{match[2]}", match[1], int(match[2]))

    return re.sub(r"(\S+\.py):(\d+)", linked, text)
