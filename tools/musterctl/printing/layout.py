"""Columns: Go's tabwriter for help texts, and the ASCII grid of ``-w table``."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_TAB = 8
_WRAP_WIDTH = 30  # etcdctl's table library breaks longer cells, at spaces
_NO_WIDTH = ("Cc", "Cf", "Me", "Mn")  # controls, joiners, accents of their own
_TOO_LONG = 100_000  # cost of a line over the width: worse than any ragged edge


def align_tabs(source: str) -> str:
    """``text/tabwriter`` with tab stops of 8 and one cell of padding.

    A column is a run of neighbouring lines with a tab-ended cell in that place, padded with tabs to the
    widest one. Text after a line's last tab is in no column.
    """
    lines = [line.split("\t") for line in source.split("\n")]
    widths: list[list[int]] = [[0] * (len(cells) - 1) for cells in lines]
    for column in range(max(len(w) for w in widths)):
        start = 0
        while start < len(lines):
            end = start
            while end < len(lines) and len(widths[end]) > column:
                end += 1
            if end > start:
                longest = max(len(lines[i][column]) for i in range(start, end)) + 1
                for i in range(start, end):
                    widths[i][column] = -(-longest // _TAB) * _TAB
            start = end + 1
    out = []
    for cells, row in zip(lines, widths, strict=True):
        padded = [
            cell + "\t" * -(-(width - len(cell)) // _TAB) for cell, width in zip(cells[:-1], row, strict=True)
        ]
        out.append("".join(padded) + cells[-1])
    return "\n".join(out)


def _columns(text: str) -> int:
    """How wide a terminal shows it."""
    return sum(
        1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text if unicodedata.category(letter) not in _NO_WIDTH)


def wrap(cell: str, width: int = _WRAP_WIDTH) -> list[str]:
    """The cell's lines, broken at spaces with the least ragged right edge."""
    if _columns(cell) <= width:
        return [cell]
    words = cell.split()
    width = max([width, *map(_columns, words)])
    count = len(words)
    best = [0] * (count + 1)
    breaks = [count] * (count + 1)
    for first in range(count - 1, -1, -1):
        if _columns(" ".join(words[first:])) <= width:
            continue
        costs = []
        for after in range(first + 1, count):
            length = _columns(" ".join(words[first:after]))
            costs.append(((width - length) ** 2 + best[after] + (_TOO_LONG if length > width else 0), after))
        if costs:
            best[first], breaks[first] = min(costs)
    lines, at = [], 0
    while at < count:
        lines.append(" ".join(words[at : breaks[at]]))
        at = breaks[at]
    return lines or [""]


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """``-w table``: header centred, cells to the right."""
    wrapped = [[wrap(cell) for cell in row] for row in rows]
    widths = [len(title) for title in header]
    for row in wrapped:
        widths = [max([width, *map(_columns, cell)]) for width, cell in zip(widths, row, strict=True)]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+\n"
    titles = []
    for title, width in zip(header, widths, strict=True):
        left = (width - len(title)) // 2
        titles.append(" " * left + title + " " * (width - len(title) - left))
    out = [rule, "| ", " | ".join(titles), " |\n", rule]
    for row in wrapped:
        for line in range(max(len(cell) for cell in row)):
            texts = [cell[line] if line < len(cell) else "" for cell in row]
            parts = [
                " " * (width - _columns(text)) + text for text, width in zip(texts, widths, strict=True)]
            out += ["| ", " | ".join(parts), " |\n"]
    out.append(rule)
    return "".join(out)
