"""One JSON request as a call: its messages become protobuf, the answers become JSON, in the order of arrival.
Large messages are translated in a thread: a megabyte of small rows takes tens of milliseconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from cluster.faults import HANDLER_MISTAKES, faults
from cluster.machine import Span
from proxy.gateway.asked import Asked, requests_of
from proxy.gateway.encode import encode, error, http_status, stream_error
from proxy.gateway.paths import BOTH, ONE, Target
from proxy.gateway.room import LARGE_BYTES, Room
from proxy.grpc import wire
from proxy.grpc.inner import InnerCall, Served
from proxy.grpc.timed_calls import Timing
from proxy.http.memory import TOO_MANY
from proxy.http.requests import JSON, HttpRequest

LARGE_ANSWER_BYTES = 65_536  # of an answer: this program has made it
TURN_REQUESTS = 32  # of a call in a turn, some 2 ms: each may be a watch
_METADATA = ("Grpc-Metadata-Content-Type", "application/grpc")


class GatewayCall(InnerCall):
    """One request. ``counted`` is ``proxy.http.memory``'s."""

    __slots__ = (
        "_asked", "_began", "_begun", "_busy", "_deaf", "_going_on", "_queue", "_queued", "_registry",
        "_request", "_room", "_size", "_span", "_status", "_target", "_timer", "_timing", "_turns",
        "_unread", "counted", "gone", "started_http",
    )

    def __init__(self, room: Room, request: HttpRequest, target: Target, metadata: dict[bytes, bytes],
                 registry: Served, timeout_s: float | None = None) -> None:
        deadline = None if timeout_s is None else room.loop.time() + timeout_s
        super().__init__(target.method, metadata, request.peer, deadline)
        self._room = room
        self._request = request
        self._target = target
        self._registry = registry
        self._asked: Asked | None = None  # in the text that is being taken
        self._size = 0  # bytes of that text
        self._unread = 0  # bytes of it, and of others behind it
        self._begun = False
        self._deaf = False  # takes no further requests
        self._queue: deque[bytes] = deque()  # answers that wait for a translation
        self._queued = 0  # bytes of them
        self._busy = False
        self._going_on: Callable[[], None] | None = None  # once the client has taken what it asked for
        self._turns = 0  # had in succession, about (``proxy.http.backlog``)
        self._status: tuple[int, str] | None = None  # how the call ended
        self.counted = 0
        self.gone = False  # answered, or the client has left
        self.started_http = False
        self._span: Span | None = None  # of a trace, if it is sampled
        self._began = 0.0  # negative once it has ended
        self._timing: Timing | None = None
        self._timer = None if timeout_s is None else room.loop.call_later(timeout_s, self._expire)
        request.on_close = self._left
        request.on_drain = self._drained

    def open(self, registry: Served, request: bytes | None) -> None:
        self._began = self._room.loop.time()
        self._timing = registry.count(self.path, self.field(b"client-api-version"))
        if registry.tracer is not None:
            self._span = registry.tracer.begin(self.path, self.field, self.peer)
            if self._span is not None and request is not None:
                self._span.received(len(request))
        super().open(registry, request)

    @property
    def timed(self) -> bool:  # type: ignore[override]
        """Whether a slow log is told of it."""
        return self._timing is not None and self._timing.slow is not None

    def finish(self, status: int = wire.OK, message: str = "") -> None:
        self._over(status, message)
        super().finish(status, message)

    def cancel(self) -> None:
        self._over(wire.CANCELLED, "context canceled")
        super().cancel()

    def _over(self, status: int, message: str) -> None:
        if self._timing is not None and self._began >= 0:
            began, self._began = self._began, -1.0
            self._timing.observe(self.peer, self._room.loop.time() - began)
        if self._span is not None:
            span, self._span = self._span, None
            span.end(status, message)

    def begin(self) -> None:
        """Take the requests of its body."""
        body, self._request.body = self._request.body, b""
        self._unread = len(body)
        self._count()
        if len(body) > LARGE_ANSWER_BYTES and self._room.memory.crowded(self):
            self._room.memory.refused += 1
            self.finish(wire.RESOURCE_EXHAUSTED, TOO_MANY)
            return
        self._ask(body)
        self._enter()

    def _ask(self, text: bytes, end: bytes = b"") -> None:
        self._asked, self._size = Asked(requests_of(self._target, text, end)), len(text)

    def _enter(self) -> None:
        """Go on in this turn of the loop, or where its time is spent in a later one."""
        backlog = self._room.backlog
        if backlog.spent(self._turns):
            self._turns = backlog.add(self._again, self._turns)
        else:
            self._again()

    def _go_on(self) -> None:
        """Translate requests and make them, as far as a turn allows: 40,000 watches in a body held the loop
        for 2 s."""
        backlog, taken = self._room.backlog, False
        for _ in range(TURN_REQUESTS):
            if self._deaf or self.gone or self.closed or self._waits():
                return
            if taken and backlog.over():
                break
            asked = self._asked
            if asked is not None and asked.found:
                self._take(asked.found.popleft())
                taken = True
            elif asked is not None and asked.mistake is not None:
                self._deaf = True
                if self._begun:
                    self.half_close()
                else:
                    self._misread(asked.mistake)
            elif asked is None or asked.ended:
                self._asked = None
                if not self._next():
                    return
            else:
                apart = asked.slow or self._size > LARGE_BYTES
                self._room.work(self.peer, self._size, partial(self._step, asked),
                                partial(self._stepped, apart), 0 if apart else LARGE_BYTES)
                if apart:
                    return
        self._turns = backlog.again(self._again, self._turns)

    def _again(self) -> None:
        try:
            self._go_on()
        except HANDLER_MISTAKES as error:
            self._deaf = True
            self._fault(error)

    def _step(self, asked: Asked) -> None:
        if not self.gone:  # the step may have waited for a thread
            asked.step()

    def _stepped(self, apart: bool, fault: Exception | None) -> None:
        if self.gone or self.closed:
            return
        if fault is not None:
            self._deaf = True
            self._fault(fault)
            return
        self._count()
        value_bytes = 0 if self._asked is None else self._asked.value_bytes
        if value_bytes > LARGE_ANSWER_BYTES and self._room.memory.crowded(self):
            self._room.memory.refused += 1
            self._refuse(wire.RESOURCE_EXHAUSTED, TOO_MANY)
        elif apart:
            self._enter()

    def _next(self) -> bool:
        """Whether there is a further text."""
        self._end_requests()
        return False

    def _end_requests(self) -> None:
        self._deaf = True
        if not self._begun:
            self._begun = True
            # a body of nothing is an empty request of a call with one
            self.open(self._registry, None if self._target.kind == BOTH else b"")
        self.half_close()

    def _take(self, message: bytes) -> None:
        limit = self._room.max_message_bytes
        if len(message) > limit:
            self._refuse(wire.RESOURCE_EXHAUSTED, wire.too_large(len(message), limit))
        elif self._begun:
            self.say(message)
        elif self._target.kind == BOTH:
            self._begun = True
            self.open(self._registry, message)
        else:
            self._begun = self._deaf = True
            self._asked = None
            self._unread += len(message) - self._size
            self._count()
            self.open(self._registry, message)
            self.half_close()

    def _refuse(self, status: int, message: str) -> None:
        self._deaf = True
        self.refused = status
        self.finish(status, message)
        self._gone()

    def _waits(self) -> bool:
        """Whether further requests wait, as too many answers do."""
        if self.pending_bytes() <= self.backlog_bytes():
            return False
        self._going_on = self._again
        return True

    def _misread(self, mistake: str) -> None:
        """Not as a stream's error: there is no request."""
        self.closed = True
        if not self.gone:
            self._done()
            status, text = wire.UNKNOWN if self._target.kind == BOTH else wire.INVALID_ARGUMENT, mistake
            self._request.respond(http_status(status), error(status, text).encode(), content_type=JSON)

    def answered(self, message: bytes) -> None:
        self.gathered = 0
        if self._span is not None:
            self._span.sent(len(message))
        self._queue.append(message)
        self._queued += len(message)
        self._count()
        self._pump()

    def ended(self, status: int, message: str) -> None:
        self._status = (status, message)
        self._pump()

    def _pump(self) -> None:
        while not (self._busy or self.gone):
            if self._queue:
                message = self._queue.popleft()
                self._busy = True
                self._translate(message)
                if self._queue and not self._busy and self._room.backlog.over():
                    self._busy = True
                    self._turns = self._room.backlog.again(self._pump_on, self._turns)
            elif self._status is not None:
                self._end(*self._status)
            else:
                return

    def _pump_on(self) -> None:
        """Others have waited, for their turn or for a thread."""
        self._busy = False
        try:
            self._pump()
            if not self._queue and self._asked is None:
                self._turns >>= 1
            self._drained()  # a socket that has taken all at once does not tell
        except HANDLER_MISTAKES as error:
            self._fault(error)

    def _translate(self, message: bytes) -> None:
        size = len(message)
        self._room.work(self.peer, size, lambda: b"" if self.gone else self._line(message),
                        lambda line: self._translated(line, size), LARGE_ANSWER_BYTES)

    def _line(self, message: bytes) -> bytes:
        if self._target.kind == ONE:
            return encode(self._target.response.FromString(message)).encode()
        return self._room.lines.of(self._target, message)

    def _translated(self, line: bytes | Exception, size: int) -> None:
        self._busy = False
        self._queued -= size
        if self.gone:
            return
        if isinstance(line, Exception):
            self._fault(line)
            return
        self._count()
        if self._target.kind == ONE:
            self._done()
            self._request.respond(200, line, [_METADATA], JSON)
            return
        if not self.started_http:
            self._start(200, _METADATA)
        self._request.write(line)
        if size > LARGE_ANSWER_BYTES:  # it was in a thread: no loop waits for it
            self._pump_on()

    def _end(self, status: int, message: str) -> None:
        self._done()
        request = self._request
        # a stream's deadline before its first answer is no error of a stream, as in etcd
        if self._target.kind == ONE or (status == wire.DEADLINE_EXCEEDED and not self.started_http):
            headers = [_METADATA] if status == wire.OK else []
            request.respond(
                http_status(status), error(status, message).encode() if status else b"{}", headers, JSON)
            return
        if not self.started_http:
            self._start(http_status(status))  # as in etcd: the call's own metadata comes with a message
        if status:
            request.write(stream_error(status, message).encode())
        request.end()

    def _start(self, status: int, *more: tuple[str, str]) -> None:
        self.started_http = True
        self._request.start(status, [("content-type", JSON), *more])

    def _fault(self, fault: Exception) -> None:
        """A bug in reading or writing JSON ends this request alone."""
        faults.met(f"translating {self.path.decode()}", fault)
        self.refused = wire.INTERNAL
        self.cancel()
        self._queue.clear()
        self._status = (wire.INTERNAL, wire.FAULT)
        if not self.gone:
            self._end(*self._status)

    def _done(self) -> None:
        self.gone = True
        self._asked = self._going_on = None
        self._request.on_close = self._request.on_drain = None  # else the two refer to each other
        self._count()
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        self.cancel()
        if self._status is None or self._queue:  # an answer without these is not whole
            self._queue.clear()
            self._status = (wire.DEADLINE_EXCEEDED, "context deadline exceeded")
            try:
                self._pump()
            except HANDLER_MISTAKES as error:
                faults.met(f"ending {self.path.decode()}", error)

    def _left(self, request: HttpRequest) -> None:
        self.cancel()
        self._queue.clear()
        self._end(wire.CANCELLED, "context canceled")  # heard by a client that has ended its side alone

    def _drained(self) -> None:
        if self.on_drain is not None and not self.closed:
            self._guarded(self.on_drain)
        if self._going_on is not None and self.pending_bytes() <= self.backlog_bytes():
            go_on, self._going_on = self._going_on, None
            self._turns = self._room.backlog.again(go_on, self._turns)

    def pending_bytes(self) -> int:
        return self._queued + self._request.pending_bytes()

    def gather(self, size: int) -> None:
        if not self.closed:
            self.gathered += size
            self._count()

    @property
    def room_to_gather(self) -> bool:
        return self.gathered <= self._room.max_untaken_bytes and not self._room.memory.crowded(self)

    @property
    def beyond_all_room(self) -> bool:
        memory = self._room.memory
        return memory.crowded(self) and memory.used - self.gathered > memory.limit_bytes

    def _count(self) -> None:
        size = 0
        if not self.gone:
            size = self._unread + self._queued + self.gathered
            if self._asked is not None:
                size += self._asked.value_bytes
        self._room.memory.count(self, size)
