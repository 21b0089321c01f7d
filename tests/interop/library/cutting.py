"""A proxy of TCP that cuts connections after so many bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable

Limits = tuple[int | None, int | None]  # bytes to the server, and back; None: any


class Cutting:
    """``limits`` of the n-th connection, from 0."""

    def __init__(self, server: str, limits: Callable[[int], Limits]) -> None:
        host, _, port = server.rpartition(":")
        self._server, self._limits = (host, int(port)), limits
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.cuts = self.connections = 0
        self._refuses = False
        self._stalled = threading.Event()
        self._stalled.set()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            if self._refuses:
                client.close()
                continue
            there, back = self._limits(self.connections)
            self.connections += 1
            self._sockets.append(client)
            try:
                server = socket.create_connection(self._server)
            except OSError:
                client.shutdown(socket.SHUT_RDWR)
                continue
            self._sockets.append(server)
            for ends in ((client, server, there), (server, client, back)):
                self._threads.append(threading.Thread(target=self._relay, args=ends))
                self._threads[-1].start()

    def _relay(self, source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if limit is not None and len(data) >= limit:
                    sink.sendall(data[:limit])
                    self.cuts += 1
                    break
                self._stalled.wait()
                limit = None if limit is None else limit - len(data)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def refuse(self, refuses: bool) -> None:
        """Cut all connections, and take no others until it is told so."""
        self._refuses = refuses
        self._cut()

    def stall(self) -> None:
        """Keep all connections, and pass nothing on: an endpoint that stands still."""
        self._stalled.clear()

    def _cut(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._stalled.set()
        self._cut()
        for thread in self._threads:
            thread.join()
        for one in (*self._sockets, self._listener):
            one.close()


@contextlib.asynccontextmanager
async def cutting(server: str, limits: Callable[[int], Limits]) -> AsyncIterator[Cutting]:
    """A proxy before a server, ``host:port``."""
    proxy = Cutting(server, limits)
    try:
        yield proxy
    finally:
        await asyncio.to_thread(proxy.close)
