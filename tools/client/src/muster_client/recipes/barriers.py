"""Barriers: clients wait until it opens; or until all are there, and until all are done."""

from __future__ import annotations

import asyncio
import secrets
from types import TracebackType
from typing import TYPE_CHECKING, Self

from muster_client import ops, ranges
from muster_client.errors import LeaseLost, NotHeld, Taken
from muster_client.lease import Lease, briefly, leaves, to_its_end, unless_lost, whole
from muster_client.model import KeyValue
from muster_client.ranges import Text
from muster_client.recipes import late
from muster_client.watch import Delete, Put, Snapshot
from muster_client.wire import engine

if TYPE_CHECKING:
    from muster_client.client import Client

_LOOKS, _AGAIN_S = 3, 4.0  # for a put that was cancelled: a server gives it up within 7 s


class Barrier:
    """One key: others wait while it is there. It is Go's ``Barrier``. In ``async with`` it is held; what is
    closed by another at the block's end stays so."""

    def __init__(self, client: Client, name: Text) -> None:
        self._client, self.key = client, ranges.of(ranges.data(name)).start
        self._token, self._origin = 0, engine.Origin()

    @property
    def token(self) -> int:
        """The revision at which this object closed it. NotHeld."""
        if not self._token:
            raise NotHeld("it is not held")
        return self._token

    @property
    def held(self) -> ops.Condition:
        """The condition that fences a write: it fails once another has opened it. NotHeld."""
        return ops.key(self.key).create_revision == self.token

    async def hold(self, *, lease: Lease | None = None) -> Self:
        """Close it. Taken. With ``lease`` it opens when that ends."""
        own = secrets.token_bytes(16)
        try:  # not tried twice: an attempt that lands behind release() would close it again
            result = await self._client.txn(
                ops.when(ops.key(self.key).absent).then(ops.put(self.key, own, lease=lease or 0)))
        except BaseException as error:
            if getattr(error, "maybe_done", True):  # a cancelled put, too
                await briefly(self._opened(own))
            raise
        if not result:
            raise Taken("the barrier is held already")
        self._token, self._origin = result.revision, engine.Origin()
        return self

    async def _opened(self, own: bytes, looks: int = _LOOKS) -> None:
        """Nobody else opens what this closed without an answer, perhaps only behind the first look."""
        opened = False
        try:
            opened = bool(await self._client.txn(
                ops.when(ops.key(self.key).value == own).then(ops.delete(self.key)), repeatable=True))
        finally:
            if not opened and looks > 1 and not engine.has_ended():
                engine.submit(self._opened_later(own, looks - 1))

    async def _opened_later(self, own: bytes, looks: int) -> None:
        await asyncio.sleep(_AGAIN_S)
        await self._opened(own, looks)

    async def release(self) -> None:
        """Open it, also where another closed it."""
        await self._open(0)
        self._token = 0

    async def _open(self, token: int) -> None:
        """As it is found, and where it was closed at that revision, unless that is 0. What is closed next is
        another's: an attempt without an answer may have opened this."""
        kv = (await self._client.when().then(ops.get(self.key))).found().kv
        if kv is not None and token in (0, kv.create_revision):
            await self._client.txn(
                ops.when(ops.key(self.key).create_revision == kv.create_revision).then(ops.delete(self.key)),
                repeatable=True)

    async def wait(self) -> None:
        """Wait until it is open."""
        while True:
            found = (await self._client.when().then(ops.get(self.key))).found()
            if found.kv is None:
                return
            async with self._client.watch(self.key, revision=found.revision + 1, snapshots=True) as watch:
                async for event in watch:
                    if isinstance(event, Delete):
                        return
                    if isinstance(event, Snapshot):
                        break

    async def __aenter__(self) -> Self:
        return await self.hold()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        token, self._token = self._token, 0
        if token and not self._origin.is_parent:
            await leaves(whole(self._open(token)), error)


