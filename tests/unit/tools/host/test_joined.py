"""A front inside its node's process: what clients are told is what a node of its own would tell them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from bench.client import Client, parse_endpoint
from cluster.pb import rpc_pb2 as pb
from cluster.settings import Common, FrontSettings, NodeSettings, Peer
from node.replica.roles.made import make_node
from proxy.main import Front
from tests.ports import free_ports
from tests.short_dirs import short_dir
from tools.muster import joined
from tools.muster.joined import make_front
from tools.muster.machine.disk.disks import NodesMachine
from tools.muster.machine.real import RealMachine
from tools.muster.processes.node import Fatal


def free_port() -> int:
    return free_ports(1)[0]


@asynccontextmanager
async def host(data: Path, *, joining: bool = False) -> AsyncIterator[tuple[Front, Client]]:
    loop = asyncio.get_running_loop()
    peer_port, client_port = free_port(), free_port()
    url = f"http://127.0.0.1:{client_port}"
    common = Common(
        cluster_id=7, member_id=1, name="h", shard_count=1, placement_depth=2, log_format="console",
        peers=(Peer(1, "h", "127.0.0.1", peer_port, (f"http://127.0.0.1:{peer_port}",)),),
        run_dir=short_dir())
    data.mkdir()
    node = make_node(
        NodeSettings(
            common=common, shard=0, data_dir=str(data), listen_host="127.0.0.1", listen_port=peer_port,
            client_urls=(url,), incarnation=1,
        ),
        NodesMachine(loop, common),
    )
    settings = FrontSettings(common=common, index=0, listen=(url,), joining=joining)
    front = make_front(node, settings, RealMachine(loop, common))
    if joining:
        await front.start()
        assert not front.server.addresses, "its node has not applied anything yet"
    node.start()
    if not joining:
        await front.start()
    async with asyncio.timeout(60):
        while not (front.router.ready and front.server.addresses and node.writes.leader):
            await asyncio.sleep(0.01)
    client = await Client.open([parse_endpoint(f"127.0.0.1:{client_port}")], connections=1)
    try:
        yield front, client
    finally:
        await client.close()
        await front.stop()
        await node.stop()


def test_reads_near_show_every_write_that_was_acknowledged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path / "data") as (front, client):
            async def get(serializable: bool) -> pb.RangeResponse:
                request = pb.RangeRequest(key=b"k", serializable=serializable)
                return await client.unary("/etcdserverpb.KV/Range", request, pb.RangeResponse)

            for serializable in (True, False):
                absent = await get(serializable)
                assert (len(absent.kvs), absent.count, absent.header.revision) == (0, 0, front.router.highest)
            for number in range(50):
                put = await client.unary(
                    "/etcdserverpb.KV/Put", pb.PutRequest(key=b"k", value=b"%d" % number), pb.PutResponse)
                for serializable in (True, False):
                    found = await get(serializable)
                    assert found.header == put.header
                    assert [(kv.value, kv.mod_revision, kv.version) for kv in found.kvs] == [
                        (b"%d" % number, put.header.revision, number + 1)]
                    assert (found.count, found.more) == (1, False)
            await client.unary(
                "/etcdserverpb.KV/DeleteRange", pb.DeleteRangeRequest(key=b"k"), pb.DeleteRangeResponse)
            for serializable in (True, False):
                assert not (await get(serializable)).kvs
            # one for each linearizable read: none was answered without
            assert front.router.read_index.rounds >= 52

    asyncio.run(scenario())


def test_a_long_answer_arrives_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path / "data") as (_, client):
            values = {b"%04d" % n: bytes((n % 251,)) * (n % 700) for n in range(3000)}
            ops = [pb.RequestOp(request_put=pb.PutRequest(key=k, value=v)) for k, v in values.items()]
            for at in range(0, len(ops), 100):
                await client.unary(
                    "/etcdserverpb.KV/Txn", pb.TxnRequest(success=ops[at : at + 100]), pb.TxnResponse
                )
            request = pb.RangeRequest(key=b"\0", range_end=b"\0")
            found = await client.unary("/etcdserverpb.KV/Range", request, pb.RangeResponse)
            assert {kv.key: kv.value for kv in found.kvs} == values
            assert found.count == 3000

    asyncio.run(scenario())


@pytest.mark.parametrize("serializable", [True, False])
def test_a_fault_of_an_apply_that_a_read_began_is_not_the_reads(tmp_path: Path, serializable: bool) -> None:
    """It ends the process: what has been applied in part is everybody's."""
    async def scenario() -> None:
        seen: list[Any] = []
        async with host(tmp_path / "data") as (front, client):
            fault = ValueError("a record is cut short")

            def catch_up() -> None:
                raise fault

            near: Any = next(
                link.near for link in front.router.routes[0].links.values() if link.near is not None
            )
            node, loop = near._node, asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: seen.append(context["exception"]))
            near._node = SimpleNamespace(catch_up=catch_up, order_index=node.order_index, loop=loop)
            await client.unary(
                "/etcdserverpb.KV/Range", pb.RangeRequest(key=b"k", serializable=serializable),
                pb.RangeResponse,
            )
            assert fault in seen

    asyncio.run(scenario())


def test_a_front_of_a_host_that_joins_listens_once_its_node_has_published_the_host(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path / "data", joining=True) as (_, client):
            request = pb.MemberListRequest(linearizable=False)
            listed = await client.unary("/etcdserverpb.Cluster/MemberList", request, pb.MemberListResponse)
            assert [member.name for member in listed.members] == ["h"]

    asyncio.run(scenario())


