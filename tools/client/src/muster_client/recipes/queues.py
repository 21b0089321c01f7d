"""Queues: each item to one taker."""

from __future__ import annotations

import asyncio
import secrets
import time
from types import TracebackType
from typing import TYPE_CHECKING

from muster_client import ops, ranges
from muster_client.errors import MusterError, NotHeld
from muster_client.lease import Lease, briefly, to_its_end, unless_lost
from muster_client.model import KeyValue
from muster_client.ranges import Text, data
from muster_client.watch import Delete, Put, Snapshot, Watch

if TYPE_CHECKING:
    from muster_client.client import Client

_LOOKED_AT = 8  # items that one read fetches: another taker may be first at the first ones
PRIORITIES = 1 << 16
TAKE_TTL_S = 10  # how long an item waits for the next taker where one has died


class Item:
    """An item that is taken, until its block ends. ``token``: a revision, greater for each later take of the
    same item."""

    def __init__(self, items: _Items, kv: KeyValue, lease: Lease, claim: bytes, token: int) -> None:
        self.kv, self.lease, self.token = kv, lease, token
        self._items, self._claim = items, claim
        self.finished = self._perhaps = False  # ``_perhaps``: by a call that failed

    @property
    def value(self) -> bytes:
        return self.kv.value

    @property
    def text(self) -> str:
        """The value, from UTF-8."""
        return self.kv.text

    @property
    def held(self) -> ops.Condition:
        """The condition that fences a write: it fails once another may take the item."""
        return ops.key(self._claim).create_revision == self.token

    async def finish(self, *done: ops.Op | ops.Txn) -> None:
        """Take the item out, and do some operations in the same step: once, whatever dies. NotHeld if another
        may have taken it: nothing is done, unless it has ``maybe_done``. A block that does not call it ends
        with it."""
        if self.finished:
            raise RuntimeError("the item is finished already")
        await self._items._finish(self, done)
        self.finished = True


class Take:
    """The first item, for ``async with``. It stays in its place, claimed under a lease, and goes when the
    block has ended well: NotHeld if another may have taken it. Where the block fails, or its process dies,
    the item is another's to take.

    So each item is worked on once at least; what is written by :meth:`Item.finish` is written once.
    """

    def __init__(self, items: _Items, ttl_s: int) -> None:
        self._items, self._ttl_s = items, ttl_s
        self._item: Item | None = None

    async def __aenter__(self) -> Item:
        lease = await self._items._client.lease(self._ttl_s)
        try:
            self._item = await unless_lost(lease, self._items._claimed(lease))
        except BaseException:
            await briefly(lease.revoke())
            raise
        return self._item

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        item, self._item = self._item, None
        if item is None or item.lease._origin.is_parent:
            return
        try:
            if error is None and not item.finished:
                await item.finish()
        finally:
            await to_its_end(item.lease.revoke())


