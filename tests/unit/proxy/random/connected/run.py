"""A front whose clients have connections: what these hold, and what stands in line, is given back, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from proxy.gateway.paths import BOTH_WAYS, TARGETS
from proxy.gateway.room import Room
from proxy.gateway.serve import Gateway
from proxy.http.http2 import Limits
from proxy.http.requests import HttpRequest
from proxy.listener import shard_endpoints
from proxy.listener.endpoints import register_http
from proxy.listener.filter import FilteredRegistry
from proxy.listener.server import Server
from proxy.v2.endpoints import register_v2
from tests.unit.proxy.random import rules
from tests.unit.proxy.random.connected.clients import Client, Http1Client, Talker
from tests.unit.proxy.random.connected.http2_client import Http2Client
from tests.unit.proxy.random.requests import Requests
from tests.unit.proxy.random.world import World

STEPS = 300
_CLIENTS = 3
_KINDS: tuple[Callable[[Connected], Client], ...] = (
    Http1Client, Http1Client, Http2Client, Http2Client, Talker)
_MESSAGE_BYTES = 2 << 20
_COUNTED = ("buffered", "unanswered", "waiting", "gathered", "queued", "heads")


class _Metrics:
    """Nobody looks at them here."""

    health_failures = health_successes = 0

    @property
    def scrapes(self) -> _Metrics:
        return self

    def serve(self, request: HttpRequest) -> None:
        request.respond(200, b"")

    def healthcheck(self, *given: object) -> None: ...


class Connected(World):
    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        registry = FilteredRegistry((), ("*",))
        super().__init__(seed, monkeypatch, registry)
        random, context = self.random, self.net.context
        context.settings = replace(
            context.settings, max_connection_range_streams=random.choice((1, 2, 16)),
            max_connection_snapshots=1, max_client_snapshots=2, max_v2_waits=5)
        self.register()
        registry.shown = context.principals.of
        register_v2(registry, context, bytes)
        shard_endpoints.register(registry, context)
        metrics: Any = _Metrics()
        register_http(registry, context, metrics)
        limits = Limits(
            max_message_bytes=_MESSAGE_BYTES, control_burst=1e9, reset_burst=1e9, fault_burst=1e9,
            max_memory_bytes=random.choice((1 << 40, 300_000, 3_000_000)))
        self.server = Server(registry, limits)
        loop: Any = self.loop
        self.server._loop = loop
        self.server._tick = loop.call_later(1.0, self.server._on_tick)
        self.server.backlog._clock = self._clock
        self.room = Room(
            loop, self.server.memory, _MESSAGE_BYTES, limits.max_untaken_bytes, self.server.backlog)
        registry.http("/v3/", Gateway(registry, self.room).serve)
        registry.early = BOTH_WAYS
        self.json_paths = {target.method.rpartition("/")[2]: path for path, target in TARGETS.items()}
        self.ports = count(1000)
        self.requests = Requests(random)
        self.haste = random.choice((0.004, 0.04))  # how often a client goes, each time that it acts
        self._turned_s = 0.0
        self.clients = [self._client() for _ in range(_CLIENTS)]
        self.every = list(self.clients)
        self.unanswered: list[str] = []
        self.events.add(100, self._act)

    def _clock(self) -> float:
        """Work takes time, for those that share turns."""
        self._turned_s += self.random.choice((0, 0, 1e-5, 1e-4, 1e-3))
        return self._turned_s

    def _client(self) -> Client:
        return self.random.choice(_KINDS)(self)

    def _act(self) -> None:
        at = self.random.randrange(_CLIENTS)
        client = self.clients[at]
        client.act()
        self.net.run()
        if client.gone:
            self.clients[at] = self._client()
            self.every.append(self.clients[at])

    def expire(self) -> None:
        """Connections have timers of their own. What they have room for goes on."""
        self.net.run()
        self._pump()
        self.net.run()
        for client in self.every:
            check(client)

    def _pump(self) -> None:
        for client in self.clients:
            client.pump()

    def go(self, steps: int = STEPS) -> None:
        """What happens, and then rest: clients read, nodes answer. Then the front may stop, and all go."""
        self.happen(steps)
        self.nodes.mend()
        for client in self.clients:
            client.reads = True
        self.look()
        self.unanswered = [found for client in self.clients if (found := client.unanswered())]
        if self.stops:
            self._stop()
        for client in self.clients:
            if self.random.random() < 0.3:
                client.close()
            elif not client.gone:
                client.socket.lose()
        self.look()
        for client in self.clients:
            client.socket.lose()
        self.look()

    def _stop(self) -> None:
        """As ``Server.stop``, while clients go on."""
        self.net.context.stop()
        self.server.stopping = True
        connections = [client.connection for client in self.clients if not client.gone]
        for connection in connections:
            connection.drain()
        self.server.flush()
        self.happen(self.random.randint(0, 20))
        for connection in connections:
            if connection.http2 is not None:
                connection.http2.drain_now()
        self.net.router.close()
        self.expire()


def check(client: Client) -> None:
    """What a connection counts is never below nothing, and nothing once it has no streams."""
    server = client.connection.http2
    if server is None:
        return
    for name in _COUNTED:
        found = getattr(server, name)
        assert found >= 0, f"{name}: {found}"
        assert not found or server.streams, f"{name}: {found} without a stream"


# -- rules

def each_request_of_http1_is_answered(run: Connected) -> Iterator[str]:
    yield from run.unanswered


def connections_hold_nothing(run: Connected) -> Iterator[str]:
    server = run.server
    if server.memory.used or server.memory.holders:
        yield f"memory: {server.memory.used}"
    if server._connections:
        yield f"{len(server._connections)} connections"
    if len(server.deadlines) or server.deadlines._slots:
        yield f"{len(server.deadlines)} deadlines"
    if len(server.backlog):
        yield "turns of the loop"
    if run.room._turns.used or len(run.room._turns):
        yield "translations"


def no_wait_of_version_2_stays(run: Connected) -> Iterator[str]:
    keys = run.registry._http["/v2/keys"].__self__  # type: ignore[attr-defined]
    feed = keys.feed
    if len(keys.waits) or feed._all or feed._here or feed._deep or feed._again or feed._firing:
        yield f"{len(keys.waits)} waits"


OF_CONNECTIONS: tuple[Callable[[Connected], Iterator[str]], ...] = (
    each_request_of_http1_is_answered, connections_hold_nothing, no_wait_of_version_2_stays)


def broken(run: Connected) -> list[str]:
    """The rules that do not hold, each with what breaks it."""
    found = (f"{rule.__name__}: {broken}" for rule in OF_CONNECTIONS for broken in rule(run))
    return [*rules.broken_of_all(run), *found]
