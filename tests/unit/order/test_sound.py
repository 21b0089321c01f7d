"""What has no meaning in a log is skipped by everybody alike; what is newer than this program is not (decision 54)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from hypothesis import given

from cluster.effects import records
from cluster.effects.newer import NewerRecord
from cluster.effects.records import ITEM, Item, items
from cluster.faults import faults
from cluster.features.growth import LEVEL
from cluster.features.rows import MUST_KNOW, VERSION, RowsOf, encode
from cluster.order.log import Fold, project, revisions_of, skip
from cluster.order.sound import Place, sound
from cluster.placement.changes import move_item
from cluster.placement.table import Move
from tests.unit.odd_records import EXAMPLES, odd_records

PUT = records.put(b"k", 0, 1, b"v", 0)
SHARDS = (1, 2, 3)


@pytest.fixture(autouse=True)
def counted() -> Iterator[None]:
    """What is skipped is a fault of the program, which these tests are about."""
    yield
    faults.take()


def everywhere(item: bytes) -> list[Place]:
    return [place for place in Place if item[0] in place.value]


@pytest.mark.parametrize("item", EXAMPLES, ids=lambda item: f"{Item(item[0]).name}-{len(item)}")
def test_what_a_leader_writes_is_sound_where_it_belongs(item: bytes) -> None:
    assert everywhere(item)
    for place in everywhere(item):
        record = item + item
        assert sound(record, place) is record


@pytest.mark.parametrize("item", EXAMPLES, ids=lambda item: f"{Item(item[0]).name}-{len(item)}")
def test_an_item_in_a_place_where_it_cannot_be_changes_nothing_and_takes_its_revisions(item: bytes) -> None:
    before = faults.count
    places = [place for place in Place if place not in everywhere(item)]
    for place in places:
        behind = next(example for example in EXAMPLES if example[0] in place.value)
        found = sound(item + behind, place)
        assert found in (behind, *(skip(n) + behind for n in range(1, 4)))
        own = revisions_of(item, item[0], ITEM.size, len(item)) if item[0] not in (Item.MULTI, Item.SKIP) else None
        if own is not None:
            assert found == (skip(own) if own else b"") + behind
    assert faults.count == before + len(places)


@pytest.mark.parametrize(("odd", "revisions"), [
    pytest.param(ITEM.pack(Item.PUT, 3) + b"abc", 1, id="a put of three bytes"),
    pytest.param(PUT[:9] + b"\xff" + PUT[10:], 1, id="a key beyond its end"),
    pytest.param(records.delete(b""), 1, id="a delete of no key"),
    pytest.param(records.txn([records.lease_grant(1, 1)]), 1, id="a grant in a transaction"),
    pytest.param(ITEM.pack(Item.TXN, 2) + b"\x03\x01", 1, id="a transaction cut short"),
    pytest.param(records.delete_range(b"b", b"a", 1), 1, id="a span that ends before it begins"),
    pytest.param(ITEM.pack(Item.LEASE_GRANT, 1) + b"x", 0, id="a grant of one byte"),
    pytest.param(ITEM.pack(Item.LEASE_REVOKE, 3) + b"xyz", 0, id="a revoke of three bytes"),
    pytest.param(ITEM.pack(Item.COMPACT, 0), 0, id="a compaction of nothing"),
    pytest.param(records.publish(b"\x0a\xff"), 0, id="a member cut short"),
    pytest.param(ITEM.pack(Item.ALARM, 2) + b"\1\1", 0, id="an alarm of nobody"),
    pytest.param(records.puts(2, [b"a"], [b"\x0a"], [True]), 1, id="a put whose KeyValue has no room for its key"),
    pytest.param(ITEM.pack(Item.PUTS, 12) + b"\xff" * 12, 0, id="four billion puts in twelve bytes"),
    pytest.param(ITEM.pack(0, 2) + b"xy", 0, id="kind 0"),
    pytest.param(ITEM.pack(Item.SHARD, 3) + b"abc", 0, id="a shard of three bytes"),
    pytest.param(ITEM.pack(Item.SHARD, 5) + b"\1\0\5\1\0", 0, id="a shard in no state"),
    pytest.param(ITEM.pack(Item.MOVED, 1) + b"a", 0, id="the end of a move of one byte"),
    pytest.param(move_item(Move(1, b"", b"l", (0,), 1)), 0, id="a move without a first key"),
    pytest.param(move_item(Move(1, b"k", b"", (0,), 1)), 0, id="a move without an end"),
    pytest.param(move_item(Move(1, b"l", b"k", (0,), 1)), 0, id="a move that ends before it begins"),
    pytest.param(move_item(Move(1, b"k", b"l", (), 1)), 0, id="a move from nowhere"),
])
def test_an_item_without_meaning_is_skipped_and_what_follows_is_not(odd: bytes, revisions: int) -> None:
    before = faults.count
    assert sound(PUT + odd + PUT, Place.ALONE) == PUT + (skip(revisions) if revisions else b"") + PUT
    assert faults.count == before + 1


@pytest.mark.parametrize("rest", [b"\x01", b"\x01\xff\xff\xff\xff", PUT[:-1]], ids=["a byte", "a frame", "half a put"])
def test_a_record_that_is_cut_short_keeps_what_is_whole(rest: bytes) -> None:
    assert sound(PUT + rest, Place.ALONE) == PUT


@pytest.mark.parametrize("kind", [max(Item) + 1, 255])
def test_an_item_of_a_newer_program_is_never_skipped(kind: int) -> None:
    """This replica would differ from those that know it."""
    with pytest.raises(NewerRecord, match=f"kind {kind}, and this version knows none above"):
        sound(PUT + ITEM.pack(kind, 0), Place.ALONE)


@given(odd_records)
def test_what_is_sound_stays_so(record: bytes) -> None:
    for place in Place:
        with contextlib.suppress(NewerRecord):
            found = sound(record, place)
            if not any(kind == Item.SKIP for kind, _, _ in items(found)):
                assert sound(found, place) is found


@given(odd_records)
def test_every_shard_folds_an_odd_order_record_to_the_same_revision(record: bytes) -> None:
    """Each is fed its own projection: what one skips, all skip."""
    try:
        found = sound(record, Place.ORDER)
    except NewerRecord:
        return
    fold = Fold(1, {})
    try:
        fold.take(found, 0)
    except AssertionError:
        return  # it contradicts what went before it, which ends the node (I4, I10)
    for shard in SHARDS:
        projected = project(found, shard)
        assert sound(projected, Place.FED) is projected
        other = Fold(1, {})
        other.take(projected, shard)
        assert other == fold


@pytest.mark.parametrize(("item", "what"), [
    (records.rows(encode(MUST_KNOW, [(b"a", b"b")])), f"rows of feature {MUST_KNOW}, which every host must know"),
    (records.rows(bytes((RowsOf.AUTH, VERSION + 1))), f"rows of feature 1 in form {VERSION + 1}"),
    (ITEM.pack(Item.GROWTH, 2) + (LEVEL + 1).to_bytes(2, "little"), f"level {LEVEL + 1}, and this version knows"),
])
@pytest.mark.parametrize("place", [Place.ALONE, Place.ORDER, Place.FED])
def test_data_of_a_newer_program_ends_this_one_by_name(item: bytes, what: str, place: Place) -> None:
    with pytest.raises(NewerRecord, match=f"^this host is older than the cluster's data: .*{what}"):
        sound(item, place)


def test_rows_of_a_feature_that_need_not_be_known_are_kept() -> None:
    item = records.rows(encode(MUST_KNOW - 1, [(b"a", b"b")]))
    assert sound(item, Place.ORDER) is item


def test_growth_of_no_form_changes_nothing() -> None:
    for body in (b"", b"\0", b"\0\0", b"\1\0" + bytes(7)):
        assert sound(ITEM.pack(Item.GROWTH, len(body)) + body, Place.ORDER) == b""


@pytest.mark.parametrize("kind", [max(Item) + 1, 200, 255])
def test_no_fold_takes_an_unknown_item_for_an_effect(kind: int) -> None:
    record = PUT + ITEM.pack(kind, 3) + b"abc"
    with pytest.raises(NewerRecord):
        Fold(1, {}).take(record, 0)
    with pytest.raises(NewerRecord):
        project(record, 1)
