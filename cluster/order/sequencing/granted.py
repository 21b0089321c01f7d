"""A transaction over several shards as the sequencer evaluates it: what it asks of the shards, and the store as they grant it.

Pure. The messages are in ``cluster.order.prepare``.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cluster.evaluate.footprint import inverted, overlap
from cluster.evaluate.reading.ranges import Fields
from cluster.evaluate.replica import AppliedState, Overlay
from cluster.evaluate.spans import Span, keys_in
from cluster.evaluate.view import Current, Version
from cluster.grain import GRAIN
from cluster.order.prepare import Grant, Prepare, Row, Touch
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from cluster.wire.messages import Method


class Unread(Exception):
    """It reads at a revision that was in the future when its locks were asked for: ask for them anew."""


class Uncounted(Exception):
    """It must see rows that were only counted: ask for them."""


class GrantedView:
    """The store as a transaction sees it: shard 0 from the sequencer's own speculative state, the rest as granted."""

    def __init__(
        self, own: Overlay, placement: Placement, touches: Mapping[int, Sequence[Touch]], grants: Mapping[int, Grant],
        leases: Sequence[int],
    ) -> None:
        """``touches``, ``grants``: what was asked of each shard but 0, and what it said; ``leases``: that are to be revoked."""
        self._own = own
        self._placement = placement
        self.revision = own.revision
        self.compact_revision = own.compact_revision
        self._rows: dict[bytes, bytes] = {}
        self._at: dict[tuple[int, bytes, bytes, int], list[Row]] = {}
        self._lease_keys: dict[int, list[bytes]] = {}
        self._counts: dict[Span, dict[int, int]] = {}  # spans of which shards have only counted the keys
        for shard, grant in grants.items():
            for at, (touch, rows) in enumerate(zip(touches[shard], grant.rows, strict=True)):
                if at in grant.counts:
                    self._counts.setdefault((touch.key, touch.range_end), {})[shard] = grant.counts[at]
                elif touch.revision:
                    self._at[shard, touch.key, touch.range_end, touch.revision] = rows
                else:
                    self._rows.update(rows)
            for lease, keys in zip(leases, grant.lease_keys, strict=False):
                self._lease_keys.setdefault(lease, []).extend(keys)
        self._keys = sorted(self._rows)

    def current(self, key: bytes) -> Current | Version | None:
        kv = self._rows.get(key)
        if kv is None:
            return self._own.current(key) if self._placement.shard_of(key) == 0 else None
        fields = Fields(kv)
        return Current(fields.create, fields.mod, fields.version, fields.lease)

    def get(self, key: bytes) -> bytes | None:
        kv = self._rows.get(key)
        return self._own.get(key) if kv is None and self._placement.shard_of(key) == 0 else kv

    def scan(self, start: bytes, end: bytes, revision: int = 0) -> Iterator[Row]:
        shards = self._placement.shards_of(start, end)
        parts: list[Iterable[Row]] = []
        if 0 in shards:
            parts.append(self._own.scan(start, end, revision))
        if revision:
            for shard in shards:
                if shard:
                    rows = self._at.get((shard, start, end, revision))
                    if rows is None:
                        raise Unread
                    parts.append(rows)
        else:
            if any(overlap((start, end), span) for span in self._counts):
                raise Uncounted
            granted = self._rows
            parts.append((key, granted[key]) for key in keys_in(self._keys, (start, end)))
        return heapq.merge(*parts)

    def count(self, start: bytes, end: bytes) -> int:
        return sum(self.counts(start, end).values())

    def counts(self, start: bytes, end: bytes) -> dict[int, int]:
        """How many live keys of a range each shard has."""
        span = (start, end)
        counted = self._counts.get(span, {})
        if any(overlap(span, other) for other in self._counts if other != span):
            raise Uncounted
        found = dict(counted)
        if 0 in self._placement.shards_of(start, end):
            found[0] = self._own.count(start, end)
        for key in keys_in(self._keys, span):
            shard = self._placement.shard_of(key)
            if shard not in counted:
                found[shard] = found.get(shard, 0) + 1
        return found

    def lease_exists(self, lease: int) -> bool:
        return self._own.lease_exists(lease)

    def lease_keys(self, lease: int) -> list[bytes]:
        return sorted((*self._own.lease_keys(lease), *self._lease_keys.get(lease, ())))


def rows_of(store: AppliedState, prepare: Prepare) -> tuple[list[list[Row]], dict[int, int]]:
    """What a shard's leader grants: the rows of each touch; of those that need only be counted, and hold many, their number
    instead."""
    rows: list[list[Row]] = []
    counts: dict[int, int] = {}
    for at, touch in enumerate(prepare.touches):
        key, range_end, revision = touch.key, touch.range_end, touch.revision
        found: list[Row] = []
        if inverted((key, range_end)):
            pass
        elif touch.count and (count := store.live_count(key, range_end)) > GRAIN.many_keys:
            counts[at] = count
        elif 0 < revision < store.compact_revision:
            pass  # the sequencer knows the compaction and refuses
        elif range_end or revision:
            found = list(store.scan(key, range_end, revision))
        elif (kv := store.get(key)) is not None:
            found = [(key, kv)]
        rows.append(found)
    return rows, counts


def shows_deleted(method: int, body: bytes) -> bool:
    """Whether the answer may hold the rows that it deletes."""
    if method == Method.DELETE_RANGE:
        return bool(pb.DeleteRangeRequest.FromString(body).prev_kv)
    return method == Method.TXN and _deletes_with_rows(pb.TxnRequest.FromString(body))


def _deletes_with_rows(request: Any) -> bool:
    return any(op.request_delete_range.prev_kv or (op.HasField("request_txn") and _deletes_with_rows(op.request_txn))
               for op in (*request.success, *request.failure))


def shown_ranges(request: Any) -> Iterator[Any]:
    """The ranges that a TxnRequest shows, in both branches of each."""
    for op in (*request.success, *request.failure):
        kind = op.WhichOneof("request")
        if kind == "request_range":
            yield op.request_range
        elif kind == "request_txn":
            yield from shown_ranges(op.request_txn)
