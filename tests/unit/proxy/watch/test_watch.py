"""Watches, by etcd's rules (contract section 2), through the real hub, router and frames."""

from __future__ import annotations

import pytest

from cluster import errors
from cluster.wire.messages import Method
from proxy.watch.lagging.ring import Ring
from tests.unit.proxy.watch.watching import Client, World

PUT, DELETE = 0, 1


def test_a_watch_is_told_that_it_was_created_and_then_gets_what_is_written() -> None:
    world = World()
    world.write((PUT, b"a"))
    client = Client(world)
    client.create(b"a")
    world.settle()
    world.write((PUT, b"b"))
    world.write((PUT, b"a"))
    world.write((DELETE, b"a"))
    created, put, delete = client.responses()
    assert created.created
    assert created.watch_id == 0
    assert created.header.revision == 2
    assert (put.header.revision, put.events[0].type, put.events[0].kv.key) == (4, PUT, b"a")
    assert (delete.header.revision, delete.events[0].type, delete.events[0].kv.mod_revision) == (5, DELETE, 5)
    counted = world.net.context.method("bidi_stream", "etcdserverpb.Watch", "Watch")
    assert (counted.received, counted.sent) == (1, 3)


def test_a_watch_from_an_old_revision_gets_the_past_once_and_then_the_present() -> None:
    world = World()
    for _ in range(10):
        world.write((PUT, b"k"))
    client = Client(world)
    client.create(b"k", start=3)
    world.settle()
    world.write((PUT, b"k"))
    assert [e[0] for e in client.events()] == list(range(3, 13))
    assert all(
        r.header.revision == 11 for r in client.responses() if r.events and r.events[0].kv.mod_revision < 12
    )


def test_watches_of_revisions_to_come_begin_where_they_asked_whatever_one_record_brings() -> None:
    world = World()
    client, other = Client(world), Client(world)
    starts = [2_000, 100, 5, 1_500, 5, 1_200, 1_201, 1_199]
    for start in starts:
        client.create(b"k", start=start)
    for i in range(1_200):  # each lets the record be cut, and gets none of it
        other.create(b"k", start=1_210 - i, filters=[0, 1])
    for _ in range(100):
        client.cancel(5_000)
        client.create(b"k", start=1_199, watch_id=5_000)
    world.settle()
    for _ in range(1_500):
        world.store.write((PUT, b"k"))
    world.sources[1].at_once = lambda: 1_500
    world.settle()
    last = world.store.revision
    for number, start in enumerate(starts):
        assert [e[0] for e in client.events(number)] == list(range(start, last + 1))
    assert [e[0] for e in client.events(5_000)] == list(range(1_199, last + 1))
    assert len(other.responses()) == 1_200


def test_events_applied_while_history_is_read_are_not_lost_or_repeated() -> None:
    world = World()
    for _ in range(5):
        world.write((PUT, b"k"))
    client = Client(world)
    client.create(b"k", start=2)
    world.net.run()
    source = world.sources[1]
    source.serve()  # history is read up to revision 6 ...
    world.store.write((PUT, b"k"))
    source.apply(7)  # ... and revision 7 is emitted before the answer leaves
    source.send_late()
    world.settle()
    world.write((PUT, b"k"))
    assert [e[0] for e in client.events()] == [2, 3, 4, 5, 6, 7, 8]


def test_r0_what_this_front_has_answered_is_in_the_past_of_a_new_watch() -> None:
    world = World()
    world.store.write((PUT, b"k"))
    world.net.router.highest = 2  # a put was answered by the leader; the own node has not applied it yet
    client = Client(world)
    client.create(b"k")
    world.settle()
    world.write((PUT, b"k"))
    assert [e[0] for e in client.events()] == [3]


def test_a_header_says_no_more_than_the_watch_has() -> None:
    """Clients and proxies continue behind it. Created says what this front has answered."""
    world = World()
    for _ in range(4):
        world.write((PUT, b"k"))
    world.net.router.highest = world.store.write((PUT, b"k"))  # the own node has not applied it yet
    client = Client(world)
    client.create(b"k", start=2)
    world.settle(apply=False)
    assert [(r.header.revision, len(r.events)) for r in client.responses()] == [(6, 0), (5, 4)]


def test_a_node_that_is_ahead_of_what_the_front_knows_leaves_no_gap() -> None:
    world = World()
    world.net.nodes[1].revision = world.store.revision
    client = Client(world)
    client.create(b"k")  # R0 = 1
    world.store.write((PUT, b"k"))
    world.sources[1].node.revision = 2  # applied before the SUBSCRIBE is served, nothing emitted to anybody
    world.settle()
    assert [e[0] for e in client.events()] == [2]


