"""Whose list of the members a front goes by.

A host's front goes by its own node's, which also names members whose rows are long in coming there. While
that node does not answer or is cut off, and at a machine without one, it goes by the lists of all nodes, but
by none that is older than the last. A list is at least as new as what its node says that it has applied.
That may come later than the list, so each is looked at again with each STATE. Each is taken once: lists that
are equally new may name a host differently, as nodes have different seeds.
"""

from __future__ import annotations

from typing import Protocol

from cluster.members.table import Table, decode_all
from cluster.settings import Common
from proxy.routing.links import Link
from proxy.routing.members.reach import Reach
from proxy.routing.routes import ShardRoute


class Front(Protocol):
    """The router, as far as it is of use here."""

    common: Common
    members: Table
    learner: bool
    reach: Reach
    routes: dict[int, ShardRoute]


class Following:
    def __init__(self, front: Front) -> None:
        self._front = front
        self._list = b""  # the last one that was followed
        self._applied = 0  # by the nodes that have told it
        self._taken: dict[int, bytes] = {}  # by member: its list, since the own node's counted last

    def told(self, link: Link, body: bytes) -> None:
        """MEMBERS has come."""
        link.members = body
        self.look(link)

    def look(self, link: Link) -> None:
        """STATE has come, or another list."""
        if link.shard or not link.members:
            return
        front = self._front
        own = front.common.member_id
        home = front.routes[0].links.get(own)
        by_own = home is not None and home.heard and home.leader
        if link is not home if by_own else link.applied < self._applied:
            return
        self._applied = link.applied
        if by_own:
            self._taken.clear()
        elif self._taken.get(link.member_id) == link.members:
            return
        self._taken[link.member_id] = link.members
        if link.members == self._list:
            return
        self._list = link.members
        front.members.follow(decode_all(link.members))
        front.learner = front.members.learner(own)
        peers = front.members.peers
        front.reach.follow(peers)
        for route in front.routes.values():
            route.follow(p.member_id for p in peers)
