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
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from benchmarks.compare.tables import idle, number
from benchmarks.harness.environment import sentence
from benchmarks.harness.server import BROADCASTING, SERVERS

CARD, INK, FAINT = "#fbfaf7", "#24292f", "#d5d3cc"
REFERENCE = "#24292f"
COLOURS = (
    *("#c2410c", "#7c3aed", "#0369a1", "#15803d", "#be185d", "#a16207"),
    *("#0f766e", "#b91c1c", "#4338ca", "#57534e", "#a21caf"),
)
KIN = "(blue: ours, red: peers, black: C)"
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
    "legend.frameon": False,
}
FOOT_WIDTH = 0.0533  # inches that a character of the foot needs
LINE = 0.037  # of text, of the height of the axes

Found = dict[str, Any]


def draw(results: Found, folder: Path) -> None:
    """Write every chart of tables.PICTURES into a folder."""
    found = results["derived"]
    foot = sentence(results["environment"]).replace("`", "")
    foot += f"; {results['parameters']['placement']}"
    with matplotlib.rc_context(STYLE):
        for name, figure in {
            "cpu-per-delivery.svg": cpu_per_delivery(results, found),
            "coalescing.svg": coalescing(results, found),
            "latency.svg": latency(results, found),
            "memory.svg": memory(results, found),
            "readiness.svg": readiness(results, found),
        }.items():
            _save(figure, foot, folder / name)


def cpu_per_delivery(results: Found, found: Found) -> Figure:
    """Ours and the peers side by side, on the same axes; the C reference in both."""
    figure = _figure(10, 5.2, "Server CPU time per delivery in a flood, µs")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    labels: list[tuple[Axes, dict[str, tuple[float, float, str]]]] = []
    servers, cost = results["parameters"]["servers"], found["cpu_us"]
    for axes, title, names in (
        (left, "ours", [name for name in servers if name in BROADCASTING or name == "c"]),
        (right, "peers", [name for name in servers if name not in BROADCASTING]),
    ):
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel("clients")
        axes.set_yscale("log")
        ends: dict[str, tuple[float, float, str]] = {}
        for name in names:
            points = _floods(results, cost, name)
            if points:
                colour, dashes = _colour(name, names)
                heights = [spread["median"] for _, spread in points]
                counts = [count for count, _ in points]
                axes.plot(counts, heights, dashes, color=colour, marker="o", markersize=3.5)
                axes.fill_between(
                    counts,
                    [spread["min"] for _, spread in points],
                    [spread["max"] for _, spread in points],
                    color=colour,
                    alpha=0.12,
                    linewidth=0,
                )
                ends[name] = (counts[-1], heights[-1], colour)
        _counts(axes, [count for count, _ in _floods(results, cost, None)])
        _plain(axes.yaxis)
        labels.append((axes, ends))
    for axes, ends in labels:
        _label_ends(axes, ends)
    return figure


def readiness(results: Found, found: Found) -> Figure:
    figure = _figure(7, 4.4, "CPU time of one wait: one descriptor ready, K idle, µs")
    axes = figure.subplots()
    axes.set_yscale("log")
    axes.set_xlabel("K, idle descriptors")
    ends: dict[str, tuple[float, float, str]] = {}
    counts = results["parameters"]["descriptors"]
    waits = {count: found["wait_us"].get(f"wait {count}", {}) for count in counts}
    for colour, kind in zip(COLOURS, dict.fromkeys(kind for n in counts for kind in waits[n])):
        points = {n: waits[n][kind]["median"] for n in counts if kind in waits[n]}
        axes.plot([*points], [*points.values()], color=colour, marker="o", markersize=4)
        limits = [
            f"\n{int(problem['workload'].split()[1]):,} is {problem['reason']}"
            for problem in results["problems"]
            if problem["server"] == kind
        ]
        ends["".join([kind, *limits])] = (*[*points.items()][-1], colour)
    _counts(axes, counts)
    _plain(axes.yaxis)
    _label_ends(axes, ends)
    return figure


