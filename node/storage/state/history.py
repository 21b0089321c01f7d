"""Events of the past, for watches that start behind or fell behind.

Each slice is read in one call and checks the compaction revision first (H16): versions can never vanish
between the check and the read. Revisions are given whole (I16); a read of a very large one pauses within it,
and then checks again.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from rocksdict import Rdict

from cluster.evaluate.reading.ranges import is_creation
from cluster.wire.protobuf import tombstone
from node.storage.errors import Compacted, StorageCorruption, raise_read
from node.storage.keys import DELETE, INVERTED, MAX32, MAX64, PUT, escape, version_row
from node.storage.state.reads import all_changes
from node.storage.state.versions import Versions

_EVENT_COST = 8  # changes of other keys that are looked at in the time that an event's row is read in
# revision, type, key, KeyValue, the one before or b"", sub
PastEvent = tuple[int, int, bytes, bytes, bytes, int]


@dataclass(slots=True)
class HistorySlice:
    """Some events of a range: every matching event in [from, next_revision), once."""

    events: list[PastEvent]
    next_revision: int  # ask from here; applied_revision + 1 when caught up
    applied_revision: int
    compact_revision: int


def history_slices(
    store: Versions, start: bytes, end: bytes, from_revision: int, *, max_events: int, max_bytes: int,
    want_prev: bool, max_scan: int,
) -> Generator[None, None, HistorySlice]:
    """See :meth:`StateStore.history_slices`."""
    # Nothing is applied or removed within this call, so position and rows belong together (H16).
    source, position = store.database, store.position
    if from_revision < position.compact_revision:
        raise Compacted(position.compact_revision)
    slice_ = HistorySlice([], position.revision + 1, position.revision, position.compact_revision)
    if from_revision > position.revision:
        slice_.next_revision = from_revision
        return slice_
    if end:
        changes = all_changes(source, from_revision, position.revision)
    else:
        changes = _changes_of_key(source, start, from_revision, position.revision)
    until = None if end in (b"", b"\0") else end
    events = slice_.events
    scanned = size = 0
    pause_at = max_scan
    last = from_revision
    try:
        for change in _shown(store, changes):
            revision, _, _, key = change
            if revision != last:
                # between two revisions, never within one
                if scanned >= max_scan or len(events) >= max_events or size >= max_bytes:
                    slice_.next_revision = revision
                    break
                last = revision
            elif scanned >= pause_at:
                pause_at = scanned + max_scan
                yield
                if store.database is not source:  # a snapshot was installed: from here on it is asked again
                    slice_.next_revision = revision
                    slice_.events = [event for event in events if event[0] < revision]
                    break
                if from_revision < store.position.compact_revision:
                    raise Compacted(store.position.compact_revision)  # H16: versions of it may be gone by now
            scanned += 1
            if key < start or (until is not None and key >= until):
                continue
            event = _event(store, source, change, want_prev)
            events.append(event)
            scanned += _EVENT_COST - 1
            size += len(event[3]) + len(event[4]) + len(key)
    except Compacted:
        raise
    except Exception as e:
        raise_read(e, store.path, f"reading history from revision {from_revision}")
    return slice_


def _shown(
    store: Versions, changes: Iterator[tuple[int, int, int, bytes]]
) -> Iterator[tuple[int, int, int, bytes]]:
    owned = store.owned
    if owned is None:
        return changes
    return (change for change in changes if owned.shows(change[3], change[0]))  # G6


def _event(store: Versions, source: Rdict, change: tuple[int, int, int, bytes], want_prev: bool) -> PastEvent:
    revision, sub, kind, key = change
    kv: bytes | None
    if kind == DELETE:
        kv = tombstone(key, revision)
    else:
        try:
            kv = source.get(version_row(key, revision, sub, PUT))
        except Exception as e:
            raise_read(e, store.path, f"reading version {revision}.{sub} of key {key!r}")
        if kv is None:
            raise StorageCorruption(f"{store.path}: version {revision}.{sub} of key {key!r} is missing")
    prev = b""
    if want_prev and not (kind == PUT and is_creation(kv)):
        prev = store.previous(key, revision) or b""
    return revision, kind, key, kv, prev, sub


def _changes_of_key(
    source: Rdict, key: bytes, from_revision: int, last_revision: int
) -> Iterator[tuple[int, int, int, bytes]]:
    """As ``all_changes``, of one key: its own rows, read backwards."""
    prefix = b"k" + escape(key)
    it = source.iter()
    it.seek_for_prev(prefix + INVERTED.pack(0, MAX64 - from_revision) + b"\xff" * 5)
    while it.valid():
        row = it.key()
        if row[:-13] != prefix + b"\0\0":
            break
        revision = MAX64 - int.from_bytes(row[-13:-5], "big")
        if revision > last_revision:
            break
        yield revision, MAX32 - int.from_bytes(row[-5:-1], "big"), row[-1], key
        it.prev()
    it.status()
