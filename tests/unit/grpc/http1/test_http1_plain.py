"""Plain HTTP/1.1 requests, which h11 does not see: what their clients get is what it would have said."""

from __future__ import annotations

import random

import pytest

from cluster.faults import faults
from proxy.http import http1
from proxy.http.http1 import Http1Connection
from proxy.http.http1_plain import take
from proxy.http.http2 import Limits
from proxy.http.requests import HttpHandler, HttpRequest
from proxy.listener.filter import decoded
from tests.unit.grpc.http1.test_http1_fuzz import Output

GET = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n"
PUT = b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
KEPT = b"POST /pieces HTTP/1.1\r\nHost:x\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n"
SEEDS = (
    GET, PUT, KEPT, GET.replace(b"GET", b"HEAD"),
    KEPT.replace(b"POST", b"HEAD"), GET.replace(b"/a", b"/none"),
    GET.replace(b"/a", b"/empty"), GET.replace(b"/a", b"/later"), PUT.replace(b"hello", b"GET /"),
    b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
)  # fmt: skip


def pieces(request: HttpRequest) -> None:
    request.start(200)
    request.write(b"one")
    request.write(request.query.encode() + b"two")
    request.end()


def empty(request: HttpRequest) -> None:
    request.start(204)
    request.end()


def answers(data: list[bytes]) -> tuple[bytes, bool, list[HttpRequest]]:
    """What a client gets that sends these pieces, and what waits for its answer."""
    output, later = Output(), list[HttpRequest]()
    handlers: dict[str, HttpHandler] = {
        "/a": lambda request: request.respond(200, request.method.encode() + request.body, [("X-B", "c")]),
        "/pieces": pieces, "/empty": empty, "/later": later.append}  # fmt: skip
    connection = Http1Connection(handlers.get, Limits(), output, "p", 0.0)
    for piece in data:
        connection.receive(piece, 0.0)
    for request in later:
        request.respond(200, b"late")
    return output.data, output.closed, later


def lines(data: bytes) -> list[bytes]:
    """Lines without the order of fields, the case of their names, and the date."""
    found = [line for line in data.split(b"\r\n") if not line.lower().startswith(b"date:")]
    return sorted(line.lower() if b": " in line else line for line in found)


