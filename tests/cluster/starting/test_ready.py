"""What ``ready`` promises."""

from __future__ import annotations

from pathlib import Path

import grpc

from cluster.pb import rpc_pb2
from tests.cluster.local_cluster import local_cluster


def test_once_ready_every_host_knows_every_member_by_name(tmp_path: Path) -> None:
    with local_cluster(tmp_path / "c", 3, cold=True) as cluster:
        for endpoint in cluster.endpoints():
            with grpc.insecure_channel(endpoint) as channel:
                ask = channel.unary_unary(
                    "/etcdserverpb.Cluster/MemberList",
                    rpc_pb2.MemberListRequest.SerializeToString, rpc_pb2.MemberListResponse.FromString,
                )  # fmt: skip
                members = ask(rpc_pb2.MemberListRequest(linearizable=True), timeout=10).members
            assert sorted(m.name for m in members) == ["host0", "host1", "host2"]
            assert all(m.clientURLs for m in members)
