"""The table of placement is folded in the batch of the record that changes it (I6)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.effects import records
from cluster.effects.newer import NewerRecord
from cluster.features import growth
from cluster.features.rows import RowsOf, encode
from cluster.order.log import Control, Fold, project
from cluster.order.sound import Place, sound
from cluster.placement import table as table_form
from cluster.placement.changes import Moved, move_item, moved_item, shard_item
from cluster.placement.table import Move, State
from cluster.wire.messages import Status
from node.storage import StateStore
from node.upkeep.group.placed import Placed

BOOT = records.bootstrap(1, 1, 2)
SAID = records.rows(encode(RowsOf.VERSIONS, [growth.row(1, growth.OWN.encode())]))
GROWN = BOOT + SAID + growth.item(1, (1,))
FORMED = shard_item(1, State.FORMING, 1, (1,)) + shard_item(1, State.SERVING)
MOVE = Move(1, b"k", b"l", (0,), 1)


def put(key: bytes) -> bytes:
    return records.put(key, 0, 1, b"v", 0)


def test_a_move_is_in_the_table_at_the_revision_where_it_stands(tmp_path: Path) -> None:
    store = StateStore.open(tmp_path)
    assert store.placement() is None
    store.apply([(1, 1, GROWN)])
    table = store.placement()
    assert table is not None
    assert table.generation == 0
    assert store.meta("placement") is None
    # one record: what is before the switch in it, and behind it
    whole = (put(b"a") + FORMED + move_item(MOVE) + put(b"b") + moved_item(Moved(1, True, 3, 1)) + put(b"c"))
    assert sound(whole, Place.ALONE) is whole
    applied = store.apply([(2, 1, whole)])
    table = applied.placement
    assert table is not None
    assert (store.revision, table.generation) == (4, 4)
    assert [table.owners_at(b"k", b"", r) for r in (2, 3, 4)] == [(0,), (0,), (1,)]
    assert store.placement() == table
    assert store.apply([(3, 1, records.compact(3))]).placement is None, "revision 3 is to be read"
    applied = store.apply([(4, 1, records.compact(4))])
    assert applied.placement is not None
    assert not applied.placement.past
    store.flush()
    store.close()
    again = StateStore.open(tmp_path)
    assert again.placement() == applied.placement
    again.close()


def test_a_table_in_a_newer_form_ends_the_node_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = StateStore.open(tmp_path)
    with monkeypatch.context() as newer:
        newer.setattr(table_form, "FORM", table_form.FORM + 1)
        store.apply([(1, 1, GROWN)])
        store.apply([(2, 1, FORMED)])
    with pytest.raises(NewerRecord, match=r"older than the cluster's data: the table .* is in form 2"):
        store.placement()
    store.close()


def test_nothing_is_placed_before_growth(tmp_path: Path) -> None:
    store = StateStore.open(tmp_path)
    store.apply([(1, 1, BOOT)])
    with pytest.raises(AssertionError, match="G16"):
        store.apply([(2, 1, FORMED)])
    store.close()


def test_items_of_growth_are_in_every_projection() -> None:
    record = put(b"a") + growth.item(1, (1,)) + FORMED + move_item(MOVE) + moved_item(Moved(1, False, 0, 0))
    for shard in (1, 2):
        fed = project(record, shard)
        assert sound(fed, Place.FED) is fed
        fold = Fold()
        kinds = [step.item[0] for step in fold.take(fed, shard) if isinstance(step, Control)]
        assert kinds == [records.Item.GROWTH, records.Item.SHARD, records.Item.SHARD, records.Item.MOVE,
                         records.Item.MOVED]
        assert fold.revision == 2


def test_fronts_hear_of_a_table_once_it_is_applied(tmp_path: Path) -> None:
    store = StateStore.open(tmp_path)
    said: list[tuple[int, bytes]] = []
    node: Any = SimpleNamespace(
        fronts=SimpleNamespace(broadcast=lambda *record: said.append(record)), wake=lambda: None)
    placed = Placed(node, store)
    greeted: list[tuple[int, int, bytes]] = []
    link: Any = SimpleNamespace(version=10, watches=True, answer=lambda *record: greeted.append(record))
    store.apply([(1, 1, GROWN)])
    placed.greet(link)
    assert not greeted, "it is the table of the beginning"
    table = store.apply([(2, 1, FORMED)]).placement
    assert table is not None
    placed.applied(table)
    placed.greet(link)
    assert said == [(Status.PLACEMENT, table.encode())]
    assert greeted == [(0, Status.PLACEMENT, table.encode())]
    link.version = 9
    placed.greet(link)
    assert len(greeted) == 1
    store.close()
