"""A front follows the table of members as a node tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.members.table import decode_all
from proxy.routing.links import Link

if TYPE_CHECKING:
    from proxy.routing.router import Router


def follow(router: Router, link: Link, body: bytes) -> None:
    """A node tells the members: the own host's counts, where there is one; others may be behind it."""
    own = router.common.member_id
    if link.shard or (own and link.member_id != own):
        return
    router.members.follow(decode_all(body))
    router.learner = router.members.learner(own)
    peers = router.members.peers
    router.reach.follow(peers)
    for route in router.routes:
        route.follow(p.member_id for p in peers)
