"""Locks and elections: keys under a prefix, one for each lease, in the order of their creation.

The keys are those of clientv3's package ``concurrency`` and of etcd's Lock and Election services:
``prefix/lease in hex``. The oldest key holds; each of the others waits for the key before its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from muster_client import lease as lease_module
from muster_client import ops, ranges
from muster_client.errors import LeaseLost, MusterError, NotHeld
from muster_client.lease import Lease, leaves, unless_lost
from muster_client.model import KeyValue, TxnResult, kv_of
from muster_client.ranges import Text
from muster_client.recipes import late
from muster_client.watch import Delete, Snapshot
from muster_client.wire import engine

if TYPE_CHECKING:
    from muster_client.client import Client

log = logging.getLogger("muster_client")
TTL_S = 60  # clientv3's
_ANSWERED_IN_S = 5.0  # a caller that leaves waits so long for the answer to its key


class Place:
    """A key in the line of a prefix, with a lease that is granted for it unless one is given. Its turn comes
    when fewer than ``_slots`` older keys are in the way."""

    _slots = 1

    def __init__(self, client: Client, name: Text, lease: Lease | None, ttl_s: int) -> None:
        self._client, self._given, self._ttl_s = client, lease, ttl_s
        self.prefix = ranges.data(name) + b"/"
        self._lease = lease
        self._revision = self._modified = 0  # of the key: of its creation, and of its last value
        self._stood = False  # in line, since it left it last
        self._unsure = False  # the key may be there, or yet come
        self._standing: asyncio.Task[TxnResult] | None = None  # puts it, under a lease that was given
        self._leaving: asyncio.Task[None] | None = None  # of a caller that was cancelled
        self._held = False
        self._gone = False  # its key was deleted while it was held, or is another's
        self._origin = engine.Origin()  # where it stood in line
        self._seen = 0  # the store's revision when its turn had come
        self._taken = threading.Lock()  # from the begin of an acquisition to the end of the release

    @property
    def key(self) -> bytes:
        """Of this holder. NotHeld before it stands in line."""
        if self._lease is None:
            raise NotHeld("it is not held")
        return self.prefix + self._suffix(self._lease)

    def _suffix(self, lease: Lease) -> bytes:
        """Of the key, behind the prefix. Of its own for each lease: a key that is there is this holder's."""
        return b"%x" % lease.id

    def _in_the_way(self) -> ranges.KeyRange:
        """Keys of which the older ones come first."""
        return ranges.prefix(self.prefix)

    @property
    def lease(self) -> Lease:
        """That it hangs on. NotHeld before it stands in line."""
        if self._lease is None:
            raise NotHeld("it is not held")
        return self._lease

    @property
    def token(self) -> int:
        """The fencing token: a revision, greater for each later holder. NotHeld."""
        if not self._held:
            raise NotHeld("it is not held")
        return self._revision

    @property
    def revision(self) -> int:
        """The store's, when its turn had come. NotHeld."""
        if not self._held:
            raise NotHeld("it is not held")
        return self._seen

    @property
    def held(self) -> ops.Condition:
        """The condition that fences a write: ``client.when(lock.held).then(...)``. It fails once another may
        hold it, whatever this process knows. NotHeld."""
        token = self.token
        return ops.key(self.key).create_revision == token

    @property
    def lost(self) -> bool:
        """It was never held, is given up, its lease is lost, or its key is known to be gone."""
        return not self._held or self._gone or self._lease is None or self._lease.lost

    async def _stand(self, value: bytes) -> bool:
        """Put the key, if it is not there; whether others come first."""
        if self._lease is None:
            self._lease = await self._client.lease(self._ttl_s)
        self._lease.check()
        self._origin = engine.Origin()
        self._revision, self._unsure, self._stood = 0, False, True
        await late.stands(self._client, self._lease, self.key)
        self._unsure = True
        if self._given is None:
            result = await self._put(self._lease, value)
        else:  # see _leave: it is not cancelled with its caller
            self._standing = asyncio.create_task(self._put(self._lease, value))
            result = await asyncio.shield(self._standing)
            self._standing = None
        if not result and (found := result.found(0).kv) is not None and found.value != value:
            await self._write(value)
        older = [kv for kv in result.found(1).kvs if kv.create_revision < self._revision]
        return len(older) >= self._slots

    async def _put(self, lease: Lease, value: bytes) -> TxnResult:
        """The key, if it is not there. Under a lease that stays, an attempt that lands late could put it when
        this is out of the line: there is one."""
        oldest = ops.get(self._in_the_way(), sort="create", limit=self._slots)
        try:
            result = await self._client.txn(
                ops.when(ops.key(self.key).absent)
                .then(ops.put(self.key, value, lease=lease), oldest)
                .otherwise(ops.get(self.key), oldest), repeatable=self._given is None)
        except MusterError as error:
            self._unsure = error.maybe_done
            raise
        found = None if result else result.found(0).kv
        self._revision = self._modified = self._seen = result.revision
        if found is not None:
            self._revision, self._modified = found.create_revision, found.mod_revision
        self._unsure = False
        return result

    async def _write(self, value: bytes) -> None:
        """Give the key another value. NotHeld if it is gone, or another's. An attempt that lands late writes
        over no newer value: each names the one before it."""
        revision, own, sent, turns = self._revision, ops.key(self.key), list[None](), 0
        while True:
            turns += 1
            result = await self._client.txn(
                ops.when(own.create_revision == revision, own.mod_revision == self._modified)
                .then(ops.put(self.key, value, lease=self.lease)).otherwise(ops.get(self.key)),
                repeatable=True, on_send=lambda: sent.append(None))
            if result:
                self._modified = result.revision
                return
            kv = result.found().kv
            if kv is None or kv.create_revision != revision:
                raise NotHeld("it is not held any more", maybe_done=len(sent) > turns)
            self._modified = kv.mod_revision
            if kv.value == value:  # an earlier attempt did it
                return

    async def _turn(self) -> None:
        """Wait until no older key is there. LeaseLost."""
        await unless_lost(self.lease, self._older_gone())
        found = (await self._client.when().then(ops.get(self.key))).found()
        if found.kv is None or found.kv.create_revision != self._revision:
            raise LeaseLost("the lease ended during the wait")
        self._seen = found.revision

    async def _older_gone(self) -> None:
        line = self._in_the_way()
        while True:
            newest = ops.get(line, sort="create", descending=True, limit=self._slots,
                             max_create=self._revision - 1)
            found = (await self._client.when().then(newest)).found()
            if len(found.kvs) < self._slots:
                return
            keys = found.kvs[0].key if self._slots == 1 else line
            async with self._client.watch(keys, revision=found.revision + 1, snapshots=True) as watch:
                async for event in watch:
                    if isinstance(event, Delete | Snapshot):
                        break

    async def _enter(self, value: bytes, wait: bool) -> bool:
        """Hold it; whether that is so: not, only if it does not wait. RuntimeError if it is taken already:
        this object has one key, so that two tasks would hold at once."""
        await self._left_before()
        if not self._taken.acquire(blocking=False):
            raise RuntimeError("it is held already, or being acquired: each task needs an object of its own")
        try:
            self._held, self._gone = await self._acquired(value, wait), False
        finally:
            if self._leaving is not None and not self._leaving.done():  # its caller was cancelled again
                self._leaving.add_done_callback(lambda _: self._taken.release())
            elif not self._held:
                self._taken.release()
        return self._held

    async def _left_before(self) -> None:
        """Wait until an acquisition that was given up is out of the line, in this loop."""
        leaving = self._leaving
        if leaving is not None and not leaving.done() and leaving.get_loop() is asyncio.get_running_loop():
            await asyncio.wait((leaving,))

    async def _acquired(self, value: bytes, wait: bool) -> bool:
        try:
            if await self._stand(value):
                if not wait:
                    await self._depart()
                    return False
                await self._turn()
            self.lease.check()  # the answer may have come behind its loss: nothing renews it any more
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError)
            with contextlib.suppress(MusterError, TimeoutError):  # it is logged, or goes on
                async with asyncio.timeout(lease_module.LEFT_IN_S if cancelled else None):
                    await self._depart()
            raise
        return True

    async def _depart(self) -> None:
        """Out of the line; this goes on where its caller is cancelled."""
        if self._leaving is None or self._leaving.done():
            self._leaving = asyncio.create_task(self._leave())
            self._leaving.add_done_callback(self._departed)
        await asyncio.shield(self._leaving)

    def _departed(self, leaving: asyncio.Task[None]) -> None:
        """Its caller may be cancelled once more, and then takes no error."""
        if not leaving.cancelled() and (error := leaving.exception()) is not None:
            log.warning(
                "%r stays in the line until it can be deleted, or its lease ends: %s", self.prefix, error)

    async def _give_up(self) -> None:
        """Out of the line, if it stands there, also where the caller is cancelled: others wait. Then they may
        take this object."""
        held, self._held = self._held, False
        leaving = asyncio.create_task(self._leave())
        if held:
            self._leaving = leaving

        def left(done: asyncio.Future[None]) -> None:
            if held:
                self._taken.release()
            if not done.cancelled():
                done.exception()  # perhaps nobody waits for it any more

        leaving.add_done_callback(left)
        await asyncio.shield(leaving)

    async def _leave(self) -> None:
        """Out of the line; the lease ends, unless it was given."""
        if self._lease is None:
            return
        lease, key = self._lease, self.key
        self._lease = self._given
        if self._given is None:
            await lease.revoke()  # and with it the key
            return
        with late.leaving(self._client, lease, key):
            await self._left(lease, key)

    async def _left(self, lease: Lease, key: bytes) -> None:
        """Out of the line of a lease that stays."""
        if not self._stood:
            return  # a key of this name is another's
        self._stood = False
        if self._standing is not None:  # what is deleted before it comes would stay
            await asyncio.wait((self._standing,), timeout=_ANSWERED_IN_S)
            self._standing.cancel()
            await asyncio.gather(self._standing, return_exceptions=True)
            self._standing = None
        unsure, self._unsure = self._unsure, False
        try:
            await late.left(self._client, lease, key, self._revision, unsure=unsure)
        except MusterError:
            self._stood = True  # it may be given up once more
            raise


