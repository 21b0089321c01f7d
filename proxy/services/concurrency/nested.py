"""Calls that a service makes for its client: the methods that clients call, with the client's identity,
deadline and metadata but for ``hasleader``. They count as no RPCs. Each answer goes to a callback. A mistake
in there ends the client's call alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from cluster import errors
from cluster.errors import EtcdError
from cluster.faults import HANDLER_MISTAKES, faults
from cluster.pb import rpc_pb2
from proxy.grpc.inner import InnerCall
from proxy.routing.waiting import Loop
from proxy.services.watch import WatchService
from proxy.shared.context import INNER, Call, Context, Registry

Message = Any  # generated classes are made at run time
Then = Callable[[Message, str], None]  # the answer, or None and what went wrong
_WATCH = "/etcdserverpb.Watch/Watch"


class Uncounted:
    """A registry's methods for calls that services make: counted apart, as no client's."""

    tracer = None

    def __init__(self, context: Context, registry: Registry) -> None:
        self._context = context
        self._registry = registry
        self._watches = WatchService(context, INNER)

    @property
    def gate(self) -> Callable[[bytes, bytes], EtcdError | None] | None:
        return self._registry.gate

    def shown(self, token: bytes | None, common_name: str | None) -> Any:
        """Nothing: each call comes with its client's principal."""

    def count(self, path: bytes, version: bytes) -> None:
        """No client's call is begun here."""

    def served(self, path: str) -> Any:
        if path == _WATCH:
            return self._watches
        _, service, method = path.split("/")
        handler: Any = self._registry.served(path)
        return partial(handler, stats=self._context.method(INNER, service, method))


class _Question(InnerCall):
    __slots__ = ("_answer", "_nested", "_response", "_then")

    def __init__(self, path: str, nested: Nested, response: type[Message], then: Then,
                 deadline: float | None) -> None:
        call = nested.call
        super().__init__(path, nested.metadata, call.peer, deadline)
        self.principal = call.principal
        self._nested = nested
        self._response = response
        self._then = then
        self._answer = b""

    def answered(self, message: bytes) -> None:
        self._answer = message

    def ended(self, status: int, message: str) -> None:
        self._nested.asked.discard(self)
        try:
            self._then(None if status else self._response.FromString(self._answer), message)
        except HANDLER_MISTAKES as error:
            self._nested.met(self.path, error)


class _Watch(InnerCall):
    __slots__ = ("_end", "_loop", "_nested", "_take")

    def __init__(self, loop: Loop, nested: Nested, take: Callable[[Message], None],
                 end: Callable[[str], None]) -> None:
        call = nested.call
        super().__init__(_WATCH, nested.metadata, call.peer)
        self.principal = call.principal
        self._loop = loop
        self._nested = nested
        self._take = take
        self._end = end

    def answered(self, message: bytes) -> None:
        self._soon(lambda: self._told(rpc_pb2.WatchResponse.FromString(message)))

    def ended(self, status: int, message: str) -> None:
        def end() -> None:
            if self._nested.watches(self):  # nobody has given it up meanwhile
                self._end(message or errors.LOST_WATCHER.text)

        self._soon(end)

    def _soon(self, tell: Callable[[], object]) -> None:
        def told() -> None:
            try:
                tell()
            except HANDLER_MISTAKES as error:
                self._nested.met(self.path, error)

        self._loop.call_soon(told)

    def _told(self, response: rpc_pb2.WatchResponse) -> None:
        if self.closed:
            return
        if response.canceled:
            self.cancel()
            compacted = errors.COMPACTED.text if response.compact_revision else ""
            self._end(compacted or response.cancel_reason or errors.LOST_WATCHER.text)
        elif response.events:
            self._take(response)

    def pending_bytes(self) -> int:
        return int(self._nested.call.pending_bytes())

    def backlog_bytes(self) -> int:
        return int(self._nested.call.backlog_bytes())


class Nested:
    def __init__(self, loop: Loop, registry: Uncounted, call: Call) -> None:
        self._loop = loop
        self._registry = registry
        self.call = call
        self.metadata = {name: value for name, value in call.metadata.items() if name != b"hasleader"}
        self.on_fault: Callable[[], None] | None = None  # ends the call, while it waits
        self.asked: set[_Question] = set()  # without an answer yet
        self._watch: _Watch | None = None

    def met(self, path: bytes, error: Exception) -> None:
        """A fault of this program in taking an answer of that method."""
        faults.met(f"answering {path.decode()}", error)
        if self.on_fault is not None:
            self.on_fault()

    def range(self, request: Message, then: Then) -> None:
        self._ask("/etcdserverpb.KV/Range", request, rpc_pb2.RangeResponse, then)

    def txn(self, request: Message, then: Then) -> None:
        self._ask("/etcdserverpb.KV/Txn", request, rpc_pb2.TxnResponse, then)

    def delete(self, key: bytes, then: Then) -> None:
        request = rpc_pb2.DeleteRangeRequest(key=key)
        self._ask("/etcdserverpb.KV/DeleteRange", request, rpc_pb2.DeleteRangeResponse, then)

    def grant(self, ttl_s: int, then: Then) -> None:
        request = rpc_pb2.LeaseGrantRequest(TTL=ttl_s)
        self._ask("/etcdserverpb.Lease/LeaseGrant", request, rpc_pb2.LeaseGrantResponse, then)

    def revoke(self, lease: int, then: Then) -> None:
        request = rpc_pb2.LeaseRevokeRequest(ID=lease)
        self._ask("/etcdserverpb.Lease/LeaseRevoke", request, rpc_pb2.LeaseRevokeResponse, then)

    def watch(self, request: Message, take: Callable[[Message], None], end: Callable[[str], None]) -> None:
        """Watch until :meth:`unwatch`, one at a time; ``take`` gets answers with events, ``end`` why it ended
        otherwise."""
        self.unwatch()
        watch = self._watch = _Watch(self._loop, self, take, end)
        watch.open(self._registry, rpc_pb2.WatchRequest(create_request=request).SerializeToString())

    def unwatch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()

    def drop(self) -> None:
        """The client's call has ended: what is not sent yet will not be, and no answer is taken any more."""
        self.unwatch()
        asked, self.asked = self.asked, set()
        for question in asked:
            question.cancel()

    def watches(self, watch: _Watch) -> bool:
        return self._watch is watch

    def drained(self) -> None:
        if self._watch is not None and self._watch.on_drain is not None:
            self._watch.on_drain()

    def _ask(self, path: str, request: Message, response: type[Message], then: Then) -> None:
        call = self.call
        deadline = None if call.closed else call.deadline  # cleaning up after a client has none
        question = _Question(path, self, response, then, deadline)
        self.asked.add(question)
        question.open(self._registry, request.SerializeToString())
