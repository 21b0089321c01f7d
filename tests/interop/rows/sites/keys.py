"""Rows on keys over HTTP. Each check is given a site whose tree is empty: a member, another, the proxy."""

from __future__ import annotations

import json
import re
import subprocess

from tests.interop.rows.table import Checks
from tests.interop.rows.world import Got, Site, World

KEYS = Checks()
row = KEYS.row


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


@row("S1-024", "S1-025")
def put(site: Site, world: World) -> None:
    found = site.put("/message?value=hello,%20etcd")
    index = change(found, 201, "set")
    node = {"key": "/message", "value": "hello, etcd", "modifiedIndex": index, "createdIndex": index}
    assert found.json == {"action": "set", "node": node}
    assert found.body == json.dumps(found.json, separators=(",", ":")) + "\n"
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
