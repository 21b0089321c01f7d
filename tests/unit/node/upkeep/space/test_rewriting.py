"""Shards of a host rewrite their files one after the other, and leave room on the disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.effects import records
from cluster.placement import Placement
from node.storage import defragment
from node.storage.errors import Filled
from node.storage.state.moving.staged import Left
from node.storage.state.moving.staging import drop_span
from node.upkeep.space import giving_back
from node.upkeep.space.rewriting import LOCK
from tests.unit.node.upkeep.replicas import Make, Replica

QUOTA, MARGIN = 16_000, 10_000
ROUND_S = 3 * giving_back._ROOM_AGAIN_S


def short_of_quota(replica: Make, monkeypatch: pytest.MonkeyPatch, run_dir: str, shard: int = 0) -> Replica:
    """Rows that went make it rewrite its files."""
    node = replica(
        shard=shard, run_dir=run_dir, quota_backend_bytes=QUOTA, min_free_disk_bytes=MARGIN)
    monkeypatch.setattr(node.store, "size_in_use_bytes", lambda: QUOTA)
    return node


def test_shards_of_a_host_rewrite_one_after_the_other(
    replica: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them may find the room that both together lack."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    one, two = (short_of_quota(replica, monkeypatch, str(run_dir), shard) for shard in (0, 1))
    seen: list[str] = []

    def first(*spare_bytes: int) -> None:
        seen.append("first")
        two.upkeep.moved_rows_went()
        seen.append("first ended")

    monkeypatch.setattr(one.store, "defragment", first)
    monkeypatch.setattr(two.store, "defragment", lambda *spare_bytes: seen.append("second"))
    one.upkeep.moved_rows_went()
    assert seen == ["first", "first ended"]
    (again,) = two.loop.later
    again()
    assert seen == ["first", "first ended", "second"]


def test_no_shard_waits_where_the_lock_cannot_be_made(
    replica: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk may be too full for it: that must not keep the shard from making room."""
    for run_dir in (str(tmp_path / "gone"), ""):
        node = short_of_quota(replica, monkeypatch, run_dir)
        seen: list[int] = []
        monkeypatch.setattr(node.store, "defragment", lambda spare, hosts, seen=seen: seen.append(spare))
        node.upkeep.moved_rows_went()
        assert seen == [MARGIN // 2]


@pytest.mark.parametrize(("free", "needed", "fits"), [
    (3 * MARGIN, 5 * MARGIN // 2, True), (3 * MARGIN, 5 * MARGIN // 2 + 1, False),  # half the margin stays
    (MARGIN, 3 * MARGIN // 4, True), (MARGIN, 3 * MARGIN // 4 + 1, False),  # a host that is short
    (0, 0, True)])  # that helps most
def test_a_rewrite_leaves_half_the_margin_or_a_quarter_of_what_is_free(
    replica: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, needed: int, fits: bool
) -> None:
    """Flushes and appends of this and other shards go on meanwhile. Without room they end the host."""
    node = short_of_quota(replica, monkeypatch, str(tmp_path))
    begun: list[str] = []
    monkeypatch.setattr(defragment, "free_bytes", lambda path: free)
    monkeypatch.setattr("node.storage.state.store.room", lambda database: needed)
    monkeypatch.setattr(defragment.Defragmenting, "run", lambda self, database, path: begun.append(path))
    node.upkeep.moved_rows_went()
    assert bool(begun) is fits
    assert (tmp_path / LOCK).exists()


def compact(node: Replica) -> None:
    node.apply(records.compact(node.store.revision))
    while not node.store.compaction_step(1_000_000):
        pass
    node.store.flush()


class Disk:
    """Of a host that is short of space, and has rows to drop."""

    def __init__(
        self, replica: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int = 0
    ) -> None:
        self.node = short_of_quota(replica, monkeypatch, str(tmp_path))
        self.free, self.needs = free, MARGIN
        self.tries = self.rewrites = 0
        self.fills = False
        monkeypatch.setattr(defragment, "free_bytes", self.looked_at)
        monkeypatch.setattr("node.storage.state.store.room", lambda database: self.needs)
        monkeypatch.setattr(defragment.Defragmenting, "run", self.rewritten)
        self.node.upkeep.moved_rows_went()

    def looked_at(self, path: str) -> int:
        self.tries += 1
        self.node.loop.now_s += 0.001
        return self.free

    def rewritten(self, database: object, path: str) -> None:
        self.rewrites += 1
        if self.fills:
            raise Filled("no space left")
        self.pass_time(2)  # the node goes on meanwhile

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.node.loop.now_s += 1
            later, self.node.loop.later = self.node.loop.later, []
            for call in later:
                call()
            self.node.upkeep.second()


def test_what_found_no_room_is_tried_again_and_done_once_there_is_some(
    replica: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of hosts that share a disk none might begin, and the store stayed full after its keys were gone."""
    disk = Disk(replica, tmp_path, monkeypatch)
    disk.pass_time(3 * ROUND_S)
    assert (disk.tries, disk.rewrites) == (10, 0), "each looks at all files"
    disk.free = 4 * MARGIN
    disk.pass_time(ROUND_S + 1)
    assert disk.rewrites == 1
    disk.pass_time(3 * ROUND_S)
    assert disk.rewrites == 1


def test_what_found_no_room_waits_until_the_disk_has_it_for_all_hosts(
    replica: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts that share a disk all began as soon as it had room for one, and filled it: it ended them."""
    disk = Disk(replica, tmp_path, monkeypatch)
    disk.free = 3 * MARGIN
    disk.pass_time(3 * ROUND_S)
    assert disk.rewrites == 0
    disk.free = 4 * MARGIN
    disk.pass_time(ROUND_S)
    assert disk.rewrites == 1


def test_a_compaction_tries_it_at_once(
    replica: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(replica, tmp_path, monkeypatch)
    disk.free = 3 * MARGIN
    disk.node.upkeep.moved_rows_went()
    disk.pass_time(1)
    assert disk.rewrites == 1


def test_a_host_that_starts_anew_asks_again(
    replica: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operators of a full disk restart hosts. What the process before lacked the room for was forgotten."""
    node = short_of_quota(replica, monkeypatch, str(tmp_path))
    begun: list[int] = []
    monkeypatch.setattr(node.store, "defragment", lambda spare, hosts: begun.append(hosts))
    node.upkeep.begin(started=True)
    assert not begun, "nothing was ever compacted"
    node.apply(2 * records.put(b"k", 0, 1, b"v", 0))
    node.store.flush()
    compact(node)
    node.upkeep.begin()
    assert not begun, "an install brings new files"
    node.upkeep.begin(started=True)
    assert begun == [3], "all hosts may start together"


def test_a_start_near_the_quota_rewrites_nothing_that_is_live(
    replica: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each host of an upgrade rewrote gigabytes, and freed no byte."""
    node = short_of_quota(replica, monkeypatch, str(tmp_path))
    begun: list[int] = []
    monkeypatch.setattr(node.store, "defragment", lambda spare, hosts: begun.append(hosts))
    puts = b"".join(records.put(b"%d" % i, 0, 1, b"v", 0) for i in range(100))
    node.apply(puts + records.compact(1))
    assert node.store.compaction_step(1_000_000)
    node.store.flush()
    node.upkeep.begin(started=True)
    assert not begun


def large_values_went(node: Replica) -> None:
    """Ten versions of one, beside many tiny keys."""
    node.apply(b"".join(records.put(b"%d" % i, 0, 1, b"v", 0) for i in range(500)))
    for _ in range(10):
        node.apply(records.put(b"big", 0, 1, os.urandom(50_000), 0))
    node.store.flush()
    compact(node)


def compacted(node: Replica) -> None:
    """As a node does it, up to the newest revision."""
    node.apply(records.compact(node.store.revision))
    node.upkeep.compaction.due()
    while node.loop.soon:
        node.loop.soon.pop()()


@pytest.mark.parametrize(("versions", "kept", "quota", "merged", "rewrites"), [
    (30, 20, 0, False, True),
    (6, 0, 0, False, False),  # less than a write buffer went
    (30, 40, 0, False, False),  # less than half of the files
    (30, 40, 9, False, True),  # while three quarters of the quota are in use, half is not needed,
    (6, 10, 2, False, True),  # nor a write buffer
    (30, 100, 16, False, False),
    (30, 40, 10, False, False),
    (30, 20, 0, True, False)])  # RocksDB has merged it
def test_a_compaction_gives_back_what_much_of_the_files_is(
    replica: Make, monkeypatch: pytest.MonkeyPatch, versions: int, kept: int, quota: int, merged: bool,
    rewrites: bool
) -> None:
    """Few, large values that had gone counted for the quota until RocksDB merged that, or it was used up."""
    node = replica(quota_backend_bytes=quota * 1_000_000)
    store = node.store
    done: list[int] = []
    rewrite = store.defragment

    def rewritten(spare_bytes: int, hosts: int) -> None:
        done.append(hosts)
        rewrite(spare_bytes, hosts)

    monkeypatch.setattr(store, "defragment", rewritten)
    monkeypatch.setattr(node.loop, "call_later", lambda after_s, call: node.loop.soon.append(call))
    store.database.set_options({"disable_auto_compactions": "true"})  # what goes stays where it is
    for n in range(kept):
        node.apply(records.put(b"%d" % n, 0, 1, os.urandom(100_000), 0))
    for _ in range(versions):
        node.apply(records.put(b"big", 0, 1, os.urandom(100_000), 0))
    store.flush()
    if merged:
        node.apply(records.compact(store.revision))
        while not store.compaction_step(1_000_000):
            pass
        store.flush()
        store.database.compact_range(None, None)
    compacted(node)
    assert len(done) == rewrites
    if rewrites:
        assert store.size_in_use_bytes() < (kept + 2) * 100_000
    for _ in range(3):  # little goes with each of them
        node.apply(records.put(b"big", 0, 1, b"", 0))
        compacted(node)
    assert len(done) == rewrites, "nothing else has gone since"


def rewrites_of(node: Replica, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Each of its store's files that it wants, none of which is done; nor does RocksDB merge any itself."""
    wanted: list[int] = []
    monkeypatch.setattr(node.store, "defragment", lambda spare_bytes, hosts: wanted.append(hosts))
    node.store.database.set_options({"disable_auto_compactions": "true"})
    return wanted


def test_what_rocksdb_merged_long_ago_hides_no_large_values(
    replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After months of small changes the mean of all that had gone was theirs: nothing was given back."""
    node = replica()
    store, done = node.store, rewrites_of(node, monkeypatch)
    node.apply(b"".join(records.put(b"small", 0, 1, b"v" * 200, 0) for _ in range(10_000)))
    store.flush()
    compact(node)
    store.database.compact_range(None, None)
    compacted(node)
    assert not done
    for _ in range(30):
        node.apply(records.put(b"big", 0, 1, os.urandom(100_000), 0))
    store.flush()
    compact(node)
    compacted(node)
    assert done == [1]


def test_what_went_before_it_reached_a_file_is_in_none(
    replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where compactions come often, files without a removed row were rewritten again and again."""
    node = replica()
    store, done = node.store, rewrites_of(node, monkeypatch)
    monkeypatch.setattr(node.loop, "call_later", lambda after_s, call: node.loop.soon.append(call))
    for n in range(20):
        node.apply(records.put(b"%d" % n, 0, 1, os.urandom(100_000), 0))
    for n in range(60):
        if n % 7 == 0:
            store.flush()
        node.apply(records.put(b"hot", 0, 1, os.urandom(100_000), 0))
        compacted(node)
    assert not done


def keys_moved_away(node: Replica) -> None:
    """One mark deletes all of them."""
    node.apply(b"".join(records.put(b"%03d" % i, 0, 1, os.urandom(1000), 0) for i in range(500)))
    node.store.flush()
    compact(node)
    left = Left(1, b"050", b"500", 1, 0, 0, Placement(2, 1).table)
    for _ in drop_span(node.store, left.start, left.end, left):
        pass
    node.store.flush()


@pytest.mark.parametrize("went", [large_values_went, keys_moved_away])
def test_a_start_rewrites_files_where_few_deletions_give_much_back(
    replica: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, went: Callable[[Replica], None]
) -> None:
    """By the number of rows nothing was worth it: the store stayed full."""
    node = short_of_quota(replica, monkeypatch, str(tmp_path))
    node.store.database.set_options({"disable_auto_compactions": "true"})  # RocksDB must not be first
    went(node)
    before = node.store.size_bytes()
    node.upkeep.begin(started=True)
    assert node.store.size_bytes() < before / 4


def test_a_second_shortage_that_finds_no_room_is_told(
    replica: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(giving_back.log, "warning", lambda event, **facts: told.append(event))
    disk = Disk(replica, tmp_path, monkeypatch)
    disk.pass_time(2 * ROUND_S)
    assert len(told) == 1
    monkeypatch.setattr(disk.node.store, "size_in_use_bytes", lambda: 0)
    disk.pass_time(2)
    monkeypatch.setattr(disk.node.store, "size_in_use_bytes", lambda: QUOTA)
    disk.pass_time(2 * ROUND_S)
    assert len(told) == 2


def test_a_lack_in_a_shortage_after_a_full_disk_is_told(
    replica: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What filled the disk was taken for a line that the lack has had, for as long as the process ran."""
    told: list[str] = []
    monkeypatch.setattr(giving_back.log, "warning", lambda event, **facts: told.append(facts["why"]))
    disk = Disk(replica, tmp_path, monkeypatch)
    disk.free, disk.fills = 6 * MARGIN, True
    disk.pass_time(2 * ROUND_S)
    assert told.pop() == "no space left"
    assert len(told) == 1
    monkeypatch.setattr(disk.node.store, "size_in_use_bytes", lambda: 0)
    disk.pass_time(2)
    monkeypatch.setattr(disk.node.store, "size_in_use_bytes", lambda: QUOTA)
    disk.free = 0
    disk.node.upkeep.moved_rows_went()
    assert len(told) == 2


def test_what_found_no_room_waits_while_the_store_has_space(
    replica: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To rewrite all files for nothing would slow clients down."""
    disk = Disk(replica, tmp_path, monkeypatch)
    disk.free = 4 * MARGIN
    monkeypatch.setattr(disk.node.store, "size_in_use_bytes", lambda: 0)
    disk.pass_time(3 * ROUND_S)
    assert (disk.tries, disk.rewrites) == (1, 0)
    monkeypatch.setattr(disk.node.store, "size_in_use_bytes", lambda: QUOTA)
    disk.pass_time(ROUND_S + 1)
    assert disk.rewrites == 1


def test_a_rewrite_that_filled_the_disk_is_not_tried_again(
    replica: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk ends hosts that share it."""
    disk = Disk(replica, tmp_path, monkeypatch)
    disk.free, disk.fills = 4 * MARGIN, True
    disk.pass_time(3 * ROUND_S)
    assert disk.rewrites == 1
