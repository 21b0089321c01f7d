"""Watches whose link, node or history is lost for a time: no event is lost, none repeated."""

from __future__ import annotations

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.wire.messages import Status
from tests.unit.proxy.watch.watching import Client, World

PUT, DELETE = 0, 1


def test_a_lost_link_costs_no_event_and_repeats_none() -> None:
    world = World()
    client = Client(world)
    client.create(b"k")
    world.settle()
    world.write((PUT, b"k"))
    world.cut(1)
    for _ in range(3):
        world.store.write((PUT, b"k"))
    world.net.pass_time(1.0)
    world.settle()
    world.write((PUT, b"k"))
    assert [e[0] for e in client.events()] == [2, 3, 4, 5, 6]


def test_watches_go_home_to_the_own_node_and_a_node_that_replays_old_records_repeats_nothing() -> None:
    world = World()
    client = Client(world)
    client.create(b"k")
    world.settle()
    world.write((PUT, b"k"))
    world.cut(1)
    world.net.pass_time(1.0)
    world.settle()
    world.write((PUT, b"k"))
    world.restart(1, revision=1)  # it restarts at revision 1 and applies its log anew
    world.settle()
    world.write((PUT, b"k"))
    assert len(world.sources[1].subs) == 1
    assert len(world.sources[2].subs) == 0
    assert [e[0] for e in client.events()] == [2, 3, 4]


def where(world: World) -> set[int]:
    """The hosts whose nodes the front takes events from."""
    return {part.link.member_id if part.link is not None else 0
            for subscription in world.net.context.hub.subscriptions.values() for part in subscription.parts}


def test_watches_go_home_also_if_the_own_node_does_not_know_a_leader_when_it_comes_back() -> None:
    world = World(shards=2)
    client = Client(world)
    client.create(b"\0", b"\0")
    world.settle()
    assert where(world) == {1}
    for shard in (0, 1):
        world.cut(1, shard)
        world.net.every[shard, 1].leader = 0  # it has just been started
        world.restart(1, shard=shard)
    world.net.pass_time(5.0)
    world.write((0, b"a"), (0, b"b"))
    assert where(world) == {2}
    for shard in (0, 1):
        world.net.every[shard, 1].leader = 2
    world.net.pass_time(0.3)
    world.settle()
    assert where(world) == {1}
    world.write((0, b"a"))
    assert client.events() == [(2, 0, b"a"), (2, 0, b"b"), (3, 0, b"a")]


def test_a_node_that_is_cut_off_from_its_group_holds_up_the_hosts_watches_for_two_election_timeouts() -> None:
    world = World(shards=2)
    client = Client(world)
    client.create(b"\0", b"\0")
    world.settle()
    cut_off = world.every[1, 1]
    cut_off.node.leader = 0
    for n in range(3):
        world.store.write((0, b"%d" % n))
        for source in world.every.values():
            if source is not cut_off:
                source.apply(world.store.revision)
    world.net.pass_time(1.0)
    assert where(world) == {1}, "an election is no reason to go elsewhere"
    assert client.events() == []
    world.net.pass_time(1.5)
    for _ in range(5):
        for source in world.every.values():
            source.serve()
            source.send_late()
        world.net.run()
    assert where(world) == {1, 2}
    assert client.events() == [(2, 0, b"0"), (3, 0, b"1"), (4, 0, b"2")]
    cut_off.node.leader = 2
    world.net.pass_time(0.3)
    world.settle()
    assert where(world) == {1}
    world.write((0, b"0"), (0, b"1"))
    assert [revision for revision, _, _ in client.events()] == [2, 3, 4, 5, 5]


def test_h8_a_snapshot_installed_at_the_node_is_a_gap_that_history_fills() -> None:
    world = World()
    client = Client(world)
    client.create(b"k")
    world.settle()
    for _ in range(5):
        world.store.write((PUT, b"k"))
    world.sources[1].install(6)
    world.settle()
    world.write((PUT, b"k"))
    assert [e[0] for e in client.events()] == [2, 3, 4, 5, 6, 7]


