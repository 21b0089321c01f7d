"""Clients over HTTP/1.1 and WebSockets, and what all clients with a connection do: read or not, send their
bytes as they come, close their side, or vanish."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import h11
from google.protobuf.json_format import MessageToDict
from wsproto.connection import Connection as WebSocket
from wsproto.connection import ConnectionType
from wsproto.events import CloseConnection, TextMessage

from proxy.listener.connection import ClientConnection
from tests.unit.proxy.random.connected.sockets import Socket
from tests.unit.proxy.random.requests import ENDLESS, STREAMS

if TYPE_CHECKING:
    from tests.unit.proxy.random.connected.run import Connected

_ALL = 1 << 30
LIMITS = ("50m", "500m", "3S", "30S")
_PLAIN = (
    "/v2/members", "/v2/stats/self", "/v2/auth/enable", "/v2/machines", "/health", "/version",
    "/muster/shards")
_WAITS = ("?wait=true", "?wait=true&recursive=true", "?wait=true&waitIndex=3", "?wait=true&stream=true")
_TALKS = ("watch", "watch", "lease/keepalive", "kv/range", "lock/lock", "maintenance/snapshot")


class Client:
    """A connection of one. ``act`` is what it does at a time."""

    def __init__(self, world: Connected) -> None:
        self.world = world
        self.random = world.random
        self.connection = ClientConnection(world.server, world.registry)
        peer = f"1.1.1.{self.random.randint(1, 2)}", next(world.ports)
        self.socket = Socket(world.loop, self.connection, peer)
        self.connection.connection_made(self.socket)  # type: ignore[arg-type]
        self.reads = True
        self.closed = False  # its own side
        self._coming = b""  # what the connection has not read yet
        self._told = False  # that this side is closed

    @property
    def gone(self) -> bool:
        return self.socket.lost

    def send(self, data: bytes) -> None:
        self._coming += data
        self.pump()

    def pump(self) -> None:
        """The client reads; the connection gets what was sent, in pieces of any size."""
        socket = self.socket
        if self.reads:
            socket.take(_ALL)
        while self._coming and socket.reading and not socket.closing:
            size = self.random.choice((_ALL, _ALL, _ALL, 100, 3))
            data, self._coming = self._coming[:size], self._coming[size:]
            self.connection.data_received(data)
        if self.closed and not self._coming and socket.reading and not socket.closing and not self._told:
            self._told = True
            if not self.connection.eof_received():
                socket.close()

    def act(self) -> None:
        random = self.random
        if random.random() < 0.05:
            self.reads = not self.reads
        if not self.reads and random.random() < 0.2:
            self.socket.take(random.choice((100, 10_000, 100_000)))
        if self.gone:
            return
        if random.random() < self.world.haste:
            self.socket.lose()
        elif random.random() < self.world.haste:
            self.close()
        elif not self.closed:
            self.go_on()
        self.pump()

    def go_on(self) -> None:
        """Ask something, or go on with what was asked."""
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True
        self.pump()

    def unanswered(self) -> str:
        """What should have been answered by now, and is not. Empty: nothing."""
        return ""

    def json_of_stream(self, method: str) -> str:
        asked = (self.world.requests.of_stream(method) for _ in range(self.random.randint(1, 3)))
        return "".join(map(_json, asked))

    def json(self) -> tuple[str, str, str]:
        """A method, its path and a body."""
        while True:
            asked = self.world.requests.any()
            if (path := self.world.json_paths.get(asked.method)) is not None:
                break
        streams = asked.method in STREAMS
        return asked.method, path, self.json_of_stream(asked.method) if streams else _json(asked.message)


def _json(message: Any) -> str:
    return json.dumps(MessageToDict(message, preserving_proto_field_name=True))


class Http1Client(Client):
    """Several requests at once, some of them cut short."""

    def __init__(self, world: Connected) -> None:
        super().__init__(world)
        self._asked: list[tuple[str, bool]] = []  # method, whether an answer may never end
        self._plain = True  # nothing was asked that ends a connection

    def go_on(self) -> None:
        if self.random.random() < 0.6:
            self.send(b"".join(self._request() for _ in range(self.random.choice((1, 1, 1, 3)))))
        elif self.random.random() < self.world.haste:
            self._plain = False
            self.send(self._request()[:-2])

    def _request(self) -> bytes:
        random = self.random
        head, body, endless = self._json_request() if random.random() < 0.5 else self._v2_request()
        if random.random() < 0.03:
            head, self._plain = head.replace("HTTP/1.1", "HTTP/1.0"), False
        if random.random() < 0.03:
            head, self._plain = head + "Connection: close\r\n", False
        self._asked.append((head.partition(" ")[0], endless))
        if body and random.random() < 0.1:
            chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            return head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunk
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        return f"{head}{length}\r\n".encode() + body

    def _json_request(self) -> tuple[str, bytes, bool]:
        random = self.random
        method, path, text = self.json()
        if random.random() < 0.03:
            text = text[:-1]
        if random.random() < 0.05:
            text += " " * 20_000  # translated in a thread
        limit = f"Grpc-Timeout: {random.choice(LIMITS)}\r\n" if random.random() < 0.4 else ""
        endless = method in ENDLESS or method in ("Compact", "Defragment")
        return f"POST {path} HTTP/1.1\r\nHost: x\r\n{limit}", text.encode(), endless

    def _v2_request(self) -> tuple[str, bytes, bool]:
        random = self.random
        method = random.choice(("GET", "GET", "GET", "PUT", "PUT", "POST", "DELETE", "HEAD"))
        path, body = "/v2/keys/a", b""
        if method == "GET":
            path = random.choice((
                "/v2/keys/a?recursive=true", "/v2/keys/a?quorum=true", random.choice(_PLAIN),
                path + random.choice(_WAITS)))
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n"
        if method in ("PUT", "POST"):
            body = b"value=" + b"v" * random.choice((1, 1, 5000, 40_000))
            head += "Content-Type: application/x-www-form-urlencoded\r\n"
        if random.random() < 0.1:
            head += "Authorization: Basic dTpw\r\n"
        return head, body, "wait=true" in path

    def unanswered(self) -> str:
        """The first request that has no answer, unless one before it is endless."""
        if not self._plain or self.closed or self.socket.closing:
            return ""
        found = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 24)
        if self.socket.written:  # nothing would mean the end
            found.receive_data(bytes(self.socket.written))
        for number, (method, endless) in enumerate(self._asked):
            found.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
            found.send(h11.EndOfMessage())
            while not isinstance(event := found.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    return "" if endless else f"{method}, {number} of {len(self._asked)}"
            found.start_next_cycle()
        return f"more than was asked: {found.trailing_data[0][:100]!r}" if found.trailing_data[0] else ""


class Talker(Client):
    """Over a WebSocket."""

    def __init__(self, world: Connected) -> None:
        super().__init__(world)
        self._talks = self.random.choice(_TALKS)
        self._socket = WebSocket(ConnectionType.CLIENT)
        self.send((
            f"GET /v3/{self._talks} HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())

    def go_on(self) -> None:
        if self.random.random() < 0.5:
            method = {"watch": "Watch", "lease/keepalive": "LeaseKeepAlive"}.get(self._talks)
            text = self.random.choice(("{}", '{"key":"YQ=="}', '{"name":"YQ=="}', "{", ""))
            self.send(self._socket.send(TextMessage(self.json_of_stream(method) if method else text)))
        elif self.random.random() < 0.05:
            self.send(self._socket.send(CloseConnection(1000)))
            self.close()
