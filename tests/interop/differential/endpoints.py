"""Where a step can be sent: a server over gRPC, or ``cluster.evaluate.requests`` over a shard in memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from cluster import errors
from cluster.errors import EtcdError
from cluster.pb import kv_pb2
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from tests.unit.semantics.memory import MemoryShard, check_body

from .steps import Step

TIMEOUT_S = 20


@dataclass(slots=True)
class Refusal:
    """An error answer."""

    code: int
    text: str


@dataclass(slots=True)
class Watched:
    """What a watch delivered: events with their revisions, and how it ended."""

    created: bool
    events: list[Any] = field(default_factory=list)  # kv_pb2.Event
    canceled: bool = False  # by the server
    compact_revision: int = 0
    reason: str = ""
    split: bool = False  # whether a revision came in more than one response


Result = Any  # a response message, Refusal or Watched

_KV, _LEASE = "/etcdserverpb.KV/", "/etcdserverpb.Lease/"
_UNARY = {
    "Put": (_KV, pb.PutResponse), "Range": (_KV, pb.RangeResponse),
    "DeleteRange": (_KV, pb.DeleteRangeResponse), "Txn": (_KV, pb.TxnResponse),
    "Compact": (_KV, pb.CompactionResponse),
    "LeaseGrant": (_LEASE, pb.LeaseGrantResponse), "LeaseRevoke": (_LEASE, pb.LeaseRevokeResponse),
    "LeaseTimeToLive": (_LEASE, pb.LeaseTimeToLiveResponse), "LeaseLeases": (_LEASE, pb.LeaseLeasesResponse),
}


class Endpoint(Protocol):
    """Something that answers steps. ``last_event`` of a watch: stop when an event of that revision has
    come."""

    def call(self, step: Step, expected_events: int = 0) -> Result:
        """Send one request and wait for its answer. ``expected_events``: how many a watch waits for."""


class GrpcEndpoint:
    """A server, by its address. Requests go out as bytes and by name, as any client's do."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.address = address
        self._channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
        grpc.channel_ready_future(self._channel).result(timeout=TIMEOUT_S)
        self._calls = {
            name: self._channel.unary_unary(
                service + name, request_serializer=_serialize, response_deserializer=response.FromString)
            for name, (service, response) in _UNARY.items()
        }

    def close(self) -> None:
        self._channel.close()

    def call(self, step: Step, expected_events: int = 0) -> Result:
        try:
            if step.rpc == "Watch":
                return self._watch(step.request, expected_events)
            if step.rpc == "LeaseKeepAlive":
                stream = self._channel.stream_stream(
                    "/etcdserverpb.Lease/LeaseKeepAlive", request_serializer=_serialize,
                    response_deserializer=pb.LeaseKeepAliveResponse.FromString)
                (answer,) = stream(iter([step.request]), timeout=TIMEOUT_S)
                return answer
            return self._calls[step.rpc](step.request, timeout=TIMEOUT_S)
        except grpc.RpcError as e:
            return Refusal(e.code().value[0], e.details())

    def _watch(self, create: Any, expected: int) -> Watched:
        """Create, wait for the expected events, cancel, and take whatever else came before the
        cancellation."""
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        requests.put(pb.WatchRequest(create_request=create))
        stream = self._channel.stream_stream(
            "/etcdserverpb.Watch/Watch", request_serializer=_serialize,
            response_deserializer=pb.WatchResponse.FromString)
        call = stream(_drain(requests), timeout=TIMEOUT_S)
        try:
            first = next(call)
            watched = Watched(first.created)
            if first.canceled:
                watched.canceled, watched.reason = True, first.cancel_reason
                watched.compact_revision = first.compact_revision
                return watched
            asked = False
            last = 0
            while True:
                if len(watched.events) >= expected and not asked:
                    asked = True
                    requests.put(pb.WatchRequest(
                        cancel_request=pb.WatchCancelRequest(watch_id=first.watch_id)))
                response = next(call)
                if response.events:
                    watched.split |= response.events[0].kv.mod_revision == last
                    last = response.events[-1].kv.mod_revision
                watched.events += response.events
                if response.canceled:
                    if response.compact_revision:
                        watched.canceled, watched.compact_revision = True, response.compact_revision
                        watched.reason = response.cancel_reason
                    return watched
        finally:
            requests.put(None)
            call.cancel()


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _drain(requests: queue.SimpleQueue[Any]) -> Iterator[Any]:
    while (request := requests.get()) is not None:
        yield request


