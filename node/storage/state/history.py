"""Events of the past, for watches that start behind or fell behind.

Each slice is read in one call and checks the compaction revision first (H16): versions can never vanish
between the check and the read. Revisions are given whole (I16); a read of a very large one pauses within it,
and then checks again.

Of the compacted revision only the last change of each key is shown. A transaction may change a key twice, and
how far each replica has removed the first change is its own affair.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from rocksdict import Rdict

from cluster.evaluate.reading.ranges import is_creation
from cluster.wire.protobuf import tombstone
from node.storage.errors import Compacted, StorageCorruption, raise_read
from node.storage.keys import DELETE, INVERTED, MAX32, MAX64, PUT, escape, version_row
from node.storage.options import bounded
from node.storage.state.decoded import PART, Growing, Part
from node.storage.state.reads import all_changes, find
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
    position = store.position
    if from_revision < position.compact_revision:
        raise Compacted(position.compact_revision)
    slice_ = HistorySlice([], position.revision + 1, position.revision, position.compact_revision)
    if from_revision > position.revision:
        slice_.next_revision = from_revision
        return slice_
    look = _Look(store, from_revision, slice_, max_events, max_bytes, want_prev, max_scan)
    steps = _OfRange(store, start, end).steps(from_revision, position.revision) if end else _of_key(
        store, start, from_revision, position.revision)
    last = from_revision
    try:
        for cost, changes, done in steps:
            look.scanned += cost
            for change in changes:
                if change[0] != last:  # between two revisions, never within one
                    if look.is_full:
                        slice_.next_revision = change[0]
                        return slice_
                    last = change[0]
                elif look.pauses():
                    yield
                    if look.interrupted(change[0]):
                        return slice_
                look.add(change)
            if not look.is_full:
                continue
            if look.ends_below(done):
                slice_.next_revision = done
                break
            if look.pauses():
                yield
                if look.interrupted(done):
                    break
    except Compacted:
        raise
    except Exception as e:
        raise_read(e, store.path, f"reading history from revision {from_revision}")
    return slice_


class _Look:
    """What was looked at for a slice, and how much may be."""

    def __init__(self, store: Versions, from_revision: int, found: HistorySlice, max_events: int,
                 max_bytes: int, want_prev: bool, max_scan: int) -> None:
        self._store, self._source = store, store.database
        self._from = from_revision
        self._slice = found
        self._limits = max_events, max_bytes, max_scan
        self._want_prev = want_prev
        self._pause_at = max_scan
        self.scanned = self._size = 0

    def add(self, change: _Change) -> None:
        self.scanned += _EVENT_COST
        if change[0] == self._from and self._is_superseded(change):
            return
        event = _event(self._store, self._source, change, self._want_prev)
        self._slice.events.append(event)
        self._size += len(event[3]) + len(event[4]) + len(change[3])

    def _is_superseded(self, change: _Change) -> bool:
        """Whether a later change of the same revision is all that the compaction at it keeps of the key."""
        revision, sub, kind, key = change
        if revision > self._store.position.compact_revision:  # as it is now: not the one before a pause
            return False
        newest = find(self._source, self._store.path, key, revision)
        return newest is not None and newest[0] < version_row(key, revision, sub, kind)

    @property
    def is_full(self) -> bool:
        max_events, max_bytes, max_scan = self._limits
        return (self.scanned >= max_scan or len(self._slice.events) >= max_events
                or self._size >= max_bytes)

    def ends_below(self, revision: int) -> bool:
        """Whether the slice may end there: it brings something, and nothing of that revision."""
        events = self._slice.events
        return self._from < revision <= self._slice.applied_revision and (
            not events or events[-1][0] < revision)

    def pauses(self) -> bool:
        """Whether it is time to."""
        if self.scanned < self._pause_at:
            return False
        self._pause_at = self.scanned + self._limits[2]
        return True

    def interrupted(self, revision: int) -> bool:
        """After a pause. H16: versions may be gone by now."""
        if self._store.database is not self._source:  # a snapshot was installed: it is asked again from here
            self._slice.next_revision = revision
            self._slice.events = [event for event in self._slice.events if event[0] < revision]
            return True
        if self._from < self._store.position.compact_revision:
            raise Compacted(self._store.position.compact_revision)
        return False


class _OfRange:
    """The changes of a range: those that were decoded before, and those between."""

    def __init__(self, store: Versions, start: bytes, end: bytes) -> None:
        self._source, self._decoded, self._owned = store.database, store.decoded, store.owned
        self._start, self._end = start, end

    def steps(self, from_revision: int, last_revision: int) -> Iterator[_Step]:
        at = from_revision
        while at <= last_revision:
            part = self._decoded.known(at // PART)
            if part is None:
                at = yield from self._read(at, last_revision)
            else:
                following = (at // PART + 1) * PART
                yield 1 + (len(part.keys) >> _KNOWN_SHIFT), self._of_part(part, at), following
                at = following

    def _of_part(self, part: Part, at: int) -> list[_Change]:
        changes = [(*part.places[i], part.keys[i]) for i in self._within(part.keys)]
        return self._shown([change for change in changes if change[0] >= at])

    def _wanted(self, changes: list[_Change]) -> list[_Change]:
        return self._shown([changes[i] for i in self._within([change[3] for change in changes])])

    def _within(self, keys: list[bytes]) -> list[int]:
        """The places of those in the range."""
        start, end = self._start, self._end
        if end == b"\0":
            return [i for i, key in enumerate(keys) if key >= start]
        return [i for i, key in enumerate(keys) if start <= key < end]

    def _shown(self, changes: list[_Change]) -> list[_Change]:
        owned = self._owned
        if owned is None:
            return changes
        return [change for change in changes if owned.shows(change[3], change[0])]  # G6

    def _read(self, at: int, last_revision: int) -> Generator[_Step, None, int]:
        """Up to a part that was decoded before: the revision where that begins."""
        decoded, number = self._decoded, at // PART
        growing = decoded.begun(at)
        some: list[_Change] = []
        for change in all_changes(self._source, at, last_revision):
            revision = change[0]
            if revision // PART != number:
                self._complete(number, growing, some)
                number = revision // PART
                if some:
                    yield len(some), self._wanted(some), number * PART
                    some = []
                if decoded.known(number) is not None:
                    return number * PART
                growing = Growing()
            elif len(some) >= _STEP:
                is_put_off = self._put_off(revision, growing, some)
                yield len(some), self._wanted(some), revision
                if is_put_off:
                    growing = decoded.begun(revision)
                some = []
            some.append(change)
        if (number + 1) * PART <= last_revision + 1:
            self._complete(number, growing, some)
        if some:
            yield len(some), self._wanted(some), last_revision + 1
        return last_revision + 1

    def _complete(self, number: int, growing: Growing | None, rest: list[_Change]) -> None:
        if growing is not None:
            growing.add(rest)
            self._decoded.hold(number, growing)

    def _put_off(self, revision: int, growing: Growing | None, some: list[_Change]) -> bool:
        """Whether another may go on with the part at a revision, if this one does not."""
        if growing is None:
            return False
        growing.add(some)
        if revision == some[-1][0]:
            return False
        self._decoded.later(revision, growing)
        return True


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
    oldest = prefix + INVERTED.pack(0, MAX64 - from_revision) + b"\xff" * 5
    options = bounded(oldest + b"\0")  # held: see there
    it = source.iter(options)
    # A step beyond the newest one would run over deleted rows before the key; rocksdict sets no lower bound
    it.seek(prefix + INVERTED.pack(0, MAX64 - last_revision))
    newest = it.key() if it.valid() else b""
    if newest:
        it.seek_for_prev(oldest)
    while it.valid():
        row = it.key()
        revision = MAX64 - int.from_bytes(row[-13:-5], "big")
        yield revision, MAX32 - int.from_bytes(row[-5:-1], "big"), row[-1], key
        if row == newest:
            return
        it.prev()
    it.status()
