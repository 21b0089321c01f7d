"""A shard without a majority: what it needs lies in files, the order log stays small, the others go on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import local_cluster
from tests.faults.disks.test_space import BOUND, FLAGS, MIB, Filling, alarms, bytes_in, get, put
from tests.faults.hosts import Hosts, stopped, until
from tests.faults.shards import clients, keys_of, order_index

SHARDS = 3


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with local_cluster(tmp_path / "c", 3, f"--shards={SHARDS}", "--fronts=0", extra=FLAGS) as cluster:
        yield Hosts(cluster)


@pytest.mark.timeout(400)
def test_a_shard_without_a_majority_holds_nothing_back_and_comes_back_whole(hosts: Hosts) -> None:
    """Writes to the other shards go on for longer than the order log may grow; then a transaction finds what
    was put before."""
    leader = hosts.leader()
    away = [h for h in range(3) if h != leader]
    first, second = keys_of(1, SHARDS, 2)
    other, third = keys_of(0, SHARDS, 5)[4], keys_of(2, SHARDS, 1)[0]
    with clients(hosts) as found:
        client = found[leader]
        put(client, first, b"before")
        both = [pb.RequestOp(request_put=pb.PutRequest(key=key.encode(), value=b"both"))
                for key in (second, other)]
        client.txn([], both)
        with contextlib.ExitStack() as stack:
            for host in away:
                stack.enter_context(stopped(hosts.node_pid(host, 1)))
            with Filling(hosts, compact=False, shards=SHARDS) as filling:
                until(lambda: filling.refused.is_set() or filling.done * MIB > BOUND, 240.0)
                put(client, third, b"meanwhile")
            assert not filling.refused.is_set()
            assert alarms(client) == []
            for host in range(3):
                folder = hosts.shard_dir(host)
                # where the shard's process runs, its state may do
                assert bytes_in(folder / "kept") > 0 or host not in away
                assert bytes_in(folder / "kept") < MIB
                until(lambda folder=folder: bytes_in(folder / "log") < BOUND // 2)  # type: ignore[misc]
        last = max(order_index(hosts, h, 0) for h in range(3))
        until(lambda: all(order_index(hosts, h, s) >= last for h in range(3) for s in range(SHARDS)), 60.0)
        put(client, first, b"after")
        for one in found:
            assert get(one, first) == b"after"
            assert get(one, second) == get(one, other) == b"both"
            assert get(one, third) == b"meanwhile"
        answer = client.call("KV/Range", pb.RangeRequest(key=first.encode()), pb.RangeResponse)
        revision = answer.header.revision
        until(lambda: len({one.hash_kv(revision) for one in found}) == 1)
        until(lambda: all(bytes_in(hosts.shard_dir(h) / "kept") == 0
                          or not list((hosts.shard_dir(h) / "kept").iterdir()) for h in range(3)), 60.0)
