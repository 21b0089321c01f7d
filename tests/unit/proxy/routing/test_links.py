"""Links over real ZeroMQ sockets: greeting, loss, CURVE, and that nothing old is delivered after a
reconnect."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import zmq

from cluster.members import meant
from cluster.settings import Common, Peer
from cluster.wire import frames, messages
from cluster.wire.messages import HEAD, STATE_BODY, Method, Status
from proxy.routing.links import Connector
from proxy.routing.router import Router
from tests.ports import free_ports
from tests.unit.proxy.fakes import FakeCall
from tools.muster.machine.real import RealMachine


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class RouterNode:
    """A node behind a real ROUTER, polled by the test's loop."""

    def __init__(
        self, context: zmq.Context[Any], endpoint: str, prefix: bytes,
        keys: tuple[bytes, bytes] | None = None, member: int = 1,
    ) -> None:
        self.prefix = prefix
        self.member = member
        self.sent: dict[bytes, int] = {}
        self.hellos: list[tuple[int, ...]] = []
        self.requests: list[tuple[bytes, int, int, bytes]] = []  # identity, rid, method, body
        self.closed = False
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        if keys:
            self.socket.curve_server = True
            self.socket.curve_publickey, self.socket.curve_secretkey = keys
        self.socket.bind(endpoint)
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while not self.closed:
            try:
                identity, data = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                await asyncio.sleep(0.001)
                continue
            assert data.startswith(self.prefix)
            _, records = messages.decode_requests(data[len(self.prefix) :])
            for rid, method, _, body in records:
                if method == Method.HELLO:
                    self.hellos.append(messages.HELLO_BODY.unpack(body))
                    self.answer(identity, 0, Status.STATE, STATE_BODY.pack(0, self.member, 3, 1, 1, 5))
                else:
                    self.requests.append((identity, rid, method, body))

    def answer(self, identity: bytes, rid: int, status: int, body: bytes) -> None:
        number = self.sent[identity] = self.sent.get(identity, 0) + 1
        frame = messages.frame(number, [messages.answer(rid, status, body)])
        self.socket.send_multipart([identity, self.prefix + frame])

    async def close(self) -> None:
        self.closed = True
        await self.task
        self.socket.close()


async def until(condition: Callable[[], object], limit_s: float = 60.0) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + limit_s
    while not condition():
        assert loop.time() < end, "it never happened"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def router_of(common: Common) -> AsyncIterator[Router]:
    loop = asyncio.get_running_loop()
    sessions = iter(range(1, 1000))
    machine = RealMachine(loop, common)
    connector = Connector(machine, common, lambda: next(sessions))
    router = Router(loop, common, connector)
    stopped = False

    def sweep() -> None:
        if not stopped:
            router.sweep()
            loop.call_later(0.02, sweep)

    sweep()
    try:
        yield router
    finally:
        stopped = True
        router.close()


def run(test: Callable[[zmq.Context[Any]], Awaitable[None]]) -> None:
    context: zmq.Context[Any] = zmq.Context()
    try:
        asyncio.run(test(context))  # type: ignore[arg-type]
    finally:
        context.destroy(linger=0)


def settings(tmp_path: Path, own: int = 1, port: int = 1, curve: str = "") -> Common:
    return Common(cluster_id=9, member_id=own, name="h1", shard_count=1, placement_depth=2,
                  peers=(Peer(1, "h1", "127.0.0.1", port),), run_dir=str(tmp_path), curve_key_file=curve,
                  election_timeout_ms=60_000)


