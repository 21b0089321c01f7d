"""A put and a read as a front's service gives them to its router."""

from __future__ import annotations

from cluster.wire.messages import Method
from proxy.routing.router import MethodStats
from tests.unit.proxy.fakes import FakeCall, Net


def put(
    net: Net, call: FakeCall | None = None, body: bytes = b"\x0a\x01k", stats: MethodStats | None = None
) -> FakeCall:  # fmt: skip
    call = call or FakeCall()
    net.router.write(call, Method.PUT, body, 0, stats or net.router.quiet)
    net.run()
    return call


def read(net: Net, serializable: bool = False) -> FakeCall:
    call = FakeCall()
    net.router.read(call, Method.RANGE, b"\x0a\x01k", 0, serializable, net.router.quiet)
    return call
