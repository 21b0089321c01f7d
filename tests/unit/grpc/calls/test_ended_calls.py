"""Deadlines of calls, clients that go away, and answers that nobody takes."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.errors import CONTEXT_CANCELED, CONTEXT_DEADLINE_EXCEEDED, ErrorKind
from proxy.grpc.kinds import ASKED_BYTES
from proxy.grpc.registry import Registry
from proxy.http.http2 import frames as f
from proxy.http.http2.stream import Stream
from proxy.http.memory import STREAM_BYTES, Memory
from proxy.listener.connection import ClientConnection
from proxy.routing.waiting import why_ended
from tests.unit.grpc.calls.talking import REQUEST, Talk, message
from tests.unit.http2.client import Frame

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


@pytest.mark.parametrize("found_s", [0.0, 100.0])  # streams look at once, the others in a sweep
@pytest.mark.parametrize(("timeout", "gone_at", "why"), [
    ("1S", 100.3, CONTEXT_CANCELED), ("1S", 100.99, CONTEXT_DEADLINE_EXCEEDED),
    ("124S", 222.5, CONTEXT_CANCELED), ("124S", 223.3, CONTEXT_DEADLINE_EXCEEDED)])  # fmt: skip
def test_who_goes_long_before_a_deadline_has_not_been_ended_by_it(
    talk: Talk, timeout: str, gone_at: float, why: ErrorKind, found_s: float
) -> None:
    """A client's own clock ends a call a little before the server's does. gRPC's C core says 124 seconds for
    123.3."""
    talk.headers(1, path="/a.B/Park", grpc_timeout=timeout)
    talk.data(1, message(b"x"))
    talk.server.receive(f.rst_stream(1, 8), gone_at)
    assert why_ended(talk.parked[0], gone_at + found_s) is why


def test_a_connection_that_its_client_ends_at_a_deadline_counts_by_that(talk: Talk) -> None:
    """It was taken for one that had ended as its last bytes came."""
    talk.headers(1, path="/a.B/Park", grpc_timeout="1S")
    talk.data(1, message(b"x"))
    server: Any = SimpleNamespace(loop=SimpleNamespace(time=lambda: 100.99), gone=lambda front: None)
    front = ClientConnection(server, Registry())
    front.http2 = talk.server
    front.connection_lost(None)
    assert why_ended(talk.parked[0], 100.99) is CONTEXT_DEADLINE_EXCEEDED


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


def many_streams(talk: Talk, count: int, **fields: str) -> None:
    for number in range(count):
        talk.headers(2 * number + 3, path="/a.B/Bidi", **fields)
    talk.take()
    talk.stream.heard.clear()


def test_very_many_calls_that_end_at_one_deadline_end_in_turns(talk: Talk) -> None:
    """40,000 of one connection ended in one turn of the loop, 0.35 s."""
    talk.headers(1, path="/a.B/Bidi", grpc_timeout="3S")
    many_streams(talk, 201, grpc_timeout="1S")
    heard = []
    for now in (102, 102.01):
        talk.deadlines.expire(now)
        heard.append(len(talk.stream.heard))
        assert talk.armed[-1] == now  # the next turn
    [left] = [call for call in talk.stream.calls[1:] if not call.closed]
    left.finish()  # answered meanwhile
    talk.deadlines.expire(102.02)
    assert (heard, len(talk.stream.heard), talk.armed[-1]) == ([100, 200], 200, pytest.approx(103, abs=0.011))
    assert (list(talk.server.streams), len(talk.deadlines)) == ([1], 1)


@pytest.mark.parametrize("how", ["lost", "breach"])
def test_very_many_calls_of_a_connection_that_ends_end_in_turns(how: str) -> None:
    """Each counts until it has ended. 40,000 ended in one turn of the loop, 0.1 s."""
    memory = Memory(1 << 30)
    talk = Talk(memory=memory)
    many_streams(talk, 250)
    heard = []
    if how == "breach":
        talk.server.receive(f.frame(f.PING, 0, 0, b""), 100.0)
        heard.append((len(talk.stream.heard), memory.used // STREAM_BYTES))
        assert [frame.kind for frame in talk.take()] == [f.GOAWAY]
    while talk.server.streams:
        talk.server.lost()
        heard.append((len(talk.stream.heard), memory.used // STREAM_BYTES))
        for call in talk.stream.calls:
            call.send(b"nobody reads it")
        assert f.DATA not in [frame.kind for frame in talk.take()]
    assert heard == [(100, 150), (200, 50), (250, 0)]


def test_the_last_of_very_many_calls_end_as_fast_as_the_first() -> None:
    """Each turn passed over all that had ended: the last of 100,000 took three times as long."""
    talk = Talk()
    talk.headers(1, path="/a.B/Bidi")
    [call] = talk.server.streams.values()
    talk.server.streams.update(
        (number, Stream(talk.server, number, call.headers)) for number in range(100_000))
    turns = []
    while talk.server.streams:
        began = time.thread_time()
        talk.server.lost()
        turns.append(time.thread_time() - began)
    assert len(turns) == 1000
    assert min(turns[-50:]) < 2 * min(turns[:50])


def test_a_stream_that_asks_on_and_takes_no_answer_is_reset() -> None:
    talk = Talk(max_unsent_bytes=10_000)
    talk.server.receive(f.settings_frame({f.INITIAL_WINDOW_SIZE: 0}), 100.0)
    talk.headers(1, path="/a.B/Bidi")
    talk.stream.calls[0].send(b"x" * 9_000)
    talk.data(1, message(b"still fine"), end=False)
    talk.stream.calls[0].send(b"x" * 9_000)
    for _ in range(ASKED_BYTES // len(message(b"on and on"))):
        talk.data(1, message(b"on and on"), end=False)
    assert talk.stream.heard[:3] == ["opened", b"still fine", b"on and on"]
    assert talk.stream.heard[-1] == "cancelled"
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