def test_a_gap_that_was_compacted_ends_the_watches_that_need_it() -> None:
    world = World()
    client = Client(world)
    client.create(b"k")
    client.create(b"k", start=50)
    world.settle()
    for _ in range(10):
        world.store.write((PUT, b"k"))
    world.store.compacted = 8
    world.sources[1].install(11)
    world.settle()
    ended = [r for r in client.responses() if r.canceled]
    assert [(r.watch_id, r.compact_revision) for r in ended] == [(0, 8)]


def test_i16_a_part_asks_history_once_where_it_stalled_before_its_link_changed() -> None:
    """It asked twice. A compaction between the answers left out the revision after the first one."""
    world = World()
    client = Client(world)
    client.create(b"k")
    world.settle()
    for _ in range(5):
        world.store.write((PUT, b"k"))
    home, other = world.sources[1], world.sources[2]
    other.apply(6)
    home.install(6)
    for _ in range(2):
        world.net.run()
        home.serve()
    refused = EtcdError(errors.TOO_MANY_REQUESTS).encode()
    home.late = [(rid, Status.ERROR, refused) for rid, _, _ in home.late]
    home.send_late()
    world.net.run()
    hub = world.net.context.hub
    assert hub.restless, "the next tick asks again"
    world.cut(1)
    for _ in range(2):
        world.net.run()
        other.serve()
    assert len(other.late) == 1, "its question by the new link"
    world.store.compacted = 4
    hub.tick(world.net.loop.now)
    world.settle()
    assert [e[0] for e in client.events()] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("ring", [False, True], ids=["begins ahead", "has a ring"])
def test_i24_a_watch_from_below_a_compacted_gap_is_told_while_another_shard_is_behind(ring: bool) -> None:
    """It was placed where the slower shard was, and lacked the other shard's events without a word."""
    world = World(shards=2)
    ended, goes_on, late = Client(world), Client(world), Client(world)
    ended.create(b"\0", b"\0")
    goes_on.create(b"\0", b"\0", start=50)
    world.settle()
    for _ in range(10):
        world.store.write(*[(PUT, b"%d" % n) for n in range(4)])
    world.store.compacted = 8
    fast, slow = world.every[0, 1], world.every[1, 1]
    fast.install(11)
    world.settle(apply=False)
    assert [r.compact_revision for r in ended.responses() if r.canceled] == [8]
    slow.apply(3)
    world.net.run()
    if ring:
        late.create(b"\0", b"\0", start=3)  # history is slow to answer
        slow.apply(5)
        world.net.run()
    late.create(b"\0", b"\0", start=5)
    world.settle()
    wanted = [(0, 8), (1, 8)] if ring else [(0, 8)]
    assert [(r.watch_id, r.compact_revision) for r in late.responses() if r.canceled] == wanted
    assert not any(r.canceled for r in goes_on.responses())
    for _ in range(40):
        world.write((PUT, b"0"), (PUT, b"1"))
    assert goes_on.events() == [(n, 0, key) for n in (50, 51) for key in (b"0", b"1")]


@pytest.mark.parametrize(("compacted", "ended"), [(2, []), (3, [(0, 3)])])
def test_a_watch_goes_on_if_what_it_wants_next_is_the_compacted_revision_itself(
    compacted: int, ended: list[tuple[int, int]]
) -> None:
    """As etcd: the state at the compacted revision is still there. One further, and an event is missing."""
    world = World()
    client = Client(world)
    client.create(b"k")
    world.settle()
    for _ in range(3):
        world.store.write((PUT, b"k"))
    world.store.compacted = compacted
    world.sources[1].install(4)
    world.settle()
    assert [(r.watch_id, r.compact_revision) for r in client.responses() if r.canceled] == ended
    assert [e[0] for e in client.events()] == ([] if ended else [2, 3, 4])


def test_an_idle_watch_is_not_ended_by_a_compaction_below_what_it_has_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy.watch.lagging.ring._RING_BYTES", 0)
    world = World()
    client = Client(world)
    client.create(b"quiet")
    world.settle()
    for _ in range(10):
        world.write((PUT, b"other"))
    world.store.compacted = 8
    world.cut(1)
    world.net.pass_time(1.0)
    world.settle()
    (stream,) = world.net.context.hub.streams
    stream.blocked = stream.wary = True
    client.call.unread = 2 << 20
    world.write((PUT, b"quiet"))
    client.call.read_all()
    world.settle()
    assert not any(r.canceled for r in client.responses())
    assert [e[0] for e in client.events()] == [12]
