"""Flushes of the state, and what is kept of the log behind them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from cluster.raft import Role
from cluster.raft.types import PeerStatus
from tests.unit.node.upkeep.replicas import SMALL, Make


def test_what_is_kept_for_siblings_alone_is_bounded_in_bytes(replica: Make) -> None:
    node = replica(**SMALL)
    node.wanted_from = 0
    node.write(40, 1 << 20)
    node.store.flush()
    node.upkeep.second()
    assert node.asked[-1] == 32  # an eighth of the bound: who wants less than the last 8 MiB installs a state


def test_what_is_kept_for_a_transfer_is_bounded_in_bytes(replica: Make) -> None:
    node = replica(**SMALL)
    node.heard[2] = PeerStatus(0, 1, "snapshot", 0, False, int(1e6))
    node.upkeep.catching_up.begins(2, 1, 1000.0)
    node.write(20, 1 << 20)
    node.store.flush()
    node.upkeep.second()
    assert node.log.snapshot_position().index == 1
    node.write(10, 1 << 20)  # more than three eighths together: that transfer was in vain
    node.store.flush()
    node.upkeep.second()
    assert node.log.bytes_after(0) < 8 << 20


@pytest.mark.parametrize("shard", [0, 1])
def test_a_leader_holds_proposals_back_for_who_ran_out_of_log(replica: Make, shard: int) -> None:
    """A shard's other than 0, too, which has no leader of node.replica.writes."""
    node = replica(shard=shard, leads=not shard, **SMALL)
    node.raft.role = Role.LEADER
    node.heard[2] = PeerStatus(0, 1, "snapshot", 0, False, int(1e6))
    for held_back in (False, True):
        node.upkeep.catching_up.begins(2, node.applied_index + 1, 999.0)
        node.write(30, 1 << 20)
        assert node.raft.held_back is held_back
        node.store.flush()
        node.upkeep.second()
    (again,) = node.loop.later
    again()
    assert not node.raft.held_back
    assert node.woken


def test_a_sibling_flushes_for_what_node_0_logged(replica: Make) -> None:
    """It has no rows of that itself; node 0 keeps the records until the flush."""
    node = replica(shard=1, **SMALL)
    for index in range(1, 9):
        node.store.apply([(index, 1, b"")])
        node.applied_index = node.order_index = index
        node.upkeep.logged_bytes(0, 1 << 20)
        node.upkeep.flushes.applied()
    assert node.store.durable_position.order_index == 6  # 3 MiB, and 3 MiB more


def test_a_sibling_flushes_what_little_it_applied_for_a_change_of_members(replica: Make) -> None:
    """I17: it waits for that, in a store where nothing else happens, too."""
    node = replica(shard=1, **SMALL)
    flushes, told = node.upkeep.flushes, []
    node.upkeep.on_flushed = lambda: told.append(node.store.durable_position.order_index)

    def applied(index: int) -> int:
        node.store.apply([(index, 1, b"")])
        node.applied_index = node.order_index = index
        flushes.hasten(wanted=index > 1)
        return node.store.durable_position.order_index

    assert [applied(index) for index in (1, 2)] == [0, 2]
    assert applied(3) == 2  # not again at once
    flushes.hasten(wanted=False)
    assert applied(4) == 2  # nor because the change waited for a host meanwhile
    node.loop.now_s += 0.1
    assert applied(5) == 5
    node.loop.now_s += 0.1
    assert applied(6) == 5
    flushes.hasten(wanted=False)
    node.loop.now_s += 16.0
    assert applied(7) == 7
    assert told == [2, 5, 7]  # at once


@pytest.mark.parametrize("shard", [0, 1])
def test_what_moved_here_is_flushed_once_by_a_store_where_nothing_else_happens(
    replica: Make, shard: int
) -> None:
    """G10: its source keeps the rows until then."""
    node = replica(shard=shard, **SMALL)
    flushed: list[int] = []
    node.upkeep.on_flushed = lambda: flushed.append(node.store.durable_position.order_index)
    for index in range(1, 5):
        node.store.apply([(index, index, b"")] if shard == 0 else [(index, 1, b"")])
        node.applied_index = node.order_index = index
        if index == 2:
            node.upkeep.flushes.owe()
        node.upkeep.flushes.hasten(wanted=False)
    assert flushed == [2]


def test_a_change_of_members_that_waits_long_costs_few_flushes(replica: Make) -> None:
    """Ten minutes of writes: a host comes and goes, or the table has new rows."""
    def flushes_of(wanted: Callable[[int], bool], anew: Callable[[int], bool] = lambda tick: False) -> int:
        node = replica(shard=1, **SMALL)
        flushes, store, count, hurried = node.upkeep.flushes, SimpleNamespace(), 0, 0
        store.durable_position = SimpleNamespace(order_index=0)

        def begin() -> None:
            nonlocal count
            count += 1
            store.durable_position.order_index = node.order_index

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(flushes, "_store", store)
            patch.setattr(flushes, "_begin", begin)
            for tick in range(6000):
                node.loop.now_s += 0.1
                node.order_index += 1
                flushes.hasten(wanted=wanted(tick), anew=anew(tick))
                hurried += flushes.hurried
        assert hurried < 100 or anew(0), "the order's records may be late while a change waits long"
        return count

    assert flushes_of(lambda tick: True) <= 45
    assert flushes_of(lambda tick: tick % 20 != 0) <= 45
    assert flushes_of(lambda tick: tick % 2 == 0) <= 45
    assert flushes_of(lambda tick: True, lambda tick: tick % 20 == 0) <= 800


def test_another_change_of_members_begins_with_short_pauses(replica: Make) -> None:
    node = replica(shard=1, **SMALL)
    flushes, told = node.upkeep.flushes, []
    node.upkeep.on_flushed = lambda: told.append(round(node.loop.now_s - 1000, 1))
    for tick in range(1, 241):
        node.loop.now_s += 0.1
        node.store.apply([(tick, 1, b"")])
        node.applied_index = node.order_index = tick
        flushes.hasten(wanted=True, anew=tick == 100)
    assert told == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 12.9, 13.1, 13.5, 14.3, 15.9, 19.1]


def test_a_flush_that_does_not_end_is_told_of_once_a_minute(
    replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = replica()
    flushes, hung = node.upkeep.flushes, Future[object]()
    monkeypatch.setattr(node.loop, "run_in_executor", lambda *_: hung)
    node.loop.now_s += 100
    with capture_logs() as logs:
        flushes.hasten(wanted=False)
        node.write(1, 1)
        flushes.owe()
        for _ in range(2 * 75):
            flushes.hasten(wanted=False)
            node.loop.now_s += 0.5
        assert [(line["event"], line["took_s"]) for line in logs] == [
            ("a flush of the state has not ended yet; the disk may hang", took_s) for took_s in (10, 70)]
        hung.set_result(node.store.position)
        flushes.hasten(wanted=False)
    assert len(logs) == 2
