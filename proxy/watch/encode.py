"""Watch responses in wire form: events are encoded once per revision and filter, the envelope per watch.

Hot path: one event costs one encoding here, whatever the number of watches; ``cohort`` puts the envelopes around it.
"""

from __future__ import annotations

from cluster.messages import EVENTS_HEAD, MORE_EVENTS, decode_events
from cluster.wire import varint

NO_PUT, NO_DELETE = 1, 2  # filter bits; both: nothing is ever delivered

Event = tuple[int, int, bytes, bytes, bytes, int]  # revision, kind, key, KeyValue, previous KeyValue, place in the revision

CREATED = b"\x18\x01"
CANCELED = b"\x20\x01"
FRAGMENT = b"\x38\x01"
PROGRESS_ID = b"\x10" + varint(-1)


def watch_id_field(watch_id: int) -> bytes:
    """Field 2 of a WatchResponse."""
    found = _ID_FIELDS.get(watch_id)
    return b"\x10" + varint(watch_id) if found is None else found


_ID_FIELDS = {0: b"", **{i: b"\x10" + varint(i) for i in range(1, 1024)}}  # what small ids share over all streams


def compact_revision_field(revision: int) -> bytes:
    """Field 5."""
    return b"\x28" + varint(revision) if revision else b""


def cancel_reason_field(reason: str) -> bytes:
    """Field 6."""
    text = reason.encode()
    return b"\x32" + varint(len(text)) + text if text else b""


def event_field(event: Event) -> bytes:
    """Field 11 with one ``mvccpb.Event``."""
    _, kind, _, kv, prev, _ = event
    body = b"".join((b"\x08\x01\x12" if kind else b"\x12", varint(len(kv)), kv))
    if prev:
        body = b"".join((body, b"\x1a", varint(len(prev)), prev))
    return b"\x5a" + varint(len(body)) + body


class Batch:
    """All events of one range at one revision, in order, with their encodings as they are asked for."""

    __slots__ = ("_encoded", "_fields", "events", "framed", "revision", "size_bytes")

    def __init__(self, revision: int, events: list[Event], size_bytes: int) -> None:
        self.revision = revision
        self.events = events
        self.size_bytes = size_bytes
        # while it goes to many cohorts, what was made for one: (filters, watch id fields) -> pieces and their responses
        self.framed: dict[tuple[int, tuple[bytes, ...]], list[tuple[bytes, int]]] | None = None
        self._fields: list[bytes] | None = None
        self._encoded: list[bytes | None] = [None, None, None, b""]

    def extend(self, more: Batch) -> None:
        """Further events of the same revision; nothing was delivered yet. They are encoded now, a piece at a time."""
        self.fields(0).extend(more.fields(0))
        self.events += more.events
        self.size_bytes += more.size_bytes

    def encoded(self, filters: int) -> bytes:
        """Fields 11 of the events that pass; empty if none does."""
        found = self._encoded[filters]
        if found is None:
            found = b"".join(self.fields(filters))
            self._encoded[filters] = found
        return found

    def fields(self, filters: int) -> list[bytes]:
        """The same, one by one."""
        if self._fields is None:
            self._fields = [event_field(e) for e in self.events]
        if not filters:
            return self._fields
        return [
            f for f, e in zip(self._fields, self.events, strict=True)
            if not filters & (NO_DELETE if e[1] else NO_PUT)
        ]


def batch_of_record(body: bytes) -> Batch:
    """The batch in an EVENTS record, or the part of one."""
    revision, count = EVENTS_HEAD.unpack_from(body)
    return Batch(revision, decode_events(body, EVENTS_HEAD.size, count & ~MORE_EVENTS), len(body))


def is_part(body: bytes) -> bool:
    """Whether further records of the revision of an EVENTS record come."""
    return bool(EVENTS_HEAD.unpack_from(body)[1] & MORE_EVENTS)


def batches_of(events: list[Event]) -> list[Batch]:
    """Events in order, grouped by revision."""
    batches: list[Batch] = []
    at, count = 0, len(events)
    while at < count:
        revision = events[at][0]
        stop, size = at, 0
        while stop < count and events[stop][0] == revision:
            size += 64 + len(events[stop][3]) + len(events[stop][4])
            stop += 1
        batches.append(Batch(revision, events[at:stop], size))
        at = stop
    return batches
