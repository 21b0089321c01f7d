"""The lock table by itself; what its owner does with it is in ``test_shard``."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.evaluate.footprint import Footprint
from cluster.order.locks import LockTable
from cluster.order.log import Attempt
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
