"""A call by WebSocket, as of ``tmc/grpc-websocket-proxy``: each message of the client is one request or
several, each answer is a message. The origin goes along, and a token from ``Sec-WebSocket-Protocol: Bearer,
TOKEN`` or from the cookie ``token``. Unlike in etcd, a call with one request is answered when that has
come."""

from __future__ import annotations

from collections import deque
from functools import partial

from cluster.faults import HANDLER_MISTAKES
from proxy.gateway.calls import LARGE_BYTES, TURN_REQUESTS, GatewayCall, Requests, Room
from proxy.gateway.go_json import Mistake
from proxy.gateway.paths import BOTH, Target
from proxy.grpc import wire
from proxy.grpc.inner import Served
from proxy.http.memory import TOO_MANY
from proxy.http.requests import Headers, HttpRequest
from proxy.http.upgrade import WebSocket, accept


class Conversation(HttpRequest):
    """A request by WebSocket. Each line of its answer is a message; status and fields are dropped."""

    __slots__ = ("_request", "_socket", "_tail", "call")

    def __init__(self, request: HttpRequest) -> None:
        super().__init__("POST", request.path, request.query, _fields(request), b"", request.peer)
        self._request = request
        self._socket: WebSocket | None = None
        self._tail = b""  # of a part of a line
        self.call: TalkedCall | None = None

    def accept(self) -> bool:
        """Whether there is a WebSocket; otherwise the request is answered."""
        self._socket = accept(self._request, self._said)
        if self._socket is None:
            return False
        self._request.on_close = self._closed
        self._request.on_drain = self._drained
        return True

    def start(self, status: int, headers: Headers = ()) -> None:
        self.started = True

    def write(self, chunk: bytes) -> None:
        *lines, self._tail = (self._tail + chunk).split(b"\n")
        for line in lines:
            self._send(line)

    def end(self) -> None:
        if not self.closed and self._socket is not None:
            self._send(self._tail)
            self.closed = True
            self._socket.close()

    def pending_bytes(self) -> int:
        return self._request.pending_bytes()

    def _send(self, line: bytes) -> None:
        if line and not self.closed and self._socket is not None:
            self._socket.send(line.decode("utf-8", "replace"))

    def _said(self, message: bytes) -> None:
        if self.call is not None and not self.closed:
            self.call.feed(message)

    def _closed(self, request: HttpRequest) -> None:
        if not self.closed:
            self.closed = True
            if self.on_close is not None:
                self.on_close(self)
        # they refer to this
        self.call = self._socket = self._request.on_close = self._request.on_drain = None

    def _drained(self) -> None:
        if self.on_drain is not None:
            self.on_drain()


class TalkedCall(GatewayCall):
    """A call whose requests come bit by bit."""

    __slots__ = (
        "_begun", "_deaf", "_found", "_inbox", "_mistake", "_reading", "_registry", "_size", "_unread",
    )

    def __init__(self, room: Room, talk: HttpRequest, target: Target, metadata: dict[bytes, bytes],
                 registry: Served, timeout_s: float | None = None) -> None:
        super().__init__(room, talk, target, metadata, timeout_s)
        self._registry = registry
        self._inbox: deque[bytes] = deque()  # unread messages
        self._unread = 0  # bytes of these, and of the message being taken
        self._size = 0  # of that message
        self._found: deque[bytes] = deque()  # its requests that are left
        self._mistake: Mistake | None = None  # behind them
        self._reading = False  # a message is being read or taken
        self._begun = False
        self._deaf = False  # ignores further messages

    def feed(self, message: bytes) -> None:
        if self._deaf or self.gone or self.closed:
            return
        self._inbox.append(message)
        self._unread += len(message)
        self._count(self._unread)
        if self._unread > self._room.max_untaken_bytes or self._room.memory.crowded(self):
            self._deaf = True
            self.finish(wire.RESOURCE_EXHAUSTED, TOO_MANY)
        elif not self._reading:
            self._reading = True
            self._go_on()

    def _go_on(self) -> None:
        """Read messages and make their requests, as far as a turn allows."""
        for _ in range(TURN_REQUESTS):
            if self._deaf or self.gone or self.closed or self._waits(self._again):
                return
            if self._found:
                self._take(self._found.popleft())
            elif self._mistake is not None:
                self._deaf = True
                if self._begun:
                    self.half_close()
                else:
                    self._misread(self._mistake)
            elif not self._next():
                return
        self._room.loop.call_soon(self._again)

    def _again(self) -> None:
        try:
            self._go_on()
        except HANDLER_MISTAKES as error:
            self._deaf = True
            self._fault(error)

    def _next(self) -> bool:
        self._unread -= self._size
        self._size = 0
        self._count(self._unread)
        if not self._inbox:
            self._reading = False
            return False
        text = self._inbox.popleft()
        self._size = len(text)
        self._room.work(len(text), partial(self._requests, text), self._read)
        return len(text) <= LARGE_BYTES

    def _requests(self, text: bytes) -> Requests:
        return self._asked_in(text + b"\n")  # a copy: not in the loop

    def _read(self, read: Requests | Exception) -> None:
        if self.gone or self.closed:
            return
        if isinstance(read, Exception):
            self._deaf = True
            self._fault(read)
            return
        found, self._mistake = read
        self._found.extend(found)
        if self._size > LARGE_BYTES:  # it was in a thread: no loop waits for it
            self._again()

    def _take(self, message: bytes) -> None:
        if not self._fits(message):
            self._deaf = True
        elif self._begun:
            self.say(message)
        else:
            self._begun = True
            self.open(self._registry, message)
            if self._target.kind != BOTH:
                self._deaf = True
                self.half_close()


def _fields(request: HttpRequest) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("origin", "referer"):
        if name in request.headers:
            found[name] = request.headers[name]
    protocol = request.headers.get("sec-websocket-protocol", "")
    if protocol:
        _, named, token = protocol.partition("Bearer,")
        found["authorization"] = f"Bearer {token.strip(' ')}" if named else ""
    for cookie in request.headers.get("cookie", "").replace(", ", ";").split(";"):
        name, equals, value = cookie.strip().partition("=")
        if equals and name == "token":
            found["authorization"] = f"Bearer {value.strip(chr(34))}"
            break
    return found
