"""What a front does when it hears that keys have moved."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.auth.principal import SAID
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Table
from cluster.placement.changes import Moved, take_compact, take_move, take_moved
from cluster.placement.table import Move
from cluster.wire.messages import (
    HASH_OF_NOTHING,
    HEAD,
    READ,
    READ_INDEX_ANSWER,
    Method,
    Status,
)
from proxy.services import kv
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.moved.fronts import KEY, called, grown, moved, served, start_two
from tests.unit.proxy.moved.racing import Order


def get(order: Order, **fields: object) -> FakeCall:
    call = FakeCall()
    order.methods.handlers["Range"](call, pb.RangeRequest(key=KEY, **fields).SerializeToString())  # type: ignore[arg-type]
    order.net.run()
    return call


def test_g7_a_read_that_meets_moved_goes_to_the_new_owner_by_the_table_that_came_with_it() -> None:
    order, table, before, now = served()
    call = get(order, serializable=True)
    (request,) = before.take(Method.RANGE)
    before.answer(request.rid, Status.MOVED, table.encode())
    order.net.run()
    assert order.net.context.placement.table == table
    told, asked = now.take()
    assert (told.method, told.body, asked.method) == (Method.PLACED, table.encode(), Method.RANGE)
    assert [request.method for request in before.take()] == [Method.PLACED]
    now.ok(asked, 9)
    order.net.run()
    assert call.status == (0, "")
    assert order.net.context.stats["unary", "etcdserverpb.KV", "Range"].started == 1


def test_a_front_takes_the_table_of_its_own_number_that_a_forced_start_has_put_there() -> None:
    order, lost, _, now = served()
    context = order.net.context
    context.follow(lost)
    order.net.run()
    now.take()
    (owner,) = order.table.owners(b"other", b"")
    move = Move(1, b"other", b"other\0", (owner,), (owner + 1) % 3)
    forced = take_moved(take_move(order.table, move, 4), Moved(1, True, 4, 0), 4)
    assert forced.generation == lost.generation
    now.answer(0, Status.PLACEMENT, forced.encode())
    order.net.run()
    assert context.placement.table == forced
    assert [(request.method, request.body) for request in now.take()] == [(Method.PLACED, forced.encode())]
    followed = list[Table]()
    context.on_table.append(lambda before, table: followed.append(table))
    for table in (order.table, forced):
        context.follow(table)
    assert not followed, "an older one, or this one again, changes nothing"


def test_g7_a_transaction_goes_by_the_table_of_the_moment_when_it_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pause came behind the look at the table: it went to a shard that could be gone."""
    order, table, before, now = served()

    def looks(request: Any) -> Iterator[None]:
        order.net.context.placement.replace(table)
        yield

    monkeypatch.setattr(kv, "compares_ranges", looks)
    request = pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=KEY, prev_kv=True))])
    order.methods.handlers["Txn"](FakeCall(), request.SerializeToString())
    order.net.run()
    assert not before.take(Method.TXN)
    assert len(now.take(Method.TXN)) == 1


def test_a_table_that_comes_with_many_reads_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    order, table, before, now = served()
    for _ in range(3):
        get(order, serializable=True)
    decoded, follow = list[Table](), order.net.context.follow

    def counted(told: Table) -> None:
        decoded.append(told)
        follow(told)

    monkeypatch.setattr(order.net.context, "follow", counted)
    for request in before.take(Method.RANGE):
        before.answer(request.rid, Status.MOVED, table.encode())
    order.net.run()
    assert decoded == [table]
    assert [request.method for request in now.take()] == [Method.PLACED] + [Method.RANGE] * 3


