"""Leases with their keys, and what is held by them: locks and elections."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

import muster_client as m
from muster_client import Client, LeaseInfo, LeaseNotFound, PermissionDenied
from muster_client.pb import rpc_pb2 as pb

from tools.console.store import raw

MOST_SHOWN = 200  # each takes a request for its time
_TOGETHER = 16


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A lease as of now."""

    id: int
    left_s: int
    granted_s: int
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Leases:
    """The first leases by ID, and how many there are."""

    rows: tuple[LeaseRow, ...]
    count: int


async def every(client: Client) -> Leases:
    """Leases with their times and keys."""
    answer = await raw.call(client, raw.LEASES, pb.LeaseLeasesRequest())
    ids = sorted(one.ID for one in answer.leases)
    gate = asyncio.Semaphore(_TOGETHER)

    async def row(lease: int) -> LeaseRow | None:
        async with gate:
            try:
                found: LeaseInfo | None = await client.lease_info(lease)
            except PermissionDenied:  # it holds a key that the user may not read
                found = await life(client, lease)
            except LeaseNotFound:  # it ended meanwhile
                return None
        return LeaseRow(lease, found.left_s, found.granted_s, found.keys) if found else None

    rows = await asyncio.gather(*map(row, ids[:MOST_SHOWN]))
    return Leases(tuple(one for one in rows if one is not None), len(ids))


async def life(client: Client, lease: int) -> LeaseInfo | None:
    """What any user may know of a lease, which leaves out its keys; None: it has ended."""
    told = await raw.call(client, raw.TIME_TO_LIVE, pb.LeaseTimeToLiveRequest(ID=lease))
    return LeaseInfo(told.TTL, told.grantedTTL, ()) if told.TTL >= 0 else None


async def grant(client: Client, ttl_s: int) -> int:
    """A lease that nobody keeps alive; its ID."""
    return (await raw.call(client, raw.GRANT, pb.LeaseGrantRequest(TTL=ttl_s))).ID


async def revoke(client: Client, lease: int) -> None:
    """End a lease, with its keys. LeaseNotFound."""
    await raw.call(client, raw.REVOKE, pb.LeaseRevokeRequest(ID=lease))


_CONTENDER = re.compile(rb"(.+)/([0-9a-f]{1,16})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Contender:
    """A session that holds a lock or leads, or waits for it: by its lease, since a revision."""

    lease: int
    since: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Contest:
    """A lock or an election: the first holds it, the others wait in their order."""

    name: bytes
    contenders: tuple[Contender, ...]


async def contests(client: Client, leases: Sequence[LeaseRow]) -> list[Contest]:
    """Locks and elections by the form that clientv3's ``concurrency`` and this library give to their keys:
    ``name/<lease in hex>``, held by that lease."""
    names: set[bytes] = set()
    for lease in leases:
        for key in lease.keys:
            found = _CONTENDER.fullmatch(key)
            if found and int(found[2], 16) == lease.id:
                names.add(found[1])
    result = []
    for name in sorted(names):
        try:
            rows = [kv async for kv in client.range(m.prefix(name + b"/"))]
        except PermissionDenied:  # the user may read the key of one contender, not of each
            continue
        held = sorted(
            (kv.create_revision, kv.lease, kv.value) for kv in rows if kv.key == b"%s/%x" % (name, kv.lease)
        )
        if held:
            result.append(
                Contest(name, tuple(Contender(lease, since, value) for since, lease, value in held))
            )
    return result
