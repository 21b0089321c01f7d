"""A move's switch: the one transaction that changes the owner of keys.

The coordinator admits it like a transaction that writes all of the span. It differs in four points:

1. Sources are asked first. Each locks the span, and grants with its revision and the number of live keys
   once it has applied what it had logged (H1). ``R_b`` is the highest of these revisions.
2. Then the target's leader is asked for a promise: its copy is whole up to ``R_b``.
3. All of it ends within :data:`LIMIT_MS`, or it is released, and nothing is to be undone (G15). On a full
   machine no switch may end in time, and then the limit rises with each failure (:func:`limit_of`).
4. Its multi has no parts, and takes no revision (G2). It rests on the latest cut terms of sources and target
   (I10), and MOVED stands behind it in the same record.

Shard 0 has no leader to be asked. As a source it has a :class:`~cluster.order.moving.hold.Hold`; as a target
the sequencer's own copy is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from cluster.evaluate.overlay import Overlay
from cluster.evaluate.spans import Span
from cluster.order.log import Attempt, Multi, encode_multi
from cluster.order.moving.hold import Hold
from cluster.order.prepare import Base, Grant, Prepare, Touch
from cluster.placement.changes import Moved, moved_item
from cluster.placement.table import Move

LIMIT_MS = 50  # from its admission until its record is appended
MOST_LIMIT_MS = 800  # less than an election takes by default


def limit_of(failed: int) -> int:
    """The limit of a switch after so many failed ones: twice the one before from the third on."""
    return min(LIMIT_MS << min(max(0, failed - 1), 8), MOST_LIMIT_MS)


class Asked(Protocol):
    """The switch's attempt at the coordinator."""

    attempt: Attempt | None
    prepares: dict[int, bytes]
    grants: dict[int, Grant]


@dataclass(slots=True)
class Switch:
    move: Move
    copied: Callable[[Base], bool]  # whether the sequencer's own copy is so far
    ended: Callable[[bool], None]  # told once: whether it was appended
    hold: Hold | None = None
    countable: Callable[[], bool] = lambda: True  # whether shard 0's keys are counted without walking them
    limit_ms: int = LIMIT_MS

    @property
    def span(self) -> Span:
        return self.move.start, self.move.end

    @property
    def participants(self) -> tuple[int, ...]:
        """Shards with a leader to be asked."""
        return tuple(sorted(shard for shard in (*self.move.sources, self.move.target) if shard))

    def touches(self) -> dict[int, list[Touch]]:
        lock = Touch(*self.span, write=True, count=True)
        return {shard: [] if shard == self.move.target else [lock] for shard in self.participants}

    def first(self, shard: int, prepare: Prepare) -> bytes | None:
        """What a participant is asked to begin with."""
        if shard == self.move.target:
            return None
        return replace(prepare, base=Base(self.move.number)).encode()

    def begin(self, tail_revision: int) -> None:
        if 0 in self.move.sources:
            self.hold = Hold(self.span, tail_revision)

    def revision(self, grants: dict[int, Grant]) -> int:
        """``R_b``; 0: not every source has granted."""
        asked = [shard for shard in self.move.sources if shard]
        if not all(shard in grants for shard in asked):
            return 0
        known = [grants[shard].revision for shard in asked]
        return max(known + ([self.hold.revision] if self.hold is not None else []))

    def live(self, grants: dict[int, Grant], own: Overlay) -> int:
        """The number of live keys that move, once all sources have granted; -1: not known yet."""
        live = sum(grants[shard].counts[0] for shard in self.move.sources if shard)
        if self.hold is not None:
            if own.applied.revision < self.hold.revision or not self.countable():
                return -1
            live += own.applied.live_count(*self.span)
        return live

    def ask_target(self, asked: Asked, order_index: int, own: Overlay) -> bool:
        """Once all sources have granted: True, and the target is to be asked."""
        target = self.move.target
        revision = self.revision(asked.grants)
        if not target or target in asked.prepares or not revision:
            return False
        live = self.live(asked.grants, own)
        if live < 0:
            return False
        assert asked.attempt is not None
        base = Base(self.move.number, revision, live)
        asked.prepares[target] = Prepare(asked.attempt, 0, order_index, base=base).encode()
        return True

    def item(
        self, attempt: Attempt, terms: dict[int, int], grants: dict[int, Grant], own: Overlay
    ) -> bytes | None:
        """The multi and MOVED; None: what shard 0 has to do is not done yet."""
        revision = self.revision(grants)
        live = self.live(grants, own)
        if live < 0:
            return None
        if self.move.target == 0 and not self.copied(Base(self.move.number, revision, live)):
            return None
        moved = moved_item(Moved(self.move.number, True, revision, live))
        return encode_multi(Multi(attempt, 0, terms, [])) + moved
