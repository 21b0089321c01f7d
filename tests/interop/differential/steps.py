"""Seeded requests over a small key space, so that they meet each other: every RPC, flag, error and edge
case."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from cluster.pb import rpc_pb2 as pb

# the letters are chosen for their hashes: with 2, 3 and 5 shards each has about as many of the keys
KEYS = [b"b", b"b\0", b"b/1", b"b/2", b"b/2/x", b"g", b"g/1", b"h", b"\0", b"\xff", b"\xff\xff", b"uu"]
ENDS = [b"\0", b"b", b"b0", b"b/2", b"g", b"g0", b"h", b"i", b"\xff", b"\xff\xff\xff", b"\0\0"]
VALUES = [b"", b"0", b"1", b"22", b"\xff\0", b"long" * 30, b"x" * 17_000]
LEASES = [1, 2, 3, 0x7FFF_FFFF_FFFF_FFFF, -5]


@dataclass(slots=True)
class Step:
    """One request, by its RPC's name; for ``Watch`` the request is a WatchCreateRequest."""

    rpc: str
    request: Any

    def __str__(self) -> str:
        text = re.sub(r"\s+", " ", str(self.request).strip())
        return f"{self.rpc} {{{re.sub('x{100,}', 'x...', text)}}}"


@dataclass(slots=True)
class Context:
    """What the generator knows of the store, so that revisions come near those that exist."""

    revision: int = 1
    compact_revision: int = 0


class Generator:
    """An endless sequence of steps; ``context`` is the caller's to keep up to date."""

    def __init__(self, random: Random, context: Context) -> None:
        self.random = random
        self.context = context

    def steps(self, count: int) -> Iterator[Step]:
        """The next ``count`` steps."""
        makers: list[tuple[int, Callable[[], Step]]] = [
            (30, lambda: Step("Put", self.put())),
            (25, lambda: Step("Range", self.range())),
            (8, lambda: Step("DeleteRange", self.delete())),
            (30, lambda: Step("Txn", survivable(self.txn(3)))),
            (3, lambda: Step("Compact", pb.CompactionRequest(
                revision=self.near_revision(), physical=self.chance(0.2)))),
            (6, lambda: Step("LeaseGrant", self.grant())),
            (3, lambda: Step("LeaseRevoke", pb.LeaseRevokeRequest(ID=self.lease()))),
            (3, lambda: Step("LeaseTimeToLive", pb.LeaseTimeToLiveRequest(
                ID=self.lease(), keys=self.chance(0.7)))),
            (1, lambda: Step("LeaseLeases", pb.LeaseLeasesRequest())),
            (2, lambda: Step("LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=self.lease()))),
            (4, lambda: Step("Watch", self.watch())),
        ]
        weights = [weight for weight, _ in makers]
        for _ in range(count):
            yield self.random.choices(makers, weights)[0][1]()

    # --- parts ---

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def key(self) -> bytes:
        if self.chance(0.01):
            return b""
        return self.random.choice(KEYS)

    def range_end(self, key: bytes) -> bytes:
        roll = self.random.random()
        if roll < 0.35:
            return b""
        if roll < 0.45:
            return b"\0"
        if roll < 0.5:
            return key
        if roll < 0.65 and key and key[-1] < 255:
            return key[:-1] + bytes((key[-1] + 1,))
        return self.random.choice(ENDS)

    def near_revision(self) -> int:
        roll = self.random.random()
        context = self.context
        if roll < 0.15:
            return self.random.choice([0, -1, -2, -100, context.compact_revision - 1])
        if roll < 0.3:
            return context.compact_revision + self.random.randint(-1, 1)
        if roll < 0.45:
            return context.revision + self.random.randint(-1, 2)
        return self.random.randint(max(context.revision - 25, 0), context.revision)

    def lease(self) -> int:
        return self.random.choice(LEASES) if self.chance(0.95) else 0

    def put(self) -> Any:
        request = pb.PutRequest(key=self.key(), value=self.random.choice(VALUES))
        if self.chance(0.35):
            request.lease = self.lease()
        request.prev_kv = self.chance(0.3)
        if self.chance(0.12):
            request.ignore_value = True
            if self.chance(0.85):
                request.value = b""
        if self.chance(0.12):
            request.ignore_lease = True
            if self.chance(0.85):
                request.lease = 0
        return request

    def range(self) -> Any:
        key = self.key()
        request = pb.RangeRequest(key=key, range_end=self.range_end(key))
        if self.chance(0.35):
            request.limit = self.random.choice([1, 2, 3, 5, 100, -1])
        if self.chance(0.35):
            request.revision = self.near_revision()
        if self.chance(0.35):
            request.sort_order = self.random.randint(0, 2)
            request.sort_target = self.random.randint(0, 4)
        for name in ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"):
            if self.chance(0.1):
                setattr(request, name, self.near_revision())
        request.serializable = self.chance(0.2)
        request.keys_only = self.chance(0.15)
        request.count_only = self.chance(0.1)
        return request

    def delete(self) -> Any:
        key = self.key()
        return pb.DeleteRangeRequest(key=key, range_end=self.range_end(key), prev_kv=self.chance(0.5))

    def compare(self) -> Any:
        key = self.key()
        result, target = self.random.randint(0, 3), self.random.randint(0, 4)
        compare = pb.Compare(key=key, result=result, target=target)  # type: ignore[arg-type]
        if self.chance(0.25):
            compare.range_end = self.range_end(key)
        fitting = ("version", "create_revision", "mod_revision", "value", "lease")[compare.target]
        field = fitting if self.chance(0.9) else self.random.choice(
            ["version", "create_revision", "mod_revision", "value", "lease"])
        if field == "value":
            compare.value = self.random.choice(VALUES)
        elif field == "lease":
            compare.lease = self.lease()
        elif field == "version":
            compare.version = self.random.randint(0, 3)
        else:
            setattr(compare, field, self.random.choice([0, self.near_revision()]))
        if self.chance(0.01):
            compare.result = 9
        if self.chance(0.01):
            compare.target = 9
        return compare

    def txn(self, depth: int) -> Any:
        request = pb.TxnRequest()
        for _ in range(self.random.choice([0, 1, 1, 1, 2])):
            request.compare.append(self.compare())
        for ops in (request.success, request.failure):
            for _ in range(self.random.choice([0, 1, 1, 2, 3, 4])):
                ops.append(self.op(depth))
        return request

    def op(self, depth: int) -> Any:
        roll = self.random.random()
        if roll < 0.01:
            return pb.RequestOp()
        if roll < 0.2 and depth:
            return pb.RequestOp(request_txn=self.txn(depth - 1))
        if roll < 0.55:
            return pb.RequestOp(request_put=self.put())
        if roll < 0.7:
            return pb.RequestOp(request_delete_range=self.delete())
        return pb.RequestOp(request_range=self.range())

    def grant(self) -> Any:
        if self.chance(0.05):
            return pb.LeaseGrantRequest(ID=0, TTL=5000)
        ttl = self.random.choice([3600, 5000, 9_000_000_000, 9_000_000_001])
        return pb.LeaseGrantRequest(ID=self.random.choice(LEASES), TTL=ttl)

    def watch(self) -> Any:
        key = self.random.choice([*KEYS, b"\0", b""])
        start = max(self.near_revision(), 0)
        if start == self.context.compact_revision:
            # what is left of the compacted revision itself depends on how far compaction has got (but see
            # `from_compacted`)
            start += 1
        request = pb.WatchCreateRequest(
            key=key, range_end=self.range_end(key), start_revision=start, prev_kv=self.chance(0.5))
        if self.chance(0.3):
            request.filters.extend(
                self.random.sample(
                    [pb.WatchCreateRequest.NOPUT, pb.WatchCreateRequest.NODELETE], self.random.randint(1, 2)
                )
            )
        return request


def changed_twice(key: bytes) -> Step:
    """A key is put and deleted in one revision."""
    put = pb.RequestOp(request_put=pb.PutRequest(key=key, value=b"within"))
    delete = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))
    return Step("Txn", pb.TxnRequest(success=[
        pb.RequestOp(request_txn=pb.TxnRequest(success=[op])) for op in (put, delete)]))


