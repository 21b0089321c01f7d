"""Where the order that one host has whole ends (H18)."""

from __future__ import annotations

from cluster.order import records
from cluster.order.log import Cut, encode_cut
from cluster.order.salvage import Kept, kept

OWN = records.put(b"a", 0, 1, b"v", 0)
ORDER = [(1, b""), (2, OWN + encode_cut({1: Cut(3, 1, 2)})), (3, OWN), (4, encode_cut({1: Cut(5, 2, 4), 2: Cut(2, 1, 1)})), (5, OWN)]
LOGS = {(1, 3): 1, (1, 5): 2, (2, 2): 1}


def salvaged(logs: dict[tuple[int, int], int], applied: dict[int, int] | None = None) -> Kept:
    return kept(ORDER, applied or {1: 0, 2: 0}, lambda shard, index: logs.get((shard, index)))


def test_a_host_that_has_every_entry_keeps_everything() -> None:
    assert salvaged(LOGS) == Kept(5)


def test_the_first_cut_that_is_not_matched_ends_it_with_the_record_before() -> None:
    assert salvaged({**LOGS, (2, 2): 2}) == Kept(3, 2, Cut(2, 1, 1))  # another leader's entry
    assert salvaged({(1, 3): 1, (2, 2): 1}) == Kept(3, 1, Cut(5, 2, 4))  # none
    assert salvaged({}) == Kept(1, 1, Cut(3, 1, 2))


def test_what_is_applied_need_not_be_in_the_log_any_more() -> None:
    assert salvaged({(1, 5): 2}, {1: 3, 2: 2}) == Kept(5)
