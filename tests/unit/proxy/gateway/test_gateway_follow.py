"""Requests of the gateway over HTTP/2 whose body comes while answers leave: the client's side stays open."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cluster.pb import rpc_pb2
from proxy.gateway.follow import Objects
from proxy.gateway.paths import BOTH_WAYS, TARGETS
from proxy.gateway.room import Room
from proxy.gateway.serve import Gateway
from proxy.gateway.talk import TalkedCall
from proxy.http.backlog import Backlog
from proxy.http.http2 import frames as f
from proxy.http.memory import Memory
from proxy.listener.filter import FilteredRegistry
from tests.garbage import no_garbage
from tests.unit.grpc.calls.talking import Talk

PATH = "/v3/lease/keepalive"
MAX_BODY_BYTES = 1000


class Renewals:
    """A stream that answers each request."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def opened(self, call: Any) -> None:
        self.heard.append("opened")

    def message(self, call: Any, data: bytes) -> None:
        found = rpc_pb2.LeaseKeepAliveRequest.FromString(data)
        self.heard.append(found.ID)
        call.send(rpc_pb2.LeaseKeepAliveResponse(ID=found.ID).SerializeToString())

    def half_closed(self, call: Any) -> None:
        self.heard.append("half closed")
        call.finish()

    def cancelled(self, call: Any) -> None:
        self.heard.append("cancelled")


class Front:
    """A connection of HTTP/2, with the gateway's renewals behind it."""

    def __init__(self, timeout: str | None, path: str = PATH) -> None:
        self.memory = Memory(1 << 30)
        loop = asyncio.get_running_loop()
        backlog = Backlog(loop.call_soon, loop.call_later, lambda: 0.0)  # no turn's time is ever spent
        room = Room(loop, self.memory, 1 << 20, 1 << 20, backlog)
        self.renewals = Renewals()
        registry = FilteredRegistry((), ())
        registry.stream(TARGETS[PATH].method, self.renewals)
        registry.http("/v3/", Gateway(registry, room).serve)
        registry.early = BOTH_WAYS
        self.talk = Talk(registry, max_body_bytes=MAX_BODY_BYTES)
        self._fields = {} if timeout is None else {"grpc_timeout": timeout}
        self.stream = -1
        self.ask(path)

    def ask(self, path: str = PATH) -> None:
        """Begin a request, on the next stream."""
        self.stream += 2
        self.talk.headers(self.stream, path=path, content_type=None, te=None, **self._fields)

    def say(self, text: str, end: bool = False) -> None:
        self.talk.data(self.stream, text.encode(), end)

    def leave(self) -> None:
        """The client gives it up."""
        self.talk.server.receive(f.rst_stream(self.stream, 8), 100.0)

    def answers(self) -> tuple[str, list[dict[str, Any]], bool]:
        """Status and lines since the last call, and whether the stream is over."""
        status, body, over = "", b"", False
        for frame in self.talk.take():
            over = over or frame.kind == f.RST_STREAM or bool(frame.kind < 2 and frame.flags & f.END_STREAM)
            if frame.kind == f.HEADERS:
                status += dict(self.talk.decoder.decode(frame.payload)).get(":status", "")
            elif frame.kind == f.DATA:
                body += frame.payload
        return status, [json.loads(line) for line in body.splitlines()], over


def by_front(check: Callable[[Front], Awaitable[None]]) -> Callable[[str | None], None]:
    """A test that has a front, in a loop. No deadline and one of 0 seconds mean the same to the gateway."""

    async def run(timeout: str | None) -> None:
        front = Front(timeout)
        await check(front)
        assert front.memory.used == 0
        assert (front.talk.server.streams, front.talk.server.buffered) == ({}, 0)

    @pytest.mark.parametrize("timeout", [None, "0S"])
    def test(timeout: str | None) -> None:
        asyncio.run(run(timeout))

    return test


def test_objects_are_cut_where_they_are_whole_however_they_come() -> None:
    chance = random.Random(5)
    pieces = ['{"a":"{[]}\\"\\\\"}', "{}", '{"b":[1,{"c":"}"}]}', '{"\\\\":{}}', '{"é":"\\n"}']
    for _ in range(2000):
        text = chance.choice(["", "\n"]).join(chance.choices(pieces, k=chance.randrange(5))).encode()
        marks = sorted(chance.choices(range(len(text) + 1), k=chance.randrange(9)))
        objects = Objects()
        found = [objects.take(text[a:b]) for a, b in zip([0, *marks], [*marks, len(text)], strict=True)]
        assert b"".join(found) == text
        for whole in found:
            assert whole.count(b"{") >= whole.strip().startswith(b"{"), "each begins with an object"
            rest = whole.decode().strip()
            while rest:
                rest = rest[json.JSONDecoder().raw_decode(rest)[1] :].strip()


