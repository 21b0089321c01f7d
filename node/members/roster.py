"""The table of members at one node, and everything of the node that follows it.

A node talks to the members of the table and of its own group, for a removed host takes part until its
group has let it go. Messages are refused by group and by its committed configuration (H12): a host out of
group 0, its last one, is told so, and ends for good.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from math import inf
from typing import TYPE_CHECKING, Protocol

import structlog

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.auth.principal import Principal
from cluster.members import goals
from cluster.members.checks import checked_urls
from cluster.members.described import Running
from cluster.members.table import Host, Table
from cluster.pb import rpc_pb2
from cluster.settings import Peer
from cluster.wire.messages import Status
from node.any_node import AnyNode
from node.links.fronts import FrontLink
from node.links.peer_link import REMOVED

if TYPE_CHECKING:

    from node.links.fronts import Fronts
    from node.links.peers import Peers

log = structlog.get_logger("members")

MOST_TOLD = 64  # addresses that members told; the first one gives way
TURN_S = 3.0  # a member is dialled at each URL that it says, then at each of the table's, for so long each
_SHORT_BYTES = 3072  # of a member's peer URLs: a message of a stranger has 4 KiB at most


class RosterNode(AnyNode, Protocol):
    peers: Peers
    fronts: Fronts

    def fail(self, reason: str) -> None: ...


class MemberChanges(Protocol):
    """What is asked of ``node.members.changes.Changes``."""

    def submit(self, link: FrontLink, rid: int, body: bytes, principal: Principal = ...) -> None: ...
    def want(self, host: Host) -> None: ...
    def asked(self, link: FrontLink, rid: int, body: bytes) -> None: ...
    def leading(self) -> None: ...
    def resign(self) -> None: ...
    def another_leads(self, shard: int) -> None: ...
    def shards_changed(self) -> None: ...
    @property
    def settled(self) -> bool: ...
    def look(self) -> None: ...
    def applied(self, rows: list[bytes]) -> None: ...
    def moved(self) -> None: ...
    def left(self) -> None: ...


class Roster:
    def __init__(self, node: RosterNode, changes: MemberChanges) -> None:
        self._node = node
        self.table = Table(node.settings.common.peers, node.store.hosts())
        self.changes = changes
        self.left = False  # this host was removed
        self.ends = True  # when it was removed; off in drills
        self._running = False
        self._connected: dict[int, float] = {}  # members with a link that works, since when
        # where members are that this node does not know or reach, as they tell; since when
        self._told: dict[int, tuple[Host, float]] = {}
        # host and port where a link to a member stood last, and when; at first, when it was asked for
        self._found: dict[int, tuple[tuple[str, int], float]] = {}
        self._elsewhere: dict[int, Host] = {}  # as fronts were told: members reached where no row says
        self.table.subscribe(self._changed)

    def start(self) -> None:
        if not self._refuses():
            self._running = True
            self.configured()

    def _refuses(self) -> bool:
        """Whether this host takes no peers, and yet is one of several. Then it ends."""
        node = self._node
        if not node.settings.common.alone:
            return False
        several = bool(self.others or node.raft.configuration.members() - {node.raft.id})
        if several:
            node.fail(f"{errors.TAKES_NO_PEER.text}: its cluster has other members")
        return several

    @property
    def votes_change(self) -> bool:
        """Whether other hosts are to vote in this node's group."""
        return goals.votes_change(
            self.table.hosts, self._node.raft.configuration, lambda member_id: self.connected_s(member_id) > 0
        )

    # -- what is applied here

    def applied(self, rows: list[bytes]) -> None:
        self.table.take(rows)
        self.changes.applied(rows)

    def replaced(self) -> None:
        self.table.replace(self._node.store.hosts())

    def greet(self, link: FrontLink) -> None:
        """A front's link is new. It knows the hosts of its start; one of this host, what it was told last."""
        if self._node.settings.shard == 0 and (link.own or self.table.moved):
            elsewhere = self._elsewhere if link.own else {}
            link.answer(0, Status.MEMBERS, self.table.encode_all(elsewhere))

    # -- the peers

    def reachable(self) -> dict[int, Peer]:
        node = self._node
        raft, table = node.raft, self.table
        wanted = {host.member_id for host in table.members}
        wanted |= raft.configuration.members() | raft.committed_configuration.members() | raft.peers().keys()
        wanted.discard(raft.id)
        found = {i: self.peer(i) for i in (*sorted(wanted & table.hosts.keys()), *self._told)}
        return {i: peer for i, peer in found.items() if peer is not None}

    def peer(self, member_id: int) -> Peer | None:
        """How a host is reached now; None: it is unknown. Its addresses take turns: the first is the one
        that it told last, or where a link stood last."""
        now = self._node.loop.time()
        peers = [self.table.peer(member_id)] if member_id in self.table.hosts else []
        if member_id in self._told:
            host, since = self._told[member_id]
            peers.insert(0, host.peer)
            at = peers[0].addresses[0]
        elif peers:
            at, since = self._found.setdefault(member_id, (peers[0].addresses[0], now))
        else:
            return None
        turns = [(peer, address) for peer in peers for address in peer.addresses]
        first = next((i for i, (_, address) in enumerate(turns) if address == at), 0)
        peer, (reached, port) = turns[(first + int((now - since) // TURN_S)) % len(turns)]
        return replace(peer, host=reached, port=port)

    def told(self, member_id: int, description: bytes) -> None:
        """A member that this node does not know, or does not find where the table says, has told where it
        is. It is dialled there until the table changes, for its row comes with the log, which may be its
        own to send. The table's address takes turns: a member that has just moved may tell an old one."""
        try:
            running = Running.decode(description)
        except ValueError:
            return
        told = next((m for m in running.members if m.member_id == member_id), None)
        if told is None or running.cluster_id != self._node.settings.common.cluster_id:
            return
        try:
            host = replace(told, peer_urls=tuple(sorted(checked_urls(told.peer_urls))))
            Host.decode(host.encode())  # fronts are to read it
        except (EtcdError, ValueError):
            return
        known = self.table.hosts.get(member_id)
        if known is None or not set(host.peer_urls) <= set(known.peer_urls):
            before = self._told.get(member_id)
            if before is None or before[0] != host:  # else its turns go on
                self._told[member_id] = host, self._node.loop.time()
            if len(self._told) > MOST_TOLD:
                del self._told[next(iter(self._told))]
        else:  # the table is right
            self._told.pop(member_id, None)
        self.look()

    @property
    def others(self) -> list[int]:
        return [h.member_id for h in self.table.members if h.member_id != self._node.raft.id]

    def is_removed(self, member_id: int) -> bool:
        """Whether a host was removed, and this group has let it go."""
        node = self._node
        return self.table.removed(member_id) and member_id not in node.raft.committed_configuration.members()

    def _changed(self) -> None:
        node = self._node
        self._told = {i: told for i, told in self._told.items() if i not in self.table.hosts}
        log.info(
            "members",
            shard=node.settings.shard,
            members=[
                f"{h.member_id:x}={','.join(h.peer_urls)}{' (learner)' if h.learner else ''}"
                for h in self.table.members
            ],
        )
        if self._refuses():  # a log may add hosts only as it is read
            return
        self.look()
        if node.settings.shard == 0:
            node.fronts.broadcast(Status.MEMBERS, self.table.encode_all())
            self._elsewhere = {}  # as those were just told
            self._follow_links()
            node.wake()

    def configured(self) -> None:
        """The group has committed another configuration, or this node has learned so."""
        node = self._node
        if node.settings.shard == 0 and self.is_removed(node.raft.id):
            # a host that was forced to go on alone has not committed yet that it is a member again
            if node.raft.id not in node.raft.configuration.members():
                self.leave()
            return
        self.look()
        self.changes.moved()

    def look(self) -> None:
        """Have the links follow the members. Each second, too: a leader drops a removed host only after a
        while."""
        if self._running:
            self._node.peers.follow()

    def second(self) -> None:
        node = self._node
        self.look()
        now = node.loop.time()
        for member_id, link in node.peers.links.items():
            if link.trouble()[0]:
                self._connected.pop(member_id, None)
            else:
                if member_id in self.table.hosts:
                    self._found[member_id] = (link.peer.host, link.peer.port), now
                self._connected.setdefault(member_id, link.since(now))
        self._follow_links()

    def _follow_links(self) -> None:
        """This host's fronts look for members where links of this node stand, for the row of a member that
        was added or has moved may be long in coming. Other fronts have links to several hosts, each as far
        as it is."""
        node, elsewhere = self._node, dict[int, Host]()
        for member_id, link in node.peers.links.items() if self._running else ():
            listed = member_id in self.table.hosts
            if link.trouble()[0] or not (listed or member_id in self._told):
                continue
            host = self.table.hosts[member_id] if listed else self._told[member_id][0]
            if listed and (link.peer.host, link.peer.port) in self.table.peer(member_id).addresses:
                self._told.pop(member_id, None)  # fronts try them all
            else:
                elsewhere[member_id] = replace(host, peer_urls=Host.of(link.peer).peer_urls)
        if node.settings.shard == 0 and elsewhere != self._elsewhere:
            self._elsewhere = elsewhere
            node.fronts.broadcast(Status.MEMBERS, self.table.encode_all(elsewhere), own=True)
            node.wake()

    def connected_s(self, member_id: int) -> float:
        """How long a link to this member has worked, in seconds; 0: it does not."""
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
        """This host was removed: it ends. It never starts again with its data if they say so
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
        """A host's name; empty: unknown."""
        host = self.table.hosts.get(member_id)
        if host is None:
            return ""
        if not host.name and (published := self._node.store.members().get(member_id)) is not None:
            return rpc_pb2.Member.FromString(published).name
        return host.name

    def started(self) -> set[int]:
        return {member.ID for member in self.listed() if member.name}

    def described(self, *, alone: bool = False) -> bytes:
        """JSON for a host that wants to join (``tools.muster.host.identity.joining``), and for HTTP.
        ``alone``: only of this member, for a peer that does not find it, and short, as from a stranger. A
        member that was removed leads on until its groups let it go."""
        common = self._node.settings.common
        listed = self.table.listed(self._node.store.members(), common.member_id) if alone else self.listed()
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
                        "peer_urls": _first(m.peerURLs) if alone else list(m.peerURLs),
                        "client_urls": [] if alone else list(m.clientURLs),
                        "learner": m.isLearner,
                    }
                    for m in listed
                ],
                "removed": [f"{i:x}" for i in removed],
            }
        ).encode()


def _first(urls: Sequence[str]) -> list[str]:
    """Those that a peer tries until it has the row with all."""
    sizes = accumulate(len(url) + 4 for url in urls)
    return [url for url, size in zip(urls, sizes, strict=True) if size <= _SHORT_BYTES]
