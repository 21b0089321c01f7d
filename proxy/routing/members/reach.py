"""What a front's log says of nodes that it does not reach: which shard has no node that answers, and why.

A front without a member of its own (``muster proxy``) is the only one there that can tell. The same trouble
is logged once, then every ``AGAIN_S``.
"""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from cluster.endpoints import peer_endpoint
from cluster.repeats import Repeats
from cluster.settings import Peer
from proxy.routing.routes import ShardRoute

log = structlog.get_logger("reach")

AGAIN_S = 30.0
PATIENCE_S = 3.0  # what is over sooner is none
_LOOK_S = 1.0


class Reach:
    def __init__(self, peers: Iterable[Peer]) -> None:
        self._peers = {p.member_id: p for p in peers}
        self._since: dict[int, float] = {}  # by shard, since when no node of it answers
        self._told: set[int] = set()
        self._repeats = Repeats(AGAIN_S)
        self._next = 0.0

    def follow(self, peers: Iterable[Peer]) -> None:
        self._peers = {p.member_id: p for p in peers}

    def name(self, member_id: int) -> str:
        peer = self._peers.get(member_id)
        return peer.name if peer is not None and peer.name else f"{member_id:x}"

    def look(self, routes: Iterable[ShardRoute], now: float) -> None:
        """Log what is new. ``now``: seconds of the loop's clock."""
        if now < self._next:
            return
        self._next = now + _LOOK_S
        for route in routes:
            if any(link.up for link in route.links.values()):
                if route.shard in self._told:
                    log.info(
                        "a node of the shard answers", shard=route.shard,
                        after_s=round(now - self._since[route.shard]),
                    )
                self._told.discard(route.shard)
                self._since.pop(route.shard, None)
                continue
            since = self._since.setdefault(route.shard, now)
            if now - since >= PATIENCE_S and self._repeats.news(route.shard, now):
                self._told.add(route.shard)
                log.warning(
                    "no node of the shard answers", shard=route.shard, not_reached=self._why(route),
                    for_s=round(now - since),
                )

    def _why(self, route: ShardRoute) -> dict[str, str]:
        found = {}
        for member_id, peer in self._peers.items():
            _, _, address = peer_endpoint(peer.host, peer.port).partition("://")
            found[f"{self.name(member_id)} ({address})"] = route.troubles.get(member_id, "not tried yet")
        return found
