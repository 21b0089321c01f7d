"""Rows on what else a port answers, and on programs of others that ask it. Each check is given a site, as in
``keys``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tests.cluster.local_cluster import until
from tests.interop.rows.table import ROOT, Checks
from tests.interop.rows.world import Got, Site, World
from tests.interop.v2.v2_hosts import Server

PORTS = Checks()
row = PORTS.row

_COUNTERS = [
    "getsSuccess",
    "getsFail",
    "setsSuccess",
    "setsFail",
    "deleteSuccess",
    "deleteFail",
    "updateSuccess",
    "updateFail",
    "createSuccess",
    "createFail",
    "compareAndSwapSuccess",
    "compareAndSwapFail",
    "compareAndDeleteSuccess",
    "compareAndDeleteFail",
    "expireCount",
    "watchers",
]


@row("S0-006")
def one_port(site: Site, world: World) -> None:
    import grpc

    from cluster.pb import rpc_pb2 as pb
    from tests.interop.hosts import unary

    assert set(site.ask("GET", "/version").json) == {"etcdserver", "etcdcluster"}
    with grpc.insecure_channel(site.server.address) as channel:
        unary(channel, "KV/Range", pb.RangeResponse)(pb.RangeRequest(key=b"x"), timeout=30)


@row("S0-008")
def metrics(site: Site, world: World) -> None:
    found = site.ask("GET", "/metrics")
    assert found.headers["content-type"].startswith("text/plain")
    assert re.search(r"^etcd_server_has_leader 1(\.0)?$", found.body, re.MULTILINE)


@row("S1-023")
def version(site: Site, world: World) -> None:
    found = site.ask("GET", "/version")
    assert (found.status, found.headers["content-length"]) == (200, str(len(found.body)))
    assert re.fullmatch(r'\{"etcdserver":"3\.\d+\.\d+","etcdcluster":"3\.\d+\.0"\}', found.body)


@row("S1-064")
def leader_stats(site: Site, world: World) -> None:
    def told() -> list[Got]:
        found = [member.ask("GET", "/v2/stats/leader") for member in world.members]
        leads = [answer for answer in found if answer.status == 200]
        return (
            [*leads, *(a for a in found if a.status != 200)]
            if len(leads) == 1 and len(leads[0].json["followers"]) == 2
            else []
        )

    first, *others = until(told)
    followers = first.json["followers"]
    assert first.json["leader"] not in followers
    for follower in followers.values():
        assert set(follower) == {"latency", "counts"}
    assert [(other.status, other.body) for other in others] == [
        (403, '{"message":"not current leader"}')
    ] * 2
    here = site.ask("GET", "/v2/stats/leader")  # a proxy shows that of the member that it asks
    assert here.status == 403 or here.json["leader"] == first.json["leader"]


@row("S1-065")
def self_stats(site: Site, world: World) -> None:
    states = []
    for member in world.members:
        found = member.ask("GET", "/v2/stats/self").json
        assert {"name", "id", "state", "startTime", "leaderInfo"} <= set(found)
        states.append(found["state"])
    assert set(states) <= {"StateLeader", "StateFollower", "StateCandidate"}
    here = site.ask("GET", "/v2/stats/self").json
    listed = site.ask("GET", "/v2/members").json["members"]
    assert (here["id"], here["name"]) in {(member["id"], member["name"]) for member in listed}
    until(
        lambda: (
            [m.ask("GET", "/v2/stats/self").json.get("state") for m in world.members].count("StateLeader")
            == 1
        )
    )


@row("S1-066")
def store_stats(site: Site, world: World) -> None:
    site.settle()
    before = site.ask("GET", "/v2/stats/store").json
    assert list(before) == _COUNTERS
    site.put("/foo", "value=x")
    site.settle()
    until(lambda: site.ask("GET", "/v2/stats/store").json["setsSuccess"] > before["setsSuccess"])
    assert site.ask("GET", "/v2/state/store").status == 404


@row("S1-008")
def statistics_window(site: Site, world: World) -> None:
    for name in ("store", "self"):
        assert site.ask("GET", f"/v2/stats/{name}").status == 200
    assert site.ask("GET", "/v2/stats/leader").status in (200, 403)


@row("S1-001", "S1-004")
def browser_edits(site: Site, world: World) -> None:
    assert site.put("/dir/n?value=v").node["value"] == "v"
    assert site.put("/dir/n?value=w%20%26%3D").node["value"] == "w &="
    assert site.value("/dir/n") == "w &="


@row("S1-005")
def browser_copies(site: Site, world: World) -> None:
    site.put("/dir/a?value=1")
    site.put("/dir/sub/b?value=2")
    for node in site.get("/dir").node["nodes"]:
        found = site.get(node["key"]).node
        for file in found.get("nodes", [found]):
            site.put(f"{file['key'].replace('/dir', '/copy', 1)}?value={file['value']}")
    assert (site.value("/copy/a"), site.value("/copy/sub/b")) == ("1", "2")


@row("S1-006", "S1-007")
def browser_deletes(site: Site, world: World) -> None:
    assert site.put("/dir/d?dir=true").status == 201
    site.put("/dir/n?value=v")
    assert site.delete("/dir/n").status == 200
    assert site.delete("/dir?dir=true&recursive=true").status == 200
    assert site.names("/") == []


@row("S1-009")
def browser_errors(site: Site, world: World) -> None:
    assert site.get("/none").json["message"] == "Key not found"


@row("S1-013")
def keeper(site: Site, world: World) -> None:
    assert site.put("/k/x", "value=1&ttl=500").status == 201
    assert site.put("/k/d", "dir=true").status == 201
    nodes = site.get("/?recursive=true&sorted=true").node["nodes"]
    assert [node["key"] for node in nodes[0]["nodes"]] == ["/k/d", "/k/x"]
    assert site.delete("/k?dir=true&recursive=true").status == 200
    assert "etcdserver" in site.ask("GET", "/version").json
    leads = until(lambda: site.ask("GET", "/v2/members/leader")).json
    assert leads["clientURLs"][0].removeprefix("http://") in world.endpoints


@row("S1-012")
def keeper_of_version_3(site: Site, world: World) -> None:
    import grpc

    from cluster.pb import rpc_pb2 as pb
    from tests.interop.hosts import unary

    with grpc.insecure_channel(site.server.address) as channel:

        def call(method: str, request: object, response: type) -> object:
            return unary(channel, method, response)(request, timeout=30)

        lease = call("Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=500), pb.LeaseGrantResponse)
        granted = lease.ID  # type: ignore[attr-defined]
        for key, holder in ((b"/keeper/a", 0), (b"/keeper/b/c", granted)):
            call("KV/Put", pb.PutRequest(key=key, value=b"v", lease=holder), pb.PutResponse)
        below = {"key": b"/keeper/", "range_end": b"/keeper0"}
        asked = pb.RangeRequest(**below, keys_only=True, sort_order="ASCEND", sort_target="KEY")
        found = call("KV/Range", asked, pb.RangeResponse)
        assert [kv.key for kv in found.kvs] == [b"/keeper/a", b"/keeper/b/c"]  # type: ignore[attr-defined]
        left = [
            call("Lease/LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=of), pb.LeaseTimeToLiveResponse)
            for of in (granted, 0)
        ]
        assert left[0].TTL > 400  # type: ignore[attr-defined]
        assert left[1].TTL == -1  # type: ignore[attr-defined]
        status = call("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse)
        assert status.version.startswith("3.")  # type: ignore[attr-defined]
        assert status.dbSize > 0  # type: ignore[attr-defined]
        members = call("Cluster/MemberList", pb.MemberListRequest(), pb.MemberListResponse)
        assert len(members.members) == 3  # type: ignore[attr-defined]
        gone = call("KV/DeleteRange", pb.DeleteRangeRequest(**below), pb.DeleteRangeResponse)
        assert gone.deleted == 2  # type: ignore[attr-defined]
        _asks_of_a_login(call)


def _asks_of_a_login(call: Callable[[str, Any, Any], Any]) -> None:
    """Of a user, and of its role."""
    from cluster.pb import auth_pb2
    from cluster.pb import rpc_pb2 as pb

    options = auth_pb2.UserAddOptions(no_password=True)
    call("Auth/UserAdd", pb.AuthUserAddRequest(name="keeper", options=options), pb.AuthUserAddResponse)
    call("Auth/RoleAdd", pb.AuthRoleAddRequest(name="keeps"), pb.AuthRoleAddResponse)
    grant = pb.AuthUserGrantRoleRequest(user="keeper", role="keeps")
    call("Auth/UserGrantRole", grant, pb.AuthUserGrantRoleResponse)
    listed = call("Auth/UserList", pb.AuthUserListRequest(), pb.AuthUserListResponse)
    assert "keeper" in listed.users
    user = call("Auth/UserGet", pb.AuthUserGetRequest(name="keeper"), pb.AuthUserGetResponse)
    assert user.roles == ["keeps"]
    role = call("Auth/RoleGet", pb.AuthRoleGetRequest(role="keeps"), pb.AuthRoleGetResponse)
    assert not role.perm
    call("Auth/UserDelete", pb.AuthUserDeleteRequest(name="keeper"), pb.AuthUserDeleteResponse)
    call("Auth/RoleDelete", pb.AuthRoleDeleteRequest(role="keeps"), pb.AuthRoleDeleteResponse)


@row("S1-090")
def other_languages(site: Site, world: World) -> None:
    site.put("/hello", "value=there")
    site.settle()
    url = f"{site.url}/v2/keys/hello?quorum=true"
    program = f"import json, urllib.request as u; print(json.load(u.urlopen('{url}'))['node']['value'])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "there\n"


@row("S1-114")
def confd(site: Site, world: World) -> None:
    site.put("/confd/myapp/database/url", "value=db.example.com")
    found = site.get("/confd/myapp?quorum=false&recursive=true&sorted=true")
    assert found.node["nodes"][0]["nodes"][0]["value"] == "db.example.com"
    index = int(found.headers["x-etcd-index"])
    waiting = site.wait(f"/confd?recursive=true&wait=true&waitIndex={index + 1}")
    site.put("/confd/myapp/user", "value=rob")
    assert waiting.event()["node"]["key"] == "/confd/myapp/user"


@row("S2-014")
def two_stores(site: Site, world: World) -> None:
    site.put("/both/k", "value=2")
    body = {"key": "L2JvdGgvaw=="}  # /both/k
    found = site.ask("POST", "/v3/kv/range", json.dumps(body), "application/json")
    assert "kvs" not in found.json
    assert site.get("/both").node["dir"]


@row("S2-016")
def http_and_json(site: Site, world: World) -> None:
    site.put("/a", "value=1")
    assert site.value("/a") == "1"
    kind = "application/json"
    assert site.ask("POST", "/v3/kv/put", '{"key":"YQ==","value":"MQ=="}', kind).status == 200
    found = site.ask("POST", "/v3/kv/range", '{"key":"YQ=="}', kind)
    assert found.json["kvs"][0]["value"] == "MQ=="


@row("S3-014")
def any_member(site: Site, world: World) -> None:
    for n in range(5):
        site.put(f"/codes/{n}", f"value={n * n}")
    for member in world.members:
        assert [member.value(f"/codes/{n}") for n in range(5)] == ["0", "1", "4", "9", "16"]


@row("S3-033")
def http_for_clients_and_peers(site: Site, world: World) -> None:
    assert set(site.ask("GET", "/version").json) == {"etcdserver", "etcdcluster"}
    listed = sorted(host["peer_urls"] for host in world.cluster.status()["hosts"])
    for (url,) in listed:
        found = Server(url.removeprefix("http://")).ask("GET", "/members")
        assert sorted(member["peerURLs"] for member in json.loads(found.body)) == listed
        assert found.headers["x-etcd-cluster-id"] == site.get("/").headers["x-etcd-cluster-id"]


@row("S3-046")
def nothing_special(site: Site, world: World) -> None:
    assert site.get("/_etcd").refusal == (404, 100, "/_etcd")


@row("S3-060")
def discovery_size(site: Site, world: World) -> None:
    assert site.put("/_h/token/_config/size", "value=3").status == 201
    assert site.value("/_h/token/_config/size") == "3"
    assert site.names("/_h/token") == []  # hidden below as well


@row("S0-126", "S3-052")
def terms(site: Site, world: World) -> None:
    page = (ROOT / "docs" / "know" / "concepts.md").read_text(encoding="utf-8").lower()
    words = re.findall(
        r"\w+",
        "raft node member cluster peer client wal snapshot proxy leader follower candidate term index",
    )
    assert [word for word in words if not re.search(rf"\b{word}\b", page)] == []
