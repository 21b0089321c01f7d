"""A server on its own loop in a thread, for clients that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvloop

from proxy.grpc.calls import Call
from proxy.grpc.registry import Registry
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