def from_compacted(key: bytes, revision: int) -> Iterator[Step]:
    """Watches from a compacted revision, once what the compaction takes is gone. Without deletes: etcd before
    3.5.16 takes a tombstone of that revision, too."""
    yield Step("Compact", pb.CompactionRequest(revision=revision, physical=True))
    yield Step("Put", pb.PutRequest(key=key, value=b"behind"))
    for end in (b"", key + b"\0", b"\0"):
        request = pb.WatchCreateRequest(key=key, range_end=end, start_revision=revision, prev_kv=True)
        request.filters.append(pb.WatchCreateRequest.NODELETE)
        yield Step("Watch", request)


def survivable(txn: Any) -> Any:
    """The transaction without what ends etcd's process.

    etcd does not see that a delete to the end of the key space covers a put; if the put then keeps the value
    or lease of the key just deleted, the server panics. muster answers KeyNotFound.
    """
    ops = list(_operations(txn))
    if any(op.HasField("request_delete_range") and op.request_delete_range.range_end == b"\0" for op in ops):
        for op in ops:
            if op.HasField("request_put"):
                op.request_put.ignore_value = op.request_put.ignore_lease = False
    return txn


def _operations(txn: Any) -> Iterator[Any]:
    for ops in (txn.success, txn.failure):
        for op in ops:
            yield op
            if op.HasField("request_txn"):
                yield from _operations(op.request_txn)


def too_many_ops(count: int, nested: int) -> Any:
    """A transaction of ``count`` ranges, the last of which is a nested transaction of ``nested`` ranges."""
    read = pb.RequestOp(request_range=pb.RangeRequest(key=b"a"))
    request = pb.TxnRequest(success=[read] * (count - (nested > 0)))
    if nested:
        request.success.append(pb.RequestOp(request_txn=pb.TxnRequest(success=[read] * nested)))
    return request


DELETE_ALL = Step("DeleteRange", pb.DeleteRangeRequest(key=b"\0", range_end=b"\0"))
