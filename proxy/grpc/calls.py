"""gRPC over ``proxy.http.http2``: calls and their handlers. ``proxy.grpc.kinds`` takes their requests,
``proxy.grpc.registry`` finds the handler of a path.

A unary handler is ``handler(call, message)``: it answers now or later with ``call.reply`` or
``call.finish(status, message)``. A stream handler is a ``StreamHandler``; it answers with ``call.send`` and
``call.finish``. Handlers are called inside the connection's read, and what they say in one tick leaves in one
write.

Texts and codes are grpc-go's, because etcd's clients compare them.

Hot path: a unary call costs one ``Call``, one look-up of its cached header block, one handler call, and a
reply spliced from constants.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol

from cluster.faults import HANDLER_MISTAKES, faults
from proxy.grpc import wire
from proxy.grpc.deadlines import Deadlines, Slot
from proxy.grpc.wire import PREFIX, RESPONSE, SMALL_BYTES, reply_head, reply_tail, small_reply
from proxy.http.http2 import Connection, HeaderBlock, Stream
from proxy.http.http2.stream import DIRECT_BYTES
from proxy.http.memory import TOO_MANY

TOO_MUCH = "grpc: too many unfinished requests on this connection"

_JOINED_BYTES = 65_536
PLAIN_SHIFT = 9  # a unit of work (``proxy.http.http2.connection``) unpacks and parses 512 B of small fields
BACKLOG_BYTES = 1 << 20  # what may wait for a stream's client
# a client's own clock ends a call by so much before its deadline here comes, or by so much of its timeout:
# libraries round that up
_NEARLY_S, _NEARLY = 0.1, 0.01
SHARED_BACKLOG_BYTES = 16 << 20  # of a connection's streams, beyond which each has less

UnaryHandler = Callable[["Call", bytes], None]


class StreamHandler(Protocol):
    """What serves a method with a stream of requests; one object may serve every call."""

    def opened(self, call: Call) -> None: ...
    def message(self, call: Call, data: bytes) -> None: ...
    def half_closed(self, call: Call) -> None: ...

    def cancelled(self, call: Call) -> None:
        """The call was reset, its deadline passed, or the connection is lost: send nothing more."""


@dataclass(slots=True, eq=False)
class Peer:
    """What the calls of one connection share."""

    address: str  # the client's
    deadlines: Deadlines
    name: str | None = None  # of the client's certificate, where --client-cert-auth asks for one
    _: KW_ONLY
    secure: bool = False  # by TLS
    spent: Callable[[], bool] = lambda: False  # messages of streams wait (proxy.http.backlog)
    in_turn: Callable[[Callable[[], None]], object] = lambda go_on: go_on()  # likewise, those of others


class Call(Stream):
    """One gRPC call, as its handler sees it."""

    __slots__ = ("_buffer", "_counted", "_slot", "context", "deadline", "gathered", "handler",
                 "on_cancel", "on_drain", "principal", "refused", "started")
    connection: Connection
    large_answers = True  # the parts of one are sent as they are
    timed = False  # see proxy.grpc.timed_calls
    refused: int  # the status with which the front has ended it, beside its handler; unset until then
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
        self.on_cancel: Callable[[Call], None] | None = None  # unary: given up, or the deadline passed
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
        return self.headers.path

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """The request's fields, shared between calls: read-only."""
        return self.headers.metadata

    def field(self, name: bytes) -> bytes:
        """One field of the request, b"" if it has none: cheaper than ``metadata``."""
        return self.headers.field(name)

    @property
    def peer(self) -> str:
        """The client's address."""
        return self.connection.owner.address  # type: ignore[attr-defined,no-any-return]

    @property
    def peer_name(self) -> str | None:
        """The name in the client's certificate, where --client-cert-auth asks for one."""
        return self.connection.owner.name  # type: ignore[attr-defined,no-any-return]

    def costs(self, work: int) -> None:
        """It takes so many units of its connection's turn (``proxy.http.http2.connection``) beside its
        frames'."""
        self.connection.work += work

    def waits_long(self, kept: int) -> None:
        """It may stay unanswered for days: the client gets the request's window back. So many bytes of it are
        kept, and count on."""
        if self.held > 0:
            self.connection.waits_long(self, kept)

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
            if connection.exact:
                connection.forget(self, None)
            else:
                self.closed = True
                del connection.streams[stream_id]
            return
        if size - 5 > wire.MAX_SEND_BYTES:
            self.finish(wire.RESOURCE_EXHAUSTED, wire.too_large_to_send(size - 5))
            return
        self.send(*parts)
        self.finish()

    def send(self, *parts: bytes | memoryview) -> None:
        """One message of a stream (the parts joined). The call fails where they are too large for one."""
        if self.closed or self.ending:
            return
        if not self.started:
            if len(parts) == 1 and self._sent_first(parts[0]):
                return
            self.start()
        if len(parts) == 1:
            body = parts[0]
            self.send_data(b"".join((PREFIX.pack(0, len(body)), body)))
            return
        size = sum(map(len, parts))
        if size < _JOINED_BYTES:
            self.send_data(b"".join((PREFIX.pack(0, size), *parts)))
            return
        if size > wire.MAX_SEND_BYTES:
            self.finish(wire.RESOURCE_EXHAUSTED, wire.too_large_to_send(size))
            return
        # a large one is not copied: its parts wait for the window one by one
        self.send_data(PREFIX.pack(0, size))
        for part in parts:
            self.send_data(part)

    def _sent_first(self, message: bytes | memoryview) -> bool:
        """Response headers and the first message together; False: something of it would have to wait."""
        connection = self.connection
        size = len(message) + 5
        if (not connection.plain or size > DIRECT_BYTES or size > self.send_window
                or size > connection.send_window):
            return False
        self.started = True
        self.send_window -= size
        connection.send_window -= size
        out = connection.out
        if not out:
            connection.notify()
        out.append(reply_head(self.id, size - 5))
        out.append(message)
        connection.pings.sent = True
        return True

    def send_framed(self, data: bytes) -> None:
        """Whole messages, each behind its length prefix (``wire.PREFIX``)."""
        if self.closed or self.ending:
            return
        if not self.started:
            self.start()
        self.send_data(data)

    def start(self) -> None:
        if not self.started and not self.closed:
            self.started = True
            self.send_headers(RESPONSE)

    def finish(self, status: int = wire.OK, message: str = "") -> None:
        if self.closed or self.ending:
            return
        if self._slot is not None:
            self._slot.leave(self)
        self._drop_buffer()
        if self.started:
            connection = self.connection
            if status or message or self.queued or not connection.plain:
                self.end(wire.ending(status, message, 0))
            else:  # as a rule
                self.ending = True
                connection.write(reply_tail(self.id))
                connection.local_end(self)
        else:
            self.ending = True
            self.send_headers(wire.ending(status, message, 200), end_stream=True)

    def pending_bytes(self) -> int:
        return self.queued

    def backlog_bytes(self) -> int:
        """How much may wait for the client before a sender should stop: less where its connection has much to
        take."""
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
        connection = self.connection
        return connection.queued <= connection.limits.max_untaken_bytes

    @property
    def progress(self) -> tuple[int, int]:
        """Differs when its client has taken something since, or something has come for it."""
        return self.connection.queued, self.connection.gathered

    @property
    def beyond_all_room(self) -> bool:
        """Whether there is too much, by what others hold. One answer that is too large alone is let
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
        if self.deadline is not None:
            now = self.connection.now
            nearly_s = max(_NEARLY_S, _NEARLY * (self.headers.route.timeout or 0))
            # how it counts is found now or later, and is the same
            self.deadline = min(self.deadline, now) if self.deadline - now <= nearly_s else None
        self._drop_buffer()
        if not self.ending:  # else the handler is done with it
            self.gone()

    def expired(self) -> None:
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
        """Tell the handler that its client has gone."""
        try:
            self.tell_gone()
        except HANDLER_MISTAKES as error:
            faults.met(f"ending {wire.text_of(self.path)}", error)

    def tell_gone(self) -> None:
        if self.on_cancel is not None:
            self.on_cancel(self)

    def drained(self) -> None:
        if self.on_drain is not None and not self.ending:
            try:
                self.on_drain()
            except HANDLER_MISTAKES as error:  # of this call alone: others' answers leave in the same turn
                self.fault(error)

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
        """What is complete now, each for :meth:`_plain`. None: what came has ended the call."""
        connection = self.connection
        limits = connection.limits
        buffer = self._buffer
        if buffer is None:
            buffer = self._buffer = bytearray()
        buffer += data
        try:
            found = wire.split_messages(buffer, limits.max_message_bytes)
            connection.buffered += len(buffer) - self._counted
            self._counted = len(buffer)
            if buffer and ended:
                raise wire.Refused(self.CUT_SHORT, "unexpected EOF")
            if connection.buffered > limits.max_buffered_bytes:
                raise wire.Refused(wire.RESOURCE_EXHAUSTED, TOO_MUCH)
            if connection.refuses(len(buffer)):
                raise wire.Refused(wire.RESOURCE_EXHAUSTED, TOO_MANY)
        except wire.Refused as refused:
            self._refuse(refused.status, refused.message)
            return None
        return found

    def _plain(self, message: bytes) -> bytes | None:
        """A message without its compression: of several only one at a time, since a few KB may make many MB.
        None: it has ended the call."""
        if type(message) is not wire.Packed:
            return message
        most, encoding = self.connection.limits.max_message_bytes, self.headers.field(b"grpc-encoding")
        try:
            plain = wire.decompress(message, most, encoding)
        except wire.Refused as refused:
            self._refuse(refused.status, refused.message)
            return None
        self.connection.work += len(plain) >> PLAIN_SHIFT
        return plain

    def _refuse(self, status: int, message: str) -> None:
        self.refused = status
        self.finish(status, message)
        self.gone()

    def fault(self, error: Exception) -> None:
        """A fault of this program in a handler: the call ends with INTERNAL."""
        faults.met(f"serving {wire.text_of(self.path)}", error)
        if not (self.closed or self.ending):
            self._refuse(wire.INTERNAL, wire.FAULT)
