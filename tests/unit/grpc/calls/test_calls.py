"""gRPC's rules, call by call, on the pure connection: what no well-behaved client library would send."""

from __future__ import annotations

import gzip

import pytest

from proxy.grpc.kinds import StreamCall
from proxy.grpc.wire import (
    SMALL_BYTES,
    encode_message,
    parse_timeout,
    reply_head,
    reply_tail,
    small_reply,
)
from proxy.http.http2 import frames as f
from tests.unit.grpc.calls.talking import REQUEST, Talk, message
from tests.unit.http2.client import Frame


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


@pytest.mark.parametrize("cut", [0, 3, 8])
def test_what_is_behind_the_one_request_is_ignored(talk: Talk, cut: int) -> None:
    """As by grpc-go, in however many frames it comes."""
    asked = message(b"hello") + b"\xffab"
    talk.headers(1)
    if cut:
        talk.data(1, asked[:cut], end=False)
    talk.data(1, asked[cut:])
    assert talk.answer(1)[1] == message(b"hello")
    assert talk.server.buffered == 0


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
    ("text", "seconds"),
    [
        ("2H", 7200), ("3M", 180), ("5S", 5), ("100m", 0.1), ("250u", 0.00025), ("99999999n", 0.099999999),
        ("99999999H", 315_360_000), ("+5S", 5), ("-1S", -1),
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


@pytest.mark.parametrize("size", [0, 1, SMALL_BYTES, 300])
def test_a_short_answer_written_in_one_go_is_what_a_longer_one_is_joined_from(size: int) -> None:
    message = bytes(range(256))[:size]
    assert small_reply(7, message) == reply_head(7, len(message)) + message + reply_tail(7)


def test_a_paused_stream_is_asked_for_more_only_when_its_handler_reads_on(talk: Talk) -> None:
    talk.headers(1, path="/a.B/Bidi")
    (call,) = talk.stream.calls
    assert isinstance(call, StreamCall)
    call.pause()
    call.pause()
    for _ in range(60):
        talk.data(1, message(bytes(16_000)), end=False)
    assert not [frame for frame in talk.take() if frame.kind == f.WINDOW_UPDATE and frame.stream_id == 1]
    assert len(talk.stream.heard) == 61, "what has come is handed over"
    call.read_on()
    call.read_on()
    (asked,) = (frame for frame in talk.take() if frame.kind == f.WINDOW_UPDATE and frame.stream_id == 1)
    assert int.from_bytes(asked.payload) == 60 * 16_005