def test_a_front_that_joins_stops_before_it_serves_and_a_taken_port_ends_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        loop, seen = asyncio.get_running_loop(), []
        loop.set_exception_handler(lambda _, context: seen.append(context["exception"]))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            common = Common(
                cluster_id=7, member_id=1, name="h", shard_count=1, placement_depth=2, peers=(), run_dir="")
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            settings = FrontSettings(common=common, index=0, listen=(url,), joining=True)
            front = Front(settings, RealMachine(loop, common))
            await front.start()
            front._arrived()
            async with asyncio.timeout(60):
                while not seen:
                    await asyncio.sleep(0.01)
            await front.stop()
        assert isinstance(seen[0], RuntimeError), "an OSError would be a client's"
        assert isinstance(seen[0].__cause__, OSError)

    asyncio.run(scenario())


def test_a_front_that_joins_and_never_serves_stops_in_order(tmp_path: Path) -> None:
    """It has no client port yet. Its host may be stopped, or removed, before it has the cluster's data."""
    async def scenario() -> None:
        common = Common(
            cluster_id=7, member_id=1, name="h", shard_count=1, placement_depth=2, peers=(),
            run_dir=str(tmp_path))
        settings = FrontSettings(common=common, index=0, listen=("http://127.0.0.1:1",), joining=True)
        front = Front(settings, RealMachine(asyncio.get_running_loop(), common))
        await front.start()
        await front.stop()
        front._arrived()
        assert front._beginning is None, "the data has come too late"

    asyncio.run(scenario())


async def status(port: int, path: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])


def test_a_host_that_joins_answers_probes_from_the_start(tmp_path: Path) -> None:
    """At --listen-metrics-urls, as an etcd does: who gets no answer there may end the host."""
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        clients, metrics = free_ports(2)
        common = Common(
            cluster_id=7, member_id=1, name="h", shard_count=1, placement_depth=2, peers=(),
            run_dir=str(tmp_path))
        settings = FrontSettings(
            common, 0, (f"http://127.0.0.1:{clients}",), joining=True,
            listen_metrics=(f"http://127.0.0.1:{metrics}",))
        front = Front(settings, RealMachine(loop, common))
        async with asyncio.timeout(60):
            await front.start()
            assert not front.server.addresses
            assert await status(metrics, "/metrics") == 200
            for path, code in (("//metrics", 301), ("/a/../health", 301), ("/nope", 404)):
                assert await status(metrics, path) == code, path
            assert await status(metrics, "/readyz/linearizable_read") == 503
            front._arrived()
            while front.context.joins:
                await asyncio.sleep(0.01)
            assert front.server.addresses == [("127.0.0.1", clients)]
            assert await status(metrics, "/metrics") == 200
            await front.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("fronts", [1, 2])
def test_statistics_of_version_2_cost_a_host_with_one_front_no_other_metrics(fronts: int) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        common = Common(
            cluster_id=7, member_id=1, name="h", shard_count=1, placement_depth=2, peers=(), run_dir="")
        settings = FrontSettings(common, 0, ("http://127.0.0.1:1",), fronts=fronts)
        front = Front(settings, RealMachine(loop, common))
        traffic = cast(Any, front.metrics.of_v2).__self__
        assert (traffic.gather == front.siblings.gather) == (fronts > 1)

    asyncio.run(scenario())


def test_a_front_that_stops_still_asks_the_others_for_what_it_owes(tmp_path: Path) -> None:
    """A request for their figures, under way then, was never answered."""
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        common = Common(
            cluster_id=7, member_id=1, name="h", shard_count=1, placement_depth=2, peers=(),
            run_dir=str(tmp_path))
        front = Front(FrontSettings(common, 0, ("http://127.0.0.1:1",), fronts=2), RealMachine(loop, common))
        told = loop.create_future()

        async def answers_all(grace_s: float, last: object) -> None:
            await asyncio.wait_for(told, 30)

        front.siblings.gather(told.set_result)
        front.server.stop = answers_all  # type: ignore[method-assign, assignment]
        await front.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("ends", ["node", "supervisor"])
def test_a_host_that_compares_its_data_before_it_serves_can_be_stopped(
    ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That may take minutes, in which nobody looked: the supervisor killed node 0."""
    told = list[str]()

    async def compare() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(*((os.kill, os.getpid(), signal.SIGTERM) if ends == "supervisor"
                         else (node.fatal.set_result, "its disk fails")))
        await asyncio.Event().wait()

    async def stop(name: str) -> None:
        told.append(name)

    node = SimpleNamespace(
        start=lambda: None, stop=lambda: stop("node"), roster=SimpleNamespace(left=False),
        peers=SimpleNamespace(round_trips=SimpleNamespace(start=lambda: None)))
    common = Common(
        cluster_id=7, member_id=1, name="h", shard_count=1, placement_depth=2, peers=(), run_dir="")
    node.settings = NodeSettings(common=common, shard=0, data_dir=str(tmp_path))
    front = SimpleNamespace(start=compare, stop=lambda: stop("front"))

    async def scenario() -> None:
        node.fatal = asyncio.get_running_loop().create_future()
        place = SimpleNamespace(keep=lambda loop: None)
        await asyncio.wait_for(joined._run(node.settings, cast(Any, None), cast(Any, place)), 30)

    monkeypatch.setattr(joined, "sealed_node", lambda *given: node)
    monkeypatch.setattr(joined, "make_front", lambda *given: front)
    for name in ("NodesMachine", "RealMachine", "settle_memory", "give_back_freed", "turns"):
        monkeypatch.setattr(joined, name, MagicMock())
    if ends == "supervisor":
        asyncio.run(scenario())
        assert told == ["front", "node"]
    else:
        with pytest.raises(Fatal, match="its disk fails"):
            asyncio.run(scenario())
