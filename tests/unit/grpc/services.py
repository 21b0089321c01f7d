"""A service with each kind of method, and small helpers beside its server."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from proxy.grpc.calls import Call
from proxy.grpc.registry import Registry
from proxy.http.requests import HttpRequest
from tests.unit.grpc.harness import Echo, Running


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
