"""Watches at a front that has just started: a watch from "now" on is sent nothing that was acknowledged
before (decision 83)."""

from __future__ import annotations

import pytest

from cluster.wire.messages import Method
from proxy.routing.reads import recent
from tests.unit.proxy.watch.watching import Client, World

PUT = 0


def started(*live: int) -> World:
    """A front that has just started. Its own node lags: it has the first 4 of 9 revisions. ``live``: the
    hosts that run, without a leader; else all, with one."""
    world = World()
    net = world.net
    for _ in range(8):
        world.store.write((PUT, b"k"))
    for member, source in world.sources.items():
        source.apply(5 if member == 1 else 9)
        if live:
            net.nodes[member].leader = 0
            net.nodes[member].up = member in live
            if member not in live:
                net.cut(member)
    if live:
        net.pass_time(0.1)
    net.run()
    net.router.recent.knows, net.router.highest = False, 0
    return world


def begun(client: Client) -> list[tuple[int, int]]:
    return [(r.watch_id, r.header.revision) for r in client.responses() if r.created]


def test_a_front_that_has_just_started_asks_how_far_the_order_is_before_a_watch() -> None:
    world = started()
    net, clients = world.net, [Client(world) for _ in range(2)]
    for client in clients:
        client.create(b"k")
        client.create(b"k", start=3)
    net.run()
    assert [begun(client) for client in clients] == [[], []], "its own node has revision 5 yet"
    (question,) = net.nodes[2].take(Method.READ_INDEX)
    net.nodes[2].index(question, 17)
    net.run()
    assert [begun(client) for client in clients] == [[(0, 9), (1, 9)]] * 2
    world.settle()
    world.write((PUT, b"k"))
    for client in clients:
        assert [e[0] for e in client.events(0)] == [10], "from now on"
        assert [e[0] for e in client.events(1)] == [3, 4, 5, 6, 7, 8, 9, 10]
    Client(world).create(b"k")
    net.run()
    assert net.nodes[2].take(Method.READ_INDEX) == []


def test_without_a_majority_watches_begin_at_what_the_own_node_has() -> None:
    world = started(1)
    client = Client(world)
    client.create(b"k")
    world.net.pass_time(recent.ASK_S - 0.1)
    assert begun(client) == []
    world.net.pass_time(0.2)
    assert begun(client) == [(0, 5)]


@pytest.mark.parametrize("own", ["is down", "has yet to apply what it had"])
def test_a_watch_waits_no_longer_than_reads_do(own: str) -> None:
    world = started(3 if own == "is down" else 1)
    net, client = world.net, Client(world)
    if (home := net.router.routes[0].home) is not None:
        home.began = 1000
    client.create(b"k")
    net.pass_time(recent.START_S - 0.1)
    assert begun(client) == []
    net.pass_time(recent.WAIT_S + 0.2)
    assert begun(client) == [(0, 9 if own == "is down" else 5)]
    later = Client(world)
    later.create(b"k")
    net.run()
    assert begun(later), "it has waited once"


def test_a_front_that_has_heard_of_no_node_does_not_wait_in_advance() -> None:
    """A node may read its log for longer than START_S before it says anything."""
    world = started(1)
    net = world.net
    world.cut(1)
    client = Client(world)
    client.create(b"k")
    net.pass_time(2 * recent.START_S)
    net.nodes[1].up = True
    net.pass_time(0.5)
    assert begun(client) == []
    net.pass_time(recent.ASK_S)
    assert begun(client) == [(0, 5)]
