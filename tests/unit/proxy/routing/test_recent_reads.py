"""Serializable reads never go back at one front, across restarts either (I14, decision 83)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cluster.features.v2.requests import Kind, read_body
from cluster.wire.messages import READ, Method
from proxy.routing.reads import recent
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.routing.router.asking import put, read


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


def test_a_read_whose_client_has_gone_waits_for_no_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    """It kept another's from waiting, and the replica got it as soon as it could answer."""
    monkeypatch.setattr(recent, "_LIMIT", 2)
    net = Net().started(leader=2)
    net.router.highest = 50
    calls = [read(net, serializable=True) for _ in range(2)]
    calls[0].closed = True
    net.pass_time(0.1)
    calls.append(read(net, serializable=True))
    net.pass_time(0.1)
    assert [call.status for call in calls] == [None] * 3
    net.nodes[1].watermark(50)
    net.run()
    assert len(net.nodes[1].take(Method.RANGE)) == 2


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
    net.nodes[1].applied = 9
    net.nodes[1].watermark(50)
    net.nodes[1].say_state()
    net.run()
    for served in net.nodes[1].take(Method.RANGE):
        net.nodes[1].ok(served, 50)
    net.run()
    assert [call.status for call in calls] == [(0, "")] * 2
    read(net, serializable=True)
    net.run()
    assert net.nodes[2].take(Method.READ_INDEX) == []  # once


V2_GET = read_body(Kind.GET, 0, b"")


def lagging(index: int) -> Net:
    """A front that has just learned that the order is at this index: its replica has all keys of version 3,
    but not all that is applied; a read of version 2 waits."""
    net = Net().started(leader=2)
    net.router.recent.knows = False
    net.nodes[1].applied = 5
    net.pass_time(0.3)
    net.router.read(FakeCall(), Method.V2_READ, V2_GET, 0, True, net.router.quiet)
    net.run()
    (question,) = net.nodes[2].take(Method.READ_INDEX)
    net.nodes[2].index(question, index)
    net.run()
    return net


def test_a_read_waits_for_changes_that_take_no_revision() -> None:
    """As those of version 2 and of users: after a restart a key of version 2 was not found."""
    net = lagging(5000)
    assert net.nodes[1].take(Method.V2_READ) == []
    link = net.nodes[1].link
    assert link is not None
    link.near = SimpleNamespace(revision=1, guarded=False, generation=0)  # type: ignore[assignment]
    net.router.get(FakeCall(), b"", b"k", True, 0, net.router.quiet)
    net.run()
    assert net.nodes[1].take(Method.RANGE) == [], "the replica may lack users who guard this key"
    (asked,) = net.nodes[1].take(Method.FACTS)
    assert READ.unpack_from(asked.body) == (5000, 0)
    net.nodes[1].ok(asked)
    net.run()
    assert [request.method for request in net.nodes[1].take()] == [Method.V2_READ, Method.RANGE]
    net.router.read(FakeCall(), Method.V2_READ, V2_GET, 0, True, net.router.quiet)
    net.run()
    assert [request.method for request in net.nodes[1].take()] == [Method.V2_READ]


def test_what_the_replica_says_of_itself_shows_that_it_has_them() -> None:
    net = lagging(5000)
    net.nodes[1].applied = 5000
    net.nodes[1].say_state()
    net.run()
    assert len(net.nodes[1].take(Method.V2_READ)) == 1


def test_a_replica_that_has_applied_all_is_asked_nothing_first() -> None:
    assert [request.method for request in lagging(5).nodes[1].take()] == [Method.V2_READ]


def test_a_replica_that_never_gets_them_is_served_in_the_end() -> None:
    net = lagging(5000)
    net.pass_time(recent.START_S - 1)
    assert net.nodes[1].take(Method.V2_READ) == []
    net.pass_time(1.0)
    assert len(net.nodes[1].take(Method.V2_READ)) == 1


def test_another_replica_is_asked_anew() -> None:
    net = lagging(5000)
    net.cut(1)
    net.nodes[1].up = True
    net.pass_time(0.5)
    assert len(net.nodes[1].take(Method.FACTS)) == 1
    assert net.nodes[1].take(Method.V2_READ) == []


