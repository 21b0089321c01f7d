"""What this host's nodes have counted, with what processes of theirs that have ended had counted.

A node counts from 0 with its process. Of a sum over several nodes only a part falls then, and Prometheus
takes any fall for a start at 0: it would count the rest once more. What a lone node counts is told as it is:
it starts at 0 as a whole, and all fronts of the host tell the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from cluster.histogram import Histogram, Observed
from proxy.metrics.node_metrics import Figures

Place = tuple[str, ...]  # of a figure in ``Figures``

_SUMMED = ("counters", "histograms", "peers", "snapshots")
_NOW = ("active", "inflights")  # gauges


class Lives:
    """Of all nodes of this host that have answered this front."""

    def __init__(self) -> None:
        self._nodes: dict[int, _Life] = {}

    def take(self, shard: int, figures: Figures) -> None:
        """What the shard's node tells now."""
        life = self._nodes.setdefault(shard, _Life())
        life.take(figures, alone=len(self._nodes) == 1)

    def sums(self) -> dict[int, Figures]:
        """By shard: figures that never fall, as ``Figures`` has them."""
        return {shard: life.figures() for shard, life in self._nodes.items()}


class _Life:
    def __init__(self) -> None:
        self._pid: Any = None
        self._last: dict[Place, Any] = {}  # of the present process
        self._before: dict[Place, Any] = {}  # of those before it

    def take(self, figures: Figures, alone: bool) -> None:
        found = dict(_counted({group: figures[group] for group in _SUMMED if group in figures}))
        pid = figures.get("pid")
        anew, self._pid = pid != self._pid, pid
        if alone:
            self._last, self._before = found, {}
            return
        for place, had in self._last.items():
            if anew or _fell(had, found.get(place, had)):  # of a link that was made anew, too
                self._before[place] = _sum(self._before.get(place), had)
        self._last = found if anew else {**self._last, **found}

    def figures(self) -> Figures:
        told: Figures = {"counters": {}}
        for place in {**self._before, **self._last}:
            *groups, name = place
            found = told
            for group in groups:
                found = found.setdefault(group, {})
            found[name] = _sum(self._before.get(place), self._last.get(place))
        return told


def _counted(figures: Figures, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Numbers and histograms."""
    for name, value in figures.items():
        if isinstance(value, dict) and "bounds" not in value:
            yield from _counted(value, (*place, name))
        elif name not in _NOW:
            yield (*place, name), value


def _fell(had: Any, has: Any) -> bool:
    if isinstance(had, dict):
        return any(now < before for before, now in zip(had["counts"], has["counts"], strict=False))
    return bool(has < had)


def _sum(before: Any, last: Any) -> Any:
    """The later one alone, if their buckets differ: a newer program's."""
    if before is None or last is None:
        return last if before is None else before
    if not isinstance(last, dict):
        return before + last
    if before["bounds"] != last["bounds"]:
        return last
    total = Histogram(last["bounds"])
    total.add(cast(Observed, before))
    total.add(cast(Observed, last))
    return total.observed()
