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

from muster_client.errors import MusterError
from muster_client.lease import Lease, to_its_end
from muster_client.model import KeyValue
from muster_client.ranges import Text, data

if TYPE_CHECKING:
    from muster_client.client import Client

log = logging.getLogger("muster_client")
Healthy = Callable[[], Awaitable[bool]]
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


class Registration:
    """An instance that is found while it lives; in ``async with``.

    Its key hangs on a lease. Where the lease is lost, because the cluster was out of reach for longer, it is
    registered anew. With ``healthy``, an awaitable function, it is found while that says so: it is asked
    three times in a time to live, and has 5 s.
    """

    def __init__(
        self, client: Client, service: Text, address: str, metadata: Mapping[str, Any], ttl_s: int,
        healthy: Healthy | None,
    ) -> None:
        self._client, self._ttl_s, self._healthy = client, ttl_s, healthy
        self.key = data(service).rstrip(b"/") + b"/" + address.encode()
        self._value = value_of(address, dict(metadata) or None)
        self._task: asyncio.Task[None] | None = None
        self._lease: Lease | None = None
        self._there = False
        self._perhaps = False  # an attempt to register may have been done

    @property
    def found(self) -> bool:
        """Whether it is registered, as far as this process knows."""
        return self._there and self._lease is not None and not self._lease.lost

    async def register(self) -> Self:
        """Begin. Found at once, if it is healthy."""
        if self._task is not None:
            raise RuntimeError("it is registered already")
        self._lease = await self._client.lease(self._ttl_s)
        try:
            await self._look(self._lease)
        except BaseException:
            await to_its_end(self._lease.revoke())
            raise
        self._task = asyncio.create_task(self._follow(self._lease))
        return self

    async def unregister(self) -> None:
        """End; it is found no more."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task, self._there = None, False
        if self._lease is not None:
            await self._lease.revoke()

    async def _follow(self, lease: Lease) -> None:
        while True:
            try:
                await asyncio.wait_for(lease.wait_lost(), lease.ttl_s / _CHECKS)
                self._there = False
                if not self._client.closed:
                    log.warning("the registration of %r was lost; it is registered anew", self.key)
                self._lease = lease = await self._client.lease(self._ttl_s)
            except TimeoutError:
                pass
            except MusterError as error:
                if self._client.closed:
                    return
                log.warning("%r is not registered: %s", self.key, error)
                await asyncio.sleep(_AGAIN_S)
                continue
            try:
                await self._look(lease)
            except MusterError as error:  # the next look tries it again
                log.warning("%r is not registered: %s", self.key, error)

    async def _look(self, lease: Lease) -> None:
        """Be there if it is healthy, else not."""
        healthy = self._healthy is None or await self._asked(self._healthy)
        if healthy and not self._there:
            self._perhaps = True
            await self._client.put(self.key, self._value, lease=lease)
            self._there = True
        elif self._perhaps and not healthy:
            await self._client.delete(self.key)
            self._there = self._perhaps = False

    async def _asked(self, healthy: Healthy) -> bool:
        try:
            return await asyncio.wait_for(healthy(), _HEALTH_S)
        except Exception as error:
            log.warning("the check of %r has failed: %r", self.key, error)
            return False

    async def __aenter__(self) -> Self:
        return await self.register()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.unregister()
