"""The same names for programs without asyncio; calls come from any thread.

Each object holds one of the package's own, which runs in the engine's loop. Where a caller of asyncio
cancels, these take ``timeout`` in seconds (TimeoutError). A callback of :meth:`Lease.on_lost` runs in the
engine's thread, where they refuse to wait: RuntimeError.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from muster_client import client as asynchronous
from muster_client import ops, queueing
from muster_client.kv import PAGE_KEYS
from muster_client.kv import Pages as _Pages
from muster_client.lease import Lease as _Lease
from muster_client.lease import LeaseInfo
from muster_client.mirror import Mirror as _Mirror
from muster_client.model import Done, KeyValue, TxnResult
from muster_client.queueing import TTL_S
from muster_client.ranges import Keys, Text
from muster_client.watch import Event
from muster_client.watch import Watch as _Watch
from muster_client.wire import engine
from muster_client.wire.endpoints import Tls

Result = TypeVar("Result")


def _wait(step: Coroutine[Any, Any, Result], timeout: float | None = None) -> Result:
    """Run something in the engine; an interrupt of this thread cancels it there. RuntimeError in the engine's
    own thread, which would wait for itself, and once the process ends."""
    if engine.is_here() or engine.has_ended():
        step.close()
        raise RuntimeError(
            "muster_client: the process ends, and its connections have ended" if engine.has_ended() else
            "muster_client.sync cannot wait in the thread that calls `on_lost`: hand this to another thread")
    future = engine.submit(step if timeout is None else asyncio.wait_for(step, timeout))
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


class _Within:
    """``with``: begins and ends with the block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        raise NotImplementedError


class Pages(Iterator[KeyValue]):
    """See :class:`muster_client.Pages`."""

    def __init__(self, inner: _Pages) -> None:
        self._inner = inner

    @property
    def revision(self) -> int:
        return self._inner.revision

    @property
    def count(self) -> int:
        return self._inner.count

    def __next__(self) -> KeyValue:
        kv = self._inner.waiting() or _wait(self._inner.next())
        if kv is None:
            raise StopIteration
        return kv

    def all(self) -> list[KeyValue]:
        """What is left, in memory at once."""
        return _wait(self._inner.all())


class Txn:
    """See :class:`muster_client.Txn`; :meth:`commit` runs it."""

    def __init__(self, inner: ops.Txn) -> None:
        self._inner = inner

    def then(self, *done: ops.Op | ops.Txn) -> Txn:
        """What is done if all conditions hold."""
        return Txn(self._inner.then(*done))

    def otherwise(self, *done: ops.Op | ops.Txn) -> Txn:
        """What is done if one does not hold."""
        return Txn(self._inner.otherwise(*done))

    def commit(self) -> TxnResult:
        """Run it."""
        return _wait(self._inner.commit())


class Watch(_Within, Iterator[Event]):
    """See :class:`muster_client.Watch`."""

    def __init__(self, inner: _Watch) -> None:
        self._inner = inner

    @property
    def revision(self) -> int:
        return self._inner.revision

    def __enter__(self) -> Self:
        _wait(self._inner.__aenter__())
        return self

    def __next__(self) -> Event:
        if (event := self._next(None)) is None:
            raise StopIteration
        return event

    def read(self, timeout: float) -> Event | None:
        """The next event; None: it is closed. TimeoutError, which loses nothing."""
        return self._next(timeout)

    def _next(self, timeout: float | None) -> Event | None:
        event = next(self._inner.waiting(), None)
        if event is None:
            _wait(self._inner.ready(), timeout)  # an interrupt loses nothing: it takes none
            event = next(self._inner.waiting(), None)
        return event

    def request_progress(self) -> None:
        _wait(self._inner.request_progress())

    def close(self) -> None:
        _wait(self._inner.close())


class Mirror(_Within, Mapping[bytes, KeyValue]):
    """See :class:`muster_client.Mirror`."""

    def __init__(self, inner: _Mirror) -> None:
        self._inner = inner

    @property
    def revision(self) -> int:
        return self._inner.revision

    def __enter__(self) -> Self:
        _wait(self._inner.__aenter__())
        return self

    def close(self) -> None:
        _wait(self._inner.__aexit__(None, None, None))

    def __getitem__(self, key: Text) -> KeyValue:
        return self._inner[key]

    def __contains__(self, key: object) -> bool:
        return key in self._inner

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._inner)

    def __len__(self) -> int:
        return len(self._inner)

    def copy(self) -> dict[bytes, KeyValue]:
        return self._inner.copy()

    def wait_for(self, revision: int, timeout: float | None = None) -> None:
        """See :meth:`muster_client.Mirror.wait_for`."""
        _wait(self._inner.wait_for(revision), timeout)


class Lease(_Within):
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
        return _wait(self.inner.wait_lost(), timeout)

    def revoke(self, *, timeout: float | None = None) -> None:
        """End it, with its keys."""
        _wait(self.inner.revoke(timeout=timeout))

    close = revoke


def _inner_of(lease: Lease | None) -> _Lease | None:
    return None if lease is None else lease.inner


class _Place(_Within):
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
    def held(self) -> ops.Condition:
        return self._place.held

    @property
    def lost(self) -> bool:
        return self._place.lost


class Lock(_Place):
    """See :class:`muster_client.Lock`."""

    def __init__(self, inner: queueing.Lock) -> None:
        super().__init__(inner)
        self._inner = inner

    def acquire(self, timeout: float | None = None) -> Self:
        """Wait for it. LeaseLost; TimeoutError, out of the line."""
        _wait(self._inner.acquire(), timeout)
        return self

    def try_acquire(self) -> bool:
        return _wait(self._inner.try_acquire())

    def release(self) -> None:
        _wait(self._inner.release())

    close = release

    def __enter__(self) -> Self:
        return self.acquire()


