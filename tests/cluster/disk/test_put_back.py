"""An old copy of one host's data directory is put back: nothing that was acknowledged is lost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import until
from tests.cluster.members.hosts import LIMIT_S, Hosts, works

KEYS = 100
SAYS = "It came back with an old copy of its data, or lost the end of it"


@pytest.fixture(params=[1, 2])
def hosts(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    made = Hosts(tmp_path, request.param, 4)
    yield made
    made.close()


def put(hosts: Hosts, host: int, key: int) -> None:
    hosts.call(host, "KV/Put", pb.PutRequest(key=b"/d%d/k" % key, value=b"v"), pb.PutResponse)


def keys(hosts: Hosts, host: int) -> int:
    request = pb.RangeRequest(key=b"/d", range_end=b"/e", count_only=True)
    return int(hosts.call(host, "KV/Range", request, pb.RangeResponse).count)


def told(hosts: Hosts, host: int) -> int:
    """How often it has kept what members of group 0 have acknowledged."""
    logs = (hosts.folder / f"h{host}" / "member" / "shard-0" / "log" / "db").glob("*.log")
    return sum(log.read_bytes().count(b"mpromises") for log in logs)


def end(hosts: Hosts, host: int) -> None:
    process = hosts.running.pop(host)
    process.kill()
    process.wait(LIMIT_S)


@pytest.mark.longer
@pytest.mark.timeout(600)
def test_an_old_copy_of_a_followers_data_is_refused_by_peers_that_remember(hosts: Hosts) -> None:
    cluster = ",".join(f"h{i}={hosts.peer(i)}" for i in range(3))
    for host in range(3):
        hosts.start(host, f"--initial-cluster={cluster}", f"--shards={hosts.shards}")
    until(lambda: works(lambda: put(hosts, 0, 0)), LIMIT_S)
    leader = until(lambda: hosts.leader() + 1 or None, LIMIT_S) - 1
    victim, other = (host for host in range(3) if host != leader)
    process = hosts.running.pop(victim)
    process.terminate()
    process.wait(LIMIT_S)
    shutil.copytree(hosts.folder / f"h{victim}", hosts.folder / "copy")
    hosts.start(victim)
    until(lambda: works(lambda: put(hosts, victim, 0)), LIMIT_S)
    for key in range(KEYS):
        put(hosts, leader, key)

    before = told(hosts, other)

    def again() -> bool:
        """The other follower was told twice what others had acknowledged, and keeps it."""
        put(hosts, leader, 0)
        return told(hosts, other) >= before + 2

    until(again, LIMIT_S)
    end(hosts, victim)
    end(hosts, leader)
    shutil.rmtree(hosts.folder / f"h{victim}")
    (hosts.folder / "copy").rename(hosts.folder / f"h{victim}")
    refused = hosts.start(victim)
    assert refused.wait(LIMIT_S) != 0
    hosts.running.pop(victim)
    assert SAYS in hosts.log(victim)
    hosts.start(leader)  # which had all of it
    until(lambda: works(lambda: put(hosts, other, KEYS)), LIMIT_S)
    assert keys(hosts, other) == KEYS + 1
