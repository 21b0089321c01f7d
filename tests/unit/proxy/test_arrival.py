"""A front of a host that joins serves once its nodes have what was in order, and list it as started."""

from __future__ import annotations

import pytest

from cluster.pb import rpc_pb2 as pb
from cluster.placement import Table
from cluster.placement.base import Base
from cluster.placement.changes import Moved, take_move, take_moved, take_shard
from cluster.placement.table import Move, State
from cluster.wire.messages import READ, Method, Status
from proxy.routing.reads.arrival import Arrival
from tests.unit.proxy.fakes import FakeNode, Net, Request

INDEX = 40  # the order's, when the host asks
STARTED = pb.MemberListResponse(members=[pb.Member(ID=1, name="h1"), pb.Member(ID=2, name="h2")])
ADDED = pb.MemberListResponse(members=[pb.Member(ID=1), pb.Member(ID=2, name="h2")])


class Joining:
    def __init__(self, shards: int = 1) -> None:
        self.net = net = Net(shards=shards).started(leader=2)
        self.arrived = 0
        net.context.on_tick.append(Arrival(net.router, lambda: net.context.placement.ids, self._arrive).tick)
        net.pass_time(0.1)

    def _arrive(self) -> None:
        self.arrived += 1

    def index(self) -> None:
        (question,) = self.net.nodes[2].take(Method.READ_INDEX)
        self.net.nodes[2].index(question, INDEX)
        self.net.run()
        self.net.pass_time(0.1)

    def asked(self, shard: int = 0, method: Method = Method.FACTS) -> list[Request]:
        return self.net.every[shard, 1].take(method)

    def applied(self, shard: int = 0) -> None:
        """The last question of a node is answered."""
        (*_, question) = self.asked(shard)
        assert READ.unpack_from(question.body) == (INDEX, 0), "a node answers once it has applied that"
        self._answer(question, shard, b"{}")

    def answer(self, listed: pb.MemberListResponse = STARTED) -> None:
        (question,) = self.asked(0, Method.MEMBER_LIST)
        self._answer(question, 0, listed.SerializeToString())

    def _answer(self, question: Request, shard: int, tail: bytes) -> None:
        self.net.every[shard, 1].ok(question, 5, tail)
        self.net.run()
        self.net.pass_time(0.2)


def test_a_host_arrives_once_its_copy_has_what_was_in_order() -> None:
    joining = Joining()
    joining.net.pass_time(1.0)
    assert joining.asked() == [], "it is not known yet how far the order is"
    joining.index()
    joining.applied()
    assert joining.arrived == 0
    joining.answer()
    joining.net.pass_time(1.0)
    assert joining.arrived == 1
    assert joining.net.nodes[1].take() == joining.net.nodes[2].take() == []


def test_a_host_that_is_not_listed_as_started_has_not_arrived() -> None:
    joining = Joining()
    joining.index()
    joining.applied()
    for _ in range(3):
        joining.answer(ADDED)
        assert joining.arrived == 0
    joining.answer()
    assert joining.arrived == 1


def test_a_copy_of_each_shard_that_owns_keys_is_waited_for_without_a_limit() -> None:
    joining = Joining(shards=3)
    joining.index()
    assert joining.asked(1) == joining.asked(2) == [], "what owns keys is known with shard 0's copy"
    joining.applied()
    joining.answer()
    joining.applied(2)
    for _ in range(4):  # a copy that is far behind: the question runs out, and is asked again
        joining.net.pass_time(joining.net.router.limit_s)
        assert joining.arrived == 0
    joining.applied(1)
    assert joining.arrived == 1


def test_another_hosts_copy_does_not_count() -> None:
    joining = Joining()
    joining.index()
    joining.net.cut(1)
    joining.net.pass_time(1.0)
    assert joining.net.nodes[2].take(Method.FACTS) == []
    joining.net.nodes[1].up = True
    joining.net.pass_time(1.0)
    assert joining.arrived == 0
    joining.applied()
    joining.answer()
    assert joining.arrived == 1


@pytest.mark.parametrize("status", [Status.ERROR, Status.UNKNOWN])
def test_what_cannot_be_answered_is_asked_again(status: Status) -> None:
    joining = Joining()
    joining.net.lead(0, 2)
    joining.net.pass_time(joining.net.router.limit_s + 1)
    assert joining.arrived == 0
    joining.net.lead(3, 3)
    joining.net.pass_time(0.2)
    (question,) = joining.net.nodes[3].take(Method.READ_INDEX)
    joining.net.nodes[3].index(question, INDEX)
    joining.net.run()
    joining.net.pass_time(0.1)
    (refused,) = joining.asked()
    joining.net.nodes[1].answer(refused.rid, status, b"\0\0")
    joining.net.run()
    joining.net.pass_time(0.1)
    joining.applied()
    joining.answer()
    assert joining.arrived == 1


@pytest.mark.parametrize("owns", [False, True])
def test_a_born_shard_is_waited_for_only_if_it_owned_keys_then(owns: bool) -> None:
    joining = Joining()
    net = joining.net
    net.every.update({(1, m): FakeNode(m, 1, leader=2) for m in (2, 3)})
    net.every[1, 1] = FakeNode(1, 1, up=False)
    forming = take_shard(Table.initial(Base(1)), 1, State.FORMING, 1, (1, 2, 3))
    table = take_shard(forming, 1, State.SERVING, 1, ())
    if owns:
        move = Move(1, b"k", b"l", (0,), 1)
        table = take_moved(take_move(table, move, 5), Moved(1, True, 5, 0), 5)
    net.nodes[1].answer(0, Status.PLACEMENT, table.encode())
    joining.index()
    joining.applied()
    joining.answer()
    assert joining.arrived == int(not owns)
    net.every[1, 1].up = True
    net.pass_time(0.5)
    if owns:
        joining.applied(1)
    assert joining.arrived == 1
