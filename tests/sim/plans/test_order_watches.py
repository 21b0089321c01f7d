"""Watches over several shards stay close behind what is written, whoever reads, subscribes and loses its
links meanwhile.

That every event comes in the end is said by all simulations; here, that none is late by more than the trouble
explains: a wake-up that is lost shows while everybody goes on, and is hidden by what comes after. Two of the
three hosts have next to no room for events that wait for other shards (decision 42), so that these come out
of history again and again.
"""

from __future__ import annotations

from collections import deque

import pytest

from node.serving.watch import watches
from node.serving.watch.watches import Subscription, WatchSource
from tests.sim.world.order_plan import MIX, Plan
from tests.sim.world.order_sim import Simulation
from tests.sim.world.seeds import seconds_for, seeds

SEEDS = seeds(3, soak=24)
# links end and are made anew; nodes die, and others' are asked until they are back
ROOM_BYTES = (0, 700, 1 << 26)  # by host
LARGE = "large events"  # nobody gets an event for more than one of its ranges: the others are lost
TROUBLE = {
    "none": (("heal",), 0.5), "links": (("break",), 1.5),
    "nodes": (("break", "kill node", "restart", "restart"), 2.0),
    LARGE: (("break", "kill node", "restart", "restart"), 2.0),
}


class Look:
    """How far every subscription of every front is, again and again."""

    def __init__(self, simulation: Simulation, limit_s: float) -> None:
        self.simulation = simulation
        self.limit_s = limit_s
        self.looked = 0
        self.pauses = 0
        self._written: deque[tuple[float, int]] = deque()  # time, revision
        self._since: dict[object, float] = {}

    def look(self) -> None:
        simulation = self.simulation
        now = simulation.now
        simulation.at(0.02, None, self.look)
        for host, front in sorted(simulation.fronts.items()):
            room = front.context.hub.room
            self.pauses, room.pauses, room.limit_bytes = self.pauses + room.pauses, 0, ROOM_BYTES[host % 3]
        shown = [n.node.store.revision for (_, s), n in simulation.nodes.items() if s == 0 and n.alive]
        if not shown:  # all nodes of shard 0 are dead at once
            return
        self._written.append((now, max(shown)))
        while len(self._written) > 1 and self._written[1][0] <= now - self.limit_s:
            self._written.popleft()
        then, revision = self._written[0]
        if then > now - self.limit_s:
            return
        for host, front in sorted(simulation.fronts.items()):
            for watched in front.context.hub.subscriptions.values():
                if self._since.setdefault(watched, now) < then:
                    self.looked += len(watched.parts) > 1
                    assert watched.through() >= revision, (
                        f"front {host} at {now:.3f}: {watched.key!r} is at {watched.through()}, {revision} "
                        f"is {now - then:.2f} s old: "
                        f"{[(p.shard, p.live, p.filling, p.paused, p.through()) for p in watched.parts]}"
                    )


@pytest.mark.longer
@pytest.mark.timeout(seconds_for(SEEDS))
@pytest.mark.parametrize("trouble", TROUBLE)
def test_no_watch_falls_behind(trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[Subscription] = []
    if trouble == LARGE:
        monkeypatch.setattr(watches, "_EMIT_BYTES", 1)
        lose = WatchSource._lose

        def noted(self: WatchSource, subs: list[Subscription]) -> None:
            lost.extend(subs)
            lose(self, subs)

        monkeypatch.setattr(WatchSource, "_lose", noted)
    faults, limit_s = TROUBLE[trouble]
    looked = pauses = 0
    for seed in SEEDS:
        plan = Plan(
            shards=2 + seed % 3, seconds=5.0, think_s=(0.03, 0.1, 0.6)[seed % 3], repeats=0.0, faults=faults,
            mix=MIX | {"watch": 4, "compact": 0}, slice_events=(3, 200, 1)[seed % 3],
        )
        simulation = Simulation(seed, plan)
        look = Look(simulation, limit_s)
        simulation.at(1.0, None, look.look)
        try:
            simulation.run()
        except AssertionError as e:
            raise AssertionError(f"seed {seed}: {e}") from e
        looked += look.looked
        pauses += look.pauses
    assert looked > 200, "it would prove nothing if nobody watched"
    assert pauses > 20
    assert (len(lost) > 100) == (trouble == LARGE), len(lost)
