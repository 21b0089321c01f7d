"""Events of the past, for watches that start behind or fell behind.

Each slice is read in one call and checks the compaction revision first (H16): versions can never vanish
between the check and the read. Revisions are given whole (I16); one of very many changes pauses in its midst,
and looks again whether it may go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rocksdict import Rdict

from cluster.evaluate.reading.ranges import is_creation
from cluster.wire.protobuf import tombstone
from node.storage.errors import Compacted, StorageCorruption, raise_read
from node.storage.keys import (
    DELETE,
    INVERTED,
    MAX32,
    MAX64,
    PUT,
    RUN,
    Position,
    escape,
    run_entries,
    version_row,
)
from node.storage.options import ALL_RUNS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from node.storage.state.store import StateStore

# revision, type, key, KeyValue, the one before or b"", sub
PastEvent = tuple[int, int, bytes, bytes, bytes, int]


@dataclass(slots=True)
class HistorySlice:
    """Some events of a range. Every matching event in [from, next_revision) is in it, once."""

    events: list[PastEvent]
    next_revision: int  # ask from here; applied_revision + 1 when caught up
    applied_revision: int
    compact_revision: int


def history_slices(
    store: StateStore,
    start: bytes,
    end: bytes,
    from_revision: int,
    *,
    max_events: int,
    max_bytes: int,
    want_prev: bool,
    max_scan: int,
) -> Generator[None, None, HistorySlice]:
    """See :meth:`StateStore.history_slices`."""
    # Nothing is applied or removed within this call, so position and rows belong together (H16).
    source, position, path = store.database, store.position, store.path
    if from_revision < position.compact_revision:
        raise Compacted(position.compact_revision)
    slice_ = HistorySlice([], position.revision + 1, position.revision, position.compact_revision)
    if from_revision > position.revision:
        slice_.next_revision = from_revision
        return slice_
    if end:
        changes = all_changes(source, path, from_revision, position)
    else:
        changes = _changes_of_key(source, path, start, from_revision, position)
    events = slice_.events
    scanned = size = 0
    last = from_revision
    to_the_end = end == b"\0"
    try:
        for revision, sub, kind, key in changes:
            if revision != last:
                # between two revisions, never within one
                if scanned >= max_scan or len(events) >= max_events or size >= max_bytes:
                    slice_.next_revision = revision
                    break
                last = revision
            elif scanned and scanned % max_scan == 0:
                yield
                if store.database is not source:  # a snapshot was installed: from here on it is asked again
                    slice_.next_revision = revision
                    slice_.events = [event for event in events if event[0] < revision]
                    break
                if from_revision < store.position.compact_revision:
                    raise Compacted(store.position.compact_revision)  # H16: versions of it may be gone by now
            scanned += 1
            if end and (key < start or not (to_the_end or key < end)):
                continue
            if kind == DELETE:
                kv = tombstone(key, revision)
            else:
                kv = _version(source, path, key, revision, sub)
            prev = b""
            if want_prev and not (kind == PUT and is_creation(kv)):
                prev = store.previous(key, revision) or b""
            events.append((revision, kind, key, kv, prev, sub))
            size += len(kv) + len(prev) + len(key)
    except Compacted:
        raise
    except Exception as e:
        raise_read(e, path, f"reading history from revision {from_revision}")
    return slice_


def _version(source: Rdict, path: str, key: bytes, revision: int, sub: int) -> bytes:
    try:
        kv: bytes | None = source.get(version_row(key, revision, sub, PUT))
    except Exception as e:
        raise_read(e, path, f"reading version {revision}.{sub} of key {key!r}")
    if kv is None:
        raise StorageCorruption(f"{path}: version {revision}.{sub} of key {key!r} is missing")
    return kv


def all_changes(
    source: Rdict, path: str, from_revision: int, position: Position
) -> Iterator[tuple[int, int, int, bytes]]:
    """All changes ``(revision, sub, type, key)`` from a revision on, in order, out of the ``r`` rows."""
    it = source.iter(ALL_RUNS)
    # the run that holds the first change may begin before it
    it.seek_for_prev(RUN.pack(b"r", from_revision, 0))
    if not it.valid() or it.key()[:1] != b"r":
        it.status()
        it = source.iter(ALL_RUNS)
        it.seek(b"r")
    last_revision = position.revision
    while it.valid():
        for change in run_entries(it.key(), it.value()):
            if change[0] > last_revision:
                return
            if change[0] >= from_revision:
                yield change
        it.next()
    it.status()


def _changes_of_key(
    source: Rdict, path: str, key: bytes, from_revision: int, position: Position
) -> Iterator[tuple[int, int, int, bytes]]:
    """The changes of one key from a revision on, in order: its own rows, read backwards."""
    prefix = b"k" + escape(key)
    it = source.iter()
    it.seek_for_prev(prefix + INVERTED.pack(0, MAX64 - from_revision) + b"\xff" * 5)
    while it.valid():
        row = it.key()
        if row[:-13] != prefix + b"\0\0":
            break
        revision = MAX64 - int.from_bytes(row[-13:-5], "big")
        if revision > position.revision:
            break
        yield revision, MAX32 - int.from_bytes(row[-5:-1], "big"), row[-1], key
        it.prev()
    it.status()
