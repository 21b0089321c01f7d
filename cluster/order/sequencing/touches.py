"""What a transaction over several shards locks and reads in each shard other than 0."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import filterfalse
from operator import itemgetter
from typing import Any

from cluster.evaluate.footprint import valued as valued_in
from cluster.evaluate.overlay import Overlay
from cluster.evaluate.spans import Intervals, Span, merged
from cluster.evaluate.steps import finish
from cluster.evaluate.txns import plain_txn
from cluster.features.auth.principal import Kind
from cluster.features.auth.state import AuthState
from cluster.order.prepare import Touch
from cluster.order.sequencing.wide import NEVER, Wide
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from cluster.wire.messages import Method

_key_of = itemgetter(0)  # of a plain compare
Touches = dict[int, list[Touch]]  # by shard
_KINDS: dict[int, Any] = {
    Method.TXN: pb.TxnRequest, Method.PUT: pb.PutRequest, Method.DELETE_RANGE: pb.DeleteRangeRequest,
}


def touches_of(wide: Wide[Any], placement: Placement, view: Overlay) -> Touches:
    """Empty for an end of leases. ``view``: shard 0's. Sets ``wide.ahead`` and ``wide.homes``."""
    found: Touches = {}
    if wide.switch is not None:
        return wide.switch.touches()
    # G8: what was surveyed by an older table may be elsewhere now
    if wide.surveyed is not None and wide.surveyed_by == placement.table.generation:
        return wide.surveyed
    if wide.leases:
        return found
    if wide.plain is not None:
        homes: dict[bytes, int] = {}
        values, decides = plain_txn.valued(wide.plain), {*map(_key_of, wide.plain.compare)}
        for spans, write in ((wide.footprint.writes, True), (wide.footprint.reads, False)):
            for key, _ in spans:
                if key not in homes:
                    homes[key] = shard = placement.shard_of(key)
                    if shard:
                        touch = Touch(key, b"", write, brief=key not in values)
                        touch.shown = not write and key not in decides
                        found.setdefault(shard, []).append(touch)
        wide.homes = homes
        return found
    kind = _KINDS.get(wide.method)
    request = wide.large or (None if kind is None else kind.FromString(wide.body))
    valued = _valued(wide, request)
    _add_writes(found, wide, placement, request, valued)
    shown: dict[tuple[bytes, bytes, int], None] = {}
    if wide.method == Method.TXN and wide.footprint.reads:
        shown = dict.fromkeys((r.key, r.range_end, r.revision) for r in _shown_ranges(request))
    _add_reads(found, wide, placement, {(key, end) for key, end, _ in shown}, valued)
    low, high = max(view.compact_revision, 1), view.revision
    for key, end, revision in shown:
        if low <= revision <= high:  # outside of these bounds the evaluation refuses it
            _ask(found, placement, Touch(key, end, False, revision, shown=bool(end)))
    wide.ahead = min((revision for _, _, revision in shown if revision > high), default=NEVER)
    return found


def in_all_shards(touches: Touches, placement: Placement) -> Touches:
    """The keys of a lease may be in any shard (H6). Others may have had what is shown of the past."""
    return {shard: touches.get(shard, []) for shard in {*placement.others, *touches}}


def leases_looked_at(wide: Wide[Any], users: AuthState) -> list[int]:
    """The leases whose keys decide what it does, or whether its client may."""
    who = wide.who
    if wide.leases or not users.enabled or who.kind == Kind.FRONT:
        return wide.leases
    user = users.users.get(who.user)
    return [] if user is not None and users.is_root(user) else sorted(wide.footprint.leases)


def _ask(found: Touches, placement: Placement, touch: Touch) -> None:
    for shard in placement.shards_at(touch.key, touch.range_end, touch.revision):
        if shard:
            found.setdefault(shard, []).append(touch)


def _valued(wide: Wide[Any], request: Any) -> Intervals:
    """The keys whose values are wanted."""
    found = Intervals()
    if wide.method == Method.TXN:
        for span in sorted(finish(valued_in(request))):  # each goes to the end of the set
            found.add_span(span)
    elif request is not None and (
            request.prev_kv or (wide.method == Method.PUT and request.ignore_value)):
        found.add_span(wide.footprint.writes[0])
    return found


def _add_writes(
    found: Touches, wide: Wide[Any], placement: Placement, request: Any, valued: Intervals
) -> None:
    countable = not wide.rows
    shown_too = countable and not wide.footprint.single and _shows_deleted(wide.method, request)
    spans: Iterable[Span] = dict.fromkeys(wide.footprint.writes)
    if wide.rows:  # all are sent: those of ranges that overlap are read once, and keep a value only for one
        spans = [*merged(filter(valued.meets, spans)), *merged(filterfalse(valued.meets, spans))]
    for key, end in spans:
        is_range = bool(end)
        _ask(found, placement,
             Touch(key, end, True, 0, countable and not shown_too and is_range, shown_too and is_range,
                   not valued.meets((key, end))))


def _add_reads(
    found: Touches, wide: Wide[Any], placement: Placement, shown: set[Span], valued: Intervals
) -> None:
    reads: dict[int, list[Span]] = {}
    written = set(wide.footprint.writes)
    for span in dict.fromkeys(wide.footprint.reads):  # each once, however often it is named
        for shard in placement.shards_of(*span):
            rows = reads.setdefault(shard, [])
            if not span[1] or span in shown:  # of other ranges the shard's verdicts are all that counts
                rows.append(span)
    for shard, spans in reads.items():
        if shard:
            # a key that is named by itself may decide something, whatever range shows it
            found.setdefault(shard, []).extend([
                Touch(key, b"", brief=key not in valued)
                for key, end in spans if not end and (key, end) not in written])
            ranges = merged(span for span in spans if span[1])
            found[shard].extend([Touch(key, end, shown=True) for key, end in ranges])


def _shows_deleted(method: int, request: Any) -> bool:
    if method == Method.DELETE_RANGE:
        return bool(request.prev_kv)
    return method == Method.TXN and _deletes_with_rows(request)


def _deletes_with_rows(request: Any) -> bool:
    return any(
        op.request_delete_range.prev_kv or (op.HasField("request_txn") and _deletes_with_rows(op.request_txn))
        for op in (*request.success, *request.failure))


def _shown_ranges(request: Any) -> Iterator[Any]:
    for op in (*request.success, *request.failure):
        kind = op.WhichOneof("request")
        if kind == "request_range":
            yield op.request_range
        elif kind == "request_txn":
            yield from _shown_ranges(op.request_txn)
