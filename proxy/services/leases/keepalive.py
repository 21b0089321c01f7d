"""Lease/LeaseKeepAlive: one answer per request, in order; TTL 0 for an unknown lease. Hot path: the
keep-alives of a tick are one question to the sequencer, few questions are under way at once: 3.3 us of the
front's CPU per keep-alive instead of 9.8. A due lease is neither alive nor gone until its revocation is
applied: it is asked for once more, alone, which waits for that."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from struct import Struct

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import validate
from cluster.pb import rpc_pb2
from cluster.wire.messages import HEAD, LEASE_DUE, Method
from cluster.wire.protobuf import varint
from proxy.grpc.held import Held
from proxy.routing.waiting import ASK, PartWaiting, Waiting
from proxy.shared.context import Call, Context
from proxy.spanning.permissions import may_write_lease

_SHARD = 0
_MAX_UNANSWERED = 10_000  # keep-alives of one stream; further ones wait
_QUESTIONS = 2  # under way at once
_MOST = 4_096  # leases in one question
_KNOWN = 20_000  # parsed requests kept: clients repeat them


_Lease = tuple[int, bytes]  # ID, field 2 of the answer


@dataclass(slots=True)
class _Stream:
    half_closed: bool = False
    waiting: deque[_Asked] = field(default_factory=deque)  # answered in this order
    later: Held = field(default_factory=Held)  # requests behind these


@dataclass(slots=True, eq=False)
class _Asked:
    call: Call
    lease: int
    id_field: bytes
    started: float  # loop time
    straight: bool = False  # the sequencer alone judges it: the front knew of no other shard
    answer: bytes = b""


class _Batch(list[_Asked]):
    """Those of one question, which names no user: this front knew of none when it was asked."""

    closed, principal = False, None

    def finish(self, code: int, text: str) -> None:
        """After a fault of this program."""
        for asked in self:
            if not asked.call.closed:
                asked.call.finish(code, text)


class KeepAlive:
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
        self._stats.started += 1
        call.context = _Stream()
        if not self._context.no_stream(call, self._stats, self._leaderless):
            self._streams.add(call)

    def message(self, call: Call, data: bytes) -> None:
        stream: _Stream = call.context
        if call.closed:
            return
        self._stats.received += 1
        if len(stream.waiting) < _MAX_UNANSWERED:  # then none waits behind these
            self._take(call, stream, data)
            return
        try:
            stream.later.add(call, data)
        except EtcdError as e:
            self._end(call, e)

    def _take(self, call: Call, stream: _Stream, data: bytes) -> None:
        lease = self._known.get(data)
        if lease is None:
            try:
                lease = self._read(data)
            except EtcdError as e:
                self._end(call, e)
                return
        asked = _Asked(call, *lease, self._router.loop.time())
        stream.waiting.append(asked)
        if self._router.principals.enabled:
            self._alone(asked)
            return
        self._waiting.append(asked)
        if not self._gathering and self._open < _QUESTIONS:
            self._gathering = True
            self._router.at_flush(self._ask)

    def half_closed(self, call: Call) -> None:
        stream: _Stream = call.context
        stream.half_closed = True
        self._finish_if_done(call, stream)

    def cancelled(self, call: Call) -> None:
        self._forget(call)
        self._context.given_up(call, self._stats)

    def _read(self, data: bytes) -> _Lease:
        lease = validate.parse_streamed(rpc_pb2.LeaseKeepAliveRequest.FromString, data).ID
        found = lease, b"\x10" + varint(lease) if lease else b""
        if len(data) <= 16:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[data] = found
        return found

    def _ask(self) -> None:
        """H7: one question for the keep-alives that have arrived by now."""
        self._gathering = False
        waiting = self._waiting
        while waiting and self._open < _QUESTIONS:
            batch = _Batch()
            while waiting and len(batch) < _MOST:
                asked = waiting.popleft()
                if not asked.call.closed:
                    batch.append(asked)
            if batch:
                self._open += 1
                leases = [asked.lease for asked in batch]
                router = self._router
                router.to_leader(PartWaiting(
                    batch, Method.LEASE_KEEPALIVES, Struct(f"<{len(leases)}q").pack(*leases),
                    _SHARD, ASK, batch[0].started, router.limit_s, router.quiet,
                ).calls(self._answered, batch))

    def _alone(self, asked: _Asked) -> None:
        """The client must be allowed to renew the lease: the question has its name."""
        asked.straight = len(self._context.placement.running) == 1
        may_write_lease(
            self._router, asked.call, self._context.placement, asked.lease,
            lambda: self._renew(asked), lambda error: self._failed([asked], error))

    def _renew(self, asked: _Asked) -> None:
        router = self._router
        request = rpc_pb2.LeaseKeepAliveRequest(ID=asked.lease).SerializeToString()
        router.to_leader(PartWaiting(
            asked.call, Method.LEASE_KEEPALIVE, request, _SHARD, ASK, asked.started, router.limit_s,
            router.quiet,
        ).calls(self._decided, asked))

    def _answered(self, waiting: Waiting, status: int, body: bytes) -> None:
        batch: list[_Asked] = waiting.context
        self._open -= 1
        if self._waiting and not self._gathering:
            self._gathering = True
            self._router.at_flush(self._ask)
        if status != 0:
            self._refused(batch, EtcdError.decode(body))
            return
        revision, term = HEAD.unpack_from(body)
        header = self._router.header(revision, term)
        ttls = Struct(f"<{len(batch)}q").unpack_from(body, HEAD.size)
        self._context.leases_renewed += len(ttls) - ttls.count(0) - ttls.count(LEASE_DUE)
        last_ttl, ttl_field = 0, b""
        for asked, ttl in zip(batch, ttls, strict=True):
            if ttl == LEASE_DUE:
                self._alone(asked)
                continue
            if ttl != last_ttl:
                last_ttl, ttl_field = ttl, b"\x18" + varint(ttl) if ttl else b""
            self._told(asked, b"%b%b%b" % (header, asked.id_field, ttl_field))

    def _decided(self, waiting: Waiting, status: int, body: bytes) -> None:
        asked: _Asked = waiting.context
        if status != 0:
            self._failed([asked], EtcdError.decode(body))
            return
        if asked.straight and len(self._context.placement.running) > 1:  # the table came before the answer
            self._alone(asked)
            return
        revision, term = HEAD.unpack_from(body)
        answer = body[HEAD.size :]
        self._context.leases_renewed += rpc_pb2.LeaseKeepAliveResponse.FromString(answer).TTL > 0
        self._told(asked, self._router.header(revision, term) + answer)

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
            if stream.later:
                self._take(call, stream, *stream.later.take(call, 1))
        if stream.half_closed or self._context.stopping:
            self._finish_if_done(call, stream)

    def _refused(self, batch: list[_Asked], error: EtcdError) -> None:
        """Users are enabled, if it is for want of a name: clients that have one are judged by it."""
        for asked in batch:
            if error.kind is errors.USER_EMPTY and asked.call.principal is not None:
                if not asked.call.closed:
                    self._alone(asked)
            else:
                self._failed([asked], error)

    def _failed(self, batch: list[_Asked], error: EtcdError) -> None:
        for asked in batch:
            if asked.call in self._streams:  # once, though its end may wait for its client
                self._end(asked.call, error)

    def _finish_if_done(self, call: Call, stream: _Stream) -> None:
        if stream.waiting or call.closed or call not in self._streams:  # its end may wait for its client
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
        for call in tuple(self._streams):
            self._finish_if_done(call, call.context)

    def _forget(self, call: Call) -> None:
        self._context.unguard(call)
        self._streams.discard(call)
        call.context.waiting.clear()  # each refers to the call
        call.context.later.clear()

    def _end(self, call: Call, error: EtcdError) -> None:
        self._forget(call)
        self._context.refuse(call, self._stats, error)
