"""The channels to all endpoints: which are connected, and which one the next call takes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import grpc
import grpc.aio

from muster_client.errors import MusterError, Unreachable
from muster_client.pb import rpc_pb2 as pb
from muster_client.wire import engine
from muster_client.wire.endpoints import Endpoint

_SUSPECT_S, _MOST_SUSPECT_S = 5.0, 60.0  # how long an endpoint that did not answer is the last choice
_EXPLAINED_IN_S = 0.5
CLOSED = "the client is closed"
_PROBE = "/etcdserverpb.Maintenance/Status"


class Connection:
    """A channel, and what is known of it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = endpoint.name
        self.channel = endpoint.opened()
        self.ready = False
        self.suspect_until = self._suspect_s = 0.0
        self._calls: dict[str, Callable[..., Any]] = {}

    def unary(self, path: str, answer: Any) -> Callable[..., Any]:
        """A method of one request and one answer."""
        if (call := self._calls.get(path)) is None:
            call = self._calls[path] = self.channel.unary_unary(
                path, request_serializer=_bytes_of, response_deserializer=answer.FromString)
        return call

    def stream(self, path: str, answer: Any) -> Any:
        """A method of many requests and answers."""
        return self.channel.stream_stream(
            path, request_serializer=_bytes_of, response_deserializer=answer.FromString)

    def answers(self, path: str, answer: Any) -> Any:
        """A method of one request and many answers."""
        return self.channel.unary_stream(
            path, request_serializer=_bytes_of, response_deserializer=answer.FromString)

    def suspect(self) -> None:
        """It is connected, and did not answer: others first, each time for longer."""
        now = time.monotonic()
        if now >= self.suspect_until:  # calls that were under way together count once
            self._suspect_s = min(2 * self._suspect_s, _MOST_SUSPECT_S) if self._suspect_s else _SUSPECT_S
            self.suspect_until = now + self._suspect_s

    def answered(self) -> None:
        """It is as good as others."""
        self.suspect_until = self._suspect_s = 0.0


def _bytes_of(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


class Connections:
    """One channel to each endpoint, in the engine's loop."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints
        self._opened: list[Connection] = []
        self._followers: list[asyncio.Task[None]] = []
        self._changed = asyncio.Condition()
        self._closed = False

    async def pick(
        self, deadline: float | None, avoid: Collection[str] = (), only: str = ""
    ) -> Connection:
        """A connected endpoint, by lot: turns would bind calls that come in pairs. Those to avoid, and those
        that did not answer, come last; ``only`` this one, if it is named. Waits for one until the deadline
        (of ``time.monotonic()``): Unreachable. MusterError: the client is closed."""
        if self._closed:
            raise MusterError(CLOSED)
        if not self._opened:
            self._open()
        opened = self._opened if not only else [one for one in self._opened if one.name == only]
        if not opened:
            raise ValueError(f"{only!r} is no endpoint of this client")
        ready = [one for one in opened if one.ready]
        if not ready:
            await self._connected(deadline, opened)
            ready = [one for one in opened if one.ready]
        if not ready:  # it came and went
            return await self.pick(deadline, avoid, only)
        now = time.monotonic()
        return min(ready, key=lambda one: (one.name in avoid, one.suspect_until > now, random.random()))

    def others(self, avoid: Collection[str]) -> bool:
        """Whether an endpoint is connected that is not to be avoided."""
        return any(one.ready and one.name not in avoid for one in self._opened)

    async def close(self) -> None:
        self._closed = True
        for follower in self._followers:
            follower.cancel()
        await asyncio.gather(*self._followers, return_exceptions=True)
        for one in self._opened:
            await one.channel.close()
        async with self._changed:
            self._changed.notify_all()

    def _open(self) -> None:
        self._opened = [Connection(endpoint) for endpoint in self._endpoints]
        self._followers = [asyncio.create_task(self._follow(one)) for one in self._opened]

    async def _follow(self, one: Connection) -> None:
        """An idle channel dials on demand only: it is told to dial at once."""
        while True:
            state = one.channel.get_state(try_to_connect=True)
            one.ready = state is grpc.ChannelConnectivity.READY
            async with self._changed:
                self._changed.notify_all()
            await one.channel.wait_for_state_change(state)

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def names(self) -> list[str]:
        """Of all endpoints, as they were given."""
        return [endpoint.name for endpoint in self._endpoints]

    async def _connected(self, deadline: float | None, opened: Sequence[Connection]) -> None:
        """Wait until one of these endpoints is connected."""

        async def wait() -> None:
            async with self._changed:
                await self._changed.wait_for(lambda: self._closed or any(one.ready for one in opened))

        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        explained_s = 0.0 if left_s is None else min(_EXPLAINED_IN_S, left_s / 2)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(wait(), None if left_s is None else left_s - explained_s)
            return
        reasons = {} if self._closed else await self.reasons(explained_s)
        if not self._closed and not any(one.ready for one in opened):
            raise Unreachable({one.name: reasons[one.name] for one in opened})

    async def reasons(self, limit_s: float) -> dict[str, str]:
        """Why each endpoint cannot be used, in gRPC's words; asks all of them at once."""
        async def reason(one: Connection) -> str:
            try:
                await one.unary(_PROBE, pb.StatusResponse)(pb.StatusRequest(), timeout=limit_s)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    return "no answer to attempts to connect"
                return str(error.details()).partition("last error: ")[2] or str(error.details())
            except (asyncio.CancelledError, grpc.aio.UsageError):
                if engine.was_cancelled():
                    raise
                return CLOSED
            return "it answers now"

        found = await asyncio.gather(*(reason(one) for one in self._opened))
        return {one.name: text for one, text in zip(self._opened, found, strict=True)}
