"""A full disk is told from a damaged one, and holds what it held."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.effects import records
from cluster.raft import Configuration, Entry, EntryKind
from node.replica.opening import open_disks
from node.storage import DiskFull, NoRoom, RaftLog, StateStore, SyncFailed
from node.storage.defragment import room
from tests.small_disk import mounted
from tests.unit.machines import machine_on

GROUP = Configuration(frozenset({1}))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    with mounted(tmp_path, "64m") as disk:
        yield disk


def fill(disk: Path) -> None:
    """A file that takes all the room there is."""
    with open(disk / "filler", "ab") as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(file.fileno(), bytes(size))


def write_on(log: RaftLog) -> None:
    for first in range(101, 100_000, 1000):
        log.append(entries(first, first + 999))
        log.sync()


def entries(first: int, last: int) -> list[Entry]:
    return [Entry(index=i, term=1, kind=EntryKind.RECORD, data=b"x" * 1000) for i in range(first, last + 1)]


def refused(disk: Path) -> None:
    for opened in (
        lambda: RaftLog.open(disk / "log", initial=GROUP),
        lambda: StateStore.open(disk / "state"),
    ):
        fill(disk)  # again: a start that failed has removed files that were not needed any more
        with pytest.raises(DiskFull, match=r"No space left on device\. Nothing is damaged"):
            opened()


def test_a_new_replica_on_a_full_disk_is_refused_for_that(small_disk: Path) -> None:
    refused(small_disk)
    (small_disk / "filler").unlink()
    RaftLog.open(small_disk / "log", initial=GROUP).close()
    StateStore.open(small_disk / "state").close()


def test_a_replica_whose_disk_is_full_at_the_start_lost_nothing(small_disk: Path) -> None:
    log = RaftLog.open(small_disk / "log", initial=GROUP)
    log.append(entries(1, 100))
    log.close()
    store = StateStore.open(small_disk / "state")
    store.apply([(i, 1, records.put(b"k%d" % i, 0, 1, b"v", 0)) for i in range(1, 101)])
    store.flush()
    store.close()
    for _ in range(2):
        refused(small_disk)
    (small_disk / "filler").unlink()
    log = RaftLog.open(small_disk / "log", initial=GROUP)
    store = StateStore.open(small_disk / "state")
    assert (log.last_index(), store.position.order_index) == (100, 100)
    fill(small_disk)
    with pytest.raises(SyncFailed, match="No space left on device"):
        write_on(log)
    store.close()


def test_what_a_disk_has_no_room_for_is_not_defragmented_and_flushes_go_on(small_disk: Path) -> None:
    store = StateStore.open(small_disk / "state", write_buffer_bytes=4 << 20)
    store.database.set_options({"disable_auto_compactions": "true"})  # they take and give room meanwhile
    fill(small_disk)
    indexes, random = iter(range(1, 1000)), Random(1)

    def do(items: list[bytes], beside: int) -> None:
        """Flush a record of ``items``, and fill the disk again but for so many bytes."""
        (small_disk / "filler").unlink()
        store.apply([(next(indexes), 1, b"".join(items))])
        store.flush()
        fill(small_disk)
        os.truncate(small_disk / "filler", (small_disk / "filler").stat().st_size - beside)

    for start in (0, 1, 2):
        do([records.put(b"%d" % i, 0, 1, random.randbytes(1000), 0) for i in range(start, 9000, 3)], 4 << 20)
    with pytest.raises(NoRoom, match=r"may need \d{7,8} bytes of the disk, and 41\d{5} are free"):
        store.defragment()
    store.apply([(next(indexes), 1, records.put(b"more", 0, 1, b"x" * 100_000, 0))])
    store.flush()
    do([records.delete(b"%d" % i) for i in range(9000)], 24 << 20)
    do([records.compact(store.revision)], 24 << 20)
    while store.compacting:
        store.compaction_step(1_000_000)
    store.flush()
    full = store.size_bytes()
    assert room(store.database) < 0.6 * full, "half of what deletions drop does not count"
    store.defragment()
    assert store.size_bytes() < full / 2
    store.close()


def test_a_start_first_removes_the_snapshots_that_filled_the_disk(small_disk: Path) -> None:
    settings: Any = SimpleNamespace(
        data_dir=str(small_disk), unsafe_no_fsync=True, genesis="", block_cache_bytes=1 << 20, shard=0,
        write_buffer_bytes=1 << 20, range_cache_bytes=0, order_log_bytes=1 << 30)
    lefts = "state/incoming-1-1", "state/left-incoming-1-1", "outgoing/checkpoint-1", "backups/checkpoint-2"
    for left in lefts:
        log, store = open_disks(settings, machine_on(), GROUP)
        log.close()
        store.close()
        (small_disk / left).mkdir(parents=True)
        fill(small_disk)
        (small_disk / "filler").rename(small_disk / left / "000001.sst")
        with pytest.raises(DiskFull):
            RaftLog.open(small_disk / "log", initial=GROUP)
    log, store = open_disks(settings, machine_on(), GROUP)
    log.close()
    store.close()
    assert not [left for left in lefts if (small_disk / left).exists()]
