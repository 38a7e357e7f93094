"""The charts of a comparison, as SVG: readable on a light page and on a dark one.

Each is a light card with a border of its own, for a transparent one would be unreadable on one of
the two. Its foot says what it was measured on. The same results give the same bytes: ids are made
from a fixed salt, and no date is written but that of the results. Text stays text.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from benchmarks.compare.figures import REFERENCE, Results, Spread
from benchmarks.harness.environment import sentence
from benchmarks.harness.roster import LINE_PEERS
from benchmarks.harness.server import BROADCASTING

CARD, INK, FAINT = "#fbfaf7", "#24292f", "#d5d3cc"
COLOURS = (
    *("#c2410c", "#7c3aed", "#0369a1", "#15803d", "#be185d", "#a16207"),
    *("#0f766e", "#b91c1c", "#4338ca", "#57534e", "#a21caf"),
)
STYLE: Any = {
    "svg.hashsalt": "sock_chat",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": CARD,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
}
FOOT_WIDTH = 0.0533  # inches that a character of the foot needs
LINE = 0.037  # of text, of the height of the axes

Points = dict[int, Spread]
"""Along the x axis, the number of clients or descriptors."""


def draw(results: Results, folder: Path) -> None:
    """Write both charts into a folder."""
    foot = sentence(results["environment"]).replace("`", "")
    foot += f"; {results['parameters']['placement']}"
    with matplotlib.rc_context(STYLE):
        _save(cpu_per_delivery(results), foot, folder / "cpu-per-delivery.svg")
        _save(readiness(results), foot, folder / "readiness.svg")


def cpu_per_delivery(results: Results) -> Figure:
    """Ours and the peers side by side, on the same axes; the C reference in both."""
    figure = _figure(10, 5.6, "Server CPU time per delivery in a flood, µs")
    floods = (w for w in results["parameters"]["workloads"] if w.startswith("flood"))
    counts = [int(workload.split()[1]) for workload in floods]
    costs = {n: results["derived"]["cpu_us"].get(f"flood {n}", {}) for n in counts}
    servers = results["parameters"]["servers"]
    panels = {
        "ours": [name for name in servers if name in BROADCASTING or name == REFERENCE],
        "peers": [name for name in servers if name in LINE_PEERS],
    }
    lines = []
    both = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, (title, names) in zip(both, panels.items()):
        axes.set_title(title, loc="left", fontsize=10)
        points = {name: {n: costs[n][name] for n in counts if name in costs[n]} for name in names}
        lines.append((axes, _lines(axes, "clients", points)))
    for axes, ends in lines:  # when both have got their scale
        _label_ends(axes, ends)
    return figure


def readiness(results: Results) -> Figure:
    figure = _figure(7, 4.4, "CPU time of one wait: one descriptor ready, K idle, µs")
    axes = figure.subplots()
    counts = results["parameters"]["descriptors"]
    waits = {n: results["derived"]["wait_us"].get(f"wait {n}", {}) for n in counts}
    points = {}
    for kind in results["parameters"]["waits"]:
        limits = [
            f"\n{int(problem['workload'].split()[1]):,} is {problem['reason']}"
            for problem in results["problems"]
            if problem["server"] == kind
        ]
        points["".join([kind, *limits])] = {n: waits[n][kind] for n in counts if kind in waits[n]}
    _label_ends(axes, _lines(axes, "K, idle descriptors", points))
    return figure


def _figure(width: float, height: float, title: str) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.07)  # inches
    figure = Figure(figsize=(width, height), layout=layout, facecolor=CARD)
    figure.suptitle(title, x=0.015, ha="left", fontsize=11.5, fontweight="bold")
    return figure


def _lines(axes: Axes, label: str, lines: Mapping[str, Points]) -> dict[str, tuple[Any, ...]]:
    """A line for each name through its medians, with the quartiles around it, on logarithmic axes
    with plain numbers: where each ends, and its colour."""
    axes.set_xlabel(label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ends = {}
    for name, points in lines.items():
        if not points:
            continue
        colour, dashes = _colour(name, [*lines])
        low, medians, high = (
            [spread[key] for spread in points.values()] for key in ("low", "median", "high")
        )
        axes.plot([*points], medians, dashes, color=colour, marker="o", markersize=3.5)
        axes.fill_between([*points], low, high, color=colour, alpha=0.12, linewidth=0)
        ends[name] = ([*points][-1], medians[-1], colour)
    counts = sorted({count for points in lines.values() for count in points})
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(ticker.NullLocator())
    return ends


def _colour(name: str, names: Sequence[str]) -> tuple[str, str]:
    """Of a line. Variants of a server have its colour, and are dashed; C is black."""
    kind, dashes = name.split()[0], "--" if " --" in name else "-"
    if kind in ("c", "c-uring"):
        return INK, ":" if kind == "c-uring" else dashes
    kinds = list(dict.fromkeys(other.split()[0] for other in names))
    return COLOURS[kinds.index(kind) % len(COLOURS)], dashes


def _label_ends(axes: Axes, ends: Mapping[str, tuple[Any, ...]]) -> None:
    """Each line's name to the right of its end, moved up or down as far as its neighbours need.

    To be called when all axes that share a scale have got their lines.
    """
    axes.autoscale_view()
    to_axes = axes.transData + axes.transAxes.inverted()
    places = {name: float(to_axes.transform((x, y))[1]) for name, (x, y, _) in ends.items()}
    order = sorted(places, key=places.__getitem__)
    for names, step in ((order, LINE), (order[::-1], -LINE)):  # upwards; and down again, if too far
        at = -0.02 - step if step > 0 else 1.02 - step
        for name in names:
            at = places[name] = (max if step > 0 else min)(places[name], at + step)
    arrow = {"arrowstyle": "-", "linewidth": 0.6, "alpha": 0.7, "relpos": (0, 0.5), "shrinkB": 4}
    for name in order:
        x, y, colour = ends[name]
        axes.annotate(
            name,
            (x, y),
            xytext=(1.07, places[name]),
            textcoords="axes fraction",
            color=colour,
            va="center",
            fontsize=8.5,
            arrowprops={**arrow, "color": colour},
        )


def _save(figure: Figure, foot: str, path: Path) -> None:
    """With the foot below the chart, and in one piece in the file's metadata."""
    width = int(figure.get_figwidth() / FOOT_WIDTH)
    text = textwrap.fill(foot, width, break_on_hyphens=False)
    figure.supxlabel(text, x=0.015, ha="left", fontsize=6.5, color="#57606a")
    figure.patch.set_linewidth(2)
    metadata = {"Date": None, "Creator": None, "Description": foot}
    figure.savefig(path, format="svg", metadata=metadata, edgecolor=FAINT)
