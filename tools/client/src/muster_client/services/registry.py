"""Services that are found for as long as they live.

Their keys and values are those of Go's ``naming/endpoints``: ``service/address`` holds
``{"Op":0,"Addr":...,"Metadata":...}``, so that Go's gRPC resolver finds what is registered here.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from muster_client.errors import LeaseLost, LeaseNotFound, MusterError, PermissionDenied, Removed
from muster_client.lease import Lease, briefly, leaves, to_its_end, whole
from muster_client.model import KeyValue
from muster_client.ranges import Text, data
from muster_client.watch import Delete, Snapshot, Watch
from muster_client.wire import engine

if TYPE_CHECKING:
    from muster_client.client import Client

log = logging.getLogger("muster_client")
Healthy = Callable[[], Awaitable[bool]]
OnLost = Callable[[MusterError], None]
ZONE = "zone"
_CHECKS = 3  # of health, in a time to live
_AGAIN_S = 1.0
_HEALTH_S = 5.0  # a check that takes longer has failed


@dataclass(frozen=True, slots=True)
class Instance:
    """One of a service. ``metadata``: whatever it says of itself; ``token``: the revision at which it was
    registered."""

    key: bytes
    address: str
    metadata: Any
    token: int

    @property
    def zone(self) -> str:
        """Where it is, if it says so."""
        zone = self.metadata.get(ZONE, "") if isinstance(self.metadata, dict) else ""
        return zone if isinstance(zone, str) else ""


def value_of(address: str, metadata: Any) -> str:
    """What is stored of an instance."""
    return json.dumps({"Op": 0, "Addr": address, "Metadata": metadata}, separators=(",", ":"))


def instance_of(kv: KeyValue) -> Instance | None:
    """What is stored there; None, and a line in the log, for something else."""
    try:
        told = json.loads(kv.value)
        return Instance(kv.key, str(told["Addr"]), told.get("Metadata"), kv.create_revision)
    except (ValueError, KeyError, TypeError, AttributeError):
        log.warning("%r is no endpoint of a service", kv.key)
        return None


async def _ended(watch: Watch, lease: Lease) -> None:
    try:
        await watch.close()
    finally:
        await lease.revoke()


class Registration:
    """An instance that is found while it lives; in ``async with``.

    Its key hangs on a lease. It is *lost* where the lease ends, because the cluster was out of reach for
    longer, or where a client deletes its key. With ``anew`` it is registered again then. Where its own client
    is closed it is lost for good. With ``healthy``, an awaitable function, it is found while that says so: it
    is asked three times in a time to live, and has 5 s.
    """

    def __init__(
        self, client: Client, service: Text, address: str, metadata: Mapping[str, Any], ttl_s: int,
        healthy: Healthy | None, anew: bool,
    ) -> None:
        self._client, self._ttl_s, self._healthy, self._anew = client, ttl_s, healthy, anew
        self.key = data(service).rstrip(b"/") + b"/" + address.encode()
        self._value = value_of(address, dict(metadata) or None)
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._lease: Lease | None = None
        self._there = False
        self._perhaps = False  # an attempt to register may have been done
        self._put = self._deleted = 0  # revisions: of its own put, and of the last delete that was seen
        self._moved = asyncio.Event()
        self._losses: set[asyncio.Future[MusterError]] = set()  # of tasks that wait for one
        self._calls: list[OnLost] = []
        self.lost: MusterError | None = None  # why it is not registered any more, for good

    @property
    def found(self) -> bool:
        """Whether it is registered, as far as this process knows."""
        return self._there and not self._removed and self._lease is not None and not self._lease.lost

    @property
    def _removed(self) -> bool:
        return self._there and self._deleted > self._put

    async def wait_lost(self) -> MusterError:
        """Wait until it is lost, with ``anew`` until the next time; why: LeaseLost, or Removed. At once if it
        is lost for good."""
        if self.lost is not None:
            return self.lost
        told: asyncio.Future[MusterError] = asyncio.get_running_loop().create_future()
        self._losses.add(told)
        try:
            return await told
        finally:
            self._losses.discard(told)

    def on_lost(self, call: OnLost) -> None:
        """Call with LeaseLost or Removed each time it is lost, in the loop in which it was registered; at
        once if it is lost for good."""
        self._calls.append(call)
        if self.lost is not None:
            call(self.lost)

    async def register(self) -> Self:
        """Begin. Found at once, if it is healthy."""
        if self._tasks:
            raise RuntimeError("it is registered already")
        self.lost, self._moved = None, asyncio.Event()  # it may have been registered in another loop before
        self._lease = await self._client.lease(self._ttl_s)
        watch = self._client.watch(self.key, snapshots=True)
        try:
            watched = await self._is_watched(watch)
            await self._look(self._lease)
        except BaseException:
            # one step: a second cancel skips nothing of it
            await briefly(_ended(watch, self._lease))
            raise
        following = asyncio.create_task(self._follow(self._lease))
        self._tasks = (following, asyncio.create_task(self._see(watch))) if watched else (following,)
        return self

    async def unregister(self) -> None:
        """End; it is found no more, also where the caller is cancelled."""
        if self._tasks:
            await whole(self._end())

    async def _end(self) -> None:
        await engine.stop(*self._tasks)
        lease, self._tasks, self._there = self._lease, (), False
        if lease is not None:
            await lease.revoke()

    async def _is_watched(self, watch: Watch) -> bool:
        """Whether its key can be watched: a user may be allowed to write it, and not to read it."""
        try:
            await watch.__aenter__()
        except PermissionDenied as error:
            log.warning("%r cannot be watched, so its removal is not reported: %s", self.key, error)
            return False
        return True

    async def _see(self, watch: Watch) -> None:
        """Take note of deletes."""
        try:
            async for event in watch:
                if isinstance(event, Delete) or (isinstance(event, Snapshot) and not event.kvs):
                    self._deleted = event.revision
                    self._moved.set()
        except MusterError as error:
            if not self._client.closed:
                log.warning("%r is not watched any more, so its removal is not reported: %s", self.key, error)
        finally:
            await watch.close()

    async def _follow(self, lease: Lease) -> None:
        ended = False
        told: MusterError | None = None  # the loss from which it has not come back
        while True:
            await self._wait(lease)
            if self._client.closed:
                return self._close(told)
            if (error := await self._loss(lease)) is not None:
                self._there = False
                if not self._anew:
                    await self._give_up(lease, error)
                    return
                log.warning("the registration of %r was lost (%s); registering it again", self.key, error)
                ended, told = isinstance(error, LeaseLost), error
                self._tell(error)
            try:
                if ended or lease.lost:
                    before = lease
                    self._lease = lease = await self._client.lease(self._ttl_s)  # which `_end` revokes
                    ended = False
                    await to_its_end(before.revoke())
                await self._look(lease)
                told = None
            except MusterError as error:  # the next look tries it again
                if self._client.closed:
                    return self._close(told)
                log.warning("%r is not registered: %s", self.key, error)
                await asyncio.sleep(_AGAIN_S)

    async def _wait(self, lease: Lease) -> None:
        """Until it may be lost, or its health is to be asked."""
        if lease.lost:
            return
        lost, moved = asyncio.ensure_future(lease.wait_lost()), asyncio.ensure_future(self._moved.wait())
        try:
            await asyncio.wait(
                (lost, moved), timeout=lease.ttl_s / _CHECKS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            moved.cancel()
            await asyncio.gather(lost, moved, return_exceptions=True)
        self._moved.clear()

    async def _loss(self, lease: Lease) -> MusterError | None:
        """Why it was there and is not. A lease that ends deletes the key, which may be seen first."""
        if not self._there:
            return None
        if self._removed and not lease.lost:
            try:
                await self._client.lease_info(lease)
            except LeaseNotFound:
                return LeaseLost(f"lease {lease.id:x} is lost: it ended, or was revoked")
            except MusterError as error:
                log.warning("lease %x of %r: %s", lease.id, self.key, error)
            return Removed(f"{self.key!r} was deleted")
        try:
            lease.check()
        except LeaseLost as error:
            return error
        return None

    def _close(self, told: MusterError | None) -> None:
        """With the client it is lost for good, by what was told already, if anything was."""
        self.lost = told or LeaseLost(f"{self.key!r} is not registered any more: the client is closed")
        if told is None:
            self._tell(self.lost)

    async def _give_up(self, lease: Lease, error: MusterError) -> None:
        self.lost = error
        self._tell(error)
        await to_its_end(lease.revoke())

    def _tell(self, error: MusterError) -> None:
        for told in self._losses:
            if not told.done():
                told.set_result(error)
        for call in self._calls:
            try:
                call(error)
            except Exception:
                log.exception("the registration of %r: a callback failed", self.key)

    async def _look(self, lease: Lease) -> None:
        """Be there if it is healthy, else not."""
        healthy = self._healthy is None or await self._asked(self._healthy)
        if healthy and not self._there:
            self._perhaps = True
            self._put = (await self._client.put(self.key, self._value, lease=lease)).revision
            self._there = True
        elif self._perhaps and not healthy:
            self._there = False  # its own delete is no loss
            await self._client.delete(self.key)
            self._perhaps = False

    async def _asked(self, healthy: Healthy) -> bool:
        try:
            async with asyncio.timeout(_HEALTH_S):  # wait_for of Python 3.11 swallows a cancellation
                return await healthy()
        except Exception as error:
            log.warning("the check of %r has failed: %r", self.key, error)
            return False

    async def __aenter__(self) -> Self:
        return await self.register()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lease is None or not self._lease._origin.is_parent:
            await leaves(self.unregister(), error)
