"""A store whose disks fill up takes no more in, before they are full."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.wire.messages import Method
from node.upkeep.space.disks import FRAME as SPACE
from tests.unit.node.upkeep.replicas import DELETE, NO_SPACE, PUT, SMALL, TXNS, Make


def test_a_log_kept_for_a_majority_stops_writes_at_half_of_its_bound_and_transactions_at_three_quarters(
    replica: Make,
) -> None:
    node = replica(**SMALL)
    node.wanted_from = 0
    node.upkeep.peer_said(2, SPACE[0], b"\x01")
    node.write(31, 1 << 20)
    node.upkeep.second()
    assert node.alarms == []
    assert not node.upkeep.quota.exceeded(Method.PUT, PUT.SerializeToString())
    node.write(2, 1 << 20)
    assert node.upkeep.quota.exceeded(Method.PUT, PUT.SerializeToString()), (
        "at once, before the alarm is applied")
    assert node.alarms[0] == NO_SPACE
    assert {a.memberID for a in node.alarms} == {1, 2}
    assert (2, SPACE, b"\x01") in node.told
    assert (3, SPACE, b"\x01") in node.told
    assert node.upkeep.quota.exceeded(Method.LEASE_GRANT, b"")
    assert [node.upkeep.quota.exceeded(Method.TXN, txn.SerializeToString()) for txn in TXNS] == [False, True]
    rest = (Method.DELETE_RANGE, Method.COMPACT, Method.LEASE_REVOKE, Method.SET_ALARM, Method.PUBLISH)
    assert not any(node.upkeep.quota.exceeded(method, DELETE.SerializeToString()) for method in rest)
    node.upkeep.peer_said(2, SPACE[0], b"\x02")
    node.write(20, 1 << 20)
    node.upkeep.second()
    assert [node.upkeep.quota.exceeded(Method.TXN, txn.SerializeToString()) for txn in TXNS] == [True, True]
    assert node.upkeep.quota.exceeded(Method.DELETE_RANGE, b"")
    assert not any(node.upkeep.quota.exceeded(method, b"") for method in rest[1:])
    # those behind have caught up: no flush comes, and yet the log shrinks
    node.store.flush()
    node.wanted_from = 1 << 62
    node.upkeep.peer_said(2, SPACE[0], b"\x00")
    node.upkeep.second()
    node.upkeep.second()
    assert node.log.bytes_after(0) < 8 << 20
    # once the alarm is disarmed: it was never applied here
    assert not node.upkeep.quota.exceeded(Method.PUT, b"")


def test_one_host_that_is_short_is_no_reason_to_stop(replica: Make) -> None:
    node = replica(**SMALL)
    node.wanted_from = 0
    node.write(40, 1 << 20)
    node.upkeep.second()
    assert node.alarms == []
    assert not node.upkeep.quota.exceeded(Method.PUT, b"")
    node.loop.now_s += 11  # ... until another one has been silent for long
    node.heard[2].heard_ms = node.machine.now_ms()
    node.upkeep.second()
    assert node.alarms == [NO_SPACE]
    assert node.upkeep.quota.exceeded(Method.PUT, b"")


def test_who_does_not_lead_says_that_it_is_short_every_second(replica: Make) -> None:
    node = replica(leads=False, **SMALL)
    node.wanted_from = 0
    node.upkeep.second()
    assert node.told == []
    node.write(40, 1 << 20)
    node.upkeep.second()
    node.told.clear()
    node.upkeep.second()
    assert node.told == [(i, SPACE, b"\x01") for i in (1, 2, 3)]
    assert not node.upkeep.quota.exceeded(Method.PUT, b"")


@pytest.mark.parametrize("leads", [True, False])
def test_other_shards_of_a_host_refuse_what_shard_0_refuses(
    replica: Make, tmp_path: Path, leads: bool
) -> None:
    """Deletes of their keys take the headroom as well. Their node 0 need not lead: short hosts tell all."""
    node = replica(leads=leads, run_dir=str(tmp_path), **SMALL)
    other = replica(shard=1, run_dir=str(tmp_path), **SMALL)
    node.wanted_from = 0
    delete = DELETE.SerializeToString()

    def refused() -> bool:
        node.upkeep.second()
        other.upkeep.second()
        return other.upkeep.quota.exceeded(Method.DELETE_RANGE, delete)

    assert not refused()
    node.write(52, 1 << 20)
    assert not refused(), "one host that is short is no reason"
    node.upkeep.peer_said(2, SPACE[0], b"\x01")
    assert not refused()
    assert other.upkeep.quota.exceeded(Method.PUT, PUT.SerializeToString())
    node.upkeep.peer_said(2, SPACE[0], b"\x02")
    assert refused()
    node.upkeep.peer_said(2, SPACE[0], b"\x00")
    assert not refused()
    assert not other.upkeep.quota.exceeded(Method.PUT, PUT.SerializeToString())
