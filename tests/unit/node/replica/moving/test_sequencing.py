"""Shard 0's writes while keys move: what is its own, and what waits for a switch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.evaluate.footprint import Footprint, footprint
from cluster.order.moving import hold as holding
from cluster.order.moving.hold import Hold
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Table
from cluster.placement.base import Base
from cluster.placement.changes import Moved, take_move, take_moved
from cluster.placement.table import Move
from cluster.wire.messages import Method, Status
from node.replica.moving.sequencing import Moves
from node.storage import StateStore
from tests.unit.node.replica.test_writes import Replica

BEFORE = Table.initial(Base(2, 1))
KEYS = [key for key in (b"a%d/k" % n for n in range(99)) if BEFORE.owner(key) == 0]
THERE = next(key for key in (b"a%d/k" % n for n in range(99)) if BEFORE.owner(key) == 1)
KEY = KEYS[0]


def move(key: bytes, source: int, target: int) -> Table:
    return take_move(BEFORE, Move(1, key, key + b"\0", (source,), target), 0)


class OfOne(Moves):
    copied: Any = None
    countable: Any = None


OfOne.__abstractmethods__ = frozenset()


class World:
    """Node 0, which leads and sequences."""

    def __init__(self, path: Path) -> None:
        store = StateStore.open(f"{path}/state")
        self.close = store.close
        self.replica = Replica(store)
        self.replica.lead(1)
        self.writes = self.replica.writes
        self.passed: list[int] = []  # to the coordinator
        self.coordinator: Any = SimpleNamespace(hold=None)
        self.role: Any = SimpleNamespace(
            placement=SimpleNamespace(table=BEFORE), writes=self.writes, coordinator=self.coordinator,
            wide=lambda link, rid, *rest: self.passed.append(rid))
        kind: Any = None
        self.moves = OfOne(self.role, kind, lambda: 0, 1000)

    def place(self, table: Table) -> None:
        self.role.placement.table = table
        self.moves.placed()

    def put(self, rid: int, key: bytes) -> None:
        self.writes.submit(self.replica.link, rid, Method.PUT, body(key))


def body(key: bytes) -> bytes:
    return pb.PutRequest(key=key, value=b"v").SerializeToString()


@pytest.fixture
def world(tmp_path: Path) -> Any:
    made = World(tmp_path)
    yield made
    made.close()


def test_g7_what_moves_to_shard_0_first_is_not_its_own_before_the_switch(world: World) -> None:
    world.place(BEFORE)
    assert not world.moves.has_left(Method.PUT, body(THERE)), "it is not looked at"
    assert world.writes.lacks is None
    moving = move(THERE, 1, 0)
    world.place(moving)
    deleted = pb.DeleteRangeRequest(key=THERE).SerializeToString()
    new = pb.Compare(key=THERE, target=pb.Compare.CREATE, create_revision=0, result=pb.Compare.EQUAL)
    asked = pb.TxnRequest(compare=[new]).SerializeToString()
    requests = ((Method.PUT, body(THERE)), (Method.DELETE_RANGE, deleted), (Method.TXN, asked))
    for method, data in requests:
        assert world.moves.has_left(method, data)
    assert not world.moves.has_left(Method.PUT, body(KEY))
    world.place(take_moved(moving, Moved(1, True, 5, 0), 5))
    for method, data in requests:
        assert not world.moves.has_left(method, data)


def test_i23_what_a_switch_holds_counts_among_what_waits(world: World) -> None:
    world.place(move(KEY, 0, 1))
    world.coordinator.hold = Hold((KEY, b""), 1)
    world.writes._intake.most = 3
    for rid in range(1, 4):
        world.put(rid, KEY)
        world.moves.sift()
    assert len(world.writes.held) == 3
    world.put(4, KEY)
    assert world.replica.answers() == {4: Status.ERROR}
    assert not world.writes.submit_all(world.replica.link, [(5, int(Method.PUT), 1000, body(KEY))])


def test_what_is_held_is_looked_at_again_once_something_has_changed(
    world: World, monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[bytes] = []

    def reading(method: int, asked: bytes) -> Footprint:
        read.append(asked)
        return footprint(method, asked)

    monkeypatch.setattr(holding, "footprint", reading)
    moving = move(KEY, 0, 1)
    world.place(moving)
    world.coordinator.hold = Hold((KEY, b""), 1)
    for rid in (1, 2, 3):
        world.put(rid, KEY)
        world.moves.sift()
    assert read == [body(KEY)] * 3, "each once"
    world.coordinator.hold = Hold((KEY, b""), 2)
    world.moves.sift()
    assert len(read) == 6, "another switch"
    world.coordinator.hold = None
    world.place(take_moved(moving, Moved(1, True, 5, 0), 5))
    world.moves.sift()
    assert world.passed == [1, 2, 3]
    assert not world.writes.held


def test_what_is_not_evaluated_is_not_sifted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.place(move(KEY, 0, 1))
    world.coordinator.hold = Hold((KEY, b""), 1)
    world.replica.raft.takes_proposals = False
    monkeypatch.setattr(holding, "footprint", None)
    world.put(1, KEY)
    world.moves.sift()
    assert world.writes.queued == 1


def test_what_is_held_is_evaluated_if_the_switch_does_not_come(world: World) -> None:
    moving = move(KEY, 0, 1)
    world.place(moving)
    world.coordinator.hold = Hold((KEY, b""), 1)
    world.put(1, KEY)
    world.moves.sift()
    world.coordinator.hold = None
    world.put(2, KEYS[1])
    world.place(take_moved(moving, Moved(1, False, 0, 0), 5))
    world.moves.sift()
    world.writes.run()
    world.replica.apply(2)
    assert world.replica.answers() == {1: Status.OK, 2: Status.OK}


def test_what_is_held_ends_with_the_term(world: World) -> None:
    world.place(move(KEY, 0, 1))
    world.coordinator.hold = Hold((KEY, b""), 1)
    world.put(1, KEY)
    world.moves.sift()
    world.replica.deposed(2)
    world.moves.end()
    assert world.replica.answers() == {1: Status.NOT_LEADER}
    assert not world.writes.held


def test_nothing_stays_of_a_look_ahead_for_what_goes_to_another_shard(world: World) -> None:
    moving = move(KEY, 0, 1)
    world.place(moving)
    asked = pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=KEY))]).SerializeToString()
    link, looked = world.replica.link, object()
    world.writes._aside.put((link, 1), (int(Method.TXN), asked))
    world.writes.resume(link, 1, looked)  # type: ignore[arg-type]
    assert world.writes._looked
    world.place(take_moved(moving, Moved(1, True, 5, 0), 5))
    world.moves.sift()
    assert world.passed == [1]
    assert not world.writes._looked
