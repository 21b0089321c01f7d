"""A connection's share of what a node makes few of at once."""

from __future__ import annotations

from cluster import errors
from cluster.messages import Method
from proxy.services.backup import Snapshot
from proxy.services.shares import Shares
from tests.unit.proxy.fakes import FakeCall
from tests.unit.proxy.test_services import Served


def ask(handler: Snapshot, connection: object) -> FakeCall:
    call = FakeCall()
    call.connection = connection
    handler.opened(call)
    handler.message(call, b"")
    return call


def test_one_connection_does_not_take_all_snapshots_that_a_node_makes_at_once() -> None:
    served = Served()
    handler = Snapshot(served.net.context, "etcdserverpb.Maintenance")
    most = served.net.context.settings.max_connection_snapshots
    greedy, other = object(), object()
    calls = [ask(handler, greedy) for _ in range(most + 1)]
    assert [call.status for call in calls] == [None] * most + [(errors.TOO_MANY_REQUESTS.code, "etcdserver: too many requests")]
    assert ask(handler, other).status is None
    served.net.run()
    assert [request.method for request in served.node.take()] == [Method.SNAPSHOT] * (most + 1)
    calls[0].closed = True
    assert ask(handler, greedy).status is None


def test_connections_without_calls_are_forgotten() -> None:
    shares = Shares(1)
    for _ in range(10_000):
        call = FakeCall()
        assert shares.take(call)
        call.closed = True
    assert len(shares) < 300
