"""What the sequencer does for shards that are born or retire: a pure machine of one term.

It starts again with each term, from the table and the reports. A forming shard serves once its leader has
reported: its first cut then stands behind that (G12). One that has not served in time is dropped, and
another id is tried once. A retiring shard is dropped once it owns nothing, now or in the past (G10).
"""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from cluster.placement.table import State, Table


class Step(NamedTuple):
    """A change of one shard to be logged."""

    shard: int
    state: State
    again: bool = False  # it was not born in time: try another id


class Births:
    def __init__(self, limit_ms: int) -> None:
        """``limit_ms``: how long a shard may form."""
        self._limit_ms = limit_ms
        self._since: dict[int, int] = {}  # forming shards, and when this term saw them first
        self._tried = False  # a second id

    def look(self, table: Table, reported: Container[int], now_ms: int) -> list[Step]:
        """What is due. ``table``: as logged; ``reported``: forming shards whose leader was heard."""
        steps: list[Step] = []
        for shard, known in sorted(table.shards.items()):
            if known.state == State.FORMING:
                since = self._since.setdefault(shard, now_ms)
                if shard in reported:
                    steps.append(Step(shard, State.SERVING))
                elif now_ms - since >= self._limit_ms:
                    self._tried = not self._tried  # what is asked for after a second id has two tries again
                    steps.append(Step(shard, State.DROPPED, again=self._tried))
            elif known.state == State.RETIRING and not table.may_be_asked_of(shard):
                steps.append(Step(shard, State.DROPPED))
        for step in steps:
            self._since.pop(step.shard, None)
            if step.state == State.SERVING:
                self._tried = False
        return steps
