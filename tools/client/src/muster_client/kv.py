"""Reads and writes of keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from muster_client import model, ops, ranges
from muster_client.errors import Compacted, FutureRevision, ServerError
from muster_client.model import Done, KeyValue, TxnResult
from muster_client.pb import rpc_pb2 as pb
from muster_client.ranges import Keys, Text
from muster_client.wire.calls import Caller, Method
from muster_client.wire.retries import TOO_MANY

_RANGE = Method("KV/Range", pb.RangeResponse, repeatable=True)
_PUT = Method("KV/Put", pb.PutResponse)
_DELETE = Method("KV/DeleteRange", pb.DeleteRangeResponse)
_TXN = Method("KV/Txn", pb.TxnResponse)
# One that is cancelled ends the process of an old etcd: https://github.com/etcd-io/etcd/issues/14110
_READS = Method("KV/Txn", pb.TxnResponse, repeatable=True, whole=True)
_COMPACT = Method("KV/Compact", pb.CompactionResponse)
PAGE_KEYS = 1000


class Pages(AsyncIterator[KeyValue]):
    """Keys of a range in order, fetched by pages, all as of one revision: that of the first page.

    ``revision`` and ``count`` (of all keys of the range) are known once the first page is. Compacted, if that
    revision is compacted meanwhile.
    """

    def __init__(self, caller: Caller, request: pb.RangeRequest, timeout: float | None) -> None:
        self._caller, self._request, self._timeout = caller, request, timeout
        self._page: list[KeyValue] = []
        self._more = True
        self.revision = request.revision
        self.count = -1

    def __aiter__(self) -> Pages:
        return self

    async def __anext__(self) -> KeyValue:
        if (kv := await self.next()) is None:
            raise StopAsyncIteration
        return kv

    async def next(self) -> KeyValue | None:
        """The next key; None behind the last."""
        if not self._page and self._more:
            await self._fetch()
        return self.waiting()

    def waiting(self) -> KeyValue | None:
        """The next key of this page."""
        return self._page.pop() if self._page else None

    async def all(self) -> list[KeyValue]:
        """What is left, in memory at once."""
        return [kv async for kv in self]

    async def _fetch(self) -> None:
        asked = self._request
        try:
            answer = await self._caller.unary(
                _RANGE, asked, timeout=self._timeout, needs_leader=not asked.serializable)
        except FutureRevision:
            if self.count < 0 or not asked.serializable:
                raise
            asked.serializable = False  # this endpoint is behind the one that served the pages before
            answer = await self._caller.unary(_RANGE, asked, timeout=self._timeout)
        if self.count < 0:
            self.count = answer.count
            self.revision = asked.revision = asked.revision or answer.header.revision
        self._more = answer.more and bool(answer.kvs)
        self._page = [model.kv_of(kv) for kv in reversed(answer.kvs)]
        if not self._more:
            return
        last = answer.kvs[-1].key
        if asked.sort_order == pb.RangeRequest.DESCEND:
            asked.range_end = last
        else:
            asked.key = last + b"\0"


class Kv:
    """Keys. A ``timeout`` in seconds holds for the call with all its attempts; None: the client's."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def get(
        self, key: Text, *, revision: int = 0, serializable: bool = False, timeout: float | None = None
    ) -> KeyValue | None:
        """A key, or None. ``revision`` 0: the latest. ``serializable``: one member's view, perhaps an old
        one, which needs no majority."""
        asked = pb.RangeRequest(key=ranges.of(key).start, revision=revision, serializable=serializable)
        answer = await self._caller.unary(_RANGE, asked, timeout=timeout, needs_leader=not serializable)
        return model.kv_of(answer.kvs[0]) if answer.kvs else None

    def range(
        self, keys: Keys, *, revision: int = 0, page: int = PAGE_KEYS, descending: bool = False,
        keys_only: bool = False, serializable: bool = False, timeout: float | None = None,
    ) -> Pages:
        """Keys of a range, in order of their names. ``page``: of how many keys one request asks;
        ``timeout`` holds for each page."""
        if page < 1:
            raise ValueError("a page has one key at least")
        where = ranges.of(keys)
        order = pb.RangeRequest.DESCEND if descending else pb.RangeRequest.NONE
        asked = pb.RangeRequest(
            key=where.start, range_end=where.end, revision=revision, limit=page, sort_order=order,
            keys_only=keys_only, serializable=serializable)
        return Pages(self._caller, asked, timeout)

    async def count(
        self, keys: Keys, *, revision: int = 0, serializable: bool = False, timeout: float | None = None
    ) -> int:
        """How many keys a range has."""
        where = ranges.of(keys)
        asked = pb.RangeRequest(
            key=where.start, range_end=where.end, revision=revision, count_only=True,
            serializable=serializable)
        answer = await self._caller.unary(_RANGE, asked, timeout=timeout, needs_leader=not serializable)
        return answer.count

    async def put(
        self, key: Text, value: Text | None, *, lease: int | ops.HasId | None = 0, previous: bool = False,
        timeout: float | None = None,
    ) -> Done:
        """Write a key; see :func:`ops.put`."""
        asked = ops.put(key, value, lease=lease, previous=previous).request.request_put
        return model.put_of(await self._caller.unary(_PUT, asked, timeout=timeout))

    async def delete(self, keys: Keys, *, previous: bool = False, timeout: float | None = None) -> Done:
        """Delete keys; ``deleted`` says how many were there."""
        asked = ops.delete(keys, previous=previous).request.request_delete_range
        return model.deleted_of(await self._caller.unary(_DELETE, asked, timeout=timeout))

    def when(self, *conditions: ops.Condition, timeout: float | None = None) -> ops.Txn:
        """Begin a transaction; without conditions it is done whatever holds."""

        async def run(txn: ops.Txn) -> TxnResult:
            return await self.txn(txn, timeout=timeout)

        return ops.Txn(conditions, run=run)

    async def txn(
        self, txn: ops.Txn, *, repeatable: bool = False, timeout: float | None = None,
        on_send: Callable[[], None] | None = None,
    ) -> TxnResult:
        """Run a transaction. ``repeatable``: the second time would do nothing more than the first, so that it
        may be tried again when nobody knows whether it was done. ``on_send`` is called before each try."""
        method = _READS if txn.reads_only else _TXN
        answer = await self._caller.unary(
            method, txn.request, timeout=timeout, repeatable=repeatable, on_send=on_send)
        return model.txn_of(answer)

    async def compact(self, revision: int, *, physical: bool = False, timeout: float | None = None) -> None:
        """Forget what was before a revision; ``physical``: answer when the space is free."""
        asked = pb.CompactionRequest(revision=revision, physical=physical)
        sent: list[None] = []
        try:
            await self._caller.unary(_COMPACT, asked, timeout=timeout, on_send=lambda: sent.append(None))
        except Compacted:
            if len(sent) < 2 or not physical:
                raise
            # an attempt was refused while it waited for the space: it was done before
        except ServerError as error:
            error.maybe_done |= physical and error.message == TOO_MANY
            raise
