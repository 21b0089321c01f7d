"""Services as registries write them: ``root/name/instance``, alive as long as the instance's lease."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import muster_client as m
from muster_client import Client, KeyValue

from tools.console.store.leases import life

ROOTS = ("/services/", "/service/")
MOST_INSTANCES = 1000
_MOST_LEASES, _TOGETHER = 200, 16

Times = Mapping[int, tuple[int, int] | None]
"""Time left and granted of leases that were asked for; None: it has ended."""


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance; ``is_alive``: a lease vouches for it. ``left_s`` of that, None: too many were there to be
    asked for."""

    key: bytes
    name: bytes
    value: bytes
    lease: int
    is_alive: bool = False
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
        return sum(one.is_alive for one in self.instances)


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


def _instance(kv: KeyValue, cut: int, times: Times) -> Instance:
    told = times.get(kv.lease, (None, 0))
    left_s, granted_s = told or (None, 0)
    is_alive = bool(kv.lease) and told is not None
    return Instance(kv.key, kv.key[cut:], kv.value, kv.lease, is_alive, left_s, granted_s)


async def _times(client: Client, leases: set[int]) -> Times:
    """Of the first leases."""
    gate = asyncio.Semaphore(_TOGETHER)
    found: dict[int, tuple[int, int] | None] = {}

    async def ask(lease: int) -> None:
        async with gate:
            told = await life(client, lease)
            found[lease] = (told.left_s, told.granted_s) if told is not None else None

    await asyncio.gather(*map(ask, sorted(leases)[:_MOST_LEASES]))
    return found
