"""Nodes with a watch source over one shared log of events, and clients that record what they are told.

The nodes apply the log at their own pace, answer HISTORY from what they have applied when they *begin* with
it and may send that answer later than events applied since: the order of ``node.serving.watch.watches`` at
its worst.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.auth.principal import SAID
from cluster.pb import kv_pb2, rpc_pb2
from cluster.placement import Placement
from cluster.wire.messages import (
    HISTORY_ANSWER,
    HISTORY_HEAD,
    SUBSCRIBE_HEAD,
    SUBSCRIBED_BODY,
    Method,
    Status,
)
from cluster.wire.protobuf import key_value, tombstone
from proxy.services.watch import WatchService
from tests.events import record, table_and_fields
from tests.unit.proxy.fakes import FakeCall, FakeNode, Net

Event = tuple[int, int, bytes, bytes]  # revision, kind, key, KeyValue


def in_range(key: bytes, start: bytes, end: bytes) -> bool:
    return key == start if not end else key >= start and (end == b"\0" or key < end)


@dataclass
class Store:
    """The cluster's history: what was written at each revision from 2 on."""

    events: list[Event] = field(default_factory=list)
    revision: int = 1
    compacted: int = 0

    def write(self, *changes: tuple[int, bytes]) -> int:
        """One revision: ``(kind, key)`` each."""
        self.revision += 1
        for kind, key in changes:
            kv = (
                tombstone(key, self.revision)
                if kind
                else key_value(key, self.revision, self.revision, 1, b"v", 0)
            )
            self.events.append((self.revision, kind, key, kv))
        return self.revision


@dataclass(eq=False)
class Source:
    """The watch source of one node."""

    node: FakeNode
    store: Store
    placement: Placement
    slice_events: int = 3
    subs: dict[int, tuple[bytes, bytes, int]] = field(default_factory=dict)
    late: list[tuple[int, int, bytes]] = field(default_factory=list)  # answers that wait to be sent
    begun: int = 0  # the revision that an apply in slices is about to reach
    sent: dict[int, int] = field(default_factory=dict)  # events of it that have left: rid -> how many
    waiting: list[Any] = field(default_factory=list)  # who subscribes meanwhile
    at_once: Callable[[], int] = lambda: 1
    verdict: tuple[int, bytes] = (Status.OK, b"")

    def __post_init__(self) -> None:
        self.node.forget = self.forget

    def forget(self) -> None:
        """The link is gone, and with it what was for it."""
        self.subs.clear()
        self.late.clear()
        self.sent.clear()
        self.waiting.clear()

    def serve(self) -> None:
        """Take the requests; history answers are made now and sent by ``send_late``."""
        requests = self.node.take()
        if not self.begun:
            requests, self.waiting = self.waiting + requests, []
        for request in requests:
            body = request.body
            if request.method == Method.SUBSCRIBE and self.begun:
                self.waiting.append(request)
            elif request.method == Method.SUBSCRIBE:
                start, _, key_len = SUBSCRIBE_HEAD.unpack_from(body)
                at = SUBSCRIBE_HEAD.size
                live = max(start, self.node.revision + 1)
                self.subs[request.rid] = (body[at : at + key_len], body[at + key_len :], live)
                self.node.answer(
                    request.rid, Status.SUBSCRIBED, SUBSCRIBED_BODY.pack(live, self.store.compacted)
                )
            elif request.method == Method.UNSUBSCRIBE:
                self.subs.pop(request.rid, None)
                self.sent.pop(request.rid, None)
                self.waiting = [w for w in self.waiting if w.rid != request.rid]
            elif request.method == Method.READ_INDEX:
                self.node.index(request, 1, 1)
            elif request.method & ~SAID == Method.AUTH_SHOW:  # whether a user may watch a range
                self.node.answer(request.rid, *self.verdict)
            elif request.method == Method.HISTORY:
                self.late.append((request.rid, *self._history(body)))

    def _history(self, body: bytes) -> tuple[int, bytes]:
        start, _, _, _, key_len = HISTORY_HEAD.unpack_from(body)
        at = HISTORY_HEAD.size
        key, end = body[at : at + key_len], body[at + key_len :]
        if start <= self.store.compacted - 1:
            return Status.ERROR, EtcdError(errors.COMPACTED, str(self.store.compacted)).encode()
        found: list[tuple[int, int, bytes, int]] = []
        following = max(start, self.node.revision + 1)
        for revision in range(start, self.node.revision + 1):
            if len(found) >= self.slice_events:
                following = revision
                break
            found += self._events(revision - 1, revision, key, end)
        head = HISTORY_ANSWER.pack(following, self.node.revision, self.store.compacted, len(found))
        return Status.OK, head + table_and_fields(found)

    def _events(self, after: int, upto: int, key: bytes, end: bytes) -> list[tuple[int, int, bytes, int]]:
        """What this node's shard has of these revisions, each with its place in its revision."""
        found, places = [], Counter[int]()
        for revision, kind, changed, kv in self.store.events:
            if (after < revision <= upto and in_range(changed, key, end)
                    and self.owns(changed, revision)):
                found.append((revision, kind, kv, places[revision]))
            places[revision] += 1
        return found

    def owns(self, key: bytes, revision: int) -> bool:
        return self.placement.shard_of(key) == self.node.shard

    def tell(self, upto: int) -> None:
        """This revision is applied: what goes before its events."""

    def send_late(self) -> None:
        late, self.late = self.late, []
        for rid, status, body in late:
            self.node.answer(rid, status, body)

    def begin(self, revision: int) -> None:
        """Begin to apply up to a revision: a part of its events leaves before it is applied."""
        self.begun = revision
        for rid, (key, end, live) in self.subs.items():
            events = self._events(revision - 1, revision, key, end) if revision >= live else []
            if len(events) > 1:
                self.sent[rid] = len(events) // 2
                self.node.answer(rid, Status.EVENTS, record(events[: self.sent[rid]], True, revision))

    def _end_begun(self) -> None:
        after, upto, sent = self.node.revision, self.begun, self.sent
        self.node.revision, self.begun, self.sent = upto, 0, {}
        self.tell(upto)
        for rid, (key, end, live) in self.subs.items():
            before = self._events(max(after, live - 1), upto - 1, key, end)
            last = self._events(max(after, live - 1, upto - 1), upto, key, end)
            if rid in sent:
                if before:
                    self.node.answer(rid, Status.EVENTS, record(before))
                self.node.answer(rid, Status.EVENTS, record(last[sent[rid] :], False, upto))
            elif before or last:
                self.node.answer(rid, Status.EVENTS, record(before + last))
        self.node.watermark(upto)
        self.serve()

    def apply(self, revision: int) -> None:
        """Apply up to a revision, so many revisions at once as ``at_once`` says: their events, then the
        watermark."""
        if self.begun:
            self._end_begun()
        while self.node.revision < revision:
            after = self.node.revision
            self.node.revision = upto = min(revision, after + max(1, self.at_once()))
            self.tell(upto)
            for rid, (key, end, live) in self.subs.items():
                if found := self._events(max(after, live - 1), upto, key, end):
                    self.node.answer(rid, Status.EVENTS, record(found))
        self.node.watermark(revision)

    def install(self, revision: int) -> None:
        """A snapshot is installed: revisions are jumped over."""
        self.tell(revision)
        for rid in self.subs:
            self.node.answer(rid, Status.LOST, b"")
        self.subs.clear()
        self.sent.clear()
        self.begun = 0
        self.node.revision = max(self.node.revision, revision)
        self.node.watermark(self.node.revision)


