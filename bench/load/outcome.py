"""One line or CSV of a run's result, thresholds, ratios to saved runs."""

from __future__ import annotations

import csv
import io
import json
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.load.run import SCHEMA
from bench.load.stats import QUANTILES
from bench.report.text import number

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LATENCIES = ("mean", "min", *(name for name, _ in QUANTILES), "max")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_THRESHOLD = re.compile(r"\s*([a-z0-9._]+)\s*(>=|<=|>|<)\s*([0-9.]+)\s*([a-zµ%]*)\s*")


def seconds(text: str, *, bare: float | None = None) -> float:
    """A duration as Go writes it, 1m30s; ``bare``: the seconds of a number without unit, else refused.

    ValueError for other text.
    """
    if bare is not None and re.fullmatch(r"\d+(\.\d*)?|\.\d+", text):
        return float(text) * bare
    parts = re.findall(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", text)
    if text != ("".join(digits + unit for digits, unit in parts) or "0"):
        raise ValueError(f'invalid duration "{text}"')
    return sum(float(digits) * _UNITS_S[unit] for digits, unit in parts)


# -- figures


def errors_of(result: dict[str, Any]) -> int:
    return int(sum(result["errors"].values()))


def figures(result: dict[str, Any]) -> dict[str, float]:
    """Figures for thresholds: milliseconds, per second, counts, microseconds of the servers' CPU."""
    found = {name: float(result["latency_ms"][name]) for name in _LATENCIES}
    found |= {"throughput": result["throughput_per_s"], "operations": float(result["operations"]),
              "errors": float(errors_of(result)), "duration": result["duration_s"]}
    if result["server"] is not None:
        found["cpu"] = result["server"]["us_per_op"]
    return found


@dataclass(slots=True, frozen=True)
class Threshold:
    """One condition of ``--fail-if``."""

    text: str
    figure: str
    sign: str
    value: float  # in the figure's own unit
    percent: bool = False  # of all operations

    def met(self, result: dict[str, Any]) -> bool:
        """Whether a run fails by it. ValueError for a figure that the run lacks."""
        found = figures(result)
        if self.figure not in found:
            raise ValueError(f"--fail-if {self.text}: this run has no figure {self.figure}")
        value = found[self.figure]
        if self.percent:
            value *= 100 / max(1.0, found["operations"] + found["errors"])
        return _COMPARE[self.sign](value, self.value)


def thresholds(text: str) -> list[Threshold]:
    """The conditions of ``--fail-if``. ValueError for an unknown figure, sign or unit."""
    found = []
    for part in (p for p in text.split(",") if p.strip()):
        match = _THRESHOLD.fullmatch(part)
        if match is None:
            raise ValueError(f"--fail-if {part}: not FIGURE>VALUE, such as p99>20ms or errors>1%")
        figure, sign, digits, unit = match.groups()
        value = float(digits)
        if figure in _LATENCIES:
            value = 1000 * seconds(digits + unit, bare=1e-3)
        elif figure == "duration":
            value = seconds(digits + unit, bare=1.0)
        elif figure not in ("throughput", "operations", "errors", "cpu"):
            known = ", ".join((*_LATENCIES, "throughput", "operations", "errors", "cpu", "duration"))
            raise ValueError(f"--fail-if {part}: no figure {figure}; there are {known}")
        elif unit not in (("", "%") if figure == "errors" else ("", "us") if figure == "cpu" else ("",)):
            raise ValueError(f"--fail-if {part}: {figure} has no unit {unit}")
        found.append(Threshold(part.strip(), figure, sign, value, unit == "%"))
    return found


# -- forms


def one_line(result: dict[str, Any]) -> str:
    latency = result["latency_ms"]
    line = (f"{result['command']}, {result['settings']['clients']:,} clients: {result['operations']:,} "
            f"operations in {result['duration_s']:.2f} s, {result['throughput_per_s']:,.0f}/s, "
            f"mean {number(latency['mean'])} ms, p99 {number(latency['p99'])} ms, "
            f"max {number(latency['max'])} ms, {errors_of(result):,} errors")
    return line + (", interrupted" if result["interrupted"] else "")


def table(results: Sequence[dict[str, Any]]) -> str:
    """CSV with a head; latencies are in milliseconds."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([
        "started_at", "command", "clients", "conns", "rate_per_s", "operations", "errors", "duration_s",
        "throughput_per_s", *(f"{name}_ms" for name in _LATENCIES), "server_us_per_op", "interrupted"])
    for result in results:
        settings, server = result["settings"], result["server"]
        writer.writerow([
            result["started_at"], result["command"], settings["clients"], settings["conns"],
            settings["rate_per_s"], result["operations"], errors_of(result),
            f"{result['duration_s']:.3f}", f"{result['throughput_per_s']:.1f}",
            *(f"{result['latency_ms'][name]:.3f}" for name in _LATENCIES),
            "" if server is None else f"{server['us_per_op']:.2f}", int(result["interrupted"])])
    return out.getvalue()


# -- saved runs


def results_in(path: Path) -> list[Any]:
    """What a file holds: a list of results, or one. ValueError, OSError."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{path}: not a result of muster-bench: not JSON") from None
    return loaded if isinstance(loaded, list) else [loaded]


def saved(path: Path) -> list[dict[str, Any]]:
    """The runs in a file of ``--save`` or ``--json``. ValueError if it has none, OSError if unread."""
    runs = results_in(path)
    if not all(isinstance(one, dict) and one.get("schema") == SCHEMA for one in runs):
        raise ValueError(f"{path}: not a run that muster-bench saved")
    return runs


def look_back(result: dict[str, Any], path: Path, runs: Sequence[dict[str, Any]]) -> str:
    """The ratios of a run to the saved one of the same command and number of clients, in one line."""
    same = [one for one in runs if one["command"] == result["command"]
            and one["settings"]["clients"] == result["settings"]["clients"]]
    if not same:
        return f"{path}: has no {result['command']} with {result['settings']['clients']:,} clients"
    before, now = figures(same[-1]), figures(result)
    ratios = [f"{name} {now[name] / before[name]:.2f}" for name in ("throughput", "mean", "p99", "cpu")
              if before.get(name) and name in now]
    return f"over {path} ({same[-1]['started_at']}): {', '.join(ratios)}"
