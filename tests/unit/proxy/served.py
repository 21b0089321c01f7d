"""A front's services over fake nodes, without a listener."""

from __future__ import annotations

from typing import Any

from cluster import errors
from cluster.wire.messages import Method
from proxy.services.table import register_all
from tests.unit.proxy.fakes import FakeCall, Net, hand_in

COMPACTED = errors.COMPACTED.code, errors.COMPACTED.text


class Methods:
    """Registered handlers by method name."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def unary(self, path: str, handler: Any, counted: str = "unary") -> None:
        self.handlers[path.rpartition("/")[2]] = handler

    def stream(self, path: str, handler: Any) -> None:
        self.handlers[path.rpartition("/")[2]] = handler

    def http(self, path: str, handler: Any) -> None:
        raise AssertionError("no HTTP here")


class Served:
    """A front with its services, host 1's node leading. ``own``: the front's host; a proxy's is 0."""

    def __init__(self, leader: int = 1, shards: int = 1, own: int = 1) -> None:
        self.net = Net(own=own, shards=shards)
        if leader:
            self.net.started(leader)
        if not leader:
            self.net.pass_time(0.3)
        self.node = self.net.nodes[leader or 1]
        self.methods = Methods()
        register_all(self.methods, self.net.context)

    def call(self, method: str, message: Any, metadata: dict[bytes, bytes] | None = None) -> FakeCall:
        call = FakeCall(metadata)
        handler = self.methods.handlers[method]
        data = message if isinstance(message, bytes) else message.SerializeToString()
        hand_in(handler, call, data)
        self.net.run()
        return call

    def all_applied(self) -> None:
        """The leading node has applied all that was in order when it was last asked."""
        for asked in self.node.take(Method.READ_INDEX):
            self.node.index(asked, 1)
        self.net.run()
        for asked in self.node.take(Method.FACTS):
            self.node.ok(asked)
        self.net.run()

    def count(self, service: str, method: str, code: int) -> int:
        stats = next(s for (_, a, b), s in self.net.context.stats.items() if (a, b) == (service, method))
        return stats.ok if code == 0 else stats.codes.get(code, 0)
