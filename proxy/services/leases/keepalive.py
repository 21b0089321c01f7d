"""Lease/LeaseKeepAlive: one answer per request, in order; TTL 0 for a lease that is not there.

Hot path: the keep-alives of a tick are one question to the sequencer and one answer, whatever their number,
and only so many questions are under way at once: what comes meanwhile goes with the next. 3.3 us of the
front's CPU per keep-alive instead of 9.8 (``tests.unit.proxy.cost``), and a hundredth of the records between
the processes.

A lease that is due is neither alive nor gone until its revocation is applied. A question for many does not
wait for that: such a lease is asked for once more alone, which does.
"""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import NamedTuple

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import validate
from cluster.pb import rpc_pb2
from cluster.wire.messages import HEAD, LEASE_DUE, Method
from cluster.wire.protobuf import varint
from proxy.routing.waiting import ASK, PartWaiting, Waiting
from proxy.shared.context import Call, Context
from proxy.spanning.permissions import may_write_lease

_SHARD = 0
_MAX_UNANSWERED = 10_000  # keep-alives of one stream that wait for their answer
_QUESTIONS = 2  # under way at once
_MOST = 4_096  # leases in one question
_KNOWN = 20_000  # requests whose reading is kept: clients send the same again and again


class _Stream:
    """One keep-alive stream: answers leave in the order of the requests."""

    __slots__ = ("half_closed", "waiting")

    def __init__(self) -> None:
        self.half_closed = False
        self.waiting: deque[_Asked] = deque()


class _Asked:
    """One keep-alive."""

    __slots__ = ("answer", "call", "id_field", "lease", "started")

    def __init__(self, call: Call, lease: int, id_field: bytes, started: float) -> None:
        self.call = call
        self.lease = lease
        self.id_field = id_field
        self.started = started  # loop time
        self.answer = b""  # empty until it is there


class _Lease(NamedTuple):
    id: int
    id_field: bytes  # field 2 of the answer


