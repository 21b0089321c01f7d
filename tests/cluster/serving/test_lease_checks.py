"""The check of keys against leases in real processes: it runs beside requests and finds nothing to complain
of."""

from __future__ import annotations

import asyncio
import contextlib
import random
import urllib.request
from pathlib import Path

from bench.client import Client, RpcError, parse_endpoint
from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import until
from tests.cluster.one_host import Host, started

SHARDS = 2
LEASES = range(1, 6)


def counted(host: Host, name: str) -> list[int]:
    """A counter of every shard's node."""
    with urllib.request.urlopen(f"http://127.0.0.1:{host.port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return [int(float(line.split()[1])) for line in lines if line.startswith(f"muster_node_{name}_total{{")]


async def load(host: Host) -> None:
    """Keys of both shards come to hang on leases, move, leave and go with them, in transactions over both
    too."""
    rng = random.Random(1)
    client = await Client.open([parse_endpoint(f"127.0.0.1:{host.port}")], connections=1)

    async def call(method: str, request: object, answer: type) -> None:
        with contextlib.suppress(RpcError):  # a lease that is not there, a key put twice
            await client.unary(f"/etcdserverpb.{method}", request, answer)

    def put() -> pb.PutRequest:
        return pb.PutRequest(
            key=b"/%d/%d/k" % (rng.randrange(6), rng.randrange(3)), lease=rng.choice([0, *LEASES])
        )

    for turn in range(400):
        if turn % 50 == 0:
            for lease in LEASES:
                await call("Lease/LeaseGrant", pb.LeaseGrantRequest(ID=lease, TTL=600), pb.LeaseGrantResponse)
        choice = rng.random()
        if choice < 0.6:
            await call("KV/Put", put(), pb.PutResponse)
        elif choice < 0.8:
            ops = [pb.RequestOp(request_put=put()) for _ in range(3)]
            await call("KV/Txn", pb.TxnRequest(success=ops), pb.TxnResponse)
        elif choice < 0.9:
            await call("KV/DeleteRange", pb.DeleteRangeRequest(key=put().key), pb.DeleteRangeResponse)
        elif choice < 0.95:
            await call("KV/Compact", pb.CompactionRequest(revision=turn // 2 + 1), pb.CompactionResponse)
        else:
            await call(
                "Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=rng.choice(LEASES)), pb.LeaseRevokeResponse
            )
    await client.close()


def test_leases_of_several_shards_agree_with_their_keys_all_the_time(tmp_path: Path) -> None:
    with started(tmp_path / "data", 0, SHARDS, "--lease-check-interval=1s") as host:
        until(host.serves)
        asyncio.run(load(host))
        before = counted(host, "lease_checks")
        assert len(before) == SHARDS
        until(
            lambda: all(
                now > then + 1 for now, then in zip(counted(host, "lease_checks"), before, strict=True)
            )
        )
        assert counted(host, "lease_mismatches") == [0] * SHARDS, host.log.read_text()