def test_g7_the_hash_of_a_lone_shard_is_asked_anew_of_all_once_keys_have_moved() -> None:
    """It timed out: nothing said how it is asked anew."""
    net = Net()
    start_two(net)
    call = called(net, "HashKV", pb.HashKVRequest(revision=5))
    net.run()
    (request,) = net.nodes[1].take(Method.HASH_KV)
    table = moved(grown())
    net.nodes[1].answer(request.rid, Status.MOVED, table.encode())
    net.run()
    net.pass_time(0.3)
    for again in net.loop.later:  # it has a link to the node of the new shard by now
        again()
    net.run()
    for shard in (0, 1):
        (request,) = net.every[shard, 1].take(Method.HASH_KV)
        tail = pb.HashKVResponse(hash=7, compact_revision=-1, hash_revision=5).SerializeToString()
        net.every[shard, 1].ok(request, 5, tail)
        net.run()
    assert call.status == (0, "")
    assert net.context.stats["unary", "etcdserverpb.Maintenance", "HashKV"].started == 1


def came_back(net: Net) -> Table:
    """The table of a front whose store had one shard; KEY has moved to another, and back at 9."""
    start_two(net)
    table = grown()
    for number, source, revision in ((1, 0, 5), (2, 1, 9)):
        move = Move(number, KEY, KEY + b"\0", (source,), 1 - source)
        table = take_moved(take_move(table, move, revision), Moved(number, True, revision, 0), revision)
        if not source:
            table = take_compact(table, 6)
    net.context.follow(table)
    net.pass_time(0.3)
    assert (net.context.placement.ids, net.context.placement.kept) == ((0,), (0, 1))
    for shard in (0, 1):
        net.every[shard, 1].watermark(20)
    net.run()
    return table


def test_i19_the_owners_of_before_have_their_part_in_a_hash_when_all_keys_are_back_in_shard_0() -> None:
    net = Net()
    table = came_back(net)
    for compacted in (6, 4):  # a replica that is behind the pruning counts by a table of its own
        call = called(net, "HashKV", pb.HashKVRequest(revision=8))
        net.pass_time(0.3)
        for shard, value in ((0, 7), (1, HASH_OF_NOTHING)):
            (request,) = net.every[shard, 1].take(Method.HASH_KV)
            tail = pb.HashKVResponse(hash=value, compact_revision=compacted, hash_revision=8)
            net.every[shard, 1].ok(request, 20, tail.SerializeToString())
        net.run()
        assert (call.status == (0, "")) == (compacted >= table.pruned)
        if call.replies:
            assert pb.HashKVResponse.FromString(call.replies[0]).hash == 7, "as of a store of one shard"


@pytest.mark.parametrize("plain", [True, False])
def test_g2_a_transaction_shows_the_past_of_its_owner_of_then_when_all_keys_are_back(plain: bool) -> None:
    net = Net()
    came_back(net)
    ops = [pb.RangeRequest(key=KEY, revision=8, serializable=True, limit=0 if plain else 3)]
    called(net, "Txn", pb.TxnRequest(success=[pb.RequestOp(request_range=op) for op in ops]))
    net.pass_time(0.3)
    for shard in (0, 1):
        for request in net.every[shard, 1].take(Method.READ_TXN):
            net.every[shard, 1].ok(request, 20)
    net.run()
    assert not net.every[0, 1].take(Method.RANGE)
    (request,) = net.every[1, 1].take(Method.RANGE)
    assert READ.unpack_from(request.body)[1] == 8


@pytest.mark.parametrize("plain", [True, False])
def test_g2_a_transaction_that_shows_what_is_below_the_pruning_is_refused(plain: bool) -> None:
    """A replica that had not come to the compaction showed nothing of what had been another shard's."""
    net = Net()
    net.context.follow(take_compact(came_back(net), 10))
    net.run()
    op = pb.RangeRequest(key=KEY, revision=8, serializable=True, limit=0 if plain else 3)
    call = called(net, "Txn", pb.TxnRequest(success=[pb.RequestOp(request_range=op)]))
    net.pass_time(0.3)
    for request in net.every[0, 1].take(Method.READ_TXN):
        net.every[0, 1].ok(request, 20)
    net.run()
    assert call.status is not None
    assert "compacted" in call.status[1]


