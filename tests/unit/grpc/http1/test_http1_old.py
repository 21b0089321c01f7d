"""HTTP/1.0: its version in answers, and connections that stay when they are asked to."""

from __future__ import annotations

import pytest

from cluster.faults import faults
from proxy.http.http1 import Http1Connection
from proxy.http.http2 import Limits
from proxy.http.requests import HttpRequest
from tests.unit.grpc.http1.test_http1_fuzz import Output

STAY = b"GET /whole HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"


def whole(request: HttpRequest) -> None:
    request.respond(200, b"ok", [], "text/plain")


def pieces(request: HttpRequest) -> None:
    request.start(200, [("content-type", "text/plain")])
    request.write(b"o")
    request.write(b"k")
    request.end()


def answered(data: bytes) -> tuple[bytes, bool]:
    """What a connection answers, and whether it ends then."""
    output = Output()
    http = Http1Connection(
        lambda path: pieces if path == "/pieces" else whole, Limits(max_body_bytes=10), output, "peer", 0.0)
    http.receive(data, 0.0)
    return bytes(output.data), output.closed


def test_a_connection_ends_unless_its_client_asks_for_more() -> None:
    data, closed = answered(b"GET /whole HTTP/1.0\r\n\r\n")
    assert closed
    assert data.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"onnection:" not in data
    assert data.endswith(b"\r\n\r\nok")


def test_a_connection_that_stays_answers_all_that_is_asked_on_it() -> None:
    data, closed = answered(STAY * 2 + b"GET /whole HTTP/1.1\r\nHost: x\r\n\r\n" + STAY)
    assert not closed
    assert [data.count(b"HTTP/1.0 200"), data.count(b"HTTP/1.1 200")] == [3, 1]
    assert data.count(b"Connection: keep-alive\r\n") == 3
    assert data.count(b"onnection:") == 3


def test_an_answer_in_pieces_ends_with_its_connection() -> None:
    data, closed = answered(STAY.replace(b"whole", b"pieces"))
    assert closed
    assert data.startswith(b"HTTP/1.0 200")
    assert b"onnection:" not in data
    assert data.endswith(b"\r\n\r\nok")


def test_an_answer_shorter_than_it_says_ends_the_connection() -> None:
    asked: list[str] = []

    def short(request: HttpRequest) -> None:
        asked.append(request.path)
        request.start(200, [("content-length", "3")])
        request.write(b"ok")
        request.end()

    output = Output()
    Http1Connection(lambda path: short, Limits(), output, "peer", 0.0).receive(STAY * 2, 0.0)
    assert output.closed
    assert asked == ["/whole"]
    assert len(faults.take()) == 1


@pytest.mark.parametrize("body", [b"Content-Length: 11\r\n\r\n12345678901", b"Expect: what\r\n\r\n"])
def test_a_refusal_ends_the_connection_and_says_nothing_else(body: bytes) -> None:
    data, closed = answered(STAY[:-2] + body)
    assert closed
    assert data.startswith(b"HTTP/1.0 4")
    assert b"onnection:" not in data
