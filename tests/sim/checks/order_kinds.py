"""Every kind of answer that a client can get here, and how often it comes in the fixed seeds at the least: a
check whose operation never happens passes idly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.sim.clients.order_clients import Operation

# of the seeds that CI runs: about a third of what they had when this was written
KINDS = {
    "Compact: done": 40, "DeleteRange: deleted": 82, "DeleteRange: nothing to delete": 37,
    "DeleteRange: several": 32, "DeleteRange: what was there": 23, "HashKV: compacted": 86,
    "HashKV: of an old revision": 17, "HashKV: of the latest": 32, "LeaseGrant: done": 63,
    "LeaseKeepAlive: gone": 29, "LeaseKeepAlive: renewed": 29, "LeaseLeases: some": 63,
    "LeaseRevoke: done": 25, "LeaseTimeToLive: gone": 33, "LeaseTimeToLive: left": 28,
    "LeaseTimeToLive: with keys": 7, "Put: done": 378, "Put: nothing was there": 21,
    "Put: the lease kept": 18, "Put: the value kept": 8, "Put: what was there": 26, "Put: with a lease": 60,
    "Range: count": 24, "Range: linearizable": 218, "Range: more": 2, "Range: nothing": 104,
    "Range: of an old revision": 28, "Range: rows": 222, "Range: serializable": 127, "Txn: deleted": 114,
    "Txn: failed": 336, "Txn: put": 334, "Txn: read": 273, "Txn: several writes": 198,
    "Txn: succeeded": 273, "a lease ended by itself": 26, "outcome unknown": 359,
    "refused: future revision": 9, "refused: has been compacted": 35, "refused: key not found": 27,
    "refused: lease not found": 127, "watch: cancelled": 5, "watch: compacted": 7, "watch: confirmed": 120,
    "watch: events": 2155, "watch: events, filtered": 598, "watch: fragments": 7,
    "watch: progress, as asked": 113, "watch: progress, periodic": 293, "watch: what was there before": 529,
}
REFUSALS = ("lease not found", "has been compacted", "future revision", "key not found")


def kinds_of(o: Operation) -> Iterator[str]:
    """What one answer is."""
    if o.open:
        yield "outcome unknown"
    elif o.refused:
        yield from (f"refused: {text}" for text in REFUSALS if text in (o.error or ""))
    elif o.ok:
        yield from (
            f"{o.method}: {what}" for what, so in _facts(o.method, o.request, o.response).items() if so
        )


def _facts(method: str, request: Any, response: Any) -> dict[str, Any]:
    if method == "Put":
        return {"done": True, "with a lease": request.lease, "the lease kept": request.ignore_lease,
                "the value kept": request.ignore_value, "what was there": response.HasField("prev_kv"),
                "nothing was there": request.prev_kv and not response.HasField("prev_kv")}
    if method == "DeleteRange":
        return {
            "deleted": response.deleted, "several": response.deleted > 1,
            "nothing to delete": not response.deleted, "what was there": response.prev_kvs,
        }
    if method == "Txn":
        done = [op.WhichOneof("response") for op in response.responses]
        return {
            "succeeded": response.succeeded, "failed": not response.succeeded, "put": "response_put" in done,
            "deleted": "response_delete_range" in done, "read": "response_range" in done,
            "several writes": sum(name != "response_range" for name in done) > 1,
        }
    if method == "Range":
        return {
            "rows": response.kvs, "nothing": not response.count, "more": response.more,
            "count": request.count_only, "serializable": request.serializable,
            "linearizable": not request.serializable,
            "of an old revision": 0 < request.revision < response.header.revision,
        }
    if method == "HashKV":
        return {
            "of the latest": not request.revision,
            "of an old revision": 0 < request.revision < response.header.revision,
            "compacted": response.compact_revision > 0,
        }
    if method == "LeaseTimeToLive":
        return {"left": response.TTL >= 0, "with keys": response.keys, "gone": response.TTL < 0}
    if method == "LeaseKeepAlive":
        return {"renewed": response.TTL > 0, "gone": response.TTL == 0}
    return {"some": response.leases} if method == "LeaseLeases" else {"done": True}
