"""The copy of a move's keys, at both ends: what a source answers, and its way into the target.

Only live rows are copied: newest versions, as they lie at the source. They go into the target's ``k`` and
``l`` space, without ``r`` rows, and are masked (G6) while the row ``mlocal/staging`` is there, which each
batch here brings up to date. A crash goes back to a batch before, rows and staging row together.
``cluster.order.moving.copier`` says what is asked, and in which order.

A key's value is told as its place in the revision (u32), then its KeyValue: rows are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from rocksdict import WriteBatch

from cluster.order.moving.copier import Answer, Ask, Batch, Row
from cluster.placement import Owned
from cluster.placement.table import Move, before
from node.storage import keys
from node.storage.errors import raise_read
from node.storage.keys import (
    DELETE,
    LEASE_KEY,
    MAX32,
    MAX64,
    PUT,
    parse_current,
    range_rows,
    run_entries,
    unescape,
    version_row,
)
from node.storage.state.moving.staged import BARED, BARING, DROPPING, Left, Staged
from node.storage.state.reads import Newest, runs_from
from node.storage.state.store import StateStore

# a slice of removals: half a millisecond
_AT_ONCE, _AT_ONCE_BYTES = 128, 256 << 10
# of an answer: what it tells and what it passes over, so that it takes half a millisecond at both ends
_MOST_BYTES, _MOST_ROWS, _MOST_LOOKED_AT = 96 << 10, 256, 512
_MOST_EVENTS = 128  # each is searched for at both ends
_MOST_PASSED_BYTES = 256 << 10
_SUB_BYTES = 4


class Unknown(Exception):
    """This replica has not come to the move, or has dropped its rows."""


class Bounds(NamedTuple):
    """Of one answer."""

    size: int = _MOST_BYTES
    rows: int = _MOST_ROWS
    looked_at: int = _MOST_LOOKED_AT
    passed: int = _MOST_PASSED_BYTES  # of old versions


_PAGE, _EVENTS = Bounds(), Bounds(rows=_MOST_EVENTS)


def answer(store: StateStore, move: Move, ask: Ask, bounds: Bounds | None = None) -> Answer:
    """What this replica, a source, says to a copy. Unknown: nothing."""
    left, revision = store.left.get(move.number), store.revision
    if left is None:
        table = store.placement()
        if table is None or table.move is None or table.move.number != move.number:
            raise Unknown
        owned = store.owned
    elif left.removal:
        raise Unknown
    else:
        owned, revision = left.owned(store.shard), min(revision, left.revision)
    if ask.page:
        return _page(store, owned, ask.start, move.end, revision, bounds or _PAGE)
    there = store.has_changes((ask.revision or revision) + 1)
    if not ask.revision:
        return Answer(revision)
    if ask.revision < revision and not there:
        return Answer(revision, compacted=True)
    return _events(store, move, ask, revision, bounds or _EVENTS)


def _page(
    store: StateStore, owned: Owned | None, start: bytes, end: bytes, revision: int, bounds: Bounds
) -> Answer:
    rows: list[Row] = []
    size = looked_at = passed = 0
    newest = (MAX64 - store.revision).to_bytes(8, "big")
    last = key = b""
    parts = [(start, end)] if owned is None else owned.shown(start, end)  # G6: not what is another source's
    for row, value in chain.from_iterable(store.rows(*range_rows(*part)) for part in parts):
        looked_at += 1
        escaped = row[1:-15]
        if escaped == last:  # an older version
            passed += len(value)
            if looked_at >= bounds.looked_at or passed >= bounds.passed:
                return Answer(revision, rows, key + b"\0")
            continue
        if (size >= bounds.size or len(rows) >= bounds.rows or looked_at >= bounds.looked_at
                or passed >= bounds.passed):
            return Answer(revision, rows, unescape(escaped))
        if row[-13:-5] < newest:  # above the position
            passed += len(value)
            continue
        last, key = escaped, unescape(escaped)
        if row[-1] != DELETE:
            rows.append((key, _told(row[-5:-1], value)))
            size += len(row) + len(value)
    return Answer(revision, rows)


def _told(inverted_sub: bytes, kv: bytes) -> bytes:
    return (MAX32 - int.from_bytes(inverted_sub, "big")).to_bytes(_SUB_BYTES, "big") + kv


def _events(store: StateStore, move: Move, ask: Ask, upto: int, bounds: Bounds) -> Answer:
    """Changes of the span above a place. Of a key that changes again only the last one is told."""
    changed: dict[bytes, bytes | None] = {}
    size = looked_at = 0
    for place, (revision, sub, kind, key) in _changes_from(store, ask.revision + 1, ask.within):
        if revision > upto:
            break
        if looked_at >= bounds.looked_at or size >= bounds.size or len(changed) >= bounds.rows:
            return Answer(revision - 1, list(changed.items()), within=place)
        looked_at += 1
        if key < move.start or not before(key, move.end):
            continue
        changed.pop(key, None)
        value = _value_at(store, key, revision, sub) if kind == PUT else None
        changed[key] = value
        size += len(key) + (len(value) if value is not None else 0)
    return Answer(max(upto, ask.revision), list(changed.items()), level=True)


_Change = tuple[int, int, int, bytes]  # revision, sub, type, key


def _changes_from(store: StateStore, revision: int, within: int) -> Iterator[tuple[int, _Change]]:
    """Changes from a place on, out of the ``r`` rows, and the place of each within its revision: of its row
    and of it in that. These rows are the same on every replica."""
    try:
        it = runs_from(store.database, revision, within >> 32)
        while it.valid():
            row = it.key()
            first, row_sub = int.from_bytes(row[1:9], "big"), int.from_bytes(row[9:13], "big")
            last = number = 0
            for change in run_entries(row, it.value()):
                number = number + 1 if change[0] == last else 0
                last = change[0]
                place = (row_sub if last == first else 0) << 32 | number
                if (last, place) >= (revision, within):
                    yield place, change
            it.next()
        it.status()
    except Exception as e:
        raise_read(e, store.path, f"reading changes from revision {revision}")


def _value_at(store: StateStore, key: bytes, revision: int, sub: int) -> bytes | None:
    """A version that may be compacted by now: then a later change of the key follows."""
    try:
        kv = store.database.get(version_row(key, revision, sub, PUT))
    except Exception as e:
        raise_read(e, store.path, f"reading key {key!r}")
    return None if kv is None else sub.to_bytes(_SUB_BYTES, "big") + kv


def begin(store: StateStore, move: Move, batch: Batch) -> Iterator[None]:
    """A copy begins, or starts again, in slices."""
    yield from drop_span(store, move.start, move.end)
    begin_copy(store, move, batch.staging)


def begin_copy(store: StateStore, move: Move, progress: bytes) -> None:
    """A copy begins. What was here of the span must be gone (G11)."""
    left = next(store.rows(*range_rows(move.start, move.end)), None)
    assert left is None, f"G11: old rows of {move} are left"
    _write(store, WriteBatch(raw_mode=True), Staged(move.number, move.start, move.end, progress=progress))


def stage(store: StateStore, batch: Batch) -> Staged:
    """Take in what a copier tells. Rows of a page that is ``fresh`` have none before them here."""
    staged = store.staged
    assert staged is not None, "no copy is under way"
    writes = WriteBatch(raw_mode=True)
    live = staged.live
    newest = None if batch.fresh or not batch.rows else Newest(store.database, store.path)
    for key, value in batch.rows:
        if newest is not None and (there := newest.find(key)) is not None:
            _remove(writes, *there)
            live -= 1
        if value is not None:
            _add(writes, key, value)
            live += 1
    return _write(store, writes, staged._replace(live=live, whole=batch.whole, progress=batch.staging))


def drop_left(store: StateStore, left: Left) -> Iterator[None]:
    """Remove keys that have left, once no request may read them (G10), in slices. From here on no copy is
    answered."""
    left = _removing(store, left, DROPPING)
    path, (*parts, last) = store.path, left.parts(store.shard)
    for part in parts:
        yield from drop_span(store, part.start, part.end)
        yield
        if store.path != path:
            return
    yield from drop_span(store, last.start, last.end, left)


def bare_left(store: StateStore, left: Left) -> Iterator[None]:
    """The same of keys that this shard owned at no revision. It waits for no request (G10): they may come
    back."""
    path, left = store.path, _removing(store, left, BARING)
    for part in left.unseen(store.shard):
        yield from drop_span(store, part.start, part.end)
        yield
        if store.path != path:
            return
    _removing(store, left, BARED)


def _removing(store: StateStore, left: Left, removal: int) -> Left:
    left = store.left[left.number] = left._replace(removal=left.removal | removal)
    batch = WriteBatch(raw_mode=True)
    batch.put(keys.left_row(left.number), left.encode())
    store.write(batch)
    return left


def drop_span(store: StateStore, start: bytes, end: bytes, left: Left | None = None) -> Iterator[None]:
    """Remove all rows of a span that no request may read, or a copy that is given up, in slices. Done
    again after a crash. What is masked by a staging row is shown only when all of it is gone."""
    path, (lower, upper) = store.path, range_rows(start, end)
    if left is None and (staged := store.staged) is not None and staged.span == (start, end):
        # G5: from here on it is no copy that a switch may go by, after a crash neither
        _write(store, WriteBatch(raw_mode=True), staged._replace(live=0, whole=False, progress=b""))
        yield
        if store.path != path:
            return
    batch = WriteBatch(raw_mode=True)
    rows = size = 0
    for row, value in store.rows(lower, upper):
        if row[-1] != DELETE and (of_lease := _of_lease(unescape(row[1:-15]), value)):
            batch.delete(of_lease)
        rows += 1
        size += len(value)
        if rows >= _AT_ONCE or size >= _AT_ONCE_BYTES:
            store.write(batch)
            batch = WriteBatch(raw_mode=True)
            rows = size = 0
            yield
            if store.path != path:
                return  # a snapshot took its place
    batch.delete_range(lower, upper)  # one mark, instead of one for each row
    staged = store.staged
    if left is not None:
        batch.delete(keys.left_row(left.number))
        store.left.pop(left.number, None)
    if staged is not None and staged.span == (start, end):
        batch.delete(keys.STAGING_ROW)
        store.staged = None
    store.write(batch)
    store.blocks.clear()
    store.show_owned()


def _of_lease(key: bytes, kv: bytes) -> bytes:
    """The row by which a live key belongs to its lease; empty: it has none."""
    lease = parse_current(kv, len(key)).lease
    return LEASE_KEY.pack(b"l", lease) + key if lease else b""


def _add(batch: WriteBatch, key: bytes, value: bytes) -> None:
    sub, kv = int.from_bytes(value[:_SUB_BYTES], "big"), value[_SUB_BYTES:]
    current = parse_current(kv, len(key))
    batch.put(version_row(key, current.mod, sub, PUT), kv)
    if current.lease:
        batch.put(LEASE_KEY.pack(b"l", current.lease) + key, b"")


def _remove(batch: WriteBatch, row: bytes, kv: bytes) -> None:
    batch.delete(row)
    if of_lease := _of_lease(unescape(row[1:-15]), kv):
        batch.delete(of_lease)


def _write(store: StateStore, batch: WriteBatch, staged: Staged) -> Staged:
    batch.put(keys.STAGING_ROW, staged.encode())
    store.write(batch)
    anew = store.staged is None or store.staged.span != staged.span
    store.staged = staged
    if anew:
        store.show_owned()
    return staged
