"""Deletes of many keys, and other effects of very many changes, applied in slices (D8).

Such a delete is logged as a span: the keys that are live just before its revision, the same on every replica.
Each gets its tombstone and its entry in an ``r`` row, all at one place (``sub``), in the order of keys; ``r``
rows are told apart by counting on from there.

A slice writes above the applied position, so no reader sees it (review (b), Visibility); after a crash the
whole is done again and writes the same rows. Meanwhile the key counts and the version cache stand still.

Cost: 1.9 us of CPU a key with its event; a million keys in 3,900 slices, of which none takes 4 ms.
"""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING

from rocksdict import WriteBatch

from cluster.effects.records import ITEM, LEASE_ID, Item, items, read_delete_range
from cluster.evaluate.steps import STEP_BYTES
from cluster.grain import GRAIN
from cluster.wire.protobuf import tombstone
from node.storage import keys
from node.storage.errors import StorageCorruption, raise_read
from node.storage.keys import DELETE, ENTRY, MAX32, MAX64, RUN, SUFFIX, range_rows, unescape
from node.storage.state.changes.at_once import some_changes
from node.storage.state.reads import SKIP_ROWS, Cursor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from node.storage.state.changes.run import Event, Run

# that may be long
LONG_KINDS = frozenset(map(int, (Item.TXN, Item.LEASE_REVOKE, Item.DELETE_RANGE, Item.TXN_LONG)))
_MANY = 1000  # changes at one revision; to apply so many takes 4 ms
_MUCH = 4 << 20  # bytes of them: 10 ms and more; with a default --max-request-bytes only long keys take more


def is_long(data: bytes, kind: int, pos: int) -> bool:
    """Whether the item at ``pos`` is applied in slices: a delete of a span, or one of very many changes."""
    if kind in (Item.DELETE_RANGE, Item.TXN_LONG):
        return True
    length = ITEM.unpack_from(data, pos)[1]
    return length > _MANY * ITEM.size and has_many(
        data, pos + ITEM.size + (LEASE_ID.size if kind == Item.LEASE_REVOKE else 0), pos + ITEM.size + length)


def has_many(data: bytes, pos: int, end: int) -> bool:
    """Whether these changes are so many, or take so much, that they are applied in slices."""
    return end - pos > _MUCH or (
        end - pos > _MANY * ITEM.size and sum(1 for _ in islice(items(data, pos, end), _MANY + 1)) > _MANY)


def changes(run: Run, data: bytes, pos: int, end: int, sub: int = 0) -> Iterator[list[Event]]:
    """As ``Fold.changes``, in slices."""
    run.revision += 1
    while pos < end:
        if data[pos] == Item.DELETE_RANGE:  # they stop before it
            raise ValueError(f"item of kind {data[pos]} inside a transaction")
        pos, sub = some_changes(run, data, pos, end, sub, (GRAIN.delete_slice_rows, STEP_BYTES))
        if pos < end:
            yield pause(run)


def is_enough(run: Run, changed: int, size: int) -> bool:
    """Whether so many changes at one revision, of ``size`` bytes, are enough for one turn."""
    return changed > (GRAIN.delete_slice_rows if run.long else _MANY) or (
        size > (STEP_BYTES if run.long else _MUCH))


def pause(run: Run) -> list[Event]:
    """Write what there is and go on in another turn; returns the events since the last time."""
    run.write_slice()
    run.begin_long()
    return run.take_events()


def long_item(run: Run, data: bytes, pos: int) -> Iterator[list[Event]]:
    """Apply the long item at ``pos``; yields the events since the last time."""
    kind, length = ITEM.unpack_from(data, pos)
    pos += ITEM.size
    if kind == Item.TXN:
        yield from changes(run, data, pos, pos + length)
        run.end_run()
        return
    if kind == Item.LEASE_REVOKE:
        yield from changes(run, data, pos + LEASE_ID.size, pos + length)
        run.end_run()
        run.revoked(LEASE_ID.unpack_from(data, pos)[0])
        return
    run.revision += 1
    if kind == Item.DELETE_RANGE:
        yield from delete_range(run, data, pos, pos + length, 0)
        return
    place, end = 0, pos + length
    while pos < end:
        if data[pos] == Item.DELETE_RANGE:
            at, pos = pos + ITEM.size, pos + ITEM.size + ITEM.unpack_from(data, pos)[1]
            yield from delete_range(run, data, at, pos, place)
            place += read_delete_range(data, at, pos)[2]
        else:
            pos, place = some_changes(run, data, pos, end, place, (GRAIN.delete_slice_rows, STEP_BYTES))
            if pos < end and data[pos] != Item.DELETE_RANGE:  # that pauses by itself
                yield pause(run)


