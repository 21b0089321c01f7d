"""What many streams are sent alike is translated into JSON once, and every stream gets what it got before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cluster.pb import rpc_pb2
from proxy.gateway import lines
from proxy.gateway.calls import LARGE_ANSWER_BYTES
from proxy.gateway.encode import encode
from proxy.gateway.lines import Lines
from proxy.gateway.paths import TARGETS
from tests.unit.grpc.http1.test_websocket import Output
from tests.unit.proxy.gateway.test_gateway_turns import LIMIT_S, WATCH, Front


def event(revision: int, watch_id: int = 0, size: int = 10) -> bytes:
    kv = rpc_pb2.RangeResponse(kvs=[{"key": b"k", "value": b"v" * size, "mod_revision": revision}]).kvs[0]
    response = rpc_pb2.WatchResponse(
        header={"revision": revision}, watch_id=watch_id, events=[{"kv": kv}])
    return bytes(response.SerializeToString())


def line(message: bytes, path: str = "/v3/watch") -> bytes:
    return f'{{"result":{encode(TARGETS[path].response.FromString(message))}}}\n'.encode()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was translated."""
    found: list[Any] = []

    def noted(message: Any) -> str:
        found.append(message)
        return encode(message)

    monkeypatch.setattr(lines, "encode", noted)
    return found


@pytest.mark.parametrize("size", [10, LARGE_ANSWER_BYTES], ids=["small", "large"])
def test_streams_of_like_watches_share_the_translation_of_an_event(size: int, made: list[Any]) -> None:
    """500 streams of one key took 50 us of a front's CPU each for every put."""
    asyncio.run(_shared(size, made))


async def _shared(size: int, made: list[Any]) -> None:
    front, calls, outputs = Front(), list[Any](), list[Output]()
    front.watches.opened = calls.append  # type: ignore[method-assign]
    for _ in range(10):
        front.output = Output()
        front.connect()
        outputs.append(front.output)
        front.post(b"{}")
    sent = [event(revision, size=size) for revision in range(2, 5)]
    for message in sent:
        for call in calls:
            call.send(bytes(bytearray(message)))  # each has its own copy
        async with asyncio.timeout(LIMIT_S):
            while any(call.pending_bytes() for call in calls):
                await asyncio.sleep(0.001)
    threads = 2 if size >= LARGE_ANSWER_BYTES else 1  # that may make the same at the same time
    assert len(sent) <= len(made) <= len(sent) * threads
    for output in outputs:
        at = [output.data.index(line(message)) for message in sent]
        assert at == sorted(at)
        assert output.data.count(b'"events"') == len(sent)


def test_what_differs_in_anything_is_another_answer(made: list[Any]) -> None:
    known, keep_alive = Lines(), TARGETS["/v3/lease/keepalive"]
    messages = [event(2), event(3), event(2, watch_id=7), event(2)]
    assert [known.of(WATCH, message) for message in messages] == [*map(line, messages)]
    assert len(made) == 3
    alike = rpc_pb2.WatchResponse(header={"revision": 9}).SerializeToString()
    assert known.of(WATCH, alike) == line(alike)
    assert known.of(keep_alive, alike) == line(alike, "/v3/lease/keepalive")
    assert [type(message).__name__ for message in made[3:]] == ["WatchResponse", "LeaseKeepAliveResponse"]


def test_only_the_last_answers_are_kept_and_of_large_ones_few(made: list[Any]) -> None:
    known = Lines()
    for revision in range(2, 1000):
        known.of(WATCH, event(revision))
    assert len(known._last) == lines._KEPT
    for revision in range(2, 12):
        known.of(WATCH, event(revision, size=1 << 20))
        kept = sum(len(message) + len(text) for (_, message), text in known._last.items())
        assert kept == known._size <= lines._KEPT_BYTES
    assert len(known._last) == 1
    before = dict(known._last)
    known.of(WATCH, event(2, size=lines._KEPT_BYTES // 2))
    assert known._last == before, "it would leave no room for anything"
    made.clear()
    known.of(WATCH, event(11, size=1 << 20))
    assert not made


def test_an_event_of_the_largest_request_is_shared(made: list[Any]) -> None:
    known = Lines()
    for _ in range(3):
        known.of(WATCH, event(2, size=1_572_864 - 100))
    assert len(made) == 1
