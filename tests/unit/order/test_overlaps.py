"""Many footprints at once: the same as asking each of them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.evaluate.footprint import Footprint
from cluster.order.overlaps import Overlaps
from tests.unit.node.slicing.test_growth import GROWTH, grows, steps


def some(r: Random) -> Footprint:
    def spans() -> list[tuple[bytes, bytes]]:
        return [(r.choice([b"a", b"b", b"c", b"d", b"e"]), b"" if r.random() < 0.9 else r.choice([b"\0", b"b", b"e"]))
                for _ in range(r.choice([0, 1, 1, 2, 40]))]

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
    last = Footprint([(b"x", b"y")], [(b"x", b"")], {9})  # beside it nothing is kept of them
    overlaps.add(last)
    for footprint in held:
        overlaps.remove(footprint)
    assert not overlaps.meets(Footprint([(b"\0", b"x"), (b"x\0", b"\0")], [(b"\0", b"x"), (b"y", b"\0")], set(range(6))))
    assert [len(overlaps._writes.counts), len(overlaps._reads.counts), len(overlaps._leases)] == [1, 0, 1]
    overlaps.remove(last)
    assert not overlaps.meets(Footprint([(b"\0", b"\0")], [(b"\0", b"\0")], set(range(10))))


def ranges(count: int, letter: bytes = b"r") -> list[tuple[bytes, bytes]]:
    return [(letter + b"%06d-" % at, letter + b"%06d." % at) for at in range(count)]


def singles(count: int) -> list[tuple[bytes, bytes]]:
    return [(b"k%06d" % at, b"") for at in range(count)]


@pytest.mark.parametrize("mixed", [False, True])
def test_disjoint_ranges_that_come_and_go_take_n_log_n_steps(mixed: bool) -> None:
    """Each was compared with each."""
    def come_and_go(count: int) -> Callable[[], object]:
        spans = [span for pair in zip(ranges(count), singles(count), strict=True) for span in pair[: 1 + mixed]]
        all_of_them = [Footprint(writes=[span]) for span in spans]

        def work() -> None:
            overlaps = Overlaps()
            for one in all_of_them:
                assert not overlaps.meets(one)
                overlaps.add(one)
            for one in all_of_them:
                overlaps.remove(one)
                assert not overlaps.meets(one)

        return work

    assert grows(come_and_go, 256) <= GROWTH


def test_beside_very_many_keys_and_a_range_another_key_is_only_looked_up() -> None:
    """All keys of the lock were sorted for each put beside it: 15 ms."""
    def meet(count: int) -> Callable[[], object]:
        overlaps = Overlaps()
        overlaps.add(Footprint(ranges(1), singles(count)))
        put = Footprint(writes=[(b"other", b"")])
        return lambda: overlaps.meets(put)

    assert steps(meet(20_000)) == steps(meet(2)) < 100
