"""A host is killed the moment that its removal is acknowledged: those that remain go on with all that was
acknowledged. It is the last step of a move to another machine."""

from __future__ import annotations

import contextlib
from pathlib import Path

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import until
from tests.cluster.members.hosts import LIMIT_S, Hosts

VALUE = bytes(100_000)


def put(hosts: Hosts, host: int, key: bytes) -> bool:
    with contextlib.suppress(grpc.RpcError):
        hosts.call(host, "KV/Put", pb.PutRequest(key=key, value=VALUE), pb.PutResponse)
        return True
    return False


def kill(hosts: Hosts, host: int) -> None:
    process = hosts.running.pop(host)
    process.kill()
    process.wait(30)


def remove_and_kill(hosts: Hosts, host: int, asked: int) -> None:
    """``settle`` would ask others whether it is true already."""
    request = pb.MemberRemoveRequest(ID=hosts.member(host).ID)

    def removed() -> bool:
        try:
            hosts.call(asked, "Cluster/MemberRemove", request, pb.MemberRemoveResponse)
        except grpc.RpcError as error:
            if "Connection refused" in str(error):
                raise AssertionError("the host was removed, and ended before it said so") from error
            return False
        return True

    until(removed, LIMIT_S)
    kill(hosts, host)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("shards", [1, 3])
def test_the_only_host_is_replaced_and_killed_at_the_answer(shards: int, tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, shards, most=3)
    try:
        hosts.found()
        keys = [b"/d%d/k" % n for n in range(60)]
        assert all(put(hosts, 0, key) for key in keys)
        hosts.add(1)
        hosts.join(1)
        remove_and_kill(hosts, 0, asked=0)  # while the new one catches up, perhaps
        until(lambda: put(hosts, 1, b"/d/after"), LIMIT_S)
        request = pb.RangeRequest(key=b"/d", range_end=b"/e", keys_only=True)
        found = {kv.key for kv in hosts.call(1, "KV/Range", request, pb.RangeResponse).kvs}
        assert found == {*keys, b"/d/after"}

        # H18: its removal is in its own log, and it goes on alone all the same
        hosts.add(2)
        hosts.join(2)
        hosts.votes(2)
        hosts.lead(1)
        remove_and_kill(hosts, 1, asked=2)
        until(lambda: put(hosts, 2, b"/d/after"), LIMIT_S)
        kill(hosts, 2)
        hosts.start(1, f"--initial-cluster=h1={hosts.peer(1)}", "--force-new-cluster")
        for number in range(12):  # in every shard
            until(lambda n=number: put(hosts, 1, b"/d%d/forced" % n), LIMIT_S)  # type: ignore[misc]
        assert [list(m.peerURLs) for m in hosts.members()] == [[hosts.peer(1)]]
    finally:
        hosts.close()
