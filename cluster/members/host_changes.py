"""Which group's configuration changes next when a host joins or leaves: rules over all groups of a store
(H12, I21).

A host has a replica in the group of every shard, so that one change of hosts is one change in each group.
Without rules: host B leads shard s, C's node of s is down; B is removed from group 0 first and gets no feed
any more. Then s has no quorum that could remove B until C is back, and if C's node is lost, never. So

* a host joins group 0 first: its feed is there before the first entry that has to be put in order. It leaves
  group 0 last. A host outside of group 0 is a voter nowhere;
* the next change of hosts begins when every group has committed the last one: no two groups are further apart
  than one change, under every leader;
* a group carries out only what its leader has applied of the table, and what the voters that its leader hears
  can commit;
* a leader is not removed: it hands over first. Within a group Raft goes one step at a time
  (``cluster.raft``).

``node.members`` and the simulator carry the changes out and say what each group has committed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum

from cluster.members.table import Host
from cluster.raft import Configuration


class Kind(IntEnum):
    """The wanted state of a host."""

    ADD = 1  # as a learner: it receives everything and counts for nothing
    PROMOTE = 2  # to a voter, once it has caught up in every group
    REMOVE = 3


@dataclass(slots=True, frozen=True)
class HostChange:
    """One change of one host, in every group."""

    kind: Kind
    member_id: int

    def target(self, current: Configuration) -> Configuration:
        """A group's configuration after the change."""
        one = frozenset((self.member_id,))
        if self.kind == Kind.ADD:
            return (
                current
                if self.member_id in current.voters
                else Configuration(current.voters, current.learners | one)
            )
        if self.kind == Kind.PROMOTE:
            if self.member_id not in current.learners:  # one that has left meanwhile does not come back so
                return current
            return Configuration(current.voters | one, current.learners - one)
        return Configuration(current.voters - one, current.learners - one)

    def done(self, committed: Configuration) -> bool:
        """Whether a group has committed it; to ask for it again changes nothing."""
        return self.target(committed) == committed


def wanted(change: HostChange, host: Host | None) -> bool:
    """Whether a group may carry it out, by the row that its leader has applied. A leader that lags behind
    waits; a request of a former leader may no longer be wanted."""
    if host is None:
        return False
    if change.kind == Kind.REMOVE:
        return host.removed
    return not host.removed and not (change.kind == Kind.PROMOTE and host.learner)


def can_commit(target: Configuration, heard: Collection[int]) -> bool:
    """Whether the voters that are heard can commit it. It is not begun before: a group that waits for it has
    lost its quorum, where with the configuration before it may have one."""
    return len(target.voters.intersection(heard)) >= target.quorum()


def may_begin(committed: Sequence[Configuration]) -> bool:
    """I21: whether another change of hosts may begin; the committed configuration of each group, group 0's
    first."""
    return all(configuration == committed[0] for configuration in committed)


def next_groups(change: HostChange, committed: Sequence[Configuration]) -> list[int]:
    """The groups whose turn it is (H12); none: every group has committed the change."""
    due = [group for group, configuration in enumerate(committed) if not change.done(configuration)]
    others = [group for group in due if group]
    if change.kind == Kind.REMOVE:
        return others or due  # group 0 last
    return due if 0 not in due else [0]  # group 0 first
