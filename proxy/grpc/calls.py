"""gRPC over ``proxy.http.http2``: calls and their handlers. Where each path goes says
``proxy.grpc.registry``.

A unary handler is ``handler(call, message)``: it answers now or later with ``call.reply`` or
``call.finish(status, message)``. A stream handler is an object with ``opened``, ``message``,
``half_closed`` and ``cancelled``; it answers with ``call.send`` and ``call.finish``. Nothing
is awaited: handlers are called from inside the read of the connection, and everything they
say in one tick leaves in one write.

Texts and codes are grpc-go's, because etcd's clients compare them.

Hot path: a unary call costs one ``Call``, one look-up of its cached header block, one handler
call, and a reply spliced from constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from cluster.faults import HANDLER_MISTAKES, faults
from proxy.grpc import wire
from proxy.grpc.deadlines import Deadlines, Slot
from proxy.grpc.wire import (
    PREFIX,
    RESPONSE,
    SMALL_BYTES,
    encode_message,
    parse_timeout,
    reply_head,
    reply_tail,
    small_reply,
)
from proxy.http.http2 import Connection, ErrorCode, HeaderBlock, Limits, Stream
from proxy.http.http2.connection import TURN_WORK
from proxy.http.http2.stream import DIRECT_BYTES
from proxy.http.memory import SMALL_BYTES as SMALL_REQUEST
from proxy.http.memory import TOO_MANY

_TOO_MUCH = "grpc: too many unfinished requests on this connection"

_JOINED_BYTES = 65_536
# an unfinished request of that size may be refused for want of room: others it is not worth while
_PATIENT_BYTES = 65_536
BACKLOG_BYTES = 1 << 20  # what may wait for the client of a stream that is sent to unasked
SHARED_BACKLOG_BYTES = 16 << 20  # of all streams of a connection, before each has less
MESSAGE_WORK = 3  # units of work (``proxy.http.http2.connection``) of a message of a stream

UnaryHandler = Callable[["Call", bytes], None]


class StreamHandler(Protocol):
    """What serves a method with a stream of requests. One object may serve every call (see
    ``Call.context``)."""

    def opened(self, call: Call) -> None:
        """The call began; nothing of its requests has come."""

    def message(self, call: Call, data: bytes) -> None:
        """One request message."""

    def half_closed(self, call: Call) -> None:
        """The client sends no more; it still reads."""

    def cancelled(self, call: Call) -> None:
        """The client reset the call, its deadline passed, or the connection is lost: send nothing more."""


class Peer:
    """What the calls of one connection share: the client's address, the server's deadlines and turns."""

    __slots__ = ("address", "deadlines", "name", "secure", "spent")

    def __init__(self, address: str, deadlines: Deadlines, name: str | None = None, *,
                 secure: bool = False, spent: Callable[[], bool] = lambda: False) -> None:
        """``name``: who the client is by its certificate, where --client-cert-auth asks for one. ``secure``:
        by TLS. ``spent``: whether messages of streams wait for a later turn (``proxy.http.backlog``)."""
        self.address = address
        self.deadlines = deadlines
        self.spent = spent
        self.name = name
        self.secure = secure


class Call(Stream):
    """One gRPC call, as its handler sees it. See the module's docstring."""

    __slots__ = ("_buffer", "_counted", "_slot", "context", "deadline", "gathered", "handler",
                 "on_cancel", "on_drain", "principal", "started")
    large_answers = True  # the parts of one are sent as they are
    timed = False  # whoever wants to know how long it takes is told (proxy.grpc.timed_calls)
    CUT_SHORT = wire.INTERNAL  # the status of a request that ends inside a message, as grpc-go has it

    def __init__(self, connection: Connection, stream_id: int, headers: HeaderBlock) -> None:
        # Stream.__init__, written out: a call of its own would cost a tenth of the whole request.
        self.connection = connection
        self.id = stream_id
        self.headers = headers
        self.send_window = connection.peer_stream_window
        self.receive_window = connection.stream_window
        self.received_bytes = 0
        self.held = 0
        self.queue = None
        self.queued = 0
        self.ending = False
        self.trailer = b""
        self.remote_closed = False
        self.closed = False
        route = headers.route
        self.handler: Any = route.handler
        self.principal: Any = route.principal  # proxy.auth.shown.Shown, or None: its client shows nothing
        self.context: Any = None  # free for the handler
        self.deadline: float | None = None  # loop time
        # unary: the client gave up, or the deadline passed
        self.on_cancel: Callable[[Call], None] | None = None
        self.on_drain: Callable[[], None] | None = None  # pending_bytes fell to the mark
        self.started = False  # response headers are sent
        self._buffer: bytearray | None = None  # an unfinished request message
        self.gathered = 0  # bytes of its answer that have come and wait for the rest
        self._counted = 0  # bytes of it that are in connection.buffered
        self._slot: Slot | None = None
        if route.timeout is not None:
            deadline = self.deadline = connection.now + route.timeout
            self._slot = connection.owner.deadlines.add(self, deadline)  # type: ignore[attr-defined]

    # -- what handlers use

    @property
    def path(self) -> bytes:
        """``/package.Service/Method``."""
        return self.headers.path

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """The request's fields. Shared between calls: read-only."""
        return self.headers.metadata

    def field(self, name: bytes) -> bytes:
        """One field of the request, b"" if it is not there: cheaper than ``metadata``."""
        return self.headers.field(name)

    @property
    def peer(self) -> str:
        """The client's address."""
        return self.connection.owner.address  # type: ignore[attr-defined,no-any-return]

    @property
    def peer_name(self) -> str | None:
        """Who the client is by its certificate, where --client-cert-auth asks for one."""
        return self.connection.owner.name  # type: ignore[attr-defined,no-any-return]

    def reply(self, *parts: bytes) -> None:
        """Unary success: response headers, one message (the parts joined), status 0."""
        if self.closed or self.ending:
            return
        size = 5
        for part in parts:
            size += len(part)
        connection = self.connection
        if (
            size <= DIRECT_BYTES
            and size <= connection.send_window
            and size <= self.send_window
            and connection.plain
            and not self.started
            and self.remote_closed
            and not self.gathered
        ):
            connection.send_window -= size
            stream_id = self.id
            out = connection.out
            if not out:
                connection.notify()
            if size <= SMALL_BYTES and len(parts) == 1:  # a put's: 0.1 us less
                out.append(small_reply(stream_id, parts[0]))
            else:
                out.append(reply_head(stream_id, size - 5))
                out += parts
                out.append(reply_tail(stream_id))
            connection.pings.sent = True
            if self._slot is not None:
                self._slot.leave(self)
            if self.held:
                connection.answered(self)
            if connection.draining:
                connection.forget(self, None)
            else:
                self.closed = True
                del connection.streams[stream_id]
            return
        self.send(*parts)
        self.finish()

    def send(self, *parts: bytes | memoryview) -> None:
        """One message of a stream (the parts joined); response headers first if they are still to be sent."""
        if self.closed or self.ending:
            return
        if not self.started:
            self.start()
        if len(parts) == 1:
            body = parts[0]
            self.send_data(b"".join((PREFIX.pack(0, len(body)), body)))
            return
        size = sum(map(len, parts))
        if size < _JOINED_BYTES:
            self.send_data(b"".join((PREFIX.pack(0, size), *parts)))
            return
        # a large one is not copied: its parts wait for the window one by one
        self.send_data(PREFIX.pack(0, size))
        for part in parts:
            self.send_data(part)

    def send_framed(self, data: bytes) -> None:
        """Whole messages of a stream, each behind its length prefix already (``grpc_wire.PREFIX``)."""
        if self.closed or self.ending:
            return
        if not self.started:
            self.start()
        self.send_data(data)

    def start(self) -> None:
        """Send the response headers now, before any message."""
        if not self.started and not self.closed:
            self.started = True
            self.send_headers(RESPONSE)

    def finish(self, status: int = wire.OK, message: str = "") -> None:
        """Ends the call with this status, after everything sent so far."""
        if self.closed or self.ending:
            return
        if self._slot is not None:
            self._slot.leave(self)
        self._drop_buffer()
        if self.started:
            self.end(wire.ending(status, message, 0))
        else:
            self.ending = True
            self.send_headers(wire.ending(status, message, 200), end_stream=True)

    def pending_bytes(self) -> int:
        """Bytes sent that wait for the client's window or for the socket."""
        return self.queued

    def backlog_bytes(self) -> int:
        """How much may wait for the client (``pending_bytes``) before whoever sends of himself should wait
        with it: less where the other streams of its connection have much to take, or there is no room for it
        (``proxy.http.memory``)."""
        connection = self.connection
        if connection.queued > SHARED_BACKLOG_BYTES or connection.crowded:
            return connection.limits.drain_mark_bytes
        return BACKLOG_BYTES

    # -- an answer in pieces (``proxy.routing.pieces``)

    def gather(self, size: int) -> None:
        """So much more of its answer has come from a node."""
        if not (self.closed or self.ending):
            self.gathered += size
            self.connection.gathered += size
            self.connection.recount()

    @property
    def room_to_gather(self) -> bool:
        """Whether its connection may have more of several answers."""
        connection = self.connection
        return (
            connection.gathered + connection.queued <= connection.limits.max_untaken_bytes
            and not connection.crowded
        )

    @property
    def takes(self) -> bool:
        """Whether its client takes what is ready."""
        connection = self.connection
        return connection.queued <= connection.limits.max_untaken_bytes

    @property
    def progress(self) -> tuple[int, int]:
        """Differs when its client has taken something since, or something has come for it."""
        return self.connection.queued, self.connection.gathered

    @property
    def beyond_all_room(self) -> bool:
        """Whether there is too much, by what others hold. An answer that is too large by itself alone is let
        through."""
        connection = self.connection
        memory = connection.memory
        return connection.crowded and memory.used - self.gathered > memory.limit_bytes

    # -- from the connection

    def turned_away(self) -> None:
        self.finish(wire.RESOURCE_EXHAUSTED, TOO_MANY)

    def trailers(self, block: HeaderBlock) -> None:
        self.received(b"", True)

    def cancelled(self, code: int) -> None:
        if self._slot is not None:
            self._slot.leave(self)
        self._drop_buffer()
        if not self.ending:  # else the handler is done with it
            self.gone()

    def expired(self) -> None:
        """The deadline passed (``Deadlines``)."""
        if self.closed or self.ending:
            return
        self._slot = None
        if self.queued:  # a client that reads nothing would not read the status either
            self._drop_buffer()
            self.reset()
        else:
            self.finish(wire.DEADLINE_EXCEEDED, "context deadline exceeded")
        self.gone()

    def gone(self) -> None:
        """Tell the handler that nobody waits any more."""
        try:
            self.tell_gone()
        except HANDLER_MISTAKES as error:
            faults.met(f"ending {wire.text_of(self.path)}", error)

    def tell_gone(self) -> None:
        """The kind's own way of saying so."""
        if self.on_cancel is not None:
            self.on_cancel(self)

    def drained(self) -> None:
        if self.on_drain is not None and not self.ending:
            self.on_drain()

    # -- request messages

    def _drop_buffer(self) -> None:
        if self.held:
            self.connection.answered(self)
        if self.gathered:
            self.connection.gathered -= self.gathered
            self.gathered = 0
        if self._buffer is not None:
            self.connection.buffered -= self._counted
            self._counted = 0
            self._buffer = None

    def _messages(self, data: bytes, ended: bool) -> list[bytes] | None:
        """What is complete now. None: the call has been finished because of what came."""
        connection = self.connection
        limits = connection.limits
        buffer = self._buffer
        if buffer is None:
            buffer = self._buffer = bytearray()
        buffer += data
        try:
            found = wire.split_messages(
                buffer, limits.max_message_bytes, self.headers.field(b"grpc-encoding")
            )
            connection.buffered += len(buffer) - self._counted
            self._counted = len(buffer)
            if buffer and ended:
                raise wire.Refused(self.CUT_SHORT, "unexpected EOF")
            if connection.buffered > limits.max_buffered_bytes:
                raise wire.Refused(wire.RESOURCE_EXHAUSTED, _TOO_MUCH)
            if len(buffer) > _PATIENT_BYTES and connection.crowded:
                raise wire.Refused(wire.RESOURCE_EXHAUSTED, TOO_MANY)
        except wire.Refused as refused:
            self._refuse(refused.status, refused.message)
            return None
        return found

    def _refuse(self, status: int, message: str) -> None:
        self.finish(status, message)
        self.gone()

    def fault(self, error: Exception) -> None:
        """A handler met a fault of this program: the call ends with INTERNAL, as if its client had given it
        up."""
        faults.met(f"serving {wire.text_of(self.path)}", error)
        if not (self.closed or self.ending):
            self._refuse(wire.INTERNAL, wire.FAULT)


