"""A front follows the table of placement: it has a route to each shard that is in the order."""

from __future__ import annotations

from google.protobuf.message import Message

from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement, Table
from cluster.placement.base import Base
from cluster.placement.changes import Moved, take_compact, take_move, take_moved, take_shard
from cluster.placement.table import END, Move, State
from cluster.wire.messages import Method, Status
from proxy.services.table import register_all
from tests.unit.proxy.fakes import FakeCall, FakeNode, Net
from tests.unit.proxy.served import Methods


def tell(net: Net, table: Table) -> None:
    net.nodes[1].answer(0, Status.PLACEMENT, table.encode())
    net.run()


def test_a_front_has_routes_to_shards_in_the_order_and_loses_that_of_a_dropped_one() -> None:
    net = Net().started()
    net.every.update({(1, m): FakeNode(m, 1, leader=1) for m in (1, 2, 3)})
    forming = take_shard(Table.initial(Base(1)), 1, State.FORMING, 1, (1, 2, 3))
    tell(net, forming)
    assert set(net.router.routes) == {0}, "no cut of it is in the order yet"
    serving = take_shard(forming, 1, State.SERVING, 1, ())
    tell(net, serving)
    assert set(net.router.routes) == {0, 1}
    assert net.router.ready, "it owns no key: this front does not wait for it"
    net.pass_time(0.3)
    route = net.router.routes[1]
    assert route.leader == 1
    assert route.home is not None

    call = FakeCall()
    net.router.read(call, Method.HASH_KV, b"", 1, True, net.context.method("unary", "x", "y"))
    tell(net, take_shard(take_shard(serving, 1, State.RETIRING, 0, ()), 1, State.DROPPED, 0, ()))
    assert set(net.router.routes) == {0}
    assert not route.links, "no link stays, and no new one is opened"
    assert call.closed, "what waited is answered"
    net.pass_time(0.3)
    assert not net.every[1, 2].alive


def retired() -> Table:
    """Of two first shards the second has given its keys to a third one, and is gone."""
    table = Table.initial(Base(2, 2))
    table = take_shard(take_shard(table, 2, State.FORMING, 2, (1, 2, 3)), 2, State.SERVING, 0, ())
    table = take_moved(take_move(table, Move(1, END, END, (0, 1), 2), 5), Moved(1, True, 5, 0), 5)
    table = take_compact(table, 9)
    return take_shard(take_shard(table, 1, State.RETIRING, 0, ()), 1, State.DROPPED, 0, ())


def test_a_defragmentation_goes_on_behind_a_shard_that_is_dropped_meanwhile() -> None:
    net = Net(shards=2)
    net.every.update({(2, member): FakeNode(member, 2, leader=1) for member in (1, 2, 3)})
    net.started()
    methods = Methods()
    register_all(methods, net.context)
    serving = take_shard(Table.initial(Base(2, 2)), 2, State.FORMING, 2, (1, 2, 3))
    tell(net, take_shard(serving, 2, State.SERVING, 0, ()))
    call = FakeCall()
    methods.handlers["Defragment"](call, b"")
    for shard in (0, 1, 2):
        net.pass_time(0.3)
        (asked,) = net.every[shard, 1].take(Method.DEFRAGMENT)
        assert call.status is None
        if shard == 1:
            tell(net, retired())
        else:
            net.every[shard, 1].ok(asked)
        net.run()
    assert call.replies == [b""]


def test_what_came_before_the_first_table_for_a_shard_that_is_gone_waits_for_its_owner() -> None:
    """A front listens before its nodes have loaded. Such requests failed as if a leader had failed."""
    net = Net(shards=2)
    net.every.update({(2, member): FakeNode(member, 2, leader=1) for member in (1, 2, 3)})
    serves = [node for node in net.every.values() if node.shard != 1]
    for node in net.every.values():
        node.up = False
    methods = Methods()
    register_all(methods, net.context)
    key = next(k for k in (b"/x%d/k" % i for i in range(99)) if Base(2, 2).shard_of(k) == 1)

    def called(method: str, request: Message) -> FakeCall:
        call = FakeCall()
        methods.handlers[method](call, request.SerializeToString())
        return call

    put = called("Put", pb.PutRequest(key=key, value=b"v"))
    left = called("Put", pb.PutRequest(key=key, value=b"left"))
    left.closed = True
    delete = called("DeleteRange", pb.DeleteRangeRequest(key=key))
    get = called("Range", pb.RangeRequest(key=key, serializable=True))
    linearizable = called("Range", pb.RangeRequest(key=key))
    net.pass_time(0.3)
    for node in serves:
        node.up, node.leader = True, 1
    net.pass_time(1.0)
    tell(net, retired())
    net.pass_time(0.3)
    assert not any(call.status for call in (put, delete, get, linearizable))
    asked = net.nodes[1].take()
    wide = [request for request in asked if request.method == Method.WIDE]
    assert [request.body[0] for request in wide] == [Method.PUT, Method.DELETE_RANGE], "nothing was sent yet"
    assert pb.PutRequest.FromString(wide[0].body[1:]).value == b"v"
    for request in asked:
        if request.method == Method.READ_INDEX:
            net.nodes[1].index(request, 1, 9)
    net.every[2, 1].watermark(9)
    net.pass_time(0.1)
    assert len(net.every[2, 1].take(Method.RANGE)) == 2


def test_keys_stay_where_they_are_while_a_born_shard_owns_none() -> None:
    placement = Placement(1)
    table = take_shard(placement.table, 1, State.FORMING, 1, (1,))
    placement.replace(take_shard(table, 1, State.SERVING, 1, ()))
    assert placement.one
    assert (placement.ids, placement.running) == ((0,), (0, 1))
    assert placement.shard_of(b"/a/b") == 0
