"""One client's watch stream: its watches, their ids, and what is sent when. A stream whose client does not
read is *blocked* at a bounded backlog: its watches lag, one after the other as their events come, and go on
from their cursors once it reads again. Other streams do not notice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from cluster import errors
from cluster.errors import EtcdError, watch_cancel_reason
from cluster.pb.rpc_pb2 import WatchRequest
from proxy.grpc.held import Held
from proxy.routing.waiting import MethodStats
from proxy.watch.cohort import ClientWatch, Cohort
from proxy.watch.encode import CANCELED, CREATED, PROGRESS_ID, cancel_reason_field, watch_id_field
from proxy.watch.subscription import Subscription

Then = Callable[[Sequence[EtcdError | None]], None]  # what becomes of each range
_COMPACTED_MOST = 1_000  # watches ended by a compaction, whose cancellation is still answered
TOGETHER = 200  # requests whose permissions are asked for together, or that are taken in one turn
_LITTLE_BYTES = 16_384  # less than any backlog, so that none is worked out for most events
_MOST_FILTERS = 256  # of a watch. Two kinds exist: 2 kB of gzip named two million, which took 0.3 s


class Hub(Protocol):
    fragment_bytes: int

    def header(self, revision: int) -> bytes: ...
    def store_revision(self) -> int: ...
    def subscribe(self, key: bytes, range_end: bytes, prev_kv: bool, revision: int) -> Subscription: ...
    def ended(self, watch: ClientWatch) -> None: ...
    def want_progress(self, stream: WatchStream) -> None: ...
    def ask_progress(self, stream: WatchStream) -> None: ...
    def may_watch(self, call: Any, ranges: Sequence[tuple[bytes, bytes]], then: Then) -> bool: ...
    def resume_later(self, stream: WatchStream) -> None: ...


class WatchStream:
    __slots__ = ("_asking", "_behind", "_compacted", "_last_start", "_next_id",
                 "_next_resumed", "blocked", "call", "closed", "deferred", "doubted", "hub", "progress_at",
                 "stats", "wary", "watches")

    def __init__(self, hub: Hub, call: Any, stats: MethodStats) -> None:
        self.hub = hub
        self.call = call
        self.stats = stats
        self.watches: dict[int, ClientWatch] = {}
        self.blocked = self.wary = False
        self.doubted = 0
        self.closed = False
        self.progress_at = 0.0  # loop time of the next periodic progress, if a watch wants it
        # requests that wait until this front knows a revision, or for a permission
        self.deferred: Held | None = None
        self._asking = False  # for permissions: later requests wait
        self._next_id = 0
        self._next_resumed = 0  # the place of the cohort that goes on first at the next drain
        self._last_start = 0  # the highest revision that a watch began with
        self._behind = 0  # the watch that progress waited for last: it is asked first
        self._compacted: dict[int, bool] | None = None  # the last IDs that compactions ended
        call.on_drain = self.drained

    def request(self, request: Any) -> None:
        if self.deferred or self._asking or not self.hub.store_revision():
            self._defer(request.SerializeToString())
        else:
            self._take_together((request,))

    def _defer(self, data: bytes) -> None:
        if self.deferred is None:
            self.deferred = Held()
        self.deferred.add(self.call, data)

    def resume_deferred(self) -> int:
        """Take some of what waited, the rest in later turns unless these wait for permissions. How many."""
        if self.deferred and not (self._asking or self.closed) and self.hub.store_revision():
            some = self.deferred.take(self.call, TOGETHER)
            self._take_together([WatchRequest.FromString(data) for data in some])
            if self.deferred and not self._asking:
                self.hub.resume_later(self)
            return len(some)
        return 0

    def _take_together(self, requests: Sequence[Any]) -> None:
        """Take these in order, once it is known which of their watches the client may have."""
        ranges = [(create.key or b"\0", create.range_end) for create in map(_asked_for, requests) if create]
        if not ranges:
            self._take(requests, ())
            return
        at_once = True

        def judged(found: Sequence[EtcdError | None]) -> None:
            self._asking = False
            self._take(requests, found)
            if not at_once:
                self.resume_deferred()

        self._asking = True
        if not self.hub.may_watch(self.call, ranges, judged):
            judged([None] * len(ranges))
        at_once = False

    def _take(self, requests: Sequence[Any], found: Sequence[EtcdError | None]) -> None:
        """``found``: an error, or None, for each watch that was asked for."""
        refusals = iter(found)
        for request in requests:
            if self.closed:
                return
            kind = request.WhichOneof("request_union")
            if kind == "create_request":
                create = request.create_request
                if _asked_for(request) is None:
                    self._reject(self.hub.store_revision(), errors.WATCH_NEGATIVE_START)
                elif (error := next(refusals)) is not None:
                    self._reject(self.hub.store_revision(), watch_cancel_reason(error))
                else:
                    self._create(create)
            elif kind == "cancel_request":
                self._cancel(request.cancel_request.watch_id)
            elif kind == "progress_request":
                self.hub.ask_progress(self)

    def _cancel(self, watch_id: int) -> None:
        watch = self.watches.get(watch_id)
        if watch is not None:
            self.forget(watch)
        if watch is not None or (self._compacted and self._compacted.pop(watch_id, False)):
            self.send(self.hub.header(self.hub.store_revision()), watch_id_field(watch_id), CANCELED)

    def cancel(self, watch: ClientWatch, error: EtcdError) -> None:
        if self.watches.get(watch.id) is watch:
            self.forget(watch)
            self.send(self.hub.header(self.hub.store_revision()), watch_id_field(watch.id), CANCELED,
                      cancel_reason_field(watch_cancel_reason(error)))

    def _create(self, request: Any) -> None:
        key, range_end = request.key or b"\0", request.range_end
        revision = self.hub.store_revision()  # R0: every event up to it is in the past of a watch from "now"
        watch_id = request.watch_id
        if range_end and range_end != b"\0" and range_end <= key:
            self._reject(revision, errors.WATCH_RANGE_EMPTY)
            return
        if len(request.filters) > _MOST_FILTERS:
            self._reject(revision, errors.REQUEST_TOO_LARGE.text)
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
        watch = ClientWatch(watch_id, request.start_revision or cursor, cursor, request.progress_notify)
        self.watches[watch_id] = watch
        self._last_start = max(self._last_start, watch.start)
        if self._compacted:
            self._compacted.pop(watch_id, None)
        if watch.progress:
            self.hub.want_progress(self)
        filters = 0
        for kind in request.filters:
            filters |= 1 << kind if kind in (0, 1) else 0
        id_field = watch_id_field(watch_id)
        cohort = Cohort(self, subscription, cursor, filters, request.fragment, len(id_field))
        cohort.admit(watch)
        self.send(self.hub.header(revision), id_field, CREATED)  # before any event of this id
        subscription.add(cohort)

    def _reject(self, revision: int, reason: str) -> None:
        self.send(self.hub.header(revision), PROGRESS_ID, CREATED, CANCELED, cancel_reason_field(reason))

    def tell_progress(self, owed: int) -> int | None:
        """Send how far all watches are, once all events up to it are sent and it is at least ``owed``.

        Returns it. None: not yet. etcd is silent where a watch begins later (below 0: minus that revision),
        and without any (0).
        """
        if not self.watches:
            return 0
        behind = self.watches.get(self._behind)
        if behind is not None and self._promised((behind,), owed) is None:
            return None  # each watermark asks, and there may be 100,000 others
        revision = self._promised(reversed(self.watches.values()), owed)  # new ones are behind most often
        if revision is None:
            return None
        if revision < self._last_start and any(revision < watch.start for watch in self.watches.values()):
            return -revision
        self.send_progress(revision, 1)
        return revision

    def send_progress(self, revision: int, times: int) -> None:
        for _ in range(times):
            self.send(self.hub.header(revision), PROGRESS_ID)

    def _promised(self, watches: Iterable[ClientWatch], least: int = 0) -> int | None:
        """The revision that all of these watches have reached. None if it is below ``least`` or below events
        sent to one, or if one is not synced."""
        lowest = None
        if self.blocked:
            return None
        asked: set[Cohort] = set()
        for watch in watches:
            cohort = watch.cohort
            if cohort in asked:
                continue
            asked.add(cohort)
            through = cohort.subscription.through()
            # events from history may be ahead of what is emitted
            if not cohort.synced or through < max(least, cohort.sent):
                self._behind = watch.id
                return None
            if lowest is None or through < lowest:
                lowest = through
        return lowest

    def periodic(self, watch: ClientWatch) -> None:
        """Progress of a watch that wants it, if it is synced and got no events in this interval."""
        if watch.cohort.sent > watch.mark:
            watch.mark = watch.cohort.sent
            return
        revision = self._promised((watch,))
        if revision is not None and revision >= watch.start:
            self.send(self.hub.header(revision), watch_id_field(watch.id))

    def send(self, *parts: bytes | memoryview) -> None:
        call = self.call
        call.send(*parts)
        self.stats.sent += 1
        if call.pending_bytes() > call.backlog_bytes():
            self.blocked = self.wary = True

    def send_framed(self, data: bytes, responses: int) -> None:
        call = self.call
        call.send_framed(data)
        self.stats.sent += responses
        if call.pending_bytes() > _LITTLE_BYTES and call.pending_bytes() > call.backlog_bytes():
            self.blocked = self.wary = True

    def drained(self) -> None:
        if self.blocked and not self.closed and self.call.pending_bytes() <= self.call.backlog_bytes():
            self.blocked, self.wary = False, self.doubted > 0
            cohorts = list({watch.cohort: None for watch in self.watches.values()})
            first = self._next_resumed % max(len(cohorts), 1)
            for at, cohort in enumerate((*cohorts[first:], *cohorts[:first]), first + 1):
                cohort.subscription.resume(cohort)
                if self.blocked:
                    self._next_resumed = at  # else a busy range would keep those behind it waiting
                    return

    def doubt(self, change: int) -> None:
        """Users have changed: no watch gets anything before it is judged anew. 0: all have been."""
        self.doubted, self.wary = change, self.blocked or change > 0

    def forget(self, watch: ClientWatch) -> None:
        del self.watches[watch.id]
        self.hub.ended(watch)

    def compacted(self, watch: ClientWatch) -> None:
        """A compaction has ended a watch. A later cancel of it is still answered, as by etcd."""
        self.forget(watch)
        if self._compacted is None:
            self._compacted = {}
        elif len(self._compacted) >= _COMPACTED_MOST:
            del self._compacted[next(iter(self._compacted))]
        self._compacted[watch.id] = True

    def close(self) -> None:
        self.closed = True
        self.call.on_drain = None
        self.deferred = None


def _asked_for(request: Any) -> Any:
    """The watch that a request asks for; None: it asks for none, or is refused before anybody is judged."""
    if request.WhichOneof("request_union") != "create_request":
        return None
    create = request.create_request
    return create if create.start_revision >= 0 else None
