"""Before its hello a stranger at a router costs little, and keeps nobody out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

import tools.muster.machine.zmtp.router
from tests.unit.zmtp.test_sockets import free_port, until
from tools.muster.machine.zmtp import Dealer, LinkOptions, Router
from tools.muster.machine.zmtp.codec import COMMAND, GREETING, frame_head, ready
from tools.muster.machine.zmtp.stream import STRANGER_BYTES

GREETED = GREETING + ready(b"DEALER", b"stranger")
HELLO = b"hello"


class World:
    """A router that trusts whoever says HELLO."""

    def __init__(self) -> None:
        self.endpoint = f"tcp://127.0.0.1:{free_port()}"
        self.came: list[bytes] = []
        self.gone: list[bytes] = []
        self.router = Router(
            asyncio.get_running_loop(), self.endpoint, self.receive, LinkOptions(100), strangers=True,
            gone=self.gone.append)

    def receive(self, parts: list[bytes]) -> None:
        self.came.append(parts[-1])
        if parts[-1] == HELLO:
            self.router.trust(parts[0])

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.router.port)

    async def ended(self, reader: asyncio.StreamReader, limit_s: float = 20.0) -> None:
        """Wait until the router has closed it."""
        async with asyncio.timeout(limit_s):
            with contextlib.suppress(ConnectionError):
                while await reader.read(10_000):
                    pass

    async def ends(self, data: bytes) -> None:
        """Say something to it, and see it close the connection."""
        reader, writer = await self.connect()
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
        await self.ended(reader)
        writer.close()


def run(scenario: Callable[[World], Awaitable[None]]) -> list[str]:
    """The reasons that the log gave."""

    async def main() -> None:
        world = World()
        try:
            await scenario(world)
        finally:
            world.router.close()

    with capture_logs() as logs:
        asyncio.run(main())
    return [line["reason"] for line in logs]


def message(size: int) -> bytes:
    return frame_head(size, False) + bytes(size)


@pytest.mark.parametrize(("said", "reason"), [
    (GREETED + frame_head(STRANGER_BYTES + 1, False), "a message is too large"),
    (GREETED + (frame_head(STRANGER_BYTES, True) + bytes(STRANGER_BYTES)) * 2, "a message is too large"),
    (GREETED + frame_head(1 << 29, False) + bytes(10_000), "a message is too large"),
    (GREETED + message(1) * 100, "it said too much before its hello"),
    (GREETED + (bytes((COMMAND, 7)) + b"\x04PING\0\0") * 100_000, "it said too much before its hello"),
    (b"EHLO peer\r\n\r\n", "it does not speak ZMTP"),
])
def test_a_stranger_says_little(said: bytes, reason: str) -> None:
    async def scenario(world: World) -> None:
        for _ in range(5):
            await world.ends(said)

    assert run(scenario) == [reason], "each cause is told once"


def test_a_partner_may_say_much_right_behind_its_hello() -> None:
    """Both are in one read of the router's."""

    async def scenario(world: World) -> None:
        _, writer = await world.connect()
        big = bytes(3_000_000)
        writer.write(
            GREETED + frame_head(5, False) + HELLO + frame_head(len(big), False) + big + message(1) * 200
        )
        await until(lambda: len(world.came) == 202)
        assert world.came == [HELLO, big, *[b"\0"] * 200]
        writer.close()
        await until(lambda: world.gone)

    assert run(scenario) == []


@pytest.mark.parametrize("said", [b"", GREETING[:20], GREETED, GREETED + message(1)])
def test_a_stranger_has_a_moment_and_a_partner_has_not(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.muster.machine.zmtp.router, "HELLO_S", 0.3)

    async def scenario(world: World) -> None:
        partner = Dealer(
            asyncio.get_running_loop(), world.endpoint, b"partner", lambda parts: None, LinkOptions(3),
            redials=False)
        await until(lambda: partner.send([HELLO]))
        await world.ends(said)
        assert partner.send([b"still there"])
        await until(lambda: b"still there" in world.came)
        partner.close()

    assert run(scenario) == ["no hello in time"]


def test_of_too_many_strangers_the_first_goes_and_partners_come_and_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tools.muster.machine.zmtp.router, "MOST_STRANGERS", 3)

    async def scenario(world: World) -> None:
        loop = asyncio.get_running_loop()
        before = Dealer(loop, world.endpoint, b"before", lambda parts: None, LinkOptions(3), redials=False)
        await until(lambda: before.send([HELLO]))
        await until(lambda: world.came)
        strangers = [await world.connect() for _ in range(4)]
        await world.ended(strangers[0][0])
        after = Dealer(loop, world.endpoint, b"after", lambda parts: None, LinkOptions(3), redials=False)
        await until(lambda: after.send([HELLO]))
        await until(lambda: len(world.came) == 2)
        await world.ended(strangers[1][0])
        assert len(world.router._strangers) == 2
        for dealer in (before, after):
            assert dealer.send([b"x"])
        await until(lambda: len(world.came) == 4)
        for _, writer in strangers:
            writer.close()
        before.close()
        after.close()

    assert run(scenario) == ["too many connections without a hello"]


def test_of_an_own_front_that_gave_up_nothing_is_told(tmp_path: Path) -> None:
    """It gives a node that still starts a tenth of a second, and is no peer whose key could be wrong."""
    path = tmp_path / "s"

    async def main() -> None:
        came: list[list[bytes]] = []
        loop = asyncio.get_running_loop()
        router = Router(loop, f"ipc://{path}", came.append, LinkOptions(3))
        with socket.socket(socket.AF_UNIX) as front:
            front.connect(str(path))
        later = Dealer(loop, f"ipc://{path}", b"front", lambda parts: None, LinkOptions(3), redials=False)
        await until(lambda: later.send([HELLO]))
        await until(lambda: came)
        router.close()
        later.close()

    with capture_logs() as logs:
        asyncio.run(main())
    assert logs == []