def test_g7_a_read_that_was_not_sent_yet_is_asked_by_the_new_table() -> None:
    order, table, before, now = served()
    call = get(order)
    (question,) = order.net.nodes[1].take(Method.READ_INDEX)
    order.net.context.follow(table)
    order.net.nodes[1].answer(question.rid, Status.OK, READ_INDEX_ANSWER.pack(3, 5, 1))
    order.net.run()
    (question,) = order.net.nodes[1].take(Method.READ_INDEX)
    order.net.nodes[1].answer(question.rid, Status.OK, READ_INDEX_ANSWER.pack(4, 5, 1))
    order.net.run()
    assert not before.take(Method.RANGE)
    (request,) = now.take(Method.RANGE)
    now.ok(request, 5)
    order.net.run()
    assert call.status == (0, "")


@pytest.mark.parametrize("end", [b"", b"z"])
@pytest.mark.parametrize("serializable", [False, True])
@pytest.mark.parametrize("error", [None, errors.PERMISSION_DENIED, errors.TIMEOUT])
def test_a_range_below_the_pruning_is_judged_before_it_is_told_so(
    end: bytes, serializable: bool, error: errors.ErrorKind | None
) -> None:
    """As in etcd. The front knows of the compaction by its table, and asks no owner at that revision."""
    order, table, _, _ = served()
    context, zero = order.net.context, order.net.nodes[1]
    context.follow(take_compact(table, 9))
    assert context.placement.table.pruned
    context.router.recent.knows = True
    zero.watermark(9)
    order.net.run()
    call = get(order, range_end=end, revision=2, serializable=serializable)
    assert call.status == (errors.COMPACTED.code, errors.COMPACTED.text)
    assert not zero.take(Method.READ_INDEX), "nobody is judged"
    context.principals.enabled = True
    call = get(order, range_end=end, revision=2, serializable=serializable)
    assert call.status is None
    if serializable:
        assert not zero.take(Method.READ_INDEX | SAID), "it waits for none"
    else:
        (question,) = zero.take(Method.READ_INDEX | SAID)
        zero.answer(question.rid, Status.OK, READ_INDEX_ANSWER.pack(3, 9, 1))
        order.net.run()
    (request,) = zero.take(Method.AUTH_SHOW)
    assert request.body[-1:] == (end or KEY)[-1:]
    if error is None:
        zero.ok(request, 9)
    else:
        zero.answer(request.rid, Status.ERROR, EtcdError(error).encode())
    order.net.run()
    told = error or errors.COMPACTED
    assert call.status == (told.code, told.text)


def test_a_read_whose_link_ends_goes_to_where_its_key_is_by_now() -> None:
    for serializable in (False, True):
        order, table, before, now = served()
        call = get(order, serializable=serializable)
        for question in order.net.nodes[1].take(Method.READ_INDEX):
            order.net.nodes[1].index(question, 3)
        order.net.run()
        assert len(before.take(Method.RANGE)) == 1
        order.net.context.follow(table)
        assert before.link is not None
        before.link.close("connection lost")
        order.net.run()
        for question in order.net.nodes[1].take(Method.READ_INDEX):
            order.net.nodes[1].index(question, 4)
        order.net.pass_time(1)
        assert not before.take(Method.RANGE)
        (request,) = now.take(Method.RANGE)
        now.ok(request, 5)
        order.net.run()
        assert call.status == (0, "")


def test_g2_the_past_is_read_where_it_was_and_not_below_the_pruning() -> None:
    order, table, before, now = served()
    order.net.context.follow(table)
    for revision, node in ((4, before), (5, before), (6, now)):
        get(order, revision=revision, serializable=True)
        assert len(node.take(Method.RANGE)) == 1, revision
    order.net.context.follow(take_compact(table, 6))
    call = get(order, revision=5, serializable=True)
    assert call.status is not None
    assert "compacted" in call.status[1]
    assert not before.take(Method.RANGE)
    assert not now.take(Method.RANGE)


