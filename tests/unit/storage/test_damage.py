"""A flipped bit in any file is found out, at open or at the read that meets it; it never changes an
answer."""

from __future__ import annotations

import errno
import itertools
import os
import random
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from cluster.effects import records
from cluster.raft.types import Configuration, Entry, HardState
from node.storage import RaftLog, StateStore, StorageCorruption
from node.storage.defragment import Defragmenting
from node.storage.errors import Scarce, raise_open, raise_read, raise_write
from tests.soaking import SOAK
from tests.unit.storage.conftest import OpenStore
from tests.unit.storage.state.stores import damage_table, do, history, with_many_tables
from tests.unit.storage.workload import CONFIGURATION, stream

FLIPS = 60 if SOAK else 12
# Files that carry nothing which is served: RocksDB's own diary, its lock, and the options, which we give
# anew.
UNREAD = ("LOG", "LOCK", "OPTIONS")


def flips(root: Path, aside: Path, seed: int) -> Iterator[str]:
    """Copies of a directory, each with one bit flipped, evenly over all files; says which bit."""
    rng = random.Random(seed)
    files = sorted(f.relative_to(root) for f in root.rglob("*") if f.is_file() and f.stat().st_size)
    for name in files:
        if name.name.startswith(UNREAD):
            continue
        size = (root / name).stat().st_size
        for at in {0, size - 1, *(rng.randrange(size) for _ in range(FLIPS))}:
            shutil.rmtree(aside, ignore_errors=True)
            shutil.copytree(root, aside)
            data = bytearray((aside / name).read_bytes())
            bit = rng.randrange(8)
            data[at] ^= 1 << bit
            (aside / name).write_bytes(data)
            yield f"bit {bit} of byte {at} of {size} of {name}"


def outcome(read: Callable[[], object]) -> tuple[str, object]:
    try:
        return "served", read()
    except StorageCorruption as e:
        return "refused", str(e)