class Client:
    """One watch stream."""

    def __init__(self, world: World, metadata: dict[bytes, bytes] | None = None) -> None:
        self.call = FakeCall(metadata)
        self.service = world.service
        self.service.opened(self.call)
        self._seen = 0

    def create(self, key: bytes, range_end: bytes = b"", start: int = 0, **fields: Any) -> None:
        request = rpc_pb2.WatchCreateRequest(key=key, range_end=range_end, start_revision=start, **fields)
        self.service.message(self.call, rpc_pb2.WatchRequest(create_request=request).SerializeToString())

    def cancel(self, watch_id: int) -> None:
        request = rpc_pb2.WatchCancelRequest(watch_id=watch_id)
        self.service.message(self.call, rpc_pb2.WatchRequest(cancel_request=request).SerializeToString())

    def ask_progress(self) -> None:
        request = rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest())
        self.service.message(self.call, request.SerializeToString())

    def leave(self) -> None:
        self.call.closed = True
        self.service.cancelled(self.call)

    def responses(self) -> list[Any]:
        """Everything received so far."""
        return [rpc_pb2.WatchResponse.FromString(r) for r in self.call.replies]

    def fresh(self) -> list[Any]:
        """What came since the last time."""
        found = [rpc_pb2.WatchResponse.FromString(r) for r in self.call.replies[self._seen :]]
        self._seen = len(self.call.replies)
        return found

    def events(self, watch_id: int = 0) -> list[tuple[int, int, bytes]]:
        """``(revision, type, key)`` of a watch's events."""
        return [
            (e.kv.mod_revision, e.type, e.kv.key)
            for r in self.responses() if r.watch_id == watch_id for e in r.events
        ]


class World:
    """A front, three hosts' nodes with watch sources, one log. ``sources``: those of shard 0."""

    def __init__(self, progress_ms: int = 600_000, shards: int = 1) -> None:
        self.net = Net(shards=shards)
        self.store = Store()
        self.every = {at: Source(n, self.store, Placement(shards)) for at, n in self.net.every.items()}
        self.sources = {m: self.every[0, m] for m in self.net.nodes}
        self.service = WatchService(self.net.context)
        self.net.context.hub._progress_interval_s = progress_ms / 1000
        self.net.started(leader=2)

    def settle(self, apply: bool = True) -> None:
        """Every live node applies everything, answers everything."""
        for _ in range(500):
            self.net.run()
            busy = False
            for source in self.every.values():
                if source.node.alive:
                    busy = busy or bool(source.node.requests or source.late)
                    source.serve()
                    source.send_late()
                    if apply and (source.begun or source.node.revision < self.store.revision):
                        source.apply(self.store.revision)
                        busy = True
            self.net.run()
            if not busy and not any(s.node.requests for s in self.every.values() if s.node.alive):
                return
        raise AssertionError("watches never come to rest")

    def write(self, *changes: tuple[int, bytes]) -> int:
        """Write one revision and let everybody see it."""
        revision = self.store.write(*changes)
        self.settle()
        return revision

    def cut(self, member: int, shard: int = 0) -> None:
        self.every[shard, member].forget()
        self.net.cut(member, shard)

    def restart(self, member: int, revision: int = 0, shard: int = 0) -> None:
        """The node is back, at a revision (0: where it was)."""
        node = self.net.every[shard, member]
        node.up = True
        if revision:
            node.revision = revision
        self.every[shard, member].begun = 0
        self.net.pass_time(1.5)


KeyValue = kv_pb2.KeyValue
