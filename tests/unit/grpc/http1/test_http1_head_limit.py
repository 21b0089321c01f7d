"""A request of HTTP/1.1 that does not end: its head has a limit in time, however its octets trickle."""

from __future__ import annotations

import pytest

from proxy.http.http1 import Http1Connection
from proxy.http.http2 import Limits
from proxy.http.requests import HttpRequest
from tests.unit.grpc.http1.test_http1_fuzz import Output

HEAD = b"GET /x HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 200 + b"\r\n\r\n"


def serve(request: HttpRequest) -> None:
    request.respond(200, b"ok", [], "text/plain")


def connection(output: Output) -> Http1Connection:
    return Http1Connection(lambda path: serve, Limits(head_timeout_s=20), output, "peer", 0.0)


@pytest.mark.parametrize("before", [b"", HEAD, HEAD * 3])
@pytest.mark.parametrize("field", [b"", b"Transfer-Encoding: chunked\r\n"])
def test_a_head_has_a_time_limit_however_it_trickles(before: bytes, field: bytes) -> None:
    output = Output()
    http = connection(output)
    http.receive(before + b"POST /x HTTP/1.1\r\n" + field, 0.5)
    for second in range(1, 21):
        http.receive(b"a", float(second))
        http.tick(float(second))
        assert not output.closed, second
    http.tick(22.0)
    assert output.closed


def test_heads_that_end_in_time_may_be_halves_whenever_they_are_looked_at() -> None:
    output = Output()
    http = connection(output)
    http.receive(HEAD[:40], 0.0)
    for second in range(1, 100):
        http.tick(float(second))
        http.go_on()  # a turn of the loop begins
        http.receive(HEAD[40:] + HEAD[:40], second + 0.5)
        assert not output.closed, second
    assert output.data.count(b"HTTP/1.1 200") == 99


def test_a_body_may_take_longer_than_a_head() -> None:
    output = Output()
    http = connection(output)
    http.receive(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\n", 0.0)
    for second in range(1, 61):
        http.tick(float(second))
        http.receive(b"a", second + 0.5)
        assert not output.closed, second
    assert output.data.count(b"HTTP/1.1 200") == 1


def test_an_idle_connection_is_no_slow_one() -> None:
    output = Output()
    http = connection(output)
    http.receive(HEAD, 0.0)
    for second in range(1, 60):
        http.tick(float(second))
    assert not output.closed


@pytest.mark.parametrize("field", [b"", b"Expect:\r\n"], ids=["plain", "by h11"])
def test_a_connection_is_idle_since_its_last_answer(field: bytes) -> None:
    """After a wait of minutes it closed within a second, as its client sent the next request."""
    output, asked = Output(), list[HttpRequest]()
    http = Http1Connection(lambda path: asked.append, Limits(http1_idle_timeout_s=300), output, "peer", 0.0)
    http.receive(b"GET /x HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n", 0.0)
    http.tick(500.0)
    asked[0].respond(200, b"ok")
    http.tick(800.0)
    assert not output.closed
    http.tick(801.0)
    assert output.closed


SMALL = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"  # h11 reads it


@pytest.mark.parametrize("before", [b"", SMALL])
@pytest.mark.parametrize("fields", [b"a: b\r\n" * 40_000, b"a: b\r\n" * 1001, b"a: %b\r\n" % (b"b" * 70_000)])
def test_a_head_of_too_many_fields_is_refused_before_they_are_read(before: bytes, fields: bytes) -> None:
    """One read may bring 256 KiB of a head: 60,000 fields held the loop for a second."""
    output = Output()
    http = connection(output)
    http.receive(before + b"GET /x HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n", 0.0)
    assert output.data.count(b"HTTP/1.1 200") == (1 if before else 0)
    assert output.data.count(b"HTTP/1.1 431") == 1
    assert output.closed


def test_a_head_of_many_fields_within_its_size_is_read() -> None:
    output = Output()
    http = connection(output)
    http.receive(b"GET /x HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 900 + b"Expect: 100-continue\r\n\r\n", 0.0)
    assert output.data.count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize(("field", "asked"), [
    (b"", 0), (b"Content-Length: 0\r\n", 0), (b"Content-Length: 1\r\n", 1),
    (b"Transfer-Encoding: chunked\r\n", 1)])
def test_a_body_that_there_is_none_of_is_not_asked_for(field: bytes, asked: int) -> None:
    """A client that reads one answer took "100 Continue" for it."""
    output = Output()
    http = connection(output)
    http.receive(b"GET /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n" + field + b"\r\n", 0.0)
    assert (output.data.count(b"HTTP/1.1 100"), output.data.count(b"HTTP/1.1 200")) == (asked, 1 - asked)


def test_a_large_head_that_comes_in_pieces_is_read_to_its_end() -> None:
    """Nothing was read on behind its first 256 KiB, though no request waited."""
    output = Output()
    http = Http1Connection(lambda path: serve, Limits(max_http1_header_bytes=1 << 19), output, "peer", 0.0)
    head = HEAD.replace(b"y", b"y" * 2250)
    for at in range(0, len(head), 50_000):
        assert not http.full
        http.receive(head[at : at + 50_000], 0.0)
    assert output.data.count(b"HTTP/1.1 200") == 1
