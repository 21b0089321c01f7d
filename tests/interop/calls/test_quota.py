"""A store whose quota a request does not fit into, beside etcd's: what is refused, what Status and AlarmList
say, and what happens once the alarm is disarmed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import local_cluster, until
from tests.interop.ctl.test_ctl_outputs import start_etcd

QUOTA = "--quota-backend-bytes=65536"
QUOTA_OF_ALL = 8_000_000  # a shard's write buffer of RocksDB's counts a megabyte at first
MORE = f"--quota-backend-bytes={QUOTA_OF_ALL}"
VALUE_BYTES = 100_000
KEYS = [b"/%d/k" % i for i in range(5)]  # of all shards
QUIET_S = 2.5  # a store that raised its alarm by the clock would do so within a second
LARGE, SMALL = bytes(66_000), b"v"


def put(key: bytes, value: bytes) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value))


GET = pb.RequestOp(request_range=pb.RangeRequest(key=b"a"))
STEPS: list[tuple[str, Any, Any]] = [
    ("KV/Put", pb.PutRequest(key=b"a", value=SMALL), pb.PutResponse),
    ("KV/Txn", pb.TxnRequest(success=[GET]), pb.TxnResponse),
    ("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse),
    ("KV/Put", pb.PutRequest(key=b"b", value=LARGE), pb.PutResponse),
    ("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse),
    ("Maintenance/Alarm", pb.AlarmRequest(), pb.AlarmResponse),
    ("KV/Put", pb.PutRequest(key=b"a", value=SMALL), pb.PutResponse),
    ("KV/Txn", pb.TxnRequest(success=[put(b"a", SMALL)]), pb.TxnResponse),
    ("KV/Txn", pb.TxnRequest(success=[GET], failure=[put(b"a", SMALL)]), pb.TxnResponse),
    ("KV/Txn", pb.TxnRequest(success=[GET]), pb.TxnResponse),
    ("Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=60, ID=7), pb.LeaseGrantResponse),
    ("KV/Range", pb.RangeRequest(key=b"a"), pb.RangeResponse),
    ("KV/DeleteRange", pb.DeleteRangeRequest(key=b"a"), pb.DeleteRangeResponse),
    ("KV/Compact", pb.CompactionRequest(revision=2), pb.CompactionResponse),
    ("KV/Range", pb.RangeRequest(key=b"a"), pb.RangeResponse),
]
LARGE_FIRST = [  # a transaction counts its larger branch, whichever is taken
    (
        "KV/Txn", pb.TxnRequest(success=[GET], failure=[put(b"a", bytes(33_000)), put(b"b", bytes(33_000))]),
        pb.TxnResponse,
    ),
    ("Maintenance/Alarm", pb.AlarmRequest(), pb.AlarmResponse),
]


def shown(path: str, answer: Any) -> object:
    """What must be the same, whichever server gave it."""
    if path == "Maintenance/Status":
        return [re.sub(r"memberID:\d+", "memberID:N", text) for text in answer.errors]
    if path == "Maintenance/Alarm":
        return [a.alarm for a in answer.alarms]
    answer.header.Clear()
    return answer


def played(address: str, steps: list[tuple[str, Any, Any]]) -> list[object]:
    found: list[object] = []
    with grpc.insecure_channel(address) as channel:
        for path, request, response in steps:
            call: Callable[..., Any] = channel.unary_unary(
                f"/etcdserverpb.{path}", request.SerializeToString, response.FromString)
            try:
                found.append(shown(path, call(request, timeout=10, wait_for_ready=True)))
            except grpc.RpcError as e:
                found.append((e.code(), e.details()))
            if isinstance(found[-1], tuple):  # the alarm is applied soon, on both
                alarms = channel.unary_unary(
                    "/etcdserverpb.Maintenance/Alarm", pb.AlarmRequest.SerializeToString,
                    pb.AlarmResponse.FromString,
                )
                until(lambda: alarms(pb.AlarmRequest(), timeout=10).alarms)  # noqa: B023
    return found


@pytest.fixture
def muster(tmp_path: Path) -> Iterator[str]:
    with local_cluster(tmp_path / "c", 1, "--shards=1", extra=(QUOTA,)) as cluster:
        yield cluster.endpoints()[0]


@pytest.fixture
def etcd() -> Iterator[str]:
    server = start_etcd(QUOTA)
    try:
        yield server.address
    finally:
        server.stop()


@pytest.mark.parametrize("steps", [STEPS, LARGE_FIRST])
def test_what_does_not_fit_is_refused_as_by_etcd(
    muster: str, etcd: str, steps: list[tuple[str, Any, Any]]
) -> None:
    want = played(etcd, steps)
    assert any(
        found == (grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
        for found in want
    )
    assert played(muster, steps) == want


def disarmed(address: str) -> tuple[int, list[object]]:
    """A store is filled, its alarm disarmed, and room made: how much it took, and what its answers were."""
    found: list[object] = []
    with grpc.insecure_channel(address) as channel:

        def call(path: str, request: Any, response: Any) -> Any:
            method: Callable[..., Any] = channel.unary_unary(
                f"/etcdserverpb.{path}", request.SerializeToString, response.FromString
            )
            return method(request, timeout=60, wait_for_ready=True)

        def put(size: int, key: bytes = KEYS[0]) -> bool:
            try:
                call("KV/Put", pb.PutRequest(key=key, value=bytes(size)), pb.PutResponse)
            except grpc.RpcError as e:
                if e.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                return False
            return True

        def alarms() -> list[int]:
            return [a.alarm for a in call("Maintenance/Alarm", pb.AlarmRequest(), pb.AlarmResponse).alarms]

        def disarm() -> None:
            for held in call("Maintenance/Alarm", pb.AlarmRequest(), pb.AlarmResponse).alarms:
                request = pb.AlarmRequest(action="DEACTIVATE", memberID=held.memberID, alarm=held.alarm)
                found.append(len(call("Maintenance/Alarm", request, pb.AlarmResponse).alarms))

        taken = 0
        while taken < 100 * QUOTA_OF_ALL and put(VALUE_BYTES, KEYS[taken // VALUE_BYTES % len(KEYS)]):
            taken += VALUE_BYTES
        until(alarms)
        found.append(alarms())
        disarm()
        everything = pb.DeleteRangeRequest(key=b"/", range_end=b"0")
        deleted = call("KV/DeleteRange", everything, pb.DeleteRangeResponse)
        ends = time.monotonic() + QUIET_S
        while time.monotonic() < ends and not alarms():
            time.sleep(0.1)
        found += [deleted.deleted, alarms()]
        until(lambda: not put(VALUE_BYTES))
        until(alarms)
        revision = call("KV/Range", pb.RangeRequest(key=KEYS[0]), pb.RangeResponse).header.revision
        compaction = pb.CompactionRequest(revision=revision, physical=True)
        call("KV/Compact", compaction, pb.CompactionResponse)
        call("Maintenance/Defragment", pb.DefragmentRequest(), pb.DefragmentResponse)
        disarm()
        for key in KEYS:
            until(partial(put, 1, key))
        found.append(alarms())
    return taken, found


DISARMED = [[pb.NOSPACE], 1, len(KEYS), [], 1, []]


@pytest.mark.parametrize("shards", [1, 3])
def test_a_full_store_is_disarmed_and_gets_room_as_etcd(tmp_path: Path, shards: int) -> None:
    with local_cluster(tmp_path / "c", 1, f"--shards={shards}", extra=(MORE,)) as cluster:
        taken, found = disarmed(cluster.endpoints()[0])
    assert taken < QUOTA_OF_ALL, "whatever the number of shards"
    assert found == DISARMED


def test_etcd_does_so() -> None:
    server = start_etcd(MORE)
    try:
        assert disarmed(server.address)[1] == DISARMED
    finally:
        server.stop()
