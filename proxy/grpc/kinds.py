"""Calls by how their requests come: one message, a stream of them, or none that is looked at."""

from __future__ import annotations

from cluster.faults import HANDLER_MISTAKES
from proxy.grpc import wire
from proxy.grpc.calls import TOO_MUCH, Call
from proxy.grpc.wire import PREFIX
from proxy.http.http2 import Connection, ErrorCode, HeaderBlock
from proxy.http.http2.connection import TURN_WORK
from proxy.http.http2.frames import HEADER_SIZE
from proxy.http.memory import SMALL_BYTES, TOO_MANY

PATIENCE_S = 0.01  # for the end behind a whole request
# requests of a stream whose client does not take what waits for it, in bytes: a thousand creates of watches
ASKED_BYTES = 262_144
MESSAGE_WORK = 3  # units of work (``proxy.http.http2.connection``) of a message of a stream


def _taken(call: Call, data: bytes) -> None:
    """In place of a handler that has had its request: whatever follows is ignored."""


class _Unended:
    """A whole request whose client has not ended its side yet."""

    __slots__ = ("_call",)

    def __init__(self, call: UnaryCall) -> None:
        self._call = call

    def expired(self) -> None:
        call = self._call
        if not (call.closed or call.ending):  # in a turn that is shared: there may be thousands
            call.connection.owner.in_turn(call.take_unended)  # type: ignore[attr-defined]


class UnaryCall(Call):
    """A call whose handler gets the one request message, once the client has sent all. Some clients keep
    their side open until they have the answer: then that comes first, as from grpc-go."""

    __slots__ = ()
    CUT_SHORT = wire.UNKNOWN

    def opened(self, ended: bool) -> None:
        if ended:
            self.received(b"", True)

    def received(self, data: bytes, ended: bool) -> None:
        if ended and self._buffer is None and len(data) >= 5:
            flag, size = PREFIX.unpack_from(data)
            if not flag and size == len(data) - 5 and size <= self.connection.limits.max_message_bytes:
                if size > SMALL_BYTES:
                    self.connection.taken_on(self, size)
                try:
                    self.handler(self, data[5:])
                except HANDLER_MISTAKES as error:
                    self.fault(error)
                return
        self._collect(data, ended)

    def _collect(self, data: bytes, ended: bool) -> None:
        """A message that comes in pieces, compressed, or wrong: held until the client has sent all."""
        if self.closed or self.ending or self.handler is _taken:
            return
        if not ended:
            self._hold(data)
            return
        before = self._buffer or b""
        head = before[:5] + data[:5]
        if len(head) >= 5:  # what is behind the first message is not looked at, as by ``_hold``
            data = data[: 5 + PREFIX.unpack_from(head)[1] - len(before)]
        messages = self._messages(data, True)
        if messages is None:
            return
        if not messages:
            self._refuse(wire.UNKNOWN, "EOF")
            return
        if (message := self._plain(messages[0])) is not None:
            self._buffer = None
            self._hand_over(message)

    def take_unended(self) -> None:
        """The client's end has not come in time: its request is answered without."""
        if self._buffer is None or self.closed or self.ending:
            return
        messages = self._messages(b"", False)
        if messages and (message := self._plain(messages[0])) is not None:
            self._hand_over(message)

    def _hand_over(self, message: bytes) -> None:
        self.connection.taken_on(self, len(message))
        handler, self.handler = self.handler, _taken
        try:
            handler(self, message)
        except HANDLER_MISTAKES as error:
            self.fault(error)

    def _hold(self, data: bytes) -> None:
        connection = self.connection
        limits = connection.limits
        buffer = self._buffer
        if buffer is None:
            buffer = self._buffer = bytearray()
        before = len(buffer)
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
            if excess >= 0 and before < length + 5:
                deadlines = connection.owner.deadlines  # type: ignore[attr-defined]
                deadlines.add(_Unended(self), connection.now + PATIENCE_S)
        if connection.buffered > limits.max_buffered_bytes:
            self._refuse(wire.RESOURCE_EXHAUSTED, TOO_MUCH)
        elif connection.refuses(len(buffer)):
            self._refuse(wire.RESOURCE_EXHAUSTED, TOO_MANY)


class StreamCall(Call):
    """A call whose handler gets every request message as it comes; of very many, some in each turn."""

    __slots__ = ("_asked", "_ended", "_held", "paused")

    def __init__(self, connection: Connection, stream_id: int, headers: HeaderBlock) -> None:
        super().__init__(connection, stream_id, headers)
        self._held: list[bytes] = []  # newest first
        self._ended = False  # behind them
        self.paused = False
        self._asked = 0  # bytes of requests while more waits for its client than may, until it has taken that

    def opened(self, ended: bool) -> None:
        try:
            self.handler.opened(self)
        except HANDLER_MISTAKES as error:
            self.fault(error)
        if ended:
            self.received(b"", True)

    def pause(self) -> None:
        self.paused = True

    def read_on(self) -> None:
        if self.paused:
            self.paused = False
            if not (self.closed or self.ending):
                self.connection.open_window(self)

    def received(self, data: bytes, ended: bool) -> None:
        if self.closed or self.ending:
            return
        if self.queued and self._chokes(len(data)):
            self.refused = wire.RESOURCE_EXHAUSTED  # so clients read this reset
            self.reset(ErrorCode.ENHANCE_YOUR_CALM)
            self.cancelled(ErrorCode.ENHANCE_YOUR_CALM)
            return
        try:
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
                if ended and not (self.closed or self.ending):
                    self.handler.half_closed(self)
            else:
                self._received(data, ended)
        except HANDLER_MISTAKES as error:
            self.fault(error)

    def _received(self, data: bytes, ended: bool) -> None:
        """Several messages, a part of one, compressed ones, or only the end."""
        if data:
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

    def _chokes(self, size: int) -> bool:
        """It asks on and on, and takes no answer. One answer may be larger than what may wait: a watch's
        past, while its client asks for more watches."""
        queued, connection = self.queued, self.connection
        limits = connection.limits
        if queued <= limits.max_unsent_bytes:
            return queued > limits.drain_mark_bytes and connection.crowded
        self._asked += HEADER_SIZE + size
        return connection.crowded or self._asked > ASKED_BYTES

    def drained(self) -> None:
        self._asked = 0
        super().drained()

    def _wait(self) -> None:
        self.connection.held_back = self
        self.connection.work = TURN_WORK

    def _hand_over(self) -> None:
        connection, held = self.connection, self._held
        spent = connection.owner.spent  # type: ignore[attr-defined]
        before = len(held)
        while held:
            if connection.work >= connection.turn_work or (len(held) < before and spent()):
                connection.held_back = self
                connection.work = max(connection.work, connection.turn_work)
                return
            connection.work += MESSAGE_WORK
            if (message := self._plain(held.pop())) is not None:
                self.handler.message(self, message)
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
