"""A connection's share, and a client's, of what a node makes few of at once."""

from __future__ import annotations

import sys
import weakref
from itertools import count
from types import SimpleNamespace
from typing import Any

from cluster import errors
from cluster.wire.messages import Method
from proxy.grpc.inner import InnerCall
from proxy.services.shares import ClientShares, Shares
from proxy.services.upkeep.backup import Snapshot
from tests.unit.proxy.fakes import FakeCall
from tests.unit.proxy.served import Served

TOO_MANY = (errors.TOO_MANY_REQUESTS.code, "etcdserver: too many requests")


class Connection:
    """As much of one as a share needs."""

    def __init__(self, peer: str = "10.0.0.1:5000", user: str = "") -> None:
        self.peer = peer
        self.principal = SimpleNamespace(user=lambda: user) if user else None
        self.streams: dict[int, FakeCall] = {}
        self.shares: dict[object, list[int]] = {}
        self.unanswered: dict[FakeCall, int] = {}  # bytes of requests
        self._ids = count(1, 2)

    def call(self) -> FakeCall:
        made: Any = FakeCall()
        made.connection, made.id = self, next(self._ids)
        made.peer, made.principal = self.peer, self.principal
        self.streams[made.id] = made
        return made  # type: ignore[no-any-return]

    def taken_on(self, call: FakeCall, size: int) -> None:
        self.unanswered[call] = size

    def answered(self, call: FakeCall) -> None:
        del self.unanswered[call]


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
    assert [call.status for call in calls] == [None] * most + [TOO_MANY]
    assert ask(handler, other).status is None
    served.net.run()
    served.all_applied()
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


def shares_of(most: int) -> ClientShares:
    return ClientShares(most, lambda calls: None)


def taken(shares: ClientShares, *connections: Connection) -> list[bool]:
    return [shares.take(connection.call()) for connection in connections]


def test_a_client_with_many_connections_has_one_share() -> None:
    shares = shares_of(3)
    many = [Connection(f"10.0.0.1:{port}") for port in range(5000, 5010)]
    assert taken(shares, *many) == [True] * 3 + [False] * 7
    assert taken(shares, Connection("10.0.0.2:5000"), Connection("[fd00::1]:5000")) == [True, True]
    many[1].streams.clear()
    assert taken(shares, many[5], many[6]) == [True, False]


def test_a_network_of_ipv6_is_one_client_as_it_is_for_passwords() -> None:
    shares = shares_of(2)
    assert taken(shares, *(Connection(f"2001:db8::{n}:5000") for n in range(1, 4))) == [True, True, False]
    assert taken(shares, Connection("2001:db8:0:1::1:5000")) == [True]
    mapped = Connection("::ffff:10.0.0.1:5000"), Connection("10.0.0.1:5000"), Connection("10.0.0.1:5001")
    assert taken(shares, *mapped) == [True, True, False]


def test_a_users_share_is_his_wherever_he_comes_from() -> None:
    shares = shares_of(2)
    many = [Connection(f"10.0.0.{n}:1", "root") for n in range(4)]
    assert taken(shares, *many) == [True, True, False, False]
    assert taken(shares, *(Connection("10.0.0.1:1", user) for user in ("a", "b", "c"))) == [True] * 3


def test_clients_of_unix_sockets_share() -> None:
    assert taken(shares_of(2), *(Connection(f"@{n}") for n in range(3))) == [True, True, False]


def test_calls_that_stand_alone_have_their_clients_share() -> None:
    """Those of the JSON gateway have no connection, and had no limit."""
    shares = shares_of(3)
    calls = [InnerCall("/a.B/C", {}, "10.0.0.1:5000") for _ in range(4)]
    assert [shares.take(call) for call in calls] == [True, True, True, False]
    calls[0].closed = True
    assert shares.take(calls[3])


def test_one_of_a_client_that_has_ended_or_is_done_makes_room() -> None:
    calls = [InnerCall("/a.B/C", {}, "10.0.0.1:5000") for _ in range(4)]
    shares = ClientShares(2, lambda found: found[0] if found[0] is calls[0] else None)
    assert [shares.take(call) for call in calls] == [True, True, True, False]
    shares.over(calls[1])
    assert shares.take(calls[3])


def test_calls_that_are_over_are_forgotten() -> None:
    shares, connection, other = shares_of(1000), Connection(), Connection("10.0.0.2:1")
    assert taken(shares, other) == [True]
    kept: list[weakref.ref[Any]] = []
    for _ in range(100):
        call: Any = connection.call()
        call.streams = {}  # a reference to itself would wait for Python's collector
        assert shares.take(call)
        kept.append(weakref.ref(call))
        del connection.streams[call.id], call
        assert sum(call() is not None for call in kept) <= 1
    shares.tick(1.0)
    assert not any(call() for call in kept)


def test_a_snapshot_that_its_client_does_not_take_gives_way_to_another_of_his() -> None:
    served = Served()
    handler = Snapshot(served.net.context, "etcdserverpb.Maintenance")
    most = served.net.context.settings.max_client_snapshots
    calls = [ask(handler, Connection(f"10.0.0.1:{port}")) for port in range(most)]
    now = served.net.context.router.loop.time()
    for place, call in enumerate(calls):
        call.context.moved_at = call.context.sent_since = now - 11 - place
        call.context.passed = 10 << 20
    assert ask(handler, Connection("10.0.0.1:9")).status == TOO_MANY  # they wait for the node
    for call in calls:
        call.context.chunks.append((0, b"x"))
    assert ask(handler, Connection("10.0.0.2:9")).status is None
    assert ask(handler, Connection("10.0.0.1:9")).status is None
    assert [call.status for call in calls] == [None] * (most - 1) + [TOO_MANY]
    assert not calls[-1].context.chunks  # which nobody counts any more


def test_a_snapshot_whose_client_has_gone_keeps_nothing() -> None:
    served = Served()
    handler = Snapshot(served.net.context, "etcdserverpb.Maintenance")
    call = ask(handler, Connection())
    call.context.chunks.append((0, b"x"))
    handler.cancelled(call)
    assert not call.context.chunks


def test_a_snapshot_that_is_taken_gives_way_to_nobody() -> None:
    served = Served()
    handler = Snapshot(served.net.context, "etcdserverpb.Maintenance")
    most = served.net.context.settings.max_client_snapshots
    calls = [ask(handler, Connection(f"10.0.0.1:{port}")) for port in range(most)]
    now = served.net.context.router.loop.time()
    for call in calls:
        call.context.moved_at, call.context.sent_since = now - 1, now - 60
        call.context.passed = 60 * 65_536
        call.context.chunks.append((0, b"x"))
    assert ask(handler, Connection("10.0.0.1:9")).status == TOO_MANY
    assert [call.status for call in calls] == [None] * most
