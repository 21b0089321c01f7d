"""What a front's log says of nodes that it does not reach: which shard nobody answers for, and why each host
does not.

A front beside nodes has little to add to what those say. One on a machine without a member (``muster proxy``)
is the only one there that knows. The same trouble is told once, then every ``AGAIN_S`` while it lasts.
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
    """Of one front. :meth:`look` is called as often as one likes."""

    def __init__(self, peers: Iterable[Peer]) -> None:
        self._peers = {p.member_id: p for p in peers}
        self._since: dict[int, float] = {}  # by shard, since when no node of it answers
        self._told: set[int] = set()
        self._repeats = Repeats(AGAIN_S)
        self._next = 0.0

    def follow(self, peers: Iterable[Peer]) -> None:
        """Members have changed."""
        self._peers = {p.member_id: p for p in peers}

    def name(self, member_id: int) -> str:
        """A host's name, as a log shows it."""
        peer = self._peers.get(member_id)
        return peer.name if peer is not None and peer.name else f"{member_id:x}"

    def look(self, routes: Iterable[ShardRoute], now: float) -> None:
        """Tell what is to be told. ``now``: seconds of the loop's clock."""
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
            _, _, address = peer_endpoint(peer.host, peer.port + route.shard).partition("://")
            found[f"{self.name(member_id)} ({address})"] = route.troubles.get(member_id, "not tried yet")
        return found
