"""Lines of a chart, from what the recorder kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tools.console.store.charts.recorder import Line, Look, Recorder

MOST_LINES = 8
OTHERS = "…"


@dataclass(frozen=True, slots=True)
class Chart:
    """``names``: of values; one that ends with a slash is a group, a line each, added up over hosts. Others
    have a line for each host. ``factor`` brings values into the unit."""

    name: str
    names: tuple[str, ...]
    unit: Literal["/s", "/min", "ms", "MiB", "CPU", ""]
    factor: float = 1.0
    stacked: bool = False


CHARTS = (
    Chart("requests", ("requests/",), "/s", stacked=True),
    Chart("handling", ("handling/p50", "handling/p99"), "ms", 1000),
    Chart("errors", ("errors/",), "/s", stacked=True),
    Chart("slow", ("slow/",), "/min", 60, stacked=True),
    Chart("fsync", ("fsync/p50", "fsync/p99"), "ms", 1000),
    Chart("apply", ("apply/p50", "apply/p99"), "ms", 1000),
    Chart("watches", ("watches",), ""),
    Chart("events", ("events",), "/s"),
    Chart("elections", ("elections",), "/min", 60),
    Chart("cpu", ("cpu",), "CPU"),
    Chart("memory", ("memory",), "MiB", 1 / 2**20),
)


def shared(recorder: Recorder, chart: Chart, host: str = "") -> dict[str, Line]:
    """The lines of a chart as of the last look, made once for all browsers."""
    known = {one for look in recorder.looks for one in look.hosts}
    if host and host not in known:
        return {}
    last = recorder.drawn.get((chart.name, host))
    if last is None or last[0] != recorder.count:
        last = recorder.count, lines(chart, list(recorder.looks), host)
        recorder.drawn[chart.name, host] = last
    return last[1]


def lines(chart: Chart, looks: Sequence[Look], host: str = "") -> dict[str, Line]:
    """The lines of a chart by name, those of one host or of all."""
    if chart.names[0].endswith("/"):
        return _added(chart, looks, host)
    found: dict[str, Line] = {}
    hosts = sorted({one for look in looks for one in look.hosts if not host or one == host})
    for name in chart.names:
        word = name.partition("/")[2]
        for one in hosts:
            line = [
                (look.at_s * 1000, _value(chart, look.hosts[one].get(name)) if one in look.hosts else None)
                for look in looks
            ]
            if any(value is not None for _, value in line):
                found[f"{one} {word}".rstrip()] = line
    return found


def _value(chart: Chart, value: float | None) -> float | None:
    """Rates and gauges that are not told are zero; a percentile of nothing is none."""
    if value is None:
        return None if chart.unit == "ms" else 0.0
    return round(value * chart.factor, 3)


def _added(chart: Chart, looks: Sequence[Look], host: str) -> dict[str, Line]:
    group = chart.names[0]
    sums: list[dict[str, float]] = []
    whole: dict[str, float] = {}
    for look in looks:
        one: dict[str, float] = {}
        for name, values in look.hosts.items():
            if host and name != host:
                continue
            for key, value in values.items():
                if key.startswith(group):
                    key = key.removeprefix(group)
                    one[key] = one.get(key, 0.0) + value * chart.factor
                    whole[key] = whole.get(key, 0.0) + value
        sums.append(one)
    shown = sorted(whole, key=lambda key: -whole[key])[:MOST_LINES]
    found: dict[str, Line] = {
        key: [(look.at_s * 1000, round(one.get(key, 0.0), 3)) for look, one in zip(looks, sums, strict=True)]
        for key in shown
    }
    if len(whole) > len(shown):
        found[OTHERS] = [
            (look.at_s * 1000, round(sum(value for key, value in one.items() if key not in found), 3))
            for look, one in zip(looks, sums, strict=True)
        ]
    return found


def latest(line: Line) -> float:
    """The last value that was told."""
    return next((value for _, value in reversed(line) if value is not None), 0.0)
