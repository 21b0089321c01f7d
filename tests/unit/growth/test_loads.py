"""The policy on a model of a cluster, under loads that stay, turn, burst and walk: it does not swing, and
never makes things worse twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from cluster.growth.foreseen import Came
from cluster.growth.wishes import Kind, is_move
from tests.unit.growth.model import MOVE_S, PUTS, STEP_S, Model, even, keys

HOUR = 3600.0
K = keys()
LOW, HIGH = K[:100], K[100:]


def check(model: Model) -> None:
    """What holds whatever the load does."""
    moves = [(at, wished) for at, wished in model.done if is_move(wished)]
    for at, wished in moves:
        assert sum(at <= other < at + HOUR for other, _ in moves) <= model.limits.moves
        assert not [other for since, other in moves if 0 < since - at < model.limits.span_rest_s
                    and not (other.end != b"\0" and other.end <= wished.start)
                    and not (wished.end != b"\0" and wished.end <= other.start)], "a span rests"
    worse = 0
    for at, _ in moves:
        before, after = (int((at + s) / STEP_S) - 1 for s in (0.0, MOVE_S + 3 * STEP_S))
        if after < len(model.hottest):
            worse += model.hottest[after] > model.hottest[before] + 0.05
    assert worse <= 1, "it never makes things worse twice"
    assert model.policy.told.came[Came.WRONG] <= model.limits.wrong


@pytest.mark.parametrize("seed", range(4))
def test_a_load_that_stays_gets_one_shard_and_then_nothing(seed: int) -> None:
    model = Model(lambda now: even(0.95 * PUTS, K), seed=seed)
    model.run(HOUR)
    assert model.kinds() == ["add", "move"]
    model.run(11 * HOUR)
    assert model.kinds() == ["add", "move"], "half a day brings nothing more"
    assert model.hottest[-1] < model.limits.hot
    assert model.policy.told.came == {Came.RIGHT: 2}
    check(model)


def test_a_load_that_fits_gets_nothing() -> None:
    model = Model(lambda now: even(0.6 * PUTS, K))
    model.run(24 * HOUR)
    assert model.done == []
    assert model.advised == []


def test_more_than_two_leaders_can_do_gets_several_shards() -> None:
    model = Model(lambda now: even(2.2 * PUTS, K))
    model.run(12 * HOUR)
    assert model.hottest[-1] < 1.0
    assert not model.policy.told.stopped
    assert Counter(model.kinds())["add"] <= 5
    check(model)


@pytest.mark.parametrize("period_s", [120.0, 1200.0, 3 * HOUR])
def test_a_load_that_turns_has_both_its_halves_cut_once(period_s: float) -> None:
    def turns(now: float) -> Mapping[bytes, float]:
        first = int(now / period_s) % 2 == 0
        return {**even(0.9 * PUTS, LOW if first else HIGH), **even(0.05 * PUTS, HIGH if first else LOW)}

    model = Model(turns)
    model.run(9 * HOUR)
    assert Counter(model.kinds()) == {"add": 1, "move": 2}
    check(model)


@pytest.mark.parametrize("seconds", [20.0, 50.0])
def test_bursts_of_less_than_a_minute_bring_nothing(seconds: float) -> None:
    model = Model(lambda now: even((0.95 if now % (3 * seconds) < seconds else 0.1) * PUTS, K))
    model.run(3 * HOUR)
    assert model.done == []


@pytest.mark.parametrize("seconds", [300.0, 2000.0, 4 * HOUR])
def test_longer_bursts_bring_a_shard_that_then_stays(seconds: float) -> None:
    model = Model(lambda now: even((0.95 if now % (3 * seconds) < seconds else 0.1) * PUTS, K))
    model.run(30 * HOUR)
    assert Counter(model.kinds())["add"] <= 3, "one that was missed is not retired again that day"
    check(model)


@pytest.mark.parametrize("keys_a_minute", [1, 10, 100])
def test_a_load_that_walks_is_followed_where_that_helps(keys_a_minute: int) -> None:
    def walks(now: float) -> Mapping[bytes, float]:
        first = int(now / 60) * keys_a_minute
        return even(0.95 * PUTS, [b"/k/%08d" % number for number in range(first, first + 100)])

    model = Model(walks)
    model.run(2 * HOUR)
    assert Counter(model.kinds())["add"] <= 2
    check(model)


def test_a_shard_that_is_not_needed_any_more_gives_its_keys_back_and_retires() -> None:
    model = Model(lambda now: even((0.95 if now < HOUR else 0.1) * PUTS, K))
    model.run(4 * HOUR)
    assert model.kinds() == ["add", "move", "retire", "retire"], "first its keys, then the shard"
    assert [shard for shard, known in model.table.shards.items() if known.state.name == "DROPPED"] == [1]
    at = model.done[2][0]
    assert at >= HOUR + model.limits.retire_for_s


def test_without_compactions_no_shard_retires() -> None:
    model = Model(lambda now: even((0.95 if now < HOUR else 0.1) * PUTS, K))
    model.compacts = False
    model.run(6 * HOUR)
    assert model.kinds() == ["add", "move"]


def test_an_advisor_does_nothing_and_says_so_all_the_time() -> None:
    model = Model(lambda now: even(0.95 * PUTS, K), auto=False)
    model.run(HOUR)
    assert model.done == []
    assert {wished.kind for _, wished in model.advised} == {Kind.ADD}
    assert model.advised[0][0] <= model.limits.for_s + 2 * STEP_S


@pytest.mark.parametrize(("load", "free", "word"), [
    ({b"/one": 0.8 * PUTS, b"/two": 0.15 * PUTS}, 2.0, "one key"),
    (even(0.95 * PUTS, K), 0.4, "no CPU free"),
])
def test_what_no_shard_helps_is_said(load: Mapping[bytes, float], free: float, word: str) -> None:
    model = Model(lambda now: load, free_cpus=free)
    model.run(HOUR)
    assert model.done == []
    assert {wished.kind for _, wished in model.advised} == {Kind.SAY}
    assert word in model.advised[0][1].text
