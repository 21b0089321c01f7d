"""A cell of several kinds of requests as one row for each kind, so that tables and ratios tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: What a run tells of itself as a whole.
_OF_THE_RUN = ("client", "others_busy_percent", "machine_busy_percent", "duration_s")


def split(row: dict[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows like ``row`` (a cell with its runs), without ratios, one for each latency that its runs tell."""
    kinds = list(
        dict.fromkeys(
            kind
            for runs in row["runs"].values()
            for one in runs
            if "failed" not in one
            for kind in one["extra"]
        )
    )
    return [
        {
            "name": f"{row['name']}: {kind}",
            "title": f"{row['title']}: {kind}",
            "duration_s": row["duration_s"],
            "runs": {name: [_of_kind(one, kind) for one in row["runs"][name]] for name in names},
            "targets": [],
        }
        for kind in kinds
    ]


def _of_kind(run: dict[str, Any], kind: str) -> dict[str, Any]:
    """A run as if it had been of these requests only. What the servers used is not known of them."""
    if "failed" in run:
        return run
    found = run["extra"].get(kind, {"count": 0, "latency_ms": {}})
    return {
        **{name: run[name] for name in _OF_THE_RUN if name in run},
        "command": f"{run['command']}: {kind}",
        "operations": found["count"],
        "throughput_per_s": run.get("reached_per_s", {}).get(kind, found["count"] / run["duration_s"]),
        "latency_ms": found["latency_ms"],
        "extra": {},
        "timeline": [],
        "server": None,
        "counters": {},
        "errors": {what: count for what, count in run["errors"].items() if what.startswith(f"{kind}: ")},
    }
