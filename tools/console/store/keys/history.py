"""What a key was: its changes that the store still keeps."""

from __future__ import annotations

from dataclasses import dataclass

import muster_client as m
from muster_client import Client, Compacted, KeyValue

from tools.console.store.hub import events_since

MOST = 200  # revisions of a key that are shown


@dataclass(frozen=True, slots=True)
class Revision:
    """A change of a key; ``kv`` None: it was deleted."""

    revision: int
    kv: KeyValue | None


@dataclass(frozen=True, slots=True)
class History:
    """Changes of a key, the latest first. ``oldest``: from which revision on the store keeps changes;
    ``whole``: all changes since then are here."""

    revisions: tuple[Revision, ...]
    oldest: int
    whole: bool


async def oldest_revision(client: Client, key: bytes) -> int:
    """The first revision that can be read: the store was compacted there, or 1. Found by halves: no request
    of etcd's API tells it. The reads are of a key that the user may read."""
    low, high, middle = 1, await _revision(client, key), 1
    while low < high:
        try:
            await client.count(key, revision=middle)
        except Compacted:
            low = middle + 1
        else:
            high = middle
        middle = (low + high) // 2
    return low


async def _revision(client: Client, key: bytes) -> int:
    pages = client.range(key, keys_only=True)
    await pages.next()
    return pages.revision


async def of_key(client: Client, key: bytes, *, most: int = MOST) -> History:
    """A key's changes. Those of a watch from the compaction on; what was written before it is known by one
    read at the compaction's revision."""
    oldest = await oldest_revision(client, key)
    now = await client.get(key)
    events, whole = await events_since(
        client, m.ranges.of(key), oldest, until=None if now is None else now.mod_revision, most=most
    )
    found = [
        Revision(event.revision, event.kv if isinstance(event, m.Put) else None)
        for event in events
        if isinstance(event, m.Put | m.Delete)
    ]
    if (
        len(found) < most
        and (first := await _at(client, key, oldest)) is not None
        and (not found or first.mod_revision < found[0].revision)
    ):
        found.insert(0, Revision(first.mod_revision, first))
    return History(tuple(reversed(found)), oldest, whole and len(found) < most)


async def _at(client: Client, key: bytes, revision: int) -> KeyValue | None:
    try:
        return await client.get(key, revision=revision)
    except Compacted:
        return None
