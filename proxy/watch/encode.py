"""Watch responses in wire form: events come ready-made from the node (``cluster.wire.events``), the envelope
is made here. Hot path: what one record brings stays one piece of bytes for every watch that gets all of
it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from operator import eq, itemgetter

from cluster.wire.events import EVENT, EVENTS_HEAD, MORE_EVENTS, key_of
from cluster.wire.protobuf import varint

NO_PUT, NO_DELETE = 1, 2  # filter bits; both: nothing is ever delivered

BATCH_BYTES = 256  # of memory, beside a batch's events

Entry = tuple[int, int, int, int]  # of the table: revision, type, place in the revision, bytes

CREATED = b"\x18\x01"
CANCELED = b"\x20\x01"
FRAGMENT = b"\x38\x01"
PROGRESS_ID = b"\x10" + varint(-1)


def watch_id_field(watch_id: int) -> bytes:
    found = _ID_FIELDS.get(watch_id)
    return b"\x10" + varint(watch_id) if found is None else found


_ID_FIELDS = {0: b"", **{i: b"\x10" + varint(i) for i in range(1, 1024)}}


def compact_revision_field(revision: int) -> bytes:
    return b"\x28" + varint(revision) if revision else b""


def cancel_reason_field(reason: str) -> bytes:
    text = reason.encode()
    return b"\x32" + varint(len(text)) + text if text else b""


@dataclass(slots=True, eq=False)
class Batch:
    """Events of one range, in order, of one or several whole revisions (I16)."""

    first: int  # revision
    last: int
    count: int
    table: bytes  # an EVENT each
    wire: bytes  # WatchResponse.events
    # made for one cohort, for others like it: (filters, watch id fields) -> pieces, each with its number of
    # responses
    framed: dict[tuple[int, tuple[bytes, ...]], list[tuple[bytes, int]]] | None = None
    _entries: list[Entry] | None = None
    _encoded: dict[int, bytes] | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.table) + len(self.wire)

    def forget(self) -> None:
        """Drop what was derived, so that ``size_bytes`` is right again."""
        self.framed = self._entries = self._encoded = None

    def entries(self) -> list[Entry]:
        if self._entries is None:
            self._entries = list(EVENT.iter_unpack(self.table))
        return self._entries

    def encoded(self, filters: int) -> bytes:
        if not filters:
            return self.wire
        if self._encoded is None:
            self._encoded = {}
        found = self._encoded.get(filters)
        if found is None:
            found = self._encoded[filters] = b"".join(self.views(filters))
        return found

    def views(self, filters: int = 0) -> list[memoryview]:
        found, at, wire = [], 0, memoryview(self.wire)
        for entry in self.entries():
            if not filters & (NO_DELETE if entry[1] else NO_PUT):
                found.append(wire[at : at + entry[3]])
            at += entry[3]
        return found

    def between(self, after: int, upto: int) -> Batch | None:
        if after < self.first and self.last <= upto:
            return self
        entries = self.entries()
        begin = next((i for i, e in enumerate(entries) if e[0] > after), len(entries))
        end = next((i for i in range(begin, len(entries)) if entries[i][0] > upto), len(entries))
        if begin == end:
            return None
        start = sum([e[3] for e in entries[:begin]])
        stop = start + sum([e[3] for e in entries[begin:end]])
        return Batch(entries[begin][0], entries[end - 1][0], end - begin,
                     self.table[begin * EVENT.size : end * EVENT.size], self.wire[start:stop])

    def cut(self, revisions: list[int]) -> Iterator[Batch]:
        """The same in batches that end behind these revisions, which ascend."""
        if not revisions:
            yield self
            return
        entries = self.entries()
        begin = at = 0
        for upto in (*revisions, self.last):
            end = bisect_right(entries, upto, begin, key=itemgetter(0))
            if end > begin:
                size = sum([e[3] for e in entries[begin:end]])
                yield Batch(entries[begin][0], entries[end - 1][0], end - begin,
                            self.table[begin * EVENT.size : end * EVENT.size], self.wire[at : at + size])
                begin, at = end, at + size

    def pieces(self, size_bytes: int) -> Iterator[Batch]:
        """The same in batches of about this size, of whole revisions."""
        if self.first == self.last or len(self.wire) <= size_bytes:
            yield self
            return
        entries = self.entries()
        # of the piece: its first event, that event's place in ``wire``, bytes so far
        begin, at, size = 0, 0, 0
        for i, (entry, following) in enumerate(zip(entries, [*entries[1:], None], strict=True), 1):
            size += entry[3]
            if following is None or (size >= size_bytes and following[0] != entry[0]):
                table = self.table[begin * EVENT.size : i * EVENT.size]
                yield Batch(entries[begin][0], entry[0], i - begin, table, self.wire[at : at + size])
                begin, at, size = i, at + size, 0


def batch_of_record(body: bytes) -> Batch:
    first, last, count = EVENTS_HEAD.unpack_from(body)
    count &= ~MORE_EVENTS
    table_end = EVENTS_HEAD.size + count * EVENT.size
    return Batch(first, last, count, body[EVENTS_HEAD.size : table_end], body[table_end:])


def batch_of_history(body: bytes, at: int, count: int) -> Batch | None:
    """The batch in a HISTORY answer whose table begins at ``at``; None if it is empty."""
    if not count:
        return None
    table_end = at + count * EVENT.size
    first, last = EVENT.unpack_from(body, at)[0], EVENT.unpack_from(body, table_end - EVENT.size)[0]
    return Batch(first, last, count, body[at:table_end], body[table_end:])


def is_part(body: bytes) -> bool:
    return bool(EVENTS_HEAD.unpack_from(body)[2] & MORE_EVENTS)


def joined(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    return Batch(batches[0].first, batches[-1].last, sum([b.count for b in batches]),
                 b"".join([b.table for b in batches]), b"".join([b.wire for b in batches]))


def merged(batches: list[Batch]) -> Batch:
    """Batches of several shards as one. The sequencer gave each change its place in the revision; keys of a
    deleted range share one."""
    rows = []
    for batch in batches:
        rows += [(e[0], e[2], f, e) for e, f in zip(batch.entries(), batch.views(), strict=True)]
    rows.sort(key=_PLACE)
    if any(map(eq, map(_PLACE, rows), map(_PLACE, islice(rows, 1, None)))):
        rows.sort(key=lambda row: (row[0], row[1], key_of(bytes(row[2]))))
    return Batch(rows[0][0], rows[-1][0], len(rows), b"".join([EVENT.pack(*row[3]) for row in rows]),
                 b"".join([row[2] for row in rows]))


_PLACE = itemgetter(0, 1)  # of a row of :func:`merged`: revision and place in it
