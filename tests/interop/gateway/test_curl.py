"""curl: what is plain HTTP on the client port of each host."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import pytest

from tests.interop.hosts import Hosts
from tests.interop.toolchain import checked, need, skip_without

skip_without("curl")
pytestmark = pytest.mark.interop

HOSTS = range(3)


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: str


def curl(hosts: Hosts, host: int, path: str, *flags: str) -> Response:
    need("curl")
    text = checked(["curl", "-sS", "-i", "--max-time", "10", *flags, f"http://{hosts.endpoints[host]}{path}"])
    head, _, body = text.replace("\r\n", "\n").partition("\n\n")
    first, *lines = head.split("\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return Response(int(first.split()[1]), headers, body)


@pytest.mark.parametrize("host", HOSTS)
def test_version(hosts: Hosts, host: int) -> None:
    found = curl(hosts, host, "/version")
    assert (found.status, found.headers["content-type"]) == (200, "application/json")
    version = json.loads(found.body)
    assert re.fullmatch(r"3\.\d+\.\d+", version["etcdserver"])
    assert re.fullmatch(r"3\.\d+\.0", version["etcdcluster"])


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("query", ["", "?serializable=true", "?exclude=NOSPACE"])
def test_health(hosts: Hosts, host: int, query: str) -> None:
    found = curl(hosts, host, f"/health{query}")
    assert (found.status, found.body.strip()) == (200, '{"health":"true","reason":""}')


@pytest.mark.parametrize("host", HOSTS)
def test_metrics(hosts: Hosts, host: int) -> None:
    found = curl(hosts, host, "/metrics")
    assert found.status == 200
    assert found.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert re.search(r"^etcd_server_has_leader 1(\.0)?$", found.body, re.MULTILINE)
    assert len(re.findall(r"^etcd_server_is_leader [01](?:\.0)?$", found.body, re.MULTILINE)) == 1
    for name in ("etcd_server_leader_changes_seen_total", "etcd_mvcc_put_total", "grpc_server_handled_total"):
        assert f"# TYPE {name} counter" in found.body
    for line in found.body.rstrip("\n").split("\n"):
        assert re.fullmatch(r"# (HELP|TYPE) .*|[a-zA-Z_:][\w:]*(\{.*\})? [-+\d.eE]+(Inf)?|.* NaN", line), line


def test_one_host_leads_by_its_metrics(hosts: Hosts) -> None:
    leading = [
        bool(re.search("^etcd_server_is_leader 1", curl(hosts, h, "/metrics").body, re.MULTILINE))
        for h in HOSTS
    ]
    assert leading.count(True) == 1
    assert leading.index(True) == hosts.leader()


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("path", ["/version", "/health"])
def test_a_wrong_method_is_refused(hosts: Hosts, host: int, path: str) -> None:
    found = curl(hosts, host, path, "-X", "POST")
    assert (found.status, found.headers["allow"], found.body.strip()) == (405, "GET", "Method Not Allowed")


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("path", ["/nothing", "/v4/kv/put", "/versions"])
def test_an_unknown_path_is_not_found(hosts: Hosts, host: int, path: str) -> None:
    found = curl(hosts, host, path)
    assert (found.status, found.body.strip()) == (404, "404 page not found")


@pytest.mark.parametrize("host", HOSTS)
def test_any_method_may_ask_for_options_and_any_origin_is_allowed(hosts: Hosts, host: int) -> None:
    found = curl(hosts, host, "/version", "-X", "OPTIONS", "-H", "Origin: http://a.example")
    assert (found.status, found.body) == (200, "")
    assert found.headers["access-control-allow-origin"] == "*"
    assert found.headers["access-control-allow-methods"] == "POST, GET, OPTIONS, PUT, DELETE"


@pytest.mark.parametrize("host", HOSTS)
def test_several_requests_on_one_connection(hosts: Hosts, host: int) -> None:
    url = f"http://{hosts.endpoints[host]}/version"
    line = ["curl", "-sS", "--max-time", "10", "-w", " %{num_connects} %{http_code}\n", url, url, url]
    told = [text.rpartition("}")[2] for text in checked(line).split("\n")[:-1]]
    assert [text.split() for text in told if text] == [["1", "200"], ["0", "200"], ["0", "200"]]
