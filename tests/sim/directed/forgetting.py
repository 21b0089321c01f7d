"""The schedule in which two of three hosts forget what was acknowledged (H10)."""

from __future__ import annotations

from collections.abc import Callable

from tests.sim.world.order_plan import HOSTS
from tests.sim.world.order_sim import Simulation


def two_of_three_forget(
    simulation: Simulation, cut_at: float, lost_at: float, forget: Callable[[int], None]
) -> None:
    """One host is cut off, the others commit. Then the leader dies, ``forget`` is done to the host that is
    left of these two, and the one that was cut off is back. Both are a majority of each group."""
    lonely: list[int] = []

    def leader() -> int:
        return next(p.host for p in simulation._leaders(0))

    def cut() -> None:
        lonely.append(next(h for h in HOSTS if h != leader()))
        simulation.blocked |= {p for h in HOSTS if h not in lonely for p in ((lonely[0], h), (h, lonely[0]))}

    def lose() -> None:
        dead = leader()
        forget(next(h for h in HOSTS if h not in (dead, *lonely)))
        simulation._kill_host(dead, front=True)
        simulation.heal()

    simulation.at(cut_at, None, cut)
    simulation.at(lost_at, None, lose)
