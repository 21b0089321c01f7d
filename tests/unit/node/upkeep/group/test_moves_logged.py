"""The leader of shard 0 judges moves by what it has logged, and says no with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import errors
from cluster.effects import records
from cluster.errors import EtcdError
from cluster.evaluate.replica import Leader
from cluster.features import births, growth, moves
from cluster.pb import rpc_pb2 as pb
from cluster.pb import shards_pb2
from cluster.placement.base import Base
from cluster.placement.changes import Moved
from cluster.placement.table import Piece
from cluster.wire.messages import Method
from node.storage import StateStore
from tests.unit.node.upkeep.group.test_growing import Host, said


class Sequencing:
    """What the sequencer says to the leader (``moves.Moving``)."""

    settled = True
    begins = stops = 0

    def begun(self) -> None:
        self.begins += 1

    def stop(self) -> None:
        self.stops += 1


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    store = StateStore.open(tmp_path)
    made = Host(store, leads=True)
    made.apply(records.bootstrap(1, 3, 2), said(1, 2, 3))
    yield made
    store.close()


def leader_of(host: Host, level: int = growth.MOVES) -> tuple[Leader, Sequencing]:
    leader, sequencing = host.leader, Sequencing()
    assert leader is not None
    leader.told.growth.take([growth.row(i, growth.OWN.encode()) for i in (1, 2, 3)])
    if level:
        leader.told.growth.grow(level, (1, 2, 3))
        host.apply(growth.item(level, (1, 2, 3)))
    leader.told.moving = sequencing
    return leader, sequencing


def move(leader: Leader, start: bytes, end: bytes, target: int) -> bytes:
    return leader.execute(
        Method.SHARD_CHANGE, bytes((moves.MOVE,)) + moves.Wish(start, end, target).encode()).tail


def cancel(leader: Leader, number: int) -> bytes:
    return leader.execute(
        Method.SHARD_CHANGE, bytes((moves.CANCEL,)) + moves.cancel_body(number)).tail


def span(host: Host, shard: int) -> tuple[bytes, bytes]:
    table = host.store.placement()
    assert table is not None
    key = next(b"k%d/" % i for i in range(99) if table.owner(b"k%d/" % i) == shard)
    return key, key + b"\0"


def test_a_move_begins_and_is_cancelled_and_both_are_judged_as_logged(host: Host) -> None:
    leader, sequencing = leader_of(host)
    start, end = span(host, 1)
    assert move(leader, start, end, 2) == b"\x10\x01"
    assert sequencing.begins == 1
    with pytest.raises(EtcdError, match="move 1 is under way"):
        move(leader, start, end, 2)
    with pytest.raises(EtcdError, match="no move 2 is under way"):
        cancel(leader, 2)
    assert cancel(leader, 1) == b"\x10\x01"
    assert sequencing.stops == 1
    assert move(leader, start, end, 2) == b"\x10\x02", "a number is never used again"
    host.apply(host.sealed())
    table = host.store.placement()
    assert table is not None
    assert table.move is not None
    assert table.move.number == 2
    assert leader.told.table == table, "what is applied is all that is logged"


def test_what_may_not_move_is_refused_with_a_reason(host: Host) -> None:
    leader, sequencing = leader_of(host)
    start, end = span(host, 1)
    for target, why in ((1, "owns a part"), (7, "there is no shard 7")):
        with pytest.raises(EtcdError, match=why):
            move(leader, start, end, target)
    sequencing.settled = False
    with pytest.raises(EtcdError, match="ask again"):
        move(leader, start, end, 2)
    leader.told.moving = None
    with pytest.raises(EtcdError, match="ask again"):
        cancel(leader, 1)
    for body in (b"\x03", b"\x04", b"\x03\xff\xff\xff\xff\xff\xff", b"\x04\x01"):
        with pytest.raises(EtcdError):
            leader.execute(Method.SHARD_CHANGE, body)
    assert not sequencing.begins


def test_before_the_data_knows_moves_none_begins(host: Host) -> None:
    leader, _ = leader_of(host, growth.BIRTHS)
    with pytest.raises(EtcdError, match="run `musterctl shard enable-growth` first"):
        move(leader, b"a", b"b", 2)


def test_a_former_owner_is_a_target_again_once_its_past_is_compacted(host: Host) -> None:
    leader, _ = leader_of(host)
    start, end = span(host, 1)
    for _ in range(4):
        leader.execute(Method.PUT, pb.PutRequest(key=span(host, 0)[0], value=b"v").SerializeToString())
    move(leader, start, end, 2)
    leader.log_moved(Moved(1, True, 3, 0))  # as a switch is
    with pytest.raises(EtcdError, match=r"had a part of the span up to revision 5: .*put a key first"):
        move(leader, start, end, 1)
    leader.execute(Method.PUT, pb.PutRequest(key=span(host, 0)[0], value=b"v").SerializeToString())
    leader.execute(Method.COMPACT, pb.CompactionRequest(revision=6).SerializeToString())
    assert move(leader, start, end, 1) == b"\x10\x02"


def retire(leader: Leader, shard: int) -> bytes:
    request = shards_pb2.RetireShardRequest(shard=shard, with_keys=True)
    return leader.execute(
        Method.SHARD_CHANGE, bytes((births.RETIRE,)) + request.SerializeToString()).tail


def test_while_data_is_refused_no_keys_move_but_a_move_may_end(host: Host) -> None:
    """A copy needs as much room as the keys."""
    leader, _ = leader_of(host)
    start, end = span(host, 1)
    host.room = moves.Room(refuses=True)
    for begins in (lambda: move(leader, start, end, 2), lambda: retire(leader, 1)):
        with pytest.raises(EtcdError) as refused:
            begins()
        assert refused.value.kind == errors.NO_SPACE
    host.room = moves.Room()
    move(leader, start, end, 2)
    host.room = moves.Room(refuses=True)
    cancel(leader, 1)


@pytest.mark.parametrize(("room", "why"), [
    (moves.Room(quota=999, sizes={1: 1000, 0: 7}),
     "999 bytes of the quota, and needs about 1000: delete and compact, or raise --quota-backend-bytes"),
    (moves.Room(disk=999, sizes={1: 1000, 0: 7}), "999 bytes of the leader's disk, and needs about 1000"),
])
def test_a_shard_that_is_larger_than_what_is_left_stays(host: Host, room: moves.Room, why: str) -> None:
    leader, _ = leader_of(host)
    start, end = span(host, 1)
    table = leader.told.table
    assert table is not None
    leader.told.placed(replace(
        table, spans=(Piece(start, end, 1, 1),), base=Base(1, 2), generation=table.generation + 1))
    host.room = room
    for begins in (lambda: move(leader, start, end, 2), lambda: retire(leader, 1)):
        with pytest.raises(EtcdError, match=why):
            begins()
    move(leader, start[:-1], start, 2)  # of shard 0, which owns other keys as well


def test_a_shard_whose_keys_a_hash_spreads_needs_room_for_all_that_move_with_them(host: Host) -> None:
    leader, _ = leader_of(host)
    start, end = span(host, 0)
    host.room = moves.Room(quota=999, sizes={0: 600, 1: 500, 2: 400})
    with pytest.raises(EtcdError, match="and needs about 1500"):
        retire(leader, 1)
    table = leader.told.table
    assert table is not None
    leader.told.placed(replace(
        table, spans=(Piece(start, end, 0, 1),), generation=table.generation + 1))
    host.room = moves.Room(quota=899, sizes={0: 600, 1: 500, 2: 400})
    with pytest.raises(EtcdError, match="and needs about 900"):  # of shard 0 some stay
        retire(leader, 1)
    host.room = moves.Room(quota=900, sizes={0: 600, 1: 500, 2: 400})
    retire(leader, 1)


@pytest.mark.parametrize("room", [moves.Room(quota=0), moves.Room(disk=-5)])
def test_without_any_room_nothing_moves(host: Host, room: moves.Room) -> None:
    leader, _ = leader_of(host)
    host.room = room
    with pytest.raises(EtcdError, match="may take 0 bytes of the "):
        move(leader, *span(host, 1), 2)
