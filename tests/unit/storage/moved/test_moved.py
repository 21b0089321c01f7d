"""G6: what moved keys' shards show at every revision, against one store of all keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.effects import records
from cluster.effects.records import items
from cluster.evaluate.overlay import Overlay
from cluster.evaluate.steps import finish
from cluster.grain import GRAIN
from cluster.order.moving.copier import Ask, Copier
from cluster.placement.changes import Moved, move_item, moved_item, shard_item, take
from cluster.placement.table import END, Move, State
from node.replica.moving.moved import MovedKeys
from node.storage import StateStore
from node.storage.keys import range_rows
from node.storage.state import blocks, counts
from node.storage.state.changes.apply import drained
from node.storage.state.moving import staging
from node.storage.state.moving.staging import Bounds, Unknown, answer, drop_left, drop_span, stage
from node.storage.state.slices import compaction
from node.storage.state.slices.lease_check import check_leases
from node.storage.state.slices.stale_rows import drop_stale_rows
from tests.unit.storage.moved.cluster import BASE, KEYS, LEASES, SHARDS, Cluster
from tests.unit.storage.state.stores import history


def drive(root: Path, seed: int, steps: int) -> Cluster:
    cluster = Cluster(root, seed)
    choose = cluster.random
    for _ in range(steps):
        doing = choose.choice((
            "put", "put", "put", "put", "delete", "delete", "range", "begin", "pages", "pages", "end",
            "within", "compact", "remove", "drop", "reopen", "read", "read", "read"))
        if doing == "put":
            cluster.put(choose.choice(KEYS))
        elif doing == "delete":
            cluster.delete(choose.choice(KEYS))
        elif doing == "within":
            cluster.put_within(choose.choice(KEYS))
        elif doing == "range":
            cluster.delete_range()
        elif doing == "compact":
            if choose.random() < 0.3:
                cluster.compact()
        else:
            {"begin": cluster.begin, "pages": cluster.pages, "end": cluster.end, "drop": cluster.drop,
             "remove": cluster.remove_compacted, "reopen": cluster.reopen, "read": cluster.read}[doing]()
        cluster.list_leases()
        cluster.check()
    return cluster


@pytest.mark.parametrize("seed", range(6))
def test_g6_each_key_is_shown_by_its_owner_at_every_revision(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "_BLOCK", (256, 2, 1)[seed % 3])
    monkeypatch.setattr(blocks, "_LEAST_KEPT_ROWS", 1)
    cluster = drive(tmp_path, seed, 60)
    cluster.close()
    cluster.check_backup()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path, 1, hosts=1)
    yield made
    made.close()


def moving(cluster: Cluster, key: bytes) -> StateStore:
    """A move of a key's directory to the last shard begins; the store of its target."""
    target = SHARDS - 1
    end = key[:1] + b"\xff"
    cluster.place(move_item(Move(1, key[:1], end, cluster.table.owners(key[:1], end), target)))
    cluster.copy(0)
    return cluster.stores[0, target]


def copied(cluster: Cluster) -> int:
    """Let the copy come to its end; the number of its keys."""
    while cluster.copiers[0].through < cluster.model.revision:
        cluster.page(0)
    return cluster.page(0).live


def test_a_delete_of_very_many_keys_is_told_in_pieces(cluster: Cluster) -> None:
    """Each of which takes no longer than others; the copy counts once the whole revision is here."""
    for key in (b"a/", b"a/w", b"a/x"):
        cluster.put(key)
    target = moving(cluster, b"a/")
    assert copied(cluster) == 3
    source = cluster.table.owner(b"a/")
    before = cluster.model.revision
    cluster.model.txn([("delete", key, b"", 0) for key in (b"a/", b"a/w", b"a/x")])
    cluster.index += 1
    cluster.stores[0, source].apply_changes(
        [(before, records.delete_range(b"a/", b"a0", 3), 0, 0)],
        (cluster.index, cluster.index, 1, before + 1))
    copier, places = cluster.copiers[0], []
    ask = Ask(source, False, revision=before)
    while True:
        found = answer(cluster.stores[0, source], copier.move, ask, Bounds(rows=1))
        batch = copier.take(ask, found)
        assert batch is not None
        stage(target, batch)
        places.append((found.revision, found.within, len(found.rows)))
        if found.level:
            break
        ask = Ask(source, False, revision=found.revision, within=found.within)
    assert places == [(before, 1, 1), (before, 2, 1), (before + 1, 0, 1)]
    assert target.staged is not None
    assert target.staged.live == 0


