"""The front's process: ready when it serves and has seen a leader, gone in order on SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
import zmq

from cluster.pb import rpc_pb2
from cluster.settings import Common, FrontSettings, Peer, dumps
from cluster.wire.messages import HEAD, Method, Status
from proxy.main import split_url
from tests.unit.proxy.routing.test_links import RouterNode, free_port, run, until
from tools.muster.machine.process.crash import FAULT_EXIT, crash_handler
from tools.muster.machine.process.handed import hand


def test_a_front_says_ready_serves_and_exits_0_on_sigterm(tmp_path: Path) -> None:
    async def test(context: zmq.Context[Any]) -> None:
        port = free_port()
        read, write = os.pipe()
        common = Common(cluster_id=9, member_id=1, name="h1", shard_count=1, placement_depth=2,
                        peers=(Peer(1, "h1", "127.0.0.1", 1),), run_dir=str(tmp_path), status_fd=write)
        settings = FrontSettings(common=common, index=0, listen=(f"http://127.0.0.1:{port}",))
        with os.fdopen(hand([dumps(settings)])) as handed:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tools.muster.processes.front", pass_fds=(write,), stdin=handed,
                stderr=asyncio.subprocess.PIPE)
        os.close(write)
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb"))
        said = asyncio.create_task(reader.readline())
        await asyncio.sleep(0.3)
        assert not said.done()  # no node, no leader: not ready
        node = RouterNode(context, f"ipc://{tmp_path}/node-0.sock", b"")
        try:
            assert await asyncio.wait_for(said, 60) == b'{"event": "ready"}\n'
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                put = channel.unary_unary(
                    "/etcdserverpb.KV/Put", request_serializer=rpc_pb2.PutRequest.SerializeToString,
                    response_deserializer=rpc_pb2.PutResponse.FromString)
                answer = asyncio.ensure_future(put(rpc_pb2.PutRequest(key=b"k")))
                await until(lambda: any(r[1] == Method.PUT for r in node.requests))
                identity, rid, _, _ = node.requests[-1]
                node.answer(identity, rid, Status.OK, HEAD.pack(6, 3))
                assert (await answer).header.revision == 6
                watch = channel.stream_stream(
                    "/etcdserverpb.Watch/Watch", request_serializer=rpc_pb2.WatchRequest.SerializeToString,
                    response_deserializer=rpc_pb2.WatchResponse.FromString)()
                await watch.write(rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=b"k")))
                assert (await watch.read()).created
                process.send_signal(signal.SIGTERM)
                assert await watch.code() is grpc.StatusCode.UNAVAILABLE
            assert await asyncio.wait_for(process.wait(), 60) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            transport.close()
            await node.close()

    run(test)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:2379", "http://127.0.0.1", "127.0.0.1:2379"])
def test_a_url_that_cannot_be_served_is_an_error(url: str) -> None:
    with pytest.raises(ValueError, match="client URL"):
        split_url(url)


def test_a_fault_in_the_program_ends_the_process_and_a_broken_connection_does_not(
        monkeypatch: pytest.MonkeyPatch) -> None:
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    loop = asyncio.new_event_loop()
    crash = crash_handler(structlog.get_logger(), clients=True, disks=False)
    crash(loop, {"message": "lost", "exception": ConnectionResetError()})
    crash(loop, {"message": "only words"})
    assert exits == []
    crash(loop, {"message": "bug", "exception": KeyError("x")})
    assert exits == [FAULT_EXIT]
    loop.close()
