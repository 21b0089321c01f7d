"""Requests that break gRPC's rules, and compressed ones: what is refused, and by which words."""

from __future__ import annotations

import gzip
import zlib

import pytest

from proxy.grpc import wire
from proxy.grpc.registry import Registry
from proxy.http.http2 import frames as f
from proxy.services.cluster import refused_at_learner
from tests.unit.grpc.calls.talking import Talk, message


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


def test_an_answer_above_the_limit_is_refused(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 4 GiB has no length prefix: packing it ended the front."""
    monkeypatch.setattr(wire, "MAX_SEND_BYTES", 60_000)
    for stream in (1, 3):
        talk.headers(stream, path="/a.B/Park")
        talk.data(stream, message(b""))
    fits, exceeds = talk.parked
    fits.reply(b"v" * 60_000)
    assert talk.answer(1)[1] == message(b"v" * 60_000)
    exceeds.reply(b"v" * 60_000, b"v")
    assert talk.status(3) == (8, "grpc: trying to send message larger than max (60001 vs. 60000)")
    assert not talk.server.streams


def test_a_message_of_a_stream_above_the_limit_ends_the_call(
    talk: Talk, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of 4 GiB, of a watch, ended the front, or left the watch silent for ever."""
    monkeypatch.setattr(wire, "MAX_SEND_BYTES", 100_000)
    talk.headers(1, path="/a.B/Park")
    talk.data(1, message(b""))
    (call,) = talk.parked
    call.send(b"v" * 100_000, b"v")
    assert talk.status(1) == (8, "grpc: trying to send message larger than max (100001 vs. 100000)")
    assert not talk.server.streams


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


def test_of_several_gzip_messages_one_is_inflated_at_a_time(talk: Talk) -> None:
    """580 KB made 560 MB: seven of 2 MB in a frame waited for their turns on each of 40 connections."""
    talk.headers(1, path="/a.B/Bidi", grpc_encoding="gzip")
    plain = bytes(1_500_000)
    packed = gzip.compress(plain)
    talk.data(1, message(packed, flag=1) * 7)
    for heard in range(1, 8):
        assert talk.stream.heard[: heard + 1] == ["opened", *[plain] * heard]
        assert len(talk.stream.heard) == heard + 1 + (heard == 7)
        (call,) = talk.stream.calls
        assert sum(map(len, call._held)) == len(packed) * (7 - heard)  # type: ignore[attr-defined]
        talk.server.receive(b"", 100.0)
    assert talk.stream.heard[-1] == "half closed"


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
        gzip.compress(b"more", mtime=0) + b"junk", gzip.compress(b"", mtime=0) * 65,
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
        ({"grpc_timeout": "-1S"}, "200", 4, "context deadline exceeded"),
        (
            {"grpc_timeout": "+-1S"}, "400", 13,
            'malformed grpc-timeout: strconv.ParseInt: parsing "+-1": invalid syntax',
        ),
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
    ("changes", "status", "text"),
    [
        ({}, 9, "etcdserver: rpc not supported for learner"),
        ({"path": "/a.B/Nope"}, 12, "unknown method Nope for service a.B"),
        ({"path": "/x.Y/Z"}, 12, "unknown service x.Y"),
        ({"path": "/"}, 12, 'malformed method name: "/"'),
        (
            {"grpc_encoding": "snappy"}, 12,
            'grpc: Decompressor is not installed for grpc-encoding "snappy"',
        ),
        ({"content_type": "text/plain"}, 3, 'invalid gRPC request content-type: "text/plain"'),
    ],
)
def test_what_no_host_serves_is_refused_as_such_at_a_learner(
    changes: dict[str, str | None], status: int, text: str
) -> None:
    registry = Registry()
    registry.unary("/a.B/Echo", lambda call, data: call.reply(data))
    registry.gate = refused_at_learner
    talk = Talk(registry)
    for stream_id in (1, 3):
        talk.headers(stream_id, end=True, **changes)
        assert talk.status(stream_id) == (status, text)


@pytest.mark.parametrize("path", ["/a.B/Echo", "/a.B/Bidi"])
def test_a_version_that_is_no_text_is_refused(talk: Talk, path: str) -> None:
    talk.headers(1, path=path, client_api_version=b"3.\xff")
    assert talk.status(1) == (3, "etcdserver: invalid client api version")


@pytest.mark.parametrize(
    "kind", ["application/grpc+proto", "application/grpc;charset=utf-8", "Application/GRPC"]
)
def test_content_types_that_are_grpc(talk: Talk, kind: str) -> None:
    talk.headers(1, content_type=kind)
    talk.data(1, message(b"x"))
    assert talk.answer(1)[1] == message(b"x")
