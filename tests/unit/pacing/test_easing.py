"""A copy rests longer the longer others wait, and never works more than its share."""

from __future__ import annotations

from cluster.pacing.easing import LEAST_S, MOST_S, SHARE, rest_s

_KEYS, _PAGE, _LIMIT_S = 1_000_000, 256, 60.0
_WORK_S = 0.0005  # of a page


def copy_s(answer_s: float) -> float:
    """How long a copy of a million keys takes, if each page comes after so long."""
    return _KEYS / _PAGE * (answer_s + _WORK_S + rest_s(_WORK_S, answer_s))


def test_rests_grow_with_the_time_of_an_answer_within_bounds() -> None:
    rests = [rest_s(0.0, ms / 1000) for ms in range(10)]
    assert rests == sorted(rests)
    assert (rests[0], rests[-1]) == (LEAST_S, MOST_S)
    assert LEAST_S < rests[1] < MOST_S


def test_work_is_its_share_of_the_time_at_most() -> None:
    for worked_s in (0.0005, 0.005, 0.05):
        assert worked_s <= (worked_s + rest_s(worked_s, 0.0)) / SHARE


def test_a_million_keys_take_less_than_a_minute_while_others_wait() -> None:
    assert copy_s(0.0005) < 0.5 * copy_s(0.003)
    assert copy_s(0.003) < _LIMIT_S


def test_where_cpus_are_full_half_of_the_time_nothing_is_asked() -> None:
    assert rest_s(0.0005, 0.04) == 0.04
    assert rest_s(0.0005, 0.04, late_s=0.05) == 0.09
