"""Connections from the process that holds the peer port to the nodes (``SCM_RIGHTS``).

A node listens at a Unix socket of its host's run directory (``cluster.endpoints.handed_endpoint``). It keeps
message boundaries: a message has one descriptor. A node that ends closes what waits for it there, and one
that stands still holds up no other node's.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable

import structlog

from cluster.repeats import Repeats
from tools.muster.machine.zmtp.port.bound import Acceptor, bound_at

log = structlog.get_logger("zmtp")

_AT_ONCE = 64  # connections taken in one go
_DOORS = 4  # a restarted supervisor's may come before the old one's has ended


class Hands:
    """The side that hands on; ``path(shard)``: of a node's socket."""

    def __init__(self, path: Callable[[int], str]) -> None:
        self._path = path
        self._nodes: dict[int, socket.socket] = {}

    def hand(self, shard: int, sock: socket.socket) -> bool:
        """Whether the node has it, or will have it; the caller closes its own descriptor either way."""
        for fresh in (False, True):  # a node that was started again listens again
            node = self._connected(shard) if fresh or shard not in self._nodes else self._nodes[shard]
            if node is None:
                return False
            try:
                node.sendmsg(
                    [b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))])
                return True
            except BlockingIOError:  # it does not take what it has
                return False
            except OSError:
                self._forget(shard)
                if fresh:
                    return False
        return False

    def _connected(self, shard: int) -> socket.socket | None:
        self._forget(shard)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.setblocking(False)
        try:
            made.connect(self._path(shard))
        except OSError:
            made.close()
            return None
        self._nodes[shard] = made
        return made

    def _forget(self, shard: int) -> None:
        if (node := self._nodes.pop(shard, None)) is not None:
            node.close()

    def close(self) -> None:
        for node in self._nodes.values():
            node.close()
        self._nodes.clear()


class Handed:
    """A node's side: ``took(sock)`` for each connection. OSError."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, path: str, took: Callable[[socket.socket], None]
    ) -> None:
        self._loop = loop
        self._path = path
        self._took = took
        self._listener = bound_at(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET), path)
        self._listener.listen(_DOORS)
        self._complaints = Repeats()
        self._doors: list[socket.socket] = []
        self._acceptor = Acceptor(loop, [self._listener], self._opened)

    def _opened(self, door: socket.socket, listener: socket.socket) -> None:
        self._doors.append(door)
        while len(self._doors) > _DOORS:
            self._end(self._doors[0])
        self._loop.add_reader(door.fileno(), self._take, door)

    def _take(self, door: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                said, found, flags, _ = socket.recv_fds(door, 1, 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                said, found = b"", []
            if not said:
                self._end(door)
                return
            if flags & socket.MSG_CTRUNC and self._complaints.news("", self._loop.time()):
                log.warning("cannot accept a connection", error=os.strerror(errno.EMFILE))
            for descriptor in found:
                try:
                    sock = socket.socket(fileno=descriptor)
                except OSError:
                    os.close(descriptor)
                    continue
                sock.setblocking(False)
                self._took(sock)

    def _end(self, door: socket.socket) -> None:
        if door in self._doors:
            self._doors.remove(door)
            self._loop.remove_reader(door.fileno())
            door.close()

    def close(self) -> None:
        self._acceptor.close()
        for door in list(self._doors):
            self._end(door)
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)
