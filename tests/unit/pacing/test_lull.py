"""Whoever mostly finds nothing looks seldom, until something happens."""

from __future__ import annotations

from cluster.pacing.lull import _CALM_LOOKS, Lull


def lulled() -> Lull:
    lull = Lull(0.05, 0.15)
    assert [lull.looked(calm=True) for _ in range(_CALM_LOOKS)] == [0.05] * (_CALM_LOOKS - 1) + [0.15]
    assert lull.lulled
    return lull


def test_after_a_while_of_calm_looks_are_seldom() -> None:
    lull = lulled()
    assert lull.looked(calm=True) == 0.15


def test_a_look_that_finds_something_ends_it() -> None:
    lull = lulled()
    assert lull.looked(calm=False) == 0.05
    assert lull.looked(calm=True) == 0.05


def test_what_happens_in_between_ends_it_at_once_and_is_told_once() -> None:
    lull = lulled()
    assert lull.stir() == 0.05
    assert lull.stir() is None
    assert lull.looked(calm=True) == 0.05


def test_what_happens_before_puts_it_off() -> None:
    lull = Lull(0.05, 0.15)
    for _ in range(3 * _CALM_LOOKS):
        assert lull.looked(calm=True) == 0.05
        assert lull.stir() is None


def test_no_pause_is_shorter_than_the_usual_one() -> None:
    lull = Lull(0.05, 0.01)
    assert {lull.looked(calm=True) for _ in range(2 * _CALM_LOOKS)} == {0.05}
