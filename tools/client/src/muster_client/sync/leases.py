"""Leases, locks and elections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self

from muster_client import ops, queueing
from muster_client.lease import Lease as _Lease
from muster_client.model import KeyValue
from muster_client.queueing import TTL_S
from muster_client.ranges import Text
from muster_client.sync.base import Within, wait
from muster_client.wire import engine


class Lease(Within):
    """See :class:`muster_client.Lease`."""

    def __init__(self, inner: _Lease) -> None:
        self.inner = inner
        self.on_lost = inner.on_lost
        self.left_s = inner.left_s
        self.check = inner.check

    @property
    def id(self) -> int:
        return self.inner.id

    @property
    def ttl_s(self) -> int:
        return self.inner.ttl_s

    @property
    def lost(self) -> bool:
        return self.inner.lost

    def wait_lost(self, timeout: float | None = None) -> str:
        """Wait until it is lost or given up; why."""
        return wait(self.inner.wait_lost(), timeout)

    def revoke(self, *, timeout: float | None = None) -> None:
        """End it, with its keys. RuntimeError in a process that was forked off: its parent keeps it."""
        wait(self.inner.revoke(timeout=timeout))

    close = revoke

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wait(self.inner.__aexit__(kind, error, trace))


def unused(lease: _Lease) -> Coroutine[Any, Any, None]:
    """Nobody has it, so it is not renewed; it may be another's, and is not revoked."""
    return lease._keeper.drop(lease._kept, "its caller was interrupted")


def inner_of(lease: Lease | None) -> _Lease | None:
    return None if lease is None else lease.inner


class Place(Within):
    def __init__(self, inner: queueing.Lock | queueing.Leadership) -> None:
        self._place = inner

    @property
    def key(self) -> bytes:
        return self._place.key

    @property
    def lease(self) -> Lease:
        return Lease(self._place.lease)

    @property
    def token(self) -> int:
        return self._place.token

    @property
    def revision(self) -> int:
        return self._place.revision

    @property
    def held(self) -> ops.Condition:
        return self._place.held

    @property
    def lost(self) -> bool:
        return self._place.lost

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wait(self._place.__aexit__(kind, error, trace))


class Lock(Place):
    """See :class:`muster_client.Lock`."""

    def __init__(self, inner: queueing.Lock) -> None:
        super().__init__(inner)
        self.inner = inner

    def acquire(self, timeout: float | None = None) -> Self:
        """Wait for it. LeaseLost; TimeoutError, out of the line."""
        wait(self.inner.acquire(), timeout, undo=lambda _: self.inner.release())
        return self

    def try_acquire(self) -> bool:
        return wait(self.inner.try_acquire(), undo=self._undone)

    async def _undone(self, got: bool) -> None:
        if got:  # else another thread may have it by now
            await self.inner.release()

    def release(self) -> None:
        wait(self.inner.release())

    close = release

    def __enter__(self) -> Self:
        return self.acquire()


class Leadership(Place):
    """See :class:`muster_client.Leadership`."""

    def __init__(self, inner: queueing.Leadership) -> None:
        super().__init__(inner)
        self.inner = inner

    def campaign(self, timeout: float | None = None) -> Self:
        """Wait until it leads. LeaseLost; TimeoutError, out of the line."""
        wait(self.inner.campaign(), timeout, undo=lambda _: self.inner.resign())
        return self

    def proclaim(self, value: Text) -> None:
        wait(self.inner.proclaim(value))

    def resign(self) -> None:
        wait(self.inner.resign())

    close = resign

    def __enter__(self) -> Self:
        return self.campaign()


class Election:
    """See :class:`muster_client.Election`."""

    def __init__(self, inner: queueing.Election) -> None:
        self.inner = inner

    def campaign(self, value: Text, *, lease: Lease | None = None, ttl: int = TTL_S) -> Leadership:
        return Leadership(self.inner.campaign(value, lease=inner_of(lease), ttl=ttl))

    def leader(self) -> KeyValue | None:
        return wait(self.inner.leader())

    def observe(self) -> Iterator[KeyValue]:
        """The leader, and each other one or proclamation."""
        told, one = self.inner.observe(), asyncio.Lock()
        try:
            while True:
                yield wait(_next(told, one))
        finally:  # also where it is dropped, in whatever thread: nothing waits for its end
            if not engine.has_ended():
                engine.submit(_end(told, one))


async def _next(told: AsyncGenerator[KeyValue, None], one: asyncio.Lock) -> KeyValue:
    async with one:
        return await anext(told)


async def _end(told: AsyncGenerator[KeyValue, None], one: asyncio.Lock) -> None:
    async with one:  # a reader that was interrupted is on its way out
        await told.aclose()
