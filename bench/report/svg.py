"""Charts as inline SVG: bars in groups, and lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from bench.report.text import number

COLOURS = ("#4878a8", "#e07b39", "#59a14f", "#b07aa1", "#9c755f", "#d4a72c", "#777777", "#c23b5a")
_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 30, 58


@dataclass(slots=True, frozen=True)
class Series:
    """One system's values: a line's points ``(x, y)``."""

    name: str
    points: Sequence[tuple[float, float]]
    spread: Sequence[tuple[float, float]] = ()  # the lowest and highest of each point's rounds


def bars(title: str, groups: Sequence[str], values: Sequence[tuple[str, Sequence[float | None]]], unit: str,
         *, spread: Sequence[Sequence[tuple[float, float] | None]] = (), x_title: str = "") -> str:
    """A bar for each system in each group; ``values``: ``(system, a value for each group)``.

    ``spread``: the lowest and highest round, in the order of ``values``, drawn over the bars.
    """
    known = [v for _, row in values for v in row if v is not None]
    known += [ends[1] for row in spread for ends in row if ends is not None]
    if not known:
        return ""
    longest = max(len(word) for group in groups for word in group.split())
    height = _HEIGHT
    width = max(_WIDTH, _LEFT + _RIGHT + len(groups) * max(26 * len(values), 6 * longest + 8))
    axis = _Axis(0.0, max(known) or 1.0, height - _BOTTOM, _TOP)
    step = (width - _LEFT - _RIGHT) / len(groups)
    wide = min(46.0, step * 0.8 / len(values))
    out = [*_frame(title, unit, width, height), *axis.grid(width)]
    for g, group in enumerate(groups):
        middle = _LEFT + step * (g + 0.5)
        for s, (name, row) in enumerate(values):
            value = row[g]
            if value is None:
                continue
            x = middle + wide * (s - len(values) / 2)
            y = axis.place(value)
            ends = spread[s][g] if spread else None
            out.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide - 2:.1f}" '
                f'height="{max(0.5, axis.low_y - y):.1f}" '
                f'fill="{COLOURS[s % len(COLOURS)]}"><title>{escape(name)}, {escape(group)}: {number(value)} '
                f"{escape(unit)}{_between(ends)}</title></rect>"
            )
            out += _whisker(x + wide / 2 - 1, ends, axis)
            out.append(f'<text x="{x + wide / 2 - 1:.1f}" y="{y - 3:.1f}" class="v">{number(value)}</text>')
        out += _words(group, middle, height - _BOTTOM + 14, step)
    out += _x_title(x_title, (_LEFT + width - _RIGHT) / 2, height)
    return "\n".join([*out, *_legend([name for name, _ in values], width), "</svg>"])


def lines(title: str, series: Sequence[Series], unit: str, ticks: Sequence[tuple[float, str]], *,
          log_x: bool = False, log_y: bool = False, x_title: str = "") -> str:
    """A line for each system. ``ticks``: places on the x axis with their labels."""
    if not any(one.points for one in series):
        return ""
    axis = _y_axis(series, log=log_y)
    across = _x_axis([x for one in series for x, _ in one.points] + [x for x, _ in ticks], log=log_x)
    names = [one.name for one in series]
    beside = sum(7 * len(name) + 22 for name in names) > _WIDTH - _LEFT - 7 * len(title)
    width = _WIDTH + (7 * max(map(len, names)) + 30 if beside else 0)
    out = [*_frame(title, unit, width, _HEIGHT), *axis.grid(_WIDTH)]
    for x, text in ticks:
        out.append(f'<text x="{across(x):.1f}" y="{_HEIGHT - _BOTTOM + 14}" class="x">{escape(text)}</text>')
    for s, one in enumerate(series):
        out += _line(one, COLOURS[s % len(COLOURS)], unit, across, axis)
    out += _x_title(x_title, (_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 20)
    return "\n".join([*out, *(_list(names) if beside else _legend(names, width)), "</svg>"])


def _line(one: Series, colour: str, unit: str, across: Callable[[float], float], axis: _Axis) -> list[str]:
    path = " ".join(f"{across(x):.1f},{axis.place(y):.1f}" for x, y in one.points)
    out = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for i, (x, y) in enumerate(one.points):
        ends = one.spread[i] if one.spread else None
        out += _whisker(across(x), ends, axis)
        out.append(f'<circle cx="{across(x):.1f}" cy="{axis.place(y):.1f}" r="4" fill="{colour}">'
                   f"<title>{escape(one.name)}: {number(y)} {escape(unit)}{_between(ends)}</title></circle>")
    return out


def _x_axis(xs: Sequence[float], *, log: bool) -> Callable[[float], float]:
    """Values to places."""
    shape = math.log10 if log else float
    low, high = min(map(shape, xs)), max(map(shape, xs))
    return lambda x: _LEFT + 16 + (shape(x) - low) / ((high - low) or 1.0) * (_WIDTH - _LEFT - _RIGHT - 32)


def _y_axis(series: Sequence[Series], *, log: bool) -> _Axis:
    ys = [y for one in series for _, y in one.points]
    ys += [end for one in series for ends in one.spread for end in ends]
    low = min((y for y in ys if y > 0), default=0.0) if log else 0.0
    return _Axis(low, max(ys) or 1.0, _HEIGHT - _BOTTOM, _TOP, log=low > 0)


class _Axis:
    """The y axis: values to places, and the lines across."""

    def __init__(self, low: float, high: float, low_y: float, high_y: float, *, log: bool = False) -> None:
        self.low_y = low_y
        self._high_y = high_y
        self._log = log
        if log:
            self._low = float(math.floor(math.log10(low)))
            self._high = max(float(math.ceil(math.log10(high))), self._low + 1)
            self._marks = [10.0 ** power for power in range(int(self._low), int(self._high) + 1)]
        else:
            step = 10.0 ** math.floor(math.log10(high))
            step = next((step * m for m in (0.1, 0.2, 0.25, 0.5, 1.0) if high / (step * m) <= 6), step * 2)
            self._low, self._high = 0.0, step * math.ceil(high / step)
            self._marks = [step * i for i in range(round(self._high / step) + 1)]

    def place(self, value: float) -> float:
        shaped = math.log10(max(value, 10.0 ** self._low)) if self._log else value
        return self.low_y - (shaped - self._low) / (self._high - self._low) * (self.low_y - self._high_y)

    def grid(self, width: float) -> list[str]:
        out = []
        for mark in self._marks:
            y = self.place(mark)
            out.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{width - _RIGHT}" y2="{y:.1f}" class="g"/>')
            out.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" class="y">{number(mark)}</text>')
        return out


def _between(ends: tuple[float, float] | None) -> str:
    return f" ({number(ends[0])} to {number(ends[1])})" if ends is not None else ""


def _whisker(x: float, ends: tuple[float, float] | None, axis: _Axis) -> list[str]:
    """From the lowest to the highest round."""
    if ends is None or ends[0] == ends[1]:
        return []
    low, high = axis.place(ends[0]), axis.place(ends[1])
    ends_of_it = f"M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8"
    return [f'<path d="{ends_of_it}M{x:.1f} {low:.1f}V{high:.1f}" class="w"/>']


def _x_title(text: str, x: float, height: float) -> list[str]:
    return [f'<text x="{x:.0f}" y="{height - 6:.0f}" class="x u">{escape(text)}</text>'] if text else []


def _frame(title: str, unit: str, width: float, height: float) -> list[str]:
    return [
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img" '
        f'aria-label="{escape(title)}">',
        f'<text x="{_LEFT}" y="16" class="t">{escape(title)}</text>',
        f'<text x="4" y="16" class="u">{escape(unit)}</text>',
    ]


def _legend(names: Sequence[str], width: float) -> list[str]:
    out, x = [], width - _RIGHT
    for s, name in reversed(list(enumerate(names))):
        x -= 7.0 * len(name) + 22
        out.append(f'<rect x="{x:.0f}" y="7" width="11" height="11" fill="{COLOURS[s % len(COLOURS)]}"/>')
        out.append(f'<text x="{x + 15:.0f}" y="17" class="l">{escape(name)}</text>')
    return out


def _list(names: Sequence[str]) -> list[str]:
    """A legend to the right of the chart, one name below the other."""
    out = []
    for s, name in enumerate(names):
        y = _TOP + 18 * s
        colour = COLOURS[s % len(COLOURS)]
        out.append(f'<rect x="{_WIDTH + 4}" y="{y}" width="11" height="11" fill="{colour}"/>')
        out.append(f'<text x="{_WIDTH + 19}" y="{y + 10}" class="l">{escape(name)}</text>')
    return out


def _words(text: str, x: float, y: float, room: float) -> list[str]:
    """A label in at most three lines."""
    lines_, line = [], ""
    for word in text.split():
        if line and 6.0 * (len(line) + 1 + len(word)) > room:
            lines_.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    lines_.append(line)
    return [f'<text x="{x:.1f}" y="{y + 11 * i:.1f}" class="x">{escape(part)}</text>'
            for i, part in enumerate(lines_[:3])]
