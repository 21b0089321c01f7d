"""Operations of several turns, each checked by what it leaves in a real etcd; TLS and log-ins too."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from bench.client import Client, RpcError, parse_endpoint, tls_context
from bench.load.spec import Spec
from bench.load.traffic.actors import Scan
from bench.load.traffic.recipes import Mutex, Stms
from bench.load.traffic.streams import GRANT, CatchUps
from bench.load.traffic.workloads import PUT, RANGE
from bench.systems.systems import System, find_etcd, free_ports
from cluster.pb import rpc_pb2 as pb

T = TypeVar("T")


def with_client(etcd: System, work: Callable[[Client], Awaitable[T]]) -> T:
    async def run() -> T:
        client = await Client.open([parse_endpoint(e) for e in etcd.endpoints], 2)
        try:
            async with asyncio.timeout(60):
                return await work(client)
        finally:
            await client.close()

    return uvloop.run(run())


async def put(client: Client, key: bytes, value: bytes = b"v") -> int:
    return (await client.unary(PUT, pb.PutRequest(key=key, value=value), pb.PutResponse)).header.revision


async def operation(caller: Any) -> RpcError | None:
    done: asyncio.Future[RpcError | None] = asyncio.get_running_loop().create_future()
    caller.call("", b"", lambda error, body: done.set_result(error))
    return await done


@pytest.mark.parametrize("rpc", [True, False], ids=["lock service", "recipe"])
def test_a_lock_is_held_by_one_at_a_time_and_by_all_in_the_end(etcd: System, rpc: bool) -> None:
    async def work(client: Client) -> tuple[int, int]:
        inside = most = entered = 0

        async def member(place: int) -> None:
            nonlocal inside, most, entered
            lease = (await client.unary(GRANT, pb.LeaseGrantRequest(TTL=60), pb.LeaseGrantResponse)).ID
            mutex = Mutex(client, place, lease, b"test-lock/%d" % rpc, rpc=rpc, timeout_s=30)
            for _ in range(5):
                await mutex.lock()
                inside += 1
                most = max(most, inside)
                entered += 1
                await asyncio.sleep(0.001)
                inside -= 1
                await mutex.unlock()

        await asyncio.gather(*(member(i) for i in range(4)))
        return most, entered

    assert with_client(etcd, work) == (1, 20)


@pytest.mark.parametrize("isolation", ["c", "r", "s", "ss"])
@pytest.mark.parametrize("locker", ["stm", "lock-client"])
def test_each_optimistic_transaction_writes_its_keys_once(etcd: System, isolation: str, locker: str) -> None:
    prefix = f"/stm/{isolation}/{locker}/"
    spec = Spec(
        "stm", tuple(etcd.endpoints), clients=4, total=1, isolation=isolation, locker=locker, key_space=3,
        keys_per_txn=2, write_percent=50, key_prefix=prefix, key_size_bytes=len(prefix) + 1,
    )
    spec.check()

    async def work(client: Client) -> tuple[list[RpcError | None], int]:
        stms = Stms(spec, client)
        await stms.create()
        errors: list[RpcError | None] = []
        for _ in range(5):
            errors += await asyncio.gather(*(operation(caller) for caller in stms.callers))
        await stms.close()
        found = await client.unary(
            RANGE, pb.RangeRequest(key=prefix.encode(), range_end=b"/stm0"), pb.RangeResponse
        )
        return errors, sum(kv.version for kv in found.kvs if kv.key.startswith(prefix.encode()))

    errors, versions = with_client(etcd, work)
    assert errors == [None] * 20
    assert versions == 20  # one of two keys is written by each


def test_a_paged_scan_reads_each_key_once_at_one_revision(etcd: System) -> None:
    async def work(client: Client) -> tuple[int, int]:
        for i in range(25):
            await put(client, b"/scan/%02d" % i)
        scan = Scan(Spec("scan", tuple(etcd.endpoints), range_key="/scan/", page=10, total=1), client)
        assert await operation(scan.callers[0]) is None
        return scan.keys_read, len(scan.extra_us["page"])

    assert with_client(etcd, work) == (25, 3)


def test_watchers_from_an_old_revision_have_caught_up_when_each_had_every_event(etcd: System) -> None:
    async def work(client: Client) -> tuple[bool, int, int]:
        first = await put(client, b"/past")
        for _ in range(9):
            await put(client, b"/past")
        watchers = CatchUps(client, pb.WatchCreateRequest(key=b"/past", start_revision=first), 10, streams=2,
                            watchers=6)
        good = await watchers.wait(60)
        watchers.close()
        return good, watchers.received, len(watchers.caught_up_us)

    assert with_client(etcd, work) == (True, 60, 6)


def test_watchers_of_a_compacted_revision_say_so(own_etcd: System) -> None:
    async def work(client: Client) -> dict[str, int]:
        await put(client, b"/gone")
        last = await put(client, b"/gone")
        await client.unary(
            "/etcdserverpb.KV/Compact", pb.CompactionRequest(revision=last), pb.CompactionResponse
        )
        watchers = CatchUps(client, pb.WatchCreateRequest(key=b"/gone", start_revision=1), 2)
        assert not await watchers.wait(60)
        watchers.close()
        return watchers.errors

    (reason,) = with_client(own_etcd, work)
    assert "compacted" in reason


@pytest.fixture(scope="module")
def secure_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An etcd that serves clients over TLS with a certificate of its own making."""
    client_port, peer_port = free_ports(2)
    url = f"https://127.0.0.1:{client_port}"
    directory = tmp_path_factory.mktemp("tls")
    peer = f"http://127.0.0.1:{peer_port}"
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                find_etcd(), "--data-dir", str(directory / "data"), "--auto-tls", "--listen-client-urls", url,
                "--advertise-client-urls", url, "--listen-peer-urls", peer, "--initial-advertise-peer-urls",
                peer, "--initial-cluster", f"default={peer}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield url
    finally:
        process.kill()
        process.wait()


async def opened(endpoint: str, **tls: Any) -> Client:
    """A client, as soon as the server is there."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await Client.open([parse_endpoint(endpoint)], tls=tls_context(**tls))
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)


def test_calls_pass_over_tls(secure_endpoint: str) -> None:
    async def work() -> int:
        client = await opened(secure_endpoint, insecure_skip_verify=True)
        try:
            return await put(client, b"secret", bytes(200_000))
        finally:
            await client.close()

    assert uvloop.run(work()) > 1


def test_a_certificate_that_nobody_vouches_for_is_refused(secure_endpoint: str) -> None:
    async def work() -> None:
        await (await opened(secure_endpoint, insecure_skip_verify=True)).close()
        await opened(secure_endpoint)

    with pytest.raises(ssl.SSLCertVerificationError):
        uvloop.run(work())


def test_a_user_logs_in_and_a_wrong_password_does_not(own_etcd: System) -> None:
    def etcdctl(*words: str) -> None:
        subprocess.run(
            [str(Path(sys.executable).parent / "etcdctl"), "--endpoints", own_etcd.endpoints[0], *words],
            check=True, capture_output=True, timeout=60,
        )

    etcdctl("user", "add", "root:secret")
    etcdctl("user", "grant-role", "root", "root")
    etcdctl("auth", "enable")
    endpoints = [parse_endpoint(e) for e in own_etcd.endpoints]

    async def work() -> None:
        client = await Client.open(endpoints, 2, user="root:secret")
        try:
            assert await put(client, b"allowed") > 1
        finally:
            await client.close()
        with pytest.raises(RpcError, match="authentication failed"):
            await Client.open(endpoints, user="root:wrong")

    uvloop.run(work())
