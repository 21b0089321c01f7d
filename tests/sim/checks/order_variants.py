"""Variants of product classes that ask the checker (``order_checks``): for what only they see in the act."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cluster.order.moving.switch import MOST_LIMIT_MS
from cluster.order.sequencing.coordinator import Coordinator
from cluster.wire.messages import Method
from node.serving.confirm import Confirmations
from tests.sim.world.order_world import Violation

if TYPE_CHECKING:
    from tests.sim.world.order_sim import Simulation

GIVE_UP_MS = 500  # ten heartbeats: an attempt that is not complete by then lets go of its locks


def watched_classes(simulation: Simulation) -> tuple[type, type]:
    """``Coordinator`` and ``Confirmations`` that tell what they are about to do."""

    class WatchedCoordinator(Coordinator[Any]):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            # by identity: a transaction, attempts of it that took too long
            self.given_up: dict[int, tuple[Any, int]] = {}
            # shards whose leaders were heard of since an attempt was given up for their sake
            self.heard: set[int] = set()

        def leader_of(self, shard: int, term: int) -> None:
            super().leader_of(shard, term)
            self.heard.add(shard)

        def run(self, now_ms: int, append: Any) -> None:
            late = [
                (attempt, wide, set(wide.participants) - set(wide.grants))
                for attempt, wide in self._running.items()
                if now_ms - wide.started_ms >= GIVE_UP_MS and len(wide.grants) < len(wide.participants)
            ]
            number = self._number
            super().run(now_ms, append)
            for attempt, wide, missing in late:
                if attempt not in self._running and (wide.attempt or any(w is wide for w in self._queue)):
                    self.given_up[id(wide)] = wide, self.given_up.get(id(wide), (wide, 0))[1] + 1
                    self.heard -= missing
            for wide in self._running.values():
                if wide.switch is not None and now_ms - wide.started_ms >= min(
                        wide.switch.limit_ms, MOST_LIMIT_MS):
                    raise Violation("G15 a switch's lock ends soon",
                                    f"{wide.attempt} has its locks for {now_ms - wide.started_ms} ms")
                if wide.attempt.number > number and not self.heard.issuperset(wide.participants):
                    raise Violation("H19 no attempt begins without its participants' leaders",
                                    f"{wide.attempt} of {wide.participants}, heard of were {self.heard}")
                waits_ms, before = now_ms - wide.started_ms, self.given_up.get(id(wide), (wide, 0))[1]
                patience_ms = GIVE_UP_MS * 4**before if wide.switch is None else MOST_LIMIT_MS
                if waits_ms >= patience_ms and len(wide.grants) < len(wide.participants):
                    raise Violation("H19 no locks while a participant has no leader",
                                    f"{wide.attempt}, after {before} others, waits for {waits_ms} ms")

        def free_for(self, method: int, body: bytes, shard: int) -> bool:
            free = super().free_for(method, body, shard)
            simulation.checker.counts["lone"] += free
            return free

    class WatchedConfirmations(Confirmations):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            self._shown: dict[
                tuple[Any, int], int
            ] = {}  # by question, what was shown to clients when it came

        def ask(self, link: Any, rid: int, method: int, body: bytes) -> None:
            self._shown[link, rid] = simulation.clients.shown
            super().ask(link, rid, method, body)

        def _answer(self, questions: Any, index: int) -> None:
            for link, rid, method, _ in questions:
                shown = self._shown.pop((link, rid), 0)
                if method == Method.READ_INDEX and self._lessor.primary:
                    simulation.checker.counts["read indexes"] += 1
                    if self._store.revision < shown:
                        raise Violation("I13 a read index covers what was shown before the question",
                                        f"revision {self._store.revision}, shown: {shown}")
            super()._answer(questions, index)

    return WatchedCoordinator, WatchedConfirmations
