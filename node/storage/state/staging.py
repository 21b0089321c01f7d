"""The copy of a move's keys, at both ends: pages of a source's live rows, and their way into the target.

Only live rows are copied: newest versions, as they lie at the source. They go into the target's ``k`` and
``l`` space, without ``r`` rows, and are masked (G6) while the row ``mlocal/staging`` is there, which each
batch here brings up to date. A crash goes back to a batch before, rows and staging row together.

A page is of a state that has all events that the copy has taken in, so it replaces what is there of its span.
An event counts where it is newer than what is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from rocksdict import WriteBatch

from node.storage import keys
from node.storage.keys import DELETE, LEASE_KEY, MAX64, parse_current, range_rows, unescape, version_row
from node.storage.state.changes.run import Event
from node.storage.state.reads import find
from node.storage.state.staged import Staged
from node.storage.state.store import StateStore

_Row = tuple[bytes, bytes]
_AT_ONCE = 512  # rows removed in a slice: some 2 ms
_COUNT_SLICE = 2048


class Page(NamedTuple):
    """Rows of a source from a key on: of all live keys before ``end``, at its applied revision."""

    rows: list[_Row]
    end: bytes
    whole: bool  # nothing is left of the span
    revision: int


def read_page(store: StateStore, at: bytes, end: bytes, most_bytes: int) -> Page:
    """The source's live rows of ``[at, end)``, about so many bytes; raw, as :func:`stage_page` takes them."""
    rows: list[_Row] = []
    size, revision = 0, store.revision
    newest = (MAX64 - revision).to_bytes(8, "big")
    last = b""
    shown = (range_rows(*part) for part in store.shown(at, end))  # G6: not what another source owns
    for row, value in chain.from_iterable(store.rows(*bounds) for bounds in shown):
        escaped = row[1:-15]
        if escaped == last or row[-13:-5] < newest:  # an older version, or above the position
            continue
        if size >= most_bytes:
            return Page(rows, unescape(escaped), False, revision)
        last = escaped
        if row[-1] != DELETE:
            rows.append((row, value))
            size += len(row) + len(value)
    return Page(rows, end, True, revision)


def begin_copy(store: StateStore, move: int, start: bytes, end: bytes) -> None:
    """A copy begins. What was here of the span must be gone (G11)."""
    assert next(store.rows(*range_rows(start, end)), None) is None, f"G11: old rows of {start!r} are left"
    _write(store, WriteBatch(raw_mode=True), Staged(move, start, end, start))


def stage_page(store: StateStore, page: Page) -> Staged:
    """Take in the page that begins where the copy stands."""
    staged = _staged(store)
    batch = WriteBatch(raw_mode=True)
    gone = 0
    for row, value in list(store.rows(*range_rows(staged.at, page.end))):
        _remove(batch, row, value)
        gone += 1
    for row, value in page.rows:
        _add(batch, row, value)
    return _write(store, batch, staged._replace(
        at=page.end, whole=page.whole, live=staged.live - gone + len(page.rows)))


def stage_events(store: StateStore, events: Iterable[Event], revision: int) -> Staged:
    """Take in the source's events of the span: all up to a revision."""
    staged = _staged(store)
    batch = WriteBatch(raw_mode=True)
    live = staged.live
    taken: dict[bytes, tuple[bytes, bytes] | None] = {}  # of this batch
    for changed_at, kind, key, kv, sub in events:
        there = taken[key] if key in taken else find(store.database, store.path, key, MAX64)
        if there is not None:
            if MAX64 - int.from_bytes(there[0][-13:-5], "big") >= changed_at:
                continue  # of a page that was newer
            _remove(batch, *there)
            live -= 1
        taken[key] = None
        if kind != DELETE:
            taken[key] = row = version_row(key, changed_at, sub, kind), kv
            _add(batch, *row)
            live += 1
    upto = max(revision, staged.event_revision)
    return _write(store, batch, staged._replace(event_revision=upto, live=live))


def count_staged(store: StateStore) -> Iterator[int]:
    """Count the rows of a copy, in slices; the last one yielded is their number."""
    found = 0
    for found, _ in enumerate(store.rows(*range_rows(*_staged(store).span)), 1):
        if found % _COUNT_SLICE == 0:
            yield found
    yield found


def drop_span(store: StateStore, start: bytes, end: bytes) -> Iterator[None]:
    """Remove all rows of a span that nobody may read any more (G10), or a copy that is given up, in slices.
    Done again after a crash. What is masked by a staging row is shown only when all of it is gone."""
    path, (lower, upper) = store.path, range_rows(start, end)
    batch = WriteBatch(raw_mode=True)
    for number, (row, value) in enumerate(store.rows(lower, upper), 1):
        if row[-1] != DELETE and (of_lease := _of_lease(row, value)):
            batch.delete(of_lease)
        if number % _AT_ONCE == 0:
            store.write(batch)
            batch = WriteBatch(raw_mode=True)
            yield
            if store.path != path:
                return  # a snapshot took its place
    batch.delete_range(lower, upper)  # one mark, instead of one for each row
    staged = store.staged
    if staged is not None and staged.span == (start, end):
        batch.delete(keys.STAGING_ROW)
        store.staged = None
    store.write(batch)
    store.blocks.clear()
    store.show_owned()


def _staged(store: StateStore) -> Staged:
    assert store.staged is not None, "no copy is under way"
    return store.staged


def _of_lease(row: bytes, value: bytes) -> bytes:
    """The row by which a live key belongs to its lease; empty: it has none."""
    key = unescape(row[1:-15])
    lease = parse_current(value, len(key)).lease
    return LEASE_KEY.pack(b"l", lease) + key if lease else b""


def _add(batch: WriteBatch, row: bytes, value: bytes) -> None:
    batch.put(row, value)
    if of_lease := _of_lease(row, value):
        batch.put(of_lease, b"")


def _remove(batch: WriteBatch, row: bytes, value: bytes) -> None:
    batch.delete(row)
    if of_lease := _of_lease(row, value):
        batch.delete(of_lease)


def _write(store: StateStore, batch: WriteBatch, staged: Staged) -> Staged:
    batch.put(keys.STAGING_ROW, staged.encode())
    store.write(batch)
    anew = store.staged is None or store.staged.span != staged.span
    store.staged = staged
    if anew:
        store.show_owned()
    return staged
