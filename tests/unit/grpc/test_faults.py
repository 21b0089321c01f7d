"""A mistake in a handler ends the call that met it; what a client sends never ends more than its
connection."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

import hpack
import pytest

from cluster.faults import faults
from proxy.grpc import wire
from proxy.grpc.registry import Registry
from proxy.http.http1 import Http1Connection
from proxy.http.http2 import PREFACE, Limits
from proxy.http.http2 import frames as f
from proxy.http.requests import HttpRequest
from tests.tries import best_of_three, within
from tests.unit.grpc.calls.talking import Talk, message
from tests.unit.grpc.harness import serving
from tests.unit.grpc.http1.test_http1_fuzz import Output


def mistaken(*args: Any) -> None:
    raise KeyError("a mistake")


class Mistaken:
    """A stream method with a mistake in one of its callbacks."""

    def __init__(self, where: str) -> None:
        self.heard: list[str] = []
        self._where = where

    def _hear(self, what: str) -> None:
        self.heard.append(what)
        if what == self._where:
            mistaken()

    def opened(self, call: Any) -> None:
        self._hear("opened")

    def message(self, call: Any, data: bytes) -> None:
        self._hear("message")

    def half_closed(self, call: Any) -> None:
        self._hear("half_closed")

    def cancelled(self, call: Any) -> None:
        self._hear("cancelled")


def taken() -> list[str]:
    return [where for where, _ in faults.take()]


def test_a_mistake_in_a_unary_handler_ends_that_call_with_internal() -> None:
    registry = Registry()
    registry.unary("/a.B/Mistaken", mistaken)
    registry.unary("/a.B/Echo", lambda call, data: call.reply(data))
    talk = Talk(registry=registry)
    talk.headers(1, path="/a.B/Mistaken")
    talk.data(1, message(b"x"))
    assert talk.status(1) == (wire.INTERNAL, "etcdserver: internal error")
    talk.headers(3, path="/a.B/Mistaken")
    talk.data(3, message(b"x")[:3], end=False)
    talk.data(3, message(b"x")[3:])
    assert talk.status(3)[0] == wire.INTERNAL
    talk.headers(5)
    talk.data(5, message(b"y"))
    assert talk.answer(5)[1] == message(b"y")
    assert taken() == ["serving /a.B/Mistaken"]


@pytest.mark.parametrize("where", ["opened", "message", "half_closed"])
def test_a_mistake_in_a_stream_handler_ends_that_call_and_the_handler_hears_so(where: str) -> None:
    handler = Mistaken(where)
    registry = Registry()
    registry.stream("/a.B/Mistaken", handler)
    talk = Talk(registry=registry)
    talk.headers(1, path="/a.B/Mistaken")
    talk.data(1, message(b"x"))
    assert talk.status(1)[0] == wire.INTERNAL
    assert handler.heard[-1] == "cancelled"
    assert not talk.server.finished
    assert taken() == ["serving /a.B/Mistaken"]


def test_a_mistake_in_ending_a_call_is_counted_and_the_connection_goes_on() -> None:
    handler = Mistaken("cancelled")
    registry = Registry()
    registry.stream("/a.B/Mistaken", handler)
    talk = Talk(registry=registry)
    talk.headers(1, path="/a.B/Mistaken")
    talk.server.receive(f.rst_stream(1, f.ErrorCode.CANCEL), 100.0)
    assert not talk.server.finished
    assert taken() == ["ending /a.B/Mistaken"]


def test_a_mistake_in_going_on_behind_a_full_window_ends_that_call_alone() -> None:
    """It went up through the one call that writes for all connections: the others' answers stayed here."""
    def opened(call: Any) -> None:
        call.on_drain = mistaken
        call.send(b"x" * 100_000)

    handler = Mistaken("")
    handler.opened = opened  # type: ignore[method-assign]
    registry = Registry()
    registry.stream("/a.B/Mistaken", handler)
    talk = Talk(registry=registry)
    talk.headers(1, path="/a.B/Mistaken")
    talk.take()
    talk.server.receive(f.window_update(1, 1 << 20) + f.window_update(0, 1 << 20), 100.0)
    talk.take()
    assert handler.heard == ["cancelled"]
    assert not talk.server.finished
    assert taken() == ["serving /a.B/Mistaken"]


def test_a_broken_invariant_is_not_a_requests() -> None:
    def broken(*args: Any) -> None:
        raise AssertionError("I7")

    registry = Registry()
    registry.unary("/a.B/Broken", broken)
    talk = Talk(registry=registry)
    talk.headers(1, path="/a.B/Broken")
    with pytest.raises(AssertionError, match="I7"):
        talk.data(1, message(b"x"))


def test_a_mistake_in_an_http_handler_is_answered_500_on_both_versions() -> None:
    def halfway(request: HttpRequest) -> None:
        request.start(200)
        mistaken()

    output = Output()
    connection = Http1Connection({"/a": mistaken, "/half": halfway}.get, Limits(), output, "peer", 0.0)
    connection.receive(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", 0.0)
    assert output.data.startswith(b"HTTP/1.1 500 ")
    connection.receive(b"GET /half HTTP/1.1\r\nHost: x\r\n\r\n", 0.0)
    assert b"HTTP/1.1 200 " in output.data
    assert not output.closed
    registry = Registry()
    registry.http("/a", mistaken)
    talk = Talk(registry=registry)
    talk.headers(1, end=True, method="GET", path="/a", content_type=None, te=None)
    assert (b":status", b"500") in [
        (name, value) for frame in talk.take() if frame.kind == f.HEADERS
        for name, value in talk.decoder.decode(frame.payload, raw=True)]
    assert taken() == ["serving /a", "serving /half"]


def test_a_mistake_in_reading_ends_that_connection_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    registry.http("/ok", lambda request: request.respond(200, b"fine"))
    monkeypatch.setattr(registry, "open", mistaken)
    block = hpack.Encoder().encode(
        [(":method", "POST"), (":scheme", "http"), (":path", "/a"), (":authority", "x")]
    )
    with (
        serving(registry) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=10) as other,
        socket.create_connection(("127.0.0.1", running.port), timeout=10) as client,
    ):
        client.sendall(PREFACE + f.settings_frame({}) + f.header_frames(1, block, True))
        with contextlib.suppress(ConnectionResetError):
            while client.recv(4096):
                pass
        other.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
        assert other.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert taken() == ["reading a client's connection"]


@pytest.mark.parametrize("digits", [19, 20, 5000])
def test_a_content_length_that_nobody_can_mean_ends_its_stream(digits: int) -> None:
    """Python refuses to read a number of more than 4,300 digits, which ended the front."""
    talk = Talk()
    talk.headers(1, content_length="9" * digits)
    talk.data(1, message(b"x"))
    assert [frame.kind for frame in talk.take()] == [f.RST_STREAM]
    talk.headers(3)
    talk.data(3, message(b"y"))
    assert talk.answer(3)[1] == message(b"y")


@best_of_three
def test_a_long_path_is_refused_at_once() -> None:
    """The message repeats it, percent-encoded, and hpack's Huffman encoding takes the square of its length:
    9.3 s."""
    talk = Talk(max_header_list_bytes=1 << 20)
    began = time.process_time()
    talk.headers(1, path=b"/" + b"\xff" * 12_000 + b"/x")
    status, text = talk.status(1)
    took_s = time.process_time() - began
    assert status == wire.UNIMPLEMENTED
    assert text.startswith("unknown service %EF%BF%BD")
    assert len(text) <= 9 * wire.MAX_MESSAGE_CHARS
    within(took_s, 1.0)