class Leadership(_Place):
    """See :class:`muster_client.Leadership`."""

    def __init__(self, inner: queueing.Leadership) -> None:
        super().__init__(inner)
        self._inner = inner

    def campaign(self, timeout: float | None = None) -> Self:
        """Wait until it leads. LeaseLost; TimeoutError, out of the line."""
        _wait(self._inner.campaign(), timeout)
        return self

    def proclaim(self, value: Text) -> None:
        _wait(self._inner.proclaim(value))

    def resign(self) -> None:
        _wait(self._inner.resign())

    close = resign

    def __enter__(self) -> Self:
        return self.campaign()


class Election:
    """See :class:`muster_client.Election`."""

    def __init__(self, inner: queueing.Election) -> None:
        self._inner = inner

    def campaign(self, value: Text, *, lease: Lease | None = None, ttl: int = TTL_S) -> Leadership:
        return Leadership(self._inner.campaign(value, lease=_inner_of(lease), ttl=ttl))

    def leader(self) -> KeyValue | None:
        return _wait(self._inner.leader())

    def observe(self) -> Iterator[KeyValue]:
        """The leader, and each other one or proclamation."""
        told, one = self._inner.observe(), asyncio.Lock()
        try:
            while True:
                yield _wait(_next(told, one))
        finally:  # also where it is dropped, in whatever thread: nothing waits for its end
            if not engine.has_ended():
                engine.submit(_end(told, one))


async def _next(told: AsyncGenerator[KeyValue, None], one: asyncio.Lock) -> KeyValue:
    async with one:
        return await anext(told)


async def _end(told: AsyncGenerator[KeyValue, None], one: asyncio.Lock) -> None:
    async with one:  # a reader that was interrupted is on its way out
        await told.aclose()


class Client(_Within):
    """See :class:`muster_client.Client`."""

    def __init__(
        self, endpoints: str | Sequence[str] = "127.0.0.1:2379", *, user: str = "", password: str = "",
        tls: Tls | bool | None = None, timeout: float = asynchronous.TIMEOUT_S,
    ) -> None:
        self._inner = asynchronous.Client(endpoints, user=user, password=password, tls=tls, timeout=timeout)

    def close(self) -> None:
        if not engine.has_ended():
            _wait(self._inner.close())

    def get(
        self, key: Text, *, revision: int = 0, serializable: bool = False, timeout: float | None = None
    ) -> KeyValue | None:
        return _wait(self._inner.get(key, revision=revision, serializable=serializable, timeout=timeout))

    def range(
        self, keys: Keys, *, revision: int = 0, page: int = PAGE_KEYS, descending: bool = False,
        keys_only: bool = False, serializable: bool = False, timeout: float | None = None,
    ) -> Pages:
        return Pages(self._inner.range(
            keys, revision=revision, page=page, descending=descending, keys_only=keys_only,
            serializable=serializable, timeout=timeout))

    def count(
        self, keys: Keys, *, revision: int = 0, serializable: bool = False, timeout: float | None = None
    ) -> int:
        return _wait(self._inner.count(keys, revision=revision, serializable=serializable, timeout=timeout))

    def put(
        self, key: Text, value: Text | None, *, lease: int | ops.HasId | None = 0, previous: bool = False,
        timeout: float | None = None,
    ) -> Done:
        return _wait(self._inner.put(key, value, lease=lease, previous=previous, timeout=timeout))

    def delete(self, keys: Keys, *, previous: bool = False, timeout: float | None = None) -> Done:
        return _wait(self._inner.delete(keys, previous=previous, timeout=timeout))

    def when(self, *conditions: ops.Condition, timeout: float | None = None) -> Txn:
        return Txn(self._inner.when(*conditions, timeout=timeout))

    def txn(self, txn: ops.Txn, *, repeatable: bool = False, timeout: float | None = None) -> TxnResult:
        return _wait(self._inner.txn(txn, repeatable=repeatable, timeout=timeout))

    def compact(self, revision: int, *, physical: bool = False, timeout: float | None = None) -> None:
        _wait(self._inner.compact(revision, physical=physical, timeout=timeout))

    def lease(self, ttl: int = TTL_S, *, timeout: float | None = None) -> Lease:
        return Lease(_wait(self._inner.lease(ttl, timeout=timeout)))

    def lease_info(self, lease: int | Lease, *, timeout: float | None = None) -> LeaseInfo:
        return _wait(self._inner.lease_info(lease if isinstance(lease, int) else lease.id, timeout=timeout))

    def lock(self, name: Text, *, lease: Lease | None = None, ttl: int = TTL_S) -> Lock:
        return Lock(self._inner.lock(name, lease=_inner_of(lease), ttl=ttl))

    def election(self, name: Text) -> Election:
        return Election(self._inner.election(name))

    def mirror(self, keys: Keys) -> Mirror:
        """See :meth:`muster_client.Client.mirror`; :meth:`watch` tells of changes here."""
        return Mirror(self._inner.mirror(keys))

    def watch(
        self, keys: Keys, *, revision: int = 0, previous: bool = False, progress: bool = False,
        snapshots: bool = False,
    ) -> Watch:
        return Watch(self._inner.watch(
            keys, revision=revision, previous=previous, progress=progress, snapshots=snapshots))
