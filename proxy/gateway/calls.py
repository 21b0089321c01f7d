"""One JSON request as a call: its messages become protobuf, the answers become JSON, in the order of arrival.
Large messages are translated in a thread: a megabyte of small rows takes tens of milliseconds."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cluster.faults import HANDLER_MISTAKES, faults
from cluster.histogram import Histogram
from cluster.machine import Span
from proxy.gateway.decode import fill
from proxy.gateway.encode import encode, error, http_status, stream_error
from proxy.gateway.go_json import Mistake, Values
from proxy.gateway.paths import BOTH, ONE, Target
from proxy.grpc import wire
from proxy.grpc.inner import InnerCall, Served
from proxy.http.memory import TOO_MANY, Memory
from proxy.http.requests import HttpRequest

LARGE_BYTES = 16_384  # of a request that is translated in a thread: the worst takes 1 ms a KB
LARGE_ANSWER_BYTES = 65_536  # of an answer: this program has made it
_THREADS = 2  # of their own: an addresses' look-up waits for none of them
TURN_REQUESTS = 32  # of a call in a turn, some 2 ms: each may be a watch
Requests = tuple[list[bytes], Mistake | None]
_JSON = "application/json"
_METADATA = ("Grpc-Metadata-Content-Type", "application/grpc")


@dataclass(slots=True)
class Room:
    loop: asyncio.AbstractEventLoop
    memory: Memory
    max_message_bytes: int
    max_untaken_bytes: int
    _pool: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, _THREADS, "gateway"))

    def work(self, size: int, step: Callable[[], Any], then: Callable[[Any], None],
             large_bytes: int = LARGE_BYTES) -> None:
        """Run ``step`` on ``size`` bytes, here or in a thread; ``then`` gets its result or its exception."""

        def guarded() -> Any:
            try:
                return step()
            except Exception as fault:  # it ends this request alone
                return fault

        if size <= large_bytes:
            then(guarded())
            return
        self.loop.run_in_executor(self._pool, guarded).add_done_callback(
            lambda done: None if done.cancelled() else then(done.result()))


def requests_of(target: Target, body: bytes) -> Requests:
    """The requests in JSON as protobuf, and the mistake behind them, if there is one. Of a call with one
    request the rest is ignored."""
    values = Values(body)
    found: list[bytes] = []
    try:
        while target.kind == BOTH or not found:
            message = target.request()
            fill(message, values.next())
            found.append(message.SerializeToString())
    except EOFError:
        pass
    except Mistake as mistake:
        return found, mistake
    return found, None


class GatewayCall(InnerCall):
    """One request. ``counted`` is ``proxy.http.memory``'s."""

    __slots__ = (
        "_began", "_busy", "_going_on", "_queue", "_queued", "_request", "_room", "_span", "_status",
        "_target", "_timer", "_times", "counted", "gone", "started_http",
    )

    def __init__(self, room: Room, request: HttpRequest, target: Target, metadata: dict[bytes, bytes],
                 timeout_s: float | None) -> None:
        deadline = None if timeout_s is None else room.loop.time() + timeout_s
        super().__init__(target.method, metadata, request.peer, deadline)
        self._room = room
        self._request = request
        self._target = target
        self._queue: deque[bytes] = deque()  # answers that wait for a translation
        self._queued = 0  # bytes of them
        self._busy = False
        self._going_on: Callable[[], None] | None = None  # once the client has taken what it asked for
        self._status: tuple[int, str] | None = None  # how the call ended
        self.counted = 0
        self.gone = False  # answered, or the client has left
        self.started_http = False
        self._span: Span | None = None  # of a trace, if it is sampled
        self._began = 0.0
        self._times: Histogram | None = None  # of its method, until it has ended
        self._timer = None if timeout_s is None else room.loop.call_later(timeout_s, self._expire)
        request.on_close = self._left
        request.on_drain = self._drained

    def open(self, registry: Served, request: bytes | None) -> None:
        self._began = self._room.loop.time()
        self._times = registry.count(self.path, self.field(b"client-api-version"))
        if registry.tracer is not None:
            self._span = registry.tracer.begin(self.path, self.field, self.peer)
            if self._span is not None and request is not None:
                self._span.received(len(request))
        super().open(registry, request)

    def finish(self, status: int = wire.OK, message: str = "") -> None:
        self._over(status, message)
        super().finish(status, message)

    def cancel(self) -> None:
        self._over(wire.CANCELLED, "context canceled")
        super().cancel()

    def _over(self, status: int, message: str) -> None:
        if self._times is not None:
            times, self._times = self._times, None
            times.observe(self._room.loop.time() - self._began)
        if self._span is not None:
            span, self._span = self._span, None
            span.end(status, message)

    def begin(self, registry: Served) -> None:
        room, body = self._room, self._request.body
        self._count(len(body))
        if len(body) > LARGE_ANSWER_BYTES and room.memory.crowded(self):
            self.finish(wire.RESOURCE_EXHAUSTED, TOO_MANY)
            return
        room.work(len(body), self._read_body, lambda read: self._open(registry, read))

    def _read_body(self) -> Requests:
        body, self._request.body = self._request.body, b""
        return self._asked_in(body)

    def _asked_in(self, text: bytes) -> Requests:
        """:func:`requests_of`, unless the client has left while this waited for a thread."""
        return ([], None) if self.gone else requests_of(self._target, text)

    def _open(self, registry: Served, read: Requests | Exception) -> None:
        if self.gone or self.closed:
            return
        if isinstance(read, Exception):
            self._fault(read)
            return
        found, mistake = read
        if mistake is not None and not found:
            self._misread(mistake)
            return
        if not found and self._target.kind != BOTH:
            found = [b""]  # a body of nothing is an empty request
        self._count(sum(map(len, found)))
        if all(map(self._fits, found)):
            self.open(registry, found[0] if found else None)
            self._say_all(deque(found[1:]))

    def _fits(self, message: bytes) -> bool:
        limit = self._room.max_message_bytes
        if len(message) > limit:
            self.finish(wire.RESOURCE_EXHAUSTED, wire.too_large(len(message), limit))
        return len(message) <= limit

    def _say_all(self, messages: deque[bytes]) -> None:
        """The requests of a turn, then the others: 40,000 watches in a body held the loop for 2 s."""
        for _ in range(min(TURN_REQUESTS, len(messages))):
            self.say(messages.popleft())
        if not messages:
            self.half_close()
        elif not (self.gone or self.closed or self._waits(partial(self._say_all, messages))):
            self._room.loop.call_soon(self._say_all, messages)

    def _waits(self, go_on: Callable[[], None]) -> bool:
        """Whether further requests wait, as too many answers do; ``go_on`` takes them then."""
        if self.pending_bytes() <= self.backlog_bytes():
            return False
        self._going_on = go_on
        return True

    def _misread(self, mistake: Mistake) -> None:
        """Not as a stream's error: there is no request."""
        self.closed = True
        if not self.gone:
            self._done()
            status, text = wire.UNKNOWN if self._target.kind == BOTH else wire.INVALID_ARGUMENT, str(mistake)
            self._request.respond(http_status(status), error(status, text).encode(), content_type=_JSON)

    def answered(self, message: bytes) -> None:
        self.gathered = 0
        if self._span is not None:
            self._span.sent(len(message))
        self._queue.append(message)
        self._queued += len(message)
        self._count(self._queued)
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
            elif self._status is not None:
                self._end(*self._status)
            else:
                return

    def _translate(self, message: bytes) -> None:
        size = len(message)
        self._room.work(size, lambda: b"" if self.gone else self._line(message),
                        lambda line: self._translated(line, size), LARGE_ANSWER_BYTES)

    def _line(self, message: bytes) -> bytes:
        found = encode(self._target.response.FromString(message))
        return found.encode() if self._target.kind == ONE else f'{{"result":{found}}}\n'.encode()

    def _translated(self, line: bytes | Exception, size: int) -> None:
        self._busy = False
        self._queued -= size
        if self.gone:
            return
        if isinstance(line, Exception):
            self._fault(line)
            return
        self._count(self._queued)
        if self._target.kind == ONE:
            self._done()
            self._request.respond(200, line, [_METADATA], _JSON)
            return
        if not self.started_http:
            self._start(200)
        self._request.write(line)
        if size > LARGE_ANSWER_BYTES:  # it was in a thread: no loop waits for it
            self._pump()
            self._drained()  # a socket that has taken all at once does not tell

    def _end(self, status: int, message: str) -> None:
        self._done()
        request = self._request
        # a stream's deadline before its first answer is no error of a stream, as in etcd
        if self._target.kind == ONE or (status == wire.DEADLINE_EXCEEDED and not self.started_http):
            headers = [_METADATA] if status == wire.OK else []
            request.respond(
                http_status(status), error(status, message).encode() if status else b"{}", headers, _JSON)
            return
        if not self.started_http:
            self._start(http_status(status))
        if status:
            request.write(stream_error(status, message).encode())
        request.end()

    def _start(self, status: int) -> None:
        self.started_http = True
        self._request.start(status, [("content-type", _JSON), _METADATA])

    def _fault(self, fault: Exception) -> None:
        """A bug in reading or writing JSON ends this request alone."""
        faults.met(f"translating {self.path.decode()}", fault)
        self.cancel()
        self._queue.clear()
        self._status = (wire.INTERNAL, wire.FAULT)
        if not self.gone:
            self._end(*self._status)

    def _done(self) -> None:
        self.gone = True
        self._request.body = b""  # it may wait for a thread
        self._going_on = None
        self._request.on_close = self._request.on_drain = None  # else the two refer to each other
        self._count(0)
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        self.cancel()
        self._queue.clear()
        if self._status is None:
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
            self._room.loop.call_soon(go_on)

    def pending_bytes(self) -> int:
        return self._queued + self._request.pending_bytes()

    def gather(self, size: int) -> None:
        if not self.closed:
            self.gathered += size
            self._count(self.gathered + self._queued)

    @property
    def room_to_gather(self) -> bool:
        return self.gathered <= self._room.max_untaken_bytes and not self._room.memory.crowded(self)

    @property
    def beyond_all_room(self) -> bool:
        memory = self._room.memory
        return memory.crowded(self) and memory.used - self.gathered > memory.limit_bytes

    def _count(self, size: int) -> None:
        self._room.memory.count(self, 0 if self.gone else size)
