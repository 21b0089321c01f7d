"""Calls have a span each where that is asked for, which ends once however they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from proxy.grpc.calls import Call
from proxy.grpc.registry import Registry
from proxy.http.http2 import frames as f
from tests.unit.grpc.calls.talking import Stream, Talk, message


@dataclass
class Seen:
    """A span, and what it was told."""

    name: str
    told: list[Any] = field(default_factory=list)

    def received(self, size_bytes: int) -> None:
        self.told.append(("received", size_bytes))

    def sent(self, size_bytes: int) -> None:
        self.told.append(("sent", size_bytes))

    def end(self, status: int, message: str) -> None:
        self.told.append((status, message))


@dataclass
class Recorder:
    """Samples calls that say so."""

    spans: list[Seen] = field(default_factory=list)

    def begin(self, path: bytes, of: Callable[[bytes], bytes], peer: str) -> Seen | None:
        if of(b"traceparent") != b"yes":
            return None
        self.spans.append(Seen(path.decode()))
        return self.spans[-1]

    async def close(self) -> None: ...


def traced(timed: bool) -> tuple[Talk, Registry, Recorder, list[Call]]:
    recorder, parked = Recorder(), list[Call]()
    registry = Registry(timed=timed, tracer=recorder)
    registry.unary("/a.B/Echo", lambda call, data: call.reply(data))
    registry.unary("/a.B/Refuse", lambda call, data: call.finish(5, "no"))
    registry.unary("/a.B/Park", lambda call, data: parked.append(call))
    registry.stream("/a.B/Bidi", Stream())
    return Talk(registry), registry, recorder, parked


TIMED = pytest.mark.parametrize("timed", [False, True])


@TIMED
def test_a_span_tells_of_requests_answers_and_the_status(timed: bool) -> None:
    talk, registry, recorder, _ = traced(timed)
    for stream_id, path in ((1, "Echo"), (3, "Refuse"), (5, "None")):
        talk.headers(stream_id, path=f"/a.B/{path}", traceparent="yes")
        talk.data(stream_id, message(b"xyz"))
    assert [(span.name, span.told) for span in recorder.spans] == [
        ("/a.B/Echo", [("received", 3), ("sent", 3), (0, "")]),
        ("/a.B/Refuse", [("received", 3), (5, "no")]),
    ]
    assert bool(registry.times) is timed
    assert all(
        times.count == 1 for path, times in registry.times.items() if path.endswith(("Echo", "Refuse"))
    )


@TIMED
def test_a_span_ends_once_however_its_call_does(timed: bool) -> None:
    talk, _, recorder, parked = traced(timed)
    for stream_id in (1, 3, 5):
        talk.headers(stream_id, path="/a.B/Park", traceparent="yes")
        talk.data(stream_id, message(b"x"))
    talk.headers(7, path="/a.B/Bidi", traceparent="yes")
    parked[0].reply(b"late")
    parked[0].finish(13, "a mistake of its handler's")
    talk.server.receive(f.frame(f.RST_STREAM, 0, 3, bytes(4)), 100.0)
    talk.server.receive(f.frame(f.RST_STREAM, 0, 7, bytes(4)), 100.0)
    parked[2].expired()
    assert [span.told[-1] for span in recorder.spans] == [
        (0, ""),
        (1, "context canceled"),
        (4, "context deadline exceeded"),
        (1, "context canceled"),
    ]
    for span in recorder.spans:
        assert sum(isinstance(one[0], int) for one in span.told) == 1


def test_a_stream_that_its_client_does_not_read_ends_its_span_at_its_deadline() -> None:
    talk, _, recorder, _ = traced(False)
    talk.server.receive(f.settings_frame({f.INITIAL_WINDOW_SIZE: 0}), 100.0)
    talk.headers(1, path="/a.B/Bidi", traceparent="yes")
    bidi: Any = talk.server.streams[1]
    bidi.send(b"not taken")
    bidi.expired()
    assert recorder.spans[0].told == [("sent", 9), (4, "context deadline exceeded")]


def test_so_does_a_stream_of_answers_to_one_request() -> None:
    """The span of an Observe never ended, and was not exported."""
    talk, _, recorder, parked = traced(False)
    talk.server.receive(f.settings_frame({f.INITIAL_WINDOW_SIZE: 0}), 100.0)
    talk.headers(1, path="/a.B/Park", traceparent="yes")
    talk.data(1, message(b"xyz"))
    parked[0].send(b"not taken")
    parked[0].expired()
    assert recorder.spans[0].told == [("received", 3), ("sent", 9), (4, "context deadline exceeded")]


def test_a_call_that_is_not_sampled_is_served_as_ever() -> None:
    talk, registry, recorder, _ = traced(True)
    for stream_id, path in ((1, "Echo"), (3, "Refuse")):
        talk.headers(stream_id, path=f"/a.B/{path}", traceparent="no")
        talk.data(stream_id, message(b"x"))
    talk.headers(5, path="/a.B/Bidi")
    talk.data(5, message(b"x"))
    assert recorder.spans == []
    assert registry.times["/a.B/Echo"].count == 1