def test_a_copy_is_told_the_last_change_of_a_key_that_a_compaction_has_passed(cluster: Cluster) -> None:
    """The source lacks the put, which the delete of the same transaction follows."""
    cluster.put(b"a/x")
    target = moving(cluster, b"a/")
    assert copied(cluster) == 1
    source = cluster.stores[0, cluster.table.owner(b"a/")]
    move, before = cluster.copiers[0].move, cluster.model.revision
    for key in (b"a/", b"a/x"):
        cluster.put_within(key)
    answer(source, move, Ask(source.shard, False, revision=before))  # so that its changes are kept for it
    cluster.compact_at(cluster.model.revision)
    cluster.remove_compacted()
    told: list[bytes] = []
    ask = Ask(source.shard, False, revision=before)
    while not (found := answer(source, move, ask, Bounds(rows=1))).level:
        told += [key for key, value in found.rows if value is None]
        batch = cluster.copiers[0].take(ask, found)
        assert batch is not None
        stage(target, batch)
        ask = Ask(source.shard, False, revision=found.revision, within=found.within)
    assert set(told) == {b"a/", b"a/x"}
    assert copied(cluster) == 0


def test_a_page_passes_over_no_more_old_versions_than_its_bound(cluster: Cluster) -> None:
    for _ in range(9):
        cluster.put(b"a/")
    cluster.put(b"a/x")
    moving(cluster, b"a/")
    store = cluster.stores[0, cluster.table.owner(b"a/")]
    move, start, found = cluster.copiers[0].move, b"a", list[bytes]()
    while start is not None:
        page = answer(store, move, Ask(store.shard, True, start), Bounds(looked_at=2))
        found += [key for key, _ in page.rows]
        start = page.more
    assert found == [b"a/", b"a/x"]


def large(cluster: Cluster, count: int) -> list[bytes]:
    """Keys of 64 KiB each, of which every second one has an older version."""
    found = [b"a/%d" % number for number in range(count)]
    for number, key in enumerate(found):
        for _ in range(1 + number % 2):
            before = cluster.model.revision
            item = cluster.model.put(key, bytes(64 << 10), 0)
            cluster.apply({cluster.table.owner(key): item}, before)
    return found


