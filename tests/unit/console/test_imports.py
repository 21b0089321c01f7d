"""Keys of a file are written in transactions that a store takes (tools.console.store.keys.copies)."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from muster_client.ops import Op

from tools.console.store.keys import copies

MIB = 1024 * 1024


class Store:
    """Takes transactions, and keeps how many puts and bytes each has."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, int]] = []
        self.keys: list[bytes] = []

    def when(self) -> Store:
        return self

    async def then(self, *ops: Op) -> None:
        self.taken.append((len(ops), sum(op.request.ByteSize() for op in ops)))
        self.keys += [op.request.request_put.key for op in ops]


@pytest.mark.parametrize(
    ("sizes", "transactions"),
    [
        ([], 0),
        ([10] * 250, 3),
        ([20_000] * 100, 2),
        ([600_000] * 3, 3),
        ([10, 1_500_000, 10], 3),
        ([1_500_000], 1),
    ],
)
def test_an_import_is_cut_by_keys_and_by_bytes(sizes: list[int], transactions: int) -> None:
    pairs = [(b"/key/%03d" % n, bytes(size)) for n, size in enumerate(sizes)]
    store = Store()
    assert asyncio.run(copies.load(cast(Any, store), pairs)) == len(pairs)
    assert store.keys == [key for key, _ in pairs]
    assert len(store.taken) == transactions
    for puts, size in store.taken:
        assert puts <= 100
        assert size <= MIB or puts == 1
