"""What stands between the hosts: each dials the others through a port of the keeper, which can be cut.

A connection belongs to the host with a process that has its other end. A cut holds back bytes, ends and new
connections, as a network that drops packets does, until it heals.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

_CHUNK = 262_144
_SOCKETS = Path("/proc/net/tcp")


class Links:
    """``ports``: of each host, its real peer port. ``processes(host)``: the IDs of its own now."""

    def __init__(self, ports: list[int], processes: Callable[[int], Iterable[int]]) -> None:
        self._ports, self._processes = ports, processes
        self._known: dict[int, list[int]] = {}  # what ``processes`` said of a host last
        self._groups: dict[int, int] = {}  # host -> number of its side
        self._changed = asyncio.Condition()
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, ports: list[int]) -> None:
        """Take connections to host i at ``ports[i]``."""
        for host, port in enumerate(ports):

            def accepted(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: int = host
            ) -> None:
                task = asyncio.ensure_future(self._serve(host, reader, writer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

            self._servers.append(await asyncio.start_server(accepted, "127.0.0.1", port, limit=_CHUNK))

    async def partition(self, groups: list[list[int]]) -> None:
        """Only hosts of one group reach each other; hosts of none are one more group."""
        async with self._changed:
            self._groups = {host: side for side, group in enumerate(groups) for host in group}
            self._changed.notify_all()

    async def close(self) -> None:
        """End all connections."""
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _open(self, one: int, other: int) -> bool:
        return self._groups.get(one) == self._groups.get(other)

    async def _until_open(self, one: int, other: int) -> None:
        if not self._open(one, other):
            async with self._changed:
                await self._changed.wait_for(lambda: self._open(one, other))

    async def _serve(self, to: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward: asyncio.StreamWriter | None = None
        try:
            answers, onward = await self._dial(to)  # it costs less than to look whose connection this is
            ends = (writer.get_extra_info(name)[1] for name in ("peername", "sockname"))
            source = await asyncio.to_thread(self._owner, *ends)
            if source is None:
                return  # it has ended already, or is no host's
            if not self._open(source, to):
                onward.close()
                await self._until_open(source, to)
                answers, onward = await self._dial(to)
            for end in (writer, onward):
                end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, onward, source, to))
                both.create_task(self._pump(answers, writer, source, to))
        except OSError:
            pass  # the host is down
        finally:
            for opened in (writer, onward):
                if opened is not None:
                    opened.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: int, to: int
    ) -> None:
        """Pass on what comes, until one end closes: then the other is closed, too."""
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._until_open(source, to)
                writer.write(data)
                await writer.drain()
        await self._until_open(source, to)
        writer.close()

    async def _dial(self, to: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._ports[to], limit=_CHUNK)

    def _owner(self, port: int, remote: int) -> int | None:
        """The host with the connection from this local port to this remote one."""
        name = socket_of(port, remote)
        for fresh in (False, True) if name else ():
            for host in range(len(self._ports)):
                if fresh:
                    self._known[host] = list(self._processes(host))
                if any(_holds(process, name) for process in self._known.get(host, ())):
                    return host
        return None


def socket_of(port: int, remote: int) -> str:
    """What /proc calls the socket connected from a local port to a remote one; empty: there is none.

    One local port has a connection to each of several remote ones, ended ones that linger included.
    """
    for line in _SOCKETS.read_text(encoding="ascii").splitlines()[1:]:
        words = line.split()
        if words[1].endswith(f":{port:04X}") and words[2].endswith(f":{remote:04X}"):
            return f"socket:[{words[9]}]"
    return ""


def _holds(process: int, name: str) -> bool:
    """Whether a process has a file of that name."""
    folder = f"/proc/{process}/fd"
    with contextlib.suppress(OSError):  # the process has ended
        for number in os.listdir(folder):
            with contextlib.suppress(OSError):  # it was closed meanwhile
                if os.readlink(f"{folder}/{number}") == name:
                    return True
    return False
