"""A stream of large answers in JSON goes on once they are translated, whether or not its socket was ever
full."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from cluster.faults import faults
from cluster.pb import rpc_pb2
from proxy.gateway.calls import LARGE_ANSWER_BYTES, GatewayCall
from proxy.grpc.calls import BACKLOG_BYTES
from proxy.http.requests import HttpRequest
from tests.unit.grpc.http1.test_websocket import ASK, Output
from tests.unit.proxy.gateway.test_gateway_turns import CREATE, LIMIT_S, Front

POST = f"POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: {len(CREATE)}\r\n\r\n{CREATE}".encode()


def event(size: int) -> bytes:
    kv = rpc_pb2.RangeResponse(kvs=[{"key": b"k", "value": b"v" * size}]).kvs[0]
    return bytes(rpc_pb2.WatchResponse(events=[{"kv": kv}]).SerializeToString())


@pytest.mark.parametrize("sizes", [(BACKLOG_BYTES,), (BACKLOG_BYTES // 3,) * 4], ids=["one", "several"])
@pytest.mark.parametrize("talks", [False, True], ids=["body", "websocket"])
def test_a_stream_goes_on_behind_answers_that_filled_its_backlog(sizes: tuple[int, ...], talks: bool) -> None:
    """Its watches were sent nothing any more: no socket was full, so none became free."""
    asyncio.run(_goes_on(sizes, talks))


async def _goes_on(sizes: tuple[int, ...], talks: bool) -> None:
    front, calls, free = Front(), list[Any](), list[int]()
    front.watches.opened = calls.append  # type: ignore[method-assign]
    if talks:
        front.http1.receive(ASK, 0.0)
        front.http1.receive(Connection(ConnectionType.CLIENT).send(TextMessage(CREATE)), 0.0)
    else:
        front.http1.receive(POST, 0.0)
    (call,) = calls
    call.on_drain = lambda: free.append(call.pending_bytes())
    for size in sizes:
        call.send(event(size))
    assert call.pending_bytes() > call.backlog_bytes()
    async with asyncio.timeout(LIMIT_S):
        while not free or free[-1]:
            await asyncio.sleep(0.001)
    assert not front.faults
    assert front.output.data.count(b'"events"') == len(sizes)


class Unread(Output):
    """The socket of a client that reads when it is told to."""

    taken = 0

    def unsent_bytes(self) -> int:
        return len(self.data) - self.taken


@pytest.mark.parametrize("talks", [False, True], ids=["body", "websocket"])
def test_who_reads_no_answers_has_no_more_requests_answered(talks: bool) -> None:
    """Twelve megabytes of keep-alives in a body left some 200 of answers in a front."""
    asyncio.run(_holds(talks))


async def _holds(talks: bool) -> None:
    front, many = Front(), 600
    answer = event(4000)
    front.watches.message = lambda call, data: call.send(answer)  # type: ignore[method-assign]
    front.http1.output = output = Unread()
    if talks:
        client = Connection(ConnectionType.CLIENT)
        front.http1.receive(ASK, 0.0)
        front.http1.receive(client.send(TextMessage(CREATE * many)), 0.0)
    else:
        body = (CREATE * many).encode()
        head = b"POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        front.http1.receive(head + body, 0.0)
    async with asyncio.timeout(LIMIT_S):
        while output.data.count(b'"events"') < many:
            before = -1
            while before != len(output.data):
                before = len(output.data)
                await asyncio.sleep(0.05)
            assert output.unsent_bytes() < 1.2 * BACKLOG_BYTES
            output.taken = len(output.data)
            front.http1.drained()
    assert not front.faults
    assert output.data.count(b'"events"') == many


def test_a_mistake_in_going_on_ends_that_call_alone() -> None:
    """Over HTTP/2 it went up through the one call that writes for all connections."""
    asyncio.run(_mistaken())


async def _mistaken() -> None:
    front, calls, cancelled = Front(), list[Any](), list[Any]()
    front.watches.opened = calls.append  # type: ignore[method-assign]
    front.watches.cancelled = cancelled.append  # type: ignore[method-assign]
    front.http1.receive(POST, 0.0)
    calls[0].send(event(10))
    calls[0].on_drain = {}.popitem
    front.http1.drained()
    assert cancelled == calls
    assert b'"http_code":500' in front.output.data
    assert [where for where, _ in faults.take()] == ["serving /etcdserverpb.Watch/Watch"]
    front.http1.drained()


def test_a_mistake_in_taking_a_request_is_told_to_its_handler() -> None:
    """It kept what it had of the call: a watch, a share."""
    asyncio.run(_mistaken_message())


async def _mistaken_message() -> None:
    front, cancelled = Front(), list[Any]()
    front.watches.message = lambda call, data: {}.popitem()  # type: ignore[method-assign]
    front.watches.cancelled = cancelled.append  # type: ignore[method-assign]
    front.http1.receive(POST, 0.0)
    async with asyncio.timeout(LIMIT_S):
        while b'"http_code":500' not in front.output.data:
            await asyncio.sleep(0.001)
    assert len(cancelled) == 1
    assert [where for where, _ in faults.take()] == ["serving /etcdserverpb.Watch/Watch"]


def test_a_deadline_that_takes_answers_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot whose last answers waited for their turns lacked them, and ended as if it were whole."""
    asyncio.run(_cut_short(monkeypatch))


async def _cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    front, calls, due = Front(), list[Any](), list[Callable[[], None]]()
    front.watches.opened = calls.append  # type: ignore[method-assign]

    def serve(request: HttpRequest) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(front.loop, "call_later", lambda after_s, then: due.append(then))
            GatewayCall(front.room, request, front.target, {}, front.registry, 1.0).begin()

    front.serve = serve  # type: ignore[method-assign]
    front.http1.receive(POST, 0.0)
    (call,) = calls
    for _ in range(3):  # the first one is in a thread
        call.send(event(2 * LARGE_ANSWER_BYTES))
    call.finish()
    due[0]()
    async with asyncio.timeout(LIMIT_S):
        while not front.output.data.endswith(b"0\r\n\r\n"):
            await asyncio.sleep(0.001)
    assert not front.faults
    assert front.output.data.count(b'"events"') == 1
    assert b"context deadline exceeded" in front.output.data
