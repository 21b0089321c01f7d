"""Hosts that run the program before moves, until an operator upgrades them one by one.

That program is this one with a lower level of data and a lower version of links: whatever else it lacks, it
is never asked for, as long as G16 holds.
"""

from __future__ import annotations

from random import Random
from types import ModuleType
from typing import Any

from cluster.features import growth
from cluster.features.growth import MOVES, Spoken
from cluster.wire import frames
from cluster.wire.frames import LOWEST, MOVES_SINCE
from node.links import fronts, peers
from node.upkeep.group import growing
from tests.sim.world.order_plan import Plan
from tests.sim.world.order_sim import Simulation
from tests.sim.world.order_world import Process

_BEFORE: list[tuple[ModuleType, str, Any]] = [
    (growth, "LEVEL", MOVES - 1), (growth, "OWN", Spoken(MOVES - 1, LOWEST, MOVES_SINCE - 1, "before")),
    *((module, "HIGHEST", MOVES_SINCE - 1) for module in (frames, fronts, peers, growing)),
]
_NOW = [(module, name, getattr(module, name)) for module, name, _ in _BEFORE]
_UPGRADED_S = (2.0, 3.5)  # when hosts are


def _set(values: list[tuple[ModuleType, str, Any]]) -> None:
    for module, name, value in values:
        setattr(module, name, value)


class Mixed(Simulation):
    """One run."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self._before: set[int] = set(range(1, plan.hosts + 1))
        self._running: Process | None = None
        self._as_before = False  # whether the code is the program before
        _set(_NOW)
        self.grew_before = False  # to what the program before knows
        super().__init__(seed, plan)
        random = Random(f"{seed}/upgrades")
        for host in self.hosts:
            self.at(random.uniform(*_UPGRADED_S), None, lambda host=host: self._upgrade(host))  # type: ignore[misc]

    @property
    def current(self) -> Process | None:  # type: ignore[override]
        """The process whose code runs."""
        return self._running

    @current.setter
    def current(self, process: Process | None) -> None:
        self._running = process
        before = process is not None and process.host in self._before
        if before != self._as_before:
            self._as_before = before
            _set(_BEFORE if before else _NOW)

    def _upgrade(self, host: int) -> None:
        if host not in self._before:
            return
        self.grew_before = self.grew_before or self.checker.replay.level == MOVES - 1
        self._kill_host(host, front=True)
        self._before.discard(host)
        self.did["upgraded"] = self.did.get("upgraded", 0) + 1
        if not self.calm:
            self._start_host(host)

    def peace(self) -> None:
        self.calm = True
        for host in self.hosts:
            self._upgrade(host)
        super().peace()

    def run(self) -> dict[str, int]:
        try:
            return super().run()
        finally:
            self.current = None