class KeepAlive:
    """Serves the method. See the module's docstring."""

    def __init__(self, context: Context, service: str) -> None:
        self._context = context
        self._router = context.router
        self._stats = context.method("bidi_stream", service, "LeaseKeepAlive")
        self._waiting: deque[_Asked] = deque()  # not asked for yet
        self._open = 0  # questions under way
        self._gathering = False
        self._known: dict[bytes, _Lease] = {}
        self._streams: set[Call] = set()
        context.on_stop.append(self.stop)

    def opened(self, call: Call) -> None:
        """A client has opened a stream."""
        self._stats.started += 1
        call.context = _Stream()
        if not self._context.no_stream(call, self._stats):
            self._streams.add(call)
            self._context.guard(call, self._leaderless)

    def message(self, call: Call, data: bytes) -> None:
        """One keep-alive."""
        stream: _Stream = call.context
        if call.closed:
            return
        self._stats.received += 1
        lease = self._known.get(data)
        if lease is None or len(stream.waiting) >= _MAX_UNANSWERED:
            try:
                lease = self._read(data)
                if len(stream.waiting) >= _MAX_UNANSWERED:
                    raise EtcdError(errors.TOO_MANY_REQUESTS)
            except EtcdError as e:
                self._end(call, e)
                return
        asked = _Asked(call, lease.id, lease.id_field, self._router.loop.time())
        stream.waiting.append(asked)
        if self._router.principals.judged(call):
            self._alone(asked)
            return
        self._waiting.append(asked)
        if not self._gathering and self._open < _QUESTIONS:
            self._gathering = True
            self._router.at_flush(self._ask)

    def half_closed(self, call: Call) -> None:
        """The client sends no more: OK once everything is answered."""
        stream: _Stream = call.context
        stream.half_closed = True
        self._finish_if_done(call, stream)

    def cancelled(self, call: Call) -> None:
        """The client has gone."""
        self._forget(call)
        self._stats.failed(errors.Code.CANCELED)

    # -- questions and answers --------------------------------------------------------------------------

    def _read(self, data: bytes) -> _Lease:
        lease = validate.parse(rpc_pb2.LeaseKeepAliveRequest.FromString, data).ID
        found = _Lease(lease, b"\x10" + varint(lease) if lease else b"")
        if len(data) <= 16:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[data] = found
        return found

    def _ask(self) -> None:
        """H7: one question, asked now, for the keep-alives that have arrived by now."""
        self._gathering = False
        waiting = self._waiting
        while waiting and self._open < _QUESTIONS:
            batch: list[_Asked] = []
            while waiting and len(batch) < _MOST:
                asked = waiting.popleft()
                if not asked.call.closed:
                    batch.append(asked)
            if batch:
                self._open += 1
                leases = [asked.lease for asked in batch]
                self._question(Method.LEASE_KEEPALIVES, Struct(f"<{len(leases)}q").pack(*leases), batch)

    def _alone(self, asked: _Asked) -> None:
        """The client has to be allowed to renew the lease: it is asked for with his name."""
        router, call = self._router, asked.call
        request = rpc_pb2.LeaseKeepAliveRequest(ID=asked.lease).SerializeToString()

        def ask() -> None:
            router.to_leader(PartWaiting(
                call, Method.LEASE_KEEPALIVE, request, _SHARD, ASK, asked.started, router.limit_s,
                router.quiet, self._decided, asked))

        may_write_lease(router, call, range(1, self._context.placement.shards), asked.lease, ask,
                        lambda error: self._failed([asked], error))

    def _question(self, method: Method, body: bytes, batch: list[_Asked]) -> None:
        router = self._router
        router.to_leader(
            Waiting(
                None, method, body, _SHARD, ASK, batch[0].started, router.limit_s, router.quiet,
                self._answered, batch,
            )
        )

    def _answered(self, waiting: Waiting, status: int, body: bytes) -> None:
        batch: list[_Asked] = waiting.context
        self._open -= 1
        if self._waiting and not self._gathering:
            self._gathering = True
            self._router.at_flush(self._ask)
        if status != 0:
            self._failed(batch, EtcdError.decode(body))
            return
        revision, term = HEAD.unpack_from(body)
        header = self._router.header(revision, term)
        last_ttl, ttl_field = 0, b""
        for asked, ttl in zip(batch, Struct(f"<{len(batch)}q").unpack_from(body, HEAD.size), strict=True):
            if ttl == LEASE_DUE:
                request = rpc_pb2.LeaseKeepAliveRequest(ID=asked.lease).SerializeToString()
                router = self._router
                router.to_leader(Waiting(None, Method.LEASE_KEEPALIVE, request, _SHARD, ASK, asked.started,
                                         router.limit_s, router.quiet, self._decided, asked))
                continue
            if ttl != last_ttl:
                last_ttl, ttl_field = ttl, b"\x18" + varint(ttl) if ttl else b""
            self._told(asked, b"%b%b%b" % (header, asked.id_field, ttl_field))

    def _decided(self, waiting: Waiting, status: int, body: bytes) -> None:
        """A lease that was due is gone, or alive again under another sequencer."""
        asked: _Asked = waiting.context
        if status != 0:
            self._failed([asked], EtcdError.decode(body))
            return
        revision, term = HEAD.unpack_from(body)
        self._told(asked, self._router.header(revision, term) + body[HEAD.size :])

    def _told(self, asked: _Asked, answer: bytes) -> None:
        call = asked.call
        if call.closed:
            return
        asked.answer = answer
        stream: _Stream = call.context
        queue = stream.waiting
        while queue and queue[0].answer:
            call.send(queue.popleft().answer)
            self._stats.sent += 1
        if stream.half_closed or self._context.stopping:
            self._finish_if_done(call, stream)

    def _failed(self, batch: list[_Asked], error: EtcdError) -> None:
        for asked in batch:
            if not asked.call.closed:
                self._end(asked.call, error)

    def _finish_if_done(self, call: Call, stream: _Stream) -> None:
        if stream.waiting or call.closed:
            return
        if stream.half_closed:
            self._forget(call)
            self._stats.ok += 1
            call.finish()
        elif self._context.stopping:
            self._end(call, EtcdError(errors.STOPPED))

    def _leaderless(self, call: Call) -> None:
        if not call.closed:
            self._end(call, EtcdError(errors.NO_LEADER))

    def stop(self) -> None:
        """The front shuts down: each stream ends once it owes no answer."""
        for call in tuple(self._streams):
            self._finish_if_done(call, call.context)

    def _forget(self, call: Call) -> None:
        self._context.unguard(call)
        self._streams.discard(call)

    def _end(self, call: Call, error: EtcdError) -> None:
        self._forget(call)
        self._context.refuse(call, self._stats, error)
