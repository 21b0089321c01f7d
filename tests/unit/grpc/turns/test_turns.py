"""A connection has its turn of the loop, then the next one: however much it sends at once."""

from __future__ import annotations

import gzip
import socket
import threading
import tracemalloc
from collections.abc import Iterable

import hpack
import pytest

from proxy.grpc import wire
from proxy.grpc.calls import Call, Peer
from proxy.grpc.kinds import MESSAGE_WORK
from proxy.grpc.registry import Registry
from proxy.http.backlog import SHARED_S
from proxy.http.http1 import FULL_BYTES, TURN_REQUESTS, Http1Connection
from proxy.http.http2 import Limits
from proxy.http.http2 import frames as f
from proxy.http.http2.blocks import HeaderDecoder
from proxy.http.http2.connection import TURN_WORK
from proxy.http.requests import HttpRequest
from tests.unit.grpc.calls.talking import Talk, message
from tests.unit.grpc.harness import Service, connected, serving, wait_for
from tests.unit.grpc.http1.test_http1_fuzz import Output
from tests.unit.grpc.turns.test_backlog import Loop


class Heard:
    """A stream method that writes down what it hears, and how much was heard in each turn."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def opened(self, call: Call) -> None:
        self.heard.append("opened")

    def message(self, call: Call, data: bytes) -> None:
        self.heard.append(data)
        if data == b"finish":
            call.finish()

    def half_closed(self, call: Call) -> None:
        self.heard.append("half closed")
        call.finish()

    def cancelled(self, call: Call) -> None:
        self.heard.append("cancelled")


def registry_of(handler: Heard) -> Registry:
    registry = Registry()
    registry.stream("/a.B/Bidi", handler)
    return registry


def stream_of(handler: Heard) -> Talk:
    talk = Talk(registry=registry_of(handler))
    talk.headers(1, path="/a.B/Bidi")
    return talk


def turns(talk: Talk) -> int:
    """Give the connection turns until it has done everything; how many."""
    count = 0
    while talk.server.more:
        assert talk.server.work < TURN_WORK + 4096 + MESSAGE_WORK  # one frame more at most
        talk.server.receive(b"", 100.0)
        count += 1
        assert count < 100_000
    return count


def test_a_read_of_very_many_calls_is_answered_in_turns_and_in_order() -> None:
    talk = Talk()
    call = f.frame(f.DATA, f.END_STREAM, 0, message(b""))
    calls = b"".join(
        f.header_frames(
            number,
            talk.encoder.encode(
                list(
                    {
                        ":method": "POST", ":scheme": "http", ":path": "/a.B/Echo", ":authority": "x",
                        "content-type": "application/grpc", "te": "trailers",
                    }.items()
                )
            ),
            False,
        )
        + call[:5]
        + number.to_bytes(4, "big")
        + call[9:]
        for number in range(1, 4001, 2)
    )
    talk.server.receive(calls, 100.0)
    answered = [len([frame for frame in talk.take() if frame.kind == f.DATA])]
    while talk.server.more:
        talk.server.receive(b"", 100.0)
        answered.append(len([frame for frame in talk.take() if frame.kind == f.DATA]))
    assert sum(answered) == 2000
    assert max(answered) <= TURN_WORK
    assert len(answered) >= 2000 * 2 // TURN_WORK


def test_new_header_blocks_cost_by_their_length() -> None:
    """Decoded one after the other, 4 MB/s of Huffman codes kept a loop busy."""
    talk = Talk(max_header_list_bytes=65_536)
    encoder = hpack.Encoder()
    block = encoder.encode(
        [
            (":method", "POST"), (":scheme", "http"), (":path", "/a.B/" + "a" * 6000), (":authority", "x"),
            ("content-type", "application/grpc"), ("te", "trailers"),
        ],
        huffman=True,
    )
    parts = [f.header_frames(number, b"\x20" + block, True) for number in range(1, 41, 2)]
    talk.server.receive(b"".join(parts), 100.0)
    assert turns(talk) >= 10
    assert len([frame for frame in talk.take() if frame.kind == f.HEADERS]) == 20


def test_messages_of_one_frame_come_in_turns_and_in_order() -> None:
    handler = Heard()
    talk = stream_of(handler)
    sent = [b"%d" % number for number in range(1000)]
    talk.data(1, b"".join(map(message, sent)), end=True)
    assert len(handler.heard) <= TURN_WORK // MESSAGE_WORK + 2
    assert 1 + turns(talk) >= 1000 * MESSAGE_WORK // TURN_WORK
    assert handler.heard == ["opened", *sent, "half closed"]
    assert talk.status(1)[0] == wire.OK


def test_messages_with_gzip_cost_by_what_they_unpack_to() -> None:
    """Small fields of 800 kB were parsed in one turn, some 20 ms; 2 kB of gzip bring so many."""
    handler = Heard()
    talk = Talk(registry=registry_of(handler))
    talk.headers(1, path="/a.B/Bidi", grpc_encoding="gzip")
    plain = bytes(20_480)
    talk.data(1, message(gzip.compress(plain), flag=1) * 40)
    assert 1 + turns(talk) >= 40 * len(plain) // 512 // TURN_WORK
    assert handler.heard == ["opened", *[plain] * 40, "half closed"]


def test_what_comes_behind_held_messages_waits_for_them() -> None:
    handler = Heard()
    talk = stream_of(handler)
    sent = [b"%d" % number for number in range(500)]
    talk.data(1, b"".join(map(message, sent)), end=False)
    talk.data(1, message(b"last"), end=True)
    turns(talk)
    assert handler.heard == ["opened", *sent, b"last", "half closed"]


@pytest.mark.parametrize("how", ["reset", "lost", "finished by the handler"])
def test_held_messages_end_with_their_call(how: str) -> None:
    handler = Heard()
    talk = stream_of(handler)
    sent = [b"%d" % number for number in range(500)]
    if how == "finished by the handler":
        sent[200] = b"finish"
    talk.data(1, b"".join(map(message, sent)), end=False)
    heard = len(handler.heard)
    if how == "lost":
        talk.server.lost()
    elif how == "reset":
        talk.server.receive(f.rst_stream(1, f.ErrorCode.CANCEL), 100.0)
    turns(talk)
    if how == "finished by the handler":
        assert handler.heard == ["opened", *sent[:201]]
    else:
        assert handler.heard[-1] == "cancelled"
        assert handler.heard.count("cancelled") == 1
        assert how != "lost" or len(handler.heard) == heard + 1
    assert talk.server.held_back is None


class Slow(Heard):
    """Each message takes a fourth of what all share in a turn."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self.loop = loop

    def message(self, call: Call, data: bytes) -> None:
        self.loop.now += SHARED_S / 4
        super().message(call, data)


