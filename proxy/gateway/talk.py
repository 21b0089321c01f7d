"""A call by WebSocket: each message of the client's is one request (or several), each answer is a message.

As ``tmc/grpc-websocket-proxy`` does it for etcd: the connection stands for the request's body and for its
answer's, which ends when the connection does. Of header fields go along the origin, and a token from
``Sec-WebSocket-Protocol: Bearer, TOKEN`` or from the cookie ``token``. Other than in etcd, a call with one
request is answered when that has come.
"""

from __future__ import annotations

from collections import deque
from functools import partial

from cluster.faults import HANDLER_MISTAKES
from proxy.gateway.calls import LARGE_BYTES, TURN_REQUESTS, GatewayCall, Room
from proxy.gateway.decode import fill
from proxy.gateway.go_json import Mistake, Values
from proxy.gateway.paths import BOTH, Target
from proxy.grpc import wire
from proxy.grpc.inner import Served
from proxy.http.memory import TOO_MANY
from proxy.http.requests import Headers, HttpRequest
from proxy.http.upgrade import WebSocket, accept


class Conversation(HttpRequest):
    """A request that came by WebSocket. Each line of its answer is a message; status and fields are lost."""

    __slots__ = ("_request", "_socket", "_tail", "call")

    def __init__(self, request: HttpRequest) -> None:
        super().__init__("POST", request.path, request.query, _fields(request), b"", request.peer)
        self._request = request
        self._socket: WebSocket | None = None
        self._tail = b""  # of a line that is not whole
        self.call: TalkedCall | None = None

    def accept(self) -> bool:
        """Whether there is a WebSocket; otherwise its request is answered."""
        self._socket = accept(self._request, self._said)
        if self._socket is None:
            return False
        self._request.on_close = self._closed
        self._request.on_drain = self._drained
        return True

    def start(self, status: int, headers: Headers = ()) -> None:
        """See :class:`HttpRequest`."""
        self.started = True

    def write(self, chunk: bytes) -> None:
        """See :class:`HttpRequest`."""
        *lines, self._tail = (self._tail + chunk).split(b"\n")
        for line in lines:
            self._send(line)

    def end(self) -> None:
        """See :class:`HttpRequest`."""
        if not self.closed and self._socket is not None:
            self._send(self._tail)
            self.closed = True
            self._socket.close()

    def pending_bytes(self) -> int:
        """See :class:`HttpRequest`."""
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

    def _drained(self) -> None:
        if self.on_drain is not None:
            self.on_drain()


class TalkedCall(GatewayCall):
    """A call whose requests come one by one."""

    __slots__ = (
        "_begun",
        "_deaf",
        "_found",
        "_inbox",
        "_mistake",
        "_reading",
        "_registry",
        "_size",
        "_unread",
    )

    def __init__(
        self, room: Room, talk: Conversation, target: Target, metadata: dict[bytes, bytes], registry: Served
    ) -> None:
        super().__init__(room, talk, target, metadata, None)
        self._registry = registry
        self._inbox: deque[bytes] = deque()  # messages that nobody has read
        self._unread = 0  # bytes of these, and of the one whose requests are taken
        self._size = 0  # of that one
        self._found: deque[bytes] = deque()  # requests in it that are not taken
        self._mistake: Mistake | None = None  # behind them
        self._reading = False  # a message is read, or its requests taken: the next one comes after it
        self._begun = False  # a request has come
        self._deaf = False  # nothing more is taken

    def feed(self, message: bytes) -> None:
        """A message has come."""
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
        """Read messages and take their requests, as far as a turn of the loop allows."""
        for _ in range(TURN_REQUESTS):
            if self._deaf or self.gone or self.closed:
                return
            if self._found:
                self._take(self._found.popleft())
            elif self._mistake is not None:
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
        """Read a message. False: there is none, or it is read in a thread."""
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

    def _requests(self, text: bytes) -> tuple[int, list[bytes], Mistake | None]:
        """The requests in a message, as far as the first mistake."""
        values = Values(text + b"\n")
        found: list[bytes] = []
        try:
            while self._target.kind == BOTH or not found:
                message = self._target.request()
                fill(message, values.next())
                found.append(message.SerializeToString())
        except EOFError:
            pass
        except Mistake as mistake:
            return len(text), found, mistake
        return len(text), found, None

    def _read(self, read: tuple[int, list[bytes], Mistake | None] | Exception) -> None:
        if self.gone or self.closed:
            return
        if isinstance(read, Exception):
            self._deaf = True
            self._fault(read)
            return
        size, found, self._mistake = read
        self._found.extend(found)
        if size > LARGE_BYTES:  # it was in a thread: nobody else goes on
            self._again()

    def _misread(self, mistake: Mistake) -> None:
        self._deaf = True
        if self._begun:
            self.half_close()
        else:
            code = wire.UNKNOWN if self._target.kind == BOTH else wire.INVALID_ARGUMENT
            self._refuse(code, str(mistake))

    def _take(self, message: bytes) -> None:
        if self._deaf or self.gone or self.closed:
            return
        limit = self._room.max_message_bytes
        if len(message) > limit:
            self._deaf = True
            self.finish(wire.RESOURCE_EXHAUSTED, wire.too_large(len(message), limit))
        elif self._begun:
            self.say(message)
        else:
            self._begun = True
            self.open(self._registry, message)
            if self._target.kind != BOTH:
                self._deaf = True
                self.half_close()


def _fields(request: HttpRequest) -> dict[str, str]:
    """The header fields that go along."""
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
