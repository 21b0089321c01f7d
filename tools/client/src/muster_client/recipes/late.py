"""Keys that may come late: put under a lease that stays, by a request that got no answer.

The key was deleted when its owner left, but the put may be done behind that, and would keep others out until
the lease ends. So it is waited for, as long as the lease lives, and deleted again. If this process dies
meanwhile, the lease ends.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from muster_client import ops
from muster_client.errors import MusterError
from muster_client.lease import Lease, unless_lost
from muster_client.watch import Put, Snapshot
from muster_client.wire import engine

if TYPE_CHECKING:
    from muster_client.client import Client

log = logging.getLogger("muster_client")


async def deleted(client: Client, key: bytes) -> int:
    """Delete the key, if it is there; a revision at which it was not. Each attempt names the key that it
    found, so that one that lands late deletes no later one."""
    while True:
        found = (await client.when().then(ops.get(key))).found()
        if found.kv is None:
            return found.revision
        result = await client.txn(
            ops.when(ops.key(key).create_revision == found.kv.create_revision).then(ops.delete(key)),
            repeatable=True)
        if result:
            return result.revision


def expect(client: Client, lease: Lease, key: bytes, revision: int) -> None:
    """Delete the key should it come behind a revision."""
    lease.late[key] = engine.submit(_waited(client, lease, key, revision))


async def expect_no_more(client: Client, lease: Lease, key: bytes) -> None:
    """The owner stands in line again: what comes from now on is its own, whichever put it was."""
    if (waiting := lease.late.pop(key, None)) is not None:
        waiting.cancel()
        await engine.run(asyncio.sleep(0))  # behind the cancellation: it sees no other key
        await deleted(client, key)  # one that it has seen may be about to be deleted


async def _waited(client: Client, lease: Lease, key: bytes, revision: int) -> None:
    try:
        await unless_lost(lease, _deleted(client, key, revision))
    except MusterError as error:
        log.info("stopped waiting for %r: %s", key, error)


async def _deleted(client: Client, key: bytes, revision: int) -> None:
    async with client.watch(key, revision=revision + 1, snapshots=True) as watch:
        async for event in watch:
            kvs = event.kvs if isinstance(event, Snapshot) else (event.kv,) if isinstance(event, Put) else ()
            for kv in kvs:
                log.warning("%r was put too late and is deleted", key)
                await client.txn(ops.when(ops.key(key).create_revision == kv.create_revision)
                                 .then(ops.delete(key)), repeatable=True)
