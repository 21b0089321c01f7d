"""What ends a link on which nothing passes: the options of its socket, a dial's limit, heartbeats that are
answered, a look for a reset that the loop has not told of."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import Any

import pytest
import uvloop
import zmq

import tools.muster.machine.zmtp.dealer
import tools.muster.machine.zmtp.router
from tests.unit.zmtp.test_sockets import free_port, run, until
from tools.muster.machine.zmtp import Dealer, LinkOptions, Router
from tools.muster.machine.zmtp.codec import GREETING, frame_head, ready
from tools.muster.machine.zmtp.stream import Stream


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """The sockets of all connections that are made."""
    found: list[socket.socket] = []

    def stream(loop: Any, sock: socket.socket, *others: Any, **more: Any) -> Stream:
        found.append(sock)
        return Stream(loop, sock, *others, **more)

    for module in (tools.muster.machine.zmtp.dealer, tools.muster.machine.zmtp.router):
        monkeypatch.setattr(module, "Stream", stream)
    return found


def limits(sock: socket.socket) -> tuple[int, int, int, int]:
    """Milliseconds without an acknowledgement, whether keep-alives are sent, and their seconds."""
    tcp = socket.IPPROTO_TCP
    return (
        sock.getsockopt(tcp, socket.TCP_USER_TIMEOUT),
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        sock.getsockopt(tcp, socket.TCP_KEEPIDLE),
        sock.getsockopt(tcp, socket.TCP_KEEPINTVL),
    )


def test_both_sides_of_a_link_end_when_nothing_passes(guarded: list[socket.socket]) -> None:
    async def scenario() -> None:
        loop, endpoint = asyncio.get_running_loop(), f"tcp://127.0.0.1:{free_port()}"
        router = Router(loop, endpoint, lambda parts: None, LinkOptions(3, silence_s=1.5))
        dealer = Dealer(loop, endpoint, b"d", lambda parts: None, LinkOptions(3, silence_s=1.5))
        await until(lambda: dealer.send([b"x"]))
        assert [limits(s) for s in guarded] == [(1500, 1, 2, 2)] * 2
        dealer.close()
        router.close()

    run(scenario)


def test_a_dial_that_hangs_is_given_up_and_made_anew() -> None:
    async def scenario() -> None:
        lost: list[str] = []
        # whose kernel drops what it has no room for
        with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
            waiting = [socket.socket() for _ in range(4)]
            for s in waiting:
                s.setblocking(False)
                s.connect_ex(deaf.getsockname())
            began = time.monotonic()
            dealer = Dealer(
                asyncio.get_running_loop(), f"tcp://127.0.0.1:{deaf.getsockname()[1]}", b"d",
                lambda parts: None, LinkOptions(3, silence_s=0.2), lost=lost.append)
            await until(lambda: len(lost) >= 2)
            took_s = time.monotonic() - began
            dealer.close()
            for s in waiting:
                s.close()
        assert lost[:2] == ["no connection in time"] * 2
        assert took_s < 9.5  # two dials without ``silence_s`` take 10 s

    run(scenario)


def test_a_reset_behind_the_last_message_ends_the_connection(
    guarded: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop tells of both once, and a router that only listens sends nothing that would show the reset."""
    monkeypatch.setattr(tools.muster.machine.zmtp.router, "_LOOK_S", 0.05)

    async def scenario() -> None:
        came: list[list[bytes]] = []
        gone: list[bytes] = []
        router = Router(
            asyncio.get_running_loop(), f"tcp://127.0.0.1:{free_port()}", came.append, LinkOptions(3),
            gone=gone.append)
        with socket.create_connection(("127.0.0.1", router.port)) as partner:
            partner.send(GREETING + ready(b"DEALER", b"d") + frame_head(5, False) + b"first")
            await until(lambda: came)
            partner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            partner.send(frame_head(4, False) + b"last")
        await until(lambda: gone, 5.0)
        assert came == [[b"d", b"first"], [b"d", b"last"]]
        assert [s.fileno() for s in guarded] == [-1]
        router.close()

    uvloop.run(scenario())


def test_heartbeats_of_libzmq_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends a connection whose partner leaves a PING unanswered."""
    pongs: list[bytes] = []
    put = Stream._put

    def noted(stream: Stream, data: bytes) -> bool:
        if data[3:7] == b"PONG":
            pongs.append(data)
        return put(stream, data)

    monkeypatch.setattr(Stream, "_put", noted)

    async def scenario() -> None:
        context: zmq.Context[Any] = zmq.Context()
        endpoint = f"tcp://127.0.0.1:{free_port()}"
        came: list[list[bytes]] = []
        router = Router(asyncio.get_running_loop(), endpoint, came.append, LinkOptions(3))
        partner = context.socket(zmq.DEALER)
        partner.linger = 0
        partner.setsockopt(zmq.HEARTBEAT_IVL, 300)
        partner.setsockopt(zmq.HEARTBEAT_TIMEOUT, 600)
        partner.setsockopt(zmq.HEARTBEAT_TTL, 600)
        monitor = partner.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        partner.connect(endpoint)
        partner.send(b"one")
        await until(lambda: came)
        await until(lambda: len(pongs) >= 4)  # by then it would have waited long enough for the first one
        assert not monitor.poll(0)
        partner.disable_monitor()
        partner.close()
        context.destroy(linger=0)
        router.close()

    run(scenario)
