"""Range compares of transactions over several shards that write: each shard decides them for its own keys, so
that rows only compared are not sent.

Very many rows are looked at ahead, in slices (``cluster.evaluate.txns.range_compares``); what has changed
since is looked at under the lock. A compare holds if it holds for the keys of every shard that has any.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cluster.evaluate.overlay import Overlay
from cluster.evaluate.steps import finish
from cluster.evaluate.txns.compares import RANGE_COST, VALUE, Turn, given_of, holds, matches
from cluster.evaluate.txns.range_compares import RangeCompares, is_of_range
from cluster.evaluate.view import View
from cluster.grain import GRAIN
from cluster.order.leading.pending import Blocked
from cluster.order.prepare import Grant
from cluster.placement import Placement

THERE, HOLDS = 1, 2  # bits of a verdict: the shard has keys of the range; the compare holds there


def are_many(compares: Iterable[Any], view: View) -> bool:
    left = GRAIN.turn_rows
    spans = Counter((compare.key, compare.range_end) for compare in compares if is_of_range(compare))
    for (key, end), times in spans.items():
        left -= times * RANGE_COST
        # Blocked: the lock waits for what is pending, and the look comes after that
        with contextlib.suppress(Blocked):
            left -= times * view.count(key, end)
        if left < 0:
            return True
    return False


def decide(compares: Iterable[Any], view: View, turn: Turn) -> bytes:
    """The verdicts on the keys of a view. Unlooked: too much for one turn."""
    found = bytearray()
    for compare in compares:
        verdict = 0
        if is_of_range(compare) and view.count(compare.key, compare.range_end):
            verdict = THERE | HOLDS * finish(holds(view, compare, turn))
        found.append(verdict)
    return bytes(found)


class Verdicts:
    """All shards' verdicts on the range compares of a transaction
    (``cluster.evaluate.txns.compares.Decided``)."""

    def __init__(
        self, own: Overlay, placement: Placement, asked: Mapping[int, Sequence[Any]],
        grants: Mapping[int, Grant], looked: RangeCompares | None,
    ) -> None:
        self._own = own
        self._placement = placement
        self._turn = Turn(looked)
        self._said: dict[tuple[int, bytes], int] = {
            (shard, compare.SerializeToString()): verdict for shard, compares in asked.items()
            for compare, verdict in zip(compares, grants[shard].verdicts, strict=True)}

    def holds(self, compare: Any, view: View) -> bool:
        body = compare.SerializeToString()
        there = False
        for shard in self._placement.shards_of(compare.key, compare.range_end):
            verdict = self._said[shard, body] if shard else decide((compare,), self._own, self._turn)[0]
            if verdict & THERE:
                there = True
                if not verdict & HOLDS:
                    return False
        # without a key it is as with a missing one (``txn_eval``)
        return there or (compare.target != VALUE and matches(compare.result, 0, given_of(compare)))
