"""A connection's share, and a client's, of what a node makes few of at once."""

from __future__ import annotations

import weakref
from itertools import count
from types import SimpleNamespace
from typing import Any

from cluster import errors
from cluster.wire.messages import Method
from proxy.grpc.inner import InnerCall
from proxy.services.shares import Shares
from proxy.services.upkeep.backup import Snapshot
from tests.unit.proxy.fakes import FakeCall
from tests.unit.proxy.test_services import Served


class Connection:
    """As much of one as a share needs."""

    def __init__(self, peer: str = "10.0.0.1:5000", user: str = "") -> None:
        self.peer = peer
        self.principal = SimpleNamespace(user=lambda: user) if user else None
        self.streams: dict[int, FakeCall] = {}
        self.shares: dict[object, list[int]] = {}
        self._ids = count(1, 2)

    def call(self) -> FakeCall:
        made: Any = FakeCall()
        made.connection, made.id = self, next(self._ids)
        made.peer, made.principal = self.peer, self.principal
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
    greedy, other = Connection(), Connection("10.0.0.2:5000")
    calls = [ask(handler, greedy) for _ in range(most + 1)]
    assert [call.status for call in calls] == [None] * most + [
        (errors.TOO_MANY_REQUESTS.code, "etcdserver: too many requests")
    ]
    assert ask(handler, other).status is None
    served.net.run()
    assert [request.method for request in served.node.take()] == [Method.SNAPSHOT] * (most + 1)
    del greedy.streams[calls[0].id]
    assert ask(handler, greedy).status is None


def taken(shares: Shares, *connections: Connection) -> list[bool]:
    return [shares.take(connection.call()) for connection in connections]


def test_a_client_with_many_connections_has_one_share() -> None:
    shares = Shares(2, 3)
    many = [Connection(f"10.0.0.1:{port}") for port in range(5000, 5010)]
    assert taken(shares, *many) == [True] * 3 + [False] * 7
    assert taken(shares, Connection("10.0.0.2:5000"), Connection("[fd00::1]:5000")) == [True, True]
    many[1].streams.clear()
    assert taken(shares, many[5], many[6]) == [True, False]


def test_a_users_share_is_his_wherever_he_comes_from() -> None:
    shares = Shares(1, 2)
    many = [Connection(f"10.0.0.{n}:1", "root") for n in range(4)]
    assert taken(shares, *many) == [True, True, False, False]
    assert taken(shares, *(Connection("10.0.0.1:1", user) for user in ("a", "b", "c"))) == [True] * 3


def test_clients_of_unix_sockets_share() -> None:
    assert taken(Shares(1, 2), *(Connection(f"@{n}") for n in range(3))) == [True, True, False]


def test_calls_that_stand_alone_have_their_clients_share() -> None:
    """Those of the JSON gateway have no connection, and had no limit."""
    shares = Shares(2, 3)
    calls = [InnerCall("/a.B/C", {}, "10.0.0.1:5000") for _ in range(4)]
    assert [shares.take(call) for call in calls] == [True, True, True, False]
    calls[0].closed = True
    assert shares.take(calls[3])


def test_of_calls_that_are_over_no_more_are_kept_than_there_are_under_way() -> None:
    shares, connection, other = Shares(1000, 1000), Connection(), Connection("10.0.0.2:1")
    assert all(taken(shares, *[other] * 20))
    kept: list[weakref.ref[Any]] = []
    for _ in range(1000):
        call: Any = connection.call()
        call.streams = {}  # a reference to itself would wait for Python's collector
        assert shares.take(call)
        kept.append(weakref.ref(call))
        del connection.streams[call.id], call
        assert sum(call() is not None for call in kept) <= 2 * 21 + 16
    shares.tick(1.0)
    assert not any(call() for call in kept)