@pytest.mark.parametrize("framed", ["a frame each", "one frame"])
def test_messages_of_very_many_connections_share_a_turn(framed: str) -> None:
    """256 connections that create ten watches each held everybody else's puts up for 0.3 s."""
    loop = Loop()
    handlers = [Slow(loop) for _ in range(20)]
    talks = [stream_of(handler) for handler in handlers]
    sent = [b"%d" % number for number in range(3)]
    read = list(map(message, sent)) if framed == "a frame each" else [b"".join(map(message, sent))]

    def go_on(talk: Talk) -> None:
        talk.server.receive(b"", 100.0)
        if talk.server.more:
            loop.backlog.add(lambda: go_on(talk))

    began = loop.now
    for talk in talks:
        assert isinstance(talk.server.owner, Peer)
        talk.server.owner.spent = loop.backlog.spent
        talk.server.receive(b"".join(f.frame(f.DATA, 0, 1, data) for data in read), 100.0)
        if talk.server.more:
            loop.backlog.add(lambda talk=talk: go_on(talk))  # type: ignore[misc]
    assert loop.now - began <= SHARED_S + 3 * SHARED_S / 4
    assert handlers[0].heard == ["opened", *sent]
    assert handlers[-1].heard == ["opened"]
    while loop.due:
        assert loop.turn() <= SHARED_S + 3 * SHARED_S / 4
    assert all(handler.heard == ["opened", *sent] for handler in handlers)
    assert all(talk.server.held_back is None for talk in talks)


class Turns(Output):
    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.spent = False

    def again(self) -> None:
        self.asked += 1

    def later(self) -> bool:
        return self.spent


