"""What one host can keep of a store whose other hosts are lost (H18): the longest beginning of the order that it has whole.

Its copy of the order log may name entries of a shard that its replica of that shard has not, or has otherwise (a log's tail
need not be committed): a node would wait for them for ever. So the order is kept up to the last record before the first
cut that the host's own logs do not match, in index and in term, which proves the prefix (log matching). What stands behind
it is dropped, and said to be; shards' entries behind their last kept cut have no place in the order and go with it.

Pure. The simulator applies it to what crashes leave on one host; the start option that is to use it (``--force-new-cluster``)
is to come, and with it the state's way back to that revision and the groups' new configurations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from cluster.order.log import Cut, decode_cut
from cluster.order.records import Item, items


class Kept(NamedTuple):
    """How far the order goes that a host has whole, and what is missing behind it."""

    order_index: int
    shard: int = 0  # whose log does not match; 0: nothing is missing
    cut: Cut = Cut()


def kept(
    records: Iterable[tuple[int, bytes]], applied: Mapping[int, int], term_at: Callable[[int, int], int | None],
) -> Kept:
    """``records``: the host's order records, ascending, each with its index, those that its least node has applied among
    them; ``applied``: the log index that each shard's state covers; ``term_at(shard, index)``: of the entry in the host's
    log of the shard, None if there is none."""
    last = 0
    for index, data in records:
        for kind, pos, end in items(data):
            if kind == Item.CUT:
                for shard, cut in decode_cut(data, pos, end):
                    # what is applied was matched when it was
                    if cut.index > applied[shard] and term_at(shard, cut.index) != cut.term:
                        return Kept(last, shard, cut)
        last = index
    return Kept(last)
