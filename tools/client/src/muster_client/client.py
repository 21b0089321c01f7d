"""The client: keys, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from muster_client import ranges
from muster_client.kv import Kv
from muster_client.lease import Lease, LeaseInfo, granted, info
from muster_client.mirror import Mirror, OnChange
from muster_client.queueing import TTL_S, Election, Lock
from muster_client.ranges import Keys, Text
from muster_client.watch import Snapshot, Watch, WatchOptions
from muster_client.wire import engine
from muster_client.wire.calls import Caller
from muster_client.wire.endpoints import Tls, parsed
from muster_client.wire.keeper import Keeper

TIMEOUT_S = 30.0


class Client(Kv):
    """A client of a cluster of muster or etcd 3.4 to 3.7.

    ``endpoints``: ``"host1:2379,host2:2379"`` or a list; calls spread over those that are connected.
    ``timeout``: seconds for each call that names none. It connects when it is first used; any loop and any
    thread may use it. ``await close()`` or ``async with`` ends it.
    """

    def __init__(
        self, endpoints: str | Sequence[str] = "127.0.0.1:2379", *, user: str = "", password: str = "",
        tls: Tls | bool | None = None, timeout: float = TIMEOUT_S,
    ) -> None:
        self._endpoints = parsed(endpoints, tls)
        super().__init__(Caller(self._endpoints, user, password, timeout))
        self._keeper = Keeper(self._caller)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all connections; calls and watches under way fail."""
        if engine.has_ended():
            return
        await engine.run(self._keeper.close())
        await self._caller.close()

    async def lease(self, ttl: int = TTL_S, *, timeout: float | None = None) -> Lease:
        """A lease of ``ttl`` seconds, kept alive until it is revoked or the client ends."""
        return await granted(self._caller, self._keeper, ttl, timeout)

    async def lease_info(self, lease: int | Lease, *, timeout: float | None = None) -> LeaseInfo:
        """What the cluster knows of a lease. LeaseNotFound."""
        return await info(self._caller, lease if isinstance(lease, int) else lease.id, timeout)

    def lock(self, name: Text, *, lease: Lease | None = None, ttl: int = TTL_S) -> Lock:
        """A lock, for ``async with``. Without ``lease`` it has one of ``ttl`` seconds for itself; two locks
        of one name and one lease are the same."""
        return Lock(self, name, lease, ttl)

    def election(self, name: Text) -> Election:
        """An election."""
        return Election(self, name)

    def mirror(self, keys: Keys, on_change: OnChange | None = None) -> Mirror:
        """A range kept in memory, in step with the cluster, for ``async with``."""
        return Mirror(self, ranges.of(keys), on_change)

    def watch(
        self, keys: Keys, *, revision: int = 0, previous: bool = False, progress: bool = False,
        snapshots: bool = False,
    ) -> Watch:
        """Changes of keys; :class:`WatchOptions` says what the parameters mean."""
        where = ranges.of(keys)

        async def snapshot() -> Snapshot:
            pages = self.range(where)
            kvs = tuple(await pages.all())
            return Snapshot(kvs, pages.revision, 0)

        return Watch(self._caller, WatchOptions(where, revision, previous, progress, snapshots), snapshot)
