"""What stands between the hosts of a test's cluster."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterable

from muster.testing.links import Links, socket_of
from tests.ports import free_ports

LIMIT_S = 20.0
Dial = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


def of_this_process(host: int) -> Iterable[int]:
    """Host 0 is this process; host 1 has none of its own."""
    return [os.getpid()] if host == 0 else []


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


def linked(body: Callable[[Links, Dial], Awaitable[None]], processes: object = of_this_process) -> None:
    """Run something with links from host 0 to an echo at host 1."""

    async def run() -> None:
        mine, theirs, to_me, to_them = free_ports(4)
        server = await asyncio.start_server(echo, "127.0.0.1", theirs)
        links = Links([mine, theirs], processes)  # type: ignore[arg-type]
        await links.listen([to_me, to_them])
        try:
            async with asyncio.timeout(LIMIT_S):
                await body(links, lambda: asyncio.open_connection("127.0.0.1", to_them))
        finally:
            await links.close()
            server.close()

    asyncio.run(run())


async def still(reader: asyncio.StreamReader) -> bool:
    """Whether nothing comes for a while."""
    try:
        await asyncio.wait_for(reader.read(1), 0.2)
    except TimeoutError:
        return True
    return False


def test_a_cut_holds_back_what_is_sent_until_it_heals() -> None:
    async def body(links: Links, dial: Dial) -> None:
        reader, writer = await dial()
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        await links.partition([[0]])
        writer.write(b"first")
        assert await still(reader)
        new_reader, new_writer = await dial()
        new_writer.write(b"new")
        assert await still(new_reader)
        writer.write(b"second")
        await links.partition([])
        assert await reader.readexactly(11) == b"firstsecond"
        assert await new_reader.readexactly(3) == b"new"
        writer.close()
        new_writer.close()
        assert await reader.read() == b""

    linked(body)


def test_a_connection_is_told_from_others_of_its_local_port() -> None:
    """The kernel gives a local port again for another remote one, and a closed connection lingers."""
    with contextlib.ExitStack() as opened:
        servers = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(6)]
        ports = [server.getsockname()[1] for server in servers]
        (mine,) = free_ports(1)
        clients = []
        for port in ports:
            client = opened.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind(("127.0.0.1", mine))
            client.connect(("127.0.0.1", port))
            clients.append(client)
        names = [socket_of(mine, port) for port in ports]
        assert names == [os.readlink(f"/proc/self/fd/{client.fileno()}") for client in clients]


def test_hosts_of_one_side_reach_each_other() -> None:
    async def body(links: Links, dial: Dial) -> None:
        reader, writer = await dial()
        for groups in ([[0, 1]], [[0, 1], [2]], [[2]]):
            await links.partition(groups)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
        await links.partition([[0], [1]])
        writer.write(b"x")
        assert await still(reader)
        writer.close()

    linked(body)


def test_a_connection_of_no_host_is_ended() -> None:
    async def body(_links: Links, dial: Dial) -> None:
        reader, writer = await dial()
        assert await reader.read() == b""
        writer.close()

    linked(body, lambda host: [])