class MemoryEndpoint:
    """What muster's semantics say, without any server."""

    _METHODS = {
        "Put": Method.PUT, "Range": Method.RANGE, "DeleteRange": Method.DELETE_RANGE, "Txn": Method.TXN,
        "Compact": Method.COMPACT, "LeaseGrant": Method.LEASE_GRANT, "LeaseRevoke": Method.LEASE_REVOKE}

    def __init__(self) -> None:
        self.shard = MemoryShard()
        self._lock = threading.Lock()

    def call(self, step: Step, expected_events: int = 0) -> Result:
        try:
            if step.rpc == "Watch":
                return self._watch(step.request)
            if step.rpc.startswith("Lease") and step.rpc not in self._METHODS:
                return self._lease(step)
            body = step.request.SerializeToString()
            method = self._METHODS[step.rpc]
            check_body(method, body, 128)
            revision, tail = self.shard.execute(method, body)
            response = _UNARY[step.rpc][1].FromString(tail)
            response.header.revision = revision
            return response
        except EtcdError as e:
            return Refusal(e.code, e.text)

    def _lease(self, step: Step) -> Result:
        shard, lease = self.shard, getattr(step.request, "ID", 0)
        header = pb.ResponseHeader(revision=shard.revision)
        granted = shard.leases.get(lease, 0)
        if step.rpc == "LeaseLeases":
            return pb.LeaseLeasesResponse(header=header, leases=[pb.LeaseStatus(ID=i) for i in shard.leases])
        if step.rpc == "LeaseKeepAlive":
            return pb.LeaseKeepAliveResponse(header=header, ID=lease, TTL=granted)
        if not granted:
            return pb.LeaseTimeToLiveResponse(header=header, ID=lease, TTL=-1)
        return pb.LeaseTimeToLiveResponse(
            header=header, ID=lease, TTL=granted, grantedTTL=granted,
            keys=shard.lease_keys(lease) if step.request.keys else [])

    def _watch(self, create: Any) -> Watched:
        shard = self.shard
        key, end = create.key or b"\0", create.range_end
        if end and end != b"\0" and end <= key:
            return Watched(True, canceled=True, reason=errors.WATCH_RANGE_EMPTY)
        start = create.start_revision or shard.revision + 1
        if 0 < start < shard.compact_revision:
            return Watched(True, canceled=True, compact_revision=shard.compact_revision)
        watched = Watched(True)
        compacted = shard.compact_revision  # of it a compaction leaves the last change of each key
        last = {key: at for at, (revision, _, key, _) in enumerate(shard.events) if revision == compacted}
        for at, (revision, kind, event_key, kv) in enumerate(shard.events):
            if revision < start or kind in create.filters or (
                    revision == compacted and last[event_key] != at):
                continue
            if not (event_key == key if not end else key <= event_key and (end == b"\0" or event_key < end)):
                continue
            event = kv_pb2.Event(type=kind, kv=kv_pb2.KeyValue.FromString(kv))
            created = kind == 0 and event.kv.create_revision == revision
            # the state before the revision, and never of a creation, even if a delete came just before it
            if create.prev_kv and not created and (before := shard.get(event_key, revision - 1)) is not None:
                event.prev_kv.ParseFromString(before)
            watched.events.append(event)
        return watched
