"""The shortest TTL that a lease gets, beside etcd's."""

from __future__ import annotations

from pathlib import Path

import grpc

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import local_cluster
from tests.interop.ctl.test_ctl_outputs import start_etcd
from tests.interop.hosts import unary

# one and a half election timeouts, 2,100 ms, are 1,960 in whole heartbeats
TIMES = ("--heartbeat-interval=280", "--election-timeout=1400")


def granted(address: str) -> int:
    with grpc.insecure_channel(address) as channel:
        grant = unary(channel, "Lease/LeaseGrant", pb.LeaseGrantResponse)
        return int(grant(pb.LeaseGrantRequest(TTL=1, ID=7), timeout=10, wait_for_ready=True).TTL)


def test_the_shortest_ttl_of_hosts_with_few_heartbeats_an_election_is_etcds(tmp_path: Path) -> None:
    etcd = start_etcd(*TIMES)
    try:
        want = granted(etcd.address)
    finally:
        etcd.stop()
    with local_cluster(tmp_path / "c", 1, extra=TIMES) as cluster:
        assert granted(cluster.endpoints()[0]) == want == 2
