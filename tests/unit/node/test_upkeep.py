"""Housekeeping of a node."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cluster import records
from cluster.lease import Lessor
from node.storage import StateStore
from node.upkeep import Upkeep


def test_a_lease_granted_again_in_the_run_that_revokes_it_is_there(tmp_path: Path) -> None:
    store = StateStore.open(tmp_path)
    applied = store.apply([
        (1, 1, records.lease_grant(9, 60)), (2, 1, records.lease_revoke(9, []) + records.lease_grant(7, 60)),
        (3, 1, records.lease_grant(9, 30)), (4, 1, records.lease_revoke(7, []))])
    lessor = Lessor(1000)
    fake: Any = SimpleNamespace(_node=SimpleNamespace(lessor=lessor, now_ms=lambda: 0))
    Upkeep.leases_changed(fake, applied)
    assert list(lessor) == [(9, 30, 0)] == list(store.leases())
    assert applied.revoked == [9, 7]
    store.close()
