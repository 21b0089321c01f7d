"""G9: the races of ``test_watch_races`` while the watched keys move between shards."""

from __future__ import annotations

from random import Random
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.placement import Table
from cluster.placement.base import Base
from cluster.placement.changes import Moved, take_move, take_moved
from cluster.placement.table import END, Move
from cluster.wire.messages import Status
from tests.unit.proxy.watch.test_watch_races import KEYS, Race
from tests.unit.proxy.watch.watching import Source

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
