"""libzmq's sockets with keys: a dealer that says why, and dials again; a router that bears few strangers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import zmq
from structlog.testing import capture_logs

import tools.muster.machine.zmtp.curve.monitors
from tests.unit.zmtp.test_sockets import free_port, until
from tools.muster.machine.zmtp import hint_of
from tools.muster.machine.zmtp.curve.keys import CurveKeys
from tools.muster.machine.zmtp.curve.sockets import LoopSocket
from tools.muster.machine.zmtp.hints import NO_KEY, NO_PEER
from tools.muster.machine.zmtp.links import Links

MECHANISM = b"CURVE".ljust(20, b"\0")
GREETING = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0" + MECHANISM + bytes(32)


class World:
    """A router with a key at a port of loopback, and dealers."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.keys = CurveKeys(*zmq.curve_keypair())
        self.made: list[Links] = []
        self.port = free_port()
        self.came: list[list[bytes]] = []
        self.logged: Sequence[Any] = ()
        self.sockets: list[Any] = []

    def links(self, keys: CurveKeys | None = None) -> Links:
        self.made.append(Links(self.loop, keys or self.keys))
        return self.made[-1]

    async def router(self, keys: CurveKeys | None = None) -> Any:
        def free() -> bool:  # libzmq's threads close a port a little later
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", self.port))
                probe.listen()
                return True
            return False

        await until(free)
        made = self.links(keys).listen(
            f"tcp://127.0.0.1:{self.port}", self.came.append, keyed=True, hwm=100, strangers=True)
        self.sockets.append(made)
        return made

    def dealer(self, keys: CurveKeys | None = None, opened: Callable[[], None] | None = None) -> LoopSocket:
        made = self.links(keys).dial(
            f"tcp://127.0.0.1:{self.port}", b"d%d" % len(self.sockets), lambda parts: None, shard=0,
            hwm=100, opened=opened)
        assert isinstance(made, LoopSocket)
        self.sockets.append(made)
        return made

    def stranger(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port))

    def close(self) -> None:
        for made in self.sockets:
            made.close()
        for links in self.made:
            links.close()


def run(scenario: Callable[[World], Awaitable[None]]) -> list[dict[str, Any]]:
    """What was logged."""

    async def main() -> None:
        world = World()
        world.logged = logs
        try:
            await scenario(world)
        finally:
            world.close()

    with capture_logs() as logs:
        asyncio.run(main())
    return [dict(line) for line in logs]


async def ended(sock: socket.socket) -> None:
    """Wait until the other side has closed it."""
    sock.setblocking(False)

    def closed() -> bool:
        with contextlib.suppress(BlockingIOError):
            try:
                while sock.recv(10_000):
                    pass
            except ConnectionError:
                return True
            return True
        return False

    await until(closed)
    sock.close()


def test_a_dealer_says_that_it_is_there() -> None:
    async def scenario(world: World) -> None:
        opened: list[bool] = []
        await world.router()
        dealer = world.dealer(opened=lambda: opened.append(dealer.send([b"hello"])))
        await until(lambda: world.came)
        assert (opened, dealer.trouble) == ([True], "")

    assert run(scenario) == []


def test_nobody_there_is_told_from_another_key() -> None:
    async def scenario(world: World) -> None:
        dealer = world.dealer()
        await until(lambda: dealer.trouble.startswith("no connection"))
        router = await world.router(CurveKeys(*zmq.curve_keypair()))
        await until(lambda: dealer.trouble == NO_KEY)
        assert hint_of(dealer.trouble) == "every host needs the same --peer-key-file"
        await until(lambda: world.logged)  # the router hears of it by libzmq's other thread
        router.close()
        await world.router()
        await until(lambda: not dealer.trouble)

    lines = run(scenario)
    (line,) = lines  # once a minute
    assert line["reason"] == NO_KEY
    assert line.get("address", "").split(":")[0] in ("127.0.0.1", ""), (
        "libzmq may have closed it before its address could be asked for"
    )


