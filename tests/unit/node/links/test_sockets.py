"""A link that ends is told from one that is stuck."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import zmq
from structlog.testing import capture_logs

from tools.muster.machine.zmtp import LinkOptions
from tools.muster.machine.zmtp.curve.sockets import LoopSocket, router


@pytest.fixture
def context():  # type: ignore[no-untyped-def]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


def dealer(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.rcvhwm = 1
    socket.routing_id = b"front"
    socket.connect(endpoint)
    socket.send(b"hello")
    return socket


async def send_until_refused(sender: LoopSocket, data: bytes) -> None:
    async with asyncio.timeout(60):
        while sender.send([b"front", data]):
            await asyncio.sleep(0)


@pytest.mark.parametrize("ends", [True, False])
def test_only_a_connection_that_is_stuck_is_warned_of(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path, ends: bool
) -> None:
    async def scenario() -> None:
        endpoint = f"ipc://{tmp_path}/s"
        came = asyncio.Event()
        loop = asyncio.get_running_loop()
        bound = router(context, endpoint, LinkOptions(100_000 if ends else 2), None)
        bound.bind(endpoint)
        served = LoopSocket(loop, bound, lambda _: came.set())
        front = dealer(context, endpoint)
        try:
            async with asyncio.timeout(60):
                await came.wait()
            if ends:
                front.close()
            await send_until_refused(served, b"x" if ends else b"x" * 100_000)
        finally:
            front.close()
            served.close()

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert [line["log_level"] for line in logs] == ([] if ends else ["warning"])
