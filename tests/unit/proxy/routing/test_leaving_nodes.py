"""A node that is about to end, as a front sees it; and what is left of a write's time when it goes
elsewhere."""

from __future__ import annotations

from cluster.wire.messages import Method, Status
from tests.unit.proxy.fakes import Net
from tests.unit.proxy.routing.router.asking import put, read


def test_a_write_that_waited_for_a_leader_has_only_the_rest_of_its_time() -> None:
    net = Net()
    net.pass_time(0.2)
    call = put(net)
    began = net.loop.now
    net.pass_time(2.0)
    net.lead(2, 2)
    (request,) = net.nodes[2].take()
    left_s = net.router.limit_s - (net.loop.now - began)
    assert abs(request.timeout_ms / 1000 - left_s) < 0.1
    net.pass_time(left_s - 0.2)
    assert not call.closed
    net.pass_time(0.4)
    assert call.status == (14, "etcdserver: request timed out")


def say_leaving(net: Net, member: int) -> None:
    net.nodes[member].answer(0, Status.LEAVING, b"")
    net.run()


def test_a_node_that_leaves_is_asked_nothing_more_and_told_so_once_it_has_answered_everything() -> None:
    net = Net().started(leader=2)
    node = net.nodes[2]
    before = put(net)
    (request,) = node.take()
    say_leaving(net, 2)
    later = put(net)  # it still names itself as the leader
    net.pass_time(0.2)
    assert node.take() == []
    node.ok(request, 5)
    net.run()
    net.pass_time(0.1)
    assert before.status == (0, "")
    assert [r.method for r in node.take()] == [Method.FAREWELL]
    net.lead(3, 2)
    (elsewhere,) = net.nodes[3].take()
    net.nodes[3].ok(elsewhere, 6)
    net.run()
    assert later.status == (0, "")
    net.cut(2)  # nothing waited there: nobody is told that an outcome is unknown
    assert node.take() == []


def test_reads_leave_the_own_node_before_it_ends() -> None:
    net = Net().started(leader=2)
    say_leaving(net, 1)
    assert [r.method for r in net.nodes[1].take()] == [Method.FAREWELL]
    call = read(net, serializable=True)
    net.run()
    (request,) = net.nodes[2].take(Method.RANGE)
    net.nodes[2].ok(request, 5)
    net.run()
    assert call.status == (0, "")
    assert net.nodes[1].take() == []
