"""Keys under a lease that stays, which may come late or go late: by a request that got no answer.

Where an owner leaves, its key is deleted. If a put of it got no answer, that may be done behind the deletion,
and would keep others out until the lease ends. So it is waited for, for minutes, and deleted again. A
deletion that fails is tried again until the lease ends. If this process dies meanwhile, the lease ends.

That such a put may come is remembered with the lease as long. An owner that stands in line again takes
whatever comes for its own, and it is waited for once more when that owner leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING

from muster_client import ops
from muster_client.errors import MusterError
from muster_client.lease import Lease, unless_lost
from muster_client.model import KeyValue
from muster_client.watch import Event, Put, Snapshot
from muster_client.wire import engine
from muster_client.wire.retries import is_final

if TYPE_CHECKING:
    from muster_client.client import Client

log = logging.getLogger("muster_client")
_AGAIN_S = 1.0
_COMES_IN_S = 300.0  # a put without an answer: servers give it 7 s, but systems send on for minutes


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


def _name(client: Client, key: bytes) -> bytes:
    """Of the key in the whole store: namespaces share leases."""
    space = client._caller.space
    return key if space is None else space.begin + key


async def left(client: Client, lease: Lease, key: bytes, created: int, *, unsure: bool) -> None:
    """The owner leaves. ``created``: the revision of its key, 0: not known; ``unsure``: a put of it may yet
    be done. MusterError: it is deleted later."""
    unsure = unsure or _name(client, key) in lease.late
    revision = 0
    try:
        if unsure:
            revision = await deleted(client, key)
        elif created:
            await client.txn(
                ops.when(ops.key(key).create_revision == created).then(ops.delete(key)), repeatable=True)
    except BaseException:
        _expect(client, lease, key, 0)
        raise
    if unsure:
        _expect(client, lease, key, revision)


@contextlib.contextmanager
def leaving(client: Client, lease: Lease, key: bytes) -> Iterator[None]:
    """In the block the owner leaves, perhaps behind its caller, which may stand in line again meanwhile."""
    ended = Future[None]()
    one = (_name(client, key), ended)
    lease.leaving.append(one)
    try:
        yield
    finally:
        lease.leaving.remove(one)
        ended.set_result(None)


async def stands(client: Client, lease: Lease, key: bytes) -> None:
    """The owner stands in line again: what comes from now on is its own, whichever put it was."""
    own = _name(client, key)
    while named := [ended for name, ended in lease.leaving if name == own]:
        for ended in named:
            await asyncio.shield(asyncio.wrap_future(ended))
    if (waiting := lease.late.get(own)) is not None:
        with leaving(client, lease, key):  # others of this name stand behind it: their keys are not meant
            lease.late[own] = None
            waiting.cancel()
            try:
                await engine.run(asyncio.sleep(0))  # behind the cancellation: it sees no other key
                await deleted(client, key)  # one that it has seen may be about to be deleted
            except BaseException:
                _expect(client, lease, key, 0)
                raise


def _expect(client: Client, lease: Lease, key: bytes, revision: int) -> None:
    """Delete the key should it come behind a revision; 0: it may be there."""
    own = _name(client, key)
    waiting = lease.late.get(own)
    if (waiting is None or waiting.done()) and not engine.has_ended():
        lease.late[own] = engine.submit(_waited(client, lease, key, revision))


async def _waited(client: Client, lease: Lease, key: bytes, revision: int) -> None:
    try:
        await unless_lost(lease, _deleted(client, key, revision))
    except MusterError as error:
        log.info("stopped waiting for %r: %s", key, error)
    else:  # before this is done: until then no other waits for it
        lease.late.pop(_name(client, key), None)


def _there(event: Event) -> tuple[KeyValue, ...]:
    """As an event tells it."""
    if isinstance(event, Snapshot):
        return event.kvs
    return (event.kv,) if isinstance(event, Put) else ()


async def _deleted(client: Client, key: bytes, revision: int) -> None:
    over = False
    while True:
        try:
            revision = revision or await deleted(client, key)
            if over:
                return
            watched = client.watch(key, revision=revision + 1, snapshots=True)
            async with asyncio.timeout(_COMES_IN_S), watched as watch:
                async for event in watch:
                    for kv in _there(event):
                        log.warning("%r was put too late and is deleted", key)
                        await client.txn(ops.when(ops.key(key).create_revision == kv.create_revision)
                                         .then(ops.delete(key)), repeatable=True)
        except MusterError as error:
            if client.closed or is_final(error):
                raise
            log.info("%r: not deleted yet: %s", key, error)
            revision = 0
        except TimeoutError:
            over, revision = True, 0
        await asyncio.sleep(_AGAIN_S)
