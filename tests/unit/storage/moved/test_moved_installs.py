"""Snapshots and backups in the middle of a move: what is copied, and what has left, goes along."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.order.moving.copier import Ask
from cluster.placement.changes import Moved, move_item, moved_item
from cluster.placement.table import Move
from node.backup.rows import Checkpoint
from node.storage import StateStore
from node.storage.state.moving.staging import answer
from tests.unit.storage.moved.cluster import SHARDS, SMALL, Cluster
from tests.unit.storage.state.stores import received

TARGET = SHARDS - 1
KEYS = [b"a/%d" % i for i in range(9)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path, 1, hosts=1)
    for key in KEYS:
        made.put(key)
    made.place(move_item(Move(1, b"a/", b"a0", made.table.owners_of(b"a/", b"a0"), TARGET)))
    made.copy(0)
    yield made
    made.close()


def installed(donor: StateStore, root: Path) -> StateStore:
    """A replica that was empty, with the donor's state."""
    store = StateStore.open(root / "new", shard=donor.shard, **SMALL)
    sink = received(donor, root / "outgoing", store.root, 10_000)
    sink.finish()
    store.install(sink)
    return store


def test_an_install_brings_the_copy_which_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    target = cluster.stores[0, TARGET]
    while (staged := cluster.page(0)).live < 4:
        pass
    store = installed(target, tmp_path)
    assert store.staged == staged
    assert list(store.scan(b"\0", b"\0")) == [], "G6: it does not count"
    target.close()
    cluster.stores[0, TARGET] = store
    cluster.copy(0)
    while cluster.copiers[0].through < cluster.model.revision:
        cluster.page(0)
    assert cluster.page(0).live == len(KEYS)
    cluster.place(moved_item(Moved(1, True, cluster.model.revision, len(KEYS))))
    cluster.check()


def test_an_install_of_a_source_brings_what_has_left(cluster: Cluster, tmp_path: Path) -> None:
    while cluster.copiers[0].through < cluster.model.revision:
        cluster.page(0)
    move, revision = cluster.copiers[0].move, cluster.model.revision
    cluster.place(moved_item(Moved(1, True, revision, cluster.page(0).live)))
    cluster.put(KEYS[0])
    source = cluster.stores[0, cluster.table.owners_at(KEYS[0], b"", revision)[0]]
    store = installed(source, tmp_path)
    try:
        page = answer(store, move, Ask(source.shard, True, b"a/"))
        assert (page.revision, page) == (revision, answer(source, move, Ask(source.shard, True, b"a/")))
        assert KEYS[0] in [key for key, _ in page.rows]
        assert store.left == source.left
    finally:
        store.close()


def test_a_backup_in_the_middle_of_a_move_has_what_its_shard_owns(cluster: Cluster) -> None:
    while cluster.page(0).live < 4:
        pass
    cluster.close()
    found = []
    for shard in range(SHARDS):
        checkpoint = Checkpoint(Path(cluster.stores[0, shard].path), shard)
        mine = sum(len(some) for some in checkpoint.keys(cluster.model.revision, 0))
        assert not (shard == TARGET and mine), "G6: a copy is nobody's"
        found.append(mine)
        checkpoint.close()
    assert sum(found) == len(KEYS)
