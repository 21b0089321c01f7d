"""Checkpoints sent, received and switched in; every way to break one."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.effects import records
from cluster.errors import EtcdError
from node.storage import Position, SnapshotRefused, StateStore, StorageCorruption, directory, snapshot
from node.storage.errors import SyncFailed
from node.storage.snapshot import SnapshotSink, SnapshotSource
from node.storage.state import store as state
from node.storage.state import versions
from node.storage.state.slices.lease_check import check_leases
from tests.unit.storage.conftest import OpenStore
from tests.unit.storage.snapshots.sending import receive, sent, take
from tests.unit.storage.state.stores import do, with_many_tables
from tests.unit.storage.workload import stream

Replaced = tuple[StateStore, Iterator[tuple[bytes, bytes]]]
Read = Callable[[StateStore], Iterator[object]]


@pytest.mark.parametrize("chunk_bytes", [1, 7, 4096, 1 << 20])
def test_a_snapshot_arrives_whole_whatever_the_chunks(
    donor: StateStore, open_store: OpenStore, tmp_path: Path, chunk_bytes: int
) -> None:
    chunks = sent(donor, tmp_path, max(chunk_bytes, 300))
    if chunk_bytes == 1:
        chunks = [bytes((b,)) for b in b"".join(chunks)]
    elif chunk_bytes == 7:
        data = b"".join(chunks)
        chunks = [data[i : i + 7] for i in range(0, len(data), 7)]
    store = open_store()
    sink = receive(store, chunks)
    assert sink.finish() == donor.position
    assert store.install(sink) == donor.position == store.position == store.durable_position
    assert store.hash_state().run() == donor.hash_state().run()
    assert store.hash_kv().run() == donor.hash_kv().run()
    assert os.listdir(tmp_path / "outgoing") == []
    # and it goes on from there, and comes back after a restart
    record = (store.position.shard_index + 1, 9, records.put(b"new", 0, 1, b"value", 0))
    store.apply([record])
    donor.apply([record])
    assert store.hash_state().run() == donor.hash_state().run()
    store.close()
    assert open_store().position == donor.position
    assert sorted(os.listdir(store.root)) == ["current", "db-2"]


def defragmented(store: StateStore, batches: Iterator[int]) -> threading.Thread:
    """A thread that compacts four more tables of 40 MB; seen at work, or at its end."""
    for batch in itertools.islice(batches, 4):
        items = b"".join(records.put(b"%d %d" % (batch, i), 0, 1, os.urandom(10_000), 0) for i in range(4000))
        store.apply([(batch, 1, items)])
        store.flush()
    old = store.database
    helper = threading.Thread(target=store.defragment)
    helper.start()
    while not int(old.property_int_value("rocksdb.num-running-compactions") or 0) and helper.is_alive():
        time.sleep(0.001)
    return helper


def test_an_install_does_not_wait_until_the_old_state_is_defragmented(
    donor: StateStore, open_store: OpenStore, tmp_path: Path
) -> None:
    """RocksDB closes no database that is being compacted."""
    store = open_store()
    sink = receive(store, sent(donor, tmp_path))
    sink.finish()
    batches = itertools.count(1)
    while not (helper := defragmented(store, batches)).is_alive():
        pass  # RocksDB had compacted by itself, or was done before this thread had its turn
    store.install(sink)
    helper.join()
    assert store.position == donor.position
    assert store.hash_state().run() == donor.hash_state().run()
    store.defragment()


def test_a_stop_that_ends_a_defragmentation_loses_nothing(open_store: OpenStore) -> None:
    store = open_store()
    batches = itertools.count(1)
    while not (helper := defragmented(store, batches)).is_alive():
        pass
    store.apply([(next(batches), 1, records.put(b"last", 0, 1, b"", 0))])
    position = store.position
    store.settle()
    helper.join()
    store.close()
    assert open_store().position == position


def test_a_stop_that_cannot_flush_ends_a_defragmentation_all_the_same(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are rewritten just when the disk is short. It was waited for, up to minutes."""
    store = open_store()
    stopped: list[object] = []

    def fails() -> None:
        raise SyncFailed("no space left")

    monkeypatch.setattr(store, "flush", fails)
    monkeypatch.setattr(store._defragmenting, "stop", stopped.append)
    with pytest.raises(SyncFailed):
        store.settle()
    assert stopped == [store.database]


@pytest.fixture
def replaced(donor: StateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Replaced]:
    """A store of 5,000 keys that a snapshot has replaced, and a reader of these keys; the store is to go."""
    store = with_many_tables(tmp_path / "state")
    rows = store.reader().scan(b"\0", b"\0")
    next(rows)
    monkeypatch.setattr(state, "RETIRE_S", 0)
    sink = receive(store, sent(donor, tmp_path))
    sink.finish()
    store.install(sink)
    yield store, rows
    store.close()


