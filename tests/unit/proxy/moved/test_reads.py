"""G2, G7: every read shows one revision of all keys, whatever moves while it is on its way."""

from __future__ import annotations

from random import Random

import pytest

from tests.unit.proxy.moved.racing import Order


def run(seed: int, steps: int = 150, joined: bool = False, grown: bool = False) -> Order:
    order = Order(Random(seed), joined, grown)
    for _ in range(steps):
        order.step()
    order.finish()
    return order


@pytest.mark.parametrize("seed", range(40))
def test_reads_are_of_one_revision_whatever_moves(seed: int) -> None:
    run(seed)


@pytest.mark.parametrize("seed", range(40))
def test_reads_of_a_front_in_a_nodes_process_are_of_one_revision_whatever_moves(seed: int) -> None:
    run(seed, joined=True)


@pytest.mark.parametrize("seed", range(20))
def test_reads_of_a_store_that_grew_from_one_shard_are_of_one_revision(seed: int) -> None:
    """While all keys were back there, a transaction did not ask their owners of before."""
    run(seed, steps=300, grown=True)


def test_keys_move_and_reads_are_answered_in_these_runs() -> None:
    orders = [run(seed) for seed in range(4)]
    assert sum(len(order.tables) for order in orders) > 20
    assert sum(bool(asked.call.replies) for order in orders for asked in order.calls) > 60
    assert sum(run(seed, joined=True).beside.answered for seed in range(8)) > 20