def test_a_read_waits_for_what_was_shown_before_it_came() -> None:
    net = Net(shards=2).started(leader=2)
    for node in net.every.values():
        node.watermark(9)
    net.router.highest = 50
    asked = list[int]()
    read(net, serializable=True)
    net.router.recent.when_caught_up((0, 1), lambda: asked.append(50))
    net.router.highest = 60  # a put is answered meanwhile
    read(net, serializable=True)
    net.router.recent.when_caught_up((0, 1), lambda: asked.append(60))
    net.nodes[1].watermark(50)
    net.run()
    assert len(net.nodes[1].take(Method.RANGE)) == 1
    assert asked == []
    net.every[1, 1].watermark(55)
    net.run()
    assert asked == [50]
    net.nodes[1].watermark(60)
    net.every[1, 1].watermark(60)
    net.run()
    assert len(net.nodes[1].take(Method.RANGE)) == 1
    assert asked == [50, 60]


def test_reads_that_wait_make_a_replica_hurry_once_each_time_the_host_shows_more() -> None:
    net = Net().started(leader=2)
    hurried = list[int]()
    for revision in (50, 60, 60, 70):
        net.router.highest = revision
        read(net, serializable=True)
        net.run()
        hurried += [int.from_bytes(asked.body, "little") for asked in net.nodes[1].take(Method.CATCH_UP)]
    assert hurried == [50, 60, 70]
    net.cut(1)  # another link does not know
    net.nodes[1].up = True
    net.pass_time(0.5)
    assert [asked.body for asked in net.nodes[1].take(Method.CATCH_UP)] == [(70).to_bytes(8, "little")]


def alone(shards: int = 1, **own: int) -> Net:
    """A front that has just started on a host whose peers are away; of its own node 0 as told."""
    net = Net(shards=shards)
    for node in net.every.values():
        node.up = node.member == 1
    for name, value in own.items():
        setattr(net.nodes[1], name, value)
    net.router.recent.knows = False
    net.pass_time(0.1)
    return net


def test_a_front_on_a_host_without_a_majority_goes_by_its_own_node_after_a_moment() -> None:
    net = alone(revision=50)
    read(net, serializable=True)
    net.pass_time(recent.ASK_S - 0.1)
    assert net.nodes[1].take(Method.RANGE) == []  # hosts that start together have elected somebody by then
    net.pass_time(0.2)
    assert len(net.nodes[1].take(Method.RANGE)) == 1
    assert net.router.highest == 50
    read(net, serializable=True)
    net.run()
    assert len(net.nodes[1].take(Method.RANGE)) == 1  # once


def test_where_elections_take_longer_it_waits_longer_for_one() -> None:
    net = alone(revision=50)
    net.router.election_s = 3.0
    read(net, serializable=True)
    net.pass_time(2.8)
    assert net.nodes[1].take(Method.RANGE) == []
    net.pass_time(0.4)
    assert len(net.nodes[1].take(Method.RANGE)) == 1


def test_its_own_node_has_to_apply_first_what_it_had_applied_before_its_start() -> None:
    net = alone(commit=7, applied=3, revision=20)
    read(net, serializable=True)
    net.pass_time(recent.ASK_S + 1)
    assert net.nodes[1].take(Method.RANGE) == []
    net.nodes[1].commit, net.nodes[1].applied, net.nodes[1].revision = 9, 7, 50
    net.pass_time(0.2)
    assert len(net.nodes[1].take(Method.RANGE)) == 1


def test_a_node_that_never_gets_so_far_is_served_in_the_end() -> None:
    net = alone(commit=7, applied=3)
    read(net, serializable=True)
    net.pass_time(recent.START_S - 0.5)
    assert net.nodes[1].take(Method.RANGE) == []
    net.pass_time(1.0)
    assert len(net.nodes[1].take(Method.RANGE)) == 1


def test_another_shards_replica_is_waited_for_as_long_as_it_comes_nearer() -> None:
    net = alone(shards=2, revision=50)
    other = net.every[1, 1]
    net.router.read(FakeCall(), Method.RANGE, b"", 1, True, net.router.quiet)
    for revision in range(10, 50, 10):
        net.pass_time(0.4)
        assert other.take(Method.RANGE) == [], revision
        other.revision = revision
    other.watermark(50)
    net.run()
    assert len(other.take(Method.RANGE)) == 1


def test_one_that_stands_still_without_a_leader_lacks_an_entry_and_is_served() -> None:
    net = alone(shards=2, revision=50)
    other = net.every[1, 1]
    net.router.read(FakeCall(), Method.RANGE, b"", 1, True, net.router.quiet)
    net.pass_time(recent.ASK_S + recent.WAIT_S + 0.3)
    assert len(other.take(Method.RANGE)) == 1


