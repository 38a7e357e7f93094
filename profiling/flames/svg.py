"""Flame graphs as SVG, from folded stacks: the same stacks give the same bytes.

Width is the share of the samples, callers stand below what they called, neighbours are in
alphabetical order: from left to right nothing passes. Each frame has a tooltip. There is no script
in them; to zoom and to search, open the .speedscope.json of the same name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from flames.stacks import KINDS, KINDS_TOLD, Frame, Stacks, function, kind, source

WIDTH, MARGIN = 1200, 12
ROW, TEXT = 18, 12
LETTER = 7.3
"""Pixels that a letter of size TEXT takes in the fonts that are asked for; somewhat generous."""
SMALLEST = 3
"""Letters below which no text is put into a frame."""
COLOURS = {
    "send": "#f4a582",
    "recv": "#92c5de",
    "wait": "#c9c9c9",
    "log": "#d8b8e8",
    "parse": "#a6d96a",
    "room": "#fee08b",
    "loop": "#b8d8c8",
    "rest": "#eeeeee",
}
MIXED, MOST = "#f7f3e8", 0.9
"""The colour of a frame of whose samples no kind has this part."""


@dataclass
class Node:
    """A frame with what was called from it. kinds: of the samples in this frame and above."""

    name: str
    count: int = 0
    before: int = 0
    """Of the other server's samples, in a picture of two."""
    kinds: Counter[str] = field(default_factory=Counter)
    children: dict[str, Node] = field(default_factory=dict)

    def child(self, name: str) -> Node:
        return self.children.setdefault(name, Node(name))

    def depth(self) -> int:
        return 1 + max((child.depth() for child in self.children.values()), default=0)


def tree(stacks: Stacks) -> Node:
    root = Node("all", sum(stacks.values()))
    for stack, count in stacks.items():
        node = root
        node.kinds[kind(stack)] += count
        for name in stack.split(";"):
            node = node.child(name)
            node.count += count
            node.kinds[kind(stack)] += count
    return root


def _colour(node: Node) -> str:
    most = max(KINDS, key=lambda name: node.kinds[name])
    return COLOURS[most] if node.kinds[most] >= MOST * node.count else MIXED


def flame_graph(stacks: Stacks, title: str, subtitle: Sequence[str]) -> str:
    """One server. The colour of a frame is that of what nearly all of its samples did."""
    root = tree(stacks)
    samples = root.count

    def boxes(node: Node, left: int, y: int) -> Iterator[str]:
        share = f"{node.count:,} of {samples:,} samples, {node.count / samples:.1%}"
        kinds = ", ".join(
            f"{name} {node.kinds[name] / samples:.1%}" for name in KINDS if node.kinds[name]
        )
        text = source(node.name)
        tooltip = [node.name, share, kinds] + ([text] if text else [])
        yield _box(node.name, tooltip, _colour(node), left / samples, node.count / samples, y)
        for name in sorted(node.children):
            yield from boxes(node.children[name], left, y - ROW)
            left += node.children[name].count

    legend = [(COLOURS[name], name, KINDS_TOLD[name]) for name in KINDS if root.kinds[name]]
    legend.append((MIXED, "mixed", f"less than {MOST:.0%} of a frame are of one of these"))
    bottom = _bottom(subtitle, root)
    return _picture(title, subtitle, bottom, boxes(root, 0, bottom - ROW), legend)


