"""What tests of the state store do with one."""

from __future__ import annotations

from pathlib import Path

from cluster.effects import records
from node.storage import HistorySlice, StateStore, keys
from node.storage.snapshot import SnapshotSink, SnapshotSource
from node.storage.state.changes import apply

ALL = (b"\0", b"\0")


def do(store: StateStore, *items: bytes, want_events: bool = False) -> apply.Applied:
    """Apply items as one record."""
    index = store.position.shard_index + 1
    return store.apply([(index, 1, b"".join(items))], want_events=want_events)


def damage_table(store: StateStore, row: bytes = b"") -> None:
    """One bit of the largest table of a store that is closed: in its middle, or behind a row's beginning."""
    tables = [table for table in store.root.rglob("*.sst") if table.parent.name.startswith("db-")]
    table = max(tables, key=lambda file: file.stat().st_size)
    data = bytearray(table.read_bytes())
    data[data.index(row) + len(row) if row else len(data) // 2] ^= 1
    table.write_bytes(data)


def with_many_tables(path: Path) -> StateStore:
    """5,000 keys in more tables than RocksDB opens at its start."""
    store = StateStore.open(path)
    do(store, *(records.put(b"%05d" % n, 0, 1, bytes(800), 0) for n in range(5000)))
    store.flush()
    store.database.set_options({"target_file_size_base": "65536"})
    store.defragment()
    store.close()
    store = StateStore.open(path)
    assert len(store.database.live_files()) > 40
    return store


def received(donor: StateStore, outgoing: Path, root: Path, chunk_bytes: int = 1 << 20) -> SnapshotSink:
    """What another store in ``root`` gets of a donor: all of it, not finished yet."""
    source, sink = SnapshotSource.create(donor, outgoing), SnapshotSink(root)
    while chunk := source.next_chunk(chunk_bytes):
        sink.write(chunk)
    source.close()
    return sink


def compact(store: StateStore, revision: int) -> None:
    do(store, records.compact(revision))
    while not store.compaction_step(0):
        pass


def history(
    store: StateStore, start: bytes, end: bytes, from_revision: int, *, max_events: int = 1_000,
    max_bytes: int = 1 << 20, want_prev: bool = False, max_scan: int = 10_000,
) -> HistorySlice:
    """The whole of ``history_slices``, at once."""
    slices = store.history_slices(start, end, from_revision, max_events=max_events, max_bytes=max_bytes,
                                  want_prev=want_prev, max_scan=max_scan)
    while True:
        try:
            next(slices)
        except StopIteration as done:
            found: HistorySlice = done.value
            return found


def versions(store: StateStore) -> list[tuple[bytes, int, int]]:
    """``(key, revision, type)`` of every version row."""
    return [
        (keys.unescape(row[1:-15]), keys.MAX64 - int.from_bytes(row[-13:-5], "big"), row[-1])
        for row, _ in store.rows(b"k", b"l")
    ]


def changes(store: StateStore) -> list[int]:
    """The revisions of every run row."""
    return [change[0] for row, run in store.rows(b"r", b"s") for change in keys.run_entries(row, run)]
