"""A server on its own loop in a thread, for clients that block, and a service with each kind of method."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvloop

from proxy.grpc.calls import Call
from proxy.grpc.registry import Registry
from proxy.http.requests import HttpRequest
from proxy.listener.server import Limits, Server
from proxy.listener.traffic import Serves
from proxy.tls import Credentials


class Running:
    """A started server: where it listens, and a way into its loop."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.loop = loop
        self.port = server.addresses[0][1]
        self.address = f"127.0.0.1:{self.port}"

    def call(self, function, *args):  # type: ignore[no-untyped-def]
        """Run a function in the server's loop and wait for its result."""

        async def inside():  # type: ignore[no-untyped-def]
            return function(*args)

        return asyncio.run_coroutine_threadsafe(inside(), self.loop).result(60)

    def stop(self, grace_s: float) -> None:
        asyncio.run_coroutine_threadsafe(self.server.stop(grace_s), self.loop).result(grace_s + 30)


@contextmanager
def serving(
    registry: Registry, limits: Limits | None = None, tls: Credentials | None = None,
    serves: Serves | None = None,
) -> Iterator[Running]:
    """A server on a free port of 127.0.0.1."""
    loop = uvloop.new_event_loop()
    server = Server(registry, limits)
    loop.run_until_complete(server.start("127.0.0.1", 0, tls=tls, serves=serves))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    running = Running(server, loop)
    try:
        yield running
    finally:
        running.stop(0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Echo:
    """A bidi method: every message comes back; the end of the requests ends the call."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def opened(self, call: Call) -> None:
        self.log.append("opened")

    def message(self, call: Call, data: bytes) -> None:
        call.send(data)

    def half_closed(self, call: Call) -> None:
        call.finish()

    def cancelled(self, call: Call) -> None:
        self.log.append("cancelled")


def same(data: bytes) -> bytes:
    return data


def wait_for(condition: Callable[[], bool], limit_s: float = 30) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.01)


class Service:
    def __init__(self) -> None:
        self.answered = 0
        self.parked: list[Call] = []
        self.streams: list[HttpRequest] = []
        self.closed: list[HttpRequest] = []
        self.registry = Registry()
        self.registry.unary("/t.S/Echo", lambda call, data: call.reply(data))
        self.registry.unary("/t.S/Big", self.big)
        self.registry.unary("/t.S/Park", lambda call, data: self.parked.append(call))
        self.registry.stream("/t.S/Bidi", Echo())
        self.registry.http("/echo", self.echo)
        self.registry.http("/pieces", self.pieces)
        self.registry.http("/below/", lambda request: request.respond(200, b"below " + request.path.encode()))
        self.registry.http("/park", self.park)

    def big(self, call: Call, data: bytes) -> None:
        self.answered += 1
        call.reply(b"x" * 10_000)

    def echo(self, request: HttpRequest) -> None:
        said = f"{request.method} {request.path} {request.query} {request.headers.get('x-a')} ".encode()
        request.respond(201, said + request.body, [("X-Reply", "yes")], "text/plain")

    def pieces(self, request: HttpRequest) -> None:
        request.start(200, [("content-type", "text/plain")])
        for i in range(1000):
            request.write(b"%d," % i)
        request.end()

    def park(self, request: HttpRequest) -> None:
        request.on_close = self.closed.append
        request.start(200)
        request.write(b"first\n")
        self.streams.append(request)


def connected(running: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.port), timeout=20)
