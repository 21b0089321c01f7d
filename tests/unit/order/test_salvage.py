"""Where the order that one host has whole ends (H18)."""

from __future__ import annotations

import pytest

from cluster.effects import records
from cluster.order.log import Attempt, Cut, Multi, Part, encode_cut, encode_multi, entry
from cluster.order.salvage import CannotBeKept, Kept, Plan, common, kept, planned
from cluster.placement.changes import Moved, move_item, moved_item
from cluster.placement.table import Move
from cluster.raft.types import Entry, EntryKind

OWN = records.put(b"a", 0, 1, b"v", 0)
ORDER = [
    (1, b""), (2, OWN + encode_cut({1: Cut(3, 1, 2)})), (3, OWN),
    (4, encode_cut({1: Cut(5, 2, 4), 2: Cut(2, 1, 1)})), (5, OWN),
]
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


def plan_of(ordered: int, logs: dict[tuple[int, int], int], order: list[tuple[int, bytes]] = ORDER) -> Plan:
    return planned(lambda: order, {1: 0, 2: 0}, [0, ordered], lambda shard, index: logs.get((shard, index)))


def test_what_is_behind_the_last_cut_goes_from_every_log() -> None:
    assert plan_of(0, LOGS) == Plan(5, {1: 5, 2: 2}, {}, {1: 2, 2: 1})
    assert plan_of(3, {(1, 3): 1}) == Plan(3, {1: 3, 2: 0}, {}, {1: 2, 2: 1})


def test_what_a_node_has_applied_is_kept_with_entries_that_are_made_up() -> None:
    found = plan_of(4, {**LOGS, (1, 5): 1})  # another leader's entry
    assert (found.order_index, found.last) == (4, {1: 5, 2: 2})
    assert found.made_up == {
        1: [Entry(4, 2, EntryKind.NOOP, b""), Entry(5, 2, EntryKind.RECORD, entry(4, b""))]}
    assert plan_of(4, {(1, 3): 1, (1, 5): 2}).made_up == {
        2: [Entry(1, 1, EntryKind.NOOP, b""), Entry(2, 1, EntryKind.RECORD, entry(1, b""))]}


def test_a_transaction_over_several_shards_that_stands_on_what_is_lost_cannot_be_kept() -> None:
    change = Multi(Attempt(1, 1), 1, {2: 1}, [Part(0, 2, 0, OWN)])
    order = [*ORDER, (6, encode_multi(change))]
    lost = {(1, 3): 1, (1, 5): 2}
    assert plan_of(5, lost, order).order_index == 5
    with pytest.raises(CannotBeKept, match="order record 6 changes shard 2"):
        plan_of(6, lost, order)


@pytest.mark.parametrize("began", ["in the records", "before them", "nobody knows"])
def test_a_switch_from_a_shard_whose_entries_are_lost_cannot_be_kept(began: str) -> None:
    """G5: the target would wait for keys that are nowhere, or have what the source lacks."""
    move, moved = Move(7, b"a", b"b", (2,), 1), moved_item(Moved(7, True, 3, 1))
    first = [(1, move_item(move))] if began == "in the records" else ORDER[:1]
    known = move if began == "before them" else None

    def plan(order: list[tuple[int, bytes]], logs: dict[tuple[int, int], int]) -> Plan:
        return planned(lambda: [*first, *order], {1: 0, 2: 0}, [6],
                       lambda shard, index: logs.get((shard, index)), known)

    order, cancelled = [*ORDER[1:], (6, moved)], [*ORDER[1:], (6, moved_item(Moved(7, False, 0, 0)))]
    assert plan(order, LOGS).made_up == {}
    assert plan(cancelled, {(1, 3): 1, (1, 5): 2}).made_up.keys() == {2}
    with pytest.raises(CannotBeKept, match="order record 6 keys move away from shard 2, of which"):
        plan(order, {(1, 3): 1, (1, 5): 2})
    if began == "nobody knows":
        with pytest.raises(CannotBeKept, match="away from shard 1"):
            plan(order, {(1, 3): 1, (2, 2): 1})
    else:
        assert plan(order, {(1, 3): 1, (2, 2): 1}).made_up.keys() == {1}


def test_cuts_of_a_shard_without_a_node_here_are_no_matter() -> None:
    """It was dropped, or forms: it owns no keys."""
    order = [(1, encode_cut({3: Cut(1, 1, 0)})), (2, encode_cut({1: Cut(3, 1, 2), 3: Cut(2, 1, 0)}))]
    logs = {(1, 3): 1}
    assert kept(order, {1: 0}, lambda shard, index: logs.get((shard, index))) == Kept(2)
    found = planned(lambda: order, {0: 0, 1: 0}, [0], lambda shard, index: logs.get((shard, index)))
    assert (found.order_index, found.last, found.made_up) == (2, {0: 0, 1: 3}, {})


def test_an_order_that_names_an_entry_twice_is_refused() -> None:
    with pytest.raises(CannotBeKept, match="order record 6 names entry 5 of shard 1"):
        plan_of(6, LOGS, [*ORDER, (6, encode_cut({1: Cut(5, 2, 4)}))])


def common_of(
    ordered: dict[int, int], applied: dict[int, int], logs: dict[tuple[int, int], int], begins: int = 0
) -> Kept:
    def term_at(shard: int, index: int) -> int | None:
        return logs.get((shard, index))

    return common(lambda first: ORDER[first - 1 :], begins, applied, ordered, term_at)


def test_all_shards_come_as_far_as_the_first_entry_that_one_of_them_lacks() -> None:
    """However far the others have applied the order; what has been is no matter of the logs any more."""
    assert common_of({0: 5, 1: 5, 2: 3}, {0: 5, 1: 5, 2: 0}, {}) == Kept(3, 2, Cut(2, 1, 1))
    assert common_of({0: 5, 1: 5, 2: 1}, {0: 5, 1: 5, 2: 0}, {(2, 2): 1}) == Kept(5)
    assert common_of({0: 2, 1: 2, 2: 1}, {0: 2, 1: 3, 2: 0}, {(2, 2): 1}) == Kept(3, 1, Cut(5, 2, 4))
    assert common_of({0: 5, 1: 5, 2: 5}, {0: 5, 1: 5, 2: 2}, {}) == Kept(5)


def test_a_shard_by_itself_is_not_held_up_by_what_others_lack() -> None:
    applied = {0: 0, 1: 0, 2: 0}
    assert common_of({0: 0}, applied, {}) == Kept(5)
    assert common_of({2: 0}, applied, {(2, 2): 1}) == Kept(5)
    assert common_of({1: 1}, applied, {(1, 3): 1, (2, 2): 1}) == Kept(3, 1, Cut(5, 2, 4))


def test_nobody_is_carried_on_by_records_that_are_not_kept_any_more() -> None:
    assert common_of({0: 5, 1: 2, 2: 5}, {0: 5, 1: 3, 2: 2}, LOGS, begins=3) == Kept(2)
    assert common_of({0: 5, 1: 3, 2: 5}, {0: 5, 1: 3, 2: 2}, LOGS, begins=3) == Kept(5)
