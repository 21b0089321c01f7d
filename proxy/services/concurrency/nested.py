"""What a service asks of others in the name of its client: the same methods that clients call, with the
client's identity, deadline and metadata. Nothing waits: each question has a function that takes its
answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster import errors
from cluster.pb import rpc_pb2
from proxy.grpc.inner import InnerCall, Served
from proxy.routing.waiting import Loop
from proxy.shared.context import Call

Message = Any  # generated classes are made at run time
Then = Callable[[Message, str], None]  # the answer, or None and what went wrong


class _Question(InnerCall):
    """One request, one answer."""

    __slots__ = ("_answer", "_response", "_then")

    def __init__(
        self, path: str, call: Call, response: type[Message], then: Then, deadline: float | None
    ) -> None:
        super().__init__(path, call.metadata, call.peer, deadline)
        self.principal = call.principal
        self._response = response
        self._then = then
        self._answer: Message = None

    def answered(self, message: bytes) -> None:
        self._answer = self._response.FromString(message)

    def ended(self, status: int, message: str) -> None:
        self._then(None if status else self._answer, message)


class _Watch(InnerCall):
    """Events of one range. They are taken in a turn of the loop of their own: whoever takes them may end
    the watch."""

    __slots__ = ("_call", "_end", "_loop", "_take")

    def __init__(
        self, loop: Loop, call: Call, take: Callable[[Message], None], end: Callable[[str], None]
    ) -> None:
        super().__init__("/etcdserverpb.Watch/Watch", call.metadata, call.peer)
        self.principal = call.principal
        self._loop = loop
        self._call = call
        self._take = take
        self._end = end

    def answered(self, message: bytes) -> None:
        response = rpc_pb2.WatchResponse.FromString(message)
        if response.canceled:
            compacted = errors.COMPACTED.text if response.compact_revision else ""
            self._loop.call_soon(
                lambda: self._canceled(compacted or response.cancel_reason or errors.LOST_WATCHER.text)
            )
        elif response.events:
            self._loop.call_soon(lambda: self.closed or self._take(response))

    def ended(self, status: int, message: str) -> None:
        self._loop.call_soon(lambda: self._end(message or errors.LOST_WATCHER.text))

    def _canceled(self, reason: str) -> None:
        if not self.closed:
            self.cancel()
            self._end(reason)

    def pending_bytes(self) -> int:
        pending: int = self._call.pending_bytes()
        return pending

    def backlog_bytes(self) -> int:
        backlog: int = self._call.backlog_bytes()
        return backlog


class Nested:
    """The questions behind one call of a client."""

    def __init__(self, loop: Loop, registry: Served, call: Call) -> None:
        self._loop = loop
        self._registry = registry
        self._call = call
        self._watch: _Watch | None = None

    def range(self, request: Message, then: Then) -> None:
        """KV/Range."""
        self._ask("/etcdserverpb.KV/Range", request, rpc_pb2.RangeResponse, then)

    def txn(self, request: Message, then: Then) -> None:
        """KV/Txn."""
        self._ask("/etcdserverpb.KV/Txn", request, rpc_pb2.TxnResponse, then)

    def delete(self, key: bytes, then: Then) -> None:
        """KV/DeleteRange of one key."""
        self._ask(
            "/etcdserverpb.KV/DeleteRange",
            rpc_pb2.DeleteRangeRequest(key=key),
            rpc_pb2.DeleteRangeResponse,
            then,
        )

    def grant(self, ttl_s: int, then: Then) -> None:
        """Lease/LeaseGrant."""
        self._ask(
            "/etcdserverpb.Lease/LeaseGrant",
            rpc_pb2.LeaseGrantRequest(TTL=ttl_s),
            rpc_pb2.LeaseGrantResponse,
            then,
        )

    def watch(self, request: Message, take: Callable[[Message], None], end: Callable[[str], None]) -> None:
        """Watch: each answer that has events, until :meth:`unwatch`; ``end`` is told why it ended by
        itself. One at a time."""
        self.unwatch()
        watch = self._watch = _Watch(self._loop, self._call, take, end)
        watch.open(self._registry, rpc_pb2.WatchRequest(create_request=request).SerializeToString())

    def unwatch(self) -> None:
        """No more events are wanted."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()

    def drained(self) -> None:
        """The client has taken answers."""
        if self._watch is not None and self._watch.on_drain is not None:
            self._watch.on_drain()

    def _ask(self, path: str, request: Message, response: type[Message], then: Then) -> None:
        call = self._call
        deadline = (
            None if call.closed else call.deadline
        )  # what is cleaned up behind a client that has gone takes its time
        _Question(path, call, response, then, deadline).open(self._registry, request.SerializeToString())
