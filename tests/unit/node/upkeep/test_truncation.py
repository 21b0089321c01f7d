"""Flushes of the state, and what is kept of the log behind them."""

from __future__ import annotations

import pytest

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
