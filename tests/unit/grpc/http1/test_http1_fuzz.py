"""HTTP/1.1 under mutated requests: nothing is raised, and what is said begins like an answer."""

from __future__ import annotations

import random

import pytest

from proxy.http.http1 import Http1Connection
from proxy.http.http2 import Limits
from proxy.http.requests import HttpHandler, HttpRequest

SEED_REQUESTS = (
    b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /a HTTP/1.0\r\n\r\n",
    b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST /later HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    b"3\r\nabc\r\n0\r\nT: 1\r\n\r\n",
    b"GET /pieces HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET http://x/a HTTP/1.1\r\nHost: x\r\n\r\n",
)


class Output:
    crowded = False

    def __init__(self) -> None:
        self.data = b""
        self.writes = 0
        self.closed = False

    def write(self, data: bytes) -> None:
        self.data += data
        self.writes += 1

    write_now = write

    def close(self, *, half: bool = False) -> None:
        self.closed = True

    def unsent_bytes(self) -> int:
        return 0

    def again(self) -> None:
        """Nobody else wants a turn here, and no test sends so many requests."""
        raise AssertionError("more requests than a turn has")

    def turned_away(self) -> None:
        pass

    def later(self) -> bool:
        return False

    def recount(self) -> None:
        pass


def talk(data: bytes, rng: random.Random) -> Output:
    output = Output()
    later: list[HttpRequest] = []

    def pieces(request: HttpRequest) -> None:
        request.start(200)
        request.write(b"one")
        request.write(b"two")
        request.end()

    handlers: dict[str, HttpHandler] = {
        "/a": lambda request: request.respond(200, request.body),
        "/later": later.append,
        "/pieces": pieces,
    }
    connection = Http1Connection(
        handlers.get, Limits(max_body_bytes=1000, max_http1_header_bytes=2000), output, "peer", 0.0
    )
    pos = 0
    while pos < len(data) and not output.closed:
        step = rng.choice((1, 7, 50, len(data)))
        connection.receive(data[pos : pos + step], 0.0)
        pos += step
        if later and rng.random() < 0.5:
            later.pop(0).respond(200, b"late")
    while later:
        later.pop(0).respond(200, b"late")
    connection.drain()
    if not output.closed:
        connection.receive(b"", 0.0)
    connection.lost()
    assert output.closed
    assert not output.data or output.data.startswith((b"HTTP/1.1 ", b"HTTP/1.0 "))
    return output


@pytest.mark.parametrize("request_bytes", SEED_REQUESTS)
def test_each_correct_request_is_answered(request_bytes: bytes) -> None:
    version = b"HTTP/1.0 " if b"HTTP/1.0\r\n" in request_bytes else b"HTTP/1.1 "
    assert talk(request_bytes, random.Random(1)).data.count(version) >= 1
    assert b" 400 " not in talk(request_bytes, random.Random(1)).data


@pytest.mark.parametrize("chunk", range(4))
def test_mutated_requests(chunk: int) -> None:
    for seed in range(chunk * 150, chunk * 150 + 150):
        rng = random.Random(seed)
        data = bytearray(b"".join(rng.choice(SEED_REQUESTS) for _ in range(rng.randrange(1, 5))))
        for _ in range(rng.randrange(6)):
            at = rng.randrange(len(data))
            if rng.random() < 0.5:
                data[at] = rng.choice(b"\0\r\n :,;" + bytes((rng.randrange(256),)))
            else:
                data[at:at] = data[rng.randrange(len(data)) :][: rng.randrange(40)]
        talk(bytes(data), rng)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("body", [b"", b"whole"])
def test_head_and_body_of_an_answer_leave_together(method: str, body: bytes) -> None:
    output = Output()
    connection = Http1Connection({"/a": lambda r: r.respond(200, body)}.get, Limits(), output, "peer", 0.0)
    request = b"%s /a HTTP/1.1\r\nHost: x\r\n\r\n" % method.encode()
    for answers in (1, 2):
        connection.receive(request, 0.0)
        assert output.writes == answers
    assert output.data.count(b"\r\n\r\n" + (body if method == "GET" else b"")) == 2
    connection.receive(b"nonsense\r\n\r\n", 0.0)
    assert output.writes == 3
    assert output.data.endswith(b"\n")


def test_the_head_of_an_answer_in_pieces_does_not_wait_for_them() -> None:
    output = Output()
    later: list[HttpRequest] = []

    def begin(request: HttpRequest) -> None:
        request.start(200)
        later.append(request)

    Http1Connection({"/a": begin}.get, Limits(), output, "peer", 0.0).receive(
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", 0.0
    )
    assert output.data.endswith(b"\r\n\r\n")
    later[0].write(b"piece")
    assert b"piece" in output.data


@pytest.mark.parametrize("behind", [b"x", b"\0\r\n\r\n", b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", b"x" * 3000])
@pytest.mark.parametrize("head", [b"Connection: close\r\n", b"", b"Upgrade: h2c\r\n"])
def test_what_follows_a_request_does_not_take_its_answer(head: bytes, behind: bytes) -> None:
    """Not even what must not follow, since the request was to be the last one."""
    output, later = Output(), list[HttpRequest]()
    find = {"/later": later.append, "/a": lambda request: request.respond(200)}.get
    connection = Http1Connection(find, Limits(), output, "peer", 0.0)
    request = b"POST /later HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n%b\r\n1" % head
    connection.receive(request + behind, 0.0)
    connection.receive(behind, 0.0)
    assert output.data == b""
    later[0].respond(200, b"late")
    assert output.data.startswith(b"HTTP/1.1 200 ")
    assert output.closed or b"close" not in head


def test_a_request_for_no_body_that_cannot_be_read_gets_none() -> None:
    output = Output()
    connection = Http1Connection(lambda path: None, Limits(), output, "peer", 0.0)
    connection.receive(b"HEAD /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxPO", 0.0)
    assert output.data.startswith(b"HTTP/1.1 400 ")
    assert output.data.endswith(b"\r\n\r\n")
    assert output.closed
