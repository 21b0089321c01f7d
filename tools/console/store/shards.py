"""Muster's shards, as each host tells of its own replicas. A store without shards tells nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from muster_client import Tls

from tools.console.store import web
from tools.console.store.cluster import Member

_ASKED_S = 2.0


@dataclass(frozen=True, slots=True)
class Replica:
    """A host's replica of a shard; of one that is down only these are known: shard and host."""

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


async def replicas(members: Sequence[Member], tls: Tls | None) -> tuple[Replica, ...]:
    """All replicas, by shard and host; none if the members are etcd's."""
    urls = [one.client_urls[0] for one in members if one.client_urls and not one.error]
    async with web.client(tls, _ASKED_S) as client:
        told = await asyncio.gather(*(_asked(client, url) for url in urls))
    found = (_replica(facts, host) for host, rows in told for facts in rows)
    return tuple(sorted(found, key=lambda one: (one.shard, one.host)))


async def _asked(client: httpx.AsyncClient, url: str) -> tuple[str, list[dict[str, Any]]]:
    try:
        answer = await client.get(f"{url}/muster/shards")
        if answer.status_code != 200:
            return "", []
        told = answer.json()
        return told["name"], told["shards"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError):
        return "", []


def _replica(facts: dict[str, Any], host: str) -> Replica:
    if not facts.get("up"):
        return Replica(facts["shard"], host, False)
    return Replica(
        facts["shard"],
        host,
        True,
        facts["role"],
        max(0, facts["keys"]),
        facts["size_bytes"],
        facts["order_index"],
        facts["cpu_share"],
    )
