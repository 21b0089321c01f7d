"""Maintenance.Hash is of what clients wrote: an election and a restart do not change it, as they do not change etcd's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from bench.client import Client, parse_endpoint
from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import until
from tests.cluster.one_host import Host, started


@contextlib.asynccontextmanager
async def client_of(host: Host) -> AsyncIterator[Client]:
    client = await Client.open([parse_endpoint(f"127.0.0.1:{host.port}")], connections=1)
    try:
        yield client
    finally:
        await client.close()


async def hash_of(client: Client) -> int:
    return (await client.unary("/etcdserverpb.Maintenance/Hash", pb.HashRequest(), pb.HashResponse)).hash


async def first_life(host: Host) -> int:
    """The hash after some writes."""
    async with client_of(host) as client:
        empty = await hash_of(client)
        await client.unary("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest(ID=7, TTL=6000), pb.LeaseGrantResponse)
        granted = await hash_of(client)
        for number in range(20):
            await client.unary("/etcdserverpb.KV/Put", pb.PutRequest(key=b"%d" % number, lease=7), pb.PutResponse)
        await client.unary("/etcdserverpb.KV/DeleteRange", pb.DeleteRangeRequest(key=b"3"), pb.DeleteRangeResponse)
        await client.unary("/etcdserverpb.KV/Compact", pb.CompactionRequest(revision=9, physical=True), pb.CompactionResponse)
        written = await hash_of(client)
        assert len({empty, granted, written}) == 3
        return written


async def next_life(host: Host) -> tuple[int, int]:
    """The hash as it was found, and after a write."""
    async with client_of(host) as client:
        found = await hash_of(client)
        await client.unary("/etcdserverpb.KV/Put", pb.PutRequest(key=b"4"), pb.PutResponse)
        return found, await hash_of(client)


def test_the_hash_is_the_same_after_a_restart(tmp_path: Path) -> None:
    with started(tmp_path / "data") as host:
        until(host.serves)
        written, port = asyncio.run(first_life(host)), host.port
    for _ in range(2):  # one more term each
        with started(tmp_path / "data", port) as host:  # its member says the same of itself
            until(host.serves)
            found, after = asyncio.run(next_life(host))
        assert found == written
        assert after != written
        written = after
