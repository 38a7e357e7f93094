"""HTML pages of flame graphs that need no other file and no network, to zoom and to search in.

page.html is their frame; d3-flame-graph, which draws, and the stacks are put into it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.harness.environment import sentence
from benchmarks.harness.tables import table
from flames.record import Recording
from flames.stacks import KINDS, Node, Share, Stacks, function, functions, kind, source, tree

FOLDER = Path(__file__).parent
COLOURS = {
    "send": "#f4a582",
    "recv": "#92c5de",
    "wait": "#c9c9c9",
    "ring": "#f2b6c6",
    "log": "#d8b8e8",
    "parse": "#a6d96a",
    "room": "#fee08b",
    "loop": "#b8d8c8",
    "rest": "#eeeeee",
}
MIXED, MOST = "#f7f3e8", 0.9
"""The colour of a frame of whose samples no kind has this part."""
ROWS = 25
"""Functions in the table of two servers."""
READING = (
    "Busy: CPU time of the server over the time it was looked at; no CPU: it was ready, and py-spy "
    "or another process had the CPU; the rest of the time it waited, or py-spy held it. The shares "
    "are those of py-spy's samples; where they show a wait, the server waited for its load: read "
    "the other shares without it. A star: there is a warning above the picture."
)
BESIDE_PERF = (
    "The same beside perf, waiting left out, which takes no CPU time. py-spy tells a call by the "
    "line of Python that it is made on, perf by the function of the C library or of the kernel "
    "that it finds in the stack. So py-spy's share is larger by what the interpreter does on that "
    "line: by the C function of Python or uvloop around the call, which takes the arguments apart "
    "and hands the interpreter's lock over, and by the line's bytecodes; `--native` shows both. In "
    "py-spy's log is all that makes a line of it, in perf's the write alone. A point or two, of "
    "some 1,000 samples, are noise. For threads that wait for each other's lock nothing of this "
    "holds."
)
"""Why they differ."""


def gallery(
    recordings: Sequence[Recording],
    files: Mapping[str, str],
    environment: dict[str, str],
    notes: Iterable[str],
) -> str:
    """All servers of a run, side by side or those that the reader chooses. files: their stacks."""
    foot = [*sorted({recording.load for recording in recordings}), *notes, sentence(environment)]
    legend = [(COLOURS[name], name, meaning) for name, meaning in KINDS.items()]
    legend.append((MIXED, "mixed", f"less than {MOST:.0%} of a frame are of one of these"))
    beside = _beside_perf(recordings)
    return _page(
        "Where the servers spend their time",
        [_shares(recordings), _paragraph(READING)],
        legend,
        [_section(r, files[r.server]) for r in recordings],
        [picture(r.stacks) for r in recordings],
        [*([beside, _paragraph(BESIDE_PERF)] if beside else []), *map(_paragraph, foot)],
    )


def difference(a: Stacks, b: Stacks, names: tuple[str, str], notes: Iterable[str]) -> str:
    """Two servers in one picture: a frame is as wide as its share in both together, so that none
    is left out, blue where the first has more of it, and red where the second has."""
    first, second = names
    legend = [
        (_between(-1), f"only {first}", ""),
        (_between(-0.5), f"three times more in {first}", ""),
        (_between(0), "the same share", ""),
        (_between(0.5), f"three times more in {second}", ""),
        (_between(1), f"only {second}", ""),
    ]
    return _page(
        f"{first} and {second}: where they spend their time",
        [],
        legend,
        ['<section id="both"><p class="match"></p><div></div></section>'],
        [difference_picture(a, b, names)],
        [table(difference_rows(a, b, names), style="html"), *map(_paragraph, notes)],
    )


def difference_picture(a: Stacks, b: Stacks, names: tuple[str, str]) -> dict[str, Any]:
    shares = [
        ([function(text) for text in stack.split(";")], name, count / sum(stacks.values()) / 2)
        for name, stacks in zip(names, (a, b))
        for stack, count in sorted(stacks.items())
    ]

    def described(node: Node) -> tuple[str, str, str]:
        was, now = (2 * node.weights.get(name, 0) for name in names)
        text = f"{names[0]}: {was:.1%}, {names[1]}: {now:.1%}, difference {100 * (now - was):+.1f}"
        return _between((now - was) / (now + was)), text, ""

    return _node(tree(shares), described)


def difference_rows(a: Stacks, b: Stacks, names: tuple[str, str]) -> list[list[str]]:
    """A table: the functions first whose own shares differ most, in per cent of all samples."""
    of_a, of_b = functions(a), functions(b)
    none = Share(0, 0)
    pairs = {name: (of_a.get(name, none), of_b.get(name, none)) for name in {**of_a, **of_b}}
    ordered = sorted(
        pairs, key=lambda name: (-abs(pairs[name][1].self - pairs[name][0].self), name)
    )
    rows = [["function"]]
    for part in ("self", "total"):
        rows[0] += [f"{part} {names[0]}", f"{part} {names[1]}", "difference"]
    for name in ordered[:ROWS]:
        row = [name]
        for was, now in zip(*pairs[name]):
            row += [f"{100 * was:.1f}", f"{100 * now:.1f}", f"{100 * (now - was):+.1f}"]
        rows.append(row)
    return rows


def _page(
    title: str,
    head: Iterable[str],
    legend: Iterable[tuple[str, str, str]],
    sections: Iterable[str],
    pictures: Iterable[dict[str, Any]],
    foot: Iterable[str],
) -> str:
    meanings = (
        f'<p><span style="background:{colour}"></span><b>{escape(name)}</b> {escape(text)}</p>'
        for colour, name, text in legend
    )
    parts = {
        "title": escape(title),
        "head": "\n".join(head),
        "legend": "\n".join(meanings),
        "sections": "\n".join(sections),
        "foot": "\n".join(foot),
        "library": (FOLDER / "d3-flame-graph.min.js").read_text("utf-8"),
        "pictures": json.dumps([*pictures], ensure_ascii=False).replace("</", "<\\/"),
    }
    page = (FOLDER / "page.html").read_text("utf-8")
    for name, text in parts.items():
        page = page.replace(f"{{{{{name}}}}}", text)
    return page


def _paragraph(line: str) -> str:
    """`code` between backquotes."""
    parts = escape(line).split("`")
    text = "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
    return f"<p>{text}</p>"


def _section(recording: Recording, file: str) -> str:
    warnings = "".join(f'<p class="warning">{escape(line)}</p>' for line in recording.warnings)
    return (
        f'<section id="{escape(recording.label)}"><h2>{escape(recording.label)}</h2>{warnings}'
        f'<p class="match"></p><div></div><p>{escape(recording.summary)}</p>'
        f'<p>{escape(recording.load)}; <a href="{escape(file)}">{escape(file)}</a></p></section>'
    )


def _shares(recordings: Sequence[Recording]) -> str:
    rows = [["server", "samples", "busy", "no CPU", "messages/s", *KINDS]]
    for recording in recordings:
        shares = recording.shares()
        cells = [
            recording.label + " *" * bool(recording.warnings),
            f"{recording.samples:,}",
            f"{recording.busy:.0%}",
            "-" if recording.queued is None else f"{recording.queued:.0%}",
            f"{recording.messages / recording.seconds:,.0f}",
        ]
        rows.append(cells + [f"{shares[name]:.1%}" if shares[name] else "" for name in KINDS])
    return table(rows, style="html")


def _beside_perf(recordings: Sequence[Recording]) -> str:
    """Of what is not waiting: perf sees the CPU time only. "": there is no perf."""
    rows = [["server, call", "py-spy", "perf", "difference", "of it around the call"]]
    for recording in recordings:
        shares = recording.shares()
        for name, share in recording.perf.items() if isinstance(recording.perf, dict) else ():
            seen = shares[name] / (1 - shares["wait"]) if shares["wait"] < 1 else 0.0
            if name != "wait" and max(seen, share.call) >= 0.01:
                cells = [f"{seen:.1%}", f"{share.call:.1%}", f"{100 * (seen - share.call):+.1f}"]
                rows.append([f"{recording.label}, {name}", *cells, f"{100 * share.around:.1f}"])
    return table(rows, style="html") if len(rows) > 1 else ""


def picture(stacks: Stacks) -> dict[str, Any]:
    """One server. The colour of a frame is that of what nearly all of its samples did."""
    samples = sum(stacks.values())

    def described(node: Node) -> tuple[str, str, str]:
        count = sum(node.weights.values())
        most = max(node.weights, key=lambda name: node.weights[name])
        kinds = (
            f"{name} {node.weights[name] / samples:.1%}" for name in KINDS if name in node.weights
        )
        return (
            COLOURS[most] if node.weights[most] >= MOST * count else MIXED,
            f"{count:,} of {samples:,} samples, {count / samples:.1%}: {', '.join(kinds)}",
            source(node.name),
        )

    labelled = ((stack.split(";"), kind(stack), count) for stack, count in sorted(stacks.items()))
    return _node(tree(labelled), described)


def _node(node: Node, described: Callable[[Node], tuple[str, str, str]]) -> dict[str, Any]:
    """As d3-flame-graph takes it, and fill, text, source for page.html."""
    fill, text, line = described(node)
    return {
        "name": node.name,
        "value": sum(node.weights.values()),
        "fill": fill,
        "text": text,
        "source": line,
        "children": [_node(child, described) for child in node.children.values()],
    }


def _between(balance: float) -> str:
    """-1: blue; 0: nearly white; 1: red; all of them light enough for black text."""
    ends = (0x8F, 0xB8, 0xF2) if balance < 0 else (0xF5, 0x9A, 0x8C)
    mixed = (round(0xF4 + (end - 0xF4) * abs(balance)) for end in ends)
    return "#" + "".join(f"{part:02x}" for part in mixed)
