"""Rows on keys over HTTP. Each check is given a site whose tree is empty: a member, another, the proxy."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.cluster.local_cluster import until
from tests.interop.rows.table import Checks
from tests.interop.rows.world import Got, Site, World
from tests.interop.v2.v2_hosts import Server

KEYS = Checks()
row = KEYS.row

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


def change(found: Got, status: int, action: str) -> int:
    """A change has this status and action; its index."""
    assert (found.status, found.json["action"]) == (status, action), found
    assert found.headers["x-etcd-index"] == str(found.node["modifiedIndex"])
    return int(found.node["modifiedIndex"])


@row("S0-004")
def quorum(site: Site, world: World) -> None:
    for number, other in enumerate(world.members):
        assert world.members[number - 1].put("/a", f"value={number}").status in (200, 201)
        found = other.ask("GET", "/v2/keys/a?quorum=true")
        assert found.node["value"] == str(number)


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


@row("S0-050", "S0-069", "S3-040")
def by_curl(site: Site, world: World) -> None:
    def curl(*words: str) -> str:
        line = ["curl", "-sS", "--max-time", "60", *words]
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=90).stdout

    url = f"{site.url}/v2/keys/c"
    made = json.loads(curl(url, "-XPOST", "-d", "value=0"))["node"]["key"]
    assert re.fullmatch(r"/c/\d{20}", made)
    head, _, body = curl("-i", f"{site.url}/v2/keys/a", "-XPUT", "-d", "value=1").partition("\n\n")
    assert "\nContent-Type: application/json\n" in head  # letter by letter, as articles show it
    assert json.loads(body)["action"] == "set"
    site.settle()
    assert json.loads(curl(f"{site.url}/v2/keys/a?quorum=true"))["node"]["value"] == "1"
    assert json.loads(curl(f"{site.url}/v2/keys/a", "-XDELETE"))["action"] == "delete"
    assert json.loads(curl(f"{url}?recursive=true", "-XDELETE"))["prevNode"]["dir"]


@row("S1-023")
def version(site: Site, world: World) -> None:
    found = site.ask("GET", "/version")
    assert (found.status, found.headers["content-length"]) == (200, str(len(found.body)))
    assert re.fullmatch(r'\{"etcdserver":"3\.\d+\.\d+","etcdcluster":"3\.\d+\.0"\}', found.body)


@row("S1-024", "S1-025")
def put(site: Site, world: World) -> None:
    found = site.put("/message?value=hello,%20etcd")
    index = change(found, 201, "set")
    node = {"key": "/message", "value": "hello, etcd", "modifiedIndex": index, "createdIndex": index}
    assert found.json == {"action": "set", "node": node}
    assert re.fullmatch("[0-9a-f]{1,16}", found.headers["x-etcd-cluster-id"])
    assert int(found.headers["x-raft-index"]) > 0
    assert int(found.headers["x-raft-term"]) > 0
    assert found.headers["content-length"] == str(len(found.body))


@row("S1-027")
def get(site: Site, world: World) -> None:
    index = change(site.put("/message", "value=hello, etcd"), 201, "set")
    found = site.get("/message")
    node = {"key": "/message", "value": "hello, etcd", "modifiedIndex": index, "createdIndex": index}
    assert (found.status, found.json) == (200, {"action": "get", "node": node})


@row("S1-028")
def put_again(site: Site, world: World) -> None:
    first = site.put("/message", "value=hello, etcd").node
    found = site.put("/message?value=I'm%20changed")
    index = change(found, 200, "set")
    assert found.json["prevNode"] == first
    assert (found.node["value"], found.node["createdIndex"]) == ("I'm changed", index)


@row("S1-029")
def delete(site: Site, world: World) -> None:
    first = site.put("/message", "value=x").node
    found = site.delete("/message")
    index = change(found, 200, "delete")
    assert found.node == {
        "key": "/message",
        "modifiedIndex": index,
        "createdIndex": first["createdIndex"],
    }
    assert index > first["modifiedIndex"]
    assert found.json["prevNode"] == first


@row("S1-030")
def ttl(site: Site, world: World) -> None:
    found = site.put("/tempkey?value=Gone%20with%20wind&ttl=500")
    change(found, 201, "set")
    assert 400 < found.node["ttl"] <= 500
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", found.node["expiration"])


@row("S1-033")
def ttl_off(site: Site, world: World) -> None:
    site.put("/tempkey", "value=x&ttl=500")
    found = site.put("/tempkey?value=bar&ttl=&prevExist=true")
    change(found, 200, "update")
    assert "expiration" not in found.node
    assert found.node["value"] == "bar"
    assert "expiration" in found.json["prevNode"]
    assert site.put("/tempkey?ttl=&prevExist=true").node["value"] == ""
    assert "expiration" not in site.get("/tempkey").node


@row("S1-034")
def refresh(site: Site, world: World) -> None:
    first = site.put("/tempkey", "value=x&ttl=300").node
    waiting = site.wait("/tempkey?wait=true")
    found = site.put("/tempkey?ttl=500&refresh=true")
    change(found, 200, "set")
    assert (found.node["value"], found.json["prevNode"]["createdIndex"]) == ("x", first["createdIndex"])
    assert 300 < found.node["ttl"] <= 500
    change(site.put("/tempkey?ttl=400&refresh=true&prevExist=true"), 200, "update")
    site.put("/tempkey", "value=y")
    assert waiting.event()["node"]["value"] == "y"  # no refresh woke it


@row("S1-043")
def in_order(site: Site, world: World) -> None:
    found = site.post("/queue?value=job1")
    index = change(found, 201, "create")
    assert found.node["key"] == f"/queue/{index:020}"


@row("S1-044", "S1-045")
def sorted_queue(site: Site, world: World) -> None:
    names = [site.post("/queue?value=job1").node["key"]]
    site.put("/elsewhere", "value=1")
    names += [site.post(f"/queue?value=job{n}").node["key"] for n in (2, 3)]
    numbers = [int(name.rpartition("/")[2]) for name in names]
    assert numbers == sorted(numbers)
    assert numbers[1] > numbers[0] + 1
    site.put("/queue/0", "value=job0")  # the last that is made, and the first of the names
    nodes = site.get("/queue?sorted=true").node["nodes"]
    assert [node["value"] for node in nodes] == ["job0", "job1", "job2", "job3"]
    assert [node["key"] for node in nodes] == ["/queue/0", *names]


@row("S1-046")
def directory_ttl(site: Site, world: World) -> None:
    site.put("/dir?dir=true")
    found = site.put("/dir?dir=true&ttl=500&prevExist=true")
    assert (found.status, found.json["action"]) == (200, "update")
    assert found.node["dir"]
    assert 400 < found.node["ttl"] <= 500


@row("S1-048")
def swap_by_value(site: Site, world: World) -> None:
    first = site.put("/foo", "value=bar").node
    found = site.put("/foo?prevValue=bar&value=changed")
    change(found, 200, "compareAndSwap")
    assert (found.node["createdIndex"], found.json["prevNode"]) == (first["createdIndex"], first)
    assert (
        site.put("/foo?preValue=nothing&value=plain").json["action"] == "set"
    )  # misspelled: a plain set


@row("S1-049")
def swap_by_index(site: Site, world: World) -> None:
    index = site.put("/foo", "value=bar").node["modifiedIndex"]
    change(site.put(f"/foo?prevIndex={index}&value=changed"), 200, "compareAndSwap")
    assert site.put(f"/foo?prevIndex={index}&value=again").refusal == (
        412,
        101,
        f"[{index} != {site.get('/foo').node['modifiedIndex']}]",
    )


@row("S1-050")
def prev_exist(site: Site, world: World) -> None:
    assert site.put("/foo?prevExist=true", "value=x").refusal == (404, 100, "/foo")
    change(site.put("/foo?prevExist=false", "value=x"), 201, "create")
    assert site.put("/foo?prevExist=false", "value=y").refusal == (412, 105, "/foo")
    change(site.put("/foo?prevExist=true", "value=z"), 200, "update")


@row("S1-051")
def swap_refused(site: Site, world: World) -> None:
    site.put("/foo", "value=changed")
    found = site.put("/foo?prevValue=bar&value=other")
    assert found.refusal == (412, 101, "[bar != changed]")
    body = found.json
    assert list(body) == ["errorCode", "message", "cause", "index"]
    assert body["message"] == "Compare failed"
    assert len(found.body) == 81 + len(str(body["index"]))  # 85 bytes at an index of four digits


@row("S1-052")
def index_zero(site: Site, world: World) -> None:
    site.put("/foo", "value=bar")
    change(site.put("/foo?prevIndex=0&value=x"), 200, "set")


@row("S1-053")
def both_conditions(site: Site, world: World) -> None:
    index = site.put("/foo", "value=bar").node["modifiedIndex"]
    assert site.put("/foo?prevValue=bar&prevIndex=1&value=x").refusal[:2] == (412, 101)
    assert site.put(f"/foo?prevValue=no&prevIndex={index}&value=x").refusal[:2] == (412, 101)
    change(site.put(f"/foo?prevValue=bar&prevIndex={index}&value=x"), 200, "compareAndSwap")


@row("S1-054")
def delete_refused(site: Site, world: World) -> None:
    site.put("/foo", "value=changed")
    assert site.delete("/foo?prevValue=bar").refusal == (412, 101, "[bar != changed]")
    assert site.value("/foo") == "changed"


@row("S1-055")
def compare_and_delete(site: Site, world: World) -> None:
    site.put("/foo", "value=bar")
    change(site.delete("/foo?prevValue=bar"), 200, "compareAndDelete")
    index = site.put("/foo", "value=bar").node["modifiedIndex"]
    change(site.delete(f"/foo?prevIndex={index}"), 200, "compareAndDelete")
    assert site.value("/foo") is None


@row("S1-056")
def delete_nothing(site: Site, world: World) -> None:
    for query in ("", "?prevValue=x", "?prevIndex=5"):
        assert site.delete(f"/none{query}").refusal == (404, 100, "/none")


@row("S1-057")
def parents(site: Site, world: World) -> None:
    site.put("/m/n/o", "value=1")
    found = site.get("/m?recursive=true").node["nodes"]
    assert [(node["key"], node["dir"]) for node in found] == [("/m/n", True)]
    assert [node["key"] for node in found[0]["nodes"]] == ["/m/n/o"]


@row("S1-058")
def directory_twice(site: Site, world: World) -> None:
    found = site.put("/dir?dir=true")
    change(found, 201, "set")
    assert found.node["dir"]
    assert site.put("/dir?dir=true").refusal == (403, 102, "/dir")


@row("S1-059", "S1-003")
def root(site: Site, world: World) -> None:
    site.put("/message", "value=x")
    site.put("/dir/foo", "value=bar")
    found = site.get("/")
    assert set(found.node) == {"dir", "nodes"}
    assert {node["key"]: node.get("dir", False) for node in found.node["nodes"]} == {
        "/message": False,
        "/dir": True,
    }
    (inside,) = site.get("/dir").node["nodes"]
    assert (inside["key"], inside["value"]) == ("/dir/foo", "bar")


@row("S1-060")
def recursive(site: Site, world: World) -> None:
    site.put("/dir/sub/foo", "value=bar")
    ((top,),) = (site.get("/?recursive=true").node["nodes"],)
    assert top["nodes"][0]["nodes"][0]["key"] == "/dir/sub/foo"


@row("S1-061")
def delete_filled(site: Site, world: World) -> None:
    site.put("/dir/foo", "value=bar")
    assert site.delete("/dir?dir=true").refusal == (403, 108, "/dir")


@row("S1-062")
def delete_recursive(site: Site, world: World) -> None:
    site.put("/dir/foo", "value=bar")
    found = site.delete("/dir?dir=true&recursive=true")
    change(found, 200, "delete")
    assert found.json["prevNode"]["dir"]
    assert site.get("/dir").status == 404


@row("S1-063")
def hidden(site: Site, world: World) -> None:
    site.put("/_h", "value=1")
    site.put("/seen", "value=1")
    assert site.names("/") == ["seen"]
    assert site.value("/_h") == "1"


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
            [m.ask("GET", "/v2/stats/self").json["state"] for m in world.members].count("StateLeader")
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
        members = call("Cluster/MemberList", pb.MemberListRequest(), pb.MemberListResponse)
        assert len(members.members) == 3  # type: ignore[attr-defined]
        gone = call("KV/DeleteRange", pb.DeleteRangeRequest(**below), pb.DeleteRangeResponse)
        assert gone.deleted == 2  # type: ignore[attr-defined]


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
    page = (Path(__file__).parents[3] / "docs" / "know" / "concepts.md").read_text(encoding="utf-8").lower()
    words = re.findall(
        r"\w+",
        "raft node member cluster peer client wal snapshot proxy leader follower candidate term index",
    )
    assert [word for word in words if not re.search(rf"\b{word}\b", page)] == []
