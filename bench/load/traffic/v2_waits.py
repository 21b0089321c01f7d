"""Requests of version 2 that wait for a key, each on a connection of its own.

An operation is a round: once the heads of all answers have come, the key is set; the round ends when the last
request has the change. Hot path: 5 us a request.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from time import perf_counter_ns
from typing import cast

from bench.client import Endpoint, RpcError, Status
from bench.client.connection import Callback
from bench.load.spec import Spec
from bench.load.traffic.holding import allow_descriptors
from bench.load.traffic.v2 import V2Connection, set_request

_OPENED_AT_ONCE = 256
_LAST = b"\r\n0\r\n\r\n"  # of an answer in pieces
_LENGTH = re.compile(rb"\r\ncontent-length:", re.IGNORECASE)


class _Waiter(asyncio.Protocol):
    """A connection that waits once a round."""

    def __init__(self, owner: Waiters) -> None:
        self._owner = owner
        self._data = b""
        self._waiting = False  # the head is there
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.broken("connection lost")

    def ask(self) -> None:
        self._data, self._waiting = b"", False
        assert self.transport is not None
        self.transport.write(self._owner.request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._waiting:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return
            if self._data[9:12] != b"200" or _LENGTH.search(self._data, 0, end + 2):
                self._owner.broken(f"refused: {self._data[9:12].decode('latin-1')}")
                return
            self._waiting = True
            self._data = self._data[end + 2 :]
            self._owner.armed()
        if self._data.endswith(_LAST):
            if len(self._data) > len(_LAST) + 2:
                self._owner.delivered(perf_counter_ns())
            else:
                self._owner.broken("a wait ended without an event")


class Waiters:
    """``waiters`` requests for one key, and its setter. Answers like a connection: a call is a round."""

    def __init__(self, spec: Spec, key: bytes) -> None:
        self.samples_us: defaultdict[int, int] = defaultdict(int)  # of deliveries; the worker clears it
        self.created_us: list[int] = []  # from asking to the head of the answer
        self.to_all_us: dict[int, int] = {}  # of each round's number
        self.errors: Counter[str] = Counter()
        self.last_event_ns = 0
        self.request = b"GET /v2/keys/%b?wait=true HTTP/1.1\r\nHost: bench\r\n\r\n" % key
        self._spec = spec
        self._set = set_request(spec, key)
        self._waiters: list[_Waiter] = []
        self._setter: V2Connection
        self._callback: Callback | None = None
        self._asked_ns = self._set_ns = 0
        self._wrong = ""
        self._heads = self._events = 0

    async def open(self, endpoints: list[Endpoint]) -> None:
        """Connect all. OSError or TimeoutError if one cannot be."""
        loop, spec = asyncio.get_running_loop(), self._spec
        try:
            allow_descriptors(spec.waiters)
        except ValueError as error:
            raise RuntimeError(str(error)) from None

        async def connect(endpoint: Endpoint) -> None:
            async with asyncio.timeout(spec.dial_timeout_s):
                _, made = await loop.create_connection(lambda: _Waiter(self), endpoint.host, endpoint.port)
            self._waiters.append(made)

        for first in range(0, spec.waiters, _OPENED_AT_ONCE):
            some = range(first, min(first + _OPENED_AT_ONCE, spec.waiters))
            await asyncio.gather(*(connect(endpoints[i % len(endpoints)]) for i in some))
        first_one = endpoints[0]
        _, self._setter = await loop.create_connection(V2Connection, first_one.host, first_one.port)

    def call(self, path: str, body: bytes, callback: Callback, /) -> int:
        if self._wrong:
            callback(RpcError(Status.UNAVAILABLE, self._wrong), b"")
            return -1
        self._callback = callback
        self._heads = self._events = 0
        self._asked_ns = perf_counter_ns()
        for waiter in self._waiters:
            waiter.ask()
        return 0

    def cancel(self, stream_id: int, /) -> None:
        """A round cannot be taken back."""

    def armed(self) -> None:
        """One more request waits at the server."""
        self._heads += 1
        self.created_us.append((perf_counter_ns() - self._asked_ns) // 1000)
        if self._heads == len(self._waiters) and self._callback is not None:
            self._set_ns = perf_counter_ns()
            self._setter.call("", self._set, self._answered)

    def _answered(self, error: RpcError | None, body: bytes) -> None:
        if error is not None:
            self.broken(str(error))

    def delivered(self, now: int) -> None:
        """One more request has the change."""
        latency_us = (now - self._set_ns) // 1000
        self.samples_us[latency_us] += 1
        self.last_event_ns = now
        self._events += 1
        if self._events == len(self._waiters) and self._callback is not None:
            self.to_all_us[len(self.to_all_us)] = latency_us
            callback, self._callback = self._callback, None
            callback(None, b"")

    def broken(self, reason: str) -> None:
        """End this round and refuse more."""
        if not self._wrong:
            self._wrong = reason
            self.errors[reason] += 1
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(RpcError(Status.UNAVAILABLE, reason), b"")

    async def wait_for(self, puts: int) -> None:
        """Nothing: each round has waited for its own change."""

    def close(self) -> None:
        self._wrong = self._wrong or "closed"
        for waiter in self._waiters:
            if waiter.transport is not None:
                waiter.transport.abort()
        self._setter.close()