def test_a_watch_from_the_future_gets_nothing_before_its_start() -> None:
    world = World()
    client = Client(world)
    client.create(b"k", start=4)
    for _ in range(4):
        world.write((PUT, b"k"))
    assert [e[0] for e in client.events()] == [4, 5]


def test_a_watch_from_a_compacted_revision_is_created_and_then_ends_with_the_compact_revision() -> None:
    world = World()
    for _ in range(6):
        world.write((PUT, b"k"))
    world.store.compacted = 5
    client = Client(world)
    client.create(b"k", start=3)
    client.create(b"k", start=5)
    world.settle()
    created, other, ended, *_ = client.responses()
    assert created.created
    assert not created.canceled
    assert other.watch_id == 1
    assert ended.canceled
    assert ended.compact_revision == 5
    assert ended.header.revision == 0
    assert ended.cancel_reason == ""
    assert [e[0] for e in client.events(1)] == [5, 6, 7]


def test_a_watch_that_a_compaction_ended_is_cancelled_once_more_if_its_client_says_so() -> None:
    world = World()
    for _ in range(6):
        world.write((PUT, b"k"))
    world.store.compacted = 5
    client = Client(world)
    client.create(b"k", start=3)
    world.settle()
    ended = len(client.responses())
    for _ in range(2):
        client.cancel(0)
    (answer,) = client.responses()[ended:]
    assert (answer.watch_id, answer.canceled, answer.compact_revision) == (0, True, 0)
    assert answer.header.revision == 7


def test_a_watch_below_a_compaction_that_this_front_knows_waits_for_a_replica_that_is_behind() -> None:
    """It gets none of that past. A compaction that was refused may be below the last one: only the replica
    knows which revision the client is told (I24)."""
    world = World()
    for _ in range(6):
        world.write((PUT, b"k"))
    world.net.router.show_compaction(5)  # the replica still has all of it
    client = Client(world)
    client.create(b"k", start=3)
    client.create(b"k", start=5)
    world.settle()
    responses = client.responses()
    assert not any(r.canceled for r in responses)
    assert [(r.watch_id, e.kv.mod_revision) for r in responses for e in r.events] == [(1, 5), (1, 6), (1, 7)]
    for compacted, ends in ((4, []), (6, [(0, True, 6)])):
        world.store.compacted = compacted
        world.net.context.hub.tick(world.net.loop.now)
        world.settle()
        ended = client.responses()[len(responses):]
        assert [(r.watch_id, r.canceled, r.compact_revision) for r in ended] == ends


def test_a_negative_start_an_empty_range_and_a_used_id_are_rejected_and_the_stream_stays() -> None:
    world = World()
    client = Client(world)
    client.create(b"k", start=-1)
    client.create(b"b", b"a")
    client.create(b"k", watch_id=7)
    client.create(b"k", watch_id=7)
    negative, empty, created, duplicate = client.responses()
    for rejected in (negative, empty, duplicate):
        assert rejected.created
        assert rejected.canceled
        assert rejected.watch_id == -1
        assert rejected.header.revision == 1
    assert negative.cancel_reason == "etcdserver: mvcc: required revision has been compacted"
    assert empty.cancel_reason == "mvcc: watcher range is empty"
    assert duplicate.cancel_reason == "mvcc: duplicate watch ID provided on the WatchStream"
    assert created.watch_id == 7
    assert created.created
    assert not created.canceled
    world.settle()
    world.write((PUT, b"k"))
    assert len(client.events(7)) == 1


def test_ids_are_the_smallest_free_counter() -> None:
    world = World()
    client = Client(world)
    client.create(b"k", watch_id=1)
    for _ in range(3):
        client.create(b"k")
    assert [r.watch_id for r in client.responses()] == [1, 0, 2, 3]


def test_an_empty_key_watches_from_the_beginning_and_zero_end_to_the_end() -> None:
    world = World()
    client = Client(world)
    client.create(b"", b"\0")
    world.settle()
    world.write((PUT, b"a"), (PUT, b"\xff\xff"))
    assert len(client.events()) == 2


def test_a_cancelled_watch_says_so_once_and_gets_nothing_more() -> None:
    world = World()
    client = Client(world)
    client.create(b"k")
    world.settle()
    client.cancel(0)
    client.cancel(0)
    client.cancel(99)
    world.settle()
    world.write((PUT, b"k"))
    _, canceled = client.responses()
    assert canceled.canceled
    assert canceled.watch_id == 0
    assert not canceled.cancel_reason
    assert not world.net.context.hub.subscriptions
    assert not world.sources[1].subs


