"""Users, roles and permissions: the same calls on muster and on a real etcd, and what only later etcds
refuse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from cluster.pb import auth_pb2
from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import local_cluster, until
from tests.interop.auth.asking import LIMIT_S, Client, of_values, txn
from tests.interop.ctl.test_ctl_outputs import start_etcd

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def etcd() -> Iterator[Client]:
    server = start_etcd("--bcrypt-cost=4")
    yield Client(server.address)
    server.stop()


@pytest.fixture(scope="module", params=[1, 3], ids=["1 shard", "3 shards"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with local_cluster(
        tmp_path_factory.mktemp("auth") / "data", 2, f"--shards={request.param}", extra=("--bcrypt-cost=4",)
    ) as hosts:
        yield Client(*hosts.endpoints())


@pytest.fixture
def muster(cluster: Client) -> Iterator[Client]:
    cluster.arrange()
    yield cluster
    cluster.disarrange()


def _management(client: Client) -> list[Any]:
    """Every call of the service, and its refusals."""
    ask = client.ask
    said = [
        ask("Auth/AuthEnable", pb.AuthEnableRequest()),
        ask("Auth/UserAdd", pb.AuthUserAddRequest(name="", password="x")),
        ask("Auth/UserAdd", pb.AuthUserAddRequest(name="root", password="r")),
        ask("Auth/AuthEnable", pb.AuthEnableRequest()),
        ask("Auth/UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="root")),
        ask("Auth/UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="root")),
        ask("Auth/RoleGet", pb.AuthRoleGetRequest(role="root")),
        *[ask("Auth/RoleAdd", pb.AuthRoleAddRequest(name=name))
          for name in ("r", "r", "", "root", "b", "x y")],
        client.grant("r", b"k", kind=0),
        client.grant("r", b"k", kind=0),
        client.grant("r", b"a", b"b"),
        client.grant("r", b"z", b"\0", kind=1),
        client.grant("r", b"k", kind=2),
        client.grant("r", b"b", b"c"),
        client.grant("nosuch", b"k"),
        ask("Auth/RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(name="r")),
        ask("Auth/RoleGet", pb.AuthRoleGetRequest(role="r")),
        *[
            ask(
                "Auth/RoleRevokePermission",
                pb.AuthRoleRevokePermissionRequest(role=role, key=key, range_end=end),
            )
            for role, key, end in (
                ("r", b"z", b"\0"),
                ("r", b"z", b"\0"),
                ("r", b"a", b""),
                ("nosuch", b"a", b""),
            )
        ],
        ask("Auth/UserAdd", pb.AuthUserAddRequest(name="u", password="")),
        ask("Auth/UserAdd", pb.AuthUserAddRequest(name="u", password="x")),
        ask(
            "Auth/UserAdd", pb.AuthUserAddRequest(name="n", options=auth_pb2.UserAddOptions(no_password=True))
        ),
        *[
            ask(
                "Auth/UserChangePassword",
                pb.AuthUserChangePasswordRequest(name=name, password=password, hashedPassword=given),
            )
            for name, password, given in (
                ("n", "q", ""),
                ("u", "", "!!"),
                ("u", "u", ""),
                ("nosuch", "u", ""),
            )
        ],
        *[
            ask("Auth/UserGrantRole", pb.AuthUserGrantRoleRequest(user=user, role=role))
            for user, role in (("u", "r"), ("u", "b"), ("u", "nosuch"), ("nosuch", "r"), ("n", "root"))
        ],
        *[
            ask("Auth/UserRevokeRole", pb.AuthUserRevokeRoleRequest(name=user, role=role))
            for user, role in (("u", "b"), ("u", "b"), ("nosuch", "b"), ("n", "root"))
        ],
        *[ask("Auth/UserGet", pb.AuthUserGetRequest(name=name)) for name in ("u", "n", "nosuch", "")],
        ask("Auth/UserList", pb.AuthUserListRequest()),
        ask("Auth/RoleList", pb.AuthRoleListRequest()),
        client.login("u", "u"),
        ask("Auth/AuthEnable", pb.AuthEnableRequest()),
        *[
            client.login(name, password)
            for name, password in (("u", "x"), ("nosuch", "x"), ("n", "q"), ("n", ""), ("", ""))
        ],
        client.login("root", "r"),
        client.login("u", "u"),
    ]
    for who in ("", "?", "u", "root"):
        said += [
            ask("Auth/UserList", pb.AuthUserListRequest(), who),
            ask("Auth/RoleList", pb.AuthRoleListRequest(), who),
            *[
                ask("Auth/UserGet", pb.AuthUserGetRequest(name=name), who)
                for name in ("u", "n", "nosuch", "")
            ],
            *[ask("Auth/RoleGet", pb.AuthRoleGetRequest(role=role), who) for role in ("r", "b", "nosuch")],
            ask("Auth/RoleAdd", pb.AuthRoleAddRequest(name="x"), who),
            ask("Auth/AuthEnable", pb.AuthEnableRequest(), who),
            ask("Auth/UserDelete", pb.AuthUserDeleteRequest(name="root"), who),
            ask("Auth/RoleDelete", pb.AuthRoleDeleteRequest(role="root"), who),
            ask("Auth/UserRevokeRole", pb.AuthUserRevokeRoleRequest(name="root", role="root"), who),
        ]
    said += [ask("Auth/RoleDelete", pb.AuthRoleDeleteRequest(role=role), "root") for role in ("r", "r", "x")]
    said += [ask("Auth/UserGet", pb.AuthUserGetRequest(name="u"), "root"), client.get(b"k", "u")]
    said += [
        ask("Auth/UserChangePassword", pb.AuthUserChangePasswordRequest(name="u", password="u2"), "root")
    ]
    said += [client.get(b"k", "u"), client.login("u", "u"), client.login("u", "u2"), client.get(b"k", "u")]
    said += [ask("Auth/UserDelete", pb.AuthUserDeleteRequest(name="u"), "root"), client.get(b"k", "u")]
    said += [ask("Auth/AuthDisable", pb.AuthDisableRequest(), who) for who in ("u", "root", "")]
    return said


def test_users_and_roles_are_managed_as_in_etcd(etcd: Client, cluster: Client) -> None:
    wanted, got = _management(etcd), _management(cluster)
    etcd.disarrange()
    cluster.disarrange()
    assert [(at, mine) for at, mine in enumerate(got)] == list(enumerate(wanted))


def _keys(client: Client) -> list[Any]:
    """What whom is allowed."""
    ask, said = client.ask, []
    for who in ("", "?", "u", "root"):
        said += [client.put(key, who) for key in (b"/d/u/1", b"/d/k", b"/d/other", b"/e/k", b"")]
        said += [
            client.get(key, who, end)
            for key, end in (
                (b"/d/u/1", b""),
                (b"/d/u/", b"/d/u0"),
                (b"/d/k", b""),
                (b"/d/k", b"/d/k\0"),
                (b"/d/k", b"/d/k\0\0"),
                (b"/d/j", b"/d/l"),
                (b"/d/u/", b"/d/v"),
                (b"/d/", b"\0"),
                (b"\0", b"\0"),
                (b"/d/x", b""),
                (b"/d/u/", b"/d/a"),
                (b"/d/u/", b"/d/u/"),
                (b"/d/k", b"/d/k"),
                (b"/d/x", b"/d/x"),
            )
        ]
        said += [client.put(key, who, ignore_value=True) for key in (b"/d/k", b"/e/k")]
        said += [client.put(key, who, ignore_lease=True, lease=5) for key in (b"/d/k", b"/e/k")]
        said += [client.get(b"/d/x", who, serializable=True), client.get(b"/d/u/1", who, serializable=True)]
        said += [
            ask("KV/Txn", request, who)
            for request in (
                txn(b"/d/u/1", b"/d/u/2", b"/d/u/3"),
                txn(b"/d/x", b"/d/u/2"),
                txn(b"/d/u/1", b"/d/x"),
                txn(b"", b"/d/u/2", b"/d/x"),
                txn(b"/d/u/1", b"/d/u/2", gone=b"/d/x"),
                txn(b"/d/u/1", b"/d/k", gone=b"/d/u/4"),
                txn(b"", b"", b"/d/x"),
                txn(b"", b"", b"/d/k"),
                txn(),
            )
        ]
        said += [
            ask("KV/DeleteRange", pb.DeleteRangeRequest(key=key, range_end=end), who)
            for key, end in ((b"/d/u/", b"/d/u0"), (b"/d/", b"/d0"), (b"/d/k", b""))
        ]
    return said


def test_each_request_is_judged_as_in_etcd(etcd: Client, muster: Client) -> None:
    etcd.arrange()
    wanted = of_values(_keys(etcd))
    etcd.disarrange()
    assert of_values(_keys(muster)) == wanted


def test_a_token_of_one_host_is_known_at_the_other(muster: Client) -> None:
    assert not muster.login("u", "u", host=1)
    for host in (0, 1, 0):
        assert not isinstance(muster.get(b"/d/k", "u", host=host), str)
        assert muster.get(b"/d/x", "u", host=host) == "PERMISSION_DENIED: etcdserver: permission denied"


def test_nested_transactions_are_judged_whole(muster: Client) -> None:
    """etcd 3.5.1 looked at no transaction within another; later ones do."""
    deep = txn(b"", b"/d/x")
    for _ in range(3):
        deep = pb.TxnRequest(failure=[pb.RequestOp(request_txn=deep)])
    assert muster.ask("KV/Txn", deep, "u") == "PERMISSION_DENIED: etcdserver: permission denied"
    assert not isinstance(muster.ask("KV/Txn", deep, "root"), str)


@pytest.mark.parametrize("serializable", [False, True])
def test_the_branch_that_is_not_taken_is_judged_too(muster: Client, serializable: bool) -> None:
    def read(key: bytes, range_end: bytes) -> pb.RequestOp:
        asked = pb.RangeRequest(key=key, range_end=range_end, serializable=serializable)
        return pb.RequestOp(request_range=asked)

    own, others = read(b"/d/u/", b"/d/u0"), read(b"/", b"\0")
    absent = pb.Compare(key=b"/d/k", target=pb.Compare.VERSION, version=0)
    denied = "PERMISSION_DENIED: etcdserver: permission denied"
    for compares in ([absent], []):
        txn = pb.TxnRequest(compare=compares, success=[own], failure=[others])
        assert muster.ask("KV/Txn", txn, "u") == denied
        assert muster.ask("KV/Txn", txn, "root").succeeded
        allowed = pb.TxnRequest(compare=compares, success=[own], failure=[own])
        assert muster.ask("KV/Txn", allowed, "u").succeeded


def test_a_lease_is_his_who_may_write_all_its_keys(muster: Client) -> None:
    """Its keys hang in several shards, where there are several."""
    denied = "PERMISSION_DENIED: etcdserver: permission denied"
    for lease, key in ((71, b"/d/other"), (72, b"/zz/other"), (73, b"/aa/b/other"), (74, b"/x/y/other")):
        assert not isinstance(
            muster.ask("Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=600, ID=lease), "u"), str
        )
        assert not isinstance(muster.put(b"/d/u/mine", "u", lease=lease), str)
        assert not isinstance(muster.put(key, "root", lease=lease), str)
        revoke = pb.LeaseRevokeRequest(ID=lease)
        live = pb.LeaseTimeToLiveRequest(ID=lease, keys=True)
        assert muster.put(b"/d/u/mine", "u", lease=lease) == denied
        assert muster.ask("Lease/LeaseRevoke", revoke, "u") == denied
        assert muster.ask("Lease/LeaseTimeToLive", live, "u") == denied
        assert muster.ask("Lease/LeaseLeases", pb.LeaseLeasesRequest(), "u") == denied
        assert _renewed(muster, lease, "u") == denied
        assert _renewed(muster, lease, "root") == 600
        assert key in muster.ask("Lease/LeaseTimeToLive", live, "root").keys
        assert not isinstance(muster.ask("Lease/LeaseRevoke", revoke, "root"), str)
    assert not isinstance(muster.ask("Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=600, ID=75), "u"), str)
    assert not isinstance(muster.put(b"/d/u/mine", "u", lease=75), str)
    assert _renewed(muster, 75, "u") == 600
    assert not isinstance(muster.ask("Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=75), "u"), str)


def _renewed(client: Client, lease: int, who: str) -> Any:
    renew = client.channels[0].stream_stream(
        "/etcdserverpb.Lease/LeaseKeepAlive",
        request_serializer=pb.LeaseKeepAliveRequest.SerializeToString,
        response_deserializer=pb.LeaseKeepAliveResponse.FromString,
    )
    try:
        return next(
            iter(
                renew(
                    iter([pb.LeaseKeepAliveRequest(ID=lease)]), metadata=client.metadata(who), timeout=LIMIT_S
                )
            )
        ).TTL
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ("", "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"),
        ("?", "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"),
        ("u", "rpc error: code = PermissionDenied desc = etcdserver: permission denied"),
    ],
)
def test_a_watch_that_is_not_allowed_is_created_and_canceled(muster: Client, who: str, reason: str) -> None:
    watch = muster.watch(b"/d/x", who)
    answer = watch.next()
    assert (answer.watch_id, answer.created, answer.canceled, answer.cancel_reason) == (
        -1,
        True,
        True,
        reason,
    )
    watch.close()


def test_a_permission_on_one_key_shows_no_later_key(muster: Client) -> None:
    for range_end in (b"\0", b"/d/l", b"/d/k\0\0"):
        watch = muster.watch(b"/d/k", "u", range_end)
        assert watch.next().canceled
        watch.close()
    watch = muster.watch(b"/d/k", "u")
    assert watch.next().created
    muster.put(b"/d/k\0", "root")
    muster.put(b"/d/k", "root")
    assert [event.kv.key for event in watch.next().events] == [b"/d/k"]
    watch.close()


def test_a_user_whose_permission_goes_loses_his_watch_and_no_other(muster: Client) -> None:
    lost, kept, roots = (
        muster.watch(b"/d/k", "u"),
        muster.watch(b"/d/u/", "u", b"/d/u0"),
        muster.watch(b"/d/k", "root"),
    )
    assert all(watch.next().created for watch in (lost, kept, roots))
    revoke = pb.AuthRoleRevokePermissionRequest(role="r", key=b"/d/k")
    assert not isinstance(muster.ask("Auth/RoleRevokePermission", revoke, "root"), str)
    answer = lost.next()
    assert answer.canceled
    assert answer.cancel_reason == "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    muster.put(b"/d/k", "root")
    muster.put(b"/d/u/1", "root")
    assert [event.kv.key for event in roots.next().events] == [b"/d/k"]
    assert [event.kv.key for event in kept.next().events] == [b"/d/u/1"]
    for watch in (lost, kept, roots):
        watch.close()


def test_a_watch_of_nobody_ends_when_auth_is_enabled(muster: Client) -> None:
    muster.ask("Auth/AuthDisable", pb.AuthDisableRequest(), "root")
    watch = muster.watch(b"/d/x")
    assert watch.next().created
    muster.ask("Auth/AuthEnable", pb.AuthEnableRequest())
    assert watch.next().canceled
    watch.close()


def test_tokens_end_with_what_they_rest_on(muster: Client) -> None:
    invalid = "UNAUTHENTICATED: etcdserver: invalid auth token"
    muster.ask("Auth/AuthDisable", pb.AuthDisableRequest(), "root")
    assert not isinstance(muster.get(b"/d/x", "u"), str)  # ignored while auth is off
    muster.ask("Auth/AuthEnable", pb.AuthEnableRequest())
    assert muster.get(b"/d/k", "u") == invalid
    assert muster.ask("Auth/UserList", pb.AuthUserListRequest(), "root") == invalid


def test_only_root_changes_or_copies_the_store_whole(muster: Client) -> None:
    requests: list[tuple[str, Any]] = [
        ("KV/Compact", pb.CompactionRequest(revision=1)),
        ("Maintenance/Hash", pb.HashRequest()),
        ("Maintenance/HashKV", pb.HashKVRequest()),
        ("Maintenance/Alarm", pb.AlarmRequest(action="DEACTIVATE", memberID=1, alarm="NOSPACE")),
    ]
    for method, request in requests:
        assert "permission denied" in muster.ask(method, request, "u")
        assert "user name is empty" in muster.ask(method, request)
        answer = muster.ask(method, request, "root")
        assert not isinstance(answer, str) or "compacted" in answer


def test_a_client_without_a_name_does_and_learns_nothing(muster: Client) -> None:
    """Each of these was open to anybody in releases of etcd before March 2026."""
    muster.ask("Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=600, ID=91), "root")
    requests: list[tuple[str, Any]] = [
        ("Cluster/MemberList", pb.MemberListRequest()),
        ("Cluster/MemberList", pb.MemberListRequest(linearizable=True)),
        ("Maintenance/Alarm", pb.AlarmRequest(action="GET")),
        ("Maintenance/Alarm", pb.AlarmRequest(action="ACTIVATE", memberID=1, alarm="NOSPACE")),
        ("Maintenance/Status", pb.StatusRequest()),
        ("Maintenance/Defragment", pb.DefragmentRequest()),
        ("Maintenance/MoveLeader", pb.MoveLeaderRequest(targetID=1)),
        ("Maintenance/Downgrade", pb.DowngradeRequest(action="VALIDATE", version="3.4.0")),
        ("Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=600, ID=91)),
        ("Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=91)),
        ("Lease/LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=91)),
        ("Lease/LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=91, keys=True)),
        ("Lease/LeaseLeases", pb.LeaseLeasesRequest()),
        ("Auth/UserList", pb.AuthUserListRequest()),
        ("Auth/RoleList", pb.AuthRoleListRequest()),
    ]
    for method, request in requests:
        assert muster.ask(method, request, "?") == "UNAUTHENTICATED: etcdserver: invalid auth token", method
        assert "user name is empty" in str(muster.ask(method, request)), method
    snapshot = pb.SnapshotRequest()
    assert "user name is empty" in _first(muster, "Maintenance/Snapshot", snapshot, pb.SnapshotResponse)
    ended = _first(muster, "Lease/LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=91), pb.LeaseKeepAliveResponse)
    assert "user name is empty" in ended


def _first(client: Client, method: str, request: Any, answer: Any) -> str:
    """What a stream ends with, or how its first answer reads."""
    call = client.channels[0].stream_stream(
        f"/etcdserverpb.{method}", request_serializer=type(request).SerializeToString,
        response_deserializer=answer.FromString,
    )  # fmt: skip
    try:
        return str(next(call(iter([request]), timeout=LIMIT_S, wait_for_ready=True)))
    except grpc.RpcError as error:
        return str(error.details())


@pytest.mark.parametrize("who", ["u"])
def test_a_put_within_a_transaction_needs_what_it_reads_and_its_lease_needs(muster: Client, who: str) -> None:
    """The value that a put shows is a read; a lease is given to who may write all that hangs on it."""
    denied = "PERMISSION_DENIED: etcdserver: permission denied"
    only_writes = "w"
    muster.ask("Auth/RoleAdd", pb.AuthRoleAddRequest(name=only_writes), "root")
    muster.grant(only_writes, b"/d/w", kind=1, who="root")
    muster.ask("Auth/UserGrantRole", pb.AuthUserGrantRoleRequest(user=who, role=only_writes), "root")
    lease = muster.ask("Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=600, ID=92), "root").ID
    muster.put(b"/d/x", "root", lease=lease)

    def put(**rest: Any) -> Any:
        op = pb.RequestOp(request_put=pb.PutRequest(key=b"/d/w", value=b"v", **rest))
        for _ in range(2):
            op = pb.RequestOp(request_txn=pb.TxnRequest(success=[op]))
        return muster.ask("KV/Txn", pb.TxnRequest(success=[op]), who)

    assert not isinstance(put(), str)
    assert put(prev_kv=True) == denied
    assert put(lease=lease) == denied


def test_only_root_changes_members(muster: Client) -> None:
    """And root may: what it is told is what the cluster says of the change."""
    requests: list[tuple[str, Any]] = [
        ("Cluster/MemberAdd", pb.MemberAddRequest(peerURLs=muster.peer_urls()[:1])),
        ("Cluster/MemberUpdate", pb.MemberUpdateRequest(ID=5, peerURLs=["http://127.0.0.1:1"])),
        ("Cluster/MemberRemove", pb.MemberRemoveRequest(ID=5)),
        ("Cluster/MemberPromote", pb.MemberPromoteRequest(ID=5)),
    ]
    for method, request in requests:
        assert muster.ask(method, request, "u") == "PERMISSION_DENIED: etcdserver: permission denied"
        assert muster.ask(method, request) == "INVALID_ARGUMENT: etcdserver: user name is empty"
        answer = muster.ask(method, request, "root")
        assert isinstance(answer, str)
        said = ("member not found", "Peer URLs already exists", "unhealthy cluster")  # the last: it is young
        assert any(words in answer for words in said)


@pytest.mark.parametrize("who", ["", "u", "?"])
def test_a_put_that_is_none_is_refused_and_harms_nobody(muster: Client, who: str) -> None:
    """With one shard a front passes puts on unread: who judges them reads them first."""
    call = muster.channels[0].unary_unary("/etcdserverpb.KV/Put")
    before = muster.ask("Maintenance/Status", pb.StatusRequest(), "root").raftTerm
    for data in (b"\x0a\x04/d/k\x12\xff", b"\x0a\x04/d/k\x18\xff", b"\x0a\x04/d/k\x7f"):
        with pytest.raises(grpc.RpcError) as refused:
            call(data, metadata=muster.metadata(who), timeout=LIMIT_S, wait_for_ready=True)
        assert refused.value.code() in (  # type: ignore[attr-defined]
            grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAUTHENTICATED)
    assert muster.ask("Maintenance/Status", pb.StatusRequest(), "root").raftTerm == before


def test_a_replica_that_answers_by_itself_judges_by_itself(muster: Client) -> None:
    """Once it has applied that auth is on, as an etcd's member."""
    denied = "PERMISSION_DENIED: etcdserver: permission denied"
    until(lambda: muster.get(b"/d/x", "u", host=1, serializable=True) == denied)
    assert not isinstance(muster.get(b"/d/k", "u", host=1, serializable=True), str)
