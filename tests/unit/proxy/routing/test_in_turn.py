"""Large writes of a front take turns, and so do transactions that compare ranges (decision 82)."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.faults import faults
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import HEAD, Method, Status
from proxy.grpc.registry import Registry
from proxy.http.requests import HttpRequest
from proxy.routing.router import MethodStats, Router, Waiting
from proxy.services import kv
from proxy.v2.call import HttpCall
from tests.unit.proxy.fakes import FakeCall, FakeNode, Net

LARGE = 400_000
WINDOW = 1_000_000


class Client:
    """One connection of a front: its writes, by what they carry."""

    def __init__(self, net: Net, name: str) -> None:
        self.net = net
        self.name = name
        self.stats = MethodStats()

    def put(self, number: int, size: int = LARGE) -> FakeCall:
        call = FakeCall()
        call.peer = self.name  # type: ignore[attr-defined]
        body = f"{self.name}{number}".encode().ljust(size, b".")
        self.net.router.write(call, Method.PUT, body, 0, self.stats)
        self.net.run()
        return call


@pytest.fixture
def net() -> Net:
    net = Net()
    net.router = Router(net.loop, net.settings.common, net._connect, WINDOW)
    return net.started(leader=2)


def names(node: FakeNode) -> list[str]:
    return [request.body.rstrip(b".").decode() for request in node.requests]


def answer(net: Net, node: FakeNode) -> str:
    """The oldest write is done; which one."""
    request = node.requests.pop(0)
    node.ok(request)
    net.run()
    return request.body.rstrip(b".").decode()


def test_a_client_with_many_large_writes_has_a_window_of_them_on_their_way(net: Net) -> None:
    a, leader = Client(net, "a"), net.nodes[2]
    calls = [a.put(number) for number in range(6)]
    assert names(leader) == ["a0", "a1"]
    assert net.router.in_turn.large.waiting == 4
    assert [answer(net, leader) for _ in calls] == [f"a{number}" for number in range(6)]
    assert [call.status for call in calls] == [(0, "")] * 6
    assert a.stats.ok == 6


def test_clients_of_version_2_take_turns_likewise(net: Net) -> None:
    """They were one client: the first one's writes came before the others'."""
    leader, done = net.nodes[2], list[int]()
    for name in ("a0", "a1", "a2", "a3", "b0"):
        call = HttpCall(HttpRequest("PUT", "/v2/keys/k", "", {}, b"", name[0]))
        net.router.write(call, Method.V2_WRITE, name.encode().ljust(LARGE, b"."), 0, MethodStats(),
                         lambda waiting, status, body: done.append(status))
    net.run()
    assert [answer(net, leader) for _ in range(5)] == ["a0", "a1", "a2", "b0", "a3"]
    assert done == [0] * 5


def test_clients_with_large_writes_take_turns_and_small_ones_do_not_wait(net: Net) -> None:
    a, b, c, leader = Client(net, "a"), Client(net, "b"), Client(net, "c"), net.nodes[2]
    for number in range(5):
        a.put(number)
    for number in range(2):
        b.put(number)
    c.put(0)
    c.put(1, size=100)
    assert names(leader) == ["a0", "a1", "c1"]
    leader.requests.pop()
    assert [answer(net, leader) for _ in range(8)] == ["a0", "a1", "a2", "b0", "c0", "a3", "b1", "a4"]


def test_a_write_beyond_the_window_goes_alone(net: Net) -> None:
    a, b, leader = Client(net, "a"), Client(net, "b"), net.nodes[2]
    a.put(0, size=2 * WINDOW)
    b.put(0)
    assert names(leader) == ["a0"]
    answer(net, leader)
    assert names(leader) == ["b0"]


def test_window_comes_back_when_the_leader_refuses_and_when_its_link_is_lost(net: Net) -> None:
    a, leader = Client(net, "a"), net.nodes[2]
    calls = [a.put(number, size=WINDOW) for number in range(4)]
    (request,) = leader.take()
    leader.answer(request.rid, Status.ERROR, b"\x01\x0dno")
    net.run()
    assert calls[0].status is not None
    assert names(leader) == ["a1"]
    net.cut(2)
    assert calls[1].status == (14, "etcdserver: request timed out, possibly due to previous leader failure")
    net.lead(3, 2)
    assert names(net.nodes[3]) == ["a2"]
    answer(net, net.nodes[3])
    answer(net, net.nodes[3])
    assert [call.status for call in calls[2:]] == [(0, "")] * 2


def test_i23_a_large_write_told_not_leader_is_sent_once_more_within_its_window(net: Net) -> None:
    a, leader = Client(net, "a"), net.nodes[2]
    calls = [a.put(number, size=WINDOW) for number in range(2)]
    leader.not_leader(leader.take()[0], 3, 2)
    net.pass_time(0.2, silent=(1, 2, 3))
    assert names(net.nodes[3]) == ["a0"]
    answer(net, net.nodes[3])
    answer(net, net.nodes[3])
    assert [call.status for call in calls] == [(0, "")] * 2


def test_what_nobody_waits_for_any_more_leaves_the_line(net: Net) -> None:
    """A client that resets its calls would fill the front's memory with them otherwise."""
    a, leader = Client(net, "a"), net.nodes[2]
    calls = [a.put(number, size=WINDOW) for number in range(4)]
    calls[0].closed = calls[2].closed = True
    net.pass_time(0.1)
    assert names(leader) == ["a0", "a1"]  # the first one is on its way: nobody can take it back
    assert net.router.in_turn.large.waiting == 1
    assert a.stats.codes == {1: 2}


