"""Maintenance.Hash is of what clients wrote: an election and a restart do not change it, as they do not
change etcd's. ``musterctl endpoint hashkv`` compares hosts at one revision, however soon after a write."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.client import Client, parse_endpoint
from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import local_cluster, until
from tests.cluster.one_host import Host, started
from tools.musterctl import cli


@contextlib.asynccontextmanager
async def client_of(host: Host) -> AsyncIterator[Client]:
    client = await Client.open([parse_endpoint(f"127.0.0.1:{host.port}")], connections=1)
    try:
        yield client
    finally:
        await client.close()


def has_said_what_it_is(host: Host) -> bool:
    """Whether what it logs of itself at its first start is applied: it is hashed, too."""
    if not host.serves():
        return False
    with urllib.request.urlopen(f"http://127.0.0.1:{host.port}/muster/shards", timeout=60) as answer:
        (shard,) = json.load(answer)["shards"]
    return shard.get("growth_lacking") == []  # a node that does not answer in time says nothing


async def hash_of(client: Client) -> int:
    return (await client.unary("/etcdserverpb.Maintenance/Hash", pb.HashRequest(), pb.HashResponse)).hash


async def first_life(host: Host) -> int:
    """The hash after some writes."""
    async with client_of(host) as client:
        empty = await hash_of(client)
        await client.unary(
            "/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest(ID=7, TTL=6000), pb.LeaseGrantResponse
        )
        granted = await hash_of(client)
        for number in range(20):
            await client.unary(
                "/etcdserverpb.KV/Put", pb.PutRequest(key=b"%d" % number, lease=7), pb.PutResponse
            )
        await client.unary(
            "/etcdserverpb.KV/DeleteRange", pb.DeleteRangeRequest(key=b"3"), pb.DeleteRangeResponse
        )
        await client.unary(
            "/etcdserverpb.KV/Compact", pb.CompactionRequest(revision=9, physical=True), pb.CompactionResponse
        )
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
        until(lambda: has_said_what_it_is(host))
        written, port = asyncio.run(first_life(host)), host.port
    for _ in range(2):  # one more term each
        with started(tmp_path / "data", port) as host:  # its member says the same of itself
            until(host.serves)
            found, after = asyncio.run(next_life(host))
        assert found == written
        assert after != written
        written = after


def test_hosts_are_compared_at_one_revision_right_after_a_put(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with local_cluster(tmp_path / "c", 3, "--shards=3") as cluster:
        first, everybody = cluster.endpoints()[0], ",".join(cluster.endpoints())
        for number in range(20):
            for words in (["put", f"/{number}/k", "x"], ["compaction", "3"] if number == 10 else ["version"]):
                assert cli.run(["--endpoints", first, *words]) == 0
            capsys.readouterr()
            assert cli.run(["--endpoints", everybody, "endpoint", "hashkv", "-w", "json"]) == 0
            hashes = [answer["HashKV"] for answer in json.loads(capsys.readouterr().out)]
            assert len(hashes) == 3
            assert len({h["hash"] for h in hashes}) == 1, f"at try {number}: {hashes}"


def test_a_host_that_is_down_does_not_keep_the_others_from_being_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with local_cluster(tmp_path / "c", 3) as cluster:
        cluster.ok("kill", "2")
        endpoints = cluster.endpoints()
        line = [
            "--endpoints", ",".join(endpoints), "--command-timeout=1s", "endpoint", "hashkv", "-w", "json",
        ]
        assert cli.run(line) == 1
        output = capsys.readouterr()
        assert [answer["Endpoint"] for answer in json.loads(output.out)] == endpoints[:2]
        assert f"musterctl: {endpoints[2]}: connection refused\n" in output.err
        assert (
            f"Failed to get the hash of endpoint {endpoints[2]} (context deadline exceeded)\n" in output.err
        )
