"""A range kept in memory, in step with the cluster."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from muster_client.errors import Compacted, MusterError
from muster_client.model import KeyValue
from muster_client.ranges import KeyRange, Text, data
from muster_client.watch import Change, Delete, Event, Put, Snapshot
from muster_client.wire import engine

if TYPE_CHECKING:
    from muster_client.client import Client

OnChange = Callable[[Change], None]
_WITHIN = "the mirror is used in `async with`"
_ATTEMPTS = 4


class Mirror(Mapping[bytes, KeyValue]):
    """Keys of a range by name, as of ``revision``; in ``async with`` it is whole, and follows.

    It has every key as of one revision, never a part of a transaction. ``on_change`` is called for each
    change behind the first snapshot, in order, in the mirror's loop. Where changes were compacted, it is
    called for those that make up the difference.

    If the mirror cannot go on, or ``on_change`` raises, each use raises that error. An interrupted connection
    is no such error: ``revision`` stands still meanwhile.
    """

    def __init__(self, client: Client, keys: KeyRange, on_change: OnChange | None) -> None:
        self._client, self._keys, self._on_change = client, keys, on_change
        self._held: dict[bytes, KeyValue] = {}
        self._revision = 0
        self._task: asyncio.Task[None] | None = None
        self._entering = False
        self._failure: BaseException | None = None
        self._failed_at: TracebackType | None = None
        self._moved = asyncio.Event()
        self._lock = threading.RLock()
        self._origin = engine.Origin()

    @property
    def revision(self) -> int:
        """All changes of the range up to it are in."""
        self._check()
        return self._revision

    def __getitem__(self, key: Text) -> KeyValue:
        self._check_process()
        with self._lock:
            self._check()
            return self._held[data(key)]

    def __contains__(self, key: object) -> bool:
        self._check_process()
        with self._lock:
            self._check()
            return isinstance(key, bytes | str) and data(key) in self._held

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.copy())

    def copy(self) -> dict[bytes, KeyValue]:
        """All of it, as of one revision."""
        self._check_process()
        with self._lock:
            self._check()
            return dict(self._held)

    def __len__(self) -> int:
        self._check()
        return len(self._held)

    async def wait_for(self, revision: int) -> None:
        """Wait until the changes of a revision of this range are in; one that has none in it is waited for
        until a later one has."""
        while self.revision < revision:
            self._moved.clear()
            await self._moved.wait()

    async def __aenter__(self) -> Self:
        if self._entering or (self._task is not None and not (
                self._task.done() or self._task.get_loop().is_closed() or self._origin.is_parent)):
            raise RuntimeError("it is entered already: each user needs an object of its own")
        if self._origin.is_parent:  # where its follower may have held it, at the fork
            self._lock = threading.RLock()
        self._entering = True
        try:
            self._held, self._revision = await self._whole()
        finally:
            self._entering = False
        self._failure = self._failed_at = None
        self._moved = asyncio.Event()  # it may have been used in another loop before
        self._task, self._origin = asyncio.create_task(self._follow()), engine.Origin()
        return self

    async def _whole(self) -> tuple[dict[bytes, KeyValue], int]:
        """All keys, and as of which revision. Compacted, where that is so each time they are read."""
        for attempt in range(_ATTEMPTS):
            pages = self._client.range(self._keys)
            try:
                return {kv.key: kv async for kv in pages}, pages.revision
            except Compacted:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("the loop ends otherwise")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._failure = self._failure or MusterError(_WITHIN)
            self._moved.set()  # tasks that wait for a revision see it
            await engine.stop(self._task)

    def _check(self) -> None:
        if self._task is None:
            raise MusterError(_WITHIN)
        self._check_process()
        if self._failure is not None:  # each use of one error adds to its traceback, which holds frames
            raise self._failure.with_traceback(self._failed_at)

    def _check_process(self) -> None:
        """MusterError in a process that was forked off: what was there at the fork would stay for ever, also
        the follower's lock."""
        if self._origin.is_parent:
            raise MusterError("the process from which this one was forked off follows it; here nothing does")

    async def _follow(self) -> None:
        try:
            async with self._client.watch(
                self._keys, revision=self._revision + 1, snapshots=True
            ) as watch:
                async for event in watch:
                    with self._lock:  # whole revisions, for readers of other threads, too
                        self._apply(event)
                        for later in watch.waiting():
                            self._apply(later)
                    self._moved.set()
        except Exception as error:
            self._failure, self._failed_at = error, error.__traceback__
        else:
            self._failure = MusterError("the mirror's watch has ended")
        self._moved.set()

    def _apply(self, event: Event) -> None:
        if isinstance(event, Put | Delete):
            self._change(event)
        elif isinstance(event, Snapshot):
            fresh = {kv.key: kv for kv in event.kvs}
            for key, kv in list(self._held.items()):
                if key not in fresh:
                    self._change(Delete(key, event.revision, kv))
            for key, kv in fresh.items():
                if (old := self._held.get(key)) != kv:
                    self._change(Put(kv, old))
        self._revision = max(self._revision, event.revision)

    def _change(self, change: Change) -> None:
        if isinstance(change, Put):
            self._held[change.key] = change.kv
        else:
            self._held.pop(change.key, None)
        if self._on_change is not None:
            self._on_change(change)
