"""Services as registries write them: ``root/name/instance``, alive as long as the instance's lease."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import muster_client as m
from muster_client import Client, KeyValue

from tools.console.store.leases import life

ROOTS = ("/services/", "/service/")
MOST_INSTANCES = 1000
_MOST_LEASES, _TOGETHER = 200, 16


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance; ``left_s`` of its lease, None: it has none, or too many were there to be asked for."""

    key: bytes
    name: bytes
    value: bytes
    lease: int
    left_s: int | None = None
    granted_s: int = 0


@dataclass(frozen=True, slots=True)
class Service:
    """A name, and the instances that serve it."""

    name: bytes
    instances: tuple[Instance, ...]

    @property
    def alive(self) -> int:
        """Instances that a lease vouches for."""
        return sum(one.left_s is not None for one in self.instances)


@dataclass(frozen=True, slots=True)
class Registry:
    """Services below a root. ``whole``: all instances are here."""

    root: bytes
    services: tuple[Service, ...]
    whole: bool


async def registry(client: Client, root: bytes = b"") -> Registry:
    """The services below a root; by default below the first of the usual ones that has any."""
    for one in (root,) if root else tuple(text.encode() for text in ROOTS):
        pages = client.range(m.prefix(one), page=MOST_INSTANCES)
        kv = await pages.next()
        kvs: list[KeyValue] = []
        while kv is not None:
            kvs.append(kv)
            kv = pages.waiting()
        if kvs or root:
            return Registry(one, await _services(client, one, kvs), pages.count == len(kvs))
    return Registry(ROOTS[0].encode(), (), True)


async def _services(client: Client, root: bytes, kvs: Iterable[KeyValue]) -> tuple[Service, ...]:
    found: dict[bytes, list[KeyValue]] = {}
    for kv in kvs:
        name, slash, instance = kv.key[len(root) :].partition(b"/")
        if slash and instance:
            found.setdefault(name, []).append(kv)
    times = await _times(client, {kv.lease for kvs in found.values() for kv in kvs if kv.lease})
    return tuple(
        Service(name, tuple(_instance(kv, len(root) + len(name) + 1, times) for kv in kvs))
        for name, kvs in sorted(found.items())
    )


def _instance(kv: KeyValue, cut: int, times: dict[int, tuple[int, int]]) -> Instance:
    left_s, granted_s = times.get(kv.lease, (None, 0))
    return Instance(kv.key, kv.key[cut:], kv.value, kv.lease, left_s, granted_s)


async def _times(client: Client, leases: set[int]) -> dict[int, tuple[int, int]]:
    """Time left and granted of leases that live."""
    gate = asyncio.Semaphore(_TOGETHER)
    found: dict[int, tuple[int, int]] = {}

    async def ask(lease: int) -> None:
        async with gate:
            if (told := await life(client, lease)) is not None:
                found[lease] = (told.left_s, told.granted_s)

    await asyncio.gather(*map(ask, sorted(leases)[:_MOST_LEASES]))
    return found
