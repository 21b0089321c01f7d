"""What each method sends on and answers, over fake nodes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.auth.principal import SAID
from cluster.features.auth.reads import Show
from cluster.pb import rpc_pb2
from cluster.wire.messages import HEAD, HELD, MEMBER_REMOVE, MEMBERS_LAX, READ, Method, Status
from proxy.services.table import register_all
from tests.unit.proxy.fakes import FakeCall
from tests.unit.proxy.served import COMPACTED, Served


@pytest.mark.parametrize("may", [False, True])
@pytest.mark.parametrize("kind", [rpc_pb2.AuthUserAddRequest, rpc_pb2.AuthUserChangePasswordRequest])
def test_a_password_is_hashed_for_who_may_change_users(kind: Any, may: bool) -> None:
    """A hash takes 50 ms of a thread, and anybody could ask for it."""
    served, hashed = Served(), list[str]()

    def hash_it(asks: FakeCall, password: str, then: Callable[[bytes], None]) -> None:
        hashed.append(password)
        then(b"hash")

    served.net.context.passwords = SimpleNamespace(hash=hash_it)  # type: ignore[assignment]
    served.net.context.principals.enabled = True
    method = kind.DESCRIPTOR.name.removeprefix("Auth").removesuffix("Request")
    too_long = served.call(method, kind(name="u", password="x" * 73))
    assert too_long.status == (2, "bcrypt: password length exceeds 72 bytes")
    assert not served.node.take()
    call = served.call(method, kind(name="u", password="secret"))
    assert not hashed
    (round_,) = served.node.take()
    assert round_.method == Method.READ_INDEX | SAID  # the front asks for it
    served.node.index(round_, 3)
    served.net.run()
    (asked,) = served.node.take()
    assert (asked.method, asked.body[-1]) == (Method.AUTH_SHOW, Show.STATUS)
    denied = EtcdError(errors.PERMISSION_DENIED)
    if may:
        served.node.ok(asked)
        served.net.run()
        (change,) = served.node.take()
        assert change.method == Method.AUTH_CHANGE
        assert b"secret" not in change.body
        assert call.status is None
    else:
        served.node.answer(asked.rid, Status.ERROR, denied.encode())
        served.net.run()
        assert call.status == (denied.code, denied.text)
        assert not served.node.take()
    assert hashed == ["secret"] * may
    served.net.context.principals.enabled = False
    served.call(method, kind(name="u", password="secret"))
    assert hashed == ["secret"] * (may + 1), "while no login counts, everybody may"


def test_refused_promotions_count_by_etcds_reason() -> None:
    served = Served()
    for kind in (errors.MEMBER_NOT_FOUND, errors.LEARNER_NOT_READY, errors.LEARNER_NOT_READY):
        call = served.call("MemberPromote", rpc_pb2.MemberPromoteRequest(ID=2))
        (request,) = served.node.take()
        served.node.answer(request.rid, Status.ERROR, EtcdError(kind).encode())
        served.net.run()
        assert call.status == (kind.code, kind.text)
    assert served.net.context.unpromoted == {
        "membership: ID not found": 1,
        "etcdserver: can only promote a learner member which is in sync with leader": 2,
    }


def test_whether_a_member_is_there_is_said_before_whether_its_urls_are_any() -> None:
    served = Served()
    served.call("MemberUpdate", rpc_pb2.MemberUpdateRequest(ID=9, peerURLs=["bad"]))
    assert [request.method for request in served.node.take()] == [Method.MEMBERS]


@pytest.mark.parametrize("strict", [True, False])
def test_the_host_that_is_asked_says_whether_the_quorum_is_looked_at(strict: bool) -> None:
    served = Served()
    served.net.context.settings = replace(served.net.context.settings, strict_reconfig_check=strict)
    register_all(served.methods, served.net.context)
    served.call("MemberRemove", rpc_pb2.MemberRemoveRequest(ID=2))
    (request,) = served.node.take()
    assert request.body[0] == (MEMBER_REMOVE if strict else MEMBER_REMOVE | MEMBERS_LAX)


def test_transactions_without_writes_are_read_at_the_replica() -> None:
    served = Served()
    read = rpc_pb2.TxnRequest()
    read.success.add().request_range.key = b"a"
    served.call("Txn", read)
    assert [r.method for r in served.node.take()] == [Method.READ_INDEX]
    read.success[0].request_range.serializable = True
    served.call("Txn", read)
    (local,) = served.node.take()
    assert local.method == Method.READ_TXN
    assert READ.unpack_from(local.body) == (0, 0)
    served.call("Txn", rpc_pb2.TxnRequest())  # nothing at all: answered locally, as etcd does
    assert [r.method for r in served.node.take()] == [Method.READ_TXN]
    nested = rpc_pb2.TxnRequest()
    nested.success.add().request_txn.success.add().request_range.key = b"a"
    served.call("Txn", nested)
    assert [r.method for r in served.node.take()] == [Method.TXN]


def test_without_a_leader_each_kind_of_request_ends_as_in_etcd() -> None:
    served = Served(leader=0)
    read = rpc_pb2.RangeRequest(key=b"k")
    ends = {
        "Put": (4, "context deadline exceeded"), "Txn": (4, "context deadline exceeded"),
        "LeaseGrant": (4, "context deadline exceeded"), "Range": (14, "etcdserver: request timed out"),
        "LeaseTimeToLive": (14, "etcdserver: no leader"), "LeaseKeepAlive": (14, "etcdserver: no leader"),
        **dict.fromkeys(("Alarm", "AuthStatus", "UserList", "RoleGet"), (4, "context deadline exceeded")),
    }
    write = rpc_pb2.TxnRequest()
    write.success.add().request_put.key = b"k"
    messages = {"Put": read, "Txn": write, "LeaseGrant": rpc_pb2.LeaseGrantRequest(TTL=5), "Range": read,
                "LeaseTimeToLive": rpc_pb2.LeaseTimeToLiveRequest(ID=1),
                "LeaseKeepAlive": rpc_pb2.LeaseKeepAliveRequest(ID=1), "Alarm": rpc_pb2.AlarmRequest(),
                "AuthStatus": b"", "UserList": b"", "RoleGet": rpc_pb2.AuthRoleGetRequest(role="r")}
    calls = {method: served.call(method, message) for method, message in messages.items()}
    served.net.pass_time(7.3)
    assert {method: call.status for method, call in calls.items()} == ends


@pytest.mark.parametrize("leader", [0, 1])
def test_a_user_of_whom_users_are_asked_first_is_added_too_late_as_in_etcd(leader: int) -> None:
    served = Served(leader)
    served.net.pass_time(0.3)
    served.net.context.principals.judged = lambda call: True
    added = rpc_pb2.AuthUserAddRequest(name="a", password="b")
    changed = rpc_pb2.AuthUserChangePasswordRequest(name="a", password="b")
    calls = [served.call("UserAdd", added), served.call("UserChangePassword", changed)]
    served.net.pass_time(7.3)
    end = (14, "etcdserver: request timed out") if leader else (4, "context deadline exceeded")
    assert [call.status for call in calls] == [end, end]


@pytest.mark.parametrize("lost", [False, True])
def test_reads_by_etcds_log_that_a_known_leader_does_not_answer_are_unavailable(lost: bool) -> None:
    """As in etcd: its client repeats them at another endpoint, which it does not after a passed deadline."""
    served = Served()
    served.net.pass_time(0.3)
    messages = {
        "Alarm": rpc_pb2.AlarmRequest(),
        "AuthStatus": b"",
        "UserList": b"",
        "RoleGet": rpc_pb2.AuthRoleGetRequest(role="r"),
    }
    calls = {method: served.call(method, message) for method, message in messages.items()}
    if lost:  # it was there when they came
        served.net.lead(0, 2)
    served.net.pass_time(7.3)
    assert {call.status for call in calls.values()} == {(14, "etcdserver: request timed out")}
    assert served.net.router.has_leader is not lost


def test_a_compaction_is_known_to_the_front_once_it_is_acknowledged() -> None:
    served = Served()
    refused = served.call("Compact", rpc_pb2.CompactionRequest(revision=9))
    (request,) = served.node.take()
    served.node.answer(request.rid, Status.ERROR, EtcdError(errors.FUTURE_REV).encode())
    served.net.run()
    assert refused.status == (errors.FUTURE_REV.code, errors.FUTURE_REV.text)
    for revision in (5, 4):
        call = served.call("Compact", rpc_pb2.CompactionRequest(revision=revision))
        (request,) = served.node.take()
        assert served.net.router.compacted == (0 if revision == 5 else 5)
        served.node.ok(request, 7)
        served.net.run()
        assert rpc_pb2.CompactionResponse.FromString(call.replies[0]).header.revision == 7
    assert served.net.router.compacted == 5
    assert (
        served.count("etcdserverpb.KV", "Compact", 0),
        served.count("etcdserverpb.KV", "Compact", 11),
    ) == (2, 1)


@pytest.mark.parametrize("method", ["Range", "RangeStream"])
def test_what_was_compacted_here_is_shown_no_more_though_the_replica_may_be_behind(method: str) -> None:
    served = Served()
    served.net.router.show_compaction(5)
    asked = rpc_pb2.RangeRequest(key=b"k", serializable=True, revision=4)
    assert served.call(method, asked).status == COMPACTED
    assert not served.node.take()
    for revision in (0, 5):
        asked.revision = revision
        served.call(method, asked)
        assert len(served.node.take()) == 1
    # its replica has applied the compaction before it answers
    served.call("Range", rpc_pb2.RangeRequest(key=b"k", revision=4))
    assert [r.method for r in served.node.take()] == [Method.READ_INDEX]


@pytest.mark.parametrize("method", ["Range", "RangeStream"])
@pytest.mark.parametrize("may", [True, False])
def test_who_may_not_read_hears_nothing_of_a_compaction(method: str, may: bool) -> None:
    """The replica says so as it is: a serializable read waits for no leader."""
    served = Served()
    served.net.router.show_compaction(5)
    served.net.router.principals.enabled = True
    call = served.call(method, rpc_pb2.RangeRequest(key=b"k", serializable=True, revision=4))
    (request,) = served.node.take()
    assert request.method == Method.AUTH_SHOW
    denied = EtcdError(errors.PERMISSION_DENIED)
    if may:
        served.node.ok(request)
    else:
        served.node.answer(request.rid, Status.ERROR, denied.encode())
    served.net.run()
    assert call.status == (COMPACTED if may else (denied.code, denied.text))


def test_nothing_is_hashed_that_was_compacted_here() -> None:
    served = Served()
    served.net.router.show_compaction(5)
    assert served.call("HashKV", rpc_pb2.HashKVRequest(revision=4)).status == COMPACTED
    assert not served.node.take()
    served.call("HashKV", rpc_pb2.HashKVRequest(revision=5))
    assert [r.method for r in served.node.take()] == [Method.HASH_KV]


def test_member_list_shows_no_revision() -> None:
    served = Served()
    call = served.call("MemberList", rpc_pb2.MemberListRequest())
    (request,) = served.node.take()
    served.node.ok(request, 7, rpc_pb2.MemberListResponse(members=[rpc_pb2.Member(ID=5)]).SerializeToString())
    served.net.run()
    response = rpc_pb2.MemberListResponse.FromString(call.replies[0])
    assert response.header.revision == 0
    assert response.header.member_id == 1
    assert [m.ID for m in response.members] == [5]
    served.call("MemberList", rpc_pb2.MemberListRequest(linearizable=True))
    assert [r.method for r in served.node.take()] == [Method.READ_INDEX]


def test_status_is_the_own_replicas_and_says_when_there_is_no_leader() -> None:
    served = Served(leader=0)
    call = served.call("Status", rpc_pb2.StatusRequest())
    (request,) = served.node.take()
    served.node.ok(request, 3, rpc_pb2.StatusResponse(dbSize=10).SerializeToString())
    served.net.run()
    response = rpc_pb2.StatusResponse.FromString(call.replies[0])
    assert response.version.startswith("3.5.")
    assert list(response.errors) == ["etcdserver: no leader"]
    assert response.header.revision == 3


def test_a_snapshot_is_followed_by_its_checksum_and_asked_for_as_the_client_takes_it() -> None:
    served = Served()
    call = served.call("Snapshot", rpc_pb2.SnapshotRequest())
    served.all_applied()
    (hold,) = served.node.take()
    assert not hold.body[READ.size :]
    member = served.net.context.common.member_id
    served.node.answer(hold.rid, Status.PARTIAL, HELD.pack(5, 3, 0, member) + b"checkpoint-7")
    served.net.run()
    (request,) = served.node.take()
    assert request.body[READ.size :] == b'["checkpoint-7"]'
    payload = bytes(range(256)) * 400  # a node's files are of whole pages
    pieces = [payload[:90_000], payload[90_000:]]
    left = len(payload)
    for piece in pieces:
        left -= len(piece)
        served.node.answer(request.rid, Status.PARTIAL, left.to_bytes(8, "little") + piece)
        served.net.run()
        *released, credit = served.node.take()
        wanted = [(Method.CANCEL, hold.rid)] if piece is pieces[0] else []
        assert [(one.method, one.rid) for one in released] == wanted
        assert (credit.method, int.from_bytes(credit.body, "little")) == (Method.CREDIT, len(payload) - left)
    served.node.answer(request.rid, Status.OK, HEAD.pack(3, 1))
    served.net.run()
    found = [rpc_pb2.SnapshotResponse.FromString(r) for r in call.replies]
    data = b"".join(r.blob for r in found)
    assert len(data) % 512 == 32
    body, digest = data[:-32], data[-32:]
    assert body.rstrip(b"\0") == payload.rstrip(b"\0")
    assert hashlib.sha256(body).digest() == digest
    assert all(len(r.blob) <= 32_768 for r in found)
    sent = 0
    for r in found[:-1]:
        sent += len(r.blob)
        assert r.remaining_bytes == len(body) - sent
    assert call.status == (0, "")


def test_range_stream_sends_parts_as_they_come_and_the_header_last() -> None:
    served = Served()
    call = served.call("RangeStream", rpc_pb2.RangeRequest(key=b"a", range_end=b"b", serializable=True))
    (request,) = served.node.take()
    part = rpc_pb2.RangeResponse(kvs=[{"key": b"a1"}]).SerializeToString()  # type: ignore[list-item]
    last = rpc_pb2.RangeResponse(kvs=[{"key": b"a2"}], count=2).SerializeToString()  # type: ignore[list-item]
    served.node.answer(request.rid, Status.PARTIAL, HEAD.pack(9, 1) + part)
    served.node.answer(request.rid, Status.OK, HEAD.pack(9, 1) + last)
    served.net.run()
    first, second = [rpc_pb2.RangeStreamResponse.FromString(r).range_response for r in call.replies]
    assert first.kvs[0].key == b"a1"
    assert not first.HasField("header")
    assert second.header.revision == 9
    assert second.count == 2
    assert call.status == (0, "")


def test_a_stream_of_rows_with_a_sort_target_and_no_order_is_by_key() -> None:
    served = Served()
    by_key = rpc_pb2.RangeRequest(key=b"a", range_end=b"b", serializable=True)
    asked = rpc_pb2.RangeRequest(sort_target=4)  # type: ignore[arg-type]
    asked.MergeFrom(by_key)
    served.call("RangeStream", asked)
    (request,) = served.node.take()
    assert request.body[READ.size :] == by_key.SerializeToString()


def test_an_error_of_the_node_keeps_its_code_and_text() -> None:
    served = Served()
    call = served.call("LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=4))
    (request,) = served.node.take()
    from cluster import errors
    from cluster.errors import EtcdError

    served.node.answer(request.rid, Status.ERROR, EtcdError(errors.LEASE_NOT_FOUND).encode())
    served.net.run()
    assert call.status == (5, "etcdserver: requested lease not found")
    assert served.count("etcdserverpb.Lease", "LeaseRevoke", 5) == 1


def test_leases_are_listed_after_a_read_index_for_a_replica_may_lack_the_one_just_granted() -> None:
    served = Served(leader=2)
    call = served.call("LeaseLeases", rpc_pb2.LeaseLeasesRequest())
    (question,) = served.node.take()
    assert question.method == Method.READ_INDEX
    served.node.index(question, 9)
    served.net.run()
    (asked,) = served.net.nodes[1].take()
    assert (asked.method, READ.unpack_from(asked.body)[0]) == (Method.LEASE_LEASES, 9)
    served.net.nodes[1].ok(
        asked, tail=rpc_pb2.LeaseLeasesResponse(leases=[rpc_pb2.LeaseStatus(ID=5)]).SerializeToString()
    )
    served.net.run()
    assert [lease.ID for lease in rpc_pb2.LeaseLeasesResponse.FromString(call.replies[0]).leases] == [5]


def test_streams_without_an_end_of_their_own_end_at_a_stop_and_calls_go_on() -> None:
    served = Served()
    # registered last, under the same name as etcd's: grpc.health.v1's
    health = served.methods.handlers["Watch"]
    call = FakeCall()
    health.opened(call)
    health.message(call, b"")
    assert call.replies == [b"\x08\x01"]
    served.net.context.stop()
    stopped = (errors.STOPPED.code, errors.STOPPED.text)
    assert call.status == stopped
    late = FakeCall()
    health.opened(late)
    health.message(late, b"")
    assert late.status == stopped
    assert not late.replies
    put = served.call("Put", rpc_pb2.PutRequest(key=b"k"))
    served.net.run()
    (request,) = served.node.take(Method.PUT)
    served.node.ok(request, 7)
    served.net.run()
    assert put.status == (0, "")
