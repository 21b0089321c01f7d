"""Calls are timed once each where that is asked for, and clients are counted by version."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.grpc.calls import Call
from proxy.grpc.registry import Registry
from proxy.http.http2 import frames as f
from tests.unit.grpc.calls.talking import Stream, Talk, message


def timed() -> tuple[Talk, Registry, list[Call]]:
    registry, parked = Registry(timed=True), list[Call]()
    registry.unary("/a.B/Echo", lambda call, data: call.reply(data))
    registry.unary("/a.B/Refuse", lambda call, data: call.finish(5, "no"))
    registry.unary("/a.B/Park", lambda call, data: parked.append(call))
    registry.stream("/a.B/Bidi", Stream())
    return Talk(registry), registry, parked


def test_every_call_counts_once_however_it_ends() -> None:
    talk, registry, parked = timed()
    for stream_id, path in ((1, "Echo"), (3, "Refuse"), (5, "Park"), (7, "Park")):
        talk.headers(stream_id, path=f"/a.B/{path}")
        talk.data(stream_id, message(b"x"))
    talk.headers(9, path="/a.B/Bidi")
    talk.headers(11, path="/a.B/None")  # no method: nothing to count it under
    assert {path: times.count for path, times in registry.times.items()} == {
        "/a.B/Echo": 1, "/a.B/Refuse": 1, "/a.B/Park": 0, "/a.B/Bidi": 0}
    parked[0].reply(b"late")
    parked[0].finish()  # a mistake of its handler's changes nothing
    talk.server.receive(f.frame(f.RST_STREAM, 0, 7, bytes(4)), 100.0)
    talk.server.receive(f.frame(f.RST_STREAM, 0, 9, bytes(4)), 100.0)
    assert {path: times.count for path, times in registry.times.items()} == {
        "/a.B/Echo": 1, "/a.B/Refuse": 1, "/a.B/Park": 2, "/a.B/Bidi": 1}
    assert all(0 <= times.sum < 20 for times in registry.times.values())


def test_a_call_whose_deadline_passes_counts_whether_or_not_its_client_reads() -> None:
    talk, registry, parked = timed()
    talk.server.receive(f.settings_frame({f.INITIAL_WINDOW_SIZE: 0}), 100.0)
    talk.headers(1, path="/a.B/Park")
    talk.data(1, message(b"x"))
    talk.headers(3, path="/a.B/Bidi")
    bidi: Any = talk.server.streams[3]
    bidi.send(b"not taken")
    for call in (parked[0], bidi):
        call.expired()
    assert {path: times.count for path, times in registry.times.items() if times.count} == {
        "/a.B/Park": 1,
        "/a.B/Bidi": 1,
    }


@pytest.mark.parametrize("timeout", [{}, {"grpc_timeout": "5S"}])
def test_who_wants_to_know_of_slow_calls_is_told_of_each_that_is_no_stream(timeout: dict[str, str]) -> None:
    told: list[tuple[str, str, float]] = []
    registry = Registry(slow=lambda path, client, took_s: told.append((path, client, took_s)))
    registry.unary("/a.B/Echo", lambda call, data: call.reply(data))
    registry.unary("/a.B/Observe", lambda call, data: call.finish(), "stream")
    registry.stream("/a.B/Bidi", Stream())
    talk = Talk(registry)
    for stream_id, path in ((1, "Echo"), (5, "Observe")):
        talk.headers(stream_id, path=f"/a.B/{path}", **timeout)
        talk.data(stream_id, message(b"x"))
    talk.headers(7, path="/a.B/Bidi")
    talk.server.receive(f.frame(f.RST_STREAM, 0, 7, bytes(4)), 100.0)
    assert {key: found.calls for key, found in registry.clients.items()} == {
        ("unary", "unknown"): 1, ("stream", "unknown"): 2}
    ((path, client, took_s),) = told
    assert (path, client) == ("/a.B/Echo", "1.2.3.4:5")
    assert 0 <= took_s < 20
    assert registry.times == {}


def test_nothing_is_timed_unless_asked() -> None:
    registry = Registry()
    registry.unary("/a.B/Echo", lambda call, data: call.reply(data))
    talk = Talk(registry)
    talk.headers(1)
    talk.data(1, message(b"x"))
    assert registry.times == {}
    assert {key: found.calls for key, found in registry.clients.items()} == {("unary", "unknown"): 1}


@pytest.mark.parametrize(
    ("version", "counted"),
    [
        ("3.5", "3.5"), ("3.6.4", "3.6.4"), ("3.6.0-rc.1", "3.6.0-rc.1"), ("x" * 100, "unknown"),
        ('3"} 1\nfake 2', "unknown"),
    ],
)
def test_clients_are_counted_by_a_version_that_looks_like_one(version: str, counted: str) -> None:
    talk, registry, _ = timed()
    talk.headers(1, client_api_version=version.replace("\n", " "))
    talk.data(1, message(b"x"))
    assert {key: found.calls for key, found in registry.clients.items()} == {("unary", counted): 1}


def test_few_versions_are_told_apart() -> None:
    talk, registry, _ = timed()
    for i in range(100):
        talk.headers(1 + 2 * i, client_api_version=f"3.{i}")
        talk.data(1 + 2 * i, message(b"x"))
    assert len(registry.clients) == 33
    assert registry.clients["unary", "unknown"].calls == 68
