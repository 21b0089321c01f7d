"""Fronts that hear that keys have moved."""

from __future__ import annotations

from random import Random

from google.protobuf.message import Message

from cluster.placement import Table
from cluster.placement.base import Base
from cluster.placement.changes import Moved, take_move, take_moved, take_shard
from cluster.placement.table import Move, State
from proxy.services.table import register_all
from tests.unit.proxy.fakes import FakeCall, FakeNode, Net
from tests.unit.proxy.moved.racing import Order
from tests.unit.proxy.served import Methods

KEY = b"k00"


def grown() -> Table:
    """Of a store that began with one shard, and has a second one."""
    table = take_shard(Table.initial(Base(1, 2)), 1, State.FORMING, 1, (1, 2, 3))
    return take_shard(table, 1, State.SERVING, 1, ())


def moved(table: Table, revision: int = 5) -> Table:
    """The table behind a move of KEY to the next shard."""
    (source,) = table.owners(KEY, b"")
    move = Move(table.last_move + 1, KEY, KEY + b"\0", (source,), (source + 1) % 3)
    return take_moved(take_move(table, move, revision), Moved(move.number, True, revision, 0), revision)


def served() -> tuple[Order, Table, FakeNode, FakeNode]:
    """A front, a table with a move of KEY, the nodes of its owners before and now."""
    order = Order(Random(1))
    table = moved(order.table)
    before, now = order.table.owner(KEY), table.owner(KEY)
    return order, table, order.net.every[before, 1], order.net.every[now, 1]


def start_two(net: Net) -> None:
    """Start a front whose store has one shard, and nodes of the second one to be."""
    net.every |= {(1, member): FakeNode(member, 1) for member in net.nodes}
    net.started()


def called(net: Net, method: str, request: Message) -> FakeCall:
    """A client's call of a method of etcd's at a front."""
    methods = Methods()
    register_all(methods, net.context)
    call = FakeCall()
    methods.handlers[method](call, request.SerializeToString())
    return call
