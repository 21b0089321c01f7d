"""A node 0 tells its host of a dropped shard once the drop is on its own disk: only then the files may go."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.order.log import Fold
from cluster.order.sequencing.reports import Reports
from cluster.placement import Placement
from cluster.placement.base import Base
from cluster.placement.changes import take_shard
from cluster.placement.table import State, Table
from node.replica.shards.birthing import Birthing

SERVES, DROPPED, LATER = 5, 6, 9  # order records


class Role:
    """What ``Birthing`` asks of a node 0 that follows."""

    sequencing = False

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []  # to the supervisor
        self.owed = 0  # flushes that were asked for
        self.applied = self.on_disk = 0
        self.placement, self.reports, self.fold = Placement(1), Reports(), Fold()
        self.links = SimpleNamespace()
        self.feeds = SimpleNamespace(follow=lambda shards, forming: None)
        self.node = SimpleNamespace(
            settings=SimpleNamespace(birth_timeout_ms=1000, data_dir="/nowhere/shard-0"), loop=None,
            store=self, applies=SimpleNamespace(busy=False),
            upkeep=SimpleNamespace(flushes=SimpleNamespace(owe=self._owe)),
            machine=SimpleNamespace(
                thread=lambda name: ThreadPoolExecutor(1), has_begun=lambda folder: True,
                status=SimpleNamespace(say=lambda event, **facts: self.said.append(facts))))

    def flushed(self) -> None:
        self.node.upkeep.on_flushed()

    def _owe(self) -> None:
        self.owed += 1

    @property
    def position(self) -> SimpleNamespace:
        return SimpleNamespace(order_index=self.applied)

    @property
    def durable_position(self) -> SimpleNamespace:
        return SimpleNamespace(order_index=self.on_disk)


@pytest.fixture
def role() -> Role:
    return Role()


@pytest.fixture
def birthing(role: Role) -> Iterator[Birthing]:
    made = Birthing(cast(Any, role))
    yield made
    made.close()


@pytest.fixture
def serving() -> Table:
    table = Table.initial(Base(1))
    for state in (State.FORMING, State.SERVING):
        table = take_shard(table, 1, state, 1, (1, 2, 3))
    return table


@pytest.fixture
def dropped(serving: Table) -> Table:
    return take_shard(take_shard(serving, 1, State.RETIRING, 0, ()), 1, State.DROPPED, 0, ())


def apply(role: Role, birthing: Birthing, table: Table, order_index: int) -> None:
    role.applied = order_index
    role.placement.replace(table)
    birthing.follow(table, role.fold)


def test_a_drop_that_a_power_cut_would_take_back_is_not_told(
    role: Role, birthing: Birthing, serving: Table, dropped: Table
) -> None:
    apply(role, birthing, serving, SERVES)
    role.on_disk = SERVES
    apply(role, birthing, dropped, DROPPED)
    birthing.second()
    role.flushed()  # of what was applied before the drop
    assert [said["dropped"] for said in role.said if said["dropped"]] == []
    role.on_disk = DROPPED
    role.flushed()
    assert role.said[-1] == {"base": 1, "dropped": [1], "forming": [], "born": {}}


def test_meanwhile_its_node_is_not_waited_for_and_not_made(
    role: Role, birthing: Birthing, serving: Table, dropped: Table
) -> None:
    apply(role, birthing, serving, SERVES)
    assert role.said[-1] == {"base": 1, "dropped": [], "forming": [], "born": {"1": [1, 2, 3]}}
    apply(role, birthing, dropped, DROPPED)
    assert role.said[-1] == {"base": 1, "dropped": [], "forming": [1], "born": {}}, "it has no leader"


def test_a_drop_asks_for_a_flush_until_it_is_on_disk(
    role: Role, birthing: Birthing, serving: Table, dropped: Table
) -> None:
    apply(role, birthing, serving, SERVES)
    assert not role.owed
    apply(role, birthing, dropped, DROPPED)
    assert role.owed == 1
    birthing.second()  # the flush may have failed
    assert role.owed == 2
    role.on_disk = DROPPED
    birthing.second()
    assert (role.owed, role.said[-1]["dropped"]) == (2, [1])


def test_what_is_applied_behind_a_drop_does_not_delay_it(
    role: Role, birthing: Birthing, serving: Table, dropped: Table
) -> None:
    apply(role, birthing, serving, SERVES)
    apply(role, birthing, dropped, DROPPED)
    apply(role, birthing, take_shard(dropped, 2, State.FORMING, 2, (1, 2, 3)), LATER)
    role.on_disk = DROPPED
    role.flushed()
    assert role.said[-1]["dropped"] == [1]


def test_a_drop_that_is_in_the_state_at_a_start_is_told_at_once(
    role: Role, birthing: Birthing, dropped: Table
) -> None:
    role.on_disk = DROPPED
    apply(role, birthing, dropped, DROPPED)
    assert [said["dropped"] for said in role.said] == [[1]]
    role.flushed()
    birthing.second()
    assert len(role.said) == 1, "it is said once"
