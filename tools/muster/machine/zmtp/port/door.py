"""Holds a host's peer port: reads which shard each connection is for, and hands it to that node.

It is the supervisor's: it does little else, so connections wait for nothing, whatever the nodes do. It takes
no byte but the preamble. The node judges the identity of the other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cluster.endpoints import tcp_endpoint
from cluster.repeats import Repeats
from tools.muster.machine.zmtp.hints import fields
from tools.muster.machine.zmtp.port import preamble
from tools.muster.machine.zmtp.port.bound import Acceptor, Bound
from tools.muster.machine.zmtp.port.handing import Hands
from tools.muster.machine.zmtp.port.preamble import Code
from tools.muster.machine.zmtp.stream import CLOSED, HELLO_S, MOST_STRANGERS


class Logger(Protocol):
    def warning(self, event: str, **fields: Any) -> Any: ...


@dataclass(slots=True)
class _Caller:
    shard: int  # if it says nothing
    timer: asyncio.TimerHandle
    said: bytes = b""  # of a preamble


class Door:
    """``bound``: what listens, with the shard that connections without a preamble are for. Both close with
    the door. A caller has ``HELLO_S`` for its preamble; there are ``MOST_STRANGERS`` at most that have said
    none yet. ``born``: whether the host runs a node of a shard beyond its first ``shards``. ``tls``: its
    nodes speak it behind the preamble."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, bound: Sequence[tuple[Bound, int]], shards: int, hands: Hands,
        log: Logger, born: Callable[[int], bool] = lambda shard: False, *, tls: bool = False,
    ) -> None:
        self._loop = loop
        self._bound = bound
        self._shards = shards
        self._born = born
        self._hands = hands
        self._log = log
        self._tls = tls
        self._callers: dict[socket.socket, _Caller] = {}  # the oldest one first
        self._complaints = Repeats()
        self._shard_at = {sock: shard for one, shard in bound for sock in one.sockets}
        self._acceptor = Acceptor(loop, [*self._shard_at], self._accepted)

    def _accepted(self, sock: socket.socket, listener: socket.socket) -> None:
        if len(self._callers) >= MOST_STRANGERS:
            self._end(next(iter(self._callers)), "too many connections without a hello")
        timer = self._loop.call_later(HELLO_S, self._end, sock, "no hello in time")
        self._callers[sock] = _Caller(self._shard_at[listener], timer)
        self._loop.add_reader(sock.fileno(), self._readable, sock)

    def _readable(self, sock: socket.socket) -> None:
        caller = self._callers[sock]
        try:
            if not caller.said:
                first = sock.recv(preamble.SIZE, socket.MSG_PEEK)
                if first and not preamble.begins(first):
                    self._hand(sock, caller.shard)
                    return
            data = sock.recv(preamble.SIZE - len(caller.said))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as e:
            self._end(sock, e.strerror or str(e))
            return
        if not data:
            self._end(sock, CLOSED)
            return
        caller.said += data
        if not preamble.begins(caller.said):
            self._end(sock, preamble.NOT_AT_ALL)
        elif len(caller.said) == preamble.SIZE:
            shard, code = preamble.wanted(caller.said)
            if code == Code.ASKS:
                code = Code.TAKEN if shard < self._shards or self._born(shard) else Code.NO_SHARD
            self._hand(sock, shard, code)

    def _hand(self, sock: socket.socket, shard: int, code: Code | None = None) -> None:
        """``code``: what to answer if the node takes it; None: nothing, whatever happens."""
        self._forget(sock)
        if code in (None, Code.TAKEN) and not self._hands.hand(shard, sock):
            code = code and Code.NOT_RUNNING
        if code is not None:
            with contextlib.suppress(OSError):  # eight bytes fit
                sock.send(preamble.answer(code, shard))
        sock.close()

    def _forget(self, sock: socket.socket) -> None:
        self._callers.pop(sock).timer.cancel()
        self._loop.remove_reader(sock.fileno())

    def _end(self, sock: socket.socket, reason: str) -> None:
        address = _address(sock)
        self._forget(sock)
        sock.close()
        host = address.rpartition(":")[0]
        if self._complaints.news((host, reason), self._loop.time()):
            self._log.warning(
                "a peer connection was not established", **fields(address, reason, tls=self._tls))

    def close(self) -> None:
        self._acceptor.close()
        for sock in list(self._callers):
            self._forget(sock)
            sock.close()
        for one, _ in self._bound:
            one.close()
        self._hands.close()


def _address(sock: socket.socket) -> str:
    try:
        if sock.family != socket.AF_UNIX:
            return tcp_endpoint(*sock.getpeername()[:2]).removeprefix("tcp://")
    except OSError:
        pass
    return ""
