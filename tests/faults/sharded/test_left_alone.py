"""A host that is left alone after all were killed shows what it had shown before, and soon (I25)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import local_cluster
from tests.faults.hosts import Hosts, until
from tests.faults.shards import Background, Client, assert_equal_everywhere, clients, keys_of
from tests.tries import best_of_three, within

# from its first question on: one moment for an election, one for a replica that lacks an entry for good
_ANSWERS_S = 2.0

pytestmark = [pytest.mark.longer, pytest.mark.timeout(300)]


def _puts(client: Client, keys: list[str]) -> Callable[[], None]:
    """Puts to each shard in turn."""
    count = 0

    def put() -> None:
        nonlocal count
        count += 1
        with contextlib.suppress(grpc.RpcError):  # its fate is unknown
            client.put(keys[count % len(keys)], str(count))

    return put


def _looks(client: Client, key: str, shown: dict[str, tuple[int, int]]) -> Callable[[], None]:
    """Serializable reads of one key: the newest version that its host has shown, and the newest revision."""
    request = pb.RangeRequest(key=key.encode(), serializable=True)

    def look() -> None:
        with contextlib.suppress(grpc.RpcError):
            found = client.call("KV/Range", request, pb.RangeResponse)
            version = found.kvs[0].mod_revision if found.kvs else 0
            shown[key] = max(shown.get(key, (0, 0)), (version, found.header.revision))

    return look


def _kill_all(hosts: Hosts) -> None:
    """At the same moment, the supervisors first, so that they start nothing again."""
    pids: list[int] = []
    for host in range(3):
        status = hosts.status(host)
        assert status is not None
        pids += [status["pid"], *(c["pid"] for c in status["nodes"] + status["fronts"] if c["pid"])]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(hosts.up, range(3))))


def _asked_alone(hosts: Hosts, host: int, shown: dict[str, tuple[int, int]]) -> float:
    """How long the first answers took, once there was a front to take the question."""
    hosts.start(host, wait_s=0)
    client = Client(hosts, host)
    try:
        grpc.channel_ready_future(client.channel).result(60)
        began, took_s = time.monotonic(), 0.0
        for key, (version, revision) in shown.items():
            request = pb.RangeRequest(key=key.encode(), serializable=True)
            found = client.call("KV/Range", request, pb.RangeResponse)
            took_s = took_s or time.monotonic() - began
            assert [kv.mod_revision for kv in found.kvs] >= [version], (key, shown)
            assert found.header.revision >= revision, (key, shown)
        return took_s
    finally:
        client.close()


@best_of_three
@pytest.mark.parametrize("shards", [1, 3])
def test_a_host_that_starts_alone_shows_what_it_had_shown(tmp_path: Path, shards: int) -> None:
    keys = [key for shard in range(shards) for key in keys_of(shard, shards, 1)]
    survivor, shown = 1, dict[str, tuple[int, int]]()
    folder = tmp_path / f"{time.monotonic_ns()}"
    with local_cluster(folder, 3, f"--shards={shards}") as cluster:
        hosts = Hosts(cluster)
        with clients(hosts) as found:
            looks = [_looks(found[survivor], key, shown) for key in keys]
            with Background(*(_puts(client, keys) for client in found), *looks):
                until(lambda: len(shown) == len(keys) and all(s[0] > 100 for s in shown.values()))
                _kill_all(hosts)
        took_s = _asked_alone(hosts, survivor, shown)
        hosts.start_missing()
        with clients(hosts) as found:  # nothing that was shown is lost, and all agree
            assert_equal_everywhere(found)
            for kv in found[0].everything().kvs:
                assert kv.mod_revision >= shown[kv.key.decode()][0]
    print(f"answered alone after {took_s:.2f} s, had shown {shown}")
    within(took_s, _ANSWERS_S)
