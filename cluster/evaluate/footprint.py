"""What a request touches, without evaluating it: keys and ranges compared, read and written, and leases
named.

Both branches of a transaction count, nested ones included: only the leader knows which one is taken. Two
requests conflict if one writes what the other touches (I9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.evaluate import plain_put
from cluster.evaluate.spans import Span, inverted, meet
from cluster.evaluate.steps import Steps, compares, finish, parts
from cluster.evaluate.txns import plain_txn
from cluster.evaluate.validate import parse
from cluster.faults import answered
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method

_FEW, _MANY_PAIRS = 16, 1000  # of spans: then sorting is quicker than to compare each with each


@dataclass(slots=True)
class Footprint:
    """Spans as requests spell them: an empty end is the one key, a zero byte the end of the key space."""

    reads: list[Span] = field(default_factory=list)
    writes: list[Span] = field(default_factory=list)
    leases: set[int] = field(default_factory=set)
    _single: bool | None = field(default=None, compare=False, repr=False)

    @property
    def single(self) -> bool:
        """Whether it is of single keys only. Cached: the footprint must not change once this was asked."""
        if self._single is None:
            self._single = not any(end for _, end in self.reads) and not any(end for _, end in self.writes)
        return self._single

    @property
    def only_written(self) -> bytes | None:
        """The key that it writes, where it touches nothing else."""
        if self.leases or not self.writes:
            return None
        first = self.writes[0]
        alone = not first[1] and all(span == first for span in (*self.writes, *self.reads))
        return first[0] if alone else None

    def conflicts(self, other: Footprint) -> bool:
        """Whether the order of the two matters. ``cluster.order.overlaps`` compares with many."""
        if self.leases and other.leases and self.leases & other.leases:
            return True
        writes, other_writes = self.writes, other.writes
        return ((bool(writes) and (_meet(writes, other_writes) or _meet(writes, other.reads)))
                or (bool(self.reads) and _meet(self.reads, other_writes)))


def _meet(some: Sequence[Span], others: Sequence[Span]) -> bool:
    if len(some) * len(others) > _MANY_PAIRS and min(len(some), len(others)) > _FEW:
        return meet(some, others)
    for a in some:
        for b in others:
            if a[1] or b[1]:
                if overlap(a, b):
                    return True
            elif a[0] == b[0]:
                return True
    return False


def overlap(a: Span, b: Span) -> bool:
    """Whether a key can lie in both spans. An inverted one holds nothing."""
    (a_key, a_end), (b_key, b_end) = a, b
    a_begins_first = a_key < b_key
    if a_begins_first:
        return (a_end == b"\0" or b_key < a_end) and not inverted(b)
    if a_key == b_key:  # one that is not inverted is met by the other's first key
        return not (inverted(a) or inverted(b))
    return (b_end == b"\0" or a_key < b_end) and not inverted(a)


@answered
def footprint(method: int, body: bytes) -> Footprint:
    """The footprint of a request's body; empty for methods that touch no key. EtcdError if malformed."""
    found = Footprint()
    if method == Method.PUT:
        key = plain_put.key_of(body)
        if key is not None:
            found.writes.append((key, b""))
        else:
            _add_put(found, parse(pb.PutRequest.FromString, body))
    elif method in (Method.RANGE, Method.RANGE_STREAM):
        request: Any = parse(pb.RangeRequest.FromString, body)
        found.reads.append((request.key, request.range_end))
    elif method == Method.DELETE_RANGE:
        request = parse(pb.DeleteRangeRequest.FromString, body)
        found.writes.append((request.key, request.range_end))
    elif method in (Method.TXN, Method.READ_TXN):
        plain = plain_txn.read(body)
        if plain is not None:
            return plain_footprint(plain)
        finish(add_txn(found, parse(pb.TxnRequest.FromString, body)))
    elif method == Method.LEASE_GRANT:
        found.leases.add(parse(pb.LeaseGrantRequest.FromString, body).ID)
    elif method == Method.LEASE_REVOKE:
        found.leases.add(parse(pb.LeaseRevokeRequest.FromString, body).ID)
    return found


def plain_footprint(plain: plain_txn.Plain) -> Footprint:
    found = Footprint([(compare[0], b"") for compare in plain.compare], _single=True)
    reads, writes = found.reads, found.writes
    for kind, key, _, _, lease in plain.success + plain.failure:
        if kind == plain_txn.GET:
            reads.append((key, b""))
        else:
            writes.append((key, b""))
            if lease:
                found.leases.add(lease)
    return found


def _add_put(found: Footprint, request: Any) -> None:
    found.writes.append((request.key, b""))
    if request.lease:
        found.leases.add(request.lease)


def add_txn(found: Footprint, request: Any) -> Steps[None]:
    """Add what a TxnRequest touches."""
    for kind, part in parts(request):
        if not kind:
            yield
        elif kind == "request_put":
            _add_put(found, part)
        else:
            spans = found.writes if kind == "request_delete_range" else found.reads
            spans.append((part.key, part.range_end))


def valued(request: Any) -> Steps[set[Span]]:
    """The spans that a TxnRequest names whose values decide something, or are shown."""
    found: set[Span] = set()
    for kind, part in parts(request):
        if not kind:
            yield
        elif kind == "compare":
            if part.target == pb.Compare.VALUE:
                found.add((part.key, part.range_end))
        elif kind == "request_put":
            if part.prev_kv or part.ignore_value:
                found.add((part.key, b""))
        elif kind == "request_range" or part.prev_kv:
            found.add((part.key, part.range_end))
    return found


def is_read_only(request: Any) -> bool:
    """Whether a TxnRequest goes around the log: ranges only, in both branches, none nested."""
    return all(op.HasField("request_range") for ops in (request.success, request.failure) for op in ops)


def compares_ranges(request: Any) -> Steps[bool]:
    """Whether a TxnRequest has a compare of a range anywhere."""
    for compare in compares(request):
        if compare is None:
            yield
        elif compare.range_end:
            return True
    return False


def shows_the_past(request: Any) -> Steps[bool]:
    """Whether a TxnRequest shows rows of a named revision, anywhere."""
    for kind, part in parts(request):
        if not kind:
            yield
        elif kind == "request_range" and part.revision > 0:
            return True
    return False


def is_serializable(request: Any) -> bool:
    """Whether any replica may answer a read-only TxnRequest: all its ranges say so, or there are none."""
    return all(op.request_range.serializable for ops in (request.success, request.failure) for op in ops)
