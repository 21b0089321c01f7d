"""A shard in memory: the :class:`View` of ``cluster.evaluate.requests`` with all history, changed only
through items.

It applies records as a replica does, so a test through it checks the items and the overlay's writes too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from cluster import errors
from cluster.effects import records
from cluster.errors import EtcdError
from cluster.evaluate import requests as evaluate
from cluster.evaluate import validate
from cluster.evaluate.reading.ranges import Fields, RangeRead
from cluster.evaluate.reading.rows import range_pieces
from cluster.evaluate.spans import holds
from cluster.evaluate.steps import finish
from cluster.evaluate.validate import parse
from cluster.evaluate.view import Current, Outcome, View
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from cluster.wire.protobuf import tombstone, varint

MIN_TTL_S = 2


class MemoryShard:
    """Applied state of one shard with every revision kept until it is compacted."""

    def __init__(self) -> None:
        self.revision = 1
        self.compact_revision = 0
        self.history: dict[bytes, list[tuple[int, bytes | None]]] = {}  # key -> (revision, kv or None)
        self.leases: dict[int, int] = {}
        self.events: list[tuple[int, int, bytes, bytes]] = []  # revision, kind (0 PUT, 1 DELETE), key, kv
        self.next_lease = 1000

    # --- View ---

    def get(self, key: bytes, revision: int = 0) -> bytes | None:
        for at, kv in reversed(self.history.get(key, [])):
            if not revision or at <= revision:
                return kv
        return None

    def current(self, key: bytes) -> Current | None:
        kv = self.get(key)
        if kv is None:
            return None
        f = Fields(kv)
        return Current(f.create, f.mod, f.version, f.lease)

    def scan(
        self, start: bytes, end: bytes, revision: int = 0, look: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        assert end in (b"", b"\0") or start < end, "never called with an inverted range"
        for key in sorted(self.history):
            if (key == start) if end == b"" else start <= key and (end == b"\0" or key < end):
                kv = self.get(key, revision)
                if kv is not None:
                    yield key, kv

    def count(self, start: bytes, end: bytes) -> int:
        return sum(1 for _ in self.scan(start, end))

    def lease_exists(self, lease: int) -> bool:
        return lease in self.leases

    def lease_keys(self, lease: int) -> list[bytes]:
        return [k for k in sorted(self.history) if (c := self.current(k)) is not None and c.lease == lease]

    # --- a leader and a replica in one ---

    def execute(self, method: int, body: bytes, max_ops: int = 128) -> tuple[int, bytes]:
        """Evaluate and apply: ``(header revision, response after the header)``. EtcdError."""
        if method == Method.RANGE:
            return self.revision, range_(self, body)
        if method == Method.PUT:
            outcome = evaluate.put(self, body)
        elif method == Method.DELETE_RANGE:
            outcome = evaluate.delete_range(self, body)
        elif method == Method.TXN:
            outcome = evaluate.txn(self, body, max_ops)
        elif method == Method.COMPACT:
            outcome, _ = evaluate.compact(self, body)
        elif method == Method.LEASE_GRANT:
            outcome, _ = evaluate.lease_grant(self, body, MIN_TTL_S, self._new_id)
        elif method == Method.LEASE_REVOKE:
            outcome, _ = evaluate.lease_revoke(self, body)
        else:
            raise ValueError(method)
        before = self.revision
        self.apply(outcome.items)
        self._check(outcome, before)
        return outcome.revision, outcome.tail

    def _new_id(self) -> int:
        self.next_lease += 1
        return self.next_lease

    def _check(self, outcome: Outcome, before: int) -> None:
        """What the outcome says must be what applying its items did."""
        assert self.revision == before + outcome.changed
        assert outcome.revision == self.revision
        # a deleted range writes what it held: the keys of its events
        gone = {k for r, _, k, _ in self.events if r > before for span in outcome.ranges if holds(span, k)}
        last: dict[bytes, bytes | None] = dict.fromkeys(gone)
        for key, version in outcome.writes:
            last[key] = version.kv if version else None
            if version:
                f = Fields(version.kv)
                assert tuple(version[:4]) == (f.create, f.mod, f.version, f.lease)
        for key, kv in last.items():
            assert self.get(key) == kv
        assert {k for r, _, k, _ in self.events if r > before} == set(last)

    def apply(self, record: bytes) -> None:
        """Apply a record's items."""
        for kind, pos, end in records.items(record):
            if kind == records.Item.COMPACT:
                (self.compact_revision,) = records.REVISION.unpack_from(record, pos)
            elif kind == records.Item.LEASE_GRANT:
                lease, ttl = records.LEASE.unpack_from(record, pos)
                self.leases[lease] = ttl
            elif kind == records.Item.LEASE_REVOKE:
                (lease,) = records.LEASE_ID.unpack_from(record, pos)
                self._change(record, pos + records.LEASE_ID.size, end)
                del self.leases[lease]
            elif kind in (records.Item.TXN, records.Item.TXN_LONG):
                self._change(record, pos, end)
            elif kind == records.Item.PUTS:
                puts = records.read_puts(record, pos, end)
                for self.revision, (key, kv) in enumerate(
                    zip(puts.keys, puts.kvs, strict=True), puts.revision
                ):
                    self.history.setdefault(key, []).append((self.revision, kv))
                    self.events.append((self.revision, 0, key, kv))
            else:
                self._change(record, pos - records.ITEM.size, end)

    def _change(self, record: bytes, start: int, end: int) -> None:
        if start == end:
            return
        self.revision += 1
        mod = varint(self.revision)
        for kind, pos, stop in records.items(record, start, end):
            if kind == records.Item.DELETE_RANGE:
                start, range_end, count = records.read_delete_range(record, pos, stop)
                keys = [key for key, _ in self.scan(start, range_end)]
                assert len(keys) == count, "as many keys as were counted"
                for key in keys:
                    self.history[key].append((self.revision, None))
                    self.events.append((self.revision, 1, key, tombstone(key, self.revision)))
            elif kind == records.Item.DELETE:
                key = record[pos:stop]
                assert self.get(key) is not None, "a delete's item names a live key"
                self.history[key].append((self.revision, None))
                self.events.append((self.revision, 1, key, tombstone(key, self.revision)))
            else:
                key, kv, lease = records.read_put(record, kind, pos, stop, mod)
                assert lease == Fields(kv).lease
                assert not lease or lease in self.leases  # I15
                self.history.setdefault(key, []).append((self.revision, kv))
                self.events.append((self.revision, 0, key, kv))


