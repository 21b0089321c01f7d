"""What a node tells a front unasked: how it stands, its watermark, users, the table of members."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.features.auth.principal import read_news
from cluster.members.table import decode_all
from cluster.wire.messages import Status
from proxy.routing.links import REFUSED, Link

if TYPE_CHECKING:
    from proxy.routing.router import Router

_STATE, _WATERMARK, _REFUSED, _LEAVING, _AUTH, _MEMBERS, _V2_EVENTS = map(int, (
    Status.STATE, Status.WATERMARK, Status.REFUSED, Status.LEAVING, Status.AUTH, Status.MEMBERS,
    Status.V2_EVENTS))


def heard(router: Router, link: Link, status: int, body: bytes) -> None:
    """One such record."""
    if status == _WATERMARK:
        router.watermark(link, int.from_bytes(body, "little"))
    elif status == _STATE:
        link.state(body)
    elif status == _AUTH:
        router.principals.heard(*read_news(body))
    elif status == _LEAVING:
        link.leave()
    elif status == _MEMBERS:
        follow(router, link, body)
    elif status == _V2_EVENTS:
        if router.v2_news is not None:
            router.v2_news(link, body)
    elif status == _REFUSED:
        link.close(REFUSED + body.decode("utf-8", "replace"))


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