class DoubleBarrier:
    """``count`` take part: nobody passes :meth:`enter` before all are there, nor :meth:`leave` before all
    leave. It is Go's ``DoubleBarrier``. In ``async with`` one is inside. One that dies is counted out when
    its lease ends."""

    def __init__(self, client: Client, name: Text, count: int, lease: Lease | None, ttl_s: int) -> None:
        if count < 1:
            raise ValueError("one takes part at least")
        self._client, self._count, self._given, self._ttl_s = client, count, lease, ttl_s
        self._name = ranges.data(name)
        self._line, self._ready = ranges.prefix(self._name + b"/waiters"), self._name + b"/ready"
        self._lease: Lease | None = None
        self._key = b""
        self._revision = self._opened = 0
        self._unsure = False  # whether the own key may come yet
        self._origin = engine.Origin()

    @property
    def token(self) -> int:
        """The revision at which all were there: the same for all, greater for each later time. NotHeld."""
        if not self._opened:
            raise NotHeld("it is not entered")
        return self._opened

    @property
    def held(self) -> ops.Condition:
        """The condition that fences a write: it fails once this one is counted out. NotHeld."""
        if not self._opened:
            raise NotHeld("it is not entered")
        return ops.key(self._key).create_revision == self._revision

    async def enter(self) -> Self:
        """Wait until all are there. Taken if they are without this one; LeaseLost."""
        if self._lease is not None:
            raise RuntimeError("it is entered already: each participant needs an object of its own")
        self._lease = lease = self._given or await self._client.lease(self._ttl_s)
        self._origin = engine.Origin()
        self._key = self._name + f"/waiters/{lease.id:x}-{secrets.token_hex(4)}".encode()
        self._revision, self._unsure = 0, True
        try:
            put = await self._client.txn(
                ops.when(ops.key(self._key).absent).then(ops.put(self._key, b"", lease=lease))
                .otherwise(ops.get(self._key)), repeatable=self._given is None)
            self._unsure = False
            kv = None if put else put.found().kv
            self._revision = kv.create_revision if kv is not None else put.revision
            self._opened = await unless_lost(lease, self._all_there())
        except BaseException:
            await briefly(self._out())
            raise
        return self

    async def _all_there(self) -> int:
        """Wait for it; the revision at which it was so."""
        waiters = ops.get(self._line, sort="create")
        ready, own = ops.key(self._ready), ops.key(self._key)
        while True:
            result = await self._client.when().then(ops.get(self._ready), waiters)
            opened, there = result.found(0).kv, result.found(1).kvs
            if opened is not None and opened.mod_revision > self._revision:
                if opened.value.isdigit() and int(opened.value) < self._revision:  # Go's clients say nothing
                    raise self._full()
                return opened.mod_revision
            line = [kv.create_revision for kv in there][: self._count]
            if not any(kv.create_revision == self._revision for kv in there):
                raise LeaseLost("the lease ended during the wait")
            if len(line) == self._count:
                if self._revision not in line:
                    raise self._full()
                # the one that sees it says so, once, and up to which: the last one may have died
                done = await self._client.txn(
                    ops.when(own.create_revision == self._revision, ready.mod_revision < self._revision)
                    .then(ops.put(self._ready, str(line[-1]))), repeatable=True)
                if done:
                    return done.revision
                continue
            keys = ranges.prefix(self._name + b"/")
            async with self._client.watch(keys, revision=result.revision + 1, snapshots=True) as watch:
                async for event in watch:
                    if isinstance(event, Put | Snapshot):
                        break

    def _full(self) -> Taken:
        return Taken(f"{self._count} take part without this one")

    async def leave(self) -> None:
        """Wait until all leave; nothing if it is not entered."""
        if self._lease is None:
            return
        try:
            while True:
                kvs, revision = await self._others()
                if not kvs:
                    break
                lowest = min(kvs, key=lambda kv: kv.mod_revision)
                highest = max(kvs, key=lambda kv: kv.mod_revision)
                if lowest.key != self._key:
                    await late.deleted(self._client, self._key)
                    await self._gone(lowest.key, revision)
                elif len(kvs) > 1:
                    await self._gone(highest.key, revision)
                else:
                    # of this round: the next one's comes behind what was read
                    await self._client.txn(
                        ops.when(ops.key(self._ready).mod_revision < revision + 1)
                        .then(ops.delete(self._ready)), repeatable=True)
                    break
        except BaseException:
            await briefly(self._out())
            raise
        await to_its_end(self._out())

    async def _others(self) -> tuple[list[KeyValue], int]:
        """The clients that entered together and are still inside, with this one, and the revision of that."""
        pages = self._client.range(self._line)
        return [kv async for kv in pages if kv.create_revision <= self._opened], pages.revision

    async def _gone(self, key: bytes, revision: int) -> None:
        """Wait until a key is deleted, or perhaps so, behind a revision."""
        async with self._client.watch(key, revision=revision + 1, snapshots=True) as watch:
            async for event in watch:
                if isinstance(event, Delete | Snapshot):
                    return

    async def _out(self) -> None:
        """The own key goes, and the lease, unless it was given."""
        lease, self._lease, self._opened = self._lease, None, 0
        if lease is not None and self._given is None:
            await lease.revoke()
        elif lease is not None:
            await late.left(self._client, lease, self._key, self._revision, unsure=self._unsure)

    async def __aenter__(self) -> Self:
        return await self.enter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._origin.is_parent:  # that is inside
            return
        if error is None:
            await self.leave()
        else:  # the others shall not wait for one that failed
            await to_its_end(self._out())