class Lock(Place):
    """One holder at a time, over all processes. In ``async with`` it is held.

    A holder whose lease is lost may not know it yet: fence what it writes, by :attr:`held` or :attr:`token`.
    Each task needs an object of its own: RuntimeError where one is held, or being acquired, already.
    """

    async def acquire(self) -> Self:
        """Wait for it. LeaseLost if the lease ends meanwhile; a caller that is cancelled leaves the line."""
        await self._enter(b"", True)
        return self

    async def try_acquire(self) -> bool:
        """Take it, if nobody holds it."""
        return await self._enter(b"", False)

    async def release(self) -> None:
        """Give it up; nothing if it is not held. MusterError: others wait until it can be deleted, or
        its lease ends."""
        await self._give_up()

    async def __aenter__(self) -> Self:
        return await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._origin.is_parent:  # else that stands in line
            await leaves(self.release(), error)


class Leadership(Place):
    """A candidate's place in an election; in ``async with`` it leads."""

    def __init__(self, client: Client, name: Text, value: bytes, lease: Lease | None, ttl_s: int) -> None:
        super().__init__(client, name, lease, ttl_s)
        self._value = value

    async def campaign(self) -> Self:
        """Wait until it leads. LeaseLost."""
        await self._enter(self._value, True)
        return self

    async def proclaim(self, value: Text) -> None:
        """Change what the leader says of itself. NotHeld if it leads no more."""
        if not self._held:
            raise NotHeld("it is not held")
        try:
            await self._write(ranges.data(value))
        except NotHeld:
            if self._held:
                self._held = False
                self._taken.release()
            raise

    async def resign(self) -> None:
        """Lead no more; nothing if it does not. MusterError: others wait until its key can be deleted, or its
        lease ends."""
        await self._give_up()

    async def __aenter__(self) -> Self:
        return await self.campaign()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._origin.is_parent:  # else that stands in line
            await leaves(self.resign(), error)


