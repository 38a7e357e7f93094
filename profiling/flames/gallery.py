"""The flame graphs of one run side by side: one HTML file that needs no other and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.harness.environment import sentence
from flames.perf import SHOWN
from flames.record import Recording
from flames.stacks import KINDS, KINDS_TOLD
from flames.svg import COLOURS

READING = (
    "Busy: CPU time of the server over the time it was looked at; no CPU: it was ready, and py-spy "
    "or another process had the CPU. The shares are those of py-spy's samples. By perf: of the "
    "server's CPU time, inside the kernel in that call, and in parentheses how far this is from "
    "py-spy's share, which takes in what the interpreter does on the same line. Where py-spy shows "
    "a wait and perf does not, the server waited for its load: read the other shares without it. A "
    "star: there is a warning above the picture."
)
STYLE = """
body { font: 15px/1.45 Verdana, "DejaVu Sans", sans-serif; color: #222; background: #fff;
  margin: 1.5rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 0 0 .3rem; }
p, dl { max-width: 75rem; } code { font-size: .95em; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { white-space: nowrap; padding: .25rem .6rem; text-align: right;
  border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
tr.perf td { color: #555; font-size: .9em; }
td.warned { font-weight: bold; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem .8rem; }
dt span { display: inline-block; width: 1em; height: .8em; margin-right: .5em;
  border: 1px solid #999; }
dd { margin: 0; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(46rem, 100%), 1fr));
  gap: 1.5rem; align-items: end; }
section { border: 1px solid #ddd; padding: .8rem; min-width: 0; }
section svg { width: 100%; height: auto; display: block; }
.warning { background: #fff3cd; padding: .35rem .6rem; }
"""


def html(
    recordings: Sequence[Recording],
    pictures: Mapping[str, str],
    files: Mapping[str, Sequence[str]],
    environment: Mapping[str, str],
    notes: Sequence[str],
) -> str:
    """pictures: the SVG of each server, as far as there are any. files: what else there is."""
    sections = []
    for recording in recordings:
        name = recording.server
        links = " ".join(f'<a href="{escape(file)}">{escape(file)}</a>' for file in files[name])
        warnings = "".join(f'<p class="warning">{escape(w)}</p>' for w in recording.warnings)
        sections.append(
            f"<section><h2>{escape(recording.label)}</h2>{warnings}{pictures.get(name, '')}"
            f"<p>{links}</p></section>"
        )
    meanings = "".join(
        f'<dt><span style="background:{COLOURS[name]}"></span>{name}</dt>'
        f"<dd>{escape(KINDS_TOLD[name])}</dd>"
        for name in KINDS
    )
    loads = sorted({recording.load for recording in recordings})
    said = [*loads, *notes, READING, sentence(dict(environment))]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<title>sock_chat: where the servers spend their time</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n"
        "<h1>Where the servers spend their time</h1>\n"
        + "".join(f"<p>{_marked(line)}</p>\n" for line in said)
        + f"{_table(recordings)}\n<dl>{meanings}</dl>\n<main>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def _marked(line: str) -> str:
    """`code` between backquotes."""
    parts = escape(line).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


def _table(recordings: Sequence[Recording]) -> str:
    """What each server does, by py-spy, and below it by perf with the difference."""
    head = ["server", "samples", "busy", "no CPU", "messages/s", *KINDS]
    lines = ["<tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>"]
    for recording in recordings:
        shares = recording.shares()
        queued = "-" if recording.queued is None else f"{recording.queued:.0%}"
        cells = [
            f"{recording.samples:,}",
            f"{recording.busy:.0%}",
            queued,
            f"{recording.messages / recording.seconds:,.0f}",
            *(f"{shares[name]:.1%}" if shares[name] else "" for name in KINDS),
        ]
        warned = ' class="warned"' if recording.warnings else ""
        mark = " *" if recording.warnings else ""
        lines.append(
            f"<tr><td{warned}>{escape(recording.label)}{mark}</td>"
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + "</tr>"
        )
        if isinstance(recording.perf, dict):
            seen = {name: recording.perf[name] for name in SHOWN}
            text = "".join(
                f"<td>{seen[name]:.1%} ({100 * (seen[name] - shares[name]):+.1f})</td>"
                if seen.get(name) or (name in seen and shares[name])
                else "<td></td>"
                for name in KINDS
            )
            lines.append(f'<tr class="perf"><td>by perf</td><td colspan="4"></td>{text}</tr>')
    return f"<table>{''.join(lines)}</table>"
