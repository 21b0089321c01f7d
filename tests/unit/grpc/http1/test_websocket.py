"""WebSocket on a connection of HTTP/1.1: what its clients send reaches its owner, and harms nobody."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Event, Message, Ping, TextMessage

from proxy.http.http1 import Http1Connection
from proxy.http.http2 import Limits
from proxy.http.requests import HttpRequest
from proxy.http.upgrade import TURN_EVENTS, WebSocket, accept

ASK = (
    b"GET /s HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@dataclass
class Output:
    """The socket."""

    data: bytes = b""
    closed: bool = False
    unsent: int = 0
    turns: int = 0
    crowded: bool = False

    def write(self, data: bytes) -> None:
        self.data += data

    write_now = write

    def close(self, *, half: bool = False) -> None:
        self.closed = True

    def unsent_bytes(self) -> int:
        return self.unsent

    def again(self) -> None:
        self.turns += 1

    def turned_away(self) -> None:
        pass

    def later(self) -> bool:
        return False

    def recount(self) -> None:
        pass


@dataclass
class Served:
    """A connection, and what its owner has got."""

    output: Output = field(default_factory=Output)
    got: list[bytes] = field(default_factory=list)
    left: int = 0
    socket: WebSocket | None = None

    def __post_init__(self) -> None:
        limits = Limits(max_body_bytes=1000)
        self.http1 = Http1Connection(lambda path: self.handle, limits, self.output, "peer", 0.0)
        self.client = Connection(ConnectionType.CLIENT)

    def handle(self, request: HttpRequest) -> None:
        self.socket = accept(request, self.got.append)

        def lost(request: HttpRequest) -> None:
            self.left += 1

        request.on_close = lost

    def open(self, early: bytes = b"") -> Served:
        self.http1.receive(ASK + early, 0.0)
        head, _, self.output.data = self.output.data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head  # RFC 6455's own example
        return self

    def events(self) -> list[Event]:
        """What the client has been sent."""
        data, self.output.data = self.output.data, b""
        self.client.receive_data(data)
        return list(self.client.events())


def test_messages_arrive_whole_however_they_are_cut() -> None:
    client = Connection(ConnectionType.CLIENT)
    data = client.send(Message(data="one")) + client.send(Message(data=b"t", message_finished=False))
    data += client.send(Ping(payload=b"?")) + client.send(Message(data=b"wo")) + client.send(Message(data=""))
    for step in (1, 3, 1000):
        served = Served().open()
        for at in range(0, len(data), step):
            served.http1.receive(data[at : at + step], 0.0)
        assert served.got == [b"one", b"two"]
        assert [type(event).__name__ for event in served.events()] == ["Pong"]


def test_what_came_with_the_handshake_counts() -> None:
    served = Served().open(Connection(ConnectionType.CLIENT).send(Message(data="early")))
    assert served.got == [b"early"]


def test_a_client_that_closes_is_answered_and_gone() -> None:
    served = Served().open()
    served.http1.receive(served.client.send(CloseConnection(code=1000)), 0.0)
    (closed,) = served.events()
    assert isinstance(closed, CloseConnection)
    assert served.output.closed
    served.http1.lost()
    assert served.left == 1


def test_answers_are_messages() -> None:
    served = Served().open()
    assert served.socket is not None
    served.socket.send("one")
    served.socket.send("zwei ä")
    assert [event.data for event in served.events() if isinstance(event, TextMessage)] == ["one", "zwei ä"]
    served.socket.close()
    served.socket.send("late")
    assert served.output.closed
    assert served.output.data == b""


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x81\x01a", 1002),  # not masked
        (b"\xc1\x81\0\0\0\0a", 1002),  # compressed
        (b"\x83\x81\0\0\0\0a", 1002),  # an unknown kind
        (b"\x81\x81\0\0\0\0\xff", 1007),  # not UTF-8
        (b"\x82\xfe\x07\xd0\0\0\0\0" + bytes(2000), 1009),  # larger than the limit
    ],
)
def test_what_breaks_the_protocol_ends_it(sent: bytes, code: int) -> None:
    served = Served().open()
    served.http1.receive(sent, 0.0)
    (closed,) = served.events()
    assert isinstance(closed, CloseConnection)
    assert closed.code == code
    assert served.output.closed
    served.http1.receive(sent, 0.0)
    assert served.got == []


def test_of_very_many_messages_some_are_taken_each_turn() -> None:
    served = Served().open()
    one = served.client.send(Message(data="x"))
    served.http1.receive(one * 100, 0.0)
    assert len(served.got) == TURN_EVENTS
    while served.output.turns:
        served.output.turns -= 1
        served.http1.go_on()
    assert len(served.got) == 100


def test_a_client_that_takes_nothing_is_not_listened_to() -> None:
    served = Served().open()
    served.output.unsent = 1 << 30
    served.http1.receive(served.client.send(Message(data="x")), 0.0)
    assert (served.got, served.output.turns) == ([], 1)
    served.output.unsent = 0
    served.http1.go_on()
    assert served.got == [b"x"]


@pytest.mark.parametrize(
    ("line", "by", "status"),
    [
        (b"GET /s", b"POST /s", b"405"),
        (b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8", b"400"),
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Key: ", b"400"),
    ],
)
def test_a_wrong_handshake_is_answered_and_http_goes_on(line: bytes, by: bytes, status: bytes) -> None:
    served = Served()
    served.http1.receive(ASK.replace(line, by), 0.0)
    assert served.output.data.startswith(b"HTTP/1.1 " + status)
    served.output.data = b""
    served.http1.receive(ASK, 0.0)
    assert served.output.data.startswith(b"HTTP/1.1 101")


def test_mutated_frames_raise_nothing() -> None:
    client = Connection(ConnectionType.CLIENT)
    frames = [client.send(Message(data="hello")), client.send(Message(data=b"x" * 300)), client.send(Ping())]
    for seed in range(2000):
        r = random.Random(seed)
        data = bytearray(b"".join(r.choice(frames) for _ in range(r.randrange(1, 5))))
        for _ in range(r.randrange(4)):
            data[r.randrange(len(data))] = r.randrange(256)
        served = Served().open()
        while data and not served.output.closed:
            size = r.choice((1, 5, 1000))
            served.http1.receive(bytes(data[:size]), 0.0)
            del data[:size]
        served.http1.receive(b"", 0.0)
        assert served.output.closed, seed
        served.http1.lost()
        assert served.left == 1
