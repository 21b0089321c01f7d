"""Serializable reads never go back at one front, across restarts either (I14, decision 83)."""

from __future__ import annotations

from cluster.wire.messages import Method
from proxy.routing.reads import recent
from tests.unit.proxy.fakes import Net
from tests.unit.proxy.routing.test_router import put, read


def test_a_serializable_read_waits_for_what_this_front_has_shown() -> None:
    net = Net().started(leader=2)
    put(net)
    (request,) = net.nodes[2].take()
    net.nodes[2].ok(request, 50)
    net.run()
    call = read(net, serializable=True)
    net.run()
    assert net.nodes[1].take(Method.RANGE) == []
    (hurry,) = net.nodes[1].take(Method.CATCH_UP)  # a replica that nobody waits for does not say so soon
    assert hurry.body == (50).to_bytes(8, "little")
    net.nodes[1].watermark(50)
    net.run()
    (served,) = net.nodes[1].take(Method.RANGE)
    net.nodes[1].ok(served, 50)
    net.run()
    assert call.status == (0, "")


def test_a_serializable_read_is_served_anyway_when_the_replica_is_cut_off() -> None:
    net = Net().started(leader=2)
    put(net)
    (request,) = net.nodes[2].take()
    net.nodes[2].ok(request, 50)
    net.run()
    net.pass_time(recent.START_S)  # it did not come up just now
    net.nodes[1].take()
    read(net, serializable=True)
    net.pass_time(0.3)
    assert net.nodes[1].take(Method.RANGE) == []
    net.pass_time(0.4)
    assert len(net.nodes[1].take(Method.RANGE)) == 1


def test_a_replica_that_was_restarted_is_waited_for_until_it_has_read_its_log() -> None:
    net = Net().started(leader=2)
    put(net)
    (request,) = net.nodes[2].take(Method.PUT)
    net.nodes[2].ok(request, 50)
    net.run()
    net.nodes[1].watermark(50)
    net.run()
    net.cut(1)
    net.nodes[1].up, net.nodes[1].revision = True, 1
    net.pass_time(0.5)
    assert net.router.routes[0].replica is net.router.routes[0].home is not None
    read(net, serializable=True)
    net.pass_time(2.0)
    assert net.nodes[1].take(Method.RANGE) == []
    net.nodes[1].watermark(50)
    net.run()
    assert len(net.nodes[1].take(Method.RANGE)) == 1


def test_a_restarted_replica_that_stays_behind_is_served_in_the_end() -> None:
    net = Net().started(leader=2)
    net.router.highest = 50
    read(net, serializable=True)
    net.pass_time(recent.START_S - 1)
    assert net.nodes[1].take(Method.RANGE) == []
    net.pass_time(1.5)
    assert len(net.nodes[1].take(Method.RANGE)) == 1


def test_a_front_that_has_just_started_asks_how_far_the_order_is_before_a_serializable_read() -> None:
    net = Net().started(leader=2)
    net.router.recent.knows = False
    calls = [read(net, serializable=True) for _ in range(2)]
    net.run()
    assert net.nodes[1].take(Method.RANGE) == []
    (question,) = net.nodes[2].take(Method.READ_INDEX)
    net.nodes[2].index(question, 9, 50)
    net.run()
    assert net.nodes[1].take(Method.RANGE) == []  # the replica is not there yet
    net.nodes[1].watermark(50)
    net.run()
    for served in net.nodes[1].take(Method.RANGE):
        net.nodes[1].ok(served, 50)
    net.run()
    assert [call.status for call in calls] == [(0, "")] * 2
    read(net, serializable=True)
    net.run()
    assert net.nodes[2].take(Method.READ_INDEX) == []  # once


def test_a_front_that_starts_where_nobody_leads_answers_serializable_reads_after_a_while() -> None:
    net = Net().started(leader=2)
    net.router.recent.knows = False
    net.lead(0, 0)
    net.nodes[1].take()
    read(net, serializable=True)
    net.pass_time(recent.START_S + 1)
    assert len(net.nodes[1].take(Method.RANGE)) == 1
