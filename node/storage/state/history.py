"""Events of the past, for watches that start behind or fell behind.

Each slice is read in one call and checks the compaction revision first (H16): versions can never vanish
between the check and the read. Revisions are given whole (I16); a read of a very large one pauses within it,
and then checks again.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

from rocksdict import Rdict

from cluster.evaluate.reading.ranges import is_creation
from cluster.wire.protobuf import tombstone
from node.storage.errors import Compacted, StorageCorruption, raise_read
from node.storage.keys import DELETE, INVERTED, MAX32, MAX64, PUT, escape, version_row
from node.storage.state.decoded import PART, Growing
from node.storage.state.reads import all_changes
from node.storage.state.versions import Versions

# revision, sub, type, key
_Change = tuple[int, int, int, bytes]
# what it costs, the changes that are wanted, and the revision below which this and what came before is all.
# Within one revision it is that one
_Step = tuple[int, list[_Change], int]
_STEP = 25  # changes that are looked at without a look at the limits
_KNOWN_SHIFT = 5  # a change that was decoded before costs 2 ** -5 of one that was not
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
    steps = _of_range(store, start, end, from_revision, position.revision) if end else _of_key(
        store, start, from_revision, position.revision)
    events = slice_.events
    scanned = size = 0
    pause_at = max_scan
    last = from_revision

    def interrupted(revision: int) -> bool:
        """After a pause. H16: versions may be gone by now."""
        if store.database is not source:  # a snapshot was installed: from here on it is asked again
            slice_.next_revision = revision
            slice_.events = [event for event in events if event[0] < revision]
            return True
        if from_revision < store.position.compact_revision:
            raise Compacted(store.position.compact_revision)
        return False

    try:
        for cost, changes, done in steps:
            scanned += cost
            for change in changes:
                revision, _, _, key = change
                if revision != last:
                    # between two revisions, never within one
                    if scanned >= max_scan or len(events) >= max_events or size >= max_bytes:
                        slice_.next_revision = revision
                        return slice_
                    last = revision
                elif scanned >= pause_at:
                    pause_at = scanned + max_scan
                    yield
                    if interrupted(revision):
                        return slice_
                event = _event(store, source, change, want_prev)
                events.append(event)
                scanned += _EVENT_COST
                size += len(event[3]) + len(event[4]) + len(key)
            if scanned < max_scan and len(events) < max_events and size < max_bytes:
                continue
            if from_revision < done <= position.revision and (not events or events[-1][0] < done):
                slice_.next_revision = done
                break
            if scanned >= pause_at:
                pause_at = scanned + max_scan
                yield
                if interrupted(done):
                    break
    except Compacted:
        raise
    except Exception as e:
        raise_read(e, store.path, f"reading history from revision {from_revision}")
    return slice_


def _of_range(
    store: Versions, start: bytes, end: bytes, from_revision: int, last_revision: int
) -> Iterator[_Step]:
    source, decoded, owned = store.database, store.decoded, store.owned

    def wanted(changes: Iterable[_Change], at: int) -> list[_Change]:
        return [change for change in changes if start <= change[3] and (end == b"\0" or change[3] < end)
                and change[0] >= at and (owned is None or owned.shows(change[3], change[0]))]  # G6

    at = from_revision
    while at <= last_revision:
        number = at // PART
        if (part := decoded.known(number)) is not None:
            keys, places = part
            if end == b"\0":
                found = [i for i, key in enumerate(keys) if key >= start]
            else:
                found = [i for i, key in enumerate(keys) if start <= key < end]
            following = (number + 1) * PART
            yield 1 + (len(keys) >> _KNOWN_SHIFT), wanted(
                [(*places[i], keys[i]) for i in found], at), following
            at = following
            continue
        following = last_revision + 1
        growing = decoded.begun(at)
        some: list[_Change] = []
        for change in all_changes(source, at, last_revision):
            revision = change[0]
            if revision // PART != number:
                if growing is not None:
                    growing.add(some)
                    decoded.hold(number, growing)
                number = revision // PART
                if some:
                    yield len(some), wanted(some, at), number * PART
                    some = []
                if decoded.known(number) is not None:
                    following = number * PART
                    break
                growing = Growing()
            elif len(some) >= _STEP:
                between = False
                if growing is not None:
                    growing.add(some)
                    if between := revision != some[-1][0]:
                        decoded.later(revision, growing)
                yield len(some), wanted(some, at), revision
                if between:
                    growing = decoded.begun(revision)
                some = []
            some.append(change)
        else:
            if growing is not None and (number + 1) * PART <= following:
                growing.add(some)
                decoded.hold(number, growing)
        if some:
            yield len(some), wanted(some, at), following
        at = following


def _of_key(store: Versions, key: bytes, from_revision: int, last_revision: int) -> Iterator[_Step]:
    owned = store.owned
    for change in _changes_of_key(store.database, key, from_revision, last_revision):
        if owned is None or owned.shows(key, change[0]):
            yield 0, [change], change[0]


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
