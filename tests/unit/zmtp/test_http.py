"""A peer port without keys tells by HTTP who belongs to the cluster, and stays a peer port."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
import zmq
from structlog.testing import capture_logs

import tools.muster.machine.zmtp.router
import tools.muster.machine.zmtp.stream
from tests.unit.zmtp.test_sockets import free_port, until
from tools.muster.machine.zmtp import Dealer, LinkOptions, Router
from tools.muster.machine.zmtp.codec import GREETING, ready
from tools.muster.machine.zmtp.port.http import QUESTION, Request, is_http

TOLD = QUESTION + json.dumps({
    "cluster_id": "cdf818194e3a8c32", "shards": 2, "depth": 1, "removed": [],
    "members": [
        {"id": "ff", "name": "", "peer_urls": ["http://b:1"], "client_urls": [], "learner": True},
        {"id": "1", "name": "ä", "peer_urls": ["http://a:1", "http://a:2"], "client_urls": ["http://a:3"],
         "learner": False},
    ],
}).encode()  # fmt: skip
LISTED = (
    '[{"id":1,"peerURLs":["http://a:1","http://a:2"],"name":"ä","clientURLs":["http://a:3"]},'
    '{"id":255,"peerURLs":["http://b:1"],"isLearner":true}]\n'
).encode()
WHO = b"GET /members HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer than a stranger has."""
    monkeypatch.setattr(tools.muster.machine.zmtp.router, "HELLO_S", 60.0)
    monkeypatch.setattr(tools.muster.machine.zmtp.stream, "_HANDSHAKE_S", 60.0)


class World:
    """A router whose node says who belongs to the cluster."""

    def __init__(self) -> None:
        self.port = free_port()
        self.came: list[bytes] = []
        self.loop = asyncio.get_running_loop()
        endpoint = f"tcp://127.0.0.1:{self.port}"
        self.router = Router(self.loop, endpoint, self.receive, LinkOptions(100), strangers=True)

    def receive(self, parts: list[bytes]) -> None:
        self.came.append(parts[-1])
        if parts[-1] == QUESTION:
            assert self.router.send([parts[0], TOLD])
        elif parts[-1] == b"hello":
            self.router.trust(parts[0])

    async def answer(self, *said: bytes) -> tuple[bytes, bytes]:
        """Head and body of what comes until the router closes; pieces come one after the other."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        found = b""
        with contextlib.suppress(ConnectionError):  # it has not read what was said so late
            for piece in said:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
            async with asyncio.timeout(60):
                found = await reader.read()
        writer.close()
        head, _, body = found.partition(b"\r\n\r\n")
        return head, body


def test_members_are_listed_as_by_an_etcd() -> None:
    async def scenario() -> None:
        world = World()
        for said in ((WHO,), (WHO[:7], WHO[7:20], WHO[20:]), (b"GET /members?a=b HTTP/1.0\n\n",)):
            head, body = await world.answer(*said)
            assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
            assert b"\r\nX-Etcd-Cluster-Id: cdf818194e3a8c32\r\n" in head
            assert b"\r\nContent-Length: %d\r\n" % len(body) in head
            assert body == LISTED
        await until(lambda: not world.router._strangers and not world.router._streams)
        world.router.close()

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert logs == []


@pytest.mark.parametrize(("said", "status", "body"), [
    (b"GET / HTTP/1.1\r\n\r\n", 404, b"404 page not found\n"),
    (b"GET /v2/members HTTP/1.1\r\n\r\n", 404, b"404 page not found\n"),
    (b"POST /members HTTP/1.1\r\n\r\n", 405, b"Method Not Allowed\n"),
    (b"HEAD /members HTTP/1.1\r\n\r\n", 405, b""),
    (b"GET members HTTP/1.1\r\n\r\n", 400, b"400 Bad Request"),
    (b"GET /" + b"a" * 5000, 400, b"400 Bad Request"),
])  # fmt: skip
def test_what_is_not_there_is_refused_as_by_an_etcd(said: bytes, status: int, body: bytes) -> None:
    head, _, found = Request().take(said).partition(b"\r\n\r\n")
    assert head.split()[1] == b"%d" % status
    assert found == body


def test_a_request_is_answered_once() -> None:
    request = Request()
    assert request.take(WHO) == b""
    assert request.wants_members
    request.wants_members = False
    assert request.take(WHO) == b""
    assert not request.wants_members


def test_nothing_else_is_taken_for_http() -> None:
    assert not is_http(GREETING)
    assert not is_http(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")  # gRPC, for a client port
    assert not is_http(b"\x16\x03\x01\x02\x00\x01")  # TLS


@pytest.mark.parametrize("libzmq", [False, True])
def test_partners_come_as_before(libzmq: bool) -> None:
    async def scenario() -> None:
        world = World()
        endpoint = f"tcp://127.0.0.1:{world.port}"
        if libzmq:
            with zmq.Context() as context, context.socket(zmq.DEALER) as partner:
                partner.linger = 0
                partner.connect(endpoint)
                partner.send(b"hello")
                await until(lambda: world.came == [b"hello"])
        else:
            dealer = Dealer(world.loop, endpoint, b"d", lambda parts: None, LinkOptions(3), redials=False)
            await until(lambda: dealer.send([b"hello"]))
            await until(lambda: world.came == [b"hello"])
            dealer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
            greeted = GREETING + ready(b"DEALER", b"slow")
            for at in range(0, len(greeted), 7):
                writer.write(greeted[at : at + 7])
                await writer.drain()
                await asyncio.sleep(0.001)
            async with asyncio.timeout(30):
                assert (await reader.readexactly(len(GREETING))) == GREETING
            writer.close()
        world.router.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("said", [b"GET /members", WHO])
def test_who_asks_stays_a_stranger(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its moment, though its node does not answer."""
    monkeypatch.setattr(tools.muster.machine.zmtp.router, "HELLO_S", 0.3)

    async def scenario() -> None:
        world = World()
        world.router._receive = lambda parts: None
        assert await world.answer(said) == (b"", b"")
        await until(lambda: not world.router._strangers and not world.router._streams)
        world.router.close()

    asyncio.run(scenario())
