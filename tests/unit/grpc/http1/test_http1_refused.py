"""Requests of HTTP/1.1 that the server of Go refuses and ``h11`` takes. Bodies that nobody can read."""

from __future__ import annotations

import orjson
import pytest

from proxy.http import by_h11
from proxy.http.http1 import Http1Connection
from proxy.http.http2 import Limits
from proxy.http.requests import HttpRequest
from tests.unit.grpc.http1.test_http1_fuzz import Output
from tests.unit.v2.requests.plain_host import Host

HOST = b"Host: x\r\n"
FORM = HOST + b"Content-Type: application/x-www-form-urlencoded\r\n"
CHUNKED = b"PUT /v2/keys/k HTTP/1.1\r\n" + FORM + b"Transfer-Encoding: chunked\r\n\r\n"


class Halves(Output):
    """Notes which side closes."""

    def __init__(self) -> None:
        super().__init__()
        self.halves: list[bool] = []

    def close(self, *, half: bool = False) -> None:
        self.closed = True
        self.halves.append(half)


def answered(data: bytes, ends: bool = False) -> bytes:
    def serve(request: HttpRequest) -> None:
        request.respond(200, b"ok")

    output = Output()
    http = Http1Connection(lambda path: serve, Limits(), output, "peer", 0.0)
    http.receive(data, 0.0)
    if ends:
        http.half_closed()
    return bytes(output.data)


@pytest.mark.parametrize("fields", [
    b"Content-Length: 7, 7\r\n", b"X: y\r\ncontent-length: 7,7\r\n",
    b"Content-Length: 99999999999999999999\r\n", b"X: a\x01b\r\n", b"X: \x7f\r\nContent-Length: 7\r\n",
])
def test_a_head_that_go_refuses(fields: bytes) -> None:
    assert answered(b"PUT /x HTTP/1.1\r\n" + HOST + fields + b"\r\nvalue=1").startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("fields", [
    b"", b"Content-Length: 7\r\nContent-Length: 7\r\n", b"Content-Length: 0007\r\n", b"X: 7, 7\r\n",
    b"X: a\tb\xff\r\nExpect:\r\n", b"X-Content-Length: 7, 7\r\n",
])
def test_a_head_that_go_takes(fields: bytes) -> None:
    data = answered(b"PUT /x HTTP/1.1\r\n" + HOST + fields + b"\r\nvalue=1")
    assert data.startswith(b"HTTP/1.1 200 ")


def test_a_head_that_comes_in_pieces_is_looked_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends a long one byte by byte held the front."""
    looked: list[bytes] = []
    monkeypatch.setattr(by_h11, "_is_odd_length", lambda line: looked.append(line))
    output = Output()
    serve = lambda request: request.respond(200, b"")  # noqa: E731
    http = Http1Connection(lambda path: serve, Limits(), output, "peer", 0.0)
    head = b"GET /x HTTP/1.1\r\n" + HOST + b"X: 1\r\n" * 500
    for piece in (head, *[b"y"] * 100, b": 1\r\n\r\n"):
        http.receive(piece, 0.0)
    assert bytes(output.data).startswith(b"HTTP/1.1 200 ")
    assert len(looked) < 2 * 503


def test_a_head_request_has_no_body() -> None:
    line = b"HEAD /x HTTP/1.1\r\n" + HOST
    assert answered(line + b"Content-Length: 0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    for more in (b"", b"Expect:\r\n"):
        assert answered(line + more + b"Content-Length: 2\r\n\r\nab").startswith(b"HTTP/1.1 400 ")


def test_another_version_is_refused() -> None:
    assert answered(b"GET /x HTTP/2.0\r\n" + HOST + b"\r\n").startswith(b"HTTP/1.1 505 ")
    assert answered(b"GET /x HTTP/1.2\r\n" + HOST + b"\r\n").startswith(b"HTTP/1.1 200 ")


BODIES = [
    (CHUNKED + b"zz\r\nvalue=4\r\n0\r\n\r\n", "invalid byte in chunk length"),
    (CHUNKED + b"7\r\nvalue=4XX0\r\n\r\n", "malformed chunked encoding"),
    (CHUNKED + b"7\r\nval", "unexpected EOF"),
    (CHUNKED + b"7", "unexpected EOF"),
    (b"PUT /v2/keys/k HTTP/1.1\r\n" + FORM + b"Content-Length: 7\r\n\r\nval", "unexpected EOF"),
]


@pytest.mark.parametrize(("data", "cause"), BODIES)
def test_a_form_that_nobody_can_read_is_refused_in_words_of_version_2(data: bytes, cause: str) -> None:
    host = Host()
    host.connection.receive(data, 0.0)
    host.connection.half_closed()
    head, _, body = bytes(host.output.data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nConnection: close" in head
    assert orjson.loads(body) == {
        "errorCode": 210, "message": "Invalid POST form", "cause": cause, "index": 0}
    assert host.output.closed


@pytest.mark.parametrize("rest", [b"zz\r\n", b"0\r\n" + b"a:\r\n" * 5000 + b"\r\n"], ids=["chunk", "trailer"])
def test_an_answer_to_a_body_that_nobody_can_read_is_not_lost(rest: bytes) -> None:
    """The connection was reset behind a long trailer, while its client was sending yet."""
    host = Host()
    host.output = host.connection.output = Halves()
    host.connection.receive(CHUNKED + rest, 0.0)
    assert bytes(host.output.data).startswith(b"HTTP/1.1 400 ")
    assert host.output.halves == [True]


def test_other_paths_answer_in_plain_words() -> None:
    assert answered(BODIES[0][0].replace(b"/v2/keys", b"/v2/kays")).startswith(b"HTTP/1.1 400 ")
