"""What a born shard begins with is exactly its state at that place of the order (G12)."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from cluster.effects import records
from cluster.features import growth
from cluster.features.rows import RowsOf, encode
from cluster.order.log import Attempt, Control, Fold, Multi, Part, encode_multi, project
from cluster.placement.changes import shard_item
from cluster.placement.table import State
from node.storage import Position, StateStore, genesis
from node.storage.errors import StorageCorruption
from node.storage.keys import LOCAL_PREFIX

SAID = records.rows(encode(RowsOf.VERSIONS, [growth.row(1, growth.OWN.encode())]))
ORDER = [
    records.bootstrap(1, 1, 2) + SAID,
    records.put(b"a", 0, 1, b"v", 0) + records.lease_grant(7, 60) + records.lease_grant(8, 60),
    growth.item(2, (1,)) + records.put(b"b", 0, 1, b"v", 7),
    shard_item(1, State.FORMING, 1, (1,)),
    records.rows(encode(RowsOf.V2, [(b"x", b"of shard 0 alone")])) + records.lease_grant(9, 60),
    encode_multi(Multi(Attempt(1, 1), 1, {}, [Part(0, 0, 0, records.delete(b"a"))])),
    records.compact(3) + records.incarnation(1, 5),
]


def follow(store: StateStore, fold: Fold, records_: list[bytes], first: int) -> None:
    """As a node of shard 1, fed from a record on."""
    for index, record in enumerate(records_, first):
        changes = [
            (step.revision, step.item, 0, -1) for step in fold.take(project(record, 1), 1)
            if isinstance(step, Control)]
        store.apply_changes(changes, (index, 0, 0, fold.revision), meta={"fold": fold.encode()})


def lead(store: StateStore, fold: Fold, records_: list[bytes]) -> None:
    """As node 0."""
    for index, record in enumerate(records_, 1):
        changes = []
        for step in fold.take(record, 0):
            changes.append(
                (step.revision, step.item, 0, -1) if isinstance(step, Control)
                else (step.revision, step.items, 0, -1))  # type: ignore[union-attr]
        store.apply_changes(changes, (index, index, 1, fold.revision), meta={"fold": fold.encode()})


def rows_of(store: StateStore) -> dict[bytes, bytes]:
    rows = chain(store.rows(b"\0", b"m"), store.rows(b"m", b"n"), store.rows(b"n", b"\xff"))
    return {row: value for row, value in rows if not row.startswith(LOCAL_PREFIX)}


@pytest.mark.parametrize("at", range(4, len(ORDER) + 1))
def test_a_genesis_and_what_follows_is_the_state_of_a_node_that_followed_all(tmp_path: Path, at: int) -> None:
    order, fold = StateStore.open(tmp_path / "order"), Fold()
    lead(order, fold, ORDER[:at])
    position = Position(at, 0, 0, order.revision, order.compact_revision)
    rows = (row for row in genesis.Source(order).rows() if row[0] != b"mfold")
    genesis.write(tmp_path / "genesis", position, chain(rows, [(b"mfold", fold.encode())]))
    genesis.begin(tmp_path / "born", tmp_path / "genesis")
    born = StateStore.open(tmp_path / "born")
    assert born.position == born.durable_position == position
    stored = born.meta("fold")
    assert stored is not None
    follow(born, Fold.decode(stored), ORDER[at:], at + 1)

    assert not (tmp_path / "genesis").exists()
    always = StateStore.open(tmp_path / "always")
    follow(always, Fold(), ORDER, 1)
    assert rows_of(born) == rows_of(always)


def test_a_state_that_has_applied_something_takes_no_genesis(tmp_path: Path) -> None:
    store = StateStore.open(tmp_path / "born")
    follow(store, Fold(), ORDER[:2], 1)
    store.flush()
    store.close()
    genesis.write(tmp_path / "genesis", Position(9, 0, 0, 9, 0), [(b"mx", b"y")])
    genesis.begin(tmp_path / "born", tmp_path / "genesis")
    again = StateStore.open(tmp_path / "born")
    assert again.position.order_index == 2
    assert again.meta("x") is None
    assert [path.name for path in tmp_path.iterdir()] == ["born"]


def test_a_damaged_genesis_is_refused_and_a_missing_one_leaves_the_state_empty(tmp_path: Path) -> None:
    genesis.begin(tmp_path / "born", tmp_path / "none")
    assert not (tmp_path / "born").exists()
    genesis.write(tmp_path / "genesis", Position(9, 0, 0, 9, 0), [(b"mx", b"y")])
    data = bytearray((tmp_path / "genesis").read_bytes())
    data[60] ^= 1
    (tmp_path / "genesis").write_bytes(data)
    with pytest.raises(StorageCorruption, match="is damaged"):
        genesis.begin(tmp_path / "born", tmp_path / "genesis")
    assert StateStore.open(tmp_path / "born").position.order_index == 0
