"""Recipes: locks that several hold, barriers, queues, transactions in memory."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from muster_client import ops
from muster_client.model import KeyValue
from muster_client.queueing import TTL_S
from muster_client.recipes import barriers, locks, queues
from muster_client.recipes.queues import TAKE_TTL_S
from muster_client.stm import Stm as _Stm
from muster_client.sync.base import Blocking, Within, wait
from muster_client.sync.leases import Lease, Lock, inner_of


class RWLock:
    """See :class:`muster_client.RWLock`."""

    def __init__(self, inner: locks.RWLock) -> None:
        self.inner = inner

    def read(self, *, lease: Lease | None = None, ttl: int = TTL_S) -> Lock:
        return Lock(self.inner.read(lease=inner_of(lease), ttl=ttl))

    def write(self, *, lease: Lease | None = None, ttl: int = TTL_S) -> Lock:
        return Lock(self.inner.write(lease=inner_of(lease), ttl=ttl))


class Semaphore(Lock):
    """See :class:`muster_client.Semaphore`."""


class Barrier(Within):
    """See :class:`muster_client.Barrier`."""

    def __init__(self, inner: barriers.Barrier) -> None:
        self.inner = inner

    release = Blocking(barriers.Barrier.release)

    @property
    def token(self) -> int:
        return self.inner.token

    @property
    def held(self) -> ops.Condition:
        return self.inner.held

    def hold(self, *, lease: Lease | None = None) -> Self:
        wait(self.inner.hold(lease=inner_of(lease)), undo=lambda _: self.inner.release())
        return self

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is open. TimeoutError."""
        wait(self.inner.wait(), timeout)

    def __enter__(self) -> Self:
        return self.hold()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wait(self.inner.__aexit__(kind, error, trace))

    def close(self) -> None:
        self.release()


class DoubleBarrier(Within):
    """See :class:`muster_client.DoubleBarrier`."""

    def __init__(self, inner: barriers.DoubleBarrier) -> None:
        self.inner = inner

    @property
    def token(self) -> int:
        return self.inner.token

    @property
    def held(self) -> ops.Condition:
        return self.inner.held

    def enter(self, timeout: float | None = None) -> Self:
        """Wait until all are there. Taken, LeaseLost; TimeoutError, out of it."""
        wait(self.inner.enter(), timeout, undo=lambda _: self.inner._out())
        return self

    def leave(self, timeout: float | None = None) -> None:
        """Wait until all leave. TimeoutError, out of it."""
        wait(self.inner.leave(), timeout)

    def __enter__(self) -> Self:
        return self.enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wait(self.inner.__aexit__(kind, error, trace))


class Item:
    """See :class:`muster_client.Item`."""

    def __init__(self, inner: queues.Item) -> None:
        self.inner = inner
        self.kv, self.token = inner.kv, inner.token

    finish = Blocking(queues.Item.finish)

    @property
    def lease(self) -> Lease:
        return Lease(self.inner.lease)

    @property
    def value(self) -> bytes:
        return self.inner.value

    @property
    def text(self) -> str:
        return self.inner.text

    @property
    def held(self) -> ops.Condition:
        return self.inner.held

    @property
    def finished(self) -> bool:
        return self.inner.finished


class Take:
    """See :class:`muster_client.recipes.queues.Take`."""

    def __init__(self, inner: queues.Take) -> None:
        self._inner = inner

    def __enter__(self) -> Item:
        return Item(wait(self._inner.__aenter__(), undo=lambda item: item.lease.revoke()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wait(self._inner.__aexit__(kind, error, trace))


class _Items:
    """What both kinds of queues have in common."""

    def __init__(self, inner: queues.Queue | queues.PriorityQueue) -> None:
        self.inner = inner

    get_nowait = Blocking(queues.Queue.get_nowait)
    size = Blocking(queues.Queue.size)

    def get(self, timeout: float | None = None) -> KeyValue:
        """Take the first item for good, waited for. TimeoutError: an item may be taken and lost."""
        return wait(self.inner.get(), timeout)

    def take(self, *, ttl: int = TAKE_TTL_S) -> Take:
        return Take(self.inner.take(ttl=ttl))


class Queue(_Items):
    """See :class:`muster_client.Queue`."""

    put = Blocking(queues.Queue.put)


class PriorityQueue(_Items):
    """See :class:`muster_client.PriorityQueue`."""

    put = Blocking(queues.PriorityQueue.put)


class Stm:
    """See :class:`muster_client.Stm`."""

    def __init__(self, inner: _Stm) -> None:
        self.inner = inner
        self.put = inner.put
        self.delete = inner.delete

    get = Blocking(_Stm.get)
    text = Blocking(_Stm.text)
    mod_revision = Blocking(_Stm.mod_revision)
    fetch = Blocking(_Stm.fetch)