def difference(a: Stacks, b: Stacks, names: tuple[str, str], subtitle: Sequence[str]) -> str:
    """Two servers. A frame is as wide as its share in the one and in the other together, so that
    none is left out; it is blue where the first has more of it, and red where the second has."""
    sums = sum(a.values()), sum(b.values())
    root = Node("all", sums[1], sums[0])
    for stacks, first in ((a, True), (b, False)):
        for stack, count in stacks.items():
            node = root
            for text in stack.split(";"):
                node = node.child(function(text))
                if first:
                    node.before += count
                else:
                    node.count += count

    def boxes(node: Node, left: float, y: int) -> Iterator[str]:
        was, now = node.before / sums[0], node.count / sums[1]
        tooltip = [
            node.name,
            f"{names[0]}: {was:.1%}, {names[1]}: {now:.1%}, difference {100 * (now - was):+.1f}",
        ]
        colour = _between((now - was) / (now + was))
        yield _box(node.name, tooltip, colour, left, (was + now) / 2, y)
        for name in sorted(node.children):
            child = node.children[name]
            yield from boxes(child, left, y - ROW)
            left += (child.before / sums[0] + child.count / sums[1]) / 2

    legend = [
        (_between(-1), f"only {names[0]}", ""),
        (_between(-0.5), f"three times more in {names[0]}", ""),
        (_between(0), "the same share", ""),
        (_between(0.5), f"three times more in {names[1]}", ""),
        (_between(1), f"only {names[1]}", ""),
    ]
    title = f"{names[0]} and {names[1]}: where they spend their time"
    bottom = _bottom(subtitle, root)
    return _picture(title, subtitle, bottom, boxes(root, 0.0, bottom - ROW), legend)


def _between(balance: float) -> str:
    """-1: blue; 0: nearly white; 1: red; all of them light enough for black text."""
    ends = (0x8F, 0xB8, 0xF2) if balance < 0 else (0xF5, 0x9A, 0x8C)
    mixed = (round(0xF4 + (end - 0xF4) * abs(balance)) for end in ends)
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _box(name: str, tooltip: Sequence[str], colour: str, left: float, width: float, y: int) -> str:
    """left, width: as parts of all samples."""
    span = WIDTH - 2 * MARGIN
    x, w = MARGIN + left * span, width * span
    letters = int((w - 6) / LETTER)
    text = ""
    if letters >= SMALLEST:
        shown = name if len(name) <= letters else Frame.of(name).function
        shown = shown if len(shown) <= letters else shown[: letters - 1] + "…"
        text = f'<text x="{x + 3:.1f}" y="{y + 13}">{escape(shown)}</text>'
    return (
        f'<g><title>{escape(chr(10).join(tooltip))}</title><rect x="{x:.2f}" y="{y}" '
        f'width="{max(w - 0.5, 0.2):.2f}" height="{ROW - 1}" fill="{colour}"/>{text}</g>'
    )


def _bottom(subtitle: Sequence[str], root: Node) -> int:
    """Where the row of the root ends."""
    return 40 + 16 * len(subtitle) + ROW * root.depth()


def _picture(
    title: str,
    subtitle: Sequence[str],
    bottom: int,
    boxes: Iterable[str],
    legend: Sequence[tuple[str, str, str]],
) -> str:
    height = bottom + 22 + ROW * ((len(legend) + 1) // 2)
    head = [f'<text x="{MARGIN}" y="26" font-size="17">{escape(title)}</text>']
    for number, line in enumerate(subtitle):
        y = 46 + 16 * number
        head.append(f'<text x="{MARGIN}" y="{y}" fill="#444">{escape(line)}</text>')
    foot = []
    for number, (colour, name, told) in enumerate(legend):
        x = MARGIN + (number % 2) * (WIDTH // 2 - MARGIN)
        y = bottom + 12 + ROW * (number // 2)
        foot.append(
            f'<rect x="{x}" y="{y}" width="14" height="12" fill="{colour}" stroke="#999" '
            f'stroke-width="0.5"/><text x="{x + 20}" y="{y + 11}">{escape(name)}'
            + (f'<tspan fill="#555" dx="8">{escape(told)}</tspan>' if told else "")
            + "</text>"
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="Verdana, DejaVu Sans, sans-serif" font-size="{TEXT}">\n'
        f"<title>{escape(title)}</title>\n"
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
        + "\n".join([*head, *boxes, *foot])
        + "\n</svg>\n"
    )
