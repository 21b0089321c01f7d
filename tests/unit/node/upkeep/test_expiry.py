"""Leases that end: in turns of the loop that are short, however many keys hang on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from node.upkeep.expiry import Expiry
from tests.unit.proxy.fakes import ManualLoop


class Node:
    """A leader with leases, of which each that is even has very many keys."""

    def __init__(self) -> None:
        self.looks = 0
        self.most = 0  # looks in one turn
        self.work: list[Iterator[None]] = []
        self.ended: list[int] = []
        self.loop: Any = ManualLoop()
        store = SimpleNamespace(hangs_many=self._hangs_many, remember_lease_keys=lambda lease, step: iter(()))
        node: Any = SimpleNamespace(
            loop=self.loop, store=store, slicer=SimpleNamespace(start=lambda work: self.work.append(work)),
            wake=lambda: None, writes=SimpleNamespace(leader=SimpleNamespace(expire=self._expire)),
        )
        self.expiry = Expiry(node)

    def _hangs_many(self, lease: int, many: int) -> bool:
        self.looks += lease % 2 == 0
        return lease % 2 == 0

    def _expire(self, lease: int) -> int:
        self.ended.append(lease)
        return 1

    def settle(self, begin: Callable[[], None]) -> None:
        """To the end, with a look at each turn."""
        begin()
        for _ in range(1000):
            self.most, self.looks = max(self.most, self.looks), 0
            work, self.work = self.work, []
            if not work and not self.loop._soon:
                return
            self.loop.turn()
            for one in work:
                for _ in one:
                    pass
        raise AssertionError("it does not end")


@pytest.mark.parametrize("shards", [1, 2])
def test_a_turn_looks_at_few_large_leases(shards: int) -> None:
    """A look at one costs 0.2 to 0.5 ms, and five hundred may be due at once."""
    node = Node()
    due = list(range(1, 501))
    if shards == 1:
        node.settle(lambda: node.expiry.add(due))
    else:
        node.settle(lambda: node.expiry.as_read(due, node.ended.extend))
    assert sorted(node.ended) == due
    assert node.most <= 20
