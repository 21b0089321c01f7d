"""The lock table by itself; what its owner does with it is in ``test_shard``."""

from __future__ import annotations

import pytest

from cluster.evaluate.footprint import Footprint
from cluster.order.locks import LockTable
from cluster.order.log import Attempt


def test_i11_a_prepare_leaves_by_its_own_way_only() -> None:
    table: LockTable[str] = LockTable()
    lock = table.prepare(Attempt(1, 1), Footprint([], [(b"a", b"")]), "prepare")
    waiting = table.wait(Footprint([], [(b"a", b"")]), "request")
    with pytest.raises(AssertionError, match="I11"):
        table.remove(lock)
    assert table.locks(Footprint([(b"a", b"")]))
    assert table.activate() == []
    table.unlock(lock)
    assert table.find(Attempt(1, 1)) is None
    assert table.activate() == [waiting]
    table.remove(waiting)
    assert not len(table)
