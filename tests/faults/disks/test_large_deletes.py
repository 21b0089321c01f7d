"""One request that deletes very many keys (D8): it comes through, nobody is elected meanwhile, others are
served."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from bench.client import Client, Endpoint, RpcError
from cluster.pb import rpc_pb2 as pb
from tests.faults.hosts import SHARDS, Hosts, three_hosts
from tests.soaking import SOAK

KV = "/etcdserverpb.KV/"
_PER_TXN = 128
_LOADERS = 8


def name(number: int) -> bytes:
    return b"/gone/%d/%07d" % (number // 20_000, number)  # directories, so that every shard has some


async def load(client: Client, keys: int) -> None:
    """Put that many keys."""
    starts = iter(range(0, keys, _PER_TXN))

    async def loader() -> None:
        for start in starts:
            request = pb.TxnRequest()
            for number in range(start, min(start + _PER_TXN, keys)):
                put = request.success.add().request_put
                put.key, put.value = name(number), b"v" * 100
            while True:  # a busy machine may elect while it is loaded; what counts comes after
                try:
                    await client.unary(KV + "Txn", request, pb.TxnResponse, timeout_s=30)
                    break
                except RpcError:
                    await asyncio.sleep(0.1)

    await asyncio.gather(*(loader() for _ in range(_LOADERS)))


async def count(client: Client, prefix: bytes, revision: int = 0) -> int:
    request = pb.RangeRequest(
        key=prefix, range_end=prefix[:-1] + bytes((prefix[-1] + 1,)), count_only=True, revision=revision
    )
    return (await client.unary(KV + "Range", request, pb.RangeResponse, timeout_s=60)).count


async def terms(hosts: Hosts) -> list[int]:
    """Every host's word about its term."""
    found = []
    for host, port in hosts.endpoints:
        client = await Client.open([Endpoint(host, port)], 1)
        try:
            answer = await client.unary(
                "/etcdserverpb.Maintenance/Status", pb.StatusRequest(), pb.StatusResponse
            )
            found.append(answer.raftTerm)
        finally:
            await client.close()
    return found


class Others:
    """A client that reads another key, serializably, until ``enough``: how long it waits."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.enough = False
        self.waits_s: list[float] = []

    async def run(self) -> None:
        request = pb.RangeRequest(key=b"/kept/1", serializable=True)
        while not self.enough:
            began = time.monotonic()
            answer = await self._client.unary(KV + "Range", request, pb.RangeResponse, timeout_s=30)
            assert answer.count == 1
            self.waits_s.append(time.monotonic() - began)
            await asyncio.sleep(0.002)


class Watcher:
    """Somebody who watches what is deleted, on a connection of his own."""

    def __init__(self, client: Client) -> None:
        self.deleted: list[tuple[int, bytes]] = []
        self.created = asyncio.get_running_loop().create_future()
        self._stream = client.connections[0].stream(
            "/etcdserverpb.Watch/Watch", self._message, lambda error: None
        )
        self._stream.send(pb.WatchRequest(create_request=pb.WatchCreateRequest(
            key=b"/gone/", range_end=b"/gone0", filters=[pb.WatchCreateRequest.NOPUT])).SerializeToString())

    def _message(self, body: bytes) -> None:
        answer = pb.WatchResponse.FromString(body)
        if answer.created:
            self.created.set_result(None)
        self.deleted += [(event.kv.mod_revision, event.kv.key) for event in answer.events]

    async def has(self, keys: int) -> None:
        async with asyncio.timeout(60):
            while len(self.deleted) < keys:
                await asyncio.sleep(0.05)


async def delete_all(hosts: Hosts, keys: int) -> tuple[float, float, float]:
    """How long the delete took, and how long others waited at most, and in the median."""
    endpoints = [Endpoint(*e) for e in hosts.endpoints]
    client = await Client.open(endpoints, 3)
    reader = await Client.open(endpoints, 3)
    watching = await Client.open(endpoints, 3)
    try:
        await client.unary(KV + "Put", pb.PutRequest(key=b"/kept/1", value=b"x"), pb.PutResponse)
        await load(client, keys)
        assert await count(client, b"/gone/") == keys
        before = await terms(hosts)
        watcher = Watcher(watching)
        await watcher.created
        others = Others(reader)
        reading = asyncio.ensure_future(others.run())
        began = time.monotonic()
        answer = await client.unary(
            KV + "DeleteRange", pb.DeleteRangeRequest(key=b"/gone/", range_end=b"/gone0"),
            pb.DeleteRangeResponse, timeout_s=60,
        )
        took_s = time.monotonic() - began
        others.enough = True
        await reading
        # a read each second; on a busy machine the delete may be over, in 0.4 s, before the first one is
        assert len(others.waits_s) > took_s, (
            f"others waited {others.waits_s} in {took_s:.1f} s: {[hosts.status(i) for i in range(3)]}")
        assert answer.deleted == keys
        assert await terms(hosts) == before, "nobody was elected meanwhile"
        revision = answer.header.revision
        await watcher.has(keys)
        assert watcher.deleted == [(revision, key) for key in sorted(map(name, range(keys)))], (
            "once each, in the order of keys"
        )
        put = await client.unary(KV + "Put", pb.PutRequest(key=name(7), value=b"anew"), pb.PutResponse)
        assert put.header.revision == revision + 1, "one revision for all of it"
        for connection in range(3):  # one a host
            request = pb.RangeRequest(key=b"/gone/", range_end=b"/gone0")
            rows = await client.unary(
                KV + "Range", request, pb.RangeResponse, connection=connection, timeout_s=30
            )
            assert [(kv.key, kv.version, kv.create_revision) for kv in rows.kvs] == [
                (name(7), 1, revision + 1)
            ]
        assert await count(client, b"/gone/", revision - 1) == keys
        assert await count(client, b"/gone/", revision) == 0
        waits = sorted(others.waits_s)
        return took_s, waits[-1], waits[len(waits) // 2]
    finally:
        await client.close()
        await reader.close()
        await watching.close()


def delete_and_tell(data_dir: Path, keys: int) -> None:
    with three_hosts(data_dir) as hosts:
        took_s, longest_s, median_s = asyncio.run(delete_all(hosts, keys))
        print(f"{keys} keys, {SHARDS} shards: deleted in {took_s:.2f} s; another client's reads took "
              f"{median_s * 1000:.1f} ms in the median and {longest_s * 1000:.1f} ms at most")


@pytest.mark.timeout(300)
def test_two_hundred_thousand_keys_are_deleted_by_one_request(tmp_path: Path) -> None:
    delete_and_tell(tmp_path / "c", 200_000)


@pytest.mark.soak
@pytest.mark.skipif(not SOAK, reason="a million keys: only with MUSTER_SOAK=1")
@pytest.mark.timeout(1200)
def test_a_million_keys_are_deleted_by_one_request(tmp_path: Path) -> None:
    delete_and_tell(tmp_path / "c", 1_000_000)
