"""Rounds of waits of version 2, at a server that a test can hold up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from bench.client import Endpoint, RpcError
from bench.load.spec import Spec
from bench.load.traffic.v2_waits import Waiters

_LIMIT_S = 30.0
_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT = b"2\r\n{}\r\n0\r\n\r\n"
_DONE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Store:
    """Wakes all who wait as soon as the key is set."""

    def __init__(self, head: bytes = _HEAD) -> None:
        self.head = head
        self.waiting: list[asyncio.StreamWriter] = []
        self.connections: list[asyncio.Task[None]] = []
        self.sets: list[int] = []  # how many waited at each

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self.connections.append(task)
        while head := await _next(reader):
            if head.startswith(b"GET"):
                self.waiting.append(writer)
                writer.write(self.head)
                continue
            length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            self.sets.append(len(self.waiting))
            woken, self.waiting = self.waiting, []
            for one in woken:
                one.write(_EVENT)
            writer.write(_DONE)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _next(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def rounds(store: Store, count: int, check: Callable[[Waiters, list[RpcError | None]], None]) -> None:
    """Make so many rounds of five waiters."""

    async def scenario() -> None:
        server = await asyncio.start_server(store.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        waiters = Waiters(Spec("v2-wait", (f"127.0.0.1:{port}",), total=count, waiters=5), b"k")
        await waiters.open([Endpoint("127.0.0.1", port)])
        found: list[RpcError | None] = []
        for _ in range(count):
            done = asyncio.get_running_loop().create_future()
            waiters.call("", b"", lambda error, body, done=done: done.set_result(error))  # type: ignore[misc]
            async with asyncio.timeout(_LIMIT_S):
                found.append(await done)
        check(waiters, found)
        waiters.close()
        server.close()
        async with asyncio.timeout(_LIMIT_S):
            await asyncio.gather(*store.connections)

    asyncio.run(scenario())


def test_the_key_is_set_once_all_wait_and_a_round_ends_with_the_last_delivery() -> None:
    store = Store()

    def check(waiters: Waiters, found: list[RpcError | None]) -> None:
        assert found == [None, None, None]
        assert store.sets == [5, 5, 5]
        assert sum(waiters.samples_us.values()) == len(waiters.created_us) == 15
        assert (len(waiters.to_all_us), dict(waiters.errors)) == (3, {})

    rounds(store, 3, check)


def test_a_refused_wait_ends_the_rounds_with_its_status() -> None:
    def check(waiters: Waiters, found: list[RpcError | None]) -> None:
        assert [str(error) for error in found if error is not None] != []
        assert dict(waiters.errors) == {"refused: 500": 1}

    rounds(Store(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"), 2, check)