class UnaryCall(Call):
    """A call whose handler gets the one request message, once the client has sent all."""

    __slots__ = ()
    CUT_SHORT = wire.UNKNOWN

    def opened(self, ended: bool) -> None:
        if ended:
            self.received(b"", True)

    def received(self, data: bytes, ended: bool) -> None:
        if ended and self._buffer is None and len(data) >= 5:
            flag, size = PREFIX.unpack_from(data)
            if not flag and size == len(data) - 5 and size <= self.connection.limits.max_message_bytes:
                if size > SMALL_REQUEST:
                    self.connection.taken_on(self, size)
                try:
                    self.handler(self, data[5:])
                except HANDLER_MISTAKES as error:
                    self.fault(error)
                return
        self._collect(data, ended)

    def _collect(self, data: bytes, ended: bool) -> None:
        """The way of a message that comes in pieces, compressed, or wrong. It is held whole until the client
        has sent all."""
        if self.closed or self.ending:
            return
        if not ended:
            self._hold(data)
            return
        messages = self._messages(data, True)
        if messages is None:
            return
        if not messages:
            self._refuse(wire.UNKNOWN, "EOF")
            return
        self._buffer = None
        self.connection.taken_on(self, len(messages[0]))
        try:
            self.handler(self, messages[0])
        except HANDLER_MISTAKES as error:
            self.fault(error)

    def _hold(self, data: bytes) -> None:
        connection = self.connection
        limits = connection.limits
        buffer = self._buffer
        if buffer is None:
            buffer = self._buffer = bytearray()
        buffer += data
        self._counted += len(data)
        connection.buffered += len(data)
        if len(buffer) >= 5:
            _, length = PREFIX.unpack_from(buffer)
            if length > limits.max_message_bytes:
                self._refuse(wire.RESOURCE_EXHAUSTED, wire.too_large(length, limits.max_message_bytes))
                return
            excess = len(buffer) - length - 5  # grpc-go takes the first message and looks at nothing else
            if excess > 0:
                del buffer[-excess:]
                self._counted -= excess
                connection.buffered -= excess
        if connection.buffered > limits.max_buffered_bytes:
            self._refuse(wire.RESOURCE_EXHAUSTED, _TOO_MUCH)
        elif len(buffer) > _PATIENT_BYTES and connection.crowded:
            connection.memory.refused += 1
            self._refuse(wire.RESOURCE_EXHAUSTED, TOO_MANY)


