"""What happens next when the groups of a store are not what the table of members wants: pure decisions.

The table (``cluster.members.table``) is the goal: it is in the order, so it survives every crash. The groups'
leaders say where their groups stand. From both follows the one change that is due, under every leader and
after every failure:

* a host that the table has and the groups have not is added to every group, as a learner first;
* a learner that is to vote is promoted once it has caught up in every group. Its quorum counts only then,
  so writes go on while a new host is empty or down;
* a host that was removed leaves every group. The only voter stays until another host votes: a new voter
  catches up from it and takes its leadership;
* voters change only once a majority of the new voters has on its disks what order records may have gone
  before (I17). A host that leaves takes its states along, and a record that is gone cannot be fed again.

``cluster.members.host_changes`` says in which group the change is due (H12), and that the next one begins
when every group has the last (I21). A new wish for members is taken only while :func:`settled`: in the middle
of a change a wish could ask for the way back. A promotion that has not begun is no obstacle: it may never
begin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from cluster.members import host_changes
from cluster.members.host_changes import HostChange, Kind
from cluster.members.table import Host
from cluster.raft import Configuration

CAUGHT_UP = 100  # entries that a learner may be behind when it is made a voter, if it has answered


class Due(NamedTuple):
    """A change of hosts and the groups whose turn it is."""

    change: HostChange
    groups: list[int]


def due(
    hosts: Mapping[int, Host],
    committed: Sequence[Configuration],
    caught_up: Callable[[int], bool],
    *,
    may_promote: bool = True,
    covered: Callable[[HostChange, Configuration], bool] = lambda change, target: True,
) -> Due | None:
    """What is to be asked for now; None: nothing. ``committed``: each group's committed configuration, group
    0's first; ``caught_up(member)``: whether a learner is close behind in every group; ``covered(change,
    target)``: whether most voters of the target need no order record from before."""
    if not committed:
        return None
    change = _begun(hosts, committed)
    if change is None and host_changes.may_begin(committed):
        change = _next(hosts, committed[0], caught_up if may_promote else lambda _: False)
        if change is not None:
            target = change.target(committed[0])
            if target.voters != committed[0].voters and not covered(change, target):
                return None  # I17. What has begun goes on: one step leaves enough to install from
    if change is None:
        return None
    groups = host_changes.next_groups(change, committed)
    return Due(change, groups) if groups else None


def settled(
    hosts: Mapping[int, Host],
    committed: Sequence[Configuration],
    in_effect: Sequence[Configuration] | None = None,
) -> bool:
    """Whether another wish may be taken: every group is what the table says, but for promotions that have not
    begun. ``in_effect``: each group's latest configuration, if not the committed one."""
    if not committed or (in_effect is not None and list(in_effect) != list(committed)):
        return False  # in the latter case a change has begun
    return host_changes.may_begin(committed) and due(hosts, committed, lambda _: False) is None


def votes_change(
    hosts: Mapping[int, Host],
    current: Configuration,
    reached: Callable[[int], bool] = lambda member_id: True,
) -> bool:
    """Whether other hosts are to vote in a group: its nodes flush their states for it (I17). A host that is
    not ``reached`` does not vote soon."""
    leaving = any(_gone(hosts, member_id) for member_id in current.voters)
    return (leaving and len(current.voters) > 1) or any(
        host.member_id in current.learners and not (host.learner or host.removed) and reached(host.member_id)
        for host in hosts.values()
    )


def _begun(hosts: Mapping[int, Host], committed: Sequence[Configuration]) -> HostChange | None:
    """The change that some groups have and others have not: it goes on, whatever its host does meanwhile."""
    for member_id in sorted(frozenset().union(*(c.members() for c in committed))):
        if len({_standing(member_id, c) for c in committed}) == 1:
            continue
        if _gone(hosts, member_id):
            return HostChange(Kind.REMOVE, member_id)
        absent = any(member_id not in c.members() for c in committed)
        return HostChange(Kind.ADD if absent else Kind.PROMOTE, member_id)
    return None


def _next(
    hosts: Mapping[int, Host], current: Configuration, caught_up: Callable[[int], bool]
) -> HostChange | None:
    for member_id in sorted(current.members()):
        if _gone(hosts, member_id) and current.voters != {member_id}:
            return HostChange(Kind.REMOVE, member_id)
    wanted = [host for _, host in sorted(hosts.items()) if not host.removed]
    for host in wanted:
        if host.member_id not in current.members():
            return HostChange(Kind.ADD, host.member_id)
    for host in wanted:
        if not host.learner and host.member_id in current.learners and caught_up(host.member_id):
            return HostChange(Kind.PROMOTE, host.member_id)
    return None


def _gone(hosts: Mapping[int, Host], member_id: int) -> bool:
    host = hosts.get(member_id)
    return host is not None and host.removed  # a host that the table does not know is not removed


def _standing(member_id: int, configuration: Configuration) -> int:
    return 2 if member_id in configuration.voters else int(member_id in configuration.learners)
