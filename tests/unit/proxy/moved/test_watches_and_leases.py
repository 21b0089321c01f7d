"""What a front does about watches and leases when it hears that keys have moved."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.pb import rpc_pb2 as pb
from cluster.placement.changes import take_compact, take_move, take_shard
from cluster.placement.table import Move, State
from cluster.wire.messages import (
    HEAD,
    READ_INDEX_ANSWER,
    SUBSCRIBE_HEAD,
    Method,
    Status,
)
from proxy.spanning.permissions import may_list_leases
from proxy.watch.permissions import Permissions
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.moved.fronts import KEY, called, grown, moved, served, start_two
from tests.unit.proxy.moved.racing import grown_from_one
from tests.unit.proxy.watch.watching import Client, World


def test_the_keys_of_a_lease_may_come_in_pieces() -> None:
    net = Net()
    start_two(net)
    call = called(net, "LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=7, keys=True))
    net.run()
    (question,) = net.nodes[1].take(Method.LEASE_TTL)
    found = pb.LeaseTimeToLiveResponse(ID=7, TTL=5, keys=[b"a", b"b", b"c"])
    answer = HEAD.pack(5, 1) + found.SerializeToString()
    for at in range(0, len(answer), 10):
        net.nodes[1].answer(question.rid, Status.PARTIAL, answer[at : at + 10])
        net.run()
        assert not call.replies
    net.nodes[1].answer(question.rid, Status.OK, b"")
    net.run()
    assert list(pb.LeaseTimeToLiveResponse.FromString(call.replies[0]).keys) == [b"a", b"b", b"c"]


def test_keys_of_a_lease_that_leave_a_lone_shard_with_the_first_move_are_asked_for() -> None:
    """Its leader had applied the move when it answered: the front had not when it asked."""
    net = Net()
    start_two(net)
    call = called(net, "LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=7, keys=True))
    net.run()
    (question,) = net.nodes[1].take(Method.LEASE_TTL)
    table = moved(grown())
    net.nodes[1].answer(0, Status.PLACEMENT, table.encode())
    net.nodes[1].ok(question, 5, pb.LeaseTimeToLiveResponse(ID=7, TTL=5).SerializeToString())
    net.pass_time(0.3)
    (question,) = net.nodes[1].take(Method.READ_INDEX)
    net.nodes[1].index(question, 0, 5)
    net.pass_time(0.3)
    for shard in (0, 1):
        (request,) = net.every[shard, 1].take(Method.LEASE_KEYS)
        keys = pb.LeaseTimeToLiveResponse(keys=[KEY] if shard else []).SerializeToString()
        net.every[shard, 1].answer(request.rid, Status.OK, HEAD.pack(5, 1) + keys)
    net.run()
    assert list(pb.LeaseTimeToLiveResponse.FromString(call.replies[0]).keys) == [KEY]


def test_g7_whether_a_client_may_watch_is_asked_anew_where_keys_move_before_it_is_sent() -> None:
    """Else a watch would fail, or one whose user lost the permission would go on."""
    order, table, _, _ = served()
    told: list[object] = []
    Permissions(order.net.context.router, ()).send(
        FakeCall(), (KEY, b""), lambda error, _: told.append(error))
    order.net.run()
    zero = order.net.nodes[1]
    (question,) = zero.take(Method.READ_INDEX)
    order.net.context.follow(table)
    zero.answer(question.rid, Status.OK, READ_INDEX_ANSWER.pack(3, 5, 1))
    order.net.run()
    (question,) = zero.take(Method.READ_INDEX)
    zero.answer(question.rid, Status.OK, READ_INDEX_ANSWER.pack(4, 5, 1))
    order.net.run()
    (request,) = (asked for node in order.net.every.values() for asked in node.take(Method.AUTH_SHOW))
    assert not told
    order.net.every[0, 1].ok(request, 5)
    order.net.run()
    assert told == [None]


@pytest.mark.parametrize("running", [(0,), (0, 1, 2)])  # a front that just began knows of one shard
def test_permissions_on_leases_are_asked_of_the_shards_that_own_keys_by_now(
    running: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    order, _, _, _ = served()
    router = order.net.context.router
    monkeypatch.setattr(router.principals, "judged", lambda call: True)
    placement: Any = SimpleNamespace(alone=True, running=running, ids=(0,))  # no key has moved yet
    told: list[None] = []
    may_list_leases(router, FakeCall(), placement, lambda: told.append(None), lambda error: None)
    order.net.run()
    (question,) = order.net.nodes[1].take(Method.READ_INDEX)
    placement.ids = (0, 1, 2)  # keys move to shards that were born; and they may leave shard 0
    order.net.nodes[1].index(question, 3)
    order.net.run()
    for shard in (0, 1, 2):
        (request,) = order.net.every[shard, 1].take(Method.AUTH_SHOW)
        assert not told
        order.net.every[shard, 1].ok(request, 5)
        order.net.run()
    assert told == [None]


def test_keys_of_a_lease_are_asked_of_shard_0_too_once_keys_have_moved() -> None:
    order, table, _, _ = served()
    order.net.context.follow(table)
    call = FakeCall()
    order.methods.handlers["LeaseTimeToLive"](
        call, pb.LeaseTimeToLiveRequest(ID=7, keys=True).SerializeToString())
    order.net.run()
    sequencer = order.net.nodes[1]
    (question,) = sequencer.take(Method.LEASE_TTL)
    sequencer.ok(question, 5, pb.LeaseTimeToLiveResponse(ID=7, TTL=5).SerializeToString())
    order.net.run()
    (question,) = sequencer.take(Method.READ_INDEX)
    sequencer.index(question, 0, 5)
    order.net.run()
    for shard in range(3):
        (request,) = order.net.every[shard, 1].take(Method.LEASE_KEYS)
        keys = pb.LeaseTimeToLiveResponse(keys=[b"k%d" % shard]).SerializeToString()
        order.net.every[shard, 1].answer(request.rid, Status.OK, HEAD.pack(5, 1) + keys)
    order.net.run()
    assert list(pb.LeaseTimeToLiveResponse.FromString(call.replies[0]).keys) == [b"k0", b"k1", b"k2"]


def test_g9_a_watch_from_now_that_begins_before_a_move_has_the_former_owner_too() -> None:
    world = World(shards=3)
    context = world.net.context
    table = moved(context.placement.table, revision=50)
    context.follow(table)  # heard from another host: the own nodes are not there yet
    client = Client(world)
    client.create(KEY)
    world.net.run()
    asked = {
        shard: SUBSCRIBE_HEAD.unpack_from(request.body)[0]
        for (shard, member), node in world.net.every.items() if member == 1
        for request in node.take(Method.SUBSCRIBE)}
    (before,) = table.owners_at(KEY, b"", 50)
    assert asked == {before: 2, table.owner(KEY): 2}


def test_g9_a_front_that_missed_a_move_ends_watches_below_the_pruning() -> None:
    world = World(shards=3)
    world.write((0, KEY))
    client = Client(world)
    client.create(KEY)
    world.settle()
    table = take_compact(moved(world.net.context.placement.table, revision=50), 60)
    world.net.context.follow(moved(table, revision=70))
    world.net.run()
    (ended,) = [response for response in client.responses() if response.canceled]
    assert ended.compact_revision == 60
    assert not world.net.context.hub.subscriptions


def test_g9_an_idle_watch_over_several_shards_that_missed_a_move_is_as_far_as_their_watermarks() -> None:
    """It has emitted nothing: how far its shards are is looked at first."""
    world = World(shards=3)
    client = Client(world)
    client.create(b"quiet", b"quieu")
    world.settle()
    for _ in range(8):
        world.write((0, KEY))
    revision = world.store.revision
    table = take_compact(moved(world.net.context.placement.table, revision=3), revision + 1)
    world.net.context.follow(moved(table, revision=revision))
    world.settle()
    assert not [response for response in client.responses() if response.canceled]
    world.write((0, b"quiet/1"))
    assert [key for _, _, key in client.events()] == [b"quiet/1"]


def test_g9_a_watch_whose_shard_is_behind_a_compaction_goes_on_if_its_front_missed_no_move() -> None:
    world = World(shards=3)
    context = world.net.context
    client = Client(world)
    client.create(KEY)
    world.settle()
    table = moved(context.placement.table, revision=50)
    context.follow(table)
    world.settle()
    context.follow(take_compact(table, 60))  # heard from another host: the own nodes are not there yet
    world.settle()
    world.write((0, KEY))
    assert not [response for response in client.responses() if response.canceled]
    assert [key for _, _, key in client.events()] == [KEY]


@pytest.mark.parametrize("moving", [False, True])
def test_g9_a_watch_ends_that_lacks_events_of_a_shard_that_is_dropped(moving: bool) -> None:
    """Its host was behind, and its front heard from another one. It waited for that shard for ever.
    ``moving``: the front hears at once that the next move has begun."""
    world = World(shards=3)
    context, table = world.net.context, grown_from_one()
    table = take_compact(moved(table, revision=1), 2)
    context.follow(table)
    client = Client(world)
    client.create(KEY)
    world.settle()
    (source,) = table.owners(KEY, b"")
    for _ in range(4):
        world.store.write((0, KEY))
    table = take_shard(moved(table, revision=5), source, State.RETIRING, 0, ())
    context.follow(table)
    context.follow(take_compact(table, 6))
    world.net.run()
    assert not [response for response in client.responses() if response.canceled], "its events may come yet"
    table = take_shard(take_compact(table, 6), source, State.DROPPED, 0, ())
    if moving:
        table = take_move(table, Move(table.last_move + 1, b"z", b"zz", (0,), 2), 6)
    context.follow(table)
    world.net.run()
    (ended,) = [response for response in client.responses() if response.canceled]
    assert ended.compact_revision == 6
    client.create(KEY, start=7)
    world.settle()
    assert [part.shard for watched in context.hub.subscriptions.values() for part in watched.parts] == [2]
