"""etcdserverpb.Lease. The registry is shard 0's; keep-alives and times to live are the sequencer's to answer
(review H7: after a confirmation round begun after they arrived)."""

from __future__ import annotations

from collections import deque

from cluster import errors, validate
from cluster.errors import EtcdError
from cluster.messages import HEAD, Method
from cluster.pb import rpc_pb2
from proxy.router import Waiting
from proxy.services.context import Call, Context, Registry, UnaryHandler
from proxy.spanning import Gather, lease_keys_answer

SERVICE = "etcdserverpb.Lease"
_SHARD = 0
_MAX_UNANSWERED = 10_000  # keep-alives of one stream that wait for their answer


def register(registry: Registry, context: Context) -> None:
    """Register the service's methods."""
    for name, method in (("LeaseGrant", Method.LEASE_GRANT), ("LeaseRevoke", Method.LEASE_REVOKE)):
        registry.unary(f"/{SERVICE}/{name}", _write(context, name, method))
    registry.unary(f"/{SERVICE}/LeaseTimeToLive", _time_to_live(context))
    registry.unary(f"/{SERVICE}/LeaseLeases", _leases(context))
    registry.stream(f"/{SERVICE}/LeaseKeepAlive", KeepAlive(context))


def _write(context: Context, name: str, method: Method) -> UnaryHandler:
    stats = context.method("unary", SERVICE, name)

    def write(call: Call, data: bytes) -> None:
        stats.started += 1
        if not context.no_leader(call, stats):
            context.router.write(call, method, data, _SHARD, stats)

    return write


def _time_to_live(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "LeaseTimeToLive")

    def with_keys(waiting: Waiting, status: int, body: bytes) -> None:
        if status != 0:
            if not waiting.call.closed:
                context.refuse(waiting.call, stats, EtcdError.decode(body))
            return
        ttl = body[HEAD.size :]

        def answer(call: Call, revision: int, term: int, blob: bytes) -> None:
            stats.ok += 1
            call.reply(context.router.header(revision, term), lease_keys_answer(ttl, blob))

        requests = dict.fromkeys(range(1, context.placement.shards), waiting.context)
        Gather(context.router, waiting.call, Method.LEASE_KEYS, requests, False, stats, answer, context.refuse).start()

    def time_to_live(call: Call, data: bytes) -> None:
        stats.started += 1
        if context.no_leader(call, stats):
            return
        try:  # here and not at the node: what that does not expect ends it, and a question is asked again elsewhere
            request = validate.parse(rpc_pb2.LeaseTimeToLiveRequest.FromString, data)
        except EtcdError as e:
            context.refuse(call, stats, e)
            return
        if context.placement.shards > 1 and request.keys:
            context.router.ask(call, Method.LEASE_TTL, data, _SHARD, stats, with_keys, data)
        else:
            context.router.ask(call, Method.LEASE_TTL, data, _SHARD, stats)

    return time_to_live


def _leases(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "LeaseLeases")

    def leases(call: Call, data: bytes) -> None:
        stats.started += 1
        if not context.no_leader(call, stats):
            # linearizable: whoever was granted a lease finds it, also at a host whose replica is behind (an etcd
            # answers a grant only once it is applied where it was asked for; a lease has no revision to wait for)
            context.router.read(call, Method.LEASE_LEASES, data, _SHARD, False, stats)

    return leases


class _Stream:
    """One keep-alive stream: answers leave in the order of the requests."""

    __slots__ = ("half_closed", "waiting")

    def __init__(self) -> None:
        self.half_closed = False
        self.waiting: deque[list[bytes]] = deque()  # per request its answer's parts, empty until it is there


class KeepAlive:
    """Lease/LeaseKeepAlive: one answer per request, in order; TTL 0 for a lease that is not there."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._router = context.router
        self._stats = context.method("bidi_stream", SERVICE, "LeaseKeepAlive")

    def opened(self, call: Call) -> None:
        """A client has opened a stream."""
        self._stats.started += 1
        call.context = _Stream()
        if not self._context.no_leader(call, self._stats):
            self._context.guard(call, self._leaderless)

    def message(self, call: Call, data: bytes) -> None:
        """One keep-alive."""
        stream: _Stream = call.context
        if call.closed:
            return
        self._stats.received += 1
        try:
            validate.parse(rpc_pb2.LeaseKeepAliveRequest.FromString, data)
            if len(stream.waiting) >= _MAX_UNANSWERED:
                raise EtcdError(errors.TOO_MANY_REQUESTS)
        except EtcdError as e:
            self._end(call, e)
            return
        slot: list[bytes] = []
        stream.waiting.append(slot)
        self._router.ask(call, Method.LEASE_KEEPALIVE, data, _SHARD, self._stats, self._answer, slot)

    def half_closed(self, call: Call) -> None:
        """The client sends no more: OK once everything is answered."""
        stream: _Stream = call.context
        stream.half_closed = True
        self._finish_if_done(call, stream)

    def cancelled(self, call: Call) -> None:
        """The client has gone."""
        self._context.unguard(call)
        self._stats.failed(errors.Code.CANCELED)

    def _answer(self, waiting: Waiting, status: int, body: bytes) -> None:
        call = waiting.call
        if call.closed:
            return
        if status != 0:
            self._end(call, EtcdError.decode(body))
            return
        revision, term = HEAD.unpack_from(body)
        waiting.context.append(self._router.header(revision, term))
        waiting.context.append(body[HEAD.size:])
        stream: _Stream = call.context
        queue = stream.waiting
        while queue and queue[0]:
            call.send(*queue.popleft())
            self._stats.sent += 1
        self._finish_if_done(call, stream)

    def _finish_if_done(self, call: Call, stream: _Stream) -> None:
        if stream.half_closed and not stream.waiting and not call.closed:
            self._context.unguard(call)
            self._stats.ok += 1
            call.finish()

    def _leaderless(self, call: Call) -> None:
        if not call.closed:
            self._end(call, EtcdError(errors.NO_LEADER))

    def _end(self, call: Call, error: EtcdError) -> None:
        self._context.unguard(call)
        self._context.refuse(call, self._stats, error)