def test_very_many_whose_client_has_gone_leave_the_line_at_once(net: Net) -> None:
    """Each made room for the next by a call within the one before: that ended by recursion, and the window
    was lost."""
    a, leader = Client(net, "a"), net.nodes[2]
    a.put(0, size=WINDOW)
    calls = [a.put(number, size=20_000) for number in range(1, 1000)]
    for call in calls:
        call.closed = True
    answer(net, leader)
    assert faults.take() == []
    assert a.stats.codes == {1: 999}
    a.put(1000, size=WINDOW)
    assert names(leader) == ["a1000"]


def test_who_waits_too_long_is_told_that_nothing_was_logged(net: Net) -> None:
    a = Client(net, "a")
    first, second = a.put(0, size=WINDOW), a.put(1, size=WINDOW)
    net.pass_time(7.5)
    assert first.status == (14, "etcdserver: request timed out")
    assert second.status == (4, "context deadline exceeded")


def test_an_answer_in_pieces_is_put_together(net: Net) -> None:
    a, leader = Client(net, "a"), net.nodes[2]
    call = a.put(0)
    (request,) = leader.take()
    leader.answer(request.rid, Status.PARTIAL, HEAD.pack(9, 1) + b"one ")
    leader.answer(request.rid, Status.PARTIAL, b"two ")
    leader.answer(request.rid, Status.OK, b"three")
    net.run()
    assert call.replies[0].endswith(b"one two three")
    assert net.router.highest == 9


def test_who_asked_for_the_answer_gets_it(net: Net) -> None:
    found: list[tuple[int, bytes]] = []

    def then(waiting: Waiting, status: int, body: bytes) -> None:
        found.append((status, body))

    net.router.write(FakeCall(), Method.COMPACT, bytes(LARGE), 0, MethodStats(), then)
    net.run()
    (request,) = net.nodes[2].take()
    net.nodes[2].answer(request.rid, Status.PARTIAL, b"some")
    net.nodes[2].ok(request, 3)
    net.run()
    assert found == [(Status.PARTIAL, b"some"), (Status.OK, HEAD.pack(3, 1))]


def test_those_in_line_are_told_that_the_front_stops(net: Net) -> None:
    calls = [Client(net, "a").put(number, size=WINDOW) for number in range(3)]
    net.router.close()
    assert [call.status for call in calls[1:]] == [(14, "etcdserver: server stopped")] * 2
    assert calls[0].closed


def comparing(name: str, size: int = 10) -> bytes:
    compare = pb.Compare(key=b"a", range_end=b"z", target=pb.Compare.VERSION)
    put = pb.RequestOp(request_put=pb.PutRequest(key=name.encode(), value=bytes(size)))
    nested = pb.RequestOp(request_txn=pb.TxnRequest(compare=[compare], success=[put]))
    return pb.TxnRequest(success=[nested]).SerializeToString()


def test_transactions_that_compare_ranges_have_a_share_of_each_connection(net: Net) -> None:
    """Who sent many over very large ranges had others' wait until they were given up."""
    leader, calls = net.nodes[2], {}
    registry = Registry()
    net.context.router = net.router
    kv.register(registry, net.context)
    transact: Any = registry.served("/etcdserverpb.KV/Txn")
    for client, count in (("a", 20), ("b", 2)):
        for number in range(count):
            call = calls[client, number] = FakeCall()
            call.peer = client  # type: ignore[attr-defined]
            transact(call, comparing(f"{client}{number:02}", LARGE if client == "b" else 10))
    net.run()
    assert [sum(b"%b0" % client in r.body for r in leader.requests) for client in (b"a", b"b")] == [10, 2]
    assert len(leader.requests) == 18
    assert net.router.in_turn.compares.waiting == 4
    for _ in range(22):
        leader.ok(leader.requests.pop(0))
        net.run()
    assert all(call.status == (0, "") for call in calls.values())
    assert not net.router.in_turn.compares.waiting
