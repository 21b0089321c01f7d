"""G2, G7: every read shows one revision of all keys, whatever moves while it is on its way."""

from __future__ import annotations

from random import Random

import pytest

from tests.unit.proxy.moved.racing import Order


def run(seed: int, steps: int = 150) -> Order:
    order = Order(Random(seed))
    for _ in range(steps):
        order.step()
    order.finish()
    return order


@pytest.mark.parametrize("seed", range(40))
def test_reads_are_of_one_revision_whatever_moves(seed: int) -> None:
    run(seed)


def test_keys_move_and_reads_are_answered_in_these_runs() -> None:
    orders = [run(seed) for seed in range(4)]
    assert sum(len(order.tables) for order in orders) > 20
    assert sum(bool(asked.call.replies) for order in orders for asked in order.calls) > 60
