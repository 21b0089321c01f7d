"""``import`` goes on over leases that end at the target."""

from __future__ import annotations

import queue
import time
from typing import Any

import grpc
import pytest
from muster_client.pb import kv_pb2, rpc_pb2

from tests.unit.musterctl.data.clusters import LEASE, Code, Ending, Store, following, leased, renewed, until
from tools.client.channels import Config
from tools.musterctl.commands.data import copied_leases
from tools.musterctl.commands.data import copier as copier_module
from tools.musterctl.commands.data.copied_leases import Leases


def test_keys_of_a_lease_that_ends_at_the_target_alone_come_back() -> None:
    """Their clients put them once, and renew the lease at the source."""
    source, target = leased(a=b"1", b=b"2"), Store(other=b"x")
    with source.served() as from_, target.served() as to, following(source, from_, to) as copier:
        assert set(target.kvs) == {b"a", b"b", b"other"}
        target.end_lease()
        until(lambda: set(target.kvs) == {b"a", b"b", b"other"})
        assert {target.kvs[key].lease for key in (b"a", b"b")} == {LEASE}
        until(lambda: copier.is_whole)


def test_keys_outside_the_prefix_do_not_come() -> None:
    source, target = leased(a=b"1", b=b"2"), Store()
    with source.served() as from_, target.served() as to, following(source, from_, to) as copier:
        target.end_lease()
        copier._span = (b"b", b"c")
        until(lambda: b"b" in target.kvs and copier.is_whole)
        assert b"a" not in target.kvs


def test_a_change_with_a_lease_that_has_ended_at_the_target_is_copied() -> None:
    """Before a renewal has told of it."""
    source, target = leased(a=b"1", b=b"2"), Store()
    with (source.served() as from_, target.served({"Lease/LeaseKeepAlive": renewed}) as to,
          following(source, from_, to)):
        target.end_lease()
        source.put(b"a", b"3", LEASE)
        until(lambda: target.values() == {b"a": b"3", b"b": b"2"})
        target.end_lease()
        source.end_lease()  # its keys' deletion is on its way
        source.put(b"c", b"4")
        until(lambda: target.values() == {b"c": b"4"})


def test_a_lease_that_ends_at_the_target_concerns_no_other() -> None:
    """One transaction's other leases are there: their keys are not asked for."""
    source, target = leased(a=b"1", b=b"2"), Store()
    for other in (8, 9):
        source.leases.add(other)
        source.put(b"of%d" % other, b"1", other)
    source.told = queue.Queue()
    asked: list[int] = []
    puts: list[int] = []

    def time_to_live(request: Any, context: Any) -> rpc_pb2.LeaseTimeToLiveResponse:
        if request.keys:
            asked.append(request.ID)
        return source.time_to_live(request, context)

    def txn(request: rpc_pb2.TxnRequest, context: grpc.ServicerContext) -> rpc_pb2.TxnResponse:
        puts.append(len(request.success))
        if len(puts) == 1:  # behind the grants
            target.end_lease()
        return target.txn(request, context)

    with (source.served({"Lease/LeaseTimeToLive": time_to_live}) as from_,
          target.served({"KV/Txn": txn, "Lease/LeaseKeepAlive": renewed}) as to,
          following(source, from_, to) as copier):
        assert copier.is_whole
        assert target.values() == {b"a": b"1", b"b": b"2", b"of8": b"1", b"of9": b"1"}
    assert asked == [LEASE]
    assert puts == [4, 4, 2]


@pytest.mark.parametrize("answered", [True, False])
def test_a_lease_granted_again_over_a_host_that_goes_away_has_lost_its_keys(answered: bool) -> None:
    """The second attempt says that it exists, whether the first one or no end has been its reason."""
    source, target = leased(a=b"1"), Store()

    def grants(request: Any, context: grpc.ServicerContext) -> rpc_pb2.LeaseGrantResponse:
        if not answered:
            context.abort(Code.FAILED_PRECONDITION, "etcdserver: lease already exists")
        answer = target.grant(request, context)
        if len(target.granted) == 2:
            context.abort(Code.UNAVAILABLE, "etcdserver: request timed out")
        return answer

    own = {"Lease/LeaseGrant": grants, "Lease/LeaseKeepAlive": renewed}
    with source.served() as from_, target.served(own) as to:
        origin, client = (Ending(Config((name,)), (name,)) for name in (from_, to))
        leases = Leases(origin, client)
        assert leases.there(LEASE) == LEASE
        target.leases.clear()
        assert leases.again(LEASE) == LEASE
        assert list(leases.ended) == [LEASE] * answered
        client.close()
        origin.close()


