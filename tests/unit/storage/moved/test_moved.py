"""G6: what moved keys' shards show at every revision, against one store of all keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.effects import records
from cluster.evaluate.overlay import Overlay
from cluster.evaluate.steps import finish
from cluster.placement.changes import Moved, move_item, moved_item
from cluster.placement.table import Move
from node.storage import StateStore
from node.storage.state.slices.lease_check import check_leases
from node.storage.state.slices.stale_rows import drop_stale_rows
from node.storage.state.staging import begin_copy, stage_events
from tests.unit.storage.moved.cluster import KEYS, LEASES, SHARDS, Cluster
from tests.unit.storage.state.stores import history


def drive(root: Path, seed: int, steps: int) -> Cluster:
    cluster = Cluster(root, seed)
    choose = cluster.random
    for _ in range(steps):
        doing = choose.choice((
            "put", "put", "put", "put", "delete", "delete", "range", "begin", "pages", "pages", "end",
            "compact", "remove", "drop", "reopen"))
        if doing == "put":
            cluster.put(choose.choice(KEYS))
        elif doing == "delete":
            cluster.delete(choose.choice(KEYS))
        elif doing == "range":
            cluster.delete_range()
        elif doing == "compact":
            if choose.random() < 0.3:
                cluster.compact()
        else:
            {"begin": cluster.begin, "pages": cluster.pages, "end": cluster.end, "drop": cluster.drop,
             "remove": cluster.remove_compacted, "reopen": cluster.reopen}[doing]()
        cluster.check()
    return cluster


@pytest.mark.parametrize("seed", range(6))
def test_g6_each_key_is_shown_by_its_owner_at_every_revision(tmp_path: Path, seed: int) -> None:
    cluster = drive(tmp_path, seed, 50)
    cluster.close()
    cluster.check_backup()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path, 1, hosts=1)
    yield made
    made.close()


def moving(cluster: Cluster, key: bytes, target: int = SHARDS - 1) -> StateStore:
    """A move of a key's directory begins; the store of its target."""
    end = key[:1] + b"\xff"
    cluster.place(move_item(Move(1, key[:1], end, cluster.table.owners(key[:1], end), target)))
    store = cluster.stores[0, target]
    begin_copy(store, 1, key[:1], end)
    return store


def test_an_event_that_is_older_than_a_page_does_not_count(cluster: Cluster) -> None:
    cluster.put(b"a1")
    first = cluster.model.revision
    cluster.put(b"a1")
    target = moving(cluster, b"a1")
    while not cluster.page(0).whole:
        pass
    staged = stage_events(target, [(first, 0, b"a1", b"older", 0)], first)
    assert (staged.live, staged.event_revision) == (1, first)
    cluster.place(moved_item(Moved(1, True, cluster.model.revision, 1)))
    assert target.staged is None
    cluster.check()


def test_g5_a_switch_is_not_applied_without_the_whole_copy(cluster: Cluster) -> None:
    cluster.put(b"a1")
    target = moving(cluster, b"a1")
    with pytest.raises(AssertionError, match="G5"):
        cluster.place(moved_item(Moved(1, True, cluster.model.revision, 1)))
    assert target.current(b"a1") is None


def test_g6_history_shows_no_change_of_a_key_that_is_not_owned(cluster: Cluster) -> None:
    """No order has one (G3): a replica that met one would tell watches twice."""
    moved = moving(cluster, b"a1")
    source = cluster.stores[0, cluster.table.owners(b"a", b"a\xff")[0]]
    while not cluster.page(0).whole:
        pass
    cluster.place(moved_item(Moved(1, True, cluster.model.revision, 0)))
    for store in (source, moved):
        store.apply_changes([(store.revision, records.put(b"a1", 0, 1, b"", 0), 0, -1)],
                            (cluster.index + 1, cluster.index + 1, 1, store.revision + 1))
    assert [len(history(store, b"a", b"b", 1).events) for store in (source, moved)] == [0, 1]


def test_g6_a_transaction_reads_the_revision_of_the_switch_where_the_keys_were_then(cluster: Cluster) -> None:
    cluster.put(b"a1")
    target = moving(cluster, b"a1")
    source = cluster.stores[0, cluster.table.owner(b"a1")]
    while not cluster.page(0).whole:
        pass
    revision = cluster.model.revision
    cluster.place(moved_item(Moved(1, True, revision, 1)))
    for at, shown in ((revision, source), (0, target)):
        for store in (source, target):
            keys = [key for key, _ in Overlay(store).scan(b"a", b"b", at) if key]
            assert keys == ([b"a1"] if store is shown else [])


def test_leases_are_checked_without_what_other_shards_own(cluster: Cluster) -> None:
    cluster.random.choice = lambda some: some[-1]  # type: ignore[method-assign]  # a lease
    cluster.put(b"a1")
    source = cluster.stores[0, cluster.table.owner(b"a1")]
    target = moving(cluster, b"a1")
    while not cluster.page(0).whole:
        pass
    assert finish(check_leases(target)).keys == 0
    assert list(drop_stale_rows(target, 1_000_000)) == [0], "a copy keeps its lease"
    cluster.place(moved_item(Moved(1, True, cluster.model.revision, 1)))
    cluster.delete(b"a1")
    cluster.control(cluster.model.revoke(LEASES[-1]))
    for store, rows in ((source, 0), (target, 0)):
        check = finish(check_leases(store))
        assert (check.mismatches, check.keys, check.rows) == (0, 0, rows), check.examples