def read_all(view: View, read: RangeRead) -> bytes:
    """A Range's whole response after the header, at ``read.revision``."""
    return b"".join(finish(range_pieces(view, read)))


def range_(view: View, request: bytes) -> bytes:
    """RangeRequest, at once and whole: the response after its header. EtcdError."""
    message: Any = parse(pb.RangeRequest.FromString, request)
    validate.check_range(message)
    if message.revision > view.revision:
        raise EtcdError(errors.FUTURE_REV)
    if 0 < message.revision < view.compact_revision:
        raise EtcdError(errors.COMPACTED)
    return read_all(view, RangeRead(message))


def check_body(method: int, body: bytes, max_ops: int) -> None:
    """What a front checks of a request's body. EtcdError."""
    if method == Method.PUT:
        validate.check_put(parse(pb.PutRequest.FromString, body))
    elif method == Method.RANGE:
        validate.check_range(parse(pb.RangeRequest.FromString, body))
    elif method == Method.DELETE_RANGE:
        validate.check_delete_range(parse(pb.DeleteRangeRequest.FromString, body))
    elif method == Method.TXN:
        validate.check_txn(parse(pb.TxnRequest.FromString, body), max_ops)


def refusal(call: Callable[[], object]) -> EtcdError:
    """The EtcdError that a call raises."""
    try:
        call()
    except EtcdError as e:
        return e
    raise AssertionError("not refused")
