"""Whether a shard may be added or retired, judged by the leader of shard 0 (growth.md, G12 to G14, G16)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.growth import BIRTHS, MOVES, Growth, members_of
from cluster.members.table import Host
from cluster.placement.table import State, Table
from cluster.wire.frames import BIRTHS_SINCE

MOST_SHARDS = 64  # with nodes, at a time: each is a process a host
ADD, RETIRE = 1, 2  # kinds of SHARD_CHANGE
_GOING_ON = {State.FORMING: "forming", State.RETIRING: "retiring", State.DROPPED: "dropped"}


class Facts(NamedTuple):
    """What the leader knows besides its log."""

    linked: Mapping[int, int]  # the version of its link, for each member that is connected, and its own
    settled: bool  # no change of members is logged or under way
    voters: Collection[int]  # of group 0


def check_level(grown: Growth, needed: int = BIRTHS) -> None:
    """EtcdError: the cluster's data has not grown so far."""
    if grown.level < needed:
        raise errors.SHARD_LEVEL.error(level=grown.level, needed=needed)


def check_add(hosts: Mapping[int, Host], table: Table, facts: Facts) -> None:
    """EtcdError: no shard may be born now. The level was checked."""
    if table.forming:
        raise going_on(table.forming, State.FORMING)
    unsure = [i for i in members_of(hosts) if facts.linked.get(i, 0) < BIRTHS_SINCE]
    if unsure:
        names = ", ".join(hosts[i].name or f"{i:x}" for i in unsure)
        raise errors.SHARD_HOSTS_UNSURE.error(hosts=names)
    if not facts.settled:  # G14
        raise EtcdError(errors.SHARD_HOSTS_CHANGE)
    if len(running(table)) >= MOST_SHARDS:
        raise errors.SHARD_LIMIT.error(most=MOST_SHARDS)


def check_retire(grown: Growth, table: Table, shard: int, with_keys: bool) -> None:
    """EtcdError: this shard may not retire now. The level of births was checked. ``with_keys``: that are to
    be moved away."""
    if not shard:
        raise EtcdError(errors.SHARD_STAYS)
    known = table.shards.get(shard)
    if known is None or known.state == State.DROPPED:
        raise errors.SHARD_UNKNOWN.error(shard=shard)
    move = table.move
    if known.state != State.SERVING or (move is not None and shard in (move.target, *move.sources)):
        raise going_on(shard, known.state)
    if table.owns_anything(shard):
        if not with_keys:
            raise errors.SHARD_OWNS_KEYS.error(shard=shard)
        check_level(grown, MOVES)


def going_on(shard: int, state: State) -> EtcdError:
    return errors.SHARD_BUSY.error(shard=shard, state=_GOING_ON.get(state, "in a move"))


def running(table: Table) -> list[int]:
    """The shards that have nodes."""
    return sorted(shard for shard, known in table.shards.items() if known.state != State.DROPPED)


def next_id(table: Table) -> int:
    """Never used before (G13)."""
    return max(table.shards) + 1


def next_slot(table: Table) -> int:
    """The lowest that no shard has."""
    taken = {known.slot for known in table.shards.values() if known.state != State.DROPPED}
    return next(slot for slot in range(len(taken) + 1) if slot not in taken)