@pytest.mark.longer
@pytest.mark.timeout(900)
def test_a_flipped_bit_in_any_file_of_the_state(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store("state")
    source = stream(9)
    for _ in range(4):
        store.apply([next(source) for _ in range(50)])
        store.flush()
    store.compaction_step(10_000)
    store.close()

    def read_all(path: Path) -> object:
        store = StateStore.open(path, block_cache_bytes=1 << 20, write_buffer_bytes=1 << 20)
        try:
            low = max(1, store.compact_revision)
            rows = {
                revision: list(store.scan(b"\0", b"\0", revision))
                for revision in range(low, store.revision + 1, 25)
            }
            keys = [key for key, _ in rows[low]]
            return (
                store.position,
                rows,
                store.count(b"\0", b"\0"),
                [(store.current(key), store.get(key)) for key in keys],
                history(store, b"\0", b"\0", low, want_prev=True, max_events=10**6).events,
                list(store.leases()),
                [store.lease_keys(lease) for lease in (1, 2, 3)],
                store.hash_state().run(),
            )
        finally:
            store.close()

    truth = read_all(tmp_path / "state")
    refused = 0
    for what in flips(tmp_path / "state", tmp_path / "flipped", 4):
        result, found = outcome(lambda: read_all(tmp_path / "flipped"))
        if result == "served":
            # It may have hit bytes that mean nothing (padding, an unused property); then nothing has changed.
            assert found == truth, what
        else:
            refused += 1
            assert str(tmp_path / "flipped") in str(found), f"{what}: the message does not say where: {found}"
    assert refused > 20


@pytest.mark.parametrize("database", ["state/db-1", "log/db"])
def test_a_manifest_with_a_record_of_a_recycled_file_is_refused(
    open_store: OpenStore, tmp_path: Path, database: str
) -> None:
    """RocksDB reads such a record, one bit away from a whole one, again and again without end."""
    def opens() -> RaftLog | StateStore:
        if database == "log/db":
            return RaftLog.open(tmp_path / "log", initial=CONFIGURATION)
        return open_store("state")

    opens().close()
    (manifest,) = (tmp_path / database).glob("MANIFEST-*")
    whole = manifest.read_bytes()
    records = [at for at, byte in enumerate(whole) if byte == 1 and at > 6]
    assert len(records) > 5, "types of records are among these"
    for at in records:
        manifest.write_bytes(whole[:at] + bytes([5]) + whole[at + 1 :])
        with pytest.raises(StorageCorruption, match=str(tmp_path / database)):
            opens()


@pytest.mark.longer
@pytest.mark.timeout(900)
def test_a_flipped_bit_in_any_file_of_the_log(tmp_path: Path) -> None:
    """In the write-ahead log, too, where RocksDB itself would drop the rest and go on (H10)."""
    log = RaftLog.open(tmp_path / "closed", initial=CONFIGURATION)
    log.append([Entry(i, 1, 1, bytes([i]) * 50) for i in range(1, 60)], HardState(1, 1, 0))
    log.close()  # these are in a table now
    log = RaftLog.open(tmp_path / "closed", initial=CONFIGURATION)
    log.append([Entry(i, 2, 1, bytes([i]) * 50) for i in range(60, 100)], HardState(2, 3, 0))
    log.sync()
    shutil.copytree(tmp_path / "closed", tmp_path / "log")  # these in a write-ahead log
    log.close()

    def read_all(path: Path) -> object:
        log = RaftLog.open(path, initial=Configuration(frozenset()))
        try:
            entries = log.entries(1, log.last_index(), 1 << 30)
            return entries, log.hard_state(), log.snapshot_position()
        finally:
            log.close()

    truth = (
        [Entry(i, 1 if i < 60 else 2, 1, bytes([i]) * 50) for i in range(1, 100)],
        HardState(2, 3, 0),
        log.snapshot_position(),
    )
    refused = 0
    for what in flips(tmp_path / "log", tmp_path / "flipped", 5):
        result, found = outcome(lambda: read_all(tmp_path / "flipped"))
        if result == "served":
            assert found == truth, what
        else:
            refused += 1
            assert str(tmp_path / "flipped") in str(found), f"{what}: the message does not say where: {found}"
    assert refused > 20


def test_a_damaged_block_in_the_middle_does_not_end_a_range_early(
    open_store: OpenStore, tmp_path: Path
) -> None:
    """RocksDB's iterator stops at a damaged block as at the end of the data: that must not look like fewer
    keys."""
    store = open_store()
    store.apply([(1, 1, b"".join(records.put(b"%05d" % i, 0, 1, os.urandom(100), 0) for i in range(3000)))])
    store.close()
    table = max((tmp_path / "state" / "db-1").glob("*.sst"), key=lambda f: f.stat().st_size)
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.write_bytes(data)
    store = open_store()
    for read in (
        lambda: list(store.scan(b"\0", b"\0")),
        lambda: store.count(b"\0", b"\0"),
        lambda: list(store.reader().scan(b"\0", b"\0")),
        lambda: [store.current(b"%05d" % i) for i in range(3000)],
        lambda: [store.get(b"%05d" % i) for i in range(3000)],
        lambda: store.hash_kv().run(),
        lambda: history(store, b"\0", b"\0", 2, max_events=10**6, max_scan=10**6, max_bytes=1 << 30),
    ):
        with pytest.raises(StorageCorruption, match=r"checksum mismatch.*\.sst"):
            read()


def test_damage_that_a_compaction_meets_first_is_no_failed_write(
    open_store: OpenStore, tmp_path: Path
) -> None:
    """RocksDB refuses all writes then, also in the next life: a start again would not help."""
    store = open_store()
    do(store, *(records.put(b"%05d" % i, 0, 1, os.urandom(200), 0) for i in range(2000)))
    store.close()
    damage_table(store)
    for _ in range(2):
        store = open_store()

        def write(store: StateStore = store) -> None:
            do(store, *(records.put(b"%05d" % i, 1, 2, b"", 0) for i in range(0, 2000, 19)))

        def go_on(store: StateStore = store, write: Callable[[], None] = write) -> None:
            for _ in range(100):
                write()
                store.flush()
                time.sleep(0.02)

        for way in (go_on, write, store.flush, store.close):
            with pytest.raises(StorageCorruption, match=r"checksum mismatch.*\.sst"):
                way()


def test_a_defragmentation_that_meets_damage_first_blames_no_full_disk(open_store: OpenStore) -> None:
    store = open_store()
    do(store, *(records.put(b"%05d" % i, 0, 1, os.urandom(200), 0) for i in range(2000)))
    store.close()
    damage_table(store)
    store = open_store()
    do(store, *(records.put(b"%05d" % i, 0, 1, b"", 0) for i in range(0, 2000, 50)))
    for way in (store.defragment, store.close):
        with pytest.raises(StorageCorruption, match=r"checksum mismatch.*\.sst"):
            way()


def test_damage_of_a_database_that_an_install_replaces_ends_no_node() -> None:
    """It came while the defragmentation asked what had failed."""
    failures, closed = itertools.count(), threading.Event()
    defragmenting = Defragmenting()

    def flush(wait: bool) -> None:
        closing.start()
        assert closed.wait(10)
        raise Exception("Corruption: block checksum mismatch")

    database: Any = SimpleNamespace(
        compact_range=lambda first, last: None, flush=flush, close=lambda: None,
        cancel_all_background=lambda wait: closed.set(), property_int_value=lambda name: next(failures),
    )

    def install() -> None:
        defragmenting.replaces(database)
        defragmenting.close(database)

    closing = threading.Thread(target=install)
    defragmenting.run(database, "db-1")
    closing.join()


def test_a_stop_does_not_wait_until_the_state_is_defragmented() -> None:
    """It took minutes, and its supervisor killed the host, which closed nothing."""
    compacting, ended, closed = threading.Event(), threading.Event(), threading.Event()
    defragmenting = Defragmenting()

    def compact(first: None, last: None) -> None:
        compacting.set()
        if ended.wait(1):
            raise Exception("Shutdown in progress")

    database: Any = SimpleNamespace(
        compact_range=compact, close=closed.set, cancel_all_background=lambda wait: ended.set(),
        property_int_value=lambda name: 0,
    )
    running = threading.Thread(target=defragmenting.run, args=(database, "db-1"))
    running.start()
    assert compacting.wait(10)
    defragmenting.stop(database)
    assert ended.is_set()
    assert closed.is_set()
    running.join()
    compacting.clear()
    defragmenting.run(database, "db-1")
    assert not compacting.is_set(), "none begins behind it"


@contextmanager
def no_file_left() -> Iterator[None]:
    """This process may open no file any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


def test_a_lack_of_files_is_no_damage(tmp_path: Path) -> None:
    """Another program of the machine may have used them up, for a moment: each host stopped for good."""
    store = with_many_tables(tmp_path / "state")
    rows = store.reader().scan(b"\0", b"\0")
    with no_file_left(), pytest.raises(Scarce, match="Too many open files"):
        list(rows)
    assert len(list(store.reader().scan(b"\0", b"\0"))) == 5000
    do(store, records.put(b"x", 0, 1, b"", 0))
    with no_file_left(), pytest.raises(Scarce, match="Too many open files"):
        store.flush()
    with suppress(Scarce):  # RocksDB refuses it from now on: the process ends
        store.close()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize("turn", [
    raise_open, lambda e, path: raise_read(e, path, "reading"), lambda e, path: raise_write(e, path, "it")])
def test_what_may_pass_is_told_from_damage(turn: Callable[[Exception, str], NoReturn], code: int) -> None:
    text = f"IO error: While open a file for random read: db-1/000012.sst: {os.strerror(code)}"
    with pytest.raises(Scarce, match=os.strerror(code)):
        turn(Exception(text), "db-1")


def test_reads_do_not_rename_errors_that_are_ours() -> None:
    with pytest.raises(StorageCorruption, match=r"^here$"):
        raise_read(StorageCorruption("here"), "path", "reading")


def test_a_damaged_pointer_is_refused(open_store: OpenStore, tmp_path: Path) -> None:
    open_store().close()
    pointer = tmp_path / "state" / "current"
    good = pointer.read_text()
    for bad in ("", "db-1\n", "db-2 " + good.split()[1], good.replace("db-1", "db-9"), "\0" * 10):
        pointer.write_text(bad)
        with pytest.raises(StorageCorruption, match="current"):
            open_store()
    pointer.write_text(good)
    open_store()


def test_a_missing_database_is_not_taken_for_a_fresh_one(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store()
    store.apply([(1, 1, b"")])
    store.close()
    shutil.copytree(tmp_path / "state", tmp_path / "no pointer")
    (tmp_path / "no pointer" / "current").unlink()
    with pytest.raises(StorageCorruption, match="'current' is missing"):
        open_store("no pointer")
    shutil.rmtree(tmp_path / "state" / "db-1")
    with pytest.raises(StorageCorruption, match="holds no database"):
        open_store()
