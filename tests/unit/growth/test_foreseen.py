"""What came of a retirement: its keys went to a shard that had to stay cool."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.growth.bounds import Bounds
from cluster.growth.facts import Facts, Host, Shard
from cluster.growth.foreseen import Came, Foreseen
from cluster.growth.wishes import Kind, wish
from cluster.placement.base import Base
from cluster.placement.changes import take_shard
from cluster.placement.table import Piece, State, Table

LIMITS = Bounds()


def table(owner: int, last_move: int) -> Table:
    """A born shard, and where the keys that it had are."""
    found = take_shard(Table.initial(Base(1, 2)), 1, State.FORMING, 1, (1,))
    found = take_shard(found, 1, State.SERVING, 0, ())
    return replace(found, spans=(Piece(b"m", b"n", owner, last_move),), generation=9, last_move=last_move)


def facts(known: Table, cpus: tuple[float, float], now_ms: int = 0) -> Facts:
    shards = {shard: Shard(1, 1, cpu) for shard, cpu in enumerate(cpus)}
    return Facts(now_ms, known, {1: Host(4.0, 2.0, 0.9)}, {1: "a"}, shards)


@pytest.mark.parametrize(("cpus", "came"), [
    ((0.25, 0.01), Came.RIGHT), ((0.30, 0.02), Came.RIGHT), ((0.01, 0.01), Came.UNKNOWN),
    ((0.60, 0.01), Came.UNKNOWN), ((0.71, 0.01), Came.WRONG), ((1.0, 0.0), Came.WRONG)])
def test_a_retirement_that_leaves_its_target_hot_was_wrong(cpus: tuple[float, float], came: Came) -> None:
    """More load than was foreseen was always taken for another load."""
    before = facts(table(1, 1), (0.15, 0.1))
    wished = wish(before, LIMITS)
    assert wished is not None
    assert (wished.kind, wished.shard, wished.target) == (Kind.RETIRE, 1, 0)
    done, waits, _ = Foreseen.begin(wished, before).look(facts(table(0, 2), (0.2, 0.1), 5000), LIMITS)
    assert waits == Came.WAITING
    assert done.look(facts(table(0, 2), cpus, 10**6), LIMITS)[1] == came