class StreamCall(Call):
    """A call whose handler gets every request message as it comes; of very many that come at once some each
    turn."""

    __slots__ = ("_ended", "_held")

    def __init__(self, connection: Connection, stream_id: int, headers: HeaderBlock) -> None:
        super().__init__(connection, stream_id, headers)
        self._held: list[bytes] = []  # newest first
        self._ended = False  # behind them

    def opened(self, ended: bool) -> None:
        try:
            self.handler.opened(self)
        except HANDLER_MISTAKES as error:
            self.fault(error)
        if ended:
            self.received(b"", True)

    def received(self, data: bytes, ended: bool) -> None:
        try:
            self._received(data, ended)
        except HANDLER_MISTAKES as error:
            self.fault(error)

    def _received(self, data: bytes, ended: bool) -> None:
        if self.closed or self.ending:
            return
        if self.choked:
            self.reset(ErrorCode.ENHANCE_YOUR_CALM)
            self.cancelled(ErrorCode.ENHANCE_YOUR_CALM)
            return
        if (
            not self._buffer
            and len(data) >= 5
            and not data[0]
            and len(data) == PREFIX.unpack_from(data)[1] + 5
            and len(data) - 5 <= self.connection.limits.max_message_bytes
        ):
            connection = self.connection
            if connection.owner.spent():  # type: ignore[attr-defined]
                self._held, self._ended = [data[5:]], ended
                self._wait()
                return
            connection.work += MESSAGE_WORK
            self.handler.message(self, data[5:])
            if self.closed or self.ending:
                return
        elif data:
            messages = self._messages(data, ended)
            if messages is None:
                return
            messages.reverse()
            self._held, self._ended = messages, ended
            if messages and self.connection.owner.spent():  # type: ignore[attr-defined]
                self._wait()
            else:
                self._hand_over()
            return
        elif ended and self._buffer:
            self._refuse(wire.INTERNAL, "unexpected EOF")
            return
        if ended:
            self.handler.half_closed(self)

    @property
    def choked(self) -> bool:
        """It asks on and on, and takes no answer."""
        queued, connection = self.queued, self.connection
        limits = connection.limits
        return queued > limits.max_unsent_bytes or (queued > limits.drain_mark_bytes and connection.crowded)

    def _wait(self) -> None:
        """What is held comes in a later turn, and so does whatever was read behind it."""
        self.connection.held_back = self
        self.connection.work = TURN_WORK

    def _hand_over(self) -> None:
        """What is held, as far as this turn's work allows."""
        connection, held = self.connection, self._held
        spent = connection.owner.spent  # type: ignore[attr-defined]
        before = len(held)
        while held:
            if connection.work >= connection.turn_work or (len(held) < before and spent()):
                connection.held_back = self
                connection.work = max(connection.work, connection.turn_work)
                return
            connection.work += MESSAGE_WORK
            self.handler.message(self, held.pop())
            if self.closed or self.ending:
                held.clear()
                return
        if self._ended:
            self.handler.half_closed(self)

    def go_on(self) -> None:
        if self.closed or self.ending:
            self._held.clear()
            return
        try:
            self._hand_over()
        except HANDLER_MISTAKES as error:
            self.fault(error)

    def tell_gone(self) -> None:
        super().tell_gone()
        self.handler.cancelled(self)


class RefusedCall(Call):
    """A call that is answered from its header block alone."""

    __slots__ = ()

    def opened(self, ended: bool) -> None:
        route = self.headers.route
        if route.http_status == 200:
            self.finish(route.status, route.message)
        else:
            self.ending = True
            self.send_headers(wire.ending(route.status, route.message, route.http_status), end_stream=True)


__all__ = [
    "Call", "Deadlines", "Limits", "Peer", "RefusedCall", "StreamCall", "StreamHandler", "UnaryCall",
    "UnaryHandler", "encode_message", "parse_timeout",
]  # fmt: skip