def test_filters_drop_puts_or_deletes_and_empty_responses_are_not_sent() -> None:
    world = World()
    client = Client(world)
    client.create(b"a", b"z", filters=[0])
    client.create(b"a", b"z", filters=[1])
    client.create(b"a", b"z", filters=[0, 1])
    world.settle()
    world.write((PUT, b"k"), (DELETE, b"l"))
    world.write((PUT, b"k"))
    assert [(r, k) for r, k, _ in client.events(0)] == [(2, DELETE)]
    assert [(r, k) for r, k, _ in client.events(1)] == [(2, PUT), (3, PUT)]
    assert client.events(2) == []
    assert len([r for r in client.responses() if r.watch_id == 0 and not r.created]) == 1


def test_filters_may_be_repeated_but_not_without_end() -> None:
    """Two million are 2 kB with gzip: the loop stood still for 0.3 s while they were gone over."""
    world = World()
    client = Client(world)
    client.create(b"k", filters=[0] * 255 + [1])
    client.create(b"k", filters=[0] * 257)
    world.settle()
    world.write((PUT, b"k"), (DELETE, b"l"))
    both, refused = client.responses()
    assert both.created
    assert not both.canceled
    assert refused.created
    assert refused.canceled
    assert refused.watch_id == -1
    assert refused.cancel_reason == "etcdserver: request is too large"
    assert client.events(both.watch_id) == []


def test_a_thousand_watches_of_a_range_are_one_subscription() -> None:
    world = World()
    clients = [Client(world) for _ in range(10)]
    for client in clients:
        for _ in range(100):
            client.create(b"a", b"b")
    world.settle()
    assert len(world.sources[1].subs) == 1
    world.write((PUT, b"ab"))
    assert all(len(c.events(i)) == 1 for c in clients for i in range(100))
    for client in clients:
        client.leave()
    world.settle()
    assert not world.sources[1].subs
    assert world.net.context.hub.statistics()["watches"] == 0


def test_prev_kv_is_a_subscription_of_its_own() -> None:
    world = World()
    client = Client(world)
    client.create(b"k")
    client.create(b"k", prev_kv=True)
    world.settle()
    assert len(world.sources[1].subs) == 2


def test_i16_a_revision_arrives_whole_and_in_one_response() -> None:
    world = World()
    client = Client(world)
    client.create(b"a", b"z")
    world.settle()
    world.write((PUT, b"k"), (DELETE, b"c"), (PUT, b"d"))
    _, response = client.responses()
    assert [e.kv.key for e in response.events] == [b"k", b"c", b"d"]


def test_a_slow_client_is_bounded_catches_up_from_history_and_holds_nobody_back() -> None:
    world = World()
    slow, fast = Client(world), Client(world)
    slow.create(b"k")
    fast.create(b"k")
    world.settle()
    slow.call.reads = False
    slow.call.unread = 2 << 20
    for _ in range(50):
        world.write((PUT, b"k"))
    assert len(fast.events()) == 50
    assert len(slow.events()) <= 1
    statistics = world.net.context.hub.statistics()
    assert (statistics["slow"], statistics["held_events"]) == (1, 50 - len(slow.events()))
    slow.call.read_all()
    world.settle()
    assert [e[0] for e in slow.events()] == list(range(2, 52))
    world.write((PUT, b"k"))
    assert slow.events()[-1][0] == 52
    statistics = world.net.context.hub.statistics()
    assert (statistics["slow"], statistics["held_events"]) == (0, 0)


def test_a_slow_client_far_behind_reads_history_when_the_ring_is_too_short() -> None:
    world = World()
    client = Client(world)
    client.create(b"k")
    world.settle()
    client.call.reads = False
    client.call.unread = 2 << 20
    world.write((PUT, b"k"))
    (subscription,) = world.net.context.hub.subscriptions.values()
    for _ in range(30):
        world.write((PUT, b"k"))
    subscription._ring = Ring(world.store.revision + 1)  # as if the bound had dropped them
    client.call.read_all()
    world.settle()
    assert [e[0] for e in client.events()] == list(range(2, 33))


def test_the_ring_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.watch.lagging.ring._RING_BYTES", 500)
    world = World()
    client = Client(world)
    client.create(b"k")
    world.settle()
    client.call.reads = False
    client.call.unread = 2 << 20
    (subscription,) = world.net.context.hub.subscriptions.values()
    for _ in range(100):
        world.write((PUT, b"k"))
        assert subscription._ring is None or subscription._ring.size_bytes <= 500
    client.call.read_all()
    world.settle()
    assert [e[0] for e in client.events()] == list(range(2, 102))