def test_a_turns_work_is_bounded_in_bytes(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source reads no more than its bounds and one row for an answer, and a removal for a slice."""
    keys = large(cluster, 24)
    moving(cluster, keys[0])
    store = cluster.stores[0, cluster.table.owner(keys[0])]
    read: list[int] = []
    rows = StateStore.rows

    def reads(self: StateStore, lower: bytes, upper: bytes) -> Iterator[tuple[bytes, bytes]]:
        for row, value in rows(self, lower, upper):
            read[-1] += len(value)
            yield row, value

    monkeypatch.setattr(StateStore, "rows", reads)
    move, start, found = cluster.copiers[0].move, b"a", list[bytes]()
    while start is not None:
        read.append(0)
        page = answer(store, move, Ask(store.shard, True, start))
        told = sum(len(value) for _, value in page.rows if value is not None)
        assert told <= staging._MOST_BYTES + (65 << 10)
        found += [key for key, _ in page.rows]
        start = page.more
    assert found == sorted(keys)
    assert max(read) <= staging._MOST_BYTES + staging._MOST_PASSED_BYTES + (65 << 10)
    live = copied(cluster)
    cluster.place(moved_item(Moved(1, True, cluster.model.revision, live)))
    read[:] = [0]
    for _ in drop_left(store, store.left[1]):
        read.append(0)
    assert sum(read) > 36 * (64 << 10)
    assert max(read) <= staging._AT_ONCE_BYTES + (65 << 10)


def test_of_a_key_with_many_large_versions_a_page_reads_a_bounded_part(cluster: Cluster) -> None:
    for _ in range(9):
        large(cluster, 1)
    cluster.put(b"a/x")
    moving(cluster, b"a/")
    store = cluster.stores[0, cluster.table.owner(b"a/0")]
    page = answer(store, cluster.copiers[0].move, Ask(store.shard, True, b"a"))
    assert ([key for key, _ in page.rows], page.more) == ([b"a/0"], b"a/0\0")
    page = answer(store, cluster.copiers[0].move, Ask(store.shard, True, b"a/0\0"))
    assert ([key for key, _ in page.rows], page.more) == ([b"a/x"], None)


def test_what_has_left_is_answered_as_it_was_until_it_is_dropped(cluster: Cluster) -> None:
    cluster.put(b"a1")
    moving(cluster, b"a1")
    live, move = copied(cluster), cluster.copiers[0].move
    source = cluster.stores[0, cluster.table.owner(b"a1")]
    revision = cluster.model.revision
    cluster.place(moved_item(Moved(1, True, revision, live)))
    cluster.put(b"a1")
    cluster.reopen()
    source = cluster.stores[0, source.shard]
    page = answer(source, move, Ask(source.shard, True, b"a"))
    assert (page.revision, [key for key, _ in page.rows]) == (revision, [b"a1"])
    left = source.left[1]
    assert (left.revision, left.target, left.removal) == (revision, SHARDS - 1, 0)
    next(iter(drop_left(source, left)), None)
    with pytest.raises(Unknown):
        answer(source, move, Ask(source.shard, True, b"a"))
    with pytest.raises(Unknown):
        answer(cluster.stores[0, SHARDS - 2], move._replace(number=9), Ask(SHARDS - 2, True, b"a"))


@pytest.mark.parametrize("writes", [True, False])
def test_a_source_of_many_keeps_old_rows_of_what_it_owned_alone(cluster: Cluster, writes: bool) -> None:
    first, last = SHARDS - 2, SHARDS - 1
    for key in KEYS:
        cluster.put(key)
    cluster.move(b"a", b"b", first)
    cluster.put(b"a/")
    cluster.move(b"b", b"c", first)
    if writes:
        cluster.put(b"b/")
    cluster.move(b"\0", END, last)
    keys = MovedKeys(cluster.stores[0, first])
    assert not keys.has_old_rows(b"c", b"d"), "they were never here"
    cluster.move(b"c", b"d", first)
    assert keys.has_old_rows(b"b", b"c")
    assert keys.may_bare(3) == (not writes), "at no revision were these its own"
    if not writes:
        for _ in keys.bare(3):
            pass
        cluster.reopen()
        keys = MovedKeys(cluster.stores[0, first])
        assert not keys.has_old_rows(b"b", b"c")
        assert not keys.may_bare(3)
        cluster.move(b"b", b"c", first)
    assert keys.has_old_rows(b"a", b"b")
    assert not keys.may_drop(3)
    cluster.put(b"c/")
    cluster.check()
    cluster.compact_at(cluster.model.revision)
    assert keys.may_drop(3)
    for _ in keys.drop(3):
        pass
    assert not keys.left
    assert next(keys._store.rows(*range_rows(b"a", b"b")), None) is None
    cluster.check()


def test_what_a_source_owned_at_no_revision_goes_without_a_compaction(cluster: Cluster) -> None:
    cluster.put(b"a1")
    cluster.move(b"a", b"b", SHARDS - 2)
    cluster.move(b"a", b"b", SHARDS - 1)
    keys = MovedKeys(cluster.stores[0, SHARDS - 2])
    assert keys.may_drop(2)
    assert not MovedKeys(cluster.stores[0, BASE - 1]).may_drop(1)


@pytest.mark.parametrize("compacts", [False, True])
def test_a_read_that_outlives_two_moves_leaves_no_block_of_what_was_here_before(
    cluster: Cluster, compacts: bool) -> None:
    """The keys have changed at their owner meanwhile; here is no history that says so."""
    first, last = SHARDS - 2, SHARDS - 1
    many = [b"a/%03d" % at for at in range(24)]
    for key in many:
        cluster.put(key)
    cluster.move(b"a", b"b", first)
    store = cluster.stores[0, first]
    slow, told = store.reader().rows(b"a", b"b", 1000), list[bytes]()
    slow.more(told, 10, 1 << 20)
    cluster.move(b"a", b"b", last)
    for key in many[1:]:
        cluster.delete(key)
    if compacts:
        cluster.compact_at(cluster.model.revision)
    keys = MovedKeys(store)
    assert keys.may_drop(2)
    for _ in keys.drop(2):
        pass
    cluster.move(b"a", b"b", first)
    assert slow.more(told, 50, 1 << 20)[2], "it ends"
    assert [key in b"".join(told) for key in many] == [True] * len(many)
    rows, anew = store.reader().rows(b"a", b"b", 1000), list[bytes]()
    while not rows.more(anew, 50, 1 << 20)[2]:
        pass
    assert [key in b"".join(anew) for key in many] == [True] + [False] * (len(many) - 1)


def test_counts_go_on_over_a_switch_with_what_its_own_run_changes(cluster: Cluster) -> None:
    for key in (b"a/", b"a/w", b"b/"):
        cluster.put(key)
    target = moving(cluster, b"a/")
    source, live = cluster.stores[0, cluster.table.owner(b"a/")], copied(cluster)
    before = cluster.model.revision
    for store in (source, target):
        while not store.counts.build_step():
            pass
    item = moved_item(Moved(1, True, before, live))
    ((kind, at, end),) = items(item)
    cluster.table = take(cluster.table, item, kind, at, end, before)
    changed = [cluster.model.put(key, b"", 0) for key in (b"a/new", b"a/x")] + [cluster.model.delete(b"a/")]
    cluster.apply({**dict.fromkeys(range(SHARDS), item), target.shard: item + b"".join(changed)}, before)
    for store, moved in ((source, 0), (target, live + 1)):
        assert store.counts.ready, "they are not counted anew"
        assert store.quick_count(b"a", b"b") == moved
        assert store.quick_count(b"\0", b"\0") == len(list(store.scan(b"\0", b"\0")))


@pytest.mark.parametrize("first", [b"", b"\0"])
def test_a_source_counts_what_its_run_changes_before_it_gives_keys_away(
    cluster: Cluster, first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the span begins with the first key there can be: as an end its name is that of all keys."""
    monkeypatch.setattr(counts, "_BLOCK", 8)
    owners = [(letter, cluster.table.owner(letter + b"/")) for letter in (b"a", b"b", b"c", b"d", b"e", b"f")]
    shard, (goes, stays) = next((shard, same[:2]) for shard in range(BASE)
                                if len(same := [letter for letter, owner in owners if owner == shard]) > 1)
    for letter, keys in ((goes, 6), (stays, 4)):
        for number in range(keys):
            cluster.put(letter + b"/%d" % number)
    start, end = first or goes, goes + b"\xff"
    cluster.place(move_item(Move(1, start, end, cluster.table.owners(start, end), SHARDS - 1)))
    source = cluster.stores[0, shard]
    while not source.counts.build_step():
        pass
    while not source.counts.cut_step():
        pass
    before = cluster.model.revision
    changed = [cluster.model.delete(goes + b"/%d" % number) for number in range(4)]
    changed += [cluster.model.put(stays + b"/!%02d" % number, b"", 0) for number in range(14)]
    last = cluster.model.revision
    position = cluster.index + 1, cluster.index + 1, 1, last
    source.apply_changes(
        [(before, b"".join(changed), 0, -1), (last, moved_item(Moved(1, True, last, 2)), 0, -1)], position,
        want_events=True)
    assert source.counts.ready, "they are not counted anew"
    assert source.quick_count(b"\0", b"\0") == len(list(source.scan(b"\0", b"\0"))) == 18
    assert source.counts.keys() == 18
    assert sum(source.counts._counts) == 18
    for number in range(14):
        key = stays + b"/!%02d" % number
        assert source.quick_count(b"\0", key) == len(list(source.scan(b"\0", key)))


def test_g5_a_switch_is_not_applied_without_the_whole_copy(cluster: Cluster) -> None:
    cluster.put(b"a1")
    target = moving(cluster, b"a1")
    with pytest.raises(AssertionError, match="G5"):
        cluster.place(moved_item(Moved(1, True, cluster.model.revision, 1)))
    assert target.current(b"a1") is None


def test_g5_a_copy_that_is_being_removed_counts_no_more(cluster: Cluster) -> None:
    """The rows of its leases go first: after a crash it begins anew."""
    cluster.put(b"a1")
    target = moving(cluster, b"a1")
    assert copied(cluster) == 1
    staged = target.staged
    assert staged is not None
    removing = drop_span(target, *staged.span)
    next(removing)
    with pytest.raises(AssertionError, match="G5"):
        cluster.place(moved_item(Moved(1, True, cluster.model.revision, 1)))
    assert target.staged is not None
    assert Copier(Move(1, *staged.span, (), SHARDS - 1)).begin(target.staged.progress or None) is not None
    assert list(removing) == []
    assert target.staged is None


def test_g6_history_shows_no_change_of_a_key_that_is_not_owned(cluster: Cluster) -> None:
    """No order has one (G3): a replica that met one would tell watches twice."""
    moved = moving(cluster, b"a1")
    source = cluster.stores[0, cluster.table.owners(b"a", b"a\xff")[0]]
    copied(cluster)
    cluster.place(moved_item(Moved(1, True, cluster.model.revision, 0)))
    for store in (source, moved):
        store.apply_changes([(store.revision, records.put(b"a1", 0, 1, b"", 0), 0, -1)],
                            (cluster.index + 1, cluster.index + 1, 1, store.revision + 1))
    assert [len(history(store, b"a", b"b", 1).events) for store in (source, moved)] == [0, 1]


def test_g6_a_transaction_reads_the_revision_of_the_switch_where_the_keys_were_then(cluster: Cluster) -> None:
    cluster.put(b"a1")
    target = moving(cluster, b"a1")
    source = cluster.stores[0, cluster.table.owner(b"a1")]
    copied(cluster)
    revision = cluster.model.revision
    cluster.place(moved_item(Moved(1, True, revision, 1)))
    for at, shown in ((revision, source), (0, target)):
        for store in (source, target):
            keys = [key for key, _ in Overlay(store).scan(b"a", b"b", at) if key]
            assert keys == ([b"a1"] if store is shown else [])


def test_a_copy_counts_though_the_next_move_to_here_begins_in_the_same_run(cluster: Cluster) -> None:
    cluster.put(b"a1")
    target = moving(cluster, b"a1")
    live = copied(cluster)
    next_move = Move(2, b"b", b"b\xff", cluster.table.owners(b"b", b"b\xff"), SHARDS - 1)
    cluster.place(moved_item(Moved(1, True, cluster.model.revision, live)), move_item(next_move))
    assert target.staged is None
    cluster.place(moved_item(Moved(2, False, 0, 0)))
    assert target.current(b"a1") is not None
    cluster.check()


def test_a_copy_that_goes_between_the_slices_of_a_run_leaves_the_next_one_masked(cluster: Cluster) -> None:
    for key in (*(b"a/%d" % number for number in range(9)), b"d/"):
        cluster.put(key)
    target = cluster.stores[0, cluster.table.owner(b"a/")]
    cluster.place(move_item(Move(1, b"d/", b"d0", (0,), target.shard)))
    cluster.copy(0)
    assert copied(cluster) == 1
    cluster.place(moved_item(Moved(1, False, 0, 0)), move_item(Move(2, b"e/", b"e0", (0,), target.shard)))
    revision, index = cluster.model.revision, cluster.index + 2
    with GRAIN.finer(delete_slice_rows=4):
        run = target.apply_changes_slices(
            [(revision, shard_item(SHARDS, State.FORMING, SHARDS, (1,)), 0, -1),
             (revision, records.delete_range(b"a/", b"a0", 9), 0, -1)], (index, index, 1, revision + 1))
        next(run)
        for _ in drop_span(target, b"d/", b"d0"):
            pass
        drained(run)
    assert target.staged is None
    assert not target.shows(b"e/")


@pytest.mark.parametrize("asks_again", [True, False])
def test_changes_that_a_copy_asks_for_next_outlive_a_compaction(
    cluster: Cluster, asks_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would begin from nothing with each one near the newest revision. They go if it asks no more."""
    if not asks_again:
        monkeypatch.setattr(compaction, "_WANTED_NS", 0)
    for key in (b"a/", b"a/w"):
        cluster.put(key)
    moving(cluster, b"a/")
    copied(cluster)
    source, copier = cluster.stores[0, cluster.table.owner(b"a/")], cluster.copiers[0]
    for _ in range(3):
        at = copier.through
        for key in (b"a/", b"a/w", b"a/", b"a/x"):
            cluster.put(key)
        cluster.delete(b"a/w")
        cluster.compact_at(cluster.model.revision)
        cluster.remove_compacted()
        found = answer(source, copier.move, Ask(source.shard, False, revision=at))
        assert found.compacted != asks_again
        if asks_again:
            assert [(key, value is not None) for key, value in found.rows] == [
                (b"a/", True), (b"a/x", True), (b"a/w", False)]
        copied(cluster)
    assert next(source.changes(0))[0] >= at, "of those before the last question nothing is kept"
    cluster.place(moved_item(Moved(1, True, cluster.model.revision, copied(cluster))))
    cluster.check()


def test_leases_are_checked_without_what_other_shards_own(cluster: Cluster) -> None:
    cluster.random.choice = lambda some: some[-1]  # type: ignore[method-assign]  # a lease
    cluster.put(b"a1")
    source = cluster.stores[0, cluster.table.owner(b"a1")]
    target = moving(cluster, b"a1")
    copied(cluster)
    assert finish(check_leases(target)).keys == 0
    assert list(drop_stale_rows(target, 1_000_000)) == [0], "a copy keeps its lease"
    cluster.place(moved_item(Moved(1, True, cluster.model.revision, 1)))
    cluster.delete(b"a1")
    cluster.control(cluster.model.revoke(LEASES[-1]))
    for store, rows in ((source, 0), (target, 0)):
        check = finish(check_leases(store))
        assert (check.mismatches, check.keys, check.rows) == (0, 0, rows), check.examples
