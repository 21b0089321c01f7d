"""Calls and streams of the API's own messages."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from muster_client import ranges
from muster_client.admin.snapshots import parts
from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb
from muster_client.ranges import Text
from muster_client.raw.watching import Answers
from muster_client.wire import engine
from muster_client.wire.calls import Caller, Method, SpacedCaller
from muster_client.wire.following import OnAgain, check
from muster_client.wire.keeper import Keeper

Answer = TypeVar("Answer")
_RANGE = Method("KV/Range", pb.RangeResponse, repeatable=True)


class Raw:
    """``client.raw``: requests and answers are messages of ``muster_client.pb``.

    Streams go on at another endpoint where they break. ``on_again`` is called before that, in the thread of
    the connections, with what ended the last attempt. What it raises ends the iteration.
    """

    def __init__(self, caller: Caller, keeper: Keeper) -> None:
        self._caller, self._keeper = caller, keeper

    async def call(
        self, method: Method[Answer], request: Any, *, timeout: float | None = None,
        needs_leader: bool = True, endpoint: str = "",
    ) -> Answer:
        """One request, one answer, of any service. ``endpoint``: only this one is asked. MusterError."""
        return await self._caller.unary(
            method, request, timeout=timeout, needs_leader=needs_leader, at=endpoint)

    def guard(self, check: Callable[[str, Any], None]) -> None:
        """Call it before each request of this client and its namespaces, with the method's name, as
        ``KV/Put``, and the request. What it raises ends the call."""
        whole = self._caller.whole if isinstance(self._caller, SpacedCaller) else self._caller
        whole.guard = check

    def watch(self, request: pb.WatchCreateRequest, *, on_again: OnAgain | None = None) -> Answers:
        """The answers to a watch; its ID is the server's choice. See :class:`Answers`."""
        return Answers(self._caller, request, on_again)

    async def renew(
        self, lease: int, *, timeout: float | None = None, on_again: OnAgain | None = None
    ) -> pb.LeaseKeepAliveResponse:
        """Renew any lease once. ``TTL`` 0: there is none."""
        timeout_s = self._caller.timeout_s if timeout is None else timeout
        return await engine.run(self._keeper.renew(lease, timeout_s, on_again))

    def renewals(
        self, lease: int, *, on_again: OnAgain | None = None
    ) -> AsyncGenerator[pb.LeaseKeepAliveResponse, None]:
        """Renew any lease each third of its time to live. An answer whose ``TTL`` is 0 is the last: the lease
        is gone. Without an answer it goes on, as only the cluster knows. MusterError."""
        return self._keeper.renewals(lease, on_again)

    def snapshot(self, endpoint: str = "") -> AsyncGenerator[pb.SnapshotResponse, None]:
        """The parts of a host's snapshot, once. MusterError."""
        return parts(self._caller, endpoint)

    async def observe(
        self, election: Text, *, on_again: OnAgain | None = None
    ) -> AsyncGenerator[pb.RangeResponse, None]:
        """An election's leader, each of its values, and the next leader after it, as clientv3 tells them. It
        goes on behind a compaction. MusterError."""
        line = ranges.prefix(ranges.data(election) + b"/")
        asked = pb.RangeRequest(
            key=line.start, range_end=line.end, limit=1, sort_target=pb.RangeRequest.CREATE,
            sort_order=pb.RangeRequest.ASCEND)
        while True:
            found = await self.call(_RANGE, asked)
            if not found.kvs:
                put = await self._first_put(line, found.header.revision + 1, on_again)
                if put is None:
                    continue
                found = put
            yield pb.RangeResponse(header=found.header, kvs=found.kvs)
            leader = ranges.of(found.kvs[0].key)
            changes = self._changes(leader, found.header.revision + 1, on_again)
            async with contextlib.aclosing(changes):
                async for header, event in changes:
                    if event.type == kv_pb2.Event.DELETE:
                        break
                    yield pb.RangeResponse(header=header, kvs=[event.kv])

    async def _first_put(
        self, keys: ranges.KeyRange, revision: int, on_again: OnAgain | None
    ) -> pb.RangeResponse | None:
        """A candidate, waited for. None: it may have come and gone."""
        changes = self._changes(keys, revision, on_again)
        async with contextlib.aclosing(changes):
            async for header, event in changes:
                if event.type == kv_pb2.Event.PUT:
                    header.revision = event.kv.mod_revision
                    return pb.RangeResponse(header=header, kvs=[event.kv])
        return None

    async def _changes(
        self, keys: ranges.KeyRange, revision: int, on_again: OnAgain | None
    ) -> AsyncGenerator[tuple[pb.ResponseHeader, kv_pb2.Event], None]:
        """From a revision on, until it is compacted. MusterError."""
        asked = pb.WatchCreateRequest(
            key=keys.start, range_end=keys.end, start_revision=revision, progress_notify=True)
        async with self.watch(asked, on_again=on_again) as answers:
            async for answer in answers:
                if answer.compact_revision:
                    return
                if answer.canceled:
                    check(answer)
                for event in answer.events:
                    yield answer.header, event
