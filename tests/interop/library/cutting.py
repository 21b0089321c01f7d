"""A proxy of TCP that cuts connections after so many bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

Limits = tuple[int | None, int | None]  # bytes to the server, and back; None: any


@dataclass
class Cutting:
    """``limits`` of the n-th connection, from 0."""

    address: str
    limits: Callable[[int], Limits]
    cuts: int = 0
    connections: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """All connections, now."""
        for writer in self.writers:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def cutting(server: str, limits: Callable[[int], Limits]) -> AsyncIterator[Cutting]:
    """A proxy before a server, ``host:port``."""
    host, _, port = server.rpartition(":")
    tasks: set[asyncio.Task[None]] = set()

    async def relay(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None,
        both: list[asyncio.StreamWriter],
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if limit is not None and len(data) >= limit:
                    writer.write(data[:limit])
                    await writer.drain()
                    proxy.cuts += 1
                    break
                limit = None if limit is None else limit - len(data)
                writer.write(data)
                await writer.drain()
        for end in both:
            end.close()  # what is written goes out before

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.current_task()
        assert serving is not None
        tasks.add(serving)
        serving.add_done_callback(tasks.discard)
        there, back = proxy.limits(proxy.connections)
        proxy.connections += 1
        try:
            server_reader, server_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
            return
        both = [writer, server_writer]
        proxy.writers.update(both)
        if not listener.is_serving():
            proxy.cut()
        for one in (relay(reader, server_writer, there, both), relay(server_reader, writer, back, both)):
            task = asyncio.create_task(one)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port_here = listener.sockets[0].getsockname()[1]
    proxy = Cutting(f"127.0.0.1:{port_here}", limits)
    try:
        yield proxy
    finally:
        listener.close()
        proxy.cut()
        while tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(writer.wait_closed() for writer in proxy.writers), return_exceptions=True)
