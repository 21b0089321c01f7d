"""Watches by the ten thousands: what comes and goes with a link does so in short turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cluster.wire.messages import Method
from cluster.wire.protobuf import key_value
from proxy.watch import joining
from tests.garbage import no_garbage
from tests.tries import best_of_three
from tests.unit.proxy.watch.watching import Client, World
from tests.unit.turns import LONGEST_S, Turns, short_turns

PUT = 0
MANY = 20_000  # so that a test is short; turns are held to the same share of 20 ms at 50,000
SHARE = MANY / 50_000


def timed(turns: Turns, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        with turns.turn():
            return function(*args)

    return call


def watching(world: World, ranges: int) -> None:
    """Subscriptions to so many ranges."""
    for i in range(ranges):
        world.net.context.hub.subscribe(b"/%d/" % i, b"/%d0" % i, False, 1)
    world.settle()


def test_parts_move_to_another_node_a_window_at_a_time_and_all_of_them_arrive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(joining, "WINDOW", 100)
    world = World()
    watching(world, 1000)
    hub = world.net.context.hub
    parts = [part for subscription in hub.subscriptions.values() for part in subscription.parts]
    assert all(part.live and part.link is world.net.nodes[1].link for part in parts)
    world.cut(1)
    assert len(world.net.nodes[2].requests) == 100, "no more than a window is asked before an answer has come"
    world.store.write((PUT, b"/7/x"))  # events of parts that wait are not lost
    world.settle()
    assert all(part.live and part.link is world.net.nodes[2].link for part in parts)
    assert hub.events_received == 1
    world.restart(1)
    world.settle()
    assert all(part.live and part.link is world.net.nodes[1].link for part in parts)
    assert not world.net.nodes[2].link.parts
    assert not world.net.nodes[1].link.asked


def test_a_watch_that_ends_while_it_waits_is_not_subscribed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "WINDOW", 4)
    world = World()
    watching(world, 20)
    world.cut(1)
    hub = world.net.context.hub
    for subscription in hub.subscriptions.values():
        for part in subscription.parts:
            hub._joining.drop(part)
            part.leave(world.net.router)
    world.net.run()
    assert len(world.net.nodes[2].take(Method.SUBSCRIBE)) == 4
    assert not world.net.nodes[2].link.asked


@best_of_three
def test_no_turn_is_long_when_the_link_of_many_watches_ends_and_another_takes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    watching(world, MANY)
    router = world.net.router
    with short_turns(LONGEST_S * SHARE) as turns:
        for name in ("link_up", "link_down", "link_answers", "sweep"):
            monkeypatch.setattr(router, name, timed(turns, getattr(router, name)))
        world.cut(1)
        world.settle()
        assert len(world.net.nodes[2].link.parts) == MANY
        world.restart(1)
        world.settle()
    assert len(world.net.nodes[1].link.parts) == MANY


@best_of_three
def test_no_turn_is_long_when_watermarks_of_16_shards_come_for_1000_watches_over_all_of_them() -> None:
    world = World(shards=16)
    hub, loop = world.net.context.hub, world.net.loop
    for i in range(1000):
        hub.subscribe(b"/%04d" % i, b"\0", False, 1)
    world.settle()
    first = world.net.context.placement.shard_of(b"/9/x")  # its events come before everybody's watermarks
    own = [world.every[(first + shard) % 16, 1] for shard in range(16)]
    with short_turns() as turns:
        for _ in range(3):
            revision = world.store.write((PUT, b"/9/x"))
            for source in own:
                source.apply(revision)
            with turns.turn():
                for source in own:
                    source.node.flush(loop.now)
            while loop._soon:
                with turns.turn():
                    loop.turn()
            assert {s.emitted for s in hub.subscriptions.values()} == {revision}
    assert hub.events_received == 3000
    assert not hub._merging


@best_of_three
def test_no_turn_is_long_when_a_stream_of_many_watches_ends_and_others_lose_nothing() -> None:
    world = World()
    hub, loop, node = world.net.context.hub, world.net.loop, world.net.nodes[1]
    leaving, staying = Client(world), Client(world)
    for i in range(MANY):
        leaving.create(b"/%d/x" % i)
    staying.create(b"/0/x")
    world.settle()
    assert len(node.link.parts) == MANY
    with short_turns() as turns:  # 20,000 that end in one turn take 0.2 s
        with turns.turn():
            leaving.leave()
        late = Client(world)
        late.create(b"/1/x")  # the range of a watch that is to end
        while loop._soon:
            with turns.turn():
                loop.turn()
            hub.statistics()
    world.settle()
    assert hub.statistics()["watches"] == len(hub.subscriptions) == len(node.link.parts) == 2
    assert len(world.sources[1].subs) == 2
    world.write((PUT, b"/0/x"), (PUT, b"/1/x"))
    assert [len(client.events()) for client in (leaving, staying, late)] == [0, 1, 1]


@best_of_three
@pytest.mark.parametrize("step", [0, -1])  # one start for all of a client's watches, or one for each
def test_watches_of_revisions_to_come_cost_no_more_to_end_than_others(step: int) -> None:
    """The second of two clients stays: those that leave are the first, and the last, of the range."""
    world = World()
    loop = world.net.loop
    before, staying, behind = Client(world), Client(world), Client(world)
    for client in (before, staying, behind):
        for i in range(MANY // 4):
            client.create(b"k", start=MANY + step * i)
    world.settle()
    (subscription,) = world.net.context.hub.subscriptions.values()
    for client in (before, behind):
        with short_turns() as turns:
            client.leave()
            while loop._soon:
                with turns.turn():
                    loop.turn()
            with turns.turn():  # an event that nobody gets
                world.write((PUT, b"k"))
            with turns.turn():
                for watch in range(20):
                    staying.cancel(watch)
    assert sum(len(cohort.members) for cohort in subscription.cohorts()) == MANY // 4 - 20
    assert not staying.events(MANY // 4 - 1)
    staying.leave()
    world.settle()
    assert not world.net.context.hub.subscriptions


def test_more_watches_leave_in_a_turn_where_more_of_them_wait() -> None:
    world = World()
    hub, loop = world.net.context.hub, world.net.loop
    client = Client(world)
    for _ in range(MANY):
        client.create(b"/x")
    world.settle()
    client.leave()
    turns = 0
    while loop._soon:
        loop.turn()
        turns += 1
        assert hub.statistics()["watches"] == sum(len(cohort.members) for s in hub.subscriptions.values()
                                                  for cohort in s.cohorts())
    assert hub.statistics()["watches"] == 0
    assert MANY / 400 < turns < MANY / 200


def test_nothing_of_watches_that_have_ended_is_left_to_the_garbage_collector() -> None:
    world = World()
    for _ in range(20):
        world.write((PUT, b"past"))
    with no_garbage("proxy"):
        for _ in range(3):
            client = Client(world)
            client.create(b"past", start=2)
            for i in range(10):
                client.create(b"/%d/x" % i)
                client.create(b"/all/", b"/all0")
            world.settle()
            client.leave()
            world.settle()
            del client
        assert not world.net.context.hub.subscriptions


def test_who_watches_one_key_of_the_past_does_not_wait_behind_who_watches_very_many() -> None:
    world = World()
    for _ in range(3):
        world.write((0, b"k"))
    many, few = Client(world), Client(world)
    many.call.peer, few.call.peer = "10.0.0.1:1", "10.0.0.2:1"  # type: ignore[attr-defined]
    for number in range(400):
        many.create(b"a%d" % number, start=2)
    few.create(b"k", start=2)
    world.net.run()
    source, asked = world.sources[1], 0
    while not few.events():
        asked += sum(request.method == Method.HISTORY for request in source.node.requests)
        source.serve()
        source.send_late()
        world.net.run()
    assert asked <= 12  # four at once: those before it, and those beside it
    assert [revision for revision, _, _ in few.events()] == [2, 3, 4]
    world.settle()
    assert world.net.context.hub.statistics()["slow"] == 0


def test_streams_that_want_a_leader_end_some_in_each_turn_of_the_loop_and_stay_if_one_comes() -> None:
    world = World()
    context, loop = world.net.context, world.net.loop
    clients = [Client(world, {b"hasleader": b"true"}) for _ in range(1_000)]
    world.settle()
    router = context.router
    router.leaderless_since = loop.now - 100 * router.election_s
    ended = []
    context.tick(loop.now)
    for _ in range(3):
        ended.append(sum(client.call.closed for client in clients))
        loop.turn()
    assert ended == [200, 400, 600]
    router.leaderless_since = float("inf")
    world.settle()
    assert sum(client.call.closed for client in clients) == 800


@pytest.mark.parametrize("busy_ranges", [1, 3])
def test_a_busy_range_starves_no_watch_behind_it_on_its_stream(busy_ranges: int) -> None:
    """Its client reads about as fast as these ranges change, somewhat behind."""
    world = World()
    client, store = Client(world), world.store
    busy = [b"busy/%d" % i for i in range(busy_ranges)]
    for key in (*busy, b"quiet"):
        client.create(key)
    world.settle()
    client.call.reads = False

    def change(count: int) -> None:
        for _ in range(count):
            for key in busy:
                store.revision += 1
                value = key_value(key, store.revision, store.revision, 1, bytes(65_536 // busy_ranges), 0)
                store.events.append((store.revision, PUT, key, value))
                world.settle()

    change(50)  # a third of it fills the backlog, the rest waits
    quiet = world.write((PUT, b"quiet"))
    rounds = 0
    while not client.events(busy_ranges):
        rounds += 1
        client.call.unread = 0
        assert client.call.on_drain is not None
        client.call.on_drain()
        change(17)
    assert rounds <= busy_ranges + 1
    client.call.read_all()
    assert client.events(busy_ranges) == [(quiet, PUT, b"quiet")]
    for watch_id, key in enumerate(busy):
        assert client.events(watch_id) == [(r, PUT, key) for r, _, k, _ in store.events if k == key]
