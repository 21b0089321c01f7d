"""At the sequencer no report counts of a shard whose drop it has logged (G13)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.order.leading.queued import Report
from cluster.order.log import Fold
from cluster.order.sequencing.reports import Reports
from cluster.placement import Placement
from cluster.placement.base import Base
from cluster.placement.changes import take_shard
from cluster.placement.table import State, Table
from cluster.wire.messages import Status
from node.replica.moving.sources import DURABLE
from node.replica.shards.birthing import Birthing


class Role:
    """What ``Birthing`` asks of a node 0 that sequences."""

    sequencing = True

    def __init__(self, table: Table) -> None:
        self.logged: list[tuple[int, State]] = []
        told = SimpleNamespace(table=table, facts=lambda: SimpleNamespace(settled=False))

        def log_shard(shard: int, state: State) -> bytes:
            self.logged.append((shard, state))
            told.table = take_shard(told.table, shard, state, 0, ())
            return b""

        self.placement = Placement(1)
        self.reports = Reports()
        self.on_disk = 0  # of the order, at a majority of all other shards' nodes
        self.now_ms = 0
        self.own = self.others = 0  # the same, at this node 0 and at two others
        self.links = SimpleNamespace(find=lambda host, shard: self, flush=lambda: None)
        floors = SimpleNamespace(on_disk=lambda voters: self.on_disk)
        self.feeds = SimpleNamespace(follow=lambda shards, forming: None, floors=floors)
        self.writes = SimpleNamespace(leader=SimpleNamespace(told=told, log_shard=log_shard))
        self.fold = Fold()
        self.sequencer = SimpleNamespace(tail=SimpleNamespace(append=lambda item, writes, revoked: None))
        self.node = SimpleNamespace(
            settings=SimpleNamespace(birth_timeout_ms=1000, data_dir="/nowhere/shard-0"),
            now_ms=lambda: self.now_ms, wake=lambda: None, loop=None,
            raft=SimpleNamespace(
                id=1, last_index=7, configuration=SimpleNamespace(voters=frozenset((1, 2, 3)))),
            store=self, applies=SimpleNamespace(busy=True), upkeep=SimpleNamespace(),
            machine=SimpleNamespace(
                thread=lambda name: ThreadPoolExecutor(1), has_begun=lambda folder: True,
                status=SimpleNamespace(say=lambda *said, **facts: None)))

    @property
    def durable_position(self) -> SimpleNamespace:
        return SimpleNamespace(order_index=self.own)

    up = False  # as a link to another node 0

    def request(self, method: int, body: bytes, answered: Callable[[int, bytes], object]) -> None:
        answered(Status.OK, DURABLE.pack(self.others))


def applied(role: Role, birthing: Birthing, table: Table) -> None:
    role.placement.replace(table)
    birthing.follow(table, role.fold)


def counted(role: Role) -> set[int]:
    """Shards of which a cut would be put in order, where all of them report."""
    for shard in (1, 2):
        role.reports.take(Report(shard, 5, 1, 0, 9), 7)
    return set(role.reports.by_shard)


@pytest.fixture
def retiring() -> Table:
    table = Table.initial(Base(1))
    for shard in (1, 2):
        for state in (State.FORMING, State.SERVING, State.RETIRING):
            table = take_shard(table, shard, state, shard, (1,))
    return table


@pytest.fixture
def role(retiring: Table) -> Role:
    return Role(retiring)


@pytest.fixture
def birthing(role: Role) -> Iterator[Birthing]:
    made = Birthing(cast(Any, role))
    made.begin()
    yield made
    made.close()


def test_no_report_counts_of_shards_that_are_dropped_together(
    role: Role, birthing: Birthing, retiring: Table
) -> None:
    applied(role, birthing, retiring)
    assert counted(role) == {1, 2}
    birthing.step()
    assert role.logged == [(1, State.DROPPED), (2, State.DROPPED)]
    assert counted(role) == set()


def test_g10_a_shard_whose_keys_have_moved_away_is_dropped_once_they_are_on_disk(
    role: Role, birthing: Birthing, retiring: Table
) -> None:
    role.writes.leader.told.table = moved = replace(retiring, last_move=1)
    applied(role, birthing, moved)
    role.on_disk, role.own, role.others = 6, 7, 7
    birthing.step()
    birthing.second()
    birthing.step()
    assert role.logged == []
    role.node.raft.last_index = 9
    role.on_disk, role.others = 7, 6
    birthing.second()
    birthing.step()
    assert role.logged == [], "shard 0 may be a new owner, too"
    role.own, role.others = 0, 7
    birthing.second()
    birthing.step()
    assert role.logged == [(1, State.DROPPED), (2, State.DROPPED)], "what was logged later does not matter"


def test_a_table_from_before_the_drop_brings_no_report_back(
    role: Role, birthing: Birthing, retiring: Table
) -> None:
    applied(role, birthing, retiring)
    birthing.step()
    applied(role, birthing, take_shard(retiring, 3, State.FORMING, 3, (1,)))  # logged before the drops
    assert counted(role) == set()
    birthing.end()
    birthing.begin()  # another term, in which the drops are lost
    applied(role, birthing, retiring)
    assert counted(role) == {1, 2}


def test_a_shard_whose_drop_was_lost_counts_once_it_serves(role: Role, birthing: Birthing) -> None:
    """Another leader has gone on with it. Its reports did not count here: nothing of it was put in order."""
    forming = take_shard(Table.initial(Base(1)), 1, State.FORMING, 1, (1, 2, 3))
    role.writes.leader.told.table = forming
    applied(role, birthing, forming)
    birthing.step()
    role.now_ms = 1000
    birthing.step()
    assert role.logged == [(1, State.DROPPED)]
    birthing.end()
    applied(role, birthing, take_shard(forming, 1, State.SERVING, 0, ()))
    assert counted(role) == {1}, "a follower asks its leader, too"
    birthing.begin()
    assert counted(role) == {1}