def test_an_answer_that_comes_late_counts_for_the_reads_to_come() -> None:
    net = alone(revision=50)
    read(net, serializable=True)
    net.pass_time(recent.ASK_S + 0.1)
    assert len(net.nodes[1].take(Method.RANGE)) == 1
    net.lead(1, 2)
    (question,) = net.nodes[1].take(Method.READ_INDEX)
    net.nodes[1].index(question, 9, 60)
    net.run()
    assert net.router.highest == 60
    read(net, serializable=True)
    net.run()
    assert net.nodes[1].take(Method.RANGE) == []


def test_a_shard_that_is_dropped_holds_up_nothing() -> None:
    net = alone(shards=2, revision=50)
    asked: list[int] = []
    net.router.recent.when_caught_up((0, 1), lambda: asked.append(1))
    call = FakeCall()
    net.router.read(call, Method.RANGE, b"", 1, True, net.router.quiet)
    assert not asked
    net.router.follow_shards((0,), (0,))
    net.pass_time(recent.ASK_S + recent.WAIT_S + 0.3)
    assert asked
    assert call.status[0], "nobody has what this read names"


def test_reads_of_several_shards_wait_for_a_replica_of_each_as_a_read_of_one_does() -> None:
    net = Net(shards=2).started()
    for node in net.every.values():
        if node.shard:
            net.cut(node.member, 1)
    asked: list[float] = []
    for _ in range(2):
        net.router.recent.when_caught_up((0, 1), lambda: asked.append(net.loop.now))
        net.pass_time(3.0)
    assert asked == []
    net.pass_time(net.router.limit_s - 6.0 + 0.1)
    assert len(asked) == 1, "as long as a request may take"
    net.every[1, 1].up = True
    net.pass_time(0.5)
    assert len(asked) == 2


def test_watermarks_are_not_held_up_by_what_waits_for_a_missing_replica(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = Net(shards=2).started()
    for node in net.every.values():
        if node.shard:
            net.cut(node.member, 1)
    asked, looks = list[int](), list[tuple[int, ...]]()
    caught_up = net.router.recent._caught_up
    for number in range(50):
        net.router.recent.when_caught_up((0, 1), lambda number=number: asked.append(number))  # type: ignore[misc]
    net.pass_time(0.1)

    def look(shards: tuple[int, ...], needed: int) -> bool:
        looks.append(shards)
        return caught_up(shards, needed)

    monkeypatch.setattr(net.router.recent, "_caught_up", look)
    for revision in range(10, 110):
        net.nodes[1].watermark(revision)
        net.run()
    assert len(looks) < 100
    net.every[1, 1].up, net.every[1, 1].revision = True, 110
    net.pass_time(0.5)
    assert asked == list(range(50))


def test_reads_that_wait_for_the_same_missing_replica_cost_a_sweep_one_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = Net(shards=3).started()
    for node in net.every.values():
        if node.shard:
            net.cut(node.member, node.shard)
    reads, asked, looks = net.router.recent, list[int](), list[tuple[int, ...]]()
    for number in range(100):
        shards = (0, 1 + number % 2)
        reads.when_caught_up(shards, lambda number=number: asked.append(number))  # type: ignore[misc]
    net.pass_time(1.0)
    for name in ("_caught_up", "_lacks", "_patient"):
        look = getattr(reads, name)
        monkeypatch.setattr(reads, name, lambda *of, look=look: looks.append(of) or look(*of))
    reads.sweep()
    assert len(looks) <= 2 * 3
    net.every[1, 1].up, net.every[1, 1].revision = True, 110
    net.pass_time(0.5)
    assert asked == list(range(0, 100, 2))
    net.pass_time(net.router.limit_s)
    assert asked == [*range(0, 100, 2), *range(1, 100, 2)]
    looks.clear()
    reads.sweep()
    assert not looks, "nothing is left here"


def test_a_read_that_came_later_does_not_go_before_those_that_lacked_a_replica() -> None:
    net = Net(shards=2).started()
    net.router.highest = 110
    for node in net.every.values():
        if node.shard:
            net.cut(node.member, 1)
    asked = list[int]()
    net.router.recent.when_caught_up((0, 1), lambda: asked.append(1))
    net.pass_time(0.1)
    net.every[1, 1].up = True
    net.router.recent.when_caught_up((0, 1), lambda: asked.append(2))
    net.pass_time(0.4)
    assert asked == []
    net.every[1, 1].watermark(110)
    net.nodes[1].watermark(110)
    net.run()
    assert asked == [1, 2]