def test_a_link_greets_carries_requests_and_answers_over_ipc(tmp_path: Path) -> None:
    async def test(context: zmq.Context[Any]) -> None:
        node = RouterNode(context, f"ipc://{tmp_path}/node-0.sock", b"")
        async with router_of(settings(tmp_path)) as router:
            await until(lambda: router.ready)
            assert node.hellos == [(frames.LOWEST, 9, 1, 1, 1, 2)]
            calls = [FakeCall() for _ in range(500)]
            for call in calls:
                router.write(call, Method.PUT, b"body", 0, router.quiet)
            await until(lambda: len(node.requests) == 500)
            for identity, rid, _, body in node.requests:
                assert body == b"body"
                node.answer(identity, rid, Status.OK, HEAD.pack(6, 3))
            await until(lambda: all(c.closed for c in calls))
            assert all(c.status == (0, "") for c in calls)
        await node.close()

    run(test)


def test_a_node_that_dies_costs_its_writes_an_answer_and_comes_back_under_a_new_session(
    tmp_path: Path,
) -> None:
    async def test(context: zmq.Context[Any]) -> None:
        endpoint = f"ipc://{tmp_path}/node-0.sock"
        node = RouterNode(context, endpoint, b"")
        async with router_of(settings(tmp_path)) as router:
            await until(lambda: router.ready)
            call = FakeCall()
            router.write(call, Method.PUT, b"body", 0, router.quiet)
            await until(lambda: node.requests)
            await node.close()
            await until(lambda: call.closed, 30)  # long before any time limit
            assert call.status is not None
            assert call.status[0] == 14
            waiting = FakeCall()
            router.write(waiting, Method.PUT, b"later", 0, router.quiet)
            node = RouterNode(context, endpoint, b"")
            await until(lambda: node.requests)
            assert [r[3] for r in node.requests] == [b"later"]  # I23: the first one is not delivered late
            assert node.hellos[0][3] > 1
        await node.close()

    run(test)


def test_a_front_started_before_its_node_finds_it(tmp_path: Path) -> None:
    async def test(context: zmq.Context[Any]) -> None:
        async with router_of(settings(tmp_path)) as router:
            await asyncio.sleep(0.2)
            assert not router.ready
            node = RouterNode(context, f"ipc://{tmp_path}/node-0.sock", b"")
            await until(lambda: router.ready)
            await node.close()

    run(test)


def test_a_member_is_reached_at_whichever_of_its_urls_answers(tmp_path: Path) -> None:
    """Its first was dialled for ever."""
    async def test(context: zmq.Context[Any]) -> None:
        dead, live = free_ports(2)
        urls = tuple(f"http://127.0.0.1:{port}" for port in (dead, live))
        common = replace(settings(tmp_path, own=0), peers=(Peer(1, "h1", "127.0.0.1", dead, urls),),
                         election_timeout_ms=200)
        node = RouterNode(context, f"tcp://127.0.0.1:{live}", b"F")
        async with router_of(common) as router:
            await until(lambda: router.ready)
        await node.close()

    run(test)


def test_the_urls_of_a_member_take_turns_from_the_one_where_its_node_answered(tmp_path: Path) -> None:
    dialled: list[tuple[str, int | None]] = []
    opened: list[Callable[[], None]] = []

    def dial(endpoint: str, *_: object, shard: int | None, **more: Any) -> SimpleNamespace:
        dialled.append((endpoint[-1:], shard))
        opened.append(more["opened"])
        return SimpleNamespace(send=lambda parts: True)

    urls = tuple(f"http://127.0.0.1:{port}" for port in (1, 2, 3))  # the flags began with the second
    common = replace(settings(tmp_path, own=0), peers=(Peer(1, "h1", "127.0.0.1", 2, urls),))
    loop = SimpleNamespace(time=lambda: 0.0)
    connector = Connector(cast(Any, SimpleNamespace(loop=loop, dial=dial)), common, lambda: 1)
    receiver = cast(Any, SimpleNamespace(link_up=lambda link: None, link_state=lambda link: None))
    for shard, answers in ((0, 0), (0, 0), (0, 0), (0, 0), (0, 1), (0, 1), (1, 0), (0, 0), (0, 0)):
        link = connector(receiver, shard, 1)
        assert link is not None
        opened[-1]()  # whatever listens there
        if answers:
            link.state(STATE_BODY.pack(shard, 1, 1, 0, 0, 0))
    assert dialled == [
        ("2", 0), ("1", 0), ("3", 0), ("2", 0), ("1", 0), ("1", 0), ("2", 1), ("1", 0), ("3", 0)]