def test_pipelined_http1_requests_are_answered_in_turns_and_in_order() -> None:
    served: list[str] = []

    def serve(request: HttpRequest) -> None:
        served.append(request.query)
        request.respond(200, b"fine")

    output = Turns()
    connection = Http1Connection({"/a": serve}.get, Limits(), output, "peer", 0.0)
    connection.receive(
        b"".join(b"GET /a?%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(100)), 0.0
    )
    assert len(served) == TURN_REQUESTS
    while output.asked:
        output.asked -= 1
        before = len(served)
        connection.go_on()
        assert len(served) - before <= TURN_REQUESTS
    assert served == [str(number) for number in range(100)]


@pytest.mark.parametrize("field", [b"", b"Connection: keep-alive\r\nConnection: keep-alive\r\n"])
def test_long_pipelined_requests_count_as_many(field: bytes) -> None:
    """A query of 16 KB costs up to a thousand times what a short one does. ``field``: h11 reads the head."""
    served: list[str] = []

    def serve(request: HttpRequest) -> None:
        served.append(request.path)
        request.respond(200, b"fine")

    output = Turns()
    connection = Http1Connection({"/a": serve}.get, Limits(), output, "peer", 0.0)
    head = b"GET /a?" + b"a=1&" * 4000 + b" HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n"
    connection.receive(4 * head, 0.0)
    for done in range(1, 5):
        assert len(served) == done
        connection.go_on()


def test_a_body_whose_end_is_all_that_is_left_is_answered() -> None:
    """h11 holds the end: nothing is behind the body."""
    served: list[str] = []

    def serve(request: HttpRequest) -> None:
        served.append(request.method)
        request.respond(200, b"fine")

    output = Turns()
    connection = Http1Connection({"/a": serve}.get, Limits(), output, "peer", 0.0)
    twice = b"Connection: keep-alive\r\nConnection: keep-alive\r\n"  # not read as plain ones are
    post = b"POST /a HTTP/1.1\r\nHost: x\r\n" + twice + b"Content-Length: 5\r\n\r\nhello"
    for turn in range(15):  # the next piece of a body counts as a request
        connection.receive(post, float(turn + 1))
    connection.receive(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n" * 15 + post, 100.0)
    while output.asked:
        output.asked -= 1
        connection.go_on()
    assert len(served) == 31


def test_what_is_behind_an_answer_waits_where_the_turn_is_spent() -> None:
    """The answer may come with those of many other connections, each with requests behind it."""
    waiting: list[HttpRequest] = []
    served: list[str] = []

    def serve(request: HttpRequest) -> None:
        served.append(request.path)
        request.respond(200, b"fine")

    output = Turns()
    connection = Http1Connection({"/later": waiting.append, "/a": serve}.get, Limits(), output, "peer", 0.0)
    asked = [b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in (b"/later", b"/a")]
    connection.receive(b"".join(asked), 0.0)
    output.spent = True
    waiting.pop().respond(200, b"at last")
    assert not served
    connection.go_on()
    assert served == ["/a"]


TWICE = b"A: \r\nA: \r\n"  # h11 reads a head in which a field repeats


@pytest.mark.parametrize("method", [b"GET", b"PUT"])
@pytest.mark.parametrize("field", [b"", TWICE])
def test_h11_holds_little_of_what_waits_behind_an_answer(method: bytes, field: bytes) -> None:
    """It was given all: 300,000 requests behind a wait cost copies of 12 MB each."""
    waiting: list[HttpRequest] = []
    served: list[str] = []

    def serve(request: HttpRequest) -> None:
        served.append(request.query + request.body.decode())
        request.respond(200, b"fine")

    output = Turns()
    connection = Http1Connection({"/later": waiting.append, "/a": serve}.get, Limits(), output, "peer", 0.0)
    connection.receive(b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n", 0.0)
    rest = b"Host: x\r\n" + field + b"B: " + bytes(1000).replace(b"\0", b"b") + b"\r\n"
    heads = b"".join(b"%s /a?%d HTTP/1.1\r\n%sContent-Length: 1\r\n\r\n;" % (method, number, rest)
                     for number in range(1000))
    for at in range(0, len(heads), 262_144):
        connection.receive(heads[at : at + 262_144], 0.0)
    assert connection.full
    assert connection.backlog == len(heads)
    waiting.pop().respond(200, b"at last")
    while output.asked:
        output.asked -= 1
        connection.go_on()
        assert len(connection._h11.trailing_data[0]) <= 65_536
    assert served == [f"{number};" for number in range(1000)]
    assert (connection.backlog, output.data.count(b"HTTP/1.1 200 ")) == (0, 1001)


def test_requests_that_h11_reads_come_in_pieces_behind_an_answer() -> None:
    """Bodies of any length, in chunks too, a line end too much, a target as curl spells it; then the end."""
    waiting: list[HttpRequest] = []
    served: list[tuple[str, int]] = []

    def serve(request: HttpRequest) -> None:
        served.append((request.query, len(request.body)))
        request.respond(200, b"fine")

    output = Turns()
    connection = Http1Connection({"/later": waiting.append, "/a": serve}.get, Limits(), output, "peer", 0.0)
    connection.receive(b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n", 0.0)
    head = b"PUT /a?%d HTTP/1.1\r\nHost: x\r\n"
    sent = b"".join((
        head % 1, TWICE, b"Content-Length: 700000\r\n\r\n", bytes(700_000), b"\r\n",
        head % 2, b"Transfer-Encoding: chunked\r\n\r\n40000\r\n", bytes(0x40000), b"\r\n0\r\n\r\n",
        head % 3, TWICE, b"\r\n", "GET /a?ä HTTP/1.1\r\nHost: x\r\n".encode(), TWICE, b"\r\n",
        head % 5, b"Content-Length: 300000\r\n\r\n", bytes(300_000),
    ))
    for at in range(0, len(sent), 100_000):
        connection.receive(sent[at : at + 100_000], 0.0)
    connection.half_closed()
    waiting.pop().respond(200, b"at last")
    while output.asked:
        output.asked -= 1
        connection.go_on()
    assert served == [("1", 700_000), ("2", 0x40000), ("3", 0), ("%C3%A4", 0), ("5", 300_000)]
    assert output.closed


@pytest.mark.timeout(120)
def test_what_a_client_sends_behind_a_pending_request_is_read_when_that_is_answered() -> None:
    service = Service()
    waiting: list[HttpRequest] = []
    service.registry.http("/later", waiting.append)
    head = b"PUT /echo?%d HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    sent = b"".join(head % number + bytes(100_000) for number in range(60))
    with serving(service.registry) as running, connected(running) as client:
        tick = running.server._tick
        assert tick is not None
        running.call(tick.cancel)  # nothing waits for it
        client.sendall(b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n")
        sender = threading.Thread(target=client.sendall, args=(sent,))
        sender.start()
        try:
            wait_for(lambda: running.call(running.server.statistics)["paused_reading"] == 1)
            assert running.server.memory.used < 4 * FULL_BYTES
            running.call(waiting[0].respond, 200, b"")
            got = b""
            while got.count(b"HTTP/1.1 201 ") < 60 or not got.endswith(bytes(100_000)):
                piece = client.recv(1 << 20)
                assert piece
                got += piece
        finally:
            client.shutdown(socket.SHUT_RDWR)
            sender.join()


def test_cached_header_blocks_are_bounded_by_what_they_decode_to() -> None:
    """A block of a few octets stands for a field of 4 KB of the table, as often as it likes."""
    decoder = HeaderDecoder(65_536)
    # a literal with indexing: the table is full of it
    decoder.decode(b"\x40\x03big\x7f\xe1\x1d" + b"v" * 3936)
    largest = 0
    for number in range(4000):
        decoder.decode(b"\x83\x86\x04\x05/%04d\xbe" % number)  # POST, http, a path of its own, that field
        largest = max(largest, decoder._cached_bytes + decoder._bases_bytes)
    assert 8_000 < largest <= 65_536


def held(decoder: HeaderDecoder, blocks: Iterable[bytes]) -> int:
    """The most memory that they make it hold, with what calls ask of them."""
    tracemalloc.start()
    before, most = tracemalloc.get_traced_memory()[0], 0
    for block in blocks:
        assert decoder.decode(block).metadata is not None
        most = max(most, tracemalloc.get_traced_memory()[0] - before)
    tracemalloc.stop()
    return most


@pytest.mark.parametrize("kind", ["malformed", "a path", "bases", "many shared", "joined"])
def test_cached_header_blocks_are_bounded_by_the_memory_that_they_take(kind: str) -> None:
    """Their own size alone counted: 19 kB that a client sent held 500 kB, which no limit saw."""
    decoder = HeaderDecoder(65_536)
    paths = [b"\x83\x86\x04\x05/%04d" % number for number in range(800)]
    if kind == "malformed":  # none names a method
        blocks = [b"\x00\x01a\x04%04d" % number for number in range(800)]
    elif kind == "bases":  # the last field goes into the table
        blocks = [path + b"\x40\x0cgrpc-timeout\x021S" for path in paths]
    elif kind == "many shared":
        decoder.decode(b"\x83\x86\x84" + b"".join(b"\x40\x02%02x\x01v" % number for number in range(60)))
        blocks = [path + bytes(range(0xBE, 0xBE + 60)) for path in paths]
    elif kind == "joined":  # six values of a KB become one
        decoder.decode(b"\x40\x03big\x7f\xe1\x07" + b"v" * 1120)
        blocks = [path + b"\xbe" * 6 for path in paths]
    else:
        blocks = paths
    assert held(decoder, blocks) < 40_000


def test_a_connection_keeps_the_header_blocks_of_a_proxys_users() -> None:
    """Fields that the table has were counted for each block: of 13 such blocks the cache was cleared."""
    encoder, decoder = hpack.Encoder(), HeaderDecoder(65_536)
    for _ in range(2):
        blocks = [
            encoder.encode([
                (":method", "POST"), (":scheme", "http"), (":path", "/etcdserverpb.KV/" + method),
                (":authority", "etcd-0.etcd.default.svc:2379"), ("content-type", "application/grpc"),
                ("user-agent", "grpc-go/1.71.1"), ("te", "trailers"), ("token", f"{user:024}")])
            for user in range(13) for method in ("Range", "Put", "Txn")]
        for block in blocks:
            decoder.decode(block)
    assert all(block in decoder.cache for block in blocks)
