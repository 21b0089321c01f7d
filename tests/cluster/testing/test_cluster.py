"""``muster.testing``: what its clusters do to hosts, and that nothing of them stays."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from muster_client import MusterError, Put, prefix
from muster_client.sync import Client

from muster.testing import Cluster, ClusterError
from tests.cluster.local_cluster import ROOT, environment, until

LIMIT_S = 60.0


@pytest.fixture(scope="module")
def one() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


def post(cluster: Cluster, path: str, **body: object) -> dict[str, object]:
    request = urllib.request.Request(f"http://{cluster.endpoint}/{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, object] = json.load(answer)
    return found


def v2(cluster: Cluster) -> dict[str, list[object]]:
    with urllib.request.urlopen(f"http://{cluster.endpoint}/v2/keys/", timeout=30) as answer:
        found: dict[str, list[object]] = json.load(answer)["node"]
    return found


def test_a_cleaned_store_has_nothing_of_the_test_before(one: Cluster) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    put = urllib.request.Request(f"http://{one.endpoint}/v2/keys/dir/a", b"value=x", form, method="PUT")
    with urllib.request.urlopen(put, timeout=30):
        pass
    post(one, "v3/auth/user/add", name="anna", password="x")
    post(one, "v3/auth/role/add", name="reader")
    with one.client() as client:
        lease = client.lease(600)
        post(one, "v3/maintenance/alarm", action="ACTIVATE", memberID=0, alarm="NOSPACE")
        assert v2(one)["nodes"]
        one.clean()
        client.put("/a", "1")
        assert client.count(prefix("")) == 1
        with pytest.raises(MusterError):
            client.lease_info(lease)
    assert "nodes" not in v2(one)
    assert "users" not in post(one, "v3/auth/user/list")
    assert "roles" not in post(one, "v3/auth/role/list")
    assert "alarms" not in post(one, "v3/maintenance/alarm", action="GET")


FORM, JSON = "application/x-www-form-urlencoded", "application/json"


def put_v2(cluster: Cluster, path: str, body: bytes, kind: str = FORM) -> None:
    request = urllib.request.Request(
        f"http://{cluster.endpoint}/v2/{path}", body, {"content-type": kind}, method="PUT")
    with urllib.request.urlopen(request, timeout=30):
        pass


def test_keys_of_version_2_are_removed_whatever_their_names(one: Cluster) -> None:
    one.clean()
    for name in ("a%3Fb", "c%23d/e", "%25", "%C3%A9"):
        put_v2(one, f"keys/{name}", b"value=1")
    one.clean()
    assert "nodes" not in v2(one)
    one.clean()


@pytest.mark.parametrize(("path", "body", "kind"), [
    ("keys/_hidden/x", b"value=1", FORM),
    ("auth/users/bob", b'{"user":"bob","password":"p"}', JSON),
    ("auth/roles/r", b'{"role":"r"}', JSON),
])  # fmt: skip
def test_a_store_with_what_no_list_of_version_2_shows_is_not_clean(path: str, body: bytes, kind: str) -> None:
    """The fixture begins anew then."""
    with Cluster() as cluster:
        cluster.clean()
        put_v2(cluster, path, body, kind)
        put_v2(cluster, "keys/shown", b"value=1")
        for _ in range(2):
            with pytest.raises(ClusterError, match="hidden keys"):
                cluster.clean()


def test_what_cannot_be_undone_is_told(muster_cluster: type[Cluster]) -> None:
    cluster = muster_cluster(hosts=1)
    post(cluster, "v3/auth/user/add", name="root", password="x")
    post(cluster, "v3/auth/user/grant", user="root", role="root")
    post(cluster, "v3/auth/enable")
    with pytest.raises(ClusterError, match="user name is empty"):
        cluster.clean()


def test_hosts_are_cut_off_and_killed_and_come_back() -> None:
    def tried(client: Client, value: str) -> bool:
        with contextlib.suppress(MusterError):
            client.put("/a", value, timeout=5)
            return True
        return False

    with Cluster(3, 2) as cluster, cluster.client() as client, client.watch("/a") as watch:
        until(lambda: tried(client, "1"))
        follower = next(host for host in range(3) if host != cluster.leader())
        cluster.partition(follower)
        with Client(cluster.endpoints[follower]) as alone, pytest.raises(MusterError):
            alone.get("/a", timeout=2)
        with pytest.raises(ValueError, match="no host 3"):
            cluster.kill(3)
        cluster.heal()
        with Client(cluster.endpoints[follower]) as back:
            until(lambda: tried(back, "2"))
        cluster.stop(0, 1, 2)
        with pytest.raises(ClusterError, match="is not running"):
            cluster.kill(0)
        with pytest.raises(ClusterError, match="does not serve after"):
            cluster.restart(0, wait_s=0.5)
        cluster.restart(1, 2)
        until(lambda: tried(client, "3"))
        values = []
        while not values or values[-1] != "3":
            event = watch.read(LIMIT_S)
            assert isinstance(event, Put)
            values.append(event.kv.text)
        assert values == sorted(values), "in order, over all that"
        assert "started" in cluster.log(0, lines=10_000) or cluster.log(0)


def test_a_host_that_cannot_start_says_why() -> None:
    with pytest.raises(ClusterError, match="no-such-flag"):
        Cluster(flags=["--no-such-flag"]).start()


_ENDLESS = """
import sys
from muster.testing import Cluster
cluster = Cluster(2).start()
print(cluster._data_dir, cluster._keeper.pid, flush=True)
sys.stdin.read()
"""


def test_nothing_stays_of_a_process_that_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _ENDLESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment() | {"TMPDIR": str(tmp_path)},
    ) as tests:  # fmt: skip
        assert tests.stdout is not None
        data_dir, pid = tests.stdout.readline().split()
        keeper = psutil.Process(int(pid))
        hosts = keeper.children(recursive=True)
        assert len(hosts) >= 4, "two supervisors and two nodes"
        assert Path(data_dir).is_dir()
        os.kill(tests.pid, signal.SIGKILL)
        gone, alive = psutil.wait_procs([keeper, *hosts], LIMIT_S)
        assert not alive
        assert len(gone) == len(hosts) + 1
        assert not Path(data_dir).exists()


def test_the_example_project_passes_beside_packages_of_the_same_names(tmp_path: Path) -> None:
    """With the tests of docs/use/testing.md, by two workers of pytest-xdist, each with a host of its own."""
    project = tmp_path / "project"
    subprocess.run(["cp", "-r", ROOT / "packaging/example-project", project], check=True)
    page = (ROOT / "docs/use/testing.md").read_text(encoding="utf-8")
    (project / "tests/test_page.py").write_text("".join(re.findall(r"(?ms)^```python\n(.*?)^```", page)))
    for name in ("cluster", "node", "proxy", "tools", "bench"):
        (project / name).mkdir()
        (project / name / "__init__.py").write_text("raise ImportError('this is the project's own')")
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider"], cwd=project, check=False,
        capture_output=True, text=True, timeout=200, env=environment() | {"PYTHONPATH": f".:{ROOT}"},
    )  # fmt: skip
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert "8 passed" in tests.stdout


def test_a_clock_that_a_test_moves() -> None:
    with Cluster(hosts=3) as hosts, hosts.client() as client:
        kept = client.lease(60)
        client.put("/kept", "1", lease=kept)
        with hosts.client() as gone:  # nobody keeps this one alive once its client has ended
            client.put("/ends", "1", lease=gone.lease(3600).id)
        hosts.clock.advance(1800)
        assert 1700 < client.lease_info(next(iter(set(client.leases()) - {kept.id}))).left_s < 1801
        until(lambda: client.get("/kept") is None, LIMIT_S)  # half an hour without a renewal
        assert client.get("/ends") is not None
        hosts.restart(hosts.leader())
        hosts.clock.advance(3600)
        until(lambda: client.get("/ends") is None, LIMIT_S)
        again = client.lease(60)
        assert client.lease_info(again).left_s > 50
    with pytest.raises(ClusterError):
        _ = hosts.clock
