"""Calls that no HTTP/2 stream carries: a JSON request's, and a service's in the name of its client.

Handlers see what they see of a ``proxy.grpc.calls.Call``. The owner gets answers by ``answered`` and the end
by ``ended``; it may ``cancel`` the call, and sets its deadline. The registry names the handler, so what holds
for a client's call (gate, principal) holds for an inner one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from cluster.errors import UNKNOWN_METHOD, EtcdError
from cluster.faults import HANDLER_MISTAKES, faults
from cluster.machine import Tracer
from proxy.grpc import wire
from proxy.grpc.calls import BACKLOG_BYTES, StreamHandler, UnaryHandler
from proxy.grpc.timed_calls import Timing

CANCELLED = wire.CANCELLED


class Served(Protocol):
    """What serves methods: ``proxy.grpc.registry.Registry``."""

    @property
    def gate(self) -> Callable[[bytes, bytes], EtcdError | None] | None: ...
    @property
    def shown(self) -> Callable[[bytes | None, str | None], Any]: ...
    @property
    def tracer(self) -> Tracer | None: ...
    def served(self, path: str) -> UnaryHandler | StreamHandler | None: ...
    def count(self, path: bytes, version: bytes) -> Timing | None: ...


class Apart:
    """Stands for the connection of one call."""

    __slots__ = ("shares",)

    streams = (1,)  # InnerCall.id: the call itself would be referred to by what it refers to

    def __init__(self) -> None:
        self.shares: dict[Any, list[int]] = {}


class InnerCall:
    __slots__ = (
        "closed", "connection", "context", "deadline", "gathered", "handler", "metadata", "on_cancel",
        "on_drain", "path", "peer", "principal", "refused",
    )
    id = 1
    ending = False
    started = True
    timed = False
    large_answers = False  # an answer becomes one piece here, and is translated as one
    peer_name: str | None = None  # certificates say nothing here: calls of the gateway come by tokens

    def __init__(
        self, path: str, metadata: dict[bytes, bytes], peer: str, deadline: float | None = None
    ) -> None:
        self.path = path.encode()
        self.metadata = metadata
        self.peer = peer
        self.principal: Any = None  # proxy.auth.shown.Shown; the maker of the call may know it
        self.deadline = deadline  # loop time; the maker of the call ends it then
        self.closed = False
        self.refused: int | None = None  # as a ``proxy.grpc.calls.Call``'s
        self.context: Any = None  # free for the handler
        self.on_cancel: Callable[[Any], None] | None = None
        self.on_drain: Callable[[], None] | None = None
        self.gathered = 0  # bytes of its answer that have come and wait for the rest
        self.handler: StreamHandler | None = None  # of a method with a stream of requests
        self.connection = Apart()

    def costs(self, work: int) -> None:
        """Its request counted as it was translated."""

    def waits_long(self, kept: int) -> None:
        """It has nothing of a window."""

    # -- for the owner of the call

    def open(self, registry: Served, request: bytes | None) -> None:
        """Begin it. ``request``: the first message, for a unary method the only one; None: none yet."""
        path = self.path.decode()
        if self.principal is None:
            shown = self.metadata.get(b"token", self.metadata.get(b"authorization"))
            self.principal = registry.shown(shown, None)
        handler = registry.served(path)
        refusal = registry.gate(self.path, b"") if registry.gate is not None else None
        if refusal is not None:
            self.finish(refusal.code, refusal.text)
        elif handler is None:
            service, _, method = path[1:].partition("/")
            self.finish(wire.UNIMPLEMENTED, UNKNOWN_METHOD.text.format(method=method, service=service))
        elif callable(handler):
            self._guarded(lambda: handler(self, request or b""))  # type: ignore[arg-type]
        else:
            self.handler = handler
            self._guarded(lambda: handler.opened(self))  # type: ignore[arg-type]
            if request is not None:
                self.say(request)

    def say(self, request: bytes) -> None:
        """One more request of a stream."""
        handler = self.handler
        if handler is not None and not self.closed:
            self._guarded(lambda: handler.message(self, request))  # type: ignore[arg-type]

    def half_close(self) -> None:
        handler = self.handler
        if handler is not None and not self.closed:
            self._guarded(lambda: handler.half_closed(self))  # type: ignore[arg-type]

    def cancel(self) -> None:
        """End it without ``ended``."""
        if not self.closed:
            self.closed = True
            self._gone()

    def answered(self, message: bytes) -> None:
        raise NotImplementedError

    def ended(self, status: int, message: str) -> None:
        raise NotImplementedError

    # -- for handlers

    def field(self, name: bytes) -> bytes:
        return self.metadata.get(name, b"")

    def reply(self, *parts: bytes) -> None:
        if not self.closed:
            self.answered(b"".join(parts))
            self.finish()

    def send(self, *parts: bytes | memoryview) -> None:
        if not self.closed:
            self.answered(b"".join(parts))

    def send_framed(self, data: bytes) -> None:
        at, size = 0, wire.PREFIX.size
        while at < len(data) and not self.closed:
            _, length = wire.PREFIX.unpack_from(data, at)
            self.answered(data[at + size : at + size + length])
            at += size + length

    def start(self) -> None:
        """There is no header to send."""

    def finish(self, status: int = wire.OK, message: str = "") -> None:
        if not self.closed:
            self.closed = True
            self.ended(status, message)

    def pause(self) -> None:
        """Nobody asks for more here: the whole of a request may come."""

    def read_on(self) -> None: ...

    def pending_bytes(self) -> int:
        return 0

    def backlog_bytes(self) -> int:
        return BACKLOG_BYTES

    # -- an answer in pieces (``proxy.routing.pieces``)

    def gather(self, size: int) -> None:
        self.gathered += size

    @property
    def room_to_gather(self) -> bool:
        return self.takes

    @property
    def takes(self) -> bool:
        return self.pending_bytes() <= self.backlog_bytes()

    @property
    def progress(self) -> tuple[int, int]:
        return self.pending_bytes(), self.gathered

    @property
    def beyond_all_room(self) -> bool:
        return False

    def _guarded(self, step: Callable[[], None]) -> None:
        """A fault of this program in a handler ends the call, as ``proxy.grpc.calls.Call.fault``."""
        try:
            step()
        except HANDLER_MISTAKES as error:
            faults.met(f"serving {self.path.decode()}", error)
            if not self.closed:
                self.refused = wire.INTERNAL
                try:
                    self.finish(wire.INTERNAL, wire.FAULT)
                finally:
                    self._gone()

    def _gone(self) -> None:
        """Tell the handler that nobody waits for it any more."""
        handler = self.handler
        try:
            if self.on_cancel is not None:
                self.on_cancel(self)
            if handler is not None:
                handler.cancelled(self)  # type: ignore[arg-type]
        except HANDLER_MISTAKES as error:
            faults.met(f"ending {self.path.decode()}", error)
