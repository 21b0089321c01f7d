"""Requests that take long are logged, with what each waited for (``--warning-unary-request-duration``).

The router's sweep, every 50 ms, finds requests that are open for too long, and later that they have ended:
the logged time is up to 50 ms too long. With a shorter limit each unary call is timed
(``proxy.grpc.timed_calls``), the JSON gateway's too, and logged without what it waited for; the sweep finds
those of Lock and Election.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import structlog

from cluster.errors import EtcdError
from cluster.evaluate import validate
from cluster.pb import rpc_pb2
from cluster.wire.messages import LONE_HEAD, Method
from proxy.routing.links import Link
from proxy.routing.routes import ShardRoute
from proxy.routing.sending import SWEEP_S
from proxy.routing.waiting import Waiting

log = structlog.get_logger("slow")

LINES_PER_S = 20  # logged; more are counted
_MOST_OPEN = 10_000  # that are remembered until they end
_KEY_BYTES = 128  # of a key that is logged


def _keys(request: Any) -> dict[str, object]:
    found: dict[str, object] = {"key": _text(request.key)}
    if request.range_end:
        found["range_end"] = _text(request.range_end)
    return found


def _range(request: Any) -> dict[str, object]:
    return _keys(request) | {
        name: value for name in ("limit", "revision", "serializable") if (value := getattr(request, name))
    }


def _put(request: Any) -> dict[str, object]:
    return {"key": _text(request.key), "value_bytes": len(request.value)}


def _txn(request: Any) -> dict[str, object]:
    return {
        "compares": len(request.compare), "success": len(request.success), "failure": len(request.failure),
    }


def _lease(request: Any) -> dict[str, object]:
    return {"lease": f"{request.ID & (1 << 64) - 1:x}"}


def _nothing(request: Any) -> dict[str, object]:
    return {}


_KINDS = {
    Method.PUT: (rpc_pb2.PutRequest, _put),
    Method.DELETE_RANGE: (rpc_pb2.DeleteRangeRequest, _keys),
    Method.TXN: (rpc_pb2.TxnRequest, _txn),
    Method.READ_TXN: (rpc_pb2.TxnRequest, _txn),
    Method.RANGE: (rpc_pb2.RangeRequest, _range),
    Method.RANGE_ROWS: (rpc_pb2.RangeRequest, _range),
    Method.COMPACT: (rpc_pb2.CompactionRequest, _nothing),
    Method.LEASE_GRANT: (rpc_pb2.LeaseGrantRequest, _lease),
    Method.LEASE_REVOKE: (rpc_pb2.LeaseRevokeRequest, _lease),
    Method.LEASE_TTL: (rpc_pb2.LeaseTimeToLiveRequest, _lease),
    Method.LEASE_LEASES: (rpc_pb2.LeaseLeasesRequest, _nothing),
    Method.HASH_KV: (rpc_pb2.HashKVRequest, _nothing),
    Method.MEMBER_LIST: (rpc_pb2.MemberListRequest, _nothing),
}
_WATCHED = frozenset(map(int, (*_KINDS, Method.LONE, Method.WIDE)))


class SlowRequests:
    def __init__(self, limit_s: float) -> None:
        """``limit_s``: a request that takes longer is logged; 0: none is."""
        self.limit_s = limit_s
        self.each = 0 < limit_s < SWEEP_S  # every timed call is told to ``ended``
        self._open: dict[int, tuple[Waiting, str, Link | None]] = {}  # by the identity of each
        self._lines = 0  # logged in the second that began at ``_second``
        self._more = 0
        self._second = 0.0

    def look(self, routes: Iterable[ShardRoute], unindexed: Iterable[Waiting], now: float) -> None:
        """Find requests that have become slow, and log those that have ended."""
        if self.limit_s <= 0:
            return
        if now - self._second >= 1.0:
            self._next_second(now)
        for key, (waiting, where, link) in list(self._open.items()):
            if _has_ended(waiting, link):
                del self._open[key]
                self._tell(waiting, where, now)
        for route in routes:
            for link in route.links.values():
                self._find(link.pending.values(), f"member {link.member_id:x}", link, now)
            self._find(route.queue, "a leader", None, now)
            self._find(route.reads, "a replica", None, now)
        self._find(unindexed, "a read index", None, now)

    def _find(self, requests: Iterable[Waiting], where: str, link: Link | None, now: float) -> None:
        """The oldest come first, but for a few that were sent again."""
        for waiting in requests:
            if now - waiting.began <= self.limit_s or len(self._open) >= _MOST_OPEN:
                return
            client = waiting.client
            if (
                waiting.method in _WATCHED
                and id(waiting) not in self._open
                and (link is not None or client is not None)
                and not (self.each and client is not None and client.timed)
            ):
                self._open[id(waiting)] = (waiting, where, link)

    def _next_second(self, now: float) -> None:
        if self._more:
            log.warning("more requests took too long", count=self._more)
        self._second, self._lines, self._more = now, 0, 0

    def ended(self, path: str, client: str, took_s: float) -> None:
        if took_s > self.limit_s and self._room():
            log.warning("request stats", took_s=round(took_s, 6), expected_s=self.limit_s,
                        method=path.rpartition("/")[2], remote=client)

    def _tell(self, waiting: Waiting, where: str, now: float) -> None:
        if self._room():
            log.warning("request stats", took_s=round(now - waiting.began, 2), expected_s=self.limit_s,
                        waited_for=where, shard=waiting.shard, **described(waiting))

    def _room(self) -> bool:
        if self._lines >= LINES_PER_S:
            self._more += 1
            return False
        self._lines += 1
        return True


def described(waiting: Waiting) -> dict[str, object]:
    """What was asked, without any value."""
    method, body = Method(waiting.method), waiting.body
    if method is Method.LONE:
        method, body = Method.PUT, body[LONE_HEAD.size :]
    elif method is Method.WIDE:
        method, body = Method(body[0]), body[1:]
    kind, describe = _KINDS[method]
    found = {"method": method.name, "request_bytes": len(body)}
    try:
        return found | describe(validate.parse(kind.FromString, body))  # type: ignore[attr-defined]
    except EtcdError:  # no such message: the node says so
        return found


def _has_ended(waiting: Waiting, link: Link | None) -> bool:
    if waiting.call is not None:
        return bool(waiting.call.closed)
    if link is not None:
        return link.pending.get(waiting.rid) is not waiting  # a part of a request over several shards
    return bool(waiting.client.closed)  # such a part, which waited to be sent: it may be on its way by now


def _text(key: bytes) -> str:
    text = key[:_KEY_BYTES].decode(errors="backslashreplace")
    return text if len(key) <= _KEY_BYTES else f"{text}... ({len(key)} bytes)"
