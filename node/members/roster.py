"""The table of members at one node, and everything of the node that follows it.

Whom a node talks to: the members of the table, and whoever its own group still has, for a host that is
removed takes part until its group has let it go. Messages are refused by group and by its committed
configuration (H12): a host out of group 0, its last one, is told so, and ends for good.
"""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING, Protocol

import structlog

from cluster.errors import EtcdError
from cluster.members.checks import checked_urls
from cluster.members.described import Running
from cluster.members.table import Host, Table
from cluster.pb import rpc_pb2
from cluster.raft import Raft
from cluster.settings import NodeSettings, Peer
from cluster.wire.messages import Status
from node.links.fronts import FrontLink
from node.links.peers import REMOVED
from node.members.changes import Changes

if TYPE_CHECKING:
    import asyncio

    from node.links.fronts import Fronts
    from node.links.peers import Peers
    from node.storage import StateStore

log = structlog.get_logger("members")

MOST_TOLD = 64  # members that this node has not heard of; the first one gives way
REMOVED_FILE = "removed"  # in a node's directory: this host was removed, and does not start any more


class RosterNode(Protocol):
    """What follows the table of members, and what it is read from."""

    settings: NodeSettings
    loop: asyncio.AbstractEventLoop
    raft: Raft
    store: StateStore
    peers: Peers
    fronts: Fronts

    def wake(self) -> None:
        """Have a tick run."""

    def fail(self, reason: str) -> None:
        """End this process for a reason that a restart would not mend."""


