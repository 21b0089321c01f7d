"""A call by WebSocket, as of ``tmc/grpc-websocket-proxy``: each message of the client is one request or
several, each answer is a message. The origin goes along, and a token from ``Sec-WebSocket-Protocol: Bearer,
TOKEN`` or from the cookie ``token``. Unlike in etcd, a call with one request is answered when that has
come."""

from __future__ import annotations

from collections import deque

from proxy.gateway.calls import GatewayCall
from proxy.gateway.paths import Target
from proxy.gateway.room import Room
from proxy.grpc import wire
from proxy.grpc.inner import Served
from proxy.http.memory import TOO_MANY
from proxy.http.requests import Headers, HttpRequest
from proxy.http.upgrade import WebSocket, accept

_MESSAGE_BYTES = 64  # that an unread message takes beside its text


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

    __slots__ = ("_inbox", "_reading")
    _END = b"\n"  # of a message

    def __init__(self, room: Room, talk: HttpRequest, target: Target, metadata: dict[bytes, bytes],
                 registry: Served, timeout_s: float | None = None) -> None:
        super().__init__(room, talk, target, metadata, registry, timeout_s)
        self._inbox: deque[bytes] = deque()  # unread messages
        self._reading = False  # a message is being read or taken

    def feed(self, message: bytes) -> None:
        if self._deaf or self.gone or self.closed:
            return
        self._inbox.append(message)
        self._unread += len(message) + _MESSAGE_BYTES
        self._count()
        crowded = self._room.memory.crowded(self)
        if crowded or self._unread > self._room.max_untaken_bytes:
            self._room.memory.refused += crowded
            self._refuse(wire.RESOURCE_EXHAUSTED, TOO_MANY)
        elif not self._reading:
            self._reading = True
            self._enter()

    def _next(self) -> bool:
        self._unread -= self._size
        self._size = 0
        self._count()
        if not self._inbox:
            self._reading = False
            self._turns >>= 1
            return False
        self._unread -= _MESSAGE_BYTES
        self._ask(self._inbox.popleft(), self._END)
        return True


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
