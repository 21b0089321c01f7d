"""What a ring holds of memory, and from where on it is complete."""

from __future__ import annotations

import pytest

from cluster.wire.events import EVENT
from proxy.watch.encode import Batch
from proxy.watch.lagging.ring import Ring, Rings
from tests.unit.kept import kept_by


def batch(revision: int, size_bytes: int) -> Batch:
    return Batch(revision, revision, 1, bytes(bytearray(EVENT.size)), bytes(bytearray(size_bytes)))


@pytest.mark.parametrize("size_bytes", [50, 100_000])
def test_rings_hold_no_more_memory_than_they_count(
    size_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kept up to 64 batches that it had dropped: of events of a megabyte, 12 MB became 250."""
    monkeypatch.setattr("proxy.watch.lagging.ring._RING_BYTES", 250_000)
    rings = Rings(1 << 20)
    some = [Ring(1001) for _ in range(4)]
    with kept_by("*/proxy/watch/*", __file__) as kept:
        for revision in range(1001, 1001 + max(60, 200_000 // size_bytes)):
            for ring in some:
                rings.append(ring, batch(revision, size_bytes))
    assert 0 < rings.held_bytes <= 1 << 20
    held = [len(list(ring.after(0, 0))) for ring in some]  # an event each
    assert held == [ring.events for ring in some]
    assert sum(held) == rings.held_events > 0
    assert 0.5 * rings.held_bytes < kept.size_bytes < 1.2 * rings.held_bytes


def test_a_ring_that_dropped_all_is_complete_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is emptied."""
    monkeypatch.setattr("proxy.watch.lagging.ring._RING_BYTES", 1000)
    ring = Ring(5)
    ring.append(batch(5, 2000))
    assert (ring.begin, ring.size_bytes) == (6, 0)
    for _ in range(2):
        ring.empty()
        assert ring.begin == 6
    ring.append(batch(6, 10))
    assert [one.last for one in ring.after(5, 100)] == [6]
