"""Tables of text, for Markdown and for the terminal: one writer for all results."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate


def table(rows: Sequence[Sequence[str]], *, style: str = "pipe", numbers: bool = True) -> str:
    """The first row is the head. style: "pipe", which is Markdown's, or "plain", for the terminal.
    numbers: all columns but the first are numbers, and stand to the right."""
    head, *body = rows
    columns = ["left", *["right" if numbers else "left"] * (len(head) - 1)]
    # Cells stay as they are given: 1.50 must not become 1.5.
    return tabulate(body, head, style, colalign=columns if body else None, disable_numparse=True)