def test_the_rings_of_all_ranges_are_bounded_together() -> None:
    """A client that watched a thousand ranges of the same keys, and read nothing, took four gigabytes."""
    world = World()
    slow, fast = Client(world), Client(world)
    ends = [b"k%02d" % number for number in range(40)]
    for end in ends:
        slow.create(b"a", end)
    fast.create(b"a", b"z")
    world.settle()
    for client in (slow, fast):
        client.call.reads = False
        client.call.unread = 2 << 20
    rings = world.net.context.hub.rings
    rings.limit_bytes = 20_000
    most = 0
    for _ in range(100):
        world.write((PUT, b"b"))
        most = max(most, rings.held_bytes)
        held = [s._ring.size_bytes for s in world.net.context.hub.subscriptions.values() if s._ring]
        assert sum(held) == rings.held_bytes <= rings.limit_bytes
    assert most > rings.limit_bytes // 2
    for client in (slow, fast):
        client.call.read_all()
    world.settle()
    assert rings.held_bytes == 0
    for watch_id in range(len(ends)):
        assert [e[0] for e in slow.events(watch_id)] == list(range(2, 102))
    assert [e[0] for e in fast.events()] == list(range(2, 102))


def test_fragments_split_a_large_revision_between_events_only() -> None:
    world = World()
    world.net.context.hub.fragment_bytes = 100
    client = Client(world)
    client.create(b"a", b"z", fragment=True)
    client.create(b"a", b"z")
    world.settle()
    world.write(*[(PUT, b"k%02d" % i) for i in range(20)])
    parts = [r for r in client.responses() if r.watch_id == 0 and r.events]
    assert len(parts) > 1
    assert [p.fragment for p in parts] == [True] * (len(parts) - 1) + [False]
    assert sum(len(p.events) for p in parts) == 20
    assert all(p.ByteSize() < 100 for p in parts)
    (whole,) = [r for r in client.responses() if r.watch_id == 1 and r.events]
    assert len(whole.events) == 20
    assert not whole.fragment


def test_a_stream_that_asks_for_a_leader_is_refused_without_one_and_ended_after_three_timeouts() -> None:
    world = World()
    client = Client(world, {b"hasleader": b"true"})
    client.create(b"k")
    plain = Client(world)
    plain.create(b"k")
    world.settle()
    for node in world.net.nodes.values():
        node.leader = 0
    world.net.pass_time(2.5)
    assert not client.call.closed
    world.net.pass_time(1.0)
    assert client.call.status == (14, "etcdserver: no leader")
    assert not plain.call.closed
    refused = Client(world, {b"hasleader": b"true"})
    assert refused.call.status == (14, "etcdserver: no leader")


def test_watches_made_before_any_node_was_heard_begin_once_one_is() -> None:
    world = World()
    fresh = World.__new__(World)
    fresh.__dict__.update(world.__dict__)
    for link in list(world.net.router.routes[0].links.values()):
        link.close("gone")
    world.net.router.highest = 0
    world.net.router.routes[0].replica = None
    client = Client(world)
    client.create(b"k")
    client.cancel(0)
    assert client.responses() == []
    world.net.pass_time(1.0)
    created, canceled = client.responses()
    assert created.created
    assert canceled.canceled


@pytest.mark.parametrize(
    ("requests", "key"),
    [(20_700, bytes(44) + b"k"), (11, bytes(100_000) + b"k")],  # a window, and what is read before
    ids=["many", "large"],
)
def test_what_waits_for_a_node_is_bounded(requests: int, key: bytes) -> None:
    world = World()
    for link in list(world.net.router.routes[0].links.values()):
        link.close("gone")
    world.net.router.highest = 0
    world.net.router.routes[0].replica = None
    client = Client(world)
    for _ in range(requests):
        client.create(key)
    assert client.call.status is None
    assert client.call.paused, "a client that minds its window sends no more"
    for _ in range(20_000):
        if client.call.status is None:
            client.create(key)
    assert client.call.status == (errors.TOO_MANY_REQUESTS.code, "etcdserver: too many requests")
    assert not world.net.context.hub.streams


def test_half_closed_streams_go_on() -> None:
    world = World()
    client = Client(world)
    client.create(b"k")
    world.settle()
    world.service.half_closed(client.call)
    world.write((PUT, b"k"))
    assert len(client.events()) == 1


def test_history_that_nobody_could_answer_for_long_is_asked_again() -> None:
    world = World()
    for number in range(12):
        world.write((PUT, b"%d" % (number % 6)))
    clients = [Client(world) for _ in range(6)]
    for number, client in enumerate(clients):
        client.create(b"%d" % number, start=2)
    for member in world.sources:
        world.cut(member)
    world.net.pass_time(20)  # beyond the time limit of a question, several times
    for member in world.sources:
        world.restart(member)
    world.settle()
    for number, client in enumerate(clients):
        assert [e[0] for e in client.events()] == [number + 2, number + 8]


def test_history_questions_are_bounded() -> None:
    world = World()
    for _ in range(3):
        world.write((PUT, b"k"))
    client = Client(world)
    for i in range(40):
        client.create(b"k%d" % i, start=1)
    world.net.run()
    assert sum(r.method == Method.HISTORY for r in world.net.nodes[1].requests) <= 4
    world.settle()
    assert world.net.context.hub.statistics()["slow"] == 0
