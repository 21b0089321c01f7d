"""Hosts leave and come back, in every group, while everything else goes wrong: an operator whose wishes
the nodes carry out. The host that left keeps its disks, so that it may come back under its identity."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

from cluster.errors import EtcdError
from cluster.features.growth import LEVEL
from cluster.raft import Configuration, EntryKind
from cluster.wire.messages import Method
from tests.sim.world.order_world import Violation

if TYPE_CHECKING:
    from tests.sim.world.order_host import NodeProcess
    from tests.sim.world.order_sim import Simulation

LOOK_S = 0.05


class Configurations:
    """What every group has committed, and the rules over all of them (I21, H12)."""

    def __init__(self, shards: range, initial: Configuration) -> None:
        self.history = {shard: [initial] for shard in shards}
        self._known: dict[str, Configuration] = {}  # in effect at a node when it was looked at last
        # groups that were born with the voters alone, and have still to take in all learners
        self._lacking: dict[int, Configuration] = {}
        # of before a forced start, which replaces all members at once: for which places of a group's log each
        # goes. A host that joins may begin with a state of then, and counts nowhere by that
        self.earlier: dict[int, list[tuple[range, Configuration]]] = {}

    def born(self, shard: int, voters: Collection[int]) -> None:
        """A shard forms, with the voters that all other groups have (G14). Learners join it next."""
        begins = Configuration(frozenset(voters))
        for other, history in self.history.items():
            if history[-1].voters != begins.voters or history[-1] != self.history[0][-1] or self._lacking:
                raise Violation("G14 no shard forms while hosts change",
                                f"shard {shard} with {begins}, group {other}: {history[-1]}")
        self.history[shard] = list(self.history[0])
        if self.history[0][-1].learners:
            self._lacking[shard] = begins

    def dropped(self, shard: int) -> None:
        """Its group is over."""
        del self.history[shard]
        self._lacking.pop(shard, None)
        self.earlier.pop(shard, None)

    def _joined(self, shard: int, configuration: Configuration) -> None:
        """A group that was born has taken in one more of the learners that all others have."""
        before, goal = self._lacking[shard], self.history[shard][-1]
        if configuration.voters != goal.voters or not (
                before.learners < configuration.learners <= goal.learners):
            raise Violation("G14 a shard that was born takes in the learners before any other change",
                            f"group {shard}: {configuration} after {before}, others: {goal}")
        self._lacking[shard] = configuration
        if configuration == goal:
            del self._lacking[shard]

    def committed(self, shard: int, kind: int, data: bytes) -> None:
        """One more entry of a group is known to be committed, in the order of its log."""
        if kind != EntryKind.CONFIG or shard not in self.history:
            return
        if shard in self._lacking:
            self._joined(shard, Configuration.decode(data))
            return
        mine = self.history[shard]
        mine.append(Configuration.decode(data))
        where = f"group {shard}: {mine[-1]}"
        if self._lacking:
            raise Violation("I21 the next change of hosts begins when all groups have the last",
                            f"{where}, before {self._lacking}")
        for other, history in self.history.items():
            at = min(len(mine), len(history))
            if mine[:at] != history[:at] or abs(len(mine) - len(history)) > 1:
                raise Violation(
                    "I21 the next change of hosts begins when all groups have the last",
                    f"{where}, group {other}: {history[-1]}",
                )
        members = self.history[0][-1].members()
        for other, history in self.history.items():
            if not history[-1].voters <= members:
                raise Violation(
                    "H12 a host out of group 0 is a voter nowhere", f"{where}, group {other}: {history[-1]}"
                )

    def replaced(self, shard: int, logged: list[tuple[int, Configuration]]) -> None:
        """A forced start has kept a group's log, which has these configurations. The last is its own."""
        self.earlier[shard] = [(range(at, end), then) for (at, then), (end, _) in pairwise(logged)]

    def in_effect(self, process: NodeProcess, configuration: Configuration) -> None:
        """What a node goes by after a step (I21): committed, or one member's change away from what is."""
        node, shard = process.name, process.shard
        if self._known.get(node) is configuration or shard not in self.history:
            return
        self._known[node] = configuration
        log_ends = process.node.raft.log.last_index
        if any(log_ends in places and configuration == then for places, then in self.earlier.get(shard, ())):
            return
        committed_here = [*self.history[shard], *filter(None, [self._lacking.get(shard)])]
        if not any(len(_changed(committed, configuration)) <= 1 for committed in reversed(committed_here)):
            raise Violation(
                "I21 one change at a time in a group",
                f"{node} goes by {configuration}, committed is {self.history[shard][-1]}",
            )

    def known(self, node: str, configuration: Configuration) -> None:
        """A node goes by this one to begin with."""
        self._known[node] = configuration

    def now(self) -> list[Configuration]:
        """The latest committed configuration of each group."""
        return [self._lacking.get(shard, history[-1]) for shard, history in sorted(self.history.items())]


def _changed(before: Configuration, after: Configuration) -> set[int]:
    return (before.voters ^ after.voters) | (before.learners ^ after.learners)


class Members:
    """The operator. One wish after the other, told to whoever leads shard 0: a host leaves, and comes back.
    The rest is the nodes' own work (``node.members``)."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._random = Random(f"{simulation.seed}/members")
        self._later()

    def _later(self) -> None:
        self._simulation.at(LOOK_S, None, self._look)

    @property
    def done(self) -> int:
        """Changes that every group has committed."""
        return min(len(history) for history in self._simulation.checker.configurations.history.values()) - 1

    @property
    def at_rest(self) -> bool:
        """Whether everybody is a voter of every group again."""
        return all(c == self._simulation.configuration for c in self._simulation.checker.configurations.now())

    def _look(self) -> None:
        self._later()
        leaders = self._simulation._leaders(0)
        if leaders:
            leader = max(leaders, key=lambda process: process.node.raft.term)
            leader.happens(None, lambda: self._wish(leader))

    def _wish(self, leader: NodeProcess) -> None:
        hosts = leader.node.roster.table.hosts
        gone = [host for _, host in sorted(hosts.items()) if host.removed]
        if gone:
            leader.node.roster.changes.want(replace(gone[0], removed=False))
        elif leader.node.raft.configuration.voters != hosts.keys() or self._simulation.calm:
            return  # the one before is to vote again first
        elif self._random.random() > 1 - self._simulation.plan.member_chance:
            host = hosts[self._random.choice(sorted(hosts))]
            leader.node.roster.changes.want(replace(host, removed=True))


class Growing:
    """Data grows: an operator asks for it from the beginning on, whatever hosts have said by then (G16). It
    asks each node that leads shard 0, without a client: a leader that was deposed may be among them."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._later()

    def _later(self) -> None:
        self._simulation.at(LOOK_S, None, self._look)

    def _look(self) -> None:
        self._later()
        for process in self._simulation._leaders(0):
            process.happens(None, lambda process=process: self._ask(process))  # type: ignore[misc]

    def _ask(self, process: NodeProcess) -> None:
        leader = process.node.writes.leader
        if leader is not None and process.node.raft.takes_proposals:
            with suppress(EtcdError):
                leader.execute(Method.GROW, b"")
            process.node.wake()

    def why_not(self) -> str:
        """What is still due; empty: every node has grown."""
        levels = {name: process.node.upkeep.growing.growth.level
                  for name, process in sorted(self._simulation.nodes.items())}
        return "" if set(levels.values()) == {LEVEL} else f"not every node has grown: {levels}"