def latency(results: Found, found: Found) -> Figure:
    """A dot at half of the deliveries, a bar at 99 of 100; one panel for each number of clients."""
    workloads = [w for w in results["parameters"]["workloads"] if w.startswith("lock-step")]
    servers = results["parameters"]["servers"]
    figure = _rows(servers, 9, f"Latency of deliveries in lock-step, µs, p50 to p99 {KIN}")
    for axes, workload in zip(_panels(figure, max(1, len(workloads))), workloads):
        axes.set_title(f"{workload.split()[1]} clients", loc="left", fontsize=10)
        axes.set_xscale("log")
        _plain(axes.xaxis)
        for row, name in enumerate(servers):
            half = found["p50_us"].get(workload, {}).get(name)
            most = found["p99_us"].get(workload, {}).get(name)
            if half and most:
                colour = _kin(name)
                axes.plot([half["median"], most["median"]], [row, row], color=colour, alpha=0.6)
                axes.plot(half["median"], row, "o", color=colour, markersize=5)
                axes.plot(most["median"], row, "|", color=colour, markersize=8)
        _name_rows(axes, servers)
    return figure


def coalescing(results: Found, found: Found) -> Figure:
    servers = results["parameters"]["servers"]
    figure = _rows(servers, 7.5, "Messages per send in a flood")
    axes = _panels(figure, 1)[0]
    axes.set_xscale("log")
    _plain(axes.xaxis)
    markers = "osD^v"
    for index, (count, _) in enumerate(_floods(results, found["messages_per_send"], None)):
        of_servers = found["messages_per_send"][f"flood {count}"]
        rows = [row for row, name in enumerate(servers) if name in of_servers]
        axes.plot(
            [of_servers[servers[row]]["median"] for row in rows],
            rows,
            markers[index % len(markers)],
            color=COLOURS[(2, 0, 3, 1, 4)[index % 5]],
            markersize=5.5,
            alpha=0.85,
            label=f"{count} clients",
        )
    if axes.lines:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8.5)
    _name_rows(axes, servers)
    return figure


def memory(results: Found, found: Found) -> Figure:
    servers, kib = idle(results), found["memory_kib"].get("memory", {})
    figure = _rows(servers, 7.5, f"Private memory per connection, KiB {KIN}")
    axes = _panels(figure, 1)[0]
    for row, name in enumerate(servers):
        if name in kib:
            length, least, most = (max(0.0, kib[name][key]) for key in ("median", "min", "max"))
            error = [[length - least], [most - length]]
            axes.barh(row, length, xerr=error, color=_kin(name), ecolor=CARD, height=0.62)
            text = f"  {number(kib[name]['median'], 2)}"
            axes.text(most, row, text, va="center", fontsize=8)
    axes.margins(x=0.08)
    axes.set_xlim(left=0)
    _name_rows(axes, servers)
    return figure


def _figure(width: float, height: float, title: str) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.07)  # inches
    figure = Figure(figsize=(width, height), layout=layout, facecolor=CARD)
    figure.suptitle(title, x=0.015, ha="left", fontsize=11.5, fontweight="bold")
    return figure


def _rows(servers: Sequence[str], width: float, title: str) -> Figure:
    return _figure(width, 1.5 + 0.21 * len(servers), title)


def _panels(figure: Figure, count: int) -> list[Axes]:
    return list(figure.subplots(1, count, sharey=True, squeeze=False)[0])


def _name_rows(axes: Axes, servers: Sequence[str]) -> None:
    axes.set_yticks(range(len(servers)), servers)
    axes.set_ylim(len(servers) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _counts(axes: Axes, counts: Sequence[int]) -> None:
    """These numbers of clients or descriptors along the x axis."""
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.xaxis.set_minor_locator(ticker.NullLocator())


def _plain(axis: Axis) -> None:
    """A logarithmic axis with plain numbers."""
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(ticker.NullLocator())


def _floods(results: Found, figure: Found, name: str | None) -> list[tuple[int, Any]]:
    """(clients, Spread) of a server's floods; of the floods that anyone did, if None."""
    floods = (w for w in results["parameters"]["workloads"] if w.startswith("flood"))
    return [
        (int(workload.split()[1]), figure[workload].get(name))
        for workload in floods
        if workload in figure and (name is None or name in figure[workload])
    ]


def _colour(name: str, names: Sequence[str]) -> tuple[str, str]:
    """Of a line. Variants of a server have its colour, and are dashed."""
    if name.split()[0] == "c":
        return REFERENCE, "--" if " " in name else "-"
    kinds = list(dict.fromkeys(other.split()[0] for other in names if other != "c"))
    return COLOURS[kinds.index(name.split()[0]) % len(COLOURS)], "--" if " " in name else "-"


def _kin(name: str) -> str:
    """Of a row: ours, the reference, the peers."""
    if name.split()[0] == "c":
        return REFERENCE
    return COLOURS[2] if name in SERVERS else COLOURS[0]


def _label_ends(axes: Axes, ends: Mapping[str, tuple[float, float, str]]) -> None:
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