def test_while_keys_change_a_dealer_finds_the_one_that_a_router_serves_with() -> None:
    """And the router lets in who shows the next one."""

    async def scenario(world: World) -> None:
        old, new = world.keys, zmq.curve_keypair()
        world.keys._take(old.public, old.secret, [new[0]])  # of both, the old one in use
        await world.router()
        changed = CurveKeys(*new, others=[old.public])
        dealer = world.dealer(changed)
        await until(lambda: not dealer.trouble)
        await until(lambda: dealer.send([b"hello"]))
        await until(lambda: world.came)
        again = world.dealer(changed)  # it knows by now, of every socket
        await until(lambda: not again.trouble)
        lost: list[str] = []
        for keys in (CurveKeys(*new, others=[old.public]), CurveKeys(*zmq.curve_keypair(), others=[new[0]])):
            once = world.links(keys).dial(
                f"tcp://127.0.0.1:{world.port}", b"once", lambda parts: None, shard=0, hwm=10,
                lost=lost.append)
            world.sockets.append(once)
            await until(lambda once=once: not once.trouble or bool(lost))  # type: ignore[misc]
        assert lost == [NO_KEY], "the first one is there at its second try"
        stranger = world.dealer(CurveKeys(*zmq.curve_keypair(), others=[old.public]))
        await until(lambda: stranger.trouble == NO_KEY)

    run(scenario)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0" + b"NULL".ljust(20, b"\0") + bytes(32),
    ],
)
def test_a_dealer_dials_again_after_an_answer_that_is_none(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libzmq does not: a host that was started without its key file by mistake was never reached again."""
    monkeypatch.setattr(tools.muster.machine.zmtp.curve.monitors, "_REDIAL_S", 0.1)

    async def scenario(world: World) -> None:
        with socket.create_server(("127.0.0.1", world.port)) as other:
            other.setblocking(False)
            dealer = world.dealer()
            connection, _ = await world.loop.sock_accept(other)
            connection.sendall(answer)
            await until(lambda: dealer.trouble in (NO_KEY, NO_PEER))
            connection.close()
        await world.router()
        await until(lambda: not dealer.trouble)

    run(scenario)


@pytest.mark.parametrize("said", [
    # a command of half a gigabyte, before anything is proved
    GREETING + b"\x06" + (1 << 29).to_bytes(8, "big") + bytes(60_000),
    GREETING + b"\x06" + (9000).to_bytes(8, "big") + bytes(8500),
])
def test_a_stranger_says_little(said: bytes) -> None:
    async def scenario(world: World) -> None:
        await world.router()
        for _ in range(3):
            stranger = world.stranger()
            stranger.sendall(said)
            await ended(stranger)

    assert [line["reason"] for line in run(scenario)] == [
        "it sent too much before it proved to have the peer key"
    ]


@pytest.mark.parametrize("said", [b"", GREETING[:20], GREETING])
def test_a_stranger_has_a_moment_and_a_key_holder_has_not(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools.muster.machine.zmtp.curve.monitors, "HELLO_S", 0.5)

    async def scenario(world: World) -> None:
        await world.router()
        holder = world.dealer()
        await until(lambda: not holder.trouble)
        stranger = world.stranger()
        stranger.sendall(said)
        await ended(stranger)
        assert holder.send([b"still there"])
        await until(lambda: world.came)

    assert [line["reason"] for line in run(scenario)] == ["no handshake in time"]


def test_of_too_many_strangers_the_first_goes_and_key_holders_come_and_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tools.muster.machine.zmtp.curve.monitors, "MOST_STRANGERS", 3)
    monkeypatch.setattr(tools.muster.machine.zmtp.curve.monitors, "HELLO_S", 60.0)

    async def scenario(world: World) -> None:
        await world.router()
        before = world.dealer()
        await until(lambda: not before.trouble)
        strangers = [world.stranger() for _ in range(4)]
        await ended(strangers[0])
        after = world.dealer()
        await until(lambda: not after.trouble)
        for holder in (before, after):
            assert holder.send([b"x"])
        await until(lambda: len(world.came) == 2)
        for stranger in strangers:
            stranger.close()

    assert [line["reason"] for line in run(scenario)] == [
        "too many connections have not proved to hold the peer key"
    ]


def test_a_port_scan_ends_nothing() -> None:
    async def scenario(world: World) -> None:
        await world.router()
        for said in (b"", b"\n", b"GET / HTTP/1.1\r\n\r\n", bytes(100), GREETING + b"\x04\x05xxxxx"):
            with world.stranger() as stranger:
                stranger.sendall(said)
        holder = world.dealer()
        await until(lambda: not holder.trouble)

    run(scenario)


def test_a_descriptor_that_is_another_file_by_now_is_left_alone() -> None:
    async def scenario(world: World) -> None:
        router = await world.router()
        monitor = router._monitor
        with open(os.devnull, "rb") as other:
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(100):
                assert monitor._address(other.fileno()) == ""
            assert len(os.listdir("/proc/self/fd")) == before

    assert run(scenario) == []
