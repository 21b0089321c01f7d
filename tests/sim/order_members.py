"""Hosts leave and come back, in every group, while everything else goes wrong: an operator who follows
``cluster.members.host_changes``. The host that left keeps its disks, so that it may come back under its identity."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from order_world import Violation

from cluster.members import host_changes
from cluster.members.host_changes import HostChange, Kind
from cluster.raft import Configuration, EntryKind, RaftError, Role

if TYPE_CHECKING:
    from order_host import NodeProcess
    from order_sim import Simulation

LOOK_S = 0.05
CAUGHT_UP = 5  # entries that a learner may be behind when it is made a voter


class Configurations:
    """What every group has committed, and the rules over all of them (I21, H12)."""

    def __init__(self, shards: range, initial: Configuration) -> None:
        self.history = {shard: [initial] for shard in shards}
        self._known: dict[str, Configuration] = {}  # in effect at a node when it was looked at last

    def committed(self, shard: int, kind: int, data: bytes) -> None:
        """One more entry of a group is known to be committed, in the order of its log."""
        if kind != EntryKind.CONFIG:
            return
        mine = self.history[shard]
        mine.append(Configuration.decode(data))
        where = f"group {shard}: {mine[-1]}"
        for other, history in self.history.items():
            at = min(len(mine), len(history))
            if mine[:at] != history[:at] or abs(len(mine) - len(history)) > 1:
                raise Violation("I21 the next change of hosts begins when all groups have the last", f"{where}, group {other}: "
                                f"{history[-1]}")
        members = self.history[0][-1].members()
        for other, history in self.history.items():
            if not history[-1].voters <= members:
                raise Violation("H12 a host out of group 0 is a voter nowhere", f"{where}, group {other}: {history[-1]}")

    def in_effect(self, node: str, shard: int, configuration: Configuration) -> None:
        """What a node goes by after a step (I21): committed, or one member's change away from what is."""
        if self._known.get(node) is configuration:
            return
        self._known[node] = configuration
        if not any(len(_changed(committed, configuration)) <= 1 for committed in reversed(self.history[shard])):
            raise Violation("I21 one change at a time in a group", f"{node} goes by {configuration}, committed is "
                                                                   f"{self.history[shard][-1]}")

    def now(self) -> list[Configuration]:
        """The latest committed configuration of each group."""
        return [history[-1] for _, history in sorted(self.history.items())]


def _changed(before: Configuration, after: Configuration) -> set[int]:
    return (before.voters ^ after.voters) | (before.learners ^ after.learners)


class Members:
    """The operator. One change after the other: a host leaves, is added as a learner, is promoted."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._random = Random(f"{simulation.seed}/members")
        self._change: HostChange | None = None
        self.done = 0
        self._later()

    def _later(self) -> None:
        self._simulation.at(LOOK_S, None, self._look)

    @property
    def at_rest(self) -> bool:
        """Whether everybody is a voter of every group again."""
        return all(c == self._simulation.configuration for c in self._simulation.checker.configurations.now())

    def _look(self) -> None:
        self._later()
        committed = self._simulation.checker.configurations.now()
        if self._change is None or not host_changes.next_groups(self._change, committed):
            self.done += self._change is not None
            self._change = None
            if not host_changes.may_begin(committed):
                return
            self._change = self._choose(committed[0])
        if self._change is not None:
            for group in host_changes.next_groups(self._change, committed):
                self._ask(group, self._change)

    def _choose(self, current: Configuration) -> HostChange | None:
        everybody = self._simulation.configuration.voters
        if current.learners:
            return HostChange(Kind.PROMOTE, min(current.learners))
        if gone := everybody - current.voters:
            return HostChange(Kind.ADD, min(gone))
        if self._simulation.calm or self._random.random() < 0.7:
            return None
        return HostChange(Kind.REMOVE, self._random.choice(sorted(everybody)))

    def _ask(self, group: int, change: HostChange) -> None:
        leaders = self._simulation._leaders(group)
        if leaders:
            leader = max(leaders, key=lambda process: process.node.raft.term)
            leader.happens(None, lambda: self._propose(leader, change))

    def _propose(self, process: NodeProcess, change: HostChange) -> None:
        raft: Any = process.node.raft
        if raft.role is not Role.LEADER:
            return
        current = raft.configuration
        if change.done(current):
            return  # under way
        if change.kind == Kind.PROMOTE:
            learner = raft.peers().get(change.member_id)  # None: this one leads no more, and does not know
            if learner is None or raft.last_index - learner.match > CAUGHT_UP:
                return
        try:
            if change.kind == Kind.REMOVE and change.member_id == process.host:
                raft.transfer_leadership(self._random.choice(sorted(current.voters - {process.host})))
            else:
                raft.propose_configuration(change.target(current))
        except RaftError:
            return  # asked again at the next look
        process.node.wake()
