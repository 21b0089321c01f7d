"""The quota of a store: which writes are refused, and when an alarm is raised."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import errors
from cluster.effects import records
from cluster.features.v2.requests import Op, Who, Write
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from node.upkeep.space import quota
from node.upkeep.space.disks import VERY_SHORT
from tests.unit.node.upkeep.replicas import DELETE, NO_SPACE, PUT, Make, Replica, put_of


def test_a_request_is_judged_with_its_own_size(replica: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """etcd's quota.go: 256 bytes for a put besides key and value, the larger branch of a transaction, 64 for
    a lease."""
    node = replica(quota_backend_bytes=1 << 20)
    used = (1 << 20) - 2000
    monkeypatch.setattr(node.store, "size_in_use_bytes", lambda: used)

    def refused(method: int, request: Any) -> bool:
        node.raised.clear()
        node.upkeep.alarms_changed()  # what was asked for has come and gone
        found = node.upkeep.quota.exceeded(method, request.SerializeToString())
        assert node.raised == ([NO_SPACE] if found else [])
        return found

    def op(size: int) -> pb.RequestOp:
        return pb.RequestOp(request_put=put_of(size))

    assert not node.upkeep.quota.fits(0)  # so the queue is looked at one by one
    assert not refused(Method.PUT, put_of(2000 - 256 - 1))
    assert refused(Method.PUT, put_of(2000 - 256))
    assert not refused(Method.TXN, pb.TxnRequest(success=[op(700)] * 2, failure=[op(1743)]))
    assert refused(Method.TXN, pb.TxnRequest(success=[op(744)] * 2, failure=[op(10)]))
    assert refused(
        Method.TXN, pb.TxnRequest(success=[pb.RequestOp(request_txn=pb.TxnRequest(failure=[op(1744)]))])
    )
    assert not refused(Method.DELETE_RANGE, pb.DeleteRangeRequest(key=bytes(5000)))
    assert not refused(Method.LEASE_GRANT, pb.LeaseGrantRequest(TTL=1))
    used = (1 << 20) - 64
    assert refused(Method.LEASE_GRANT, pb.LeaseGrantRequest(TTL=1))
    assert refused(Method.PUT, put_of(10))


def test_the_quota_is_of_all_shards_of_a_host_together(
    replica: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = [replica(shard=shard, run_dir=str(tmp_path), quota_backend_bytes=1 << 20) for shard in (0, 1)]
    used = [1000, 700_000]
    for shard, node in enumerate(two):
        monkeypatch.setattr(node.store, "size_in_use_bytes", lambda shard=shard: used[shard])
    for node in reversed(two):
        node.upkeep.second()
    assert not two[0].upkeep.quota.exceeded(Method.PUT, put_of(300_000).SerializeToString())
    assert two[0].upkeep.quota.exceeded(Method.PUT, put_of(400_000).SerializeToString())
    two[0].upkeep.alarms_changed()
    used[1] = 1 << 20
    two[1].write(1, 100_000)  # it tells so while it grows
    two[0].upkeep.second()
    assert two[0].upkeep.quota.exceeded(Method.PUT, PUT.SerializeToString())
    used[1] = 1000
    two[1].upkeep.alarms_changed()
    assert not two[0].upkeep.quota.exceeded(Method.PUT, PUT.SerializeToString())


def test_shards_that_were_born_share_what_is_left_too(
    replica: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together they do not pass the quota between two looks."""
    all_ = [replica(shard=shard, run_dir=str(tmp_path), quota_backend_bytes=1 << 30) for shard in range(4)]
    for node in all_:
        monkeypatch.setattr(node.store, "size_in_use_bytes", lambda: 1)
    steps = []
    for node in all_:
        for _ in range(2):  # what the first look finds decides when the second one is told
            node.upkeep.second()
        steps.append(node.upkeep.quota.tell_at)
    assert [(1 << 30) // step for step in steps] == [8, 8, 12, 16]


def full(replica: Make, monkeypatch: pytest.MonkeyPatch) -> Replica:
    """A store that is full, and its alarm disarmed."""
    node = replica(quota_backend_bytes=1 << 20)
    monkeypatch.setattr(node.store, "size_in_use_bytes", lambda: 2 << 20)
    node.apply(records.txn([records.put(b"%d" % i, 0, 1, b"v", 0) for i in range(20)]))
    node.upkeep.second()
    assert node.raised == [NO_SPACE]
    node.apply(records.alarm(True, pb.NOSPACE, 1))
    assert node.upkeep.quota.exceeded(Method.PUT, PUT.SerializeToString())
    node.apply(records.alarm(False, pb.NOSPACE, 1))
    node.raised.clear()
    return node


@pytest.mark.parametrize(("write", "passes"), [
    (Write(Op.SET, b"/1/a", expires_ns=9, refresh=True), True),
    (Write(Op.UPDATE, b"/1/a", expires_ns=9, refresh=True), True),
    (Write(Op.COMPARE_AND_SWAP, b"/1/a", prev_index=3, expires_ns=9, refresh=True), True),
    (Write(Op.UPDATE, b"/1/d", directory=True, expires_ns=9), True),
    (Write(Op.COMPARE_AND_SWAP, b"/1/a", b"me", prev_value=b"me", expires_ns=9, who=Who(b"alice")), True),
    (Write(Op.DELETE, b"/1/a"), True),
    (Write(Op.COMPARE_AND_SWAP, b"/1/a", b"more", prev_value=b"me", expires_ns=9), False),
    (Write(Op.COMPARE_AND_SWAP, b"/1/a", b"me", prev_index=3, expires_ns=9), False),
    (Write(Op.UPDATE, b"/1/a", b"me", expires_ns=9), False),
    (Write(Op.SET, b"/1/a", expires_ns=9), False),
    (Write(Op.CREATE, b"/1/a", refresh=True), False),
])  # fmt: skip
def test_keys_of_version_2_are_kept_while_the_store_is_full(
    replica: Make, monkeypatch: pytest.MonkeyPatch, write: Write, passes: bool
) -> None:
    """As leases are: services that are registered with a TTL would be gone in seconds otherwise."""
    node = full(replica, monkeypatch)
    assert node.upkeep.quota.exceeded(Method.V2_WRITE, write.encode()) is not passes
    monkeypatch.setattr(node.upkeep.quota, "_shortage", SimpleNamespace(store=VERY_SHORT))
    assert node.upkeep.quota.exceeded(Method.V2_WRITE, write.encode()) is (write.op != Op.DELETE)


def test_a_put_that_is_wrong_is_told_so_whatever_room_there_is(
    replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several shards the front says so; with one it looks at the key alone."""
    refusal = full(replica, monkeypatch).upkeep.quota.refusal
    puts: tuple[tuple[dict[str, Any], errors.ErrorKind], ...] = (
        ({"value": b"v"}, errors.NO_SPACE),
        ({"value": b"v", "ignore_value": True}, errors.VALUE_PROVIDED),
        ({"lease": 5, "ignore_lease": True}, errors.LEASE_PROVIDED),
    )
    for fields, error in puts:
        assert refusal(Method.PUT, pb.PutRequest(key=b"k", **fields).SerializeToString()) == error
    assert refusal(Method.PUT, b"") == errors.NO_SPACE


def test_many_requests_that_are_refused_at_once_ask_for_one_alarm(
    replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is applied by and by; each request to node 0 would log it again."""
    node = replica(quota_backend_bytes=1 << 20)
    monkeypatch.setattr(node.store, "size_in_use_bytes", lambda: 2 << 20)
    node.apply(records.put(b"k", 0, 1, b"v", 0))
    for _ in range(100):
        assert node.upkeep.quota.exceeded(Method.PUT, PUT.SerializeToString())
    assert 1 <= len(node.raised) <= 2
    node.raised.clear()
    node.upkeep.second()
    assert node.raised == [NO_SPACE], "once more each second"


def test_a_full_store_that_was_disarmed_waits_for_the_next_put(
    replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = full(replica, monkeypatch)
    node.apply(records.delete(b"0"))
    for _ in range(3):
        assert not node.upkeep.quota.exceeded(Method.DELETE_RANGE, DELETE.SerializeToString())
        assert node.upkeep.quota.exceeded(Method.PUT, b""), "as is asked before the queue is looked at"
        node.upkeep.second()
    assert node.raised == []
    for _ in range(2):
        assert node.upkeep.quota.exceeded(Method.PUT, PUT.SerializeToString())
    assert node.raised == [NO_SPACE]
    node.upkeep.second()
    assert node.raised == [NO_SPACE] * 2, "again until it is applied"
    node.apply(records.alarm(True, pb.NOSPACE, 1))
    node.upkeep.second()
    assert node.raised == [NO_SPACE] * 2


def test_a_put_that_others_let_in_raises_the_alarm_of_a_full_store(
    replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = full(replica, monkeypatch)
    monkeypatch.setattr(quota, "_CHANGES", 3)
    for i in range(7):
        node.apply(records.delete(b"%d" % i))
    node.apply(records.txn([records.delete(b"%d" % i) for i in range(7, 20)]))
    node.upkeep.second()
    assert node.raised == []
    node.apply(records.put(b"k", 0, 1, b"v", 0))
    for _ in range(7):
        node.upkeep.second()
    assert node.raised


def test_puts_go_on_as_soon_as_there_is_room_and_the_alarm_is_disarmed(
    replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = full(replica, monkeypatch)
    monkeypatch.setattr(node.store, "size_in_use_bytes", lambda: 1 << 19)
    assert not node.upkeep.quota.exceeded(Method.PUT, PUT.SerializeToString())
    assert node.raised == []


def test_far_from_the_quota_nobody_looks_at_requests(replica: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    node = replica(quota_backend_bytes=1 << 30)
    assert not node.upkeep.quota.exceeded(Method.PUT, b"")
    monkeypatch.setattr(node.store, "size_in_use_bytes", None)
    assert node.upkeep.quota.fits(100 << 20)
    assert not node.upkeep.quota.exceeded(Method.PUT, put_of(1 << 20).SerializeToString())
    off = replica(quota_backend_bytes=-1)
    assert not off.upkeep.quota.exceeded(Method.PUT, b"")
    assert off.upkeep.quota.fits(1 << 60)
