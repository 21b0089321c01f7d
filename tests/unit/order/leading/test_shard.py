"""A shard's leader: what it may answer, and when."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.faults import Torn, faults
from cluster.order.locks import LockTable
from cluster.order.log import Attempt, entry
from cluster.order.prepare import Prepare, Touch, decode_attempt, encode_attempt
from cluster.pacing.pace import Pace
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import HEAD, Method, Status
from cluster.wire.protobuf import key_value
from node.links.fronts import FrontLink
from node.replica.server import Node
from node.replica.shards.shard_role import ShardRole
from tests.unit.node.slicing.test_growth import GROWTH, grows
from tests.unit.order.stores import answers, leader


def rounds_until_a_swap_of_a_hot_key_is_answered() -> int:
    """Its compare cannot be decided while the key is pending, and every round brings another put of the key,
    in an entry of its own."""
    shard = leader(Pace(full_requests=1))
    answered: list[str] = []
    for i in range(50):
        shard.submit(f"put {i}", Method.PUT, pb.PutRequest(key=b"hot", value=b"%d" % i).SerializeToString())
        if i == 1:
            shard.submit(
                "swap",
                Method.TXN,
                pb.TxnRequest(
                    compare=[pb.Compare(key=b"hot", target="MOD", result="LESS", mod_revision=9)]
                ).SerializeToString(),
            )
        shard.run()
        if shard.dirty:
            shard.seal()
            shard.logged(6 + i)
        shard.applied_entries(6 + i - 1, 7)  # the order is an entry behind
        shard.applied_records([(2 + i, 2, [])])
        answered += [token for token, _, _ in answers(shard)]
        if "swap" in answered:
            return i
    return 50


def test_a_swap_of_a_hot_key_does_not_starve() -> None:
    """H14: what comes after a request that waits for a cut queues behind it."""
    assert rounds_until_a_swap_of_a_hot_key_is_answered() < 10


def test_without_its_place_in_the_queue_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LockTable, "conflicts", lambda self, wanted: any(
        e.attempt is not None and e.footprint.conflicts(wanted) for e in self))
    assert rounds_until_a_swap_of_a_hot_key_is_answered() == 50


def test_a_turn_ends_by_what_it_has_read() -> None:
    """Compares of a large value that log nothing were all evaluated in one turn."""
    shard = leader()
    store: Any = shard._store
    store.get = lambda key, revision=0: key_value(key, 2, 3, 1, bytes(1 << 20), 0)
    compare = pb.Compare(key=b"large", target=pb.Compare.VALUE, value=b"other")
    for number in range(20):
        shard.submit(f"{number}", Method.TXN, pb.TxnRequest(compare=[compare]).SerializeToString())
    shard.run()
    assert len(shard._open.replies) == 4
    assert shard.queued == 16
    assert not shard._open.size  # it is not logged


@pytest.mark.parametrize("long", [False, True])
def test_a_turn_ends_by_what_it_has_read_for_what_goes_elsewhere_or_is_looked_at(long: bool) -> None:
    """That did not count, and each read it again as it came back."""
    shard = leader()
    store: Any = shard._store
    row = key_value(b"large", 2, 3, 1, bytes(1 << 20), 0)
    store.get = lambda key, revision=0: row
    store.scan = lambda *span: iter([(b"row", key_value(b"row", 2, 3, 1, b"", 0))] * 1000)
    request = pb.TxnRequest()
    request.success.add(request_put=pb.PutRequest(key=b"a", lease=0 if long else 5))  # there is no such lease
    request.compare.add(key=b"large", target="VALUE", result="NOT_EQUAL", value=b"x")
    if long:
        request.compare.add(key=b"row", range_end=b"rox", result="GREATER")
    for number in range(20):
        shard.submit(f"{number}", Method.TXN, request.SerializeToString())
    for queued in (16, 12, 8, 4, 0):
        shard.run()
        assert shard.queued == queued
        assert not shard.dirty
    assert len(shard.take_unlooked() if long else shard.take_answers()) == 20


def read(key: bytes) -> bytes:
    """A transaction that changes nothing."""
    return pb.TxnRequest(success=[pb.RequestOp(request_range=pb.RangeRequest(key=key))]).SerializeToString()


def test_a_lock_waits_for_what_was_evaluated_before_it_even_if_that_changed_nothing() -> None:
    """Otherwise the read, which did not see the locked transaction's write, is bound to a revision behind it
    (I9)."""
    shard = leader()
    shard.submit("reader", Method.TXN, read(b"k"))
    shard.run()
    prepare = Prepare(Attempt(2, 1), 0, 1, [Touch(b"k", b"", write=True)])
    shard.prepare("sequencer", prepare)
    assert answers(shard) == []
    shard.seal()
    shard.logged(6)
    assert answers(shard) == []
    shard.applied_entries(6, 7)
    shard.applied_records([(2, 2, [])])
    (reader, status, body), (sequencer, granted, _) = answers(shard)
    assert (reader, status, HEAD.unpack_from(body)) == ("reader", Status.OK, (7, 3))
    assert (sequencer, granted) == ("sequencer", Status.OK)


def test_a_lock_is_granted_at_once_where_nothing_is_under_way() -> None:
    shard = leader()
    shard.prepare("sequencer", Prepare(Attempt(2, 1), 0, 1, [Touch(b"k", b"", write=True)]))
    assert [(token, status) for token, status, _ in answers(shard)] == [("sequencer", Status.OK)]


def test_very_many_puts_of_one_key_that_waited_under_a_lock_go_on_in_one_pass() -> None:
    """Each pass evaluated one of them, and looked at all: 5,000 took half a minute of one turn."""
    def end(count: int) -> Callable[[], object]:
        shard, attempt = leader(), Attempt(2, 1)
        shard.prepare("sequencer", Prepare(attempt, 0, 1, [Touch(b"hot", b"", write=True)]))
        put = pb.PutRequest(key=b"hot", value=b"v").SerializeToString()
        for i in range(count):
            shard.submit(f"put {i}", Method.PUT, put)
        shard.run()
        assert not shard.dirty

        def work() -> None:
            shard.release(attempt)
            assert len(shard._open.replies) == count

        return work

    assert grows(end, 256) <= GROWTH


def test_entries_are_bounded_in_bytes_and_so_is_what_waits_for_the_order() -> None:
    """Raft drops proposals beyond 64 MiB of uncommitted entries: it must never come to that."""
    shard = leader()
    for i in range(60):
        shard.submit(
            f"put {i}", Method.PUT, pb.PutRequest(key=b"k%d" % i, value=bytes(1 << 20)).SerializeToString()
        )
    index, entries = 5, []
    while shard.queued and shard.runnable:
        shard.run()
        index += 1
        entries.append(len(shard.seal()))
        shard.logged(index)
    assert max(entries) <= (5 << 20) + 1024
    assert shard.queued > 0
    assert sum(entries) <= 37 << 20
    shard.applied_entries(6, 7)
    assert shard.runnable


def test_what_a_lock_held_up_fills_no_larger_entries_than_what_is_queued() -> None:
    shard = leader()
    attempt = Attempt(2, 1)
    shard.prepare("sequencer", Prepare(attempt, 0, 1, [Touch(b"a", b"z", write=True)]))
    for i in range(60):
        shard.submit(
            f"put {i}", Method.PUT, pb.PutRequest(key=b"k%d" % i, value=bytes(1_400_000)).SerializeToString()
        )
    shard.run()
    assert not shard.dirty
    shard.release(attempt)
    index, applied, entries, done = 5, 5, [], 0
    while done < 60:
        ahead = 0
        while shard.ready:
            shard.run()
            index += 1
            entries.append(len(shard.seal()))
            ahead += entries[-1]
            shard.logged(index)
        assert ahead <= 40 << 20, "as much is logged ahead of the order as of what is queued"
        assert index > applied, "nobody lets them go on"
        applied = index
        shard.applied_entries(index, 7)
        shard.applied_records([(1 + index, 2, [])])
        done += sum(status == Status.OK for token, status, _ in answers(shard) if token != "sequencer")
    assert max(entries) <= (6 << 20) + 1024
    assert done == 60
    assert not shard.ready


def test_what_was_held_up_and_finds_the_entry_full_stands_before_what_comes_later() -> None:
    """H14: neither what is queued nor what conflicts with it gets in first."""
    shard = leader()
    attempt = Attempt(2, 1)
    shard.prepare("sequencer", Prepare(attempt, 0, 1, [Touch(b"a", b"z", write=True)]))
    for i in range(8):
        shard.submit(
            f"put {i}", Method.PUT, pb.PutRequest(key=b"k", value=bytes(1 << 20)).SerializeToString()
        )
    shard.run()
    shard.release(attempt)
    shard.submit("same key", Method.PUT, pb.PutRequest(key=b"k", value=b"last").SerializeToString())
    shard.submit("another", Method.PUT, pb.PutRequest(key=b"zz", value=bytes(1 << 20)).SerializeToString())
    order: list[str] = []
    for index in range(6, 10):
        shard.run()
        if not shard.ready:
            break
        order += shard._open.owed()
        shard.seal()
        shard.logged(index)
    assert sorted(order) == sorted([f"put {i}" for i in range(8)] + ["same key", "another"])
    assert [token for token in order if token != "another"] == [f"put {i}" for i in range(8)] + ["same key"]
    assert order.index("another") >= 8


def test_what_comes_while_an_entry_waits_for_its_cut_gathers_for_the_next_one() -> None:
    shard = leader()
    shard.submit("first", Method.PUT, pb.PutRequest(key=b"a").SerializeToString())
    shard.run()
    assert shard.dirty  # nothing was under way: it does not wait
    shard.seal()
    shard.logged(6)
    for i in range(3):
        shard.submit(f"later {i}", Method.PUT, pb.PutRequest(key=b"b%d" % i).SerializeToString())
        shard.run()
    assert not shard.dirty
    shard.applied_entries(6, 7)
    assert shard.runnable
    shard.run()
    assert shard.queued == 0
    assert len(shard._open.owed()) == 3


def test_a_request_is_alone_while_nobody_else_waits_for_an_answer() -> None:
    shard = leader()
    assert shard.alone

    def put(key: bytes) -> None:
        shard.submit(key, Method.PUT, pb.PutRequest(key=key).SerializeToString())

    put(b"first")
    assert not shard.alone, "it is not on its way yet"
    shard.run()
    shard.seal()
    shard.logged(6)
    assert shard.alone
    put(b"second")
    put(b"third")
    assert not shard.alone
    shard.applied_entries(6, 7)
    shard.run()
    shard.seal()
    shard.logged(7)
    assert not shard.alone
    shard.applied_entries(7, 8)
    assert shard.alone


def write(key: bytes, value: bytes) -> bytes:
    """A transaction that puts a key, and reads it."""
    return pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=key, value=value)),
                                  pb.RequestOp(request_range=pb.RangeRequest(key=key))]).SerializeToString()


def test_a_mistake_in_evaluating_a_transaction_is_its_answer_and_nothing_is_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def mistaken(*args: Any) -> Any:
        raise KeyError("a mistake")

    monkeypatch.setattr("cluster.evaluate.txns.plain_txn.run", mistaken)
    shard = leader()
    shard.submit("writer", Method.TXN, write(b"k", b"v"))
    shard.run()
    assert shard.seal() == entry(0, b"")
    shard.logged(6)
    shard.applied_entries(6, 7)
    (token, status, body), = answers(shard)
    assert (token, status, EtcdError.decode(body).kind) == ("writer", Status.ERROR, errors.INTERNAL_FAULT)
    assert len(faults.take()) == 1


def test_a_mistake_after_evaluating_is_nobodys_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release lets a transaction go on that waited for it: what is evaluated and not taken in would be lost
    in silence."""
    shard = leader()
    attempt = Attempt(2, 1)
    shard.prepare("sequencer", Prepare(attempt, 0, 1, [Touch(b"k", b"", write=True)]))
    shard.submit("writer", Method.TXN, write(b"k", b"v"))
    shard.run()

    def mistaken(*args: Any) -> Any:
        raise KeyError("a mistake")

    monkeypatch.setattr("cluster.order.leading.pending.PendingOverlay.take", mistaken)
    role: Any = SimpleNamespace(submit=None, leading=shard)
    node: Any = SimpleNamespace(
        uncounted=SimpleNamespace(taker=lambda requests: role), _requests_in_tick=0, catch_up=lambda: None,
        handlers={Method.RELEASE: lambda *asked: ShardRole._release(role, decode_attempt(asked[-1]))},
        reads=SimpleNamespace(refuse=lambda *args: pytest.fail("answered, and the leader goes on")))
    link = FrontLink(b"sequencer", lambda parts: True, b"", 1)
    with pytest.raises(Torn, match=r"ShardLeader\.release met KeyError"):
        Node.take_requests(node, link, [(1, Method.RELEASE, 1000, encode_attempt(attempt))])


