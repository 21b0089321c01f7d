"""Which writes a shard's leader takes while keys move for the first time (G7)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.order.leading.shard_leader import ShardLeader
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Table
from cluster.placement.base import Base
from cluster.placement.changes import Moved, take_move, take_moved
from cluster.placement.table import Move
from cluster.wire.messages import Method, Status
from node.replica.moving.of_shard import ShardMoves
from tests.unit.order.stores import answers, leader

BEFORE = Table.initial(Base(2, 1))
KEY = next(key for key in (b"a%d/k" % n for n in range(99)) if BEFORE.owner(key) == 0)
OWN = next(key for key in (b"a%d/k" % n for n in range(99)) if BEFORE.owner(key) == 1)
MOVING = take_move(BEFORE, Move(1, KEY, KEY + b"\0", (0,), 1), 0)
MOVED = take_moved(MOVING, Moved(1, True, 5, 0), 5)
CANCELLED = take_moved(MOVING, Moved(1, False, 0, 0), 5)
NEW = pb.Compare(key=KEY, target=pb.Compare.CREATE, create_revision=0, result=pb.Compare.EQUAL)
WRITES: dict[int, Any] = {
    Method.PUT: pb.PutRequest(key=KEY, value=b"v"),
    Method.DELETE_RANGE: pb.DeleteRangeRequest(key=KEY),
    Method.TXN: pb.TxnRequest(
        compare=[NEW], success=[pb.RequestOp(request_put=pb.PutRequest(key=KEY, value=b"v"))]),
}


def moves(leading: ShardLeader[str]) -> ShardMoves:
    found = ShardMoves.__new__(ShardMoves)
    role: Any = SimpleNamespace(leading=leading)
    ignored: Any = SimpleNamespace(placed=lambda table: None)
    found._role, found.copying, found.leaving = role, ignored, ignored
    return found


def submitted(leading: ShardLeader[str], method: int) -> list[int]:
    """What a front that knows the switch is told at once."""
    leading.submit("a", method, WRITES[method].SerializeToString())
    leading.run()
    return [status for _, status, _ in answers(leading)]


@pytest.mark.parametrize("method", WRITES)
def test_g7_what_moves_here_first_is_not_the_targets_until_it_has_applied_the_switch(method: int) -> None:
    leading = leader()
    moves(leading).place(MOVING)
    assert submitted(leading, method) == [Status.ELSEWHERE]
    assert not leading.dirty
    leading.submit("own", Method.PUT, pb.PutRequest(key=OWN).SerializeToString())
    leading.run()
    assert leading.dirty, "what is its own goes on"
    leading.logged(leading.seal() and 6)
    moves(leading).place(MOVED)
    assert submitted(leading, method) == []
    assert leading.queued == 1, "now it is"


@pytest.mark.parametrize("method", WRITES)
def test_g7_what_came_before_the_move_was_known_goes_elsewhere(method: int) -> None:
    leading = leader()
    leading.submit("a", method, WRITES[method].SerializeToString())
    moves(leading).place(MOVING)
    leading.run()
    assert [status for _, status, _ in answers(leading)] == [Status.ELSEWHERE]


def test_where_nothing_has_moved_or_moves_no_write_is_looked_at() -> None:
    leading = leader()
    for table in (BEFORE, CANCELLED):
        moves(leading).place(MOVING)
        assert leading._own is not None
        moves(leading).place(table)
        assert leading._own is None
