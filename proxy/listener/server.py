"""One port for HTTP/2 (prior knowledge or ALPN) and HTTP/1.1, on an asyncio (uvloop) loop.

It keeps what its connections share: memory, deadlines, turns of the loop, and one ``call_soon`` for all
writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from proxy.grpc.deadlines import Deadlines
from proxy.grpc.registry import Registry
from proxy.http.backlog import Backlog
from proxy.http.http2 import Limits
from proxy.http.memory import Memory
from proxy.listener.connection import ClientConnection
from proxy.listener.traffic import Serves
from proxy.tls import Credentials, TlsLayer

__all__ = ["Limits", "Server"]

_BACKLOG = 4096  # connections that wait to be accepted
_TICK_S = 1.0
_TICKED = 100  # connections looked at in a turn of the loop, 0.1 to 0.2 ms
_COUNTED = 1000  # and at most for statistics
_SUMS = ("http2_connections", "http1_connections", "streams", "queued_bytes", "buffered_bytes",
         "paused_reading")
_PING_S = 2.0  # for a client's sign that it has seen GOAWAY
_LINGER_S = 1.0  # for clients to close what is answered


class Server:
    """Listens, and owns every client connection of this front."""

    def __init__(self, registry: Registry, limits: Limits | None = None) -> None:
        self.registry = registry
        self.limits = limits or Limits()
        self.memory = Memory(self.limits.max_memory_bytes)
        self.deadlines = Deadlines(self._arm)
        self.backlog = Backlog(
            lambda turn: self._loop.call_soon(turn), lambda rest_s, then: self._loop.call_later(rest_s, then))
        self._connections: set[ClientConnection] = set()
        self._dirty: list[ClientConnection] = []
        self._listeners: list[asyncio.Server] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tick: asyncio.TimerHandle | None = None
        self.received_bytes = 0  # over HTTP/2, framing included
        self.sent_bytes = 0
        self._accepted = 0
        self.refused = 0  # connections
        self.ended_stalled = 0  # connections, for the memory that they held
        self.handshakes_failed = 0  # of TLS
        self.handshake_failed: Callable[[str, str], object] = lambda address, reason: None  # writes the log
        self.keep_alive: Callable[[Any], object] = lambda listening: None  # ``Machine.keep_alive``
        self._sums: Counter[str] = Counter()  # as of the last tick
        self._files: list[tuple[str, int]] = []  # Unix sockets: path and inode
        self.stopping = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every listening socket; of a Unix socket its path, and 0."""
        names = [socket.getsockname() for listener in self._listeners for socket in listener.sockets]
        return [(name, 0) if isinstance(name, str) else name[:2] for name in names]

    async def start(self, host: str, port: int, *, reuse_port: bool = False, tls: Credentials | None = None,
                    plain_too: bool = False, serves: Serves | None = None) -> None:
        """Listen; also at several addresses. The host "" is all of IPv6 and IPv4; port 0 picks one.
        ``plain_too``: beside TLS. ``serves``: a part of the registry; None: all."""
        self._loop = asyncio.get_running_loop()
        listener = await self._loop.create_server(
            self._protocol(tls, plain_too, serves), host, port, reuse_port=reuse_port or None,
            backlog=_BACKLOG)
        for listening in listener.sockets:
            self.keep_alive(listening)
        self._listens(listener)

    async def start_unix(self, path: str, *, mode: int, tls: Credentials | None = None,
                         plain_too: bool = False, serves: Serves | None = None) -> None:
        """Listen on a Unix socket in the place of a dead process's. :meth:`stop` removes it."""
        self._loop = asyncio.get_running_loop()
        listener = await self._loop.create_unix_server(
            self._protocol(tls, plain_too, serves), path, backlog=_BACKLOG)
        os.chmod(path, mode)
        self._files.append((path, os.stat(path).st_ino))
        self._listens(listener)

    def _protocol(
        self, tls: Credentials | None, plain_too: bool, part: Serves | None
    ) -> Callable[[], asyncio.Protocol]:
        serves = part or self.registry
        if tls is None:
            return lambda: ClientConnection(self, serves)
        return lambda: TlsLayer(
            ClientConnection(self, serves), tls, self.backlog, self._refuse_handshake, plain_too=plain_too)

    def _listens(self, listener: asyncio.Server) -> None:
        self._listeners.append(listener)
        if self._tick is None:
            self._tick = self._loop.call_later(_TICK_S, self._on_tick)

    def _remove_files(self) -> None:
        for path, inode in self._files:
            with contextlib.suppress(OSError):
                if os.stat(path).st_ino == inode:
                    os.unlink(path)
        self._files.clear()

    async def stop(self, grace_s: float = 0.0, last: Callable[[], None] | None = None) -> None:
        """No new connections; GOAWAY; open calls finish within the grace; ``last`` answers the rest; all is
        closed."""
        self._loop = asyncio.get_running_loop()  # it may never have listened
        self.stopping = True
        for listener in self._listeners:
            listener.close()
        self._remove_files()
        for connection in list(self._connections):
            connection.drain()
        self.flush()
        began = self._loop.time()
        while (not all(connection.done for connection in self._connections)
               and (waited_s := self._loop.time() - began) < grace_s):
            if waited_s > _PING_S:
                for connection in self._connections:
                    if connection.http2 is not None:
                        connection.http2.drain_now()
            await asyncio.sleep(0.01)
        if last is not None:
            last()
        self.flush()  # the last answer may have been said in this very turn
        for connection in list(self._connections):
            if not connection.hands_on:  # it closes behind that
                connection.close(half=True)
        end = self._loop.time() + _LINGER_S
        while (self._connections or len(self.backlog)) and self._loop.time() < end:
            await asyncio.sleep(0.01)
        for connection in list(self._connections):
            connection.transport.abort()
        for handle in (self._tick, self._timer):
            if handle is not None:
                handle.cancel()
        self._tick = self._timer = None

    def statistics(self) -> dict[str, Any]:
        """Counts of connections and calls, and what is buffered; of many connections as of the last tick."""
        if len(self._connections) > _COUNTED:
            sums = self._sums
        else:
            sums = Counter()
            for connection in self._connections:
                _count(connection, sums)
        return {
            **{name: sums[name] for name in _SUMS},
            "connections": len(self._connections), "connections_accepted": self._accepted,
            "connections_refused": self.refused, "connections_stalled": self.ended_stalled,
            "memory_bytes": self.memory.used, "memory_limit_bytes": self.memory.limit_bytes,
            "requests_refused": self.memory.refused, "handshakes_failed": self.handshakes_failed,
            "received_bytes": self.received_bytes, "sent_bytes": self.sent_bytes,
            "deadlines": len(self.deadlines),
        }

    def flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()

    # -- from connections

    def schedule(self, connection: ClientConnection) -> None:
        if not self._dirty:
            self._loop.call_soon(self.flush)
        self._dirty.append(connection)

    def opened(self, connection: ClientConnection) -> int:
        """A connection was accepted; its number. One too many is closed: disk and peers need descriptors."""
        self._accepted += 1
        self._connections.add(connection)
        if len(self._connections) > self.limits.max_connections:
            self.refused += 1
            connection.refuse()
        return self._accepted

    def gone(self, connection: ClientConnection) -> None:
        self._connections.discard(connection)

    def _refuse_handshake(self, address: str, reason: str) -> None:
        self.handshakes_failed += 1
        self.handshake_failed(address, reason)

    # -- timers

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self.deadlines.expire(self._loop.time())

    def _on_tick(self) -> None:
        self._tick_some(list(self._connections), 0, Counter())

    def _tick_some(self, connections: list[ClientConnection], first: int, sums: Counter[str]) -> None:
        now = self._loop.time()
        for connection in connections[first : first + _TICKED]:
            connection.tick(now)
            _count(connection, sums)
        if first + _TICKED < len(connections):
            self._tick = self._loop.call_later(0, self._tick_some, connections, first + _TICKED, sums)
            return
        self._sums = sums
        self._tick = self._loop.call_later(_TICK_S, self._on_tick)


def _count(connection: ClientConnection, sums: Counter[str]) -> None:
    http2 = connection.http2
    if http2 is not None:
        sums["http2_connections"] += 1
        sums["streams"] += len(http2.streams)
        sums["queued_bytes"] += http2.queued
        sums["buffered_bytes"] += http2.buffered
    sums["http1_connections"] += connection.http1 is not None
    sums["paused_reading"] += connection.paused_reading
