"""One client's watch stream: its watches, their ids, and what is sent when (contract section 2).

A client that does not read has its stream *blocked* at a bounded backlog: its watches lag, one after the other as
their events come, and go on from their cursors once it reads again. Nobody else notices.
"""

from __future__ import annotations

from typing import Any, Protocol

from cluster import errors
from cluster.pb import rpc_pb2
from proxy.watch.encode import (
    CANCELED,
    CREATED,
    FRAGMENT,
    PROGRESS_ID,
    Batch,
    cancel_reason_field,
    compact_revision_field,
    watch_id_field,
)
from proxy.watch.subscription import Subscription

BACKLOG_BYTES = 1 << 20  # a stream with more waiting is blocked until its client reads
_EVENT_TAG_MOST = 11  # bytes of an envelope that is not events, at most, beside the header


class Hub(Protocol):
    """What a stream asks of the hub."""

    fragment_bytes: int
    responses_sent: int

    def header(self, revision: int) -> bytes: ...
    def store_revision(self) -> int: ...
    def subscribe(self, key: bytes, range_end: bytes, prev_kv: bool, revision: int) -> Subscription: ...
    def ended(self, watch: ClientWatch) -> None: ...
    def want_progress(self, stream: WatchStream) -> None: ...


class ClientWatch:
    """One watch of one client."""

    __slots__ = ("asking", "cursor", "filters", "fragment", "id", "id_field", "progress", "sent", "start", "stream",
                 "subscription")

    def __init__(self, stream: WatchStream, watch_id: int, request: Any, cursor: int, subscription: Subscription) -> None:
        self.stream = stream
        self.id = watch_id
        self.id_field = watch_id_field(watch_id)
        self.cursor = cursor  # the last revision delivered whole
        self.start = request.start_revision or cursor  # progress is not promised below it
        self.filters = 0
        for kind in request.filters:
            self.filters |= 1 << kind if kind in (0, 1) else 0
        self.progress = request.progress_notify
        self.fragment = request.fragment
        self.sent = False  # events since the last periodic progress
        self.asking = False  # a question for history is under way
        self.subscription = subscription

    @property
    def blocked(self) -> bool:
        """Whether the client has too much to read already."""
        return self.stream.blocked

    def deliver(self, batch: Batch) -> None:
        """The next revision with events in this range."""
        revision = batch.revision
        if revision <= self.cursor:
            return
        stream = self.stream
        if stream.blocked:
            self.subscription.lag(self)
            return
        self.cursor = revision
        events = batch.encoded(self.filters)
        if events:
            if self.fragment and len(events) >= stream.hub.fragment_bytes and len(batch.events) > 1:
                stream.send_fragments(self, stream.hub.header(revision), batch.fields(self.filters))
            else:
                stream.send(stream.hub.header(revision), self.id_field, events)
            self.sent = True

    def caught_up(self, batches: list[Batch], complete_to: int, applied: int) -> None:
        """A slice of history, complete up to ``complete_to``."""
        stream = self.stream
        cursor = self.cursor
        fields = [f for b in batches if b.revision > cursor for f in b.fields(self.filters)]
        self.cursor = max(cursor, complete_to)
        if fields:
            header = stream.hub.header(max(applied, batches[-1].revision))
            size = sum(map(len, fields))
            if self.fragment and size >= stream.hub.fragment_bytes and len(fields) > 1:
                stream.send_fragments(self, header, fields)
            else:
                stream.send(header, self.id_field, *fields)
            self.sent = True

    @property
    def synced(self) -> bool:
        """Whether everything emitted has been sent to this watch."""
        return self in self.subscription.live


