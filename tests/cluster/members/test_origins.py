"""Hosts that were restored from different files, or to different numbers of shards, are no cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.pb import rpc_pb2 as pb
from tests import forks
from tests.cluster.local_cluster import environment, until
from tests.cluster.members.hosts import LIMIT_S, Hosts, works

KEYS = 20


def ctl(*words: str) -> None:
    command = [*forks.MUSTERCTL, *words]
    forks.run(command, check=True, capture_output=True, env=environment(), timeout=LIMIT_S)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path, 1, 4)
    yield made
    made.close()


def put(hosts: Hosts, host: int, number: int) -> int:
    request = pb.PutRequest(key=b"/d/%d" % number, value=b"v")
    return int(hosts.call(host, "KV/Put", request, pb.PutResponse).header.revision)


def restore(hosts: Hosts, file: str, host: int, shards: int) -> None:
    cluster = ",".join(f"h{i}={hosts.peer(i)}" for i in (1, 2, 3))
    folder = hosts.folder / f"h{host}"
    ctl("snapshot", "restore", file, f"--data-dir={folder}", f"--name=h{host}",
        f"--initial-cluster={cluster}", f"--initial-advertise-peer-urls={hosts.peer(host)}",
        f"--shards={shards}")


@pytest.mark.longer
@pytest.mark.timeout(600)
@pytest.mark.parametrize("differs", ["file", "shards"])
def test_a_host_that_was_restored_otherwise_is_refused_by_name(hosts: Hosts, differs: str) -> None:
    hosts.found()
    files = [str(hosts.folder / name) for name in ("old.db", "new.db")]
    for turn, file in enumerate(files):
        for number in range(turn * KEYS, (turn + 1) * KEYS):
            put(hosts, 0, number)
        ctl(f"--endpoints={hosts.client(0)}", "snapshot", "save", file)
    hosts.running[0].terminate()
    hosts.running.pop(0).wait(LIMIT_S)
    for host in (1, 2, 3):
        other = host == 3
        restore(hosts, files[not (other and differs == "file")], host, 1 + (other and differs == "shards"))
        hosts.start(host)
    until(lambda: works(lambda: put(hosts, 1, 1)), LIMIT_S)
    assert put(hosts, 2, 1) > 2 * KEYS + 1
    until(lambda: "refused a peer" in hosts.log(3) and "it refuses this host" in hosts.log(3), LIMIT_S)
    until(lambda: all("refused a peer" in hosts.log(host) for host in (1, 2)), LIMIT_S)
    for host in (1, 2, 3):
        assert "the hosts began with different data: h" in hosts.log(host)
        assert "became leader" not in hosts.log(3)
        assert hosts.running[host].poll() is None
    hosts.running[3].kill()
    hosts.running.pop(3).wait(LIMIT_S)
    (hosts.folder / "h3").rename(hosts.folder / "wrong")
    restore(hosts, files[1], 3, 1)  # once more, as the log advises
    hosts.start(3)
    request = pb.RangeRequest(key=b"/d/1", serializable=True)
    until(lambda: works(lambda: put(hosts, 3, 2)), LIMIT_S)
    hosts.running[1].kill()
    hosts.running.pop(1).wait(LIMIT_S)
    until(lambda: works(lambda: put(hosts, 3, 3)), LIMIT_S)  # and it votes
    assert hosts.call(3, "KV/Range", request, pb.RangeResponse).kvs[0].version > 1
