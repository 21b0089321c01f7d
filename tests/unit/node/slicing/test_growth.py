"""Large transactions take n log n steps, wherever they are looked at: twice the size is not four times the
work.

Steps are lines of this program, not seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from cluster.effects import records
from cluster.evaluate.footprint import Footprint, footprint
from cluster.evaluate.replica import Leader
from cluster.evaluate.validate import check_txn
from cluster.features.lessor import Lessor
from cluster.grain import GRAIN
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from node.storage import StateStore

GROWTH = 2.6  # of the steps, at most, for twice the size; n log n: 2.2


def steps(work: Callable[[], object]) -> int:
    """How many lines that runs."""
    count = 0

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return line

    before = sys.gettrace()
    sys.settrace(line)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def grows(work: Callable[[int], Callable[[], object]], size: int) -> float:
    """How much more is to be done for twice the size."""
    once, twice = steps(work(size)), steps(work(2 * size))
    assert once > size, "it looks at everything"
    return twice / once


def op(number: int, keys: str) -> pb.RequestOp:
    """Every other one is a delete of a range that holds one key of four, the rest are puts between these."""
    if number % 2:
        return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(
            key=f"{keys}{number:06}".encode(), range_end=f"{keys}{number:06}~".encode()))
    return pb.RequestOp(request_put=pb.PutRequest(key=f"{keys}{number:06}p".encode(), value=b"v"))


def deep(size: int) -> pb.TxnRequest:
    """Three levels, with ``size`` operations; the deletes of each meet the puts of all the others."""
    inner = [pb.TxnRequest(success=[op(at + place, "k") for place in range(8)]) for at in range(0, size, 8)]
    middle = [
        pb.TxnRequest(success=[pb.RequestOp(request_txn=txn) for txn in inner[at : at + 8]])
        for at in range(0, len(inner), 8)
    ]
    return pb.TxnRequest(success=[pb.RequestOp(request_txn=txn) for txn in middle])


def wide(size: int) -> pb.TxnRequest:
    """All in one level."""
    return pb.TxnRequest(success=[op(at, "k") for at in range(size)])


SHAPES = pytest.mark.parametrize("shape", [deep, wide])


@SHAPES
def test_checks_of_a_front_take_n_log_n_steps(shape: Callable[[int], pb.TxnRequest]) -> None:
    def check(size: int) -> Callable[[], object]:
        request = shape(size)
        return lambda: check_txn(request, 1 << 20)

    assert grows(check, 1024) <= GROWTH


@SHAPES
def test_footprints_and_their_conflicts_take_n_log_n_steps(shape: Callable[[int], pb.TxnRequest]) -> None:
    def meet(size: int) -> Callable[[], object]:
        body = shape(size).SerializeToString()
        other = Footprint(writes=[(f"o{at:06}".encode(), b"") for at in range(size)])
        return lambda: footprint(Method.TXN, body).conflicts(other)

    assert grows(meet, 1024) <= GROWTH


@SHAPES
def test_a_leader_evaluates_and_applies_in_n_log_n_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: Callable[[int], pb.TxnRequest]
) -> None:
    """Beside another of the same size that is on its way, and in one turn."""
    monkeypatch.setattr(GRAIN, "turn_deletes", 1 << 20)
    def run(size: int) -> Callable[[], object]:
        store = StateStore.open(tmp_path / f"{size}")
        data = b"".join(records.put(f"k{at:06}x".encode(), 0, 1, b"v", 0) for at in range(1, size, 4))
        store.apply([(1, 1, data)], want_events=False)
        while not store.counts.build_step():
            pass
        leader = Leader(
            store, 1, max_txn_ops=1 << 20, lessor=Lessor(1000), new_lease_id=lambda: 7
        )
        before = pb.TxnRequest(
            success=[
                pb.RequestOp(request_put=pb.PutRequest(key=f"k{at:06}y".encode())) for at in range(1, size, 2)
            ]
        )
        leader.execute(Method.TXN, before.SerializeToString())
        body = shape(size).SerializeToString()

        def work() -> None:
            leader.execute(Method.TXN, body)
            item, batch = leader.seal()
            store.apply([(2, 1, item)], want_events=True)
            leader.applied(batch)
            store.close()

        return work

    assert grows(run, 1024) <= GROWTH
