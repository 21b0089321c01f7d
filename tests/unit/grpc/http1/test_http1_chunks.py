"""Bodies of HTTP/1.1 in small chunks, and what comes behind a request that is answered."""

from __future__ import annotations

import h11
import pytest

from proxy.grpc.registry import Registry
from proxy.http.http1 import Http1Connection
from proxy.http.http2 import Limits
from proxy.http.memory import STEP_BYTES
from proxy.http.requests import HttpRequest
from tests.unit.grpc.harness import connected, serving, wait_for
from tests.unit.grpc.http1.test_http1_fuzz import Output

HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = 10_000


class Turns(Output):
    """Others want turns."""

    wanted = 0

    def again(self) -> None:
        self.wanted += 1


def connection(output: Output, answered: list[HttpRequest]) -> Http1Connection:
    return Http1Connection(lambda path: answered.append, Limits(), output, "peer", 0.0)


def test_a_body_of_small_chunks_is_read_in_many_turns() -> None:
    """1.5 MB in chunks of two octets held the loop for as long as they took, some 10 s."""
    answered: list[HttpRequest] = []
    output = Turns()
    http = connection(output, answered)
    http.receive(HEAD + b"1\r\na\r\n" * CHUNKS + b"0\r\n\r\n", 0.0)
    read = 0
    while not answered:
        assert 0 < http.unfinished - read <= 256
        read = http.unfinished
        http.go_on()
    assert output.wanted >= CHUNKS // 256
    assert answered[0].body == b"a" * CHUNKS


def test_a_body_is_read_without_a_look_at_its_head_for_each_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece of 4 KiB, or each drip of a body, went over all fields: steps of 5 ms."""
    answered: list[HttpRequest] = []
    http = connection(Output(), answered)
    fields = b"".join(b"h%d: v\r\n" % number for number in range(900))
    http.receive(HEAD[:-2] + fields + b"\r\n", 0.0)
    looked = []
    read = h11.Request.headers  # a slot
    monkeypatch.setattr(h11.Request, "headers", property(lambda head: looked.append(1) or read.__get__(head)))
    for now in range(20):
        http.receive(b"1\r\na\r\n", float(now))
    assert looked == []
    http.receive(b"0\r\n\r\n", 20.0)
    assert [request.body for request in answered] == [b"a" * 20]


def test_a_long_trailer_is_refused_and_short_ones_cost_by_their_fields() -> None:
    """64 KB of them held the loop for 0.15 s, and nothing counted them."""
    for trailer in (b"a:\r\n" * 16_000, b"a:" + b"b" * 9000 + b"\r\n"):
        for at in (1, len(HEAD) - 2, len(HEAD) + 3):  # what is behind it comes in a read of its own
            answered: list[HttpRequest] = []
            output = Turns()
            http = connection(output, answered)
            sent = HEAD + b"0\r\n" + trailer + b"\r\n"
            http.receive(sent[:at], 0.0)
            http.receive(sent[at:], 0.0)
            assert not answered
            assert output.closed
            assert b"400 Bad Request: http: suspiciously long trailer" in output.data
    answered, output = [], Turns()
    http = connection(output, answered)
    http.receive((HEAD + b"0\r\n" + b"a:\r\n" * 900 + b"\r\n") * 8, 0.0)
    for number in range(1, 9):
        assert len(answered) == number
        answered[-1].respond(200)
        http.go_on()
    assert output.wanted >= 7


def test_what_comes_in_drips_behind_a_request_is_not_moved_for_each_of_them() -> None:
    answered: list[HttpRequest] = []
    output = Output()
    http = connection(output, answered)
    http.receive(HEAD + b"0\r\n\r\n", 0.0)
    behind = HEAD + b"5\r\nhello\r\n0\r\n\r\n"
    for at in range(len(behind)):
        http.receive(behind[at : at + 1], 1.0)
    assert http.backlog == len(behind)
    answered.pop().respond(200, b"ok", [], "text/plain")
    assert [request.body for request in answered] == [b"hello"]
    for _ in range(3000):  # joined now and then
        http.receive(b"\r\n", 1.0)
    http.receive(HEAD + b"0\r\n\r\n", 2.0)
    assert http.backlog == 6000 + len(HEAD) + 5
    answered.pop().respond(200, b"ok", [], "text/plain")


@pytest.mark.parametrize("field", [b"", b"Expect:\r\n"], ids=["plain", "by h11"])
def test_a_body_of_http_1_counts_no_more_once_its_request_is_answered(field: bytes) -> None:
    """It counted until the next second began: clients that had their answers were refused."""
    registry, pending = Registry(), list[HttpRequest]()
    registry.http("/later", pending.append)
    head = b"PUT /later HTTP/1.1\r\nHost: x\r\n" + field + b"Content-Length: 1000000\r\n\r\n"
    with serving(registry) as running, connected(running) as sock:
        memory = running.server.memory

        def answer() -> int:
            pending.pop().respond(200)
            return memory.used

        sock.sendall(head + bytes(1_000_000))
        wait_for(lambda: len(pending) == 1)
        assert running.call(lambda: memory.used) > 1_000_000 - STEP_BYTES
        assert running.call(answer) < STEP_BYTES
        wait_for(lambda: (memory.used, memory.holders) == (0, 0))


@pytest.mark.parametrize(
    "field", [b"", b"Expect:\r\nTransfer-Encoding: chunked\r\n"], ids=["plain", "by h11"])
def test_a_large_head_counts_until_its_request_is_answered(field: bytes) -> None:
    """57 kB that a client sent held 170 to 290 kB, of a wait for days, and none of it counted."""
    answered: list[HttpRequest] = []
    output = Output()
    http = connection(output, answered)
    fields = b"".join(b"h%d: %s\r\n" % (number, b"v" * 50) for number in range(990))
    http.receive(b"GET /x?wait=true HTTP/1.1\r\nHost: x\r\n" + field + fields + b"\r\n", 0.0)
    if field:
        assert 150_000 < http.unfinished + http.backlog < 250_000
        http.receive(b"2\r\nab\r\n0\r\n\r\n", 0.0)
    for _ in range(9):
        http.go_on()
    assert len(answered) == 1
    assert 150_000 < http.unfinished + http.backlog < 250_000
    answered[0].respond(200)
    assert http.unfinished == 0
