"""When a shard's leader asks the sequencer about locks held for long: a release may have been lost."""

from __future__ import annotations

from collections.abc import Iterable

from cluster.order.log import Attempt

_HEARTBEATS = 10


class LockQuestions:
    def __init__(self, heartbeat_s: float) -> None:
        self._limit_s = _HEARTBEATS * heartbeat_s
        self._held_since: dict[Attempt, float] = {}

    def due(self, held: Iterable[Attempt], now: float) -> list[Attempt]:
        """Each heartbeat: the undecided attempts to ask about."""
        self._held_since = {a: self._held_since.get(a, now) for a in held}
        return [a for a, since in self._held_since.items() if now - since >= self._limit_s]

    def forget(self) -> None:
        self._held_since.clear()
