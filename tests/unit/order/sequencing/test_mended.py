"""What the simulator found and can be said without it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.evaluate.overlay import Overlay
from cluster.evaluate.view import Outcome
from cluster.order.log import Attempt, Cut, Fold
from cluster.order.prepare import Grant, Prepare, Touch, encode_attempt, sent_at
from cluster.order.sequencing.coordinator import Coordinator, Wide
from cluster.pacing.pace import Pace
from cluster.pb import kv_pb2
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from cluster.wire.messages import HEAD, Method, Status
from tests.unit.order.stores import EmptyStore, answers, leader


def test_a_prepare_survives_its_encoding() -> None:
    prepare = Prepare(Attempt(2, 1), 4, 5, [Touch(b"k", b"z", True, 9)], [7, 8], [11],
                      [pb.Compare(key=b"k", range_end=b"\0", version=3)])
    assert Prepare.decode(prepare.encode()) == prepare
    told = sent_at(prepare.encode(), 1 << 40)
    assert Prepare.decode(told) == replace(prepare, sent_at=1 << 40)
    assert Prepare.decode(told).encode() == told


def test_a_grant_survives_its_encoding() -> None:
    grant = Grant(3, [[(b"k", b"kv")], []], [[b"k"], []], {1: 1000}, b"\x01\x03")
    assert Grant.decode(grant.encode()) == grant


def test_i15_a_revoke_is_refused_while_a_lock_names_its_lease() -> None:
    shard = leader(leases=True)
    shard.prepare("put", Prepare(Attempt(2, 1), 0, 1, [Touch(b"k", b"", True)], named=[7]))
    shard.prepare("revoke", Prepare(Attempt(2, 2), 0, 1, leases=[7]))
    assert [(token, status) for token, status, _ in answers(shard)] == [
        ("put", Status.OK), ("revoke", Status.LOCKED)]


def test_a_put_of_a_key_whose_creation_is_pending_can_be_bound_late() -> None:
    shard = leader(leases=True)
    put = pb.PutRequest(key=b"k", value=b"v").SerializeToString()
    shard.submit("first", Method.PUT, put)
    shard.submit("second", Method.TXN, pb.TxnRequest(
        success=[pb.RequestOp(request_put=pb.PutRequest(key=b"k", value=b"w"))]).SerializeToString())
    shard.run()
    shard.seal()
    shard.logged(6)
    shard.applied_entries(6, 7)
    bound = {token: (status, HEAD.unpack_from(body)[0]) for token, status, body in answers(shard)}
    assert bound == {"first": (Status.OK, 8), "second": (Status.OK, 9)}


@pytest.fixture
def keys() -> tuple[bytes, bytes]:
    """A key of shard 0 and one of shard 1."""
    placement = Placement(2, 1)
    found = {placement.shard_of(b"k%d" % i): b"k%d" % i for i in range(20)}
    return found[0], found[1]


def test_a_range_at_a_revision_that_came_while_it_was_prepared_is_asked_for_anew(
    keys: tuple[bytes, bytes],
) -> None:
    own, other = keys
    view = Overlay(EmptyStore(leases=True))
    coordinator: Coordinator[str] = Coordinator(
        5, Placement(2, 1), view, Fold(7, {1: Cut(1, 3, 0)}), max_txn_ops=128, heartbeat_ms=100)
    coordinator.leader_of(1, 3)
    body = pb.TxnRequest(success=[
        pb.RequestOp(request_put=pb.PutRequest(key=own, value=b"v")),
        pb.RequestOp(request_range=pb.RangeRequest(key=other, revision=8))]).SerializeToString()
    assert coordinator.submit("token", Method.TXN, body)
    logged: list[tuple[Outcome, Wide[str]]] = []

    def append(item: bytes, outcome: Outcome, wide: Wide[str]) -> None:
        logged.append((outcome, wide))

    coordinator.run(0, append)
    first = Prepare.decode(coordinator.take_messages()[0].body)
    assert [t.revision for t in first.touches] == [0]  # the lock; 8 is in the future
    view.revision = 8
    coordinator.granted(first.attempt, 1, Grant(3, [[]], []))
    coordinator.run(1, append)
    release, again = coordinator.take_messages()
    assert (release.method, again.method) == (Method.RELEASE, Method.PREPARE)
    second = Prepare.decode(again.body)
    assert second.attempt > first.attempt
    assert [t.revision for t in second.touches] == [0, 8]
    kv = kv_pb2.KeyValue(
        key=other, create_revision=8, mod_revision=8, version=1, value=b"x"
    ).SerializeToString()
    coordinator.granted(second.attempt, 1, Grant(3, [[], [(other, kv)]], []))
    coordinator.run(2, append)
    (outcome, _), = logged
    answer = pb.TxnResponse.FromString(outcome.tail)
    assert [row.value for row in answer.responses[1].response_range.kvs] == [b"x"]


def test_a_write_of_one_shard_begins_at_once_only_where_nothing_waits_and_nothing_conflicts(
    keys: tuple[bytes, bytes],
) -> None:
    """A lone put is sent to its leader rather than wait behind a transaction whose other shard has no leader
    (D14)."""
    _, other = keys
    coordinator: Coordinator[str] = Coordinator(
        5, Placement(2, 1), Overlay(EmptyStore(leases=True)), Fold(7, {1: Cut(1, 3, 0)}), max_txn_ops=128,
        heartbeat_ms=100,
    )
    put = pb.PutRequest(key=other, value=b"v").SerializeToString()
    elsewhere = pb.PutRequest(key=other + b"x", value=b"v").SerializeToString()
    assert not coordinator.free_for(Method.PUT, put, 1)  # its leader has not been heard of
    coordinator.leader_of(1, 3)
    assert coordinator.free_for(Method.PUT, put, 1)
    both = pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=key)) for key in keys])
    assert coordinator.submit("token", Method.TXN, both.SerializeToString())
    assert not coordinator.free_for(Method.PUT, elsewhere, 1)  # something waits
    coordinator.run(0, lambda item, outcome, wide: None)
    assert not coordinator.free_for(Method.PUT, put, 1)
    assert coordinator.free_for(Method.PUT, elsewhere, 1)


def test_a_revoke_whose_keys_turn_out_to_be_another_ones_lets_go() -> None:
    """I12: what ran before both hung a key on the lease that the later attempt waits for."""
    shard = leader(Pace(full_requests=1), leases=True)
    shard.submit("hot", Method.PUT, pb.PutRequest(key=b"hot", value=b"1").SerializeToString())
    shard.run()
    shard.seal()
    shard.logged(6)
    shard.submit("put", Method.TXN, pb.TxnRequest(  # what it compares is pending: it waits
        compare=[pb.Compare(key=b"hot", target="MOD", result="LESS", mod_revision=9)],
        success=[pb.RequestOp(request_put=pb.PutRequest(key=b"k", lease=9))]).SerializeToString())
    shard.run()
    revoke, other = Attempt(2, 4), Attempt(2, 5)
    shard.prepare("revoke", Prepare(revoke, 0, 0, [], [9]))
    shard.prepare("other", Prepare(other, 0, 0, [Touch(b"k", b"", True)]))
    assert answers(shard) == []
    shard.applied_entries(6, 7)
    shard.applied_records([(2, 2, [])])
    assert ("revoke", Status.LOCKED, encode_attempt(other)) in answers(shard)
    assert shard.undecided() == [other]


def test_a_prepare_that_meets_a_lock_whose_end_is_logged_is_asked_again_for_when_it_is_applied(
    keys: tuple[bytes, bytes],
) -> None:
    """Neither side waits for a timer: a lone client's next put of a key would find the last one's lock."""
    _, other = keys
    coordinator: Coordinator[str] = Coordinator(
        5, Placement(2, 1), Overlay(EmptyStore(leases=True)), Fold(7, {1: Cut(1, 3, 0)}), max_txn_ops=128,
        heartbeat_ms=100,
    )
    coordinator.leader_of(1, 3)
    put = pb.PutRequest(key=other, value=b"v").SerializeToString()
    sent: list[Prepare] = []
    for _ in range(2):
        assert coordinator.submit("token", Method.PUT, put)
        coordinator.run(0, lambda item, outcome, wide: None)
        sent += [Prepare.decode(message.body) for message in coordinator.take_messages()]
        if len(sent) == 1:
            coordinator.granted(sent[0].attempt, 1, Grant(3, [[]], []))
            coordinator.run(0, lambda item, outcome, wide: None)  # appended
            coordinator.logged(9)
    coordinator.refused(sent[1].attempt, 1, sent[0].attempt, 0)
    (again,) = coordinator.take_messages()
    assert again.method == Method.PREPARE
    assert Prepare.decode(again.body) == replace(sent[1], order_index=9)