def test_i14_a_serializable_range_waits_for_owners_before_a_move_that_lack_what_was_shown() -> None:
    """Once in some thousand simulations of moves a front went back: it waited for the owners of now alone."""
    order = Order(Random(1))
    table = order.table
    (source,) = table.owners(b"/d/e/a", b"/d/e/c")
    now = (source + 1) % 3, (source + 2) % 3
    for start, end, target in ((b"/d/e/a", b"/d/e/b", now[0]), (b"/d/e/b", b"/d/e/c", now[1])):
        move = Move(table.last_move + 1, start, end, (source,), target)
        table = take_moved(take_move(table, move, 5), Moved(move.number, True, 5, 0), 5)
    order.net.context.follow(table)
    behind, *nodes = (order.net.every[shard, 1] for shard in (source, *now))
    order.net.router.highest = 5
    behind.watermark(4)
    for node in nodes:
        node.watermark(5)
    order.net.run()
    call = FakeCall()
    order.methods.handlers["Range"](
        call, pb.RangeRequest(key=b"/d/e/a", range_end=b"/d/e/c", serializable=True).SerializeToString())
    order.net.pass_time(0.2)
    assert [node.take(Method.RANGE_ROWS) for node in (behind, *nodes)] == [[], [], []]
    behind.watermark(5)
    order.net.run()
    (request,) = behind.take(Method.RANGE_ROWS)
    assert READ.unpack_from(request.body)[1] == 5


def test_a_range_without_keys_is_answered_by_the_owner_of_its_first_key() -> None:
    order, table, before, now = served()
    order.net.context.follow(table)
    get(order, range_end=b"a", revision=4, serializable=True)
    assert len(before.take(Method.RANGE)) == 1
    call = get(order, range_end=b"a", serializable=True)
    (request,) = now.take(Method.RANGE)
    now.ok(request, 5)
    order.net.run()
    assert call.status == (0, "")


def test_a_node_in_this_process_answers_only_by_the_same_table() -> None:
    class Near:
        revision = order_index = 1
        guarded = False
        generation = 0

    net = Net().started()
    link = net.nodes[1].link
    assert link is not None
    link.near = Near()  # type: ignore[assignment]  # nothing is read
    three = Net(shards=3).context.placement.table
    net.router.moved.tell(moved(three))
    assert link.near is not None
    assert link.near.generation == moved(three).generation


def _ranges(**fields: object) -> bytes:
    ops = [pb.RequestOp(request_range=pb.RangeRequest(key=KEY, serializable=True, **fields))] * 100  # type: ignore[arg-type]
    return pb.TxnRequest(success=ops).SerializeToString()


@pytest.mark.parametrize("keys_have_moved", [False, True])
@pytest.mark.parametrize(("method", "body"), [
    ("Range", pb.RangeRequest(key=KEY, serializable=True).SerializeToString()),
    ("Txn", _ranges()),
    ("Txn", _ranges(limit=1)),  # checked in later turns
], ids=["get", "plain", "long"])  # fmt: skip
def test_a_large_read_whose_links_break_is_asked_again_within_its_time_limit(
    method: str, body: bytes, keys_have_moved: bool
) -> None:
    """It may be its answer that breaks links."""
    order, table, *_ = served()
    net, call = order.net, FakeCall()
    if keys_have_moved:
        net.context.follow(table)
        net.run()
    for node in net.every.values():
        node.watermark(9)
    net.run()
    order.methods.handlers[method](call, body)
    cut = 0
    while call.status is None and cut < 20:
        net.pass_time(0.1)
        asked = [(node, request) for node in net.every.values() for request in node.take()
                 if request.method in (Method.RANGE, Method.READ_TXN)]
        for node, request in asked:
            node.answer(request.rid, Status.PARTIAL, HEAD.pack(9, 1) + b"half")
        net.pass_time(net.router.limit_s / 4)
        for node, _ in asked:
            cut += 1
            net.cut(node.member, node.shard)
            node.up = True
    assert 4 <= cut < 20
    assert call.status == (14, "etcdserver: request timed out, possibly due to previous leader failure")