def test_what_is_nested_too_deep_is_no_object_and_is_not_waited_for() -> None:
    """11 MB of opening brackets took half a minute, mark by mark."""
    objects = Objects()
    found = [objects.take(b"{" * 1000) for _ in range(11)]
    assert found == [b""] * 10 + [b"{" * 11_000]
    assert objects.take(b'{"a":1}') == b'{"a":1}'


@pytest.mark.parametrize("text", [" ", "garbage", "]", '"a', "{]", "5", '{"ID":"1"} x'])
def test_what_is_no_object_is_not_waited_for(text: str) -> None:
    assert Objects().take(text.encode()) == text.encode()


@by_front
async def test_requests_are_answered_before_the_body_ends(front: Front) -> None:
    front.say('{"I')
    assert front.answers() == ("", [], False)
    front.say('D":"5"}\n{"ID"')
    assert front.answers() == ("200", [{"result": {"ID": "5"}}], False)
    front.say(':"6"} {"ID":"7"}')
    assert front.answers() == ("", [{"result": {"ID": "6"}}, {"result": {"ID": "7"}}], False)
    front.say("", end=True)
    assert front.answers() == ("", [], True)
    assert front.renewals.heard == ["opened", 5, 6, 7, "half closed"]


@pytest.mark.parametrize("path", ["/v3beta/lease/keepalive", "/v3/lease/keep%61live", f"{PATH}?a=b"])
def test_requests_are_answered_so_by_whatever_name_of_the_path(path: str) -> None:
    asyncio.run(_named(path))


async def _named(path: str) -> None:
    front = Front(None, path)
    front.say('{"ID":"5"}')
    assert front.answers() == ("200", [{"result": {"ID": "5"}}], False)


@by_front
async def test_a_body_of_nothing_has_no_request(front: Front) -> None:
    front.say(" ", end=True)
    assert front.answers() == ("200", [], True)
    assert front.renewals.heard == ["opened", "half closed"]


@by_front
async def test_a_mistake_before_any_request_is_the_answer(front: Front) -> None:
    front.say("garbage")
    assert front.answers()[::2] == ("500", True)
    front.say('{"ID":"5"}', end=True)
    assert front.renewals.heard == []


def test_requests_that_wait_count_by_the_memory_that_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their text alone counted: 32 MiB of two bytes each, as a client may leave there, held 900 MB."""
    monkeypatch.setattr(TalkedCall, "_waits", lambda self: True)
    asyncio.run(_many_wait())


async def _many_wait() -> None:
    front = Front(None)
    for _ in range(1000):
        front.say("{}")
    assert 60_000 < front.memory.used < 80_000
    front.leave()
    assert front.memory.used == 0


def test_requests_that_were_taken_count_no_more() -> None:
    asyncio.run(_many_taken())


async def _many_taken() -> None:
    front = Front(None)
    for number in range(1000):
        front.say("{}")
        assert front.memory.used == 0, number
    front.leave()


def test_a_deadline_before_any_answer_is_told_as_that_of_a_call_with_one() -> None:
    asyncio.run(_late())


async def _late() -> None:
    front = Front("1n")
    async with asyncio.timeout(30):
        while not (answers := front.answers())[2]:
            await asyncio.sleep(0)
    text = "context deadline exceeded"
    assert answers == ("504", [{"error": text, "code": 4, "message": text}], True)


@by_front
async def test_an_object_that_is_cut_short_is_told_in_gos_words(front: Front) -> None:
    front.say('{"I', end=True)
    assert front.answers() == (
        "500", [{"error": "unexpected EOF", "code": 2, "message": "unexpected EOF"}], True,
    )


@by_front
async def test_a_mistake_behind_requests_ends_them(front: Front) -> None:
    front.say('{"ID":"5"} garbage')
    assert front.answers() == ("200", [{"result": {"ID": "5"}}], True)
    assert front.renewals.heard == ["opened", 5, "half closed"]


@by_front
async def test_an_object_that_does_not_end_is_bounded(front: Front) -> None:
    front.say('{"ID":"5"}{"ID":"' + (MAX_BODY_BYTES - 7) * "1")
    assert front.answers() == ("200", [{"result": {"ID": "5"}}], False)
    assert front.talk.server.buffered == MAX_BODY_BYTES
    front.say("1")
    assert front.answers() == ("", [], True)
    assert front.renewals.heard == ["opened", 5, "cancelled"]


@by_front
async def test_a_client_that_leaves_ends_its_call_and_leaves_nothing_behind(front: Front) -> None:
    front.leave()
    with no_garbage("proxy"):
        front.ask()
        front.say('{"ID":"5"}{"ID":')
        front.leave()
    assert front.renewals.heard == ["opened", 5, "cancelled"]


@by_front
async def test_who_waits_for_a_word_before_the_body_gets_it(front: Front) -> None:
    front.say("", end=True)
    front.answers()
    front.talk.headers(3, path="/v3/lease/revoke", content_type=None, te=None, expect="100-continue")
    assert front.answers() == ("100", [], False)
    front.talk.data(3, b"")
    assert front.answers()[::2] == ("501", True)
