"""A watch's past is one answer where there is room, and is exact where there is not. The nodes here bring it
in slices of three events."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.watch.lagging import gathered
from tests.unit.proxy.watch.watching import Client, World

PUT = 0
LAST = 21  # the revision of the last of twenty puts


def past(shards: int = 1) -> World:
    """A world in which every key of b"k0" to b"k3" was put five times, in turn."""
    world = World(shards=shards)
    for number in range(20):
        world.write((PUT, b"k%d" % (number % 4)))
    return world


def told(client: Client) -> list[list[int]]:
    """The revisions in each answer that has events."""
    return [[e.kv.mod_revision for e in r.events] for r in client.responses() if r.events]


def watching(world: World, **fields: Any) -> Client:
    client = Client(world)
    client.create(b"k", b"l", start=2, **fields)
    return client


@pytest.mark.parametrize("shards", [1, 3])
def test_the_past_comes_in_one_answer_at_the_revision_of_the_last_slice(shards: int) -> None:
    world = past(shards)
    client = watching(world)
    world.settle()
    assert told(client) == [list(range(2, LAST + 1))]
    assert client.responses()[-1].header.revision == LAST
    world.write((PUT, b"k"))
    assert told(client)[1:] == [[LAST + 1]]


def test_an_answer_has_so_many_events_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "MOST_EVENTS", 6)
    world = past()
    client = watching(world)
    world.settle()
    assert list(map(len, told(client))) == [6, 6, 6, 2]
    assert [e[0] for e in client.events()] == list(range(2, LAST + 1))


@pytest.mark.parametrize("most", range(1, 8))
@pytest.mark.parametrize("shards", [1, 3])
def test_a_slice_is_cut_where_an_answer_is_full(
    most: int, shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of 999 events took another slice whole. A revision stays whole."""
    monkeypatch.setattr(gathered, "MOST_EVENTS", most)
    world = past(shards)
    world.write(*((PUT, b"k%d" % number) for number in range(5)))
    client = watching(world)
    world.settle()
    *before, last = told(client)
    assert [revision for one in before for revision in one] + last == [*range(2, LAST + 1), *[LAST + 1] * 5]
    assert all(len(one) <= most for one in before)
    assert len(set(last)) == 1 or len(last) <= most


def test_an_answer_has_so_many_bytes_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    world = past()
    world.net.context.hub.fragment_bytes = 150  # what a slice is taken to bring at most
    monkeypatch.setattr(gathered, "MOST_BYTES", 300)
    client = watching(world)
    world.settle()
    assert [e[0] for e in client.events()] == list(range(2, LAST + 1))
    answers = [len(r) for r in client.call.replies[1:]]
    assert 2 < len(answers) < 7
    assert all(size < 300 for size in answers)


def test_what_is_gathered_is_counted_as_its_clients_until_it_is_sent() -> None:
    world = past()
    client = watching(world)
    held = set()
    gather = client.call.gather

    def noted(size: int) -> None:
        gather(size)
        held.add(client.call.gathered)

    client.call.gather = noted  # type: ignore[method-assign]
    world.settle()
    assert len(held) > 5, "slice by slice"
    assert min(held) == client.call.gathered == 0


@pytest.mark.parametrize("wanting", ["room_to_gather", "large_answers"])
def test_who_has_no_room_gets_slice_by_slice(wanting: str) -> None:
    world = past()
    client = watching(world)
    setattr(client.call, wanting, False)
    world.settle()
    assert [len(some) for some in told(client)] == [3] * 6 + [2]
    assert client.call.gathered == 0


def slices(world: World, count: int) -> None:
    """So many of a history are read."""
    source = world.sources[1]
    for _ in range(count):
        world.net.run()
        source.serve()
        source.send_late()
        world.net.run()


def test_a_client_that_takes_nothing_gets_what_is_there_and_goes_on_later() -> None:
    world = past()
    client = watching(world)
    slices(world, 2)
    assert not told(client)
    (stream,) = world.net.context.hub.streams
    stream.blocked = stream.wary = True
    client.call.unread = 2 << 20
    world.settle()
    assert told(client) == [list(range(2, 11))]
    client.call.read_all()
    world.settle()
    assert told(client)[1:] == [list(range(11, LAST + 1))]


def test_what_came_before_a_compaction_is_told_and_then_the_watch_ends() -> None:
    world = past()
    client = watching(world)
    slices(world, 3)
    world.store.compacted = 15
    world.settle()
    assert told(client) == [list(range(2, 11))]
    last = client.responses()[-1]
    assert (last.canceled, last.compact_revision) == (True, 15)
    assert client.call.gathered == 0


def test_what_came_before_a_node_was_lost_is_told_and_the_rest_follows_once() -> None:
    world = past()
    client = watching(world)
    slices(world, 3)
    for member in world.sources:
        world.cut(member)
    world.net.pass_time(20)  # beyond the time limit of a question
    assert told(client) == [list(range(2, 11))]
    for member in world.sources:
        world.restart(member)
    world.settle()
    assert [e[0] for e in client.events()] == list(range(2, LAST + 1))


def test_a_watch_that_ends_meanwhile_leaves_nothing_behind() -> None:
    world = past()
    client = watching(world)
    slices(world, 3)
    held = client.call.gathered
    assert held > 0
    client.cancel(0)
    world.settle()
    assert not told(client)
    assert client.call.gathered == 0


def test_fragments_are_of_the_whole_answer_and_only_the_last_says_so() -> None:
    world = past()
    world.net.context.hub.fragment_bytes = 100
    client = watching(world, fragment=True)
    world.settle()
    parts = [r for r in client.responses() if r.events]
    assert [p.fragment for p in parts] == [True] * (len(parts) - 1) + [False]
    assert len(parts) > 3
    assert [e[0] for e in client.events()] == list(range(2, LAST + 1))
    assert all(p.ByteSize() <= 100 for p in parts)


def test_a_large_answer_goes_to_no_more_watches_than_their_client_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy.watch.cohort.DIRECT_BYTES", 100)  # beyond it an answer is large
    monkeypatch.setattr("proxy.watch.lagging.ring._RING_BYTES", 0)
    world = World()
    client = Client(world)
    for _ in range(3):
        client.create(b"k", b"l")
    world.settle()
    (stream,) = world.net.context.hub.streams
    stream.blocked = stream.wary = True
    client.call.unread = 2 << 20
    for number in range(20):
        world.write((PUT, b"k%d" % number))
    monkeypatch.setattr(client.call, "backlog_bytes", lambda: 0)
    rounds: list[int] = []
    while not rounds or rounds[-1] < 3:
        client.call.read_all()
        client.call.reads = False  # what comes next waits for it
        world.settle()
        rounds.append(len(told(client)))
        assert len(rounds) < 4, "somebody is told each time"
    assert rounds[0] < 3
    assert told(client) == [list(range(2, LAST + 1))] * 3
    assert [len(client.events(watch)) for watch in range(3)] == [20, 20, 20]