class Roster:
    """Of one node."""

    def __init__(self, node: RosterNode, changes: Changes) -> None:
        self._node = node
        self.table = Table(node.settings.common.peers, node.store.hosts())
        self.changes = changes
        self.left = False  # this host was removed
        self.ends = True  # then; off in drills
        self._running = False
        self._connected: dict[int, float] = {}  # members that links were found to stand to, since when
        # where members are, as they say, that this node has not heard of, or does not reach
        self._told: dict[int, Host] = {}
        self.table.subscribe(self._changed)

    def start(self) -> None:
        """Peers are there, and follow from now on."""
        self._running = True
        self.configured()

    # -- what is applied here

    def applied(self, rows: list[bytes]) -> None:
        """Rows of the table, in their order."""
        self.table.take(rows)
        self.changes.applied(rows)

    def replaced(self) -> None:
        """Another state was installed."""
        self.table.replace(self._node.store.hosts())

    def greet(self, link: FrontLink) -> None:
        """A front's link is new: it knows the hosts that it was made with."""
        if self._node.settings.shard == 0 and self.table.moved:
            link.answer(0, Status.MEMBERS, self.table.encode_all())

    # -- whom this node talks to

    def reachable(self) -> dict[int, Peer]:
        """Every other host that this node has to do with."""
        node = self._node
        raft, table = node.raft, self.table
        wanted = {host.member_id for host in table.members}
        wanted |= raft.configuration.members() | raft.committed_configuration.members() | raft.peers().keys()
        wanted.discard(raft.id)
        found = {i: table.peer(i) for i in sorted(wanted) if i in table.hosts}
        return found | {i: host.peer for i, host in self._told.items()}

    def told(self, member_id: int, description: bytes) -> None:
        """A member that this node has not heard of, or that is not where the table says, has told who belongs
        to the cluster. Where it is itself counts until the table changes; its row comes with the log, which
        may be its own to send."""
        try:
            running = Running.decode(description)
        except ValueError:
            return
        told = next((m for m in running.members if m.member_id == member_id), None)
        if told is None or running.cluster_id != self._node.settings.common.cluster_id:
            return
        try:
            urls = checked_urls(told.peer_urls)
        except EtcdError:
            return
        known = self.table.hosts.get(member_id)
        if known is None or tuple(sorted(known.peer_urls)) != urls:
            self._told[member_id] = Host(member_id, told.name, urls, told.learner)
            if len(self._told) > MOST_TOLD:
                del self._told[next(iter(self._told))]
        else:  # the table is right: it cannot be reached there, which may be a matter of the network
            self._told.pop(member_id, None)
        self.look()

    @property
    def others(self) -> list[int]:
        """The other members, by ID."""
        return [h.member_id for h in self.table.members if h.member_id != self._node.raft.id]

    def is_removed(self, member_id: int) -> bool:
        """Whether a host was removed, and this group has let it go."""
        node = self._node
        return self.table.removed(member_id) and member_id not in node.raft.committed_configuration.members()

    def _changed(self) -> None:
        node = self._node
        self._told = {i: host for i, host in self._told.items() if i not in self.table.hosts}
        log.info(
            "members",
            shard=node.settings.shard,
            members=[
                f"{h.member_id:x}={','.join(h.peer_urls)}{' (learner)' if h.learner else ''}"
                for h in self.table.members
            ],
        )
        self.look()
        if node.settings.shard == 0:
            node.fronts.broadcast(Status.MEMBERS, self.table.encode_all())
            node.wake()

    def configured(self) -> None:
        """The group has committed another configuration, or this node has found so."""
        node = self._node
        if node.settings.shard == 0 and self.is_removed(node.raft.id):
            # one that was forced to go on alone has not committed yet that it is a member again
            if node.raft.id not in node.raft.configuration.members():
                self.leave()
            return
        self.look()
        self.changes.moved()

    def look(self) -> None:
        """Have peers follow; each second too, for a leader lets a removed host go only after a while."""
        if self._running:
            self._node.peers.follow()

    def second(self) -> None:
        """See who is connected."""
        node = self._node
        self.look()
        now = node.loop.time()
        for member_id, link in node.peers.links.items():
            if link.trouble()[0]:
                self._connected.pop(member_id, None)
            else:
                self._connected.setdefault(member_id, link.since(now))

    def connected_s(self, member_id: int) -> float:
        """How long a link to this member has stood, from the moment that it was made; 0: none does."""
        node = self._node
        if member_id == node.raft.id:
            return inf
        link = node.peers.links.get(member_id)
        if link is None or link.trouble()[0]:
            return 0.0
        now = node.loop.time()
        found = self._connected.setdefault(member_id, link.since(now))
        return max(now - max(found, link.since(found)), 0.001)

    def leave(self) -> None:
        """This host was removed: it ends, and never starts again with what it has
        (``tools.muster.processes.node``)."""
        if self._node.settings.shard:  # group 0 is the last to let it go
            return
        self.changes.left()
        if self.ends and not self.left:
            self.left = True
            self._node.fail(REMOVED)

    # -- what others are told

    def listed(self) -> list[rpc_pb2.Member]:
        """Every member with what it has published, by ID."""
        return self.table.listed(self._node.store.members())

    def name(self, member_id: int) -> str:
        """A host's name; empty: it is not known."""
        host = self.table.hosts.get(member_id)
        if (
            host is not None
            and not host.name
            and (published := self._node.store.members().get(member_id)) is not None
        ):
            return rpc_pb2.Member.FromString(published).name
        return host.name if host is not None else ""

    def started(self) -> set[int]:
        """Members that have published themselves."""
        return {member.ID for member in self.listed() if member.name}

    def described(self, *, alone: bool = False) -> bytes:
        """What a host that wants to join is told (``tools.muster.host.identity.joining``), and who asks by
        HTTP. ``alone``: of this member, for one that does not find it, in a message that a stranger may
        send."""
        common = self._node.settings.common
        listed = [m for m in self.listed() if common.member_id == m.ID or not alone]
        removed = [] if alone else [i for i, host in sorted(self.table.hosts.items()) if host.removed]
        return json.dumps(
            {
                "cluster_id": f"{common.cluster_id:x}",
                "shards": common.shard_count,
                "depth": common.placement_depth,
                **({"origin": common.origin} if common.origin else {}),
                "members": [
                    {
                        "id": f"{m.ID:x}",
                        "name": m.name,
                        "peer_urls": list(m.peerURLs),
                        "client_urls": list(m.clientURLs),
                        "learner": m.isLearner,
                    }
                    for m in listed
                ],
                "removed": [f"{i:x}" for i in removed],
            }
        ).encode()
