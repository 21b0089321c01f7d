"""Only time is tried again, and three times at most."""

from __future__ import annotations

import pytest

from tests.tries import TRIES, TooSlow, best_of_three, within


@pytest.mark.parametrize("slow", range(TRIES))
def test_a_test_that_is_slow_is_tried_again_until_it_is_not(slow: int) -> None:
    took = [2.0] * slow + [0.5]

    @best_of_three
    def measured() -> None:
        within(took.pop(0), 1.0)

    measured()
    assert not took


def test_what_is_always_too_slow_fails() -> None:
    tries = []

    @best_of_three
    def measured() -> None:
        tries.append(1)
        within(2.0, 1.0)

    with pytest.raises(TooSlow, match=r"2\.0000 s, 1\.0000 s at most"):
        measured()
    assert len(tries) == TRIES


def test_what_is_wrong_is_wrong_at_once() -> None:
    tries = []

    @best_of_three
    def measured() -> None:
        tries.append(1)
        assert len(tries) > 1, "wrong"

    with pytest.raises(AssertionError, match="wrong"):
        measured()
    assert len(tries) == 1
