"""The lock table by itself; what its owner does with it is in ``test_shard``."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from cluster.evaluate.footprint import Footprint
from cluster.order.locks import LockTable
from cluster.order.log import Attempt
from cluster.order.overlaps import Overlaps
from tests.unit.node.slicing.test_growth import GROWTH, grows


def test_i11_a_prepare_leaves_by_its_own_way_only() -> None:
    table: LockTable[str] = LockTable()
    lock = table.prepare(Attempt(1, 1), Footprint([], [(b"a", b"")]), "prepare")
    waiting = table.wait(Footprint([], [(b"a", b"")]), "request")
    with pytest.raises(AssertionError, match="I11"):
        table.remove(lock)
    assert table.locks(Footprint([(b"a", b"")]))
    assert list(table.in_order()) == [(lock, False)]
    table.unlock(lock)
    assert table.find(Attempt(1, 1)) is None
    assert list(table.in_order()) == [(waiting, True)]
    table.remove(waiting)
    assert not len(table)


def test_very_many_that_waited_under_a_lock_of_a_range_go_on_in_n_log_n_steps() -> None:
    """Each was compared with all before it, in one turn: its node sent no heartbeats meanwhile."""
    def end(count: int) -> Callable[[], object]:
        table: LockTable[str] = LockTable()
        lock = table.prepare(Attempt(1, 1), Footprint(writes=[(b"a", b"z")]), "prepare")
        waiting = [table.wait(Footprint(writes=[(b"k%d" % at, b"")]), "put") for at in range(count)]

        def work() -> None:
            table.unlock(lock)
            assert list(table.in_order()) == [(one, True) for one in waiting]

        return work

    assert grows(end, 256) <= GROWTH


def test_what_waits_behind_a_request_of_its_one_key_is_compared_with_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """10,000 transactions of one key go on one by one, each with a look at all: they took minutes."""
    table: LockTable[str] = LockTable()
    waiting = [table.wait(Footprint([(b"k", b"")], [(b"k", b"")]), "txn", active=True) for _ in range(100)]
    compared = 0
    meets = Overlaps.meets

    def counted(overlaps: Overlaps, footprint: Footprint) -> bool:
        nonlocal compared
        compared += 1
        return meets(overlaps, footprint)

    monkeypatch.setattr(Overlaps, "meets", counted)
    for gone, next_one in pairwise(waiting):
        table.remove(gone)
        assert list(table.in_order()) == [(next_one, True)]
    assert compared == 99


@pytest.mark.parametrize("seed", range(20))
def test_requests_of_one_key_go_on_as_they_would_if_each_were_compared_with_all(seed: int) -> None:
    r = random.Random(seed)

    def some() -> Footprint:
        def spans(most: int) -> list[tuple[bytes, bytes]]:
            return [(b"%d" % r.randrange(4), r.choice([b"", b"", b"", b"", b"3"]))
                    for _ in range(r.randrange(most))]

        return Footprint(spans(2), spans(3), {1} if r.random() < 0.1 else set())

    one, other = LockTable[int](), LockTable[int]()
    for number in range(60):
        held, active = some(), r.random() < 0.3
        one.wait(held, number, active=active)
        compared = Footprint(held.reads, held.writes, held.leases)
        other.wait(compared, number, active=active).key = None
    while len(one):
        gone = r.randrange(60)
        for table in (one, other):
            for entry in [entry for entry in table if entry.payload == gone]:
                table.remove(entry)
        drawn = r.random()
        went_on = []
        for table in (one, other):
            told = []
            draw = random.Random(drawn)
            for entry, fresh in table.in_order():
                told.append((entry.payload, fresh))
                if draw.random() < 0.1:
                    table.remove(entry)
            went_on.append(told)
        assert went_on[0] == went_on[1]
    assert not len(other)
