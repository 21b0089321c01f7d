"""gRPC's rules, call by call, on the pure connection: what no well-behaved client library would send."""

from __future__ import annotations

import gzip
import zlib

import hpack
import pytest

from proxy.grpc.calls import Call, Peer
from proxy.grpc.deadlines import Deadlines
from proxy.grpc.registry import Registry
from proxy.grpc.wire import (
    SMALL_BYTES,
    encode_message,
    parse_timeout,
    reply_head,
    reply_tail,
    small_reply,
)
from proxy.http.http2 import PREFACE, Connection, Limits
from proxy.http.http2 import frames as f
from proxy.http.memory import Memory
from tests.unit.http2.client import Frame, parse

REQUEST = {
    ":method": "POST", ":scheme": "http", ":path": "/a.B/Echo", ":authority": "x",
    "content-type": "application/grpc", "te": "trailers",
}  # fmt: skip


class Stream:
    """A stream method that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.calls: list[Call] = []

    def opened(self, call: Call) -> None:
        self.calls.append(call)
        self.heard.append("opened")

    def message(self, call: Call, data: bytes) -> None:
        self.heard.append(data)

    def half_closed(self, call: Call) -> None:
        self.heard.append("half closed")

    def cancelled(self, call: Call) -> None:
        self.heard.append("cancelled")


class Talk:
    """A connection with a few methods."""

    def __init__(self, registry: Registry | None = None, memory: Memory | None = None, **limits: int) -> None:
        self.armed: list[float] = []
        self.deadlines = Deadlines(self.armed.append)
        self.stream = Stream()
        self.parked: list[Call] = []
        self.cancelled: list[Call] = []
        if registry is None:
            registry = Registry()
            registry.unary("/a.B/Echo", lambda call, data: call.reply(data))
            registry.unary("/a.B/Park", self._park)
            registry.stream("/a.B/Bidi", self.stream)
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.server = Connection(
            registry.open, Limits(**limits), 100.0, lambda: None, Peer("1.2.3.4:5", self.deadlines), memory
        )
        self.server.receive(PREFACE + f.settings_frame({}), 100.0)
        self.server.take()

    def _park(self, call: Call, data: bytes) -> None:
        call.on_cancel = self.cancelled.append
        self.parked.append(call)

    def headers(self, stream_id: int, end: bool = False, **changes: str | bytes | None) -> None:
        fields: dict[str, str | bytes] = dict(REQUEST)
        for name, value in changes.items():
            name = name.replace("_", "-")
            name = ":" + name if ":" + name in fields else name
            if value is None:
                del fields[name]
            else:
                fields[name] = value
        self.server.receive(f.header_frames(stream_id, self.encoder.encode(list(fields.items())), end), 100.0)

    def data(self, stream_id: int, data: bytes, end: bool = True) -> None:
        self.server.receive(f.frame(f.DATA, f.END_STREAM if end else 0, stream_id, data), 100.0)

    def take(self) -> list[Frame]:
        out = b""
        while piece := self.server.take():
            out += piece
        return parse(out)

    def answer(self, stream_id: int) -> tuple[dict[str, str], bytes]:
        """All header fields and all data of a stream that must have ended."""
        fields: dict[str, str] = {}
        data = b""
        ended = False
        for frame in self.take():
            if frame.kind == f.HEADERS:
                found = dict(self.decoder.decode(frame.payload))
                if frame.stream_id == stream_id:
                    fields |= found
                    ended = ended or bool(frame.flags & f.END_STREAM)
            elif frame.kind == f.DATA and frame.stream_id == stream_id:
                data += frame.payload
        assert ended, "the call is not answered"
        return fields, data

    def status(self, stream_id: int) -> tuple[int, str]:
        fields, _ = self.answer(stream_id)
        return int(fields["grpc-status"]), fields.get("grpc-message", "")


def message(data: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(data).to_bytes(4, "big") + data


@pytest.fixture
def talk() -> Talk:
    return Talk()


def test_an_answer_is_headers_one_message_and_trailers(talk: Talk) -> None:
    talk.headers(1)
    talk.data(1, message(b"hello"))
    head, body, tail = talk.take()
    assert dict(talk.decoder.decode(head.payload)) == {":status": "200", "content-type": "application/grpc"}
    assert (head.flags, body, tail.flags) == (
        f.END_HEADERS, Frame(f.DATA, 0, 1, message(b"hello")), f.END_HEADERS | f.END_STREAM,
    )
    assert dict(talk.decoder.decode(tail.payload)) == {"grpc-status": "0"}


@pytest.mark.parametrize("window", [0, 1, 7, 20])
def test_an_answer_is_the_same_whatever_the_windows(talk: Talk, window: int) -> None:
    talk.server.receive(f.settings_frame({f.INITIAL_WINDOW_SIZE: window}), 100.0)
    talk.headers(1)
    talk.data(1, message(b"hello"))
    frames = talk.take()
    for _ in range(10):
        talk.server.receive(f.window_update(1, 1), 100.0)
        frames += talk.take()
    assert b"".join(frame.payload for frame in frames if frame.kind == f.DATA) == message(b"hello")
    assert frames[-1].flags == f.END_HEADERS | f.END_STREAM
    assert not talk.server.streams


def test_a_smaller_header_table_reaches_the_fast_answer_too(talk: Talk) -> None:
    talk.server.receive(f.settings_frame({f.HEADER_TABLE_SIZE: 0}), 100.0)
    for stream_id in (1, 3):
        talk.headers(stream_id)
        talk.data(stream_id, message(b"x"))
    blocks = [frame.payload for frame in talk.take() if frame.kind == f.HEADERS]
    assert [block[:1] == b"\x20" for block in blocks] == [True, False, False, False]


@pytest.mark.parametrize("cuts", [(1,), (4,), (5,), (5, 6), (3, 7, 9), tuple(range(1, 15))])
def test_a_message_may_come_in_any_pieces(talk: Talk, cuts: tuple[int, ...]) -> None:
    data = message(b"0123456789")
    for path, end in (("/a.B/Echo", True), ("/a.B/Bidi", False)):
        stream_id = 1 if end else 3
        talk.headers(stream_id, path=path)
        for low, high in zip((0, *cuts), (*cuts, len(data)), strict=True):
            talk.data(stream_id, data[low:high], end=end and high == len(data))
    assert talk.answer(1)[1] == data
    assert talk.stream.heard == ["opened", b"0123456789"]
    assert talk.server.buffered == 0


def test_the_end_may_come_by_itself(talk: Talk) -> None:
    talk.headers(1)
    talk.data(1, message(b"hello"), end=False)
    assert talk.take() == []
    talk.data(1, b"")
    assert talk.answer(1)[1] == message(b"hello")


def test_or_by_trailers(talk: Talk) -> None:
    talk.headers(1)
    talk.data(1, message(b"hello"), end=False)
    talk.server.receive(f.header_frames(1, talk.encoder.encode([("x-t", "1")]), True), 100.0)
    assert talk.answer(1)[1] == message(b"hello")


@pytest.mark.parametrize("path", ["/a.B/Echo", "/a.B/Park"])
@pytest.mark.parametrize("late", [b"", message(b"more")])
def test_who_keeps_its_side_open_for_the_answer_gets_it(talk: Talk, path: str, late: bytes) -> None:
    talk.headers(1, path=path)
    for octet in message(b"asked"):
        talk.data(1, bytes((octet,)), end=False)
    assert talk.take() == [], "the end is waited for a little"
    talk.deadlines.expire(100.05)
    if path == "/a.B/Park":
        talk.data(1, late, end=False)
        assert not talk.cancelled
        (parked,) = talk.parked
        parked.reply(b"asked")
    fields, data = talk.answer(1)
    assert (fields["grpc-status"], data) == ("0", message(b"asked"))
    talk.data(1, late)
    assert talk.take() == []
    assert (talk.server.streams, talk.server.buffered, talk.server.unanswered) == ({}, 0, 0)
    assert not talk.server.finished


def test_an_end_that_comes_in_time_is_not_taken_for_a_second_request(talk: Talk) -> None:
    talk.headers(1, path="/a.B/Park")
    talk.data(1, message(b"asked"), end=False)
    talk.data(1, b"")
    talk.deadlines.expire(100.05)
    assert len(talk.parked) == 1


def test_compressed_requests_take_several_turns(talk: Talk) -> None:
    """Each of 1.5 kB takes milliseconds: a read of 64 kB held the loop for a tenth of a second."""
    packed = gzip.compress(bytes(1_500_000))
    asked = b""
    for id in range(1, 41, 2):
        fields = [*REQUEST.items(), ("grpc-encoding", "gzip")]
        fields[2] = (":path", "/a.B/Park")
        asked += f.header_frames(id, talk.encoder.encode(fields), False)
        asked += f.frame(f.DATA, f.END_STREAM, id, b"\1" + len(packed).to_bytes(4, "big") + packed)
    talk.server.receive(asked, 100.0)
    assert talk.server.more
    assert len(talk.parked) == 1
    while talk.server.more:
        talk.server.receive(b"", 100.0)
    assert len(talk.parked) == 20


def test_a_stream_hears_every_message_and_the_end(talk: Talk) -> None:
    talk.headers(1, path="/a.B/Bidi")
    talk.data(1, message(b"a") + message(b"") + message(b"c")[:3], end=False)
    talk.data(1, message(b"c")[3:] + message(b"d"), end=False)
    talk.data(1, b"")
    assert talk.stream.heard == ["opened", b"a", b"", b"c", b"d", "half closed"]


@pytest.mark.parametrize("window", [0, 1, 11, 12, 65_535])
@pytest.mark.parametrize("table", [0, 4096])
@pytest.mark.parametrize("status", [0, 5])
def test_a_streams_answers_are_the_same_whatever_the_windows(
        talk: Talk, window: int, table: int, status: int) -> None:
    talk.server.receive(f.settings_frame({f.INITIAL_WINDOW_SIZE: window, f.HEADER_TABLE_SIZE: table}), 100.0)
    talk.take()
    talk.headers(1, path="/a.B/Bidi")
    talk.data(1, message(b"asked"), end=False)
    call = talk.stream.calls[0]
    call.send(b"first!")
    frames = talk.take()
    assert frames[0].kind == f.HEADERS
    assert frames[0].payload.startswith(b"\x20") == (table == 0)
    call.send(b"second")
    talk.data(1, b"")
    call.finish(status, "said" if status else "")
    frames += talk.take()
    for _ in range(25):
        talk.server.receive(f.window_update(1, 1), 100.0)
        frames += talk.take()
    assert b"".join(frame.payload for frame in frames if frame.kind == f.DATA) == (
        message(b"first!") + message(b"second"))
    head, *_, tail = frames
    assert dict(talk.decoder.decode(head.payload)) == {":status": "200", "content-type": "application/grpc"}
    assert tail.flags == f.END_HEADERS | f.END_STREAM
    assert dict(talk.decoder.decode(tail.payload)) == (
        {"grpc-status": "5", "grpc-message": "said"} if status else {"grpc-status": "0"})
    assert talk.stream.heard == ["opened", b"asked", "half closed"]
    assert not talk.server.streams
    assert talk.server.send_window == f.DEFAULT_WINDOW - 22


def test_a_stream_that_ends_before_its_client_does_is_reset(talk: Talk) -> None:
    talk.headers(1, path="/a.B/Bidi")
    talk.stream.calls[0].send(b"first!")
    talk.stream.calls[0].finish()
    assert [frame.kind for frame in talk.take()] == [f.HEADERS, f.DATA, f.HEADERS, f.RST_STREAM]
    talk.data(1, b"")
    assert talk.stream.heard == ["opened"]
    assert not talk.server.streams


def test_messages_after_the_call_was_finished_are_not_heard(talk: Talk) -> None:
    talk.headers(1, path="/a.B/Bidi")
    talk.stream.calls[0].finish(3, "enough")
    talk.data(1, message(b"late"))
    assert talk.stream.heard == ["opened"]
    assert talk.status(1) == (3, "enough")


@pytest.mark.parametrize(
    ("data", "status", "text"),
    [
        (b"", 2, "EOF"),
        (b"\0\0", 2, "unexpected EOF"),
        (message(b"abc")[:-1], 2, "unexpected EOF"),
        (message(b"a", flag=2), 13, "grpc: received unexpected payload format 2"),
        (message(b"a", flag=1), 13, "grpc: compressed flag set with identity or empty encoding"),
    ],
)
@pytest.mark.parametrize("split", [False, True])
def test_a_broken_request_is_answered(talk: Talk, data: bytes, status: int, text: str, split: bool) -> None:
    talk.headers(1)
    if split:
        for octet in data:
            talk.data(1, bytes((octet,)), end=False)
        talk.data(1, b"")
    else:
        talk.data(1, data)
    assert talk.status(1) == (status, text)
    assert not talk.server.streams
    assert talk.server.buffered == 0


@pytest.mark.parametrize("split", [False, True])
def test_of_several_messages_the_first_is_taken_as_grpc_go_does(talk: Talk, split: bool) -> None:
    talk.headers(1)
    data = message(b"first") + message(b"second")
    if split:
        for octet in data:
            talk.data(1, bytes((octet,)), end=False)
        data = b""
    talk.data(1, data)
    assert talk.answer(1)[1] == message(b"first")
    assert talk.server.buffered == 0


@pytest.mark.parametrize("split", [False, True])
def test_a_stream_cut_short_inside_a_message(talk: Talk, split: bool) -> None:
    talk.headers(1, path="/a.B/Bidi")
    talk.data(1, message(b"abc")[:-1], end=not split)
    if split:
        talk.data(1, b"")
    assert talk.status(1) == (13, "unexpected EOF")
    assert talk.stream.heard == ["opened", "cancelled"]


@pytest.mark.parametrize("length", [101, 2**32 - 1])
def test_a_message_too_large_is_refused_by_its_prefix(length: int) -> None:
    talk = Talk(max_message_bytes=100)
    talk.headers(1)
    talk.data(1, b"\0" + length.to_bytes(4, "big") + b"x", end=False)
    assert talk.status(1) == (8, f"grpc: received message larger than max ({length} vs. 100)")
    talk.headers(3, path="/a.B/Bidi")
    talk.data(3, b"\0" + length.to_bytes(4, "big") + b"x", end=False)
    assert talk.status(3) == (8, f"grpc: received message larger than max ({length} vs. 100)")
    assert talk.stream.heard == ["opened", "cancelled"]


def test_a_whole_message_too_large_is_refused_on_a_stream_too() -> None:
    talk = Talk(max_message_bytes=100)
    talk.headers(1, path="/a.B/Bidi")
    talk.data(1, message(b"x" * 101), end=False)
    assert talk.status(1)[0] == 8


def test_unfinished_requests_of_a_connection_are_bounded() -> None:
    talk = Talk(max_buffered_bytes=10_000)
    for stream_id in range(1, 41, 2):
        talk.headers(stream_id)
        talk.data(stream_id, message(b"x" * 990)[:-1], end=False)
    assert talk.server.buffered <= 10_000
    ended = [frame.stream_id for frame in talk.take() if frame.kind == f.HEADERS]
    assert len(ended) == 10
    talk.data(1, b"x")
    assert talk.answer(1)[1] == message(b"x" * 990), "those that were first are served"


# -- compression


@pytest.mark.parametrize("path", ["/a.B/Echo", "/a.B/Bidi"])
@pytest.mark.parametrize("members", [1, 3])
def test_gzip_is_unpacked_message_by_message(talk: Talk, path: str, members: int) -> None:
    talk.headers(1, path=path, grpc_encoding="gzip")
    talk.data(1, message(gzip.compress(b"abc" * 100) * members, flag=1))
    if path == "/a.B/Echo":
        assert talk.answer(1)[1] == message(b"abc" * 100 * members)
    else:
        assert talk.stream.heard == ["opened", b"abc" * 100 * members, "half closed"]


def test_a_plain_message_under_a_gzip_encoding_is_fine(talk: Talk) -> None:
    talk.headers(1, grpc_encoding="gzip")
    talk.data(1, message(b"plain"))
    assert talk.answer(1)[1] == message(b"plain")


def test_a_gzip_bomb_is_not_inflated_beyond_the_limit() -> None:
    talk = Talk(max_message_bytes=100_000)
    talk.headers(1, grpc_encoding="gzip")
    talk.data(1, message(gzip.compress(bytes(10_000_000)), flag=1))
    assert talk.status(1) == (8, "grpc: received message after decompression larger than max 100000")


@pytest.mark.parametrize(
    "data",
    [
        b"not gzip", zlib.compress(b"zlib"), gzip.compress(b"cut short", mtime=0)[:-9],
        gzip.compress(b"more") + b"junk", gzip.compress(b"") * 65,
    ],
)
def test_broken_gzip(talk: Talk, data: bytes) -> None:
    talk.headers(1, grpc_encoding="gzip")
    talk.data(1, message(data, flag=1))
    status, text = talk.status(1)
    assert status == 13
    assert text.startswith("grpc: failed to decompress the received message: ")


# -- the header block


@pytest.mark.parametrize(
    ("changes", "http", "status", "text"),
    [
        ({"content_type": "text/plain"}, "415", 3, 'invalid gRPC request content-type: "text/plain"'),
        ({"content_type": None}, "415", 3, 'invalid gRPC request content-type: ""'),
        (
            {"content_type": "application/grpcx"}, "415", 3,
            'invalid gRPC request content-type: "application/grpcx"',
        ),
        ({"method": "GET"}, "405", 13, 'Received a HEADERS frame with :method "GET" which should be POST'),
        ({"path": "/a.B/Nope"}, "200", 12, "unknown method Nope for service a.B"),
        ({"path": "/x/y.Z/Do"}, "200", 12, "unknown service x/y.Z"),
        ({"path": "/"}, "200", 12, 'malformed method name: "/"'),
        ({"path": "nothing"}, "200", 12, 'malformed method name: "nothing"'),
        (
            {"grpc_encoding": "snappy"}, "200", 12,
            'grpc: Decompressor is not installed for grpc-encoding "snappy"',
        ),
        (
            {"grpc_timeout": "S"}, "400", 13,
            'malformed grpc-timeout: transport: timeout string is too short: "S"',
        ),
        (
            {"grpc_timeout": "5x"}, "400", 13,
            'malformed grpc-timeout: transport: timeout unit is not recognized: "5x"',
        ),
        (
            {"grpc_timeout": "123456789S"}, "400", 13,
            'malformed grpc-timeout: transport: timeout string is too long: "123456789S"',
        ),
        ({"grpc_timeout": "0S"}, "200", 4, "context deadline exceeded"),
    ],
)
@pytest.mark.parametrize("ended", [False, True])
def test_what_is_refused_by_its_header_block(
    talk: Talk, changes: dict[str, str | None], http: str, status: int, text: str, ended: bool
) -> None:
    talk.headers(1, end=ended, **changes)
    fields, data = talk.answer(1)
    assert (fields[":status"], fields["grpc-status"], fields["grpc-message"], data) == (
        http, str(status), text, b"",
    )
    assert not talk.server.streams


@pytest.mark.parametrize(
    "kind", ["application/grpc+proto", "application/grpc;charset=utf-8", "Application/GRPC"]
)
def test_content_types_that_are_grpc(talk: Talk, kind: str) -> None:
    talk.headers(1, content_type=kind)
    talk.data(1, message(b"x"))
    assert talk.answer(1)[1] == message(b"x")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2H", 7200), ("3M", 180), ("5S", 5), ("100m", 0.1), ("250u", 0.00025), ("99999999n", 0.099999999),
        ("99999999H", 315_360_000),
    ],
)
def test_timeouts(text: str, seconds: float) -> None:
    assert parse_timeout(text.encode()) == pytest.approx(seconds)


def test_metadata_and_peer_are_there_for_handlers(talk: Talk) -> None:
    talk.headers(1, path="/a.B/Park", token="abc")
    talk.data(1, message(b"x"))
    (call,) = talk.parked
    assert (call.metadata[b"token"], call.path, call.peer, call.deadline) == (
        b"abc", b"/a.B/Park", "1.2.3.4:5", None,
    )


def test_messages_are_percent_encoded() -> None:
    assert encode_message("100% é\n~") == b"100%25 %C3%A9%0A~"


# -- deadlines and cancellation


def test_a_deadline_answers_once_and_tells_the_handler(talk: Talk) -> None:
    talk.headers(1, path="/a.B/Park", grpc_timeout="500m")
    talk.data(1, message(b"x"))
    assert talk.parked[0].deadline == pytest.approx(100.5)
    assert talk.armed == [pytest.approx(100.5, abs=0.011)]
    talk.deadlines.expire(100.4)
    assert not talk.cancelled
    talk.deadlines.expire(100.52)
    assert talk.status(1) == (4, "context deadline exceeded")
    assert talk.cancelled == talk.parked
    talk.parked[0].reply(b"late")
    assert talk.take() == []
    assert len(talk.deadlines) == 0


def test_of_several_deadlines_the_last_one_counts_as_in_grpc_go(talk: Talk) -> None:
    fields = [*(REQUEST | {":path": "/a.B/Park"}).items(), ("grpc-timeout", "0n"), ("grpc-timeout", "500m")]
    talk.server.receive(f.header_frames(1, talk.encoder.encode(fields), False), 100.0)
    talk.data(1, message(b"x"))
    assert talk.parked[0].deadline == pytest.approx(100.5)


def test_a_deadline_ends_a_stream(talk: Talk) -> None:
    talk.headers(1, path="/a.B/Bidi", grpc_timeout="1S")
    talk.stream.calls[0].send(b"one")
    talk.deadlines.expire(102)
    fields, data = talk.answer(1)
    assert (fields["grpc-status"], data) == ("4", message(b"one"))
    assert talk.stream.heard == ["opened", "cancelled"]


def test_a_call_answered_in_time_leaves_no_deadline(talk: Talk) -> None:
    for i in range(100):
        talk.headers(2 * i + 1, grpc_timeout=f"{i + 1}S")
        talk.data(2 * i + 1, message(b"x"))
    assert len(talk.deadlines) == 0


def test_the_timer_is_armed_for_the_earliest(talk: Talk) -> None:
    for stream_id, timeout in ((1, "5S"), (3, "1S"), (5, "3S")):
        talk.headers(stream_id, path="/a.B/Park", grpc_timeout=timeout)
        talk.data(stream_id, message(b"x"))
    assert talk.armed == [pytest.approx(105, abs=0.011), pytest.approx(101, abs=0.011)]
    talk.deadlines.expire(101.1)
    assert talk.armed[2:] == [pytest.approx(103, abs=0.011)]


@pytest.mark.parametrize("how", ["reset", "lost", "breach"])
def test_a_client_that_goes_away_reaches_every_handler(talk: Talk, how: str) -> None:
    talk.headers(1, path="/a.B/Park", grpc_timeout="5S")
    talk.data(1, message(b"x"))
    talk.headers(3, path="/a.B/Bidi")
    if how == "reset":
        talk.server.receive(f.rst_stream(1, 8) + f.rst_stream(3, 8), 100.0)
    elif how == "lost":
        talk.server.lost()
    else:
        talk.server.receive(f.frame(f.PING, 0, 0, b""), 100.0)
    assert talk.cancelled == talk.parked
    assert talk.stream.heard == ["opened", "cancelled"]
    assert len(talk.deadlines) == 0
    talk.parked[0].reply(b"late")
    talk.parked[0].finish(2, "late")
    talk.stream.calls[0].send(b"late")
    assert not talk.server.streams


def test_a_stream_that_asks_on_and_takes_no_answer_is_reset() -> None:
    talk = Talk(max_unsent_bytes=10_000)
    talk.server.receive(f.settings_frame({f.INITIAL_WINDOW_SIZE: 0}), 100.0)
    talk.headers(1, path="/a.B/Bidi")
    talk.stream.calls[0].send(b"x" * 9_000)
    talk.data(1, message(b"still fine"), end=False)
    talk.stream.calls[0].send(b"x" * 9_000)
    talk.data(1, message(b"too much"), end=False)
    assert talk.stream.heard == ["opened", b"still fine", "cancelled"]
    assert Frame(f.RST_STREAM, 0, 1, f.U32.pack(11)) in talk.take()
    assert talk.server.queued == 0


def test_a_finished_call_troubles_its_handler_no_more(talk: Talk) -> None:
    talk.server.receive(f.settings_frame({f.INITIAL_WINDOW_SIZE: 0}), 100.0)
    for stream_id in (1, 3):
        talk.headers(stream_id, path="/a.B/Bidi", grpc_timeout="1S")
    for call in talk.stream.calls:
        call.on_drain = lambda: talk.stream.heard.append("drained")
        call.send(b"waits for a window")
        call.finish()
    talk.server.receive(f.window_update(1, 1000) + f.rst_stream(3, 8), 100.0)
    talk.take()
    talk.deadlines.expire(102)
    assert not talk.server.streams
    assert talk.stream.heard == ["opened", "opened"]


def test_calls_are_refused_while_answers_pile_up_for_want_of_windows() -> None:
    talk = Talk(max_queued_bytes=100_000)
    talk.server.receive(f.settings_frame({f.INITIAL_WINDOW_SIZE: 0}), 100.0)
    for i in range(30):
        talk.headers(2 * i + 1)
        talk.data(2 * i + 1, message(b"x" * 10_000))
    refused = [frame for frame in talk.take() if frame.kind == f.RST_STREAM]
    assert 100_000 < talk.server.queued < 120_000
    assert {frame.payload for frame in refused} == {f.U32.pack(7)}
    talk.server.receive(
        f.settings_frame({f.INITIAL_WINDOW_SIZE: 65_535}) + f.window_update(0, 1_000_000), 100.0
    )
    talk.take()
    assert talk.server.queued == 0
    talk.headers(101)
    talk.data(101, message(b"x"))
    assert talk.answer(101)[1] == message(b"x")


@pytest.mark.parametrize("size", [0, 1, SMALL_BYTES, 300])
def test_a_short_answer_written_in_one_go_is_what_a_longer_one_is_joined_from(size: int) -> None:
    message = bytes(range(256))[:size]
    assert small_reply(7, message) == reply_head(7, len(message)) + message + reply_tail(7)