def test_a_reader_of_the_replaced_state_goes_on_and_the_old_files_go_later(
    donor: StateStore, replaced: Replaced
) -> None:
    """RocksDB opens a table when it is read."""
    store, rows = replaced
    store.flush()
    assert sorted(os.listdir(store.root)) == ["current", "db-1", "db-2"]
    assert len(list(rows)) == 4999
    assert store.position == donor.position
    store.flush()
    assert sorted(os.listdir(store.root)) == ["current", "db-2"]
    assert not store.retired


def test_a_reader_that_goes_on_for_very_long_keeps_no_disk_full(
    replaced: Replaced, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused, which is no damage."""
    store, rows = replaced
    monkeypatch.setattr(state, "READERS_S", 0)
    store.flush()
    assert sorted(os.listdir(store.root)) == ["current", "db-2"]
    with pytest.raises(EtcdError, match="request timed out"):
        list(rows)


def test_a_replaced_state_that_cannot_be_removed_is_removed_later(
    replaced: Replaced, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, rows = replaced
    list(rows)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)
        store.flush()
        assert store.retired
    store.flush()
    assert sorted(os.listdir(store.root)) == ["current", "db-2"]
    assert not store.retired


def test_a_host_that_cannot_tell_what_it_has_open_keeps_a_replaced_state_and_goes_on(
    replaced: Replaced, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, rows = replaced
    listdir = os.listdir

    def listed(path: str) -> list[str]:
        if path.startswith("/proc"):
            raise OSError(errno.EMFILE, "Too many open files")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", listed)
    store.flush()
    assert store.retired
    assert len(list(rows)) == 4999


def test_readers_of_one_replaced_state_alone_keep_it(
    donor: StateStore, replaced: Replaced, tmp_path: Path
) -> None:
    """A host may get snapshot after snapshot."""
    store, rows = replaced
    newer = store.reader()
    do(donor, records.put(b"newer", 0, 1, b"", 0))
    sink = receive(store, sent(donor, tmp_path))
    sink.finish()
    store.install(sink)
    store.flush()
    assert sorted(os.listdir(store.root)) == ["current", "db-2", "db-3"]
    with pytest.raises(EtcdError, match="request timed out"):
        list(rows)
    del newer
    store.flush()
    assert sorted(os.listdir(store.root)) == ["current", "db-3"]


def test_a_replaced_state_leaves_room_for_the_next_snapshot(
    replaced: Replaced, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host cannot catch up without it."""
    store, rows = replaced
    monkeypatch.setattr(directory, "free_bytes", lambda of: 2 * store.size_bytes())
    store.flush()
    assert sorted(os.listdir(store.root)) == ["current", "db-2"]
    with pytest.raises(EtcdError, match="request timed out"):
        list(rows)


@pytest.mark.parametrize("read", [
    lambda store: store.reader().scan(b"\0", b"\0"), lambda store: store.rows(b"", b"\xff"),
    lambda store: store.changes(1)])
def test_a_read_of_a_replaced_state_blames_no_sound_one(
    donor: StateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    def gone(*of: object) -> Iterator[tuple[int, int, int, bytes]]:
        yield 1, 0, 0, b""
        raise OSError("No such file")

    monkeypatch.setattr(versions, "all_changes", gone)  # there are few tables of changes
    store = with_many_tables(tmp_path / "state")
    rows = read(store)
    next(rows)
    for name in ("RETIRE_S", "READERS_S"):
        monkeypatch.setattr(state, name, 0)
    sink = receive(store, sent(donor, tmp_path))
    sink.finish()
    store.install(sink)
    store.flush()
    with pytest.raises(EtcdError, match="request timed out"):
        list(rows)
    store.close()


def test_damage_that_a_read_meets_in_a_kept_state_is_nobodys(replaced: Replaced) -> None:
    """The state that took its place is whole: the host goes on."""
    store, rows = replaced
    for table in store.root.glob("db-1/*.sst"):
        table.unlink()
    with pytest.raises(EtcdError, match="request timed out"):
        list(rows)


@pytest.mark.parametrize("text", ["", "\0" * 16, "db-9 00000000\n", "db-2\n"])
def test_a_damaged_pointer_makes_no_damage_nobodys(tmp_path: Path, text: str) -> None:
    """A disk that loses tables may lose it, too: the host went on without flushing anything."""
    store = with_many_tables(tmp_path / "state")
    rows = store.reader().scan(b"\0", b"\0")
    next(rows)
    (store.root / "current").write_text(text)
    for table in store.root.glob("db-1/*.sst"):
        table.unlink()
    with pytest.raises(StorageCorruption, match="No such file"):
        list(rows)
    with suppress(SyncFailed):
        store.close()


@pytest.mark.parametrize("missing", ["db-1", "db-1/CURRENT"])
def test_files_that_are_missing_are_damage_unless_a_snapshot_replaced_them(
    tmp_path: Path, missing: str
) -> None:
    store = with_many_tables(tmp_path / "state")
    rows = store.reader().scan(b"\0", b"\0")
    next(rows)
    for table in store.root.glob("db-1/*.sst"):
        table.unlink()
    (store.root / missing).rename(tmp_path / "missing")
    with pytest.raises(StorageCorruption, match="No such file"):
        list(rows)
    with suppress(SyncFailed):
        store.close()


def test_a_check_of_leases_ends_with_its_state(
    donor: StateStore, open_store: OpenStore, tmp_path: Path
) -> None:
    store = open_store()
    check = check_leases(store, budget_us=0)
    store.apply([(1, 1, b"".join(records.put(b"%05d" % n, 0, 1, b"", 0) for n in range(5000)))])
    next(check)
    sink = receive(store, sent(donor, tmp_path))
    sink.finish()
    store.install(sink)
    with pytest.raises(StopIteration):
        next(check)


def test_the_stream_is_padded_for_etcdctl(donor: StateStore, tmp_path: Path) -> None:
    source = SnapshotSource.create(donor, tmp_path / "outgoing")
    assert source.size_bytes % 512 == 0
    source.close()


def test_a_snapshot_never_goes_backwards(donor: StateStore, tmp_path: Path) -> None:
    """I18, and the store is as it was."""
    chunks = sent(donor, tmp_path)
    before = donor.position, donor.hash_state().run()
    sink = receive(donor, chunks)
    sink.finish()
    with pytest.raises(SnapshotRefused, match="not newer"):
        donor.install(sink)
    sink.abandon()
    assert (donor.position, donor.hash_state().run()) == before
    assert sorted(os.listdir(donor.root)) == ["current", "db-1"]


def test_any_damaged_byte_is_refused(donor: StateStore, open_store: OpenStore, tmp_path: Path) -> None:
    data = b"".join(sent(donor, tmp_path, 1 << 20))
    store = open_store()
    rng = random.Random(2)
    end = len(data.rstrip(b"\0"))
    for at in [0, 7, 8, 13, 20, 40, end - 1, len(data) - 1, *(rng.randrange(len(data)) for _ in range(150))]:
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.randrange(8)
        sink = SnapshotSink(store.root)
        try:
            with pytest.raises(SnapshotRefused):
                take(sink, [bytes(damaged)])
        finally:
            sink.abandon()
    assert store.position == Position(0, 0, 0, 1, 0)


@pytest.mark.parametrize("header", [
    {"position": [9, 9, 1, 9, 0, 0], "files": []}, {"files": []}, {"position": [9, 9, 1, 9, 0], "files": [1]},
    {"position": [9, 9, 1, 9, 0], "files": [["a", 1, 2]]}, [], {"position": ["a", 9, 1, 9, 0], "files": []},
    {"position": [9, 9, 1, 9, 0], "files": [["a", float("inf")]]}])
def test_a_header_of_another_form_is_refused(open_store: OpenStore, header: object) -> None:
    """As a version to come may send: it ended the receiver, again and again."""
    sink = SnapshotSink(open_store().root)
    with pytest.raises(SnapshotRefused, match=r"^its header has another form: "):
        sink.write(snapshot.MAGIC + snapshot._framed(json.dumps(header).encode()))
    sink.abandon()


@pytest.mark.parametrize("cut", ["half", "one byte short", "repeated chunk", "lost chunk", "more behind"])
def test_a_torn_stream_is_refused(donor: StateStore, open_store: OpenStore, tmp_path: Path, cut: str) -> None:
    chunks = sent(donor, tmp_path, 1000)
    if cut == "half":
        chunks = chunks[: len(chunks) // 2]
    elif cut == "one byte short":
        chunks[-1] = chunks[-1][:-1]
    elif cut == "repeated chunk":
        chunks.insert(5, chunks[5])
    elif cut == "lost chunk":
        del chunks[5]
    else:
        chunks.append(b"\1")
    sink = SnapshotSink(open_store().root)
    with pytest.raises(SnapshotRefused):
        take(sink, chunks)
    sink.abandon()


@pytest.mark.parametrize(("free", "spare", "fits"), [
    (1000, 0, True), (-1, 0, False), (1000, 1000, True), (1000, 1001, False), (1 << 20, 1 << 30, True)])
def test_a_snapshot_needs_room_beside_what_stays_free(
    donor: StateStore, open_store: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int,
    spare: int, fits: bool,
) -> None:
    source = SnapshotSource.create(donor, tmp_path / "outgoing")
    size = sum(size for _, size in source._files)
    assert 1000 < size < 1 << 20
    monkeypatch.setattr(directory, "free_bytes", lambda of: size + free)
    sink = SnapshotSink(open_store("to").root, spare)
    chunk = source.next_chunk(1 << 20)
    if fits:
        sink.write(chunk)
    else:
        with pytest.raises(SnapshotRefused, match=f"the disk has too little room for its {size} bytes"):
            sink.write(chunk)
        assert not list(sink.directory.iterdir())
    sink.abandon()
    source.close()


def test_a_snapshot_that_others_take_the_room_of_is_refused_before_the_disk_is_full(
    donor: StateStore, open_store: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_LOOK_BYTES", 1000)
    free = [1 << 30, 1 << 30, 0]
    monkeypatch.setattr(directory, "free_bytes", lambda of: free.pop(0))
    with pytest.raises(SnapshotRefused, match="too little room"):
        receive(open_store("to"), sent(donor, tmp_path, 300))
    assert not free


def test_a_part_of_a_block_that_the_disk_takes_is_not_the_whole(
    donor: StateStore, open_store: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks, to = sent(donor, tmp_path), open_store("to")
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[: 1 + len(data) // 2]))
        sink = receive(to, chunks)
    assert sink.finish() == donor.position
    sink.abandon()


def test_writes_during_a_transfer_do_not_reach_it(
    donor: StateStore, open_store: OpenStore, tmp_path: Path
) -> None:
    source = SnapshotSource.create(donor, tmp_path / "outgoing")
    position, value = donor.position, donor.hash_state().run()
    first = source.next_chunk(1000)
    more = stream(5)
    for _ in range(200):
        next(more)
    donor.apply([next(more) for _ in range(100)])
    donor.flush()
    donor.defragment()
    chunks = [first]
    while chunk := source.next_chunk(50_000):
        chunks.append(chunk)
    source.close()
    store = open_store()
    sink = receive(store, chunks)
    assert sink.finish() == position
    store.install(sink)
    assert store.hash_state().run() == value


def test_several_transfers_at_once_and_one_abandoned(
    donor: StateStore, open_store: OpenStore, tmp_path: Path
) -> None:
    first, second = (SnapshotSource.create(donor, tmp_path / "outgoing") for _ in range(2))
    first.next_chunk(100)
    first.close()
    chunks = []
    while chunk := second.next_chunk(100_000):
        chunks.append(chunk)
    second.close()
    assert receive(open_store(), chunks).finish() == donor.position


_CRASH = """
import os, sys
from collections.abc import Iterator
from pathlib import Path
from node.storage import StateStore, directory, state
from node.storage.snapshot import SnapshotSink
point, path, stream = sys.argv[1:]
store = StateStore.open(path, block_cache_bytes=1 << 20, write_buffer_bytes=1 << 20)
sink = SnapshotSink(store.root)
data = Path(stream).read_bytes()
def die(*arguments, **keywords):
    os._exit(9)
if point == "receiving":
    sink.write(data[:len(data) // 2]); die()
sink.write(data)
if point == "before finish": die()
sink.finish()
if point == "before rename": Path.rename = die
if point == "before pointer": directory.write_current = die
if point == "within pointer": os.replace = die
if point == "after pointer":
    write = directory.write_current
    directory.write_current = lambda *a: (write(*a), die())
store.install(sink)
if point == "after": die()
"""


@pytest.mark.parametrize(
    "point",
    [
        "receiving", "before finish", "before rename", "before pointer", "within pointer", "after pointer",
        "after",
    ],
)
def test_a_crash_at_any_point_of_an_install_leaves_the_old_or_the_new_state(
    donor: StateStore, open_store: OpenStore, tmp_path: Path, point: str
) -> None:
    """I18"""
    (tmp_path / "stream").write_bytes(b"".join(sent(donor, tmp_path)))
    store = open_store()
    source = stream(5)
    store.apply([next(source) for _ in range(50)])
    old, old_hash = store.position, store.hash_state().run()
    store.close()
    done = subprocess.run(
        [sys.executable, "-c", _CRASH, point, str(tmp_path / "state"), str(tmp_path / "stream")], check=False
    )
    assert done.returncode == 9
    store = open_store()
    if point.startswith("after"):
        assert (store.position, store.hash_state().run()) == (donor.position, donor.hash_state().run())
    else:
        assert (store.position, store.hash_state().run()) == (old, old_hash)
    assert sorted(os.listdir(store.root)) == ["current", directory.read_current(store.root)]
