"""Streams that nobody reads cost a few megabytes, however large their range; those that are read are
whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import LIMIT_S, LocalCluster, local_cluster

KEYS, VALUE_BYTES = 60, 1_000_000
UNREAD = 8
MIB = 1 << 20


def stream(channel: grpc.Channel, **fields: Any) -> Any:
    return channel.unary_stream(
        "/etcdserverpb.KV/RangeStream", request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=pb.RangeStreamResponse.FromString,
    )(pb.RangeRequest(**fields), timeout=2 * LIMIT_S)


def rows(chunks: Iterator[Any]) -> tuple[list[bytes], Any]:
    keys: list[bytes] = []
    last = None
    for chunk in chunks:
        last = chunk.range_response
        assert all(len(kv.value) == VALUE_BYTES for kv in last.kvs)
        keys += [kv.key for kv in last.kvs]
    return keys, last


def memory(cluster: LocalCluster) -> int:
    return sum(psutil.Process(pid).memory_info().rss for pid in cluster.pids())


def test_streams_that_nobody_reads_cost_a_few_megabytes_each_and_those_that_are_read_are_whole(
    tmp_path: Path,
) -> None:
    with local_cluster(tmp_path / "c", 1, "--shards=3", "--fronts=1", cold=True) as cluster:
        options = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(cluster.endpoints()[0], options=options) as channel:
            put = channel.unary_unary(
                "/etcdserverpb.KV/Put", request_serializer=lambda m: m.SerializeToString()
            )
            keys = sorted([b"/dir%d/k%02d" % (i % 6, i) for i in range(KEYS)])
            for key in keys:
                put(pb.PutRequest(key=key, value=b"v" * VALUE_BYTES), timeout=LIMIT_S)
            found, last = rows(stream(channel, key=b"\0", range_end=b"\0"))  # over all shards
            assert found == keys
            assert (last.count, last.more) == (KEYS, False)
            before = memory(cluster)
            unread = []
            for _ in range(UNREAD):
                unread.append(stream(channel, key=b"\0", range_end=b"\0"))
                unread.append(stream(channel, key=b"/dir1/", range_end=b"/dir10"))  # in one shard
            for call in unread:
                next(call)
            # as many turns as the others had
            found, last = rows(stream(channel, key=b"\0", range_end=b"\0", limit=KEYS - 1))
            assert (found, last.count, last.more) == (keys[:-1], KEYS, True)
            grown = memory(cluster) - before
            # of 560 MB that wait for their readers; the processes of the host together
            assert grown < 320 * MIB, f"{grown / MIB:.0f} MiB for {2 * UNREAD} streams"
            found, last = rows(unread[1])
            assert len(found) + 1 >= KEYS / 6
            assert last.count == KEYS / 6
            for call in unread:
                call.cancel()
