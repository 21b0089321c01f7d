"""Many footprints at once: the same as asking each of them."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.evaluate.footprint import Footprint
from cluster.order.overlaps import Overlaps


def some(r: Random) -> Footprint:
    def spans() -> list[tuple[bytes, bytes]]:
        return [(r.choice([b"a", b"b", b"c", b"d", b"e"]), b"" if r.random() < 0.9 else r.choice([b"\0", b"b", b"e"]))
                for _ in range(r.choice([0, 1, 1, 2]))]

    return Footprint(spans(), spans(), {r.randrange(6)} if r.random() < 0.2 else set())


@given(st.integers(0, 1 << 32))
@settings(max_examples=300, deadline=None)
def test_whether_a_newcomer_meets_any_is_what_each_of_them_says(seed: int) -> None:
    r = Random(seed)
    overlaps, held = Overlaps(), list[Footprint]()
    for _ in range(40):
        if held and r.random() < 0.4:
            overlaps.remove(held.pop(r.randrange(len(held))))
        else:
            held.append(some(r))
            overlaps.add(held[-1])
        assert len(overlaps) == len(held)
        newcomer = some(r)
        assert overlaps.meets(newcomer) == any(newcomer.conflicts(other) for other in held)
    for footprint in held:
        overlaps.remove(footprint)
    assert not overlaps.meets(Footprint([(b"\0", b"\0")], [(b"\0", b"\0")], set(range(6))))
    assert not any((overlaps._reads, overlaps._writes, overlaps._leases, overlaps._spans)), "nothing is kept of them"
