"""G9: the races of ``test_watch_races`` while the watched keys move between shards."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.placement import Table
from cluster.placement.base import Base
from cluster.placement.changes import Moved, take_compact, take_move, take_moved, take_shard
from cluster.placement.table import END, Move, State
from cluster.wire.messages import Status
from proxy.watch.hub import WatchHub
from proxy.watch.lagging.ring import Rings
from proxy.watch.subscription import Room, Subscription
from tests.unit.proxy.watch.test_merge import Recorder
from tests.unit.proxy.watch.test_watch_races import KEYS, Race
from tests.unit.proxy.watch.watching import Client, Source, World

SHARDS = 3
BOUNDS = [b"\0", *KEYS, b"b\0"]


class MovingRace(Race):
    def __init__(self, random: Random) -> None:
        super().__init__(random, SHARDS)
        self.table = Table.initial(Base(SHARDS, 2))
        self.tables: list[tuple[int, Table]] = []  # each with the revision up to which it was another one
        self.moves = 0
        for source in self.world.every.values():
            self.prepare(source)

    def prepare(self, source: Source) -> None:
        node = source.node
        says = node.say_state

        def tell(upto: int) -> None:
            known = [table for since, table in self.tables if since < upto]
            if known:
                node.answer(0, Status.PLACEMENT, known[-1].encode())

        def say_state() -> None:
            says()
            tell(node.revision)

        source.owns = lambda key, revision: self.table.owners_at(  # type: ignore[method-assign]
            key, b"", revision) == (node.shard,)
        source.tell = tell  # type: ignore[method-assign]
        node.say_state = say_state  # type: ignore[method-assign]

    def step(self) -> None:
        if self.random.random() < 0.1:
            any(self.move() for _ in range(10))
        else:
            super().step()

    def move(self) -> bool:
        random, revision = self.random, self.world.store.revision
        start = random.choice(BOUNDS)
        end = random.choice([*BOUNDS, END, start + b"\0"])
        if end != END and end <= start:
            return False
        owners = self.table.owners(start, b"" if end == start + b"\0" else end)
        move = Move(self.table.last_move + 1, start, end, owners, random.randrange(SHARDS))
        try:
            begun = take_move(self.table, move, revision)
        except AssertionError:
            return False  # G11
        self.table = take_moved(begun, Moved(move.number, True, revision, 0), revision)
        self.tables.append((revision, self.table))
        self.moves += 1
        # those that stand there may hear of it at once
        for source in self.world.every.values():
            if source.node.alive and source.node.revision == revision and random.random() < 0.5:
                source.tell(revision + 1)
        return True


def run(seed: int) -> MovingRace:
    race = MovingRace(Random(seed))
    with patch("proxy.watch.subscription._RESPONSE_BYTES", race.random.choice((1, 100, 16_384))):
        for _ in range(race.random.choice((30, 100, 200))):
            race.step()
    race.finish()
    race.check()
    for subscription in race.world.net.context.hub.subscriptions.values():
        owners = race.table.owners(subscription.key, subscription.range_end)
        assert {part.shard for part in subscription.parts} == set(owners), "what has passed has left"
    return race


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_g9_watches_have_each_event_once_whatever_moves(seed: int) -> None:
    run(seed)


def test_keys_move_in_these_races() -> None:
    assert sum(run(seed).moves for seed in range(20)) > 20


def grown() -> Table:
    """Shard 0 and two that were born."""
    table = Table.initial(Base(1, 2))
    for shard in (1, 2):
        for state in (State.FORMING, State.SERVING):
            table = take_shard(table, shard, state, shard, (1, 2, 3))
    return table


def moved(table: Table, start: bytes, source: int, target: int, revision: int) -> Table:
    move = Move(table.last_move + 1, start, start + b"\0", (source,), target)
    return take_moved(take_move(table, move, revision), Moved(move.number, True, revision, 0), revision)


def test_g9_a_shard_that_gets_another_span_before_it_has_passed_stays() -> None:
    """Its events above the first switch were left out, or came twice."""
    hub: Any = SimpleNamespace(
        room=Room(1 << 20), merging=lambda subscription: None, join=lambda part: None,
        leave=lambda part: None)
    watched = Subscription(hub, b"a", b"z", False, (0,), 4)
    owns = moved(grown(), b"b", 0, 1, 5)
    watched.follow(owns)
    passes = moved(owns, b"b", 1, 2, 8)
    watched.follow(passes)
    known = {part.shard: part for part in watched.parts}
    assert {shard: part.until for shard, part in known.items()} == {0: 0, 1: 8, 2: 0}
    for part in watched.parts:
        part.position = 7
    watched.follow(moved(passes, b"c", 0, 1, 9))
    assert {part.shard: part.until for part in watched.parts} == {0: 0, 1: 0, 2: 0}
    assert watched.emitted == 7
    for part in watched.parts:
        part.position = 12
    watched.advance()
    assert watched.emitted == 12
    assert {part.shard: part for part in watched.parts} == known


class Slow(Recorder):
    synced = False

    def __init__(self, cursor: int) -> None:
        super().__init__(cursor)
        self.ended: list[int] = []

    def compacted(self, revision: int) -> None:
        self.ended.append(revision)


def lagging() -> tuple[Subscription, list[Any]]:
    """A range whose cohort does not read, and is beyond the range by history; and what asks history."""
    asked: list[Any] = []
    hub: Any = SimpleNamespace(
        room=Room(1 << 20), rings=Rings(1 << 20), merging=lambda subscription: None, join=lambda part: None,
        leave=lambda part: None, fill=lambda subscription, part: None,
        catch_up=lambda subscription, cohort: asked.append(cohort))
    watched = Subscription(hub, b"a", b"z", False, (0,), 4)
    slow = Slow(4)
    slow.asking = True
    watched.add(slow)  # type: ignore[arg-type]
    watched.lag(slow)  # type: ignore[arg-type]
    slow.cursor, slow.blocked = 20, True
    return watched, asked


def test_i24_a_ring_lacks_what_a_front_has_missed_of_a_compacted_past() -> None:
    """A watch from there was served by it, with neither its events nor a word of the compaction."""
    watched, asked = lagging()
    watched.follow(take_compact(moved(moved(grown(), b"b", 0, 1, 5), b"b", 1, 2, 9), 15))
    assert watched.emitted == 14
    late = Recorder(6)
    watched.add(late)  # type: ignore[arg-type]
    assert asked == [late]


def test_i24_a_ring_lacks_a_gap_that_was_compacted() -> None:
    watched, asked = lagging()
    (part,) = watched.parts
    part.live_from = 30
    hub: Any = SimpleNamespace()
    WatchHub._compacted(hub, watched, part, 15)
    assert part.position == 14
    late = Recorder(6)
    watched.add(late)  # type: ignore[arg-type]
    assert asked == [late]


def test_i24_nobody_needs_a_gap_behind_what_a_shard_had() -> None:
    watched, _ = lagging()
    (part,) = watched.parts
    part.until, part.position, part.live_from = 8, 9, 30
    (slow,) = watched.cohorts()
    assert isinstance(slow, Slow)
    slow.cursor = 9
    hub: Any = SimpleNamespace()
    WatchHub._compacted(hub, watched, part, 15)
    assert not slow.ended
    part.until = 0
    part.position = 9
    WatchHub._compacted(hub, watched, part, 20)
    assert slow.ended == [20]


def test_g9_a_shard_that_had_the_range_at_no_revision_leaves_at_once() -> None:
    left: list[Any] = []
    hub: Any = SimpleNamespace(
        room=Room(1 << 20), merging=lambda subscription: None, join=lambda part: None, leave=left.append)
    watched = Subscription(hub, b"b", b"", False, (1,), 0)
    (part,) = watched.parts
    watched.follow(moved(moved(grown(), b"b", 0, 1, 5), b"b", 1, 2, 5))
    assert part.until == 1
    for other in watched.parts:
        other.position = 1
    watched.advance()
    assert left == [part]


def test_a_move_leaves_ranges_alone_that_it_does_not_meet() -> None:
    """With 500 spans and 10,000 ranges one turn took 2 s."""
    followed: list[bytes] = []

    def watched(key: bytes, range_end: bytes, emitted: int = 20, shard: int = 0) -> Any:
        return SimpleNamespace(
            key=key, range_end=range_end, through=lambda: emitted, parts=[SimpleNamespace(shard=shard)],
            follow=lambda table: followed.append(key))

    before = moved(grown(), b"a", 0, 1, 5)
    hub: Any = SimpleNamespace(
        subscriptions=dict(enumerate([
            watched(b"a", b"b"), watched(b"b", b""), watched(b"a0", b"c"), watched(b"c", b""),
            watched(b"d", b"\0"), watched(b"e", b"", emitted=3), watched(b"f", b"", shard=9)])),
        _placement=SimpleNamespace(table=take_compact(moved(before, b"b", 0, 1, 15), 10)),
        _router=SimpleNamespace(routes={0: None, 1: None}), _progress=SimpleNamespace(look=lambda: None))
    hub._followed_by = lambda *more: WatchHub._followed_by(hub, *more)
    WatchHub.follow(hub, before)
    assert followed == [b"a", b"b", b"a0", b"e", b"f"]  # of a's past the compaction has left nothing


@pytest.mark.parametrize("pruned", [False, True], ids=["of its own number", "of a higher number"])
def test_g9_a_watch_follows_where_a_forced_start_has_dropped_its_move(pruned: bool) -> None:
    """The number of the dropped move was another's then: the watch took this for a compaction alone."""
    world = World(shards=SHARDS)
    context = world.net.context
    first = context.placement.table
    owner, other = first.owner(b"a"), first.owner(b"b")
    lost = moved(first, b"a", owner, (owner + 1) % SHARDS, 3)
    context.follow(lost)
    for _ in range(8):
        world.write((0, b"zz"))
    client = Client(world)
    client.create(b"a")
    world.settle()
    forced = moved(first, b"b", other, (other + 1) % SHARDS, 4)
    assert (forced.generation, forced.last_move) == (lost.generation, lost.last_move)
    context.follow(take_compact(forced, 5) if pruned else forced)
    world.settle()
    (watched,) = context.hub.subscriptions.values()
    assert owner in [part.shard for part in watched.parts]