def test_keys_of_a_lease_that_has_others_which_the_user_may_not_read_come_back(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """etcd wants permission to read all keys of a lease whose keys are asked for."""
    monkeypatch.setattr(copier_module, "_PAGE", 1)
    source, target = leased(a=b"1", b=b"2"), Store()
    source.kvs[b"c"] = kv_pb2.KeyValue(key=b"c", value=b"3")
    read: list[rpc_pb2.RangeRequest] = []

    def time_to_live(request: Any, context: grpc.ServicerContext) -> rpc_pb2.LeaseTimeToLiveResponse:
        if request.keys:
            context.abort(Code.PERMISSION_DENIED, "etcdserver: permission denied")
        return source.time_to_live(request, context)

    def range_(request: rpc_pb2.RangeRequest, context: Any) -> rpc_pb2.RangeResponse:
        read.append(request)
        found = [kv for key, kv in sorted(source.kvs.items()) if key >= request.key]
        header = rpc_pb2.ResponseHeader(revision=source.revision)
        return rpc_pb2.RangeResponse(header=header, kvs=found[:1], more=len(found) > 1)

    with (source.served({"Lease/LeaseTimeToLive": time_to_live, "KV/Range": range_}) as from_,
          target.served() as to, following(source, from_, to) as copier):
        assert set(target.kvs) == {b"a", b"b", b"c"}
        assert [request.revision for request in read] == [0, 12, 12]
        read.clear()
        target.end_lease()
        until(lambda: set(target.kvs) == {b"a", b"b", b"c"} and copier.is_whole)
        single = [(request.key, request.keys_only) for request in read]
        assert single == [(b"\0", True), (b"a\0", True), (b"b\0", True), (b"a", False), (b"b", False)]


@pytest.mark.parametrize("refusal", [None, Code.PERMISSION_DENIED, Code.UNIMPLEMENTED])
def test_a_lease_that_is_gone_at_the_source_is_kept_no_longer(
    refusal: grpc.StatusCode | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the source does not list them: etcd wants permission to read all keys of all leases."""
    monkeypatch.setattr(copied_leases, "_FORGET_EVERY_S", 0.05)
    source, target = leased(a=b"1"), Store()
    source.leases.add(8)

    def listed(request: Any, context: grpc.ServicerContext) -> rpc_pb2.LeaseLeasesResponse:
        context.abort(refusal, "etcdserver: permission denied")

    own = {"Lease/LeaseLeases": listed} if refusal else {}
    with source.served(own) as from_, target.served() as to:
        origin, client = (Ending(Config((name,)), (name,)) for name in (from_, to))
        leases = Leases(origin, client)
        assert (leases.there(LEASE), leases.there(8)) == (LEASE, 8)
        source.end_lease()
        until(lambda: leases.granted == 1)
        assert leases.there(8) == 8
        assert not leases.there(LEASE)
        client.close()
        origin.close()


def test_a_lease_whose_end_takes_a_while_is_not_asked_for_without_rest() -> None:
    source, target = leased(a=b"1"), Store()
    ends_at = time.monotonic() + 1
    asked: list[int] = []

    def grants(request: Any, context: grpc.ServicerContext) -> rpc_pb2.LeaseGrantResponse:
        asked.append(request.ID)
        if time.monotonic() < ends_at:
            context.abort(Code.FAILED_PRECONDITION, "etcdserver: lease already exists")
        return target.grant(request, context)

    with (source.served() as from_, target.served({"Lease/LeaseGrant": grants}) as to,
          following(source, from_, to)):
        assert target.values() == {b"a": b"1"}
    assert 2 < len(asked) < 13


def test_a_lease_is_granted_though_a_host_goes_away_meanwhile() -> None:
    """Its ID is known: the second attempt says that it exists."""
    source, target = leased(a=b"1"), Store()

    def grants(request: Any, context: grpc.ServicerContext) -> rpc_pb2.LeaseGrantResponse:
        answer = target.grant(request, context)
        if len(target.granted) == 1:
            context.abort(Code.UNAVAILABLE, "etcdserver: request timed out")
        return answer

    with (source.served() as from_, target.served({"Lease/LeaseGrant": grants}) as to,
          following(source, from_, to)):
        assert target.kvs[b"a"].lease == LEASE
    assert target.granted == [LEASE]