class WatchStream:
    """One Watch call."""

    __slots__ = ("_next_id", "blocked", "call", "closed", "deferred", "hub", "progress_at", "watches")

    def __init__(self, hub: Hub, call: Any) -> None:
        self.hub = hub
        self.call = call
        self.watches: dict[int, ClientWatch] = {}
        self.blocked = False
        self.closed = False
        self.progress_at = 0.0  # loop time of the next periodic progress, if a watch wants it
        self.deferred: list[Any] = []  # requests that wait until this front knows a revision at all
        self._next_id = 0
        call.on_drain = self.drained

    # -- requests -----------------------------------------------------------------------------------

    def request(self, request: Any) -> None:
        """One WatchRequest."""
        if self.deferred or not self.hub.store_revision():
            self.deferred.append(request)
            return
        kind = request.WhichOneof("request_union")
        if kind == "create_request":
            self._create(request.create_request)
        elif kind == "cancel_request":
            watch = self.watches.get(request.cancel_request.watch_id)
            if watch is not None:
                self._forget(watch)
                self.send(self.hub.header(self.hub.store_revision()), watch.id_field, CANCELED)
        elif kind == "progress_request":
            self._progress()

    def resume_deferred(self) -> None:
        """A revision is known now."""
        deferred, self.deferred = self.deferred, []
        for request in deferred:
            self.request(request)

    def _create(self, request: Any) -> None:
        key, range_end = request.key or b"\0", request.range_end
        revision = self.hub.store_revision()  # R0: every event up to it is in the past of a watch from "now"
        watch_id = request.watch_id
        if request.start_revision < 0:
            self._reject(revision, errors.WATCH_NEGATIVE_START)
            return
        if range_end and range_end != b"\0" and range_end <= key:
            self._reject(revision, errors.WATCH_RANGE_EMPTY)
            return
        if watch_id:
            if watch_id in self.watches:
                self._reject(revision, errors.WATCH_DUPLICATE_ID)
                return
        else:
            while self._next_id in self.watches:
                self._next_id += 1
            watch_id = self._next_id
            self._next_id += 1
        cursor = request.start_revision - 1 if request.start_revision else revision
        subscription = self.hub.subscribe(key, range_end, request.prev_kv, revision)
        watch = ClientWatch(self, watch_id, request, cursor, subscription)
        self.watches[watch_id] = watch
        if watch.progress:
            self.hub.want_progress(self)
        self.send(self.hub.header(revision), watch.id_field, CREATED)  # before any event of this id
        subscription.add(watch)

    def _reject(self, revision: int, reason: str) -> None:
        self.send(self.hub.header(revision), PROGRESS_ID, CREATED, CANCELED, cancel_reason_field(reason))

    def _progress(self) -> None:
        """Answered only if every watch is synced: everything up to the revision has been sent on this stream."""
        revision = self._promised(self.watches.values())
        if revision is not None and all(revision >= w.start for w in self.watches.values()):
            self.send(self.hub.header(revision), PROGRESS_ID)

    def _promised(self, watches: Any) -> int | None:
        lowest = None
        if self.blocked:
            return None
        for watch in watches:
            if not watch.synced:
                return None
            through = watch.subscription.through()
            if lowest is None or through < lowest:
                lowest = through
        return lowest

    def periodic(self) -> None:
        """The interval has passed: progress to each watch that wants it, is synced, and got no events since."""
        for watch in tuple(self.watches.values()):
            if watch.progress:
                if watch.sent:
                    watch.sent = False
                    continue
                revision = self._promised((watch,))
                if revision is not None and revision >= watch.start:
                    self.send(self.hub.header(revision), watch.id_field)

    # -- answers ------------------------------------------------------------------------------------

    def send(self, *parts: bytes) -> None:
        """One response; marks the stream blocked when its client has too much to read."""
        call = self.call
        call.send(*parts)
        self.hub.responses_sent += 1
        if call.pending_bytes() > BACKLOG_BYTES:
            self.blocked = True

    def send_fragments(self, watch: ClientWatch, header: bytes, fields: list[bytes]) -> None:
        """One response in several messages, none of an event split."""
        limit = self.hub.fragment_bytes - len(header) - len(watch.id_field) - _EVENT_TAG_MOST
        group: list[bytes] = []
        size = 0
        for one in fields:
            if group and size + len(one) > limit:
                self.send(header, watch.id_field, FRAGMENT, *group)
                group, size = [], 0
            group.append(one)
            size += len(one)
        self.send(header, watch.id_field, *group)

    def compacted(self, watch: ClientWatch, revision: int) -> None:
        """The next revision that this watch needs is gone: it ends, the stream goes on."""
        self._forget(watch)
        self.send(self.hub.header(0), watch.id_field, CANCELED, compact_revision_field(revision))

    def drained(self) -> None:
        """The client has read."""
        if self.blocked and not self.closed and self.call.pending_bytes() <= BACKLOG_BYTES:
            self.blocked = False
            for watch in tuple(self.watches.values()):
                if self.blocked:
                    return
                watch.subscription.resume(watch)

    def _forget(self, watch: ClientWatch) -> None:
        del self.watches[watch.id]
        self.hub.ended(watch)

    def close(self) -> None:
        """The call has ended."""
        if not self.closed:
            self.closed = True
            self.deferred.clear()
            for watch in tuple(self.watches.values()):
                self._forget(watch)


WatchRequest = rpc_pb2.WatchRequest
