"""The dialling side of a peer port: ask for a shard, and wait until the connection is that node's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from enum import Enum

from tools.muster.machine.zmtp.hints import NO_PEER
from tools.muster.machine.zmtp.port import preamble
from tools.muster.machine.zmtp.stream import CLOSED, HELLO_S, LATE


class Answer(Enum):
    """What a refusal shows of the host."""

    NONE = "it has not answered as a host"
    OLDER = "it knows no preamble: each of its shards has a port of its own"
    NEWER = "it has answered the preamble"


class Knock:
    """``taken(sock)``, or ``refused(reason, answer)``, once, unless :meth:`close` was called. A refused
    connection is closed."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, shard: int,
        taken: Callable[[socket.socket], None], refused: Callable[[str, Answer], None],
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._taken = taken
        self._refused = refused
        self._said = b""
        self._timer = loop.call_later(HELLO_S, self._end, LATE)
        loop.add_reader(sock.fileno(), self._readable)
        try:
            sock.send(preamble.wants(shard))  # a new connection takes eight bytes
        except OSError as e:
            loop.call_soon(self._end, e.strerror or str(e))

    def _readable(self) -> None:
        try:
            data = self._socket.recv(preamble.SIZE - len(self._said))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as e:
            self._end(e.strerror or str(e))
            return
        self._said += data
        if not data:
            self._end(NO_PEER if self._said else CLOSED)
        elif not preamble.begins(self._said):
            older = preamble.is_older(self._said)
            self._end(preamble.NOT_AT_ALL, Answer.OLDER if older else Answer.NONE)
        elif len(self._said) == preamble.SIZE:
            if reason := preamble.refusal(self._said):
                self._end(reason, Answer.NEWER)
            else:
                self._stop()
                self._taken(self._socket)

    def _stop(self) -> None:
        self._timer.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())

    def _end(self, reason: str, answer: Answer = Answer.NONE) -> None:
        if self._socket.fileno() >= 0:
            self.close()
            self._refused(reason, answer)

    def close(self) -> None:
        self._stop()
        self._socket.close()
