"""Connections passed on byte for byte, by the rules of etcd's ``tcpproxy``.

Endpoints of the best priority that answer take turns, or are drawn by weight. One that cannot be dialled is
left alone until a periodic try succeeds. A connection ends on both sides when one ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol, cast

from tools.muster.machine.everywhere import EVERYWHERE, knows_ipv6
from tools.muster.machine.names import NAMES
from tools.muster.machine.silence import probe

_DIAL_S = 5.0
_ALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 9))  # as Go's programs
_OWN = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # of this process, not the endpoint


class Log(Protocol):
    def info(self, event: str, **facts: object) -> object: ...

    def warning(self, event: str, **facts: object) -> object: ...


@dataclass(eq=False)
class Endpoint:
    host: str
    port: int
    priority: int = 0
    weight: int = 0
    answers: bool = True

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Forwarder:
    """All connections of a gateway."""

    def __init__(self, endpoints: Sequence[Endpoint], log: Log, rng: random.Random | None = None) -> None:
        self.endpoints = list(endpoints)
        self._log = log
        self._random = rng or random.Random()
        self._picked = 0
        self._opening: set[asyncio.Task[None]] = set()

    def pick(self) -> Endpoint | None:
        """The next connection's endpoint; None: none answers."""
        there = [one for one in self.endpoints if one.answers]
        best = min((one.priority for one in there), default=0)
        there = [one for one in there if one.priority == best]
        weighted = [one for one in there if one.weight]
        even = [one for one in there if not one.weight]
        if weighted and not (even and self._random.randrange(100) == 1):
            return self._random.choices(weighted, [one.weight for one in weighted])[0]
        if not even:
            return None
        self._picked += 1
        return even[(self._picked - 1) % len(even)]

    async def listen(self, host: str, port: int) -> asyncio.Server:
        """OSError."""
        loop = asyncio.get_running_loop()
        if host in EVERYWHERE:
            return await loop.create_server(lambda: _Side(self), None if knows_ipv6() else "0.0.0.0", port)
        return await loop.create_server(lambda: _Side(self), host, port)

    def opened(self, side: _Side) -> None:
        """A new client, of which nothing is read yet."""
        task = asyncio.get_running_loop().create_task(self._open(side))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, side: _Side) -> None:
        while (endpoint := self.pick()) is not None and not side.closed:
            if (out := await self._dial(endpoint)) is not None:
                side.join(out)
                return
            if endpoint.answers:
                break
        side.close()

    async def _dial(self, endpoint: Endpoint) -> _Side | None:
        try:
            async with asyncio.timeout(_DIAL_S):
                side = await _connected(endpoint)
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError; or an impossible name
            if isinstance(error, OSError) and error.errno in _OWN:
                self._log.warning("cannot dial", endpoint=str(endpoint), error=str(error))
                return None
            endpoint.answers = False
            self._log.warning("deactivated endpoint", endpoint=str(endpoint), error=str(error) or "timeout")
            return None
        return side

    async def look(self, interval_s: float) -> None:
        """Retry endpoints that did not answer, for ever."""
        while True:
            await asyncio.sleep(interval_s)
            for endpoint in self.endpoints:
                if not endpoint.answers and (side := await self._dial(endpoint)) is not None:
                    side.close()
                    endpoint.answers = True
                    self._log.info("activated", endpoint=str(endpoint), interval_s=interval_s)


async def _addresses(host: str) -> list[str]:
    with contextlib.suppress(ValueError):
        return [str(ip_address(host))]
    return await NAMES.addresses(host)


async def _connected(endpoint: Endpoint) -> _Side:
    """By the first address of its name that can be dialled. OSError, UnicodeError. The loop's own look-ups
    would hold up the end of the process."""
    loop = asyncio.get_running_loop()
    failed = OSError("no such host")
    for address in await _addresses(endpoint.host):
        try:
            _, side = await loop.create_connection(lambda: _Side(None), address, endpoint.port)
        except OSError as error:
            failed = error
        else:
            return side
    raise failed


class _Side(asyncio.Protocol):
    """One of a connection's two ends."""

    def __init__(self, forwarder: Forwarder | None) -> None:
        self._forwarder = forwarder  # None: this end was dialled
        self._transport = cast(asyncio.Transport, None)
        self._other: _Side | None = None
        self._early = b""  # bytes before there was another end: a loop may read once more than told
        self.closed = False

    def join(self, other: _Side) -> None:
        """From now on what comes at one end leaves at the other."""
        self._other, other._other = other, self
        for side in (self, other):
            if side._early:
                side._pass_on(side._early)
                side._early = b""
        if self.closed or other.closed:
            self.close()
            other.close()
            return
        self._transport.resume_reading()
        other._transport.resume_reading()

    def _pass_on(self, data: bytes) -> None:
        assert self._other is not None
        if not self._other.closed:
            self._other._transport.write(data)

    def close(self) -> None:
        """Once all its data has left."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.pause_reading()
        sock = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):  # it is closed already
            probe(sock, _ALIVE)  # notice a peer that disappears
        if self._forwarder is not None:
            self._forwarder.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._other is None:
            self._early += data
            self._transport.pause_reading()
        else:
            self._pass_on(data)

    def pause_writing(self) -> None:
        if self._other is not None and not self._other.closed:
            self._other._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._other is not None and not self._other.closed:
            self._other._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._other is not None:
            self._other.close()