class _Items:
    """Items under a prefix; ``sort``: which one comes first. Claims lie beside them, where Go's takers do not
    look: one of Go may take an item that is claimed."""

    def __init__(self, client: Client, name: bytes, sort: ops.Sort) -> None:
        self._client, self._name, self._sort = client, name, sort
        self._keys = ranges.prefix(name + b"/")
        self._claims = b"__claims/" + name + b"/"

    def take(self, *, ttl: int = TAKE_TTL_S) -> Take:
        """Take the first item, waited for, so that it is not lost: for ``async with``."""
        return Take(self, ttl)

    async def get(self) -> KeyValue:
        """Take the first item for good, waited for. ``mod_revision`` is its token. Where a MusterError has
        ``maybe_done``, or this is cancelled, an item may be taken and lost: :meth:`take` loses none."""
        while True:
            free, revision = await self._free()
            if (kv := await self._taken(free)) is not None:
                return kv
            if not free:
                await self._more(revision)

    async def get_nowait(self) -> KeyValue | None:
        """Take the first item for good; None where there is none. It may lose one as :meth:`get`."""
        while True:
            free, _ = await self._free()
            kv = await self._taken(free)
            if kv is not None or not free:
                return kv

    async def size(self) -> int:
        """How many items there are, with those that are claimed."""
        return await self._client.count(self._keys)

    async def _claimed(self, lease: Lease) -> Item:
        """The first item that is free, claimed."""
        while True:
            free, revision = await self._free()
            for kv in free:
                claim = self._claim(kv.key)
                # not tried twice: without an answer the lease ends, and the claim with it
                result = await self._client.when(*self._is_free(kv)).then(ops.put(claim, b"", lease=lease))
                if result:
                    return Item(self, kv, lease, claim, result.revision)
            if not free:
                await self._more(revision)

    async def _finish(self, item: Item, done: tuple[ops.Op | ops.Txn, ...]) -> None:
        """Delete the item with its claim, for its taker. NotHeld."""
        there = ops.key(item.kv.key).mod_revision == item.kv.mod_revision
        claim = self._claim(item.kv.key)
        txn = ops.when(item.held, there).then(ops.delete(item.kv.key), ops.delete(claim), *done).otherwise(
            ops.get(item.kv.key), ops.get(claim))
        sent: list[None] = []
        try:
            result = await self._client.txn(txn, repeatable=True, on_send=lambda: sent.append(None))
        except MusterError as error:
            item._perhaps |= error.maybe_done
            raise
        except asyncio.CancelledError:
            item._perhaps |= bool(sent)
            raise
        if result:
            return
        kv, claimed = result.found(0).kv, result.found(1).kv
        # by their revisions: a priority queue gives a key again
        left = (kv is not None and kv.mod_revision == item.kv.mod_revision) or (
            claimed is not None and claimed.create_revision == item.token)
        perhaps = not left and (len(sent) > 1 or item._perhaps)
        if not perhaps or item.lease.lost:
            raise NotHeld("another has taken the item, or may take it", maybe_done=perhaps)
        # an earlier attempt did it: its lease holds, and both are gone

    def _claim(self, key: bytes) -> bytes:
        return self._claims + key[len(self._name) + 1:]

    def _is_free(self, kv: KeyValue) -> tuple[ops.Condition, ops.Condition]:
        return ops.key(kv.key).mod_revision == kv.mod_revision, ops.key(self._claim(kv.key)).absent

    async def _free(self) -> tuple[list[KeyValue], int]:
        """The first items that nobody has claimed, and the revision of that."""
        limit = _LOOKED_AT
        while True:
            result = await self._client.when().then(
                ops.get(self._keys, sort=self._sort, limit=limit),
                ops.get(ranges.prefix(self._claims), keys_only=True))
            items, claims = result.found(0).kvs, {kv.key for kv in result.found(1).kvs}
            free = [kv for kv in items if self._claim(kv.key) not in claims]
            if free or len(items) < limit:
                return free, result.revision
            limit *= 2

    async def _taken(self, free: list[KeyValue]) -> KeyValue | None:
        """The first of these that is taken for good here; None: others were quicker with all of them."""
        for kv in free:
            if await self._client.when(*self._is_free(kv)).then(ops.delete(kv.key)):
                return kv
        return None

    async def _more(self, revision: int) -> None:
        """Wait for an item, or the end of a claim, behind a revision."""
        async with (
            self._client.watch(self._keys, revision=revision + 1, snapshots=True) as items,
            self._client.watch(ranges.prefix(self._claims), revision=revision + 1, snapshots=True) as claims,
        ):
            waits = [asyncio.ensure_future(_event(items, Put)), asyncio.ensure_future(_event(claims, Delete))]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in waits:
                    one.cancel()
                told = await asyncio.gather(*waits, return_exceptions=True)
        for met in told:
            if isinstance(met, MusterError):
                raise met


async def _event(watch: Watch, kind: type[Put] | type[Delete]) -> None:
    async for event in watch:
        if isinstance(event, kind | Snapshot):
            return


class Queue(_Items):
    """First in, first out; the keys are those of Go's ``Queue``."""

    def __init__(self, client: Client, name: Text) -> None:
        super().__init__(client, data(name), "mod")

    async def put(self, value: Text) -> int:
        """Append; the item's token. Where a MusterError has ``maybe_done``, it may be there."""
        while True:
            key = self._name + f"/{time.time_ns()}{secrets.randbelow(1000):03}".encode()
            result = await self._client.when(ops.key(key).absent).then(ops.put(key, value))
            if result:
                return result.revision


class PriorityQueue(_Items):
    """The lowest priority first, then first in, first out; the keys are those of Go's ``PriorityQueue``."""

    def __init__(self, client: Client, name: Text) -> None:
        super().__init__(client, data(name), "key")

    async def put(self, value: Text, priority: int = 0) -> int:
        """Add, with a priority from 0 to 65535; the item's token. ValueError. Where a MusterError has
        ``maybe_done``, it may be there."""
        if not 0 <= priority < PRIORITIES:
            raise ValueError(f"a priority is between 0 and {PRIORITIES - 1}")
        prefix = self._name + b"/%05d" % priority
        # as in Go: of clients that saw the same last item, one succeeds
        base = b"__" + prefix
        while True:
            last = (await self._client.when().then(
                ops.get(ranges.prefix(prefix), descending=True, limit=1))).found()
            number = 0 if last.kv is None else int(last.kv.key.rpartition(b"/")[2]) + 1
            result = await self._client.when(ops.key(base).mod_revision < last.revision + 1).then(
                ops.put(base, b""), ops.put(prefix + b"/%016d" % number, value))
            if result:
                return result.revision
