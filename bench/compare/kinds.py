"""A cell of several kinds of requests as one row for each kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.compare.figures import good_runs

#: Fields of a whole run that hold for each kind.
_OF_THE_RUN = ("client", "others_busy_percent", "machine_busy_percent", "duration_s")


def split(row: dict[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows like ``row`` (a cell with its runs), without ratios, one for each latency in its runs' extra."""
    kinds = dict.fromkeys(kind for runs in row["runs"].values() for one in good_runs(runs)
                          for kind in one["extra"])
    return [{"name": f"{row['name']}: {kind}", "title": f"{row['title']}: {kind}",
             "duration_s": row["duration_s"], "targets": [],
             "runs": {name: [_of_kind(one, kind) for one in row["runs"][name]] for name in names}}
            for kind in kinds]


def _of_kind(run: dict[str, Any], kind: str) -> dict[str, Any]:
    """A run as if it had these requests only. The servers' use is not known for a kind."""
    if "failed" in run:
        return run
    found = run["extra"].get(kind, {"count": 0, "latency_ms": {}})
    return {
        **{name: run[name] for name in _OF_THE_RUN if name in run},
        "command": f"{run['command']}: {kind}", "operations": found["count"],
        "throughput_per_s": run.get("reached_per_s", {}).get(kind, found["count"] / run["duration_s"]),
        "latency_ms": found["latency_ms"], "extra": {}, "timeline": [], "server": None, "counters": {},
        "errors": {what: count for what, count in run["errors"].items() if what.startswith(f"{kind}: ")},
    }