def delete_range(run: Run, data: bytes, pos: int, end: int, sub: int) -> Iterator[list[Event]]:
    """Delete the live keys of a span at the run's revision; ``sub`` is their place in it."""
    start, range_end, count = read_delete_range(data, pos, end)
    store, revision = run.store, run.revision
    # what this replica counts there itself; unknown if the run has changed keys that are not counted yet
    own = (None if run.long or run.born or run.died or run.owned is not store.owned
           else store.quick_count(start, range_end))
    run.end_run()
    run.write_slice()  # what came before is in the database now, and the iterator sees it
    run.begin_long()
    yield run.take_events()
    suffix = SUFFIX.pack(0, MAX64 - revision, MAX32 - sub, DELETE)
    found = 0
    entries: list[bytes] = []
    entry_bytes = 0
    first = sub
    parts = [(start, range_end)] if run.owned is None else run.owned.shown(start, range_end)  # G6
    for escaped_keys in chain.from_iterable(_live_keys(run, *part, revision - 1) for part in parts):
        batch = WriteBatch(raw_mode=True)
        gone: list[bytes] = []
        events = run.events
        for escaped in escaped_keys:
            key = unescape(escaped) if b"\0" in escaped else escaped
            kv = tombstone(key, revision)
            batch.put(b"k" + escaped + suffix, kv)
            entries.append(ENTRY.pack(0, sub, DELETE, len(key)) + key)
            entry_bytes += len(key)
            if len(entries) >= GRAIN.run_entries or entry_bytes >= keys.RUN_BYTES:
                batch.put(RUN.pack(b"r", revision, first), b"".join(entries))
                first += len(entries)
                entries.clear()
                entry_bytes = 0
            gone.append(key)
            if events is not None:
                events.append((revision, DELETE, key, kv, sub))
        found += len(gone)
        run.note_above(batch)
        store.write(batch)
        store.counts.going(gone)
        yield run.take_events()
    if entries:
        run.batch.put(RUN.pack(b"r", revision, first), b"".join(entries))
    if found != count:
        # Two counts in memory agree against the disk: it has lost keys. Else the leader's count and answer
        # were wrong: what every replica finds is the truth.
        if own == count:
            raise StorageCorruption(
                f"{store.path}: [{start!r}, {range_end!r}) holds {found} keys where {count} were counted"
            )
        run.out.miscounted.append((start, count, found))


def _live_keys(run: Run, start: bytes, end: bytes, revision: int) -> Iterator[list[bytes]]:
    """The live keys of a span at a revision, escaped, in order; a list for every GRAIN.delete_slice_rows
    rows, or STEP_BYTES of them without their values."""
    lower, upper = range_rows(start, end)
    cursor = Cursor(run.store.database, run.store.path, upper)
    it = cursor.iterator
    oldest = (MAX64 - revision).to_bytes(8, "big")
    found: list[bytes] = []
    last = None
    rows = skipped = size = 0
    try:
        it.seek(lower)
        while it.valid():
            row = it.key()
            rows += 1
            size += len(row)
            if rows >= GRAIN.delete_slice_rows or size >= STEP_BYTES:
                rows, size = 0, len(row)
                yield found
                found = []
            escaped = row[1:-15]
            # an older version, or one that is newer than the revision
            if escaped == last or row[-13:-5] < oldest:
                skipped += 1
                if skipped > SKIP_ROWS:
                    it.seek(b"k" + escaped + (b"\0\x01" if escaped == last else b"\0\0" + oldest))
                    skipped = 0
                else:
                    it.next()
                continue
            last = escaped
            skipped = 0
            if not row[-1]:
                found.append(escaped)
            it.next()
        it.status()
    except Exception as e:
        raise_read(e, cursor.path, f"deleting range [{start!r}, {end!r})")
    yield found