@pytest.mark.parametrize("method", [Method.LEASE_GRANT, Method.COMPACT, Method.SET_ALARM, Method.PUBLISH, 99])
def test_what_is_no_write_of_this_shard_is_refused(method: int) -> None:
    """It was queued, and ended the node when its turn came."""
    shard = leader()
    shard.submit("a front that is none", method, b"")
    shard.run()
    (_, status, body), = answers(shard)
    assert (status, EtcdError.decode(body).kind, shard.dirty) == (Status.ERROR, errors.UNKNOWN_METHOD, False)


def test_h5_a_prepare_from_before_a_leaders_term_locks_nothing() -> None:
    """Its multi may be in a record that was applied before this leader began: it ends no lock."""
    shard = leader(since=10)
    late = Prepare(Attempt(2, 1), 0, 1, [Touch(b"k", b"", write=True)], sent_at=9)
    shard.prepare("late", late)
    shard.submit("put", Method.PUT, pb.PutRequest(key=b"k", value=b"v").SerializeToString())
    shard.run()
    assert shard.dirty, "the put waits for a lock"
    ((token, status, body),) = answers(shard)
    assert (token, status, decode_attempt(body)) == ("late", Status.LOCKED, late.attempt)


def test_h5_sent_again_it_locks() -> None:
    shard = leader(since=10)
    shard.prepare("again", Prepare(Attempt(2, 1), 0, 1, [Touch(b"k", b"", write=True)], sent_at=10))
    shard.prepare("late", Prepare(Attempt(2, 1), 0, 1, [Touch(b"k", b"", write=True)], sent_at=9))
    assert [(token, status) for token, status, _ in answers(shard)] == [
        ("again", Status.OK), ("late", Status.OK)]
