"""The sample of a node's keys: fair, bounded, and the same after years."""

from __future__ import annotations

from collections import Counter

import pytest

from cluster.growth.sample import (
    HALF_LIFE_S,
    MOST,
    MOST_KEY_BYTES,
    MOST_PER_S,
    MOST_SPANS,
    Sample,
)

YEAR_MS = 365 * 24 * 3600 * 1000


def frames(sample: Sample, seconds: int, frame: list[bytes], a_second: int, at_ms: int = 0) -> Counter[bytes]:
    """Frames of a front, as a node takes them; how often each key was looked at."""
    looked: Counter[bytes] = Counter()
    for second in range(seconds):
        for number in range(a_second):
            sample.skip -= len(frame)
            if sample.skip < 0:
                at, stands = sample.pick(len(frame))
                looked[frame[at]] += 1
                sample.take(at_ms + second * 1000 + number * 1000 // a_second, frame[at], stands)
        sample.second()
    return looked


@pytest.mark.parametrize(("size", "a_second"), [(1, 1), (1, 7), (1, 20_000), (5, 300), (64, 500), (1000, 20)])
def test_the_rate_is_right_whatever_the_frames(size: int, a_second: int) -> None:
    sample = Sample()
    seconds = 400
    frames(sample, seconds, [b"k"] * size, a_second)
    expected = size * a_second
    assert sample.rate(seconds * 1000) == pytest.approx(expected, rel=0.35)


@pytest.mark.parametrize("a_second", [3, 50, 2000])
def test_looks_are_bounded_and_fair_to_each_place_in_a_frame(a_second: int) -> None:
    sample = Sample(7)
    looked = frames(sample, 300, [b"%d" % number for number in range(10)], a_second)
    assert sum(looked.values()) <= 300 * 3 * MOST_PER_S
    assert len(looked) == 10
    assert max(looked.values()) < 2 * min(looked.values())


def test_a_request_that_is_always_the_same_in_its_frame_is_not_always_looked_at() -> None:
    looked = frames(Sample(), 200, [b"often", b"rarely"], 1000)
    assert 0.35 < looked[b"often"] / sum(looked.values()) < 0.65


def test_after_a_load_has_gone_the_next_request_is_soon_looked_at() -> None:
    sample = Sample()
    frames(sample, 20, [b"busy"] * 50, 1000)
    for _ in range(60):
        sample.second()
    assert frames(sample, 10, [b"calm"], 1, 80_000)[b"calm"] >= 5


@pytest.mark.parametrize("start_ms", [0, 17 * 3600 * 1000, YEAR_MS, 50 * YEAR_MS])
def test_weights_are_the_same_whatever_the_clock_says(start_ms: int) -> None:
    sample = Sample()
    for second in range(0, 600, 2):
        sample.take(start_ms + second * 1000, b"%d" % second, 10.0)
    now_ms = start_ms + 600_000
    found = sample.weighed(now_ms)
    assert found[-1].weight == pytest.approx(10 * 0.5 ** (2 / HALF_LIFE_S))
    assert found[0].weight == pytest.approx(10 * 0.5 ** ((600 - 2 * (300 - len(found))) / HALF_LIFE_S))


def test_an_idle_node_forgets_while_it_is_idle() -> None:
    sample = Sample()
    sample.take(0, b"k", 1e9)
    assert sample.rate(360_000) == pytest.approx(sample.rate(300_000) / 2, rel=0.05)
    assert sample.weighed(YEAR_MS) == []
    assert sample.weighed(-5000)[0].weight == 1e9, "a clock that went back makes nothing heavier"


def test_it_keeps_so_many_and_cuts_what_is_long() -> None:
    sample = Sample()
    for number in range(3 * MOST):
        sample.take(number, b"x" * 5000, 1.0, [(b"y" * 5000, b"")] * 20)
    found = sample.weighed(3 * MOST)
    assert len(found) == MOST
    assert len(found[0].key) == len(found[0].spans[0][0]) == MOST_KEY_BYTES
    assert len(found[0].spans) == MOST_SPANS
