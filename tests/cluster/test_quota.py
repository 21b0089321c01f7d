"""A store that has used up its quota."""

from __future__ import annotations

from pathlib import Path

import grpc

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import local_cluster, until

VALUE = b"v" * 10_000


def test_a_store_over_its_quota_takes_puts_again_after_a_compaction(tmp_path: Path) -> None:
    with local_cluster(tmp_path / "c", 1, "--shards=1", extra=("--quota-backend-bytes=20000000",)) as cluster, \
            grpc.insecure_channel(cluster.endpoints()[0]) as channel:
        put = channel.unary_unary("/etcdserverpb.KV/Put", pb.PutRequest.SerializeToString, pb.PutResponse.FromString)
        compact = channel.unary_unary(
            "/etcdserverpb.KV/Compact", pb.CompactionRequest.SerializeToString, pb.CompactionResponse.FromString)

        written: list[int] = []

        def fits() -> bool:
            try:
                written.append(put(pb.PutRequest(key=b"k", value=VALUE), timeout=10).header.revision)
            except grpc.RpcError as e:
                if e.details() != "etcdserver: mvcc: database space exceeded":
                    raise
                return False
            return True

        until(lambda: not all(fits() for _ in range(100)))
        assert not fits()
        compact(pb.CompactionRequest(revision=written[-1]), timeout=30)
        until(fits)