@pytest.mark.parametrize(("own", "before"), [(2, [[meant.encode(1)], []]), (1, [[], []]), (0, [[], []])])
def test_a_host_names_the_member_that_a_link_is_for_with_its_hello(
    tmp_path: Path, own: int, before: list[list[bytes]]
) -> None:
    """Not at its own socket, and not a proxy, whose list may have who was at that address before."""
    sent: list[list[bytes]] = []
    opened: list[Callable[[], None]] = []

    def dial(endpoint: str, *_: object, shard: int | None, **more: Any) -> SimpleNamespace:
        opened.append(more["opened"])
        return SimpleNamespace(send=lambda parts: sent.append(parts) or True)

    machine = cast(Any, SimpleNamespace(loop=SimpleNamespace(time=lambda: 0.0), dial=dial))
    link = Connector(machine, settings(tmp_path, own=own), lambda: 1)(cast(Any, SimpleNamespace()), 0, 1)
    assert link is not None
    opened[-1]()
    link.post(1, Method.UNSUBSCRIBE, b"")
    link.flush()
    assert [parts[:-1] for parts in sent] == before


def key_file(folder: Path, keys: tuple[bytes, bytes]) -> str:
    """A file of a cluster's keys, as a front is given it."""
    path = folder / "keys.json"
    path.write_text(json.dumps({"public": keys[0].decode(), "secret": keys[1].decode()}))
    return str(path)


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_remote_node_is_reached_over_tcp_with_the_clusters_key(tmp_path: Path, encrypted: bool) -> None:
    async def test(context: zmq.Context[Any]) -> None:
        keys, path = None, ""
        if encrypted:
            keys = zmq.curve_keypair()
            path = key_file(tmp_path, keys)
        port = free_port()
        node = RouterNode(context, f"tcp://127.0.0.1:{port}", b"F", keys)
        async with router_of(settings(tmp_path, own=0, port=port, curve=path)) as router:
            await until(lambda: router.ready)
            call = FakeCall()
            router.write(call, Method.PUT, b"body", 0, router.quiet)
            await until(lambda: node.requests)
            identity, rid, _, _ = node.requests[0]
            node.answer(identity, rid, Status.OK, HEAD.pack(6, 3))
            await until(lambda: call.closed)
        await node.close()

    run(test)


def test_another_clusters_key_reaches_nobody(tmp_path: Path) -> None:
    async def test(context: zmq.Context[Any]) -> None:
        path = key_file(tmp_path, zmq.curve_keypair())
        port = free_port()
        node = RouterNode(context, f"tcp://127.0.0.1:{port}", b"F", zmq.curve_keypair())
        async with router_of(settings(tmp_path, own=0, port=port, curve=path)) as router:
            await asyncio.sleep(0.3)
            assert not router.ready
            assert node.hellos == []
        await node.close()

    run(test)


@pytest.mark.parametrize("front", ["without a key", "with another"])
def test_a_front_that_holds_no_key_or_another_says_what_to_look_at(tmp_path: Path, front: str) -> None:
    async def test(context: zmq.Context[Any]) -> None:
        path = key_file(tmp_path, zmq.curve_keypair())
        port = free_port()
        node = RouterNode(context, f"tcp://127.0.0.1:{port}", b"F", zmq.curve_keypair())
        curve = path if front == "with another" else ""
        async with router_of(settings(tmp_path, own=0, port=port, curve=curve)) as router:
            links = router.routes[0].links
            await until(lambda: any("--peer-key-file" in link.trouble for link in links.values()))
        await node.close()

    run(test)