@pytest.mark.parametrize("seed", range(200))
def test_what_clients_get_is_what_h11_would_have_said(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    data = bytearray(b"".join(chance.choices(SEEDS, k=chance.randint(1, 4))))
    if seed % 2:
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.choice(b"\r\n :/\0\x7faG1")
    cuts = sorted(chance.sample(range(len(data)), min(len(data), chance.randint(0, 3))))
    sent = [bytes(data[a:b]) for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]
    found, closed, _ = answers(sent)
    monkeypatch.setattr(http1, "take", lambda *args: None)
    wanted, wanted_closed, _ = answers(sent)
    assert (lines(found), closed) == (lines(wanted), wanted_closed), sent


def test_a_head_that_is_cut_anywhere_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """h11, given a beginning, would take with it all that comes behind: many requests of 100 us each."""
    def given(self: Http1Connection, data: bytes) -> None:
        raise AssertionError(f"{data!r} goes to h11")

    monkeypatch.setattr(Http1Connection, "_give", given)
    for cut in range(1, len(GET)):
        data, closed, _ = answers([GET * 3 + GET[:cut], GET[cut:] + GET * 5])
        assert (data.count(b"HTTP/1.1 200"), closed) == (9, False)


@pytest.mark.parametrize("beginning", [GET[:-2], GET[:2], b"GET /" + b"a" * 2000])
def test_a_client_that_ends_its_side_within_a_head_has_no_answer(beginning: bytes) -> None:
    data, closed, _ = answers([GET + beginning, b""])
    assert (data.count(b"HTTP/1.1 200"), closed) == (1, True)


@pytest.mark.parametrize(
    "odd", [b"BREW /a HTTP/1.1\r\nHost: x\r\n\r\n", b"\x01GET /", b"GET\t/a", b"get /a\r\n\r\n"]
)
def test_what_is_no_beginning_of_a_plain_request_is_looked_at_by_h11(
    odd: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    give = Http1Connection._give

    def given(self: Http1Connection, data: bytes) -> None:
        seen.append(data)
        give(self, data)

    monkeypatch.setattr(Http1Connection, "_give", given)
    answers([GET + odd])
    assert seen == [odd]


@pytest.mark.parametrize("request_", [GET, PUT, KEPT])
def test_a_plain_request_is_taken_with_its_body_and_no_more(request_: bytes) -> None:
    plain = take(request_ + b"rest", 10_000, 10_000)
    assert plain is not None
    assert plain.end == len(request_)
    assert take(request_[:-1], 10_000, 10_000) is None
    behind = take(b"before" + request_ + b"rest", len(request_), 10_000, len(b"before"))
    assert behind == plain._replace(end=plain.end + len(b"before"))


@pytest.mark.parametrize("field", [
    b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Upgrade: h2c", b"Connection: close",
    b"Connection: upgrade",
    b"Host: y", b"Content-Length: 1x", b"Content-Length: -1", b" Folded: x", b"Bad Name: x",
    b"X: \0", b"TE: trailers",
])  # fmt: skip
def test_what_is_not_plain_is_left_to_h11(field: bytes) -> None:
    assert take(GET[:-2] + field + b"\r\n\r\n", 10_000, 10_000) is None


@pytest.mark.parametrize("request_", [
    b"GET /a HTTP/1.0\r\nHost: x\r\n\r\n", b"GET /a HTTP/1.1\r\n\r\n",
    b"GET http://x/a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"get /a HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /a HTTP/1.1\nHost: x\n\n",
])  # fmt: skip
def test_an_odd_request_line_is_left_to_h11(request_: bytes) -> None:
    assert take(request_, 10_000, 10_000) is None


SPELT = "PUT /\u65e5?value=\u672c HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n\u00e9".encode()


@pytest.mark.parametrize("cut", [0, 1, 4, 5, 6, 16, 20, len(SPELT) - 1])
@pytest.mark.parametrize("field", [b"", b"Expect: 100-continue\r\n"])
def test_a_key_may_be_spelt_as_it_is(cut: int, field: bytes) -> None:
    """As curl sends what is typed. The head comes in two pieces, and h11 looks at some."""
    asked = list[tuple[str, str | None, bytes]]()

    def handler(request: HttpRequest) -> None:
        asked.append((request.method, decoded(request.path), request.body))
        asked.append(("", decoded(request.query), b""))
        request.respond(200)

    sent = SPELT.replace(b"Host", field + b"Host")
    output = Output()
    connection = Http1Connection(lambda path: handler, Limits(), output, "p", 0.0)
    for piece in (sent[:cut], sent[cut:]):
        if piece:
            connection.receive(piece, 0.0)
    assert asked == [("PUT", "/\u65e5", "\u00e9".encode()), ("", "value=\u672c", b"")]
    assert b"HTTP/1.1 200 " in output.data


def test_a_method_is_of_ascii() -> None:
    for request in (b"G\xffT", b"GET\xff"):
        assert answers([GET.replace(b"GET", request)])[0].startswith(b"HTTP/1.1 400 ")


def test_large_heads_and_bodies_are_left_to_h11() -> None:
    assert take(GET, len(GET) - 1, 10) is None
    assert take(PUT, 1000, 4) is None


def test_a_field_with_a_line_end_in_it_is_never_sent() -> None:
    output = Output()
    connection = Http1Connection(
        lambda path: lambda request: request.respond(200, b"", [("X", "a\r\nSet-Cookie: b")]),
        Limits(),
        output,
        "p",
        0.0,
    )
    connection.receive(GET, 0.0)
    assert [type(met[1]) for met in faults.take()] == [ValueError]
    assert output.data.startswith(b"HTTP/1.1 500 ")
    assert b"Set-Cookie" not in output.data


def test_a_field_that_cannot_be_written_is_answered_with_a_fault_and_no_answer_is_left_out() -> None:
    output = Output()
    handlers: dict[str, HttpHandler] = {
        "/a": lambda request: request.respond(200, b"", [("X", "\u0100")]),
        "/b": lambda request: request.respond(200, b"next")}  # fmt: skip
    connection = Http1Connection(handlers.get, Limits(), output, "p", 0.0)
    connection.receive(GET + GET.replace(b"/a", b"/b"), 0.0)
    assert [type(met[1]) for met in faults.take()] == [UnicodeEncodeError]
    first, _, second = output.data.partition(b"HTTP/1.1 200 ")
    assert first.startswith(b"HTTP/1.1 500 ")
    assert second.endswith(b"next")


def test_connect_is_refused_whatever_a_handler_would_say() -> None:
    """Its handler's answer had no place in HTTP/1.1: where that came from a thread, the process ended."""
    output = Output()
    handlers: dict[str, HttpHandler] = {"/metrics": lambda request: request.respond(200, b"x")}
    connection = Http1Connection(handlers.get, Limits(), output, "p", 0.0)
    connection.receive(b"CONNECT /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 0.0)
    assert output.data.startswith(b"HTTP/1.1 405 ")
    assert output.closed


def test_an_answer_that_http_has_no_place_for_ends_its_connection_alone() -> None:
    output, later = Output(), list[HttpRequest]()
    connection = Http1Connection(lambda path: later.append, Limits(), output, "p", 0.0)
    connection.receive(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 0.0)
    later[0].start(200, [("content-length", "1")])
    later[0].write(b"two")
    assert output.closed
    assert {type(met[1]) for met in faults.take()} == {RuntimeError}
    later[0].end()
    faults.take()


def test_who_has_ended_his_side_is_answered_and_his_connection_ends() -> None:
    output, later = Output(), list[HttpRequest]()
    connection = Http1Connection(lambda path: later.append, Limits(), output, "p", 0.0)
    connection.receive(GET, 0.0)
    connection.receive(b"", 0.0)
    later[0].respond(200, b"late")
    assert output.data.endswith(b"late")
    assert output.closed


@pytest.mark.parametrize(("target", "host", "path"), [
    ("/a", "x", "/a"), ("http://y/a", "y", "/a"), ("http://y:1?b", "y:1", "/"),
    ("https://me@y/a", "y", "/a"), ("HTTP://y/a", "y", "/a"), ("http:///a", "x", "/a")])
def test_the_host_of_an_absolute_target_counts(target: str, host: str, path: str) -> None:
    """RFC 9112 section 3.2.2: the whitelist of hosts would be passed by."""
    output, asked = Output(), list[HttpRequest]()
    connection = Http1Connection(lambda path: asked.append, Limits(), output, "p", 0.0)
    connection.receive(f"GET {target} HTTP/1.1\r\nHost: x\r\nExpect: \r\n\r\n".encode(), 0.0)
    assert [(request.headers["host"], request.path) for request in asked] == [(host, path)]


@pytest.mark.parametrize("line", [
    "GET * HTTP/1.1", "GET version HTTP/1.1", "GET version HTTP/1.0", "HEAD version HTTP/1.1",
    "GET /a b HTTP/1.1", "GET /a HTTP/x"])
def test_a_line_without_a_path_is_refused_in_words(line: str) -> None:
    output = Output()
    connection = Http1Connection(lambda path: HttpRequest.end, Limits(), output, "p", 0.0)
    connection.receive(f"{line}\r\nHost: x\r\n\r\n".encode(), 0.0)
    assert output.data.startswith(b"HTTP/1.0 400 " if line.endswith("1.0") else b"HTTP/1.1 400 ")
    assert output.data.endswith(b"\r\n\r\n") == line.startswith("HEAD")
    assert b"bytearray" not in output.data
    assert output.closed
    assert not faults.take()
