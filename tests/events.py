"""Events between node and front, built and read by protobuf."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.pb import kv_pb2, rpc_pb2
from cluster.wire.events import EVENT, EVENTS_HEAD, MORE_EVENTS, event_field

Event = tuple[int, int, bytes] | tuple[int, int, bytes, int]  # revision, type, KeyValue, place (0)


def table_and_fields(events: Sequence[Event]) -> bytes:
    """What an EVENTS record and a HISTORY answer have behind their heads."""
    fields = [event_field(e[1], e[2]) for e in events]
    table = [
        EVENT.pack(e[0], e[1], e[3] if len(e) > 3 else 0, len(f)) for e, f in zip(events, fields, strict=True)
    ]
    return b"".join(table + fields)


def record(events: Sequence[Event], more: bool = False, revision: int = 0) -> bytes:
    """The body of an EVENTS record; ``revision``: of one without events."""
    first, last = (events[0][0], events[-1][0]) if events else (revision, revision)
    return EVENTS_HEAD.pack(first, last, len(events) | (MORE_EVENTS if more else 0)) + table_and_fields(
        events
    )


def read(body: bytes) -> list[tuple[int, kv_pb2.Event]]:
    """Revision and event, of an EVENTS record."""
    first, last, count = EVENTS_HEAD.unpack_from(body)
    count &= ~MORE_EVENTS
    table_end = EVENTS_HEAD.size + count * EVENT.size
    entries = list(EVENT.iter_unpack(body[EVENTS_HEAD.size : table_end]))
    events = rpc_pb2.WatchResponse.FromString(body[table_end:]).events
    assert len(events) == count
    assert [e.type for e in events] == [e[1] for e in entries]
    assert sum(e[3] for e in entries) == len(body) - table_end
    if entries:
        assert (first, last) == (entries[0][0], entries[-1][0])
    return [(entry[0], event) for entry, event in zip(entries, events, strict=True)]
