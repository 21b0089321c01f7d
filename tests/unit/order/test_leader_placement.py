"""Where leaders are wanted: one attempt at a time, never to and fro."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from cluster.leader_placement import (
    MAX_LAG,
    MOST_PAUSES,
    SPREAD,
    TOGETHER,
    BackOff,
    Candidate,
    LeaderPlacement,
    wanted,
)

SETTLE_MS = 2000


def up(*members: int, lag: int = 0, order_lag: int | None = 0) -> list[Candidate]:
    return [Candidate(m, True, lag, order_lag) for m in members]


def test_together_means_on_the_sequencers_host() -> None:
    assert wanted(TOGETHER, 4, 1, 3, up(2, 3)) == 3
    assert wanted(TOGETHER, 4, 3, 3, up(1, 2)) == 3


@pytest.mark.parametrize(("hosts", "shards"), [(3, 3), (3, 7), (5, 64), (1, 4)])
def test_spread_gives_every_host_as_many_as_any_other(hosts: int, shards: int) -> None:
    members = range(10, 10 + hosts)
    for sequencer in members:
        led = Counter([sequencer])
        for shard in range(1, shards):
            # whoever leads now, the wish is the same: the leaders of different shards need not talk to each
            # other
            wishes = {
                wanted(SPREAD, shard, own, sequencer, up(*(m for m in members if m != own)))
                for own in members
            }
            assert len(wishes) == 1
            led.update(wishes)
        assert max(led.values()) - min(led[m] for m in members) <= 1


def test_a_host_that_is_down_is_not_wanted() -> None:
    gone = [Candidate(2, True, 0), Candidate(3, False, 0)]
    assert wanted(TOGETHER, 1, 1, 3, gone) == 1  # the sequencer's word has not reached everybody
    assert {wanted(SPREAD, shard, 1, 1, gone) for shard in range(6)} == {1, 2}
    assert wanted(TOGETHER, 1, 1, 0, up(2, 3)) == 1


def test_a_wish_must_have_stood_for_a_while() -> None:
    placement = LeaderPlacement(TOGETHER, 1, 1, settle_ms=SETTLE_MS)
    assert placement.decide(10_000, 2, up(2, 3)) == 0
    assert placement.decide(10_000 + SETTLE_MS - 1, 2, up(2, 3)) == 0
    assert placement.decide(10_000 + SETTLE_MS, 3, up(2, 3)) == 0, "another wish settles anew"
    assert placement.decide(10_000 + 2 * SETTLE_MS, 3, up(2, 3)) == 3


def test_a_target_that_lags_is_waited_for() -> None:
    placement = LeaderPlacement(TOGETHER, 1, 1, settle_ms=SETTLE_MS)
    for now in range(10_000, 30_000, 1000):
        assert placement.decide(now, 2, up(2, lag=MAX_LAG + 1)) == 0
    assert placement.decide(30_000, 2, up(2, lag=MAX_LAG)) == 2


@pytest.mark.parametrize("order_lag", [MAX_LAG + 1, None])
def test_a_target_that_lags_in_the_order_is_waited_for(order_lag: int | None) -> None:
    placement = LeaderPlacement(TOGETHER, 1, 1, settle_ms=SETTLE_MS)
    for now in range(10_000, 30_000, 1000):
        assert placement.decide(now, 2, up(2, order_lag=order_lag)) == 0
        assert placement.wish == 2, "it is asked again"
    assert placement.decide(30_000, 2, up(2, order_lag=MAX_LAG)) == 2


def test_leadership_that_comes_back_is_moved_ever_more_rarely() -> None:
    placement = LeaderPlacement(TOGETHER, 1, 1, settle_ms=SETTLE_MS)
    moves = []
    for now in range(0, 3_600_000, 1000):
        if placement.decide(now, 2, up(2, 3)):
            moves.append(now)
            placement.resigned()  # and elected again at once
    assert len(moves) < 3_600_000 / (2 * SETTLE_MS * MOST_PAUSES) + MOST_PAUSES
    gaps = [later - earlier for earlier, later in itertools.pairwise(moves)]
    assert gaps == sorted(gaps)


def test_a_quiet_time_begins_anew() -> None:
    pauses = BackOff(100)
    for _ in range(10):
        assert pauses.ready(1000)
        pauses.tried(1000)
        pauses._next_ms = 0
    assert not BackOff(100).ready(-1)
    quiet = 1000 + 2 * MOST_PAUSES * 100
    assert pauses.ready(quiet)
    pauses.tried(quiet)
    assert not pauses.ready(quiet + 99)
    assert pauses.ready(quiet + 100)