async def is_lost(leadership: Leadership) -> bool:
    """Whether it leads no more, also where only the store knows. Without an answer: what is known here."""
    if not leadership.lost:
        with contextlib.suppress(MusterError):
            client, token = leadership._client, leadership.token
            found = (await client.when().then(ops.get(leadership.key))).found()
            if found.kv is None or found.kv.create_revision != token:
                leadership._gone = True
    return leadership.lost


async def until_lost(leadership: Leadership, lease: Lease) -> None:
    """Wait until its key is deleted, or its lease is lost; for the latter alone where the key may not be
    watched."""
    try:
        await unless_lost(lease, _deleted(leadership, leadership.prefix + leadership._suffix(lease)))
    except MusterError as error:
        if not lease.lost:
            log.warning("%r: only the lease tells of the leadership's end: %s", leadership.prefix, error)
        await lease.wait_lost()
    leadership._gone = True  # its token stays readable for the work that ends


async def _deleted(leadership: Leadership, key: bytes) -> None:
    seen = leadership._seen
    async with leadership._client.watch(key, revision=seen + 1, snapshots=True) as watch:
        async for event in watch:
            if isinstance(event, Delete) or (isinstance(event, Snapshot) and await is_lost(leadership)):
                return


class Election:
    """One leader among candidates, and tasks that watch it."""

    def __init__(self, client: Client, name: Text) -> None:
        self._client, self._name = client, name
        self._line = ranges.prefix(ranges.data(name) + b"/")

    def campaign(self, value: Text, *, lease: Lease | None = None, ttl: int = TTL_S) -> Leadership:
        """Stand as a candidate: ``async with``, or :meth:`Leadership.campaign`."""
        return Leadership(self._client, self._name, ranges.data(value), lease, ttl)

    async def leader(self) -> KeyValue | None:
        """The leader's key, its value and token (``create_revision``); None: nobody leads."""
        oldest = await self._client.when().then(ops.get(self._line, sort="create", limit=1))
        return oldest.found().kv

    async def observe(self) -> AsyncGenerator[KeyValue, None]:
        """The leader, and each other one or proclamation; those that follow each other too fast are left
        out."""
        last: KeyValue | None = None
        async with contextlib.aclosing(self._client.raw.observe(self._name)) as told:
            async for found in told:
                if (leader := kv_of(found.kvs[0])) != last:
                    yield (last := leader)
