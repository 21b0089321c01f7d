"""Figures of single runs, their ratios between systems, and targets met or missed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from bench.compare.matrix import Cell

#: The figures of a run that are compared.
FIGURES = ("throughput_per_s", "mean_ms", "p50_ms", "p99_ms", "max_ms", "server_us_per_op",
           "server_rss_bytes", "written_per_op", "syncs_per_op", "p99_growth", "to_all_ms", "watcher_bytes",
           "errors")
#: A figure's ratio to the first system's: ``median``, ``low`` and ``high`` over the rounds.
Ratio = dict[str, float]


def figure(result: dict[str, Any], name: str) -> float | None:
    """One of :data:`FIGURES` of a run; None if the run lacks it."""
    if "failed" in result or (name != "errors" and not result["operations"]):
        return None
    operations, server = result["operations"], result.get("server")
    match name:
        case "throughput_per_s":
            return float(result[name])
        case "errors":
            return float(sum(result["errors"].values()))
        case "watcher_bytes":
            return result.get(name)
        case "p99_growth":
            before = result.get("before", {}).get("latency_ms", {}).get("p99")
            return result["latency_ms"]["p99"] / before if before else None
        case "to_all_ms":
            found = result["extra"].get("to_all")
            return float(found["latency_ms"]["mean"]) if found and found["count"] else None
        case "syncs_per_op":
            syncs = result.get("counters", {}).get("syncs")
            return syncs / operations if syncs is not None else None
        case "written_per_op":
            return float(server["written_bytes"] / operations) if server else None
    if name.startswith("server_"):
        return float(server[name.removeprefix("server_")]) if server else None
    return float(result["latency_ms"][name.removesuffix("_ms")])


def figures(results: Iterable[dict[str, Any]], name: str) -> list[float]:
    """One figure of several runs, without failed ones."""
    return [value for result in results if (value := figure(result, name)) is not None]


def median(results: Iterable[dict[str, Any]], name: str) -> float | None:
    """The median of a figure over several runs; None if none has it."""
    values = figures(results, name)
    return statistics.median(values) if values else None


def worst_errors(results: Iterable[dict[str, Any]]) -> float | None:
    """The most errors of one run: what one round lost is lost."""
    return max(figures(results, "errors"), default=None)


def has_failures(result: dict[str, Any]) -> bool:
    """Whether a turn of a comparison failed, or an operation of one."""
    return any("failed" in run or run["errors"]
               for cell in result["cells"] for runs in cell["runs"].values() for run in runs)


def good_runs(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [run for run in runs if "failed" not in run]


def ratios(runs: dict[str, list[dict[str, Any]]], names: Sequence[str]) -> dict[str, dict[str, Ratio]]:
    """By system and figure, the ratios of each system but the first to the first in the same round."""
    found: dict[str, dict[str, Ratio]] = {}
    for other in names[1:]:
        found[other] = {}
        for name in FIGURES:
            values = [b / a for one, two in zip(runs[names[0]], runs[other], strict=False)
                      if (a := figure(one, name)) and (b := figure(two, name)) is not None]
            if values:
                found[other][name] = {"median": statistics.median(values), "low": min(values),
                                      "high": max(values)}
    return found


def to_each(runs: dict[str, list[dict[str, Any]]], names: Sequence[str],
            baselines: Sequence[str]) -> dict[str, dict[str, dict[str, Ratio]]]:
    """By system that is no baseline, and by baseline, the ratios of the first to the second."""
    return {name: {base: ratios(runs, [base, name])[name] for base in baselines}
            for name in names if name not in baselines}


def better(runs: dict[str, list[dict[str, Any]]], baselines: Sequence[str]) -> dict[str, str]:
    """By figure, the baseline with the better median: the higher throughput, the lower of all else."""
    found = {}
    for name in FIGURES:
        medians = {base: value for base in baselines if (value := median(runs[base], name))}
        if medians:
            best = max if name == "throughput_per_s" else min
            found[name] = best(medians, key=lambda base: medians[base])
    return found


def to_better(each: dict[str, dict[str, dict[str, Ratio]]], best: dict[str, str]
              ) -> dict[str, dict[str, Ratio]]:
    """Of :func:`to_each` the ratios to each figure's better baseline."""
    return {name: {figure: found[base][figure] for figure, base in best.items() if figure in found[base]}
            for name, found in each.items()}


def targets(cell: Cell, runs: dict[str, list[dict[str, Any]]], found: dict[str, dict[str, Ratio]],
            names: Sequence[str]) -> list[dict[str, Any]]:
    """The cell's targets and what was reached; ``value`` is None where it could not be measured."""
    rows = []
    for target in cell.targets:
        if target.subject >= len(names):
            continue
        subject = names[target.subject]
        value = (found.get(subject, {}).get(target.figure, {}).get("median") if target.ratio
                 else worst_errors(runs[subject]) if target.figure == "errors"
                 else median(runs[subject], target.figure))
        rows.append({"figure": target.figure, "system": subject, "wanted": str(target), "value": value,
                     "met": value is not None and target.met(value)})
    return rows
