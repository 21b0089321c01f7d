"""muster-bench beside etcd's own benchmark tool: the same work on the same systems, in turns.

Where both agree on a ratio, it shows neither the client's cost nor its way to count.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.compare.go_tool import GoTool
from bench.compare.matrix import CONNS
from bench.load import run
from bench.load.spec import Spec
from bench.report import text
from bench.report.text import number
from bench.systems.systems import System, started

SCHEMA = "muster-bench-agree/1"
KEY_SPACE = 10_000
_WORK: dict[str, dict[str, Any]] = {
    "put": {},
    "range-l": {"command": "range", "range_key": "00000001"},
    "range-s": {"command": "range", "range_key": "00000001", "serializable": True},
}
TOOLS = ("etcd's benchmark", "muster-bench")
_LEFT = (0, 1, 2)


@dataclass(slots=True, frozen=True)
class Figures:
    """The figures that both tools have of a run."""

    throughput_per_s: float
    mean_ms: float
    p99_ms: float


def measure(tool: Path, names: Sequence[str], clients: Sequence[int], *, rounds: int, duration_s: float,
            data_dir: Path | None = None, said: Callable[[str], None] = print) -> dict[str, Any]:
    """Run puts and both reads with each number of clients, by both tools, on both systems in turn.

    etcd's tool makes as many operations as muster-bench in ``duration_s``. RuntimeError or RunError if
    something fails.
    """
    rows = []
    began = datetime.now(UTC)
    with started(list(names), data_dir=data_dir) as systems:
        for system in systems:
            asyncio.run(run.populate(Spec("put", tuple(system.endpoints), key_space=KEY_SPACE)))
        for work in _WORK:
            for count in clients:
                said(f"{work}, {count} clients")
                runs = [_round(tool, systems, work, count, duration_s) for _ in range(rounds)]
                rows.append({"work": work, "clients": count, "tools": {
                    name: _median([one[i] for one in runs], systems) for i, name in enumerate(TOOLS)}})
    return {"schema": SCHEMA, "started_at": began.isoformat(timespec="seconds"), "machine": run.machine(),
            "rounds": rounds, "duration_s": duration_s,
            "systems": [{"name": s.name, "version": s.version} for s in systems], "rows": rows}


def _round(tool: Path, systems: Sequence[System], work: str, clients: int,
           duration_s: float) -> tuple[dict[str, Figures], dict[str, Figures]]:
    theirs, ours = {}, {}
    specs = {system.name: Spec(**{"command": "put", "endpoints": tuple(system.endpoints),
                                  "conns": CONNS[clients], "clients": clients, "duration_s": duration_s,
                                  "key_space": KEY_SPACE, **_WORK[work]}) for system in systems}
    for system in systems:
        system.check()
        ours[system.name] = _figures(asyncio.run(run.run(specs[system.name])))
    for system in systems:
        total = max(100, int(ours[system.name].throughput_per_s * duration_s))
        theirs[system.name] = _figures(asyncio.run(GoTool(tool).total(specs[system.name], total)))
    return theirs, ours


def _figures(result: dict[str, Any]) -> Figures:
    return Figures(result["throughput_per_s"], result["latency_ms"]["mean"], result["latency_ms"]["p99"])


def _median(runs: Sequence[dict[str, Figures]], systems: Sequence[System]) -> dict[str, Any]:
    first, second = systems[0].name, systems[1].name
    found: dict[str, Any] = {}
    for figure in Figures.__slots__:
        found[figure] = {name: statistics.median(getattr(one[name], figure) for one in runs)
                         for name in (first, second)}
        found[figure]["ratio"] = statistics.median(getattr(one[second], figure) / getattr(one[first], figure)
                                                   for one in runs)
    return found


def table(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows of text, the heading first."""
    first, second = (system["name"] for system in result["systems"])
    rows: list[tuple[str, ...]] = [
        ("work", "clients", "tool", f"{first} ops/s", f"{second} ops/s", "R throughput", "R mean", "R p99")]
    for row in result["rows"]:
        for tool, found in row["tools"].items():
            rate = found["throughput_per_s"]
            rows.append((row["work"], str(row["clients"]), tool, f"{rate[first]:,.0f}",
                         f"{rate[second]:,.0f}",
                         *(number(found[figure]["ratio"]) for figure in Figures.__slots__)))
    return rows


def markdown(result: dict[str, Any]) -> str:
    heading, *rows = table(result)
    return text.markdown(heading, rows, _LEFT)


def show(console: Console, result: dict[str, Any]) -> None:
    heading, *rows = table(result)
    text.write(console, text.table(heading, rows, _LEFT))
