"""Hosts at addresses of every kind, with and without a peer key: all of them answer, whoever leads."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from bench.client import Client, Endpoint
from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import free_base_port
from tests.faults.separate_hosts import Place, SeparateHosts
from tools.muster import peer_keys

SHARDS = 2


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.fixture(params=["clear", "keys"])
def flags(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    found = [f"--shards={SHARDS}", "--fronts=0"]
    if request.param == "keys":
        peer_keys.generate(str(tmp_path / "keys.json"))
        found.append(f"--peer-key-file={tmp_path / 'keys.json'}")
    return found


@pytest.mark.parametrize("address", ["::1", "localhost"])
def test_every_host_serves(address: str, flags: list[str], tmp_path: Path) -> None:
    if address == "::1" and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    base = free_base_port(3, SHARDS)
    places = [Place(address, base + 100 * i, base + 100 * i + 1) for i in range(3)]
    hosts = SeparateHosts(tmp_path / "c", places, flags)
    try:
        hosts.start(0, 1, 2)
        asyncio.run(_write_and_read_through_each(hosts))
    finally:
        hosts.close()


async def _write_and_read_through_each(hosts: SeparateHosts) -> None:
    clients = [await Client.open([Endpoint(*e)], 1, timeout_s=10.0) for e in hosts.endpoints]
    for n in range(8):  # on both shards
        key, value = f"/s{n}/k".encode(), str(n).encode()
        await clients[n % 3].unary(
            "/etcdserverpb.KV/Put", pb.PutRequest(key=key, value=value), pb.PutResponse
        )
        for client in clients:
            found = await client.unary("/etcdserverpb.KV/Range", pb.RangeRequest(key=key), pb.RangeResponse)
            assert [kv.value for kv in found.kvs] == [value]
    for client in clients:
        await client.close()
