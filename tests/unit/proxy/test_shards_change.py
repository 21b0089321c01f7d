"""A front follows the table of placement: it has a route to each shard that is in the order."""

from __future__ import annotations

from cluster.placement import Placement, Table
from cluster.placement.base import Base
from cluster.placement.changes import take_shard
from cluster.placement.table import State
from cluster.wire.messages import Method, Status
from tests.unit.proxy.fakes import FakeCall, FakeNode, Net


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


def test_keys_stay_where_they_are_while_a_born_shard_owns_none() -> None:
    placement = Placement(1)
    table = take_shard(placement.table, 1, State.FORMING, 1, (1,))
    placement.replace(take_shard(table, 1, State.SERVING, 1, ()))
    assert placement.one
    assert (placement.ids, placement.running) == ((0,), (0, 1))
    assert placement.shard_of(b"/a/b") == 0
