"""A connection's share of what a node makes few of at once."""

from __future__ import annotations

import sys
from itertools import count
from types import SimpleNamespace
from typing import Any

from cluster import errors
from cluster.wire.messages import Method
from proxy.services.shares import Shares
from proxy.services.upkeep.backup import Snapshot
from tests.unit.proxy.fakes import FakeCall
from tests.unit.proxy.test_services import Served


class Connection:
    """As much of one as a share needs."""

    def __init__(self) -> None:
        self.streams: dict[int, FakeCall] = {}
        self.shares: dict[object, list[int]] = {}
        self._ids = count(1, 2)

    def call(self) -> FakeCall:
        made: Any = FakeCall()
        made.connection, made.id = self, next(self._ids)
        self.streams[made.id] = made
        return made  # type: ignore[no-any-return]


def ask(handler: Snapshot, connection: Connection) -> FakeCall:
    call = connection.call()
    handler.opened(call)
    handler.message(call, b"")
    return call


def test_one_connection_does_not_take_all_snapshots_that_a_node_makes_at_once() -> None:
    served = Served()
    handler = Snapshot(served.net.context, "etcdserverpb.Maintenance")
    most = served.net.context.settings.max_connection_snapshots
    greedy, other = Connection(), Connection()
    calls = [ask(handler, greedy) for _ in range(most + 1)]
    assert [call.status for call in calls] == [None] * most + [
        (errors.TOO_MANY_REQUESTS.code, "etcdserver: too many requests")
    ]
    assert ask(handler, other).status is None
    served.net.run()
    assert [request.method for request in served.node.take()] == [Method.SNAPSHOT] * (most + 1)
    del greedy.streams[calls[0].id]
    assert ask(handler, greedy).status is None


def test_nothing_of_a_call_or_its_connection_is_kept() -> None:
    shares, connection = Shares(1), Connection()
    for stream_id in range(1, 10_001):
        call: Any = SimpleNamespace(id=stream_id, connection=connection)
        connection.streams[stream_id] = call
        before = sys.getrefcount(call), sys.getrefcount(connection)
        assert shares.take(call)
        assert (sys.getrefcount(call), sys.getrefcount(connection)) == before
        del connection.streams[call.id]
    assert connection.shares == {shares: [call.id]}
