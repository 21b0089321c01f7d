"""Muster's shards: replicas as each host reports its own, which shard owns which keys, and moves of keys.
etcd has none of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from muster_client import Client, KeyRange, Tls

from cluster.placement import Table
from cluster.placement.table import BASE, Piece, State
from tools.console.store import moves, web
from tools.console.store.cluster import Member
from tools.console.store.moves import Move

_ASKED_S = 2.0
_TROUBLE = (  # of one host: no answer, or JSON in another form
    httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Replica:
    """A host's replica of a shard; of one that is down only these are known: shard, host and state."""

    shard: int
    host: str
    up: bool
    role: str = ""
    keys: int = 0
    size_bytes: int = 0
    order_index: int = 0
    cpu_share: float = 0.0

    @property
    def is_leader(self) -> bool:
        return self.role == "leader"


@dataclass(frozen=True, slots=True)
class Growth:
    """What the cluster's data may hold. ``lacking``: hosts that have not said that they know ``known``."""

    level: int
    known: int
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shards:
    """All of it. ``table``: the owner of each key; None: an etcd, or a muster that tells none. ``moves``: the
    last ones; None: the hosts know none."""

    replicas: tuple[Replica, ...] = ()
    table: Table | None = None
    growth: Growth | None = None
    moves: tuple[Move, ...] | None = None

    def state(self, shard: int) -> State:
        """Of a shard, as the table has it."""
        known = self.table.shards.get(shard) if self.table is not None else None
        return known.state if known is not None else State.SERVING

    @property
    def running(self) -> list[int]:
        """The shards that have replicas."""
        told = {one.shard for one in self.replicas}
        if self.table is not None:
            told |= {shard for shard, known in self.table.shards.items() if known.state != State.DROPPED}
        return sorted(told)

    @property
    def targets(self) -> list[int]:
        """The shards that keys can be moved to."""
        return [shard for shard in self.running if self.state(shard) is State.SERVING]

    @property
    def move(self) -> Move | None:
        """The move that goes on, by the leader's word, or as the table has it."""
        found = next((one for one in self.moves or () if one.goes_on), None)
        if found is None and self.table is not None and self.table.move is not None:
            number, start, end, sources, target = self.table.move
            if all(one.number != number for one in self.moves or ()):
                return Move(number, KeyRange(start, end), sources, target)
        return found


def owner(piece: Piece) -> int | None:
    """Of a piece of the table; None: the rule of the beginning names the owner of each key."""
    return None if piece.owner == BASE else piece.owner


async def look(client: Client, members: Sequence[Member], tls: Tls | None) -> Shards:
    """All that hosts tell; nothing if they are etcd's. MusterError."""
    urls = [one.client_urls[0] for one in members if one.client_urls and not one.error]
    async with web.client(tls, _ASKED_S) as asked:
        hosts = await asyncio.gather(*(_host(asked, url) for url in urls))
    told = [one for one in hosts if one is not None]
    names = {f"{one.id:x}": one.name for one in members}
    replicas = [replica for host in told for replica in host.replicas]
    tables = [host.table for host in told if host.table is not None]
    table = max(tables, key=lambda one: one.generation, default=None)
    if table is None and any(host.hides for host in told) and (row := await moves.table(client)):
        table = Table.decode(row)
    return Shards(
        tuple(sorted(replicas, key=lambda one: (one.shard, one.host))),
        table,
        _growth([facts for host in told for facts in host.shards], names),
        await moves.read(client, names) if table is not None else None,
    )


@dataclass(frozen=True, slots=True)
class _Host:
    """What a host tells. ``hides``: there are users, and keys in its table."""

    replicas: list[Replica]
    shards: list[dict[str, Any]]
    table: Table | None
    hides: bool


async def _host(client: httpx.AsyncClient, url: str) -> _Host | None:
    """None: it tells nothing, or what this version does not read."""
    try:
        shards, placement = await asyncio.gather(
            client.get(f"{url}/muster/shards"), client.get(f"{url}/muster/placement")
        )
        if shards.status_code != 200 or placement.status_code != 200:
            return None
        told, where = shards.json(), placement.json()
        row = where.get("table")  # a host of before growth has none
        _growth(told["shards"], {})
        return _Host(
            [_replica(facts, str(told["name"])) for facts in told["shards"]],
            told["shards"],
            Table.decode(bytes.fromhex(row)) if row else None,
            row is None and where.get("generation", 0) > 0,
        )
    except _TROUBLE:
        return None


def _replica(facts: dict[str, Any], host: str) -> Replica:
    shard = int(facts["shard"])
    if not facts.get("up"):
        return Replica(shard, host, False)
    return Replica(
        shard,
        host,
        True,
        facts["role"],
        max(0, facts["keys"]),
        facts["size_bytes"],
        facts["order_index"],
        facts["cpu_share"],
    )


def _growth(facts: list[dict[str, Any]], names: dict[str, str]) -> Growth | None:
    """As the host says that has applied most of the order."""
    told = [one for one in facts if one["shard"] == 0 and one.get("up") and "growth" in one]
    if not told:
        return None
    newest = max(told, key=lambda one: one["order_index"])
    lacking = (names.get(one, one) for one in newest["growth_lacking"])
    return Growth(newest["growth"], newest["growth_known"], tuple(lacking))
