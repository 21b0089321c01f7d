"""What a node reports about itself: to its supervisor that it serves and which leader it follows, to all
links its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import structlog

from cluster.machine import StatusSink
from cluster.raft import Role
from cluster.version import MADE
from cluster.wire.messages import STATE_BODY, Status
from node.any_node import AnyNode
from node.links.contacts import Contacts
from node.links.round_trips import INTERVAL_S

if TYPE_CHECKING:
    from node.links.fronts import Fronts
    from node.links.peers import Peers
    from node.members.roster import Roster
    from node.replica.clock import Clock
    from node.upkeep.upkeep import Upkeep

log = structlog.get_logger("node")


class StandingNode(AnyNode, Protocol):
    status: StatusSink
    fronts: Fronts
    peers: Peers
    roster: Roster
    clock: Clock
    upkeep: Upkeep
    applied_index: int


class Standing:
    def __init__(self, node: StandingNode) -> None:
        self._node = node
        self._leader = (0, 0)  # member, term
        self.followed_ms = node.now_ms()  # since when, by Raft's time
        self._role = Role.LEADER
        self._contacts: Contacts | None = None
        self.ready = False  # the supervisor was told so

    def started(self) -> None:
        """The node runs."""
        node, raft = self._node, self._node.raft
        log.info("node started", shard=node.settings.shard, term=raft.term, commit=raft.commit_index,
                 applied=node.applied_index, revision=node.store.revision, last_index=raft.last_index)
        self._log_role()

    def leads(self) -> None:
        """This node serves as leader, from now on."""
        raft = self._node.raft
        # etcd's words and count of terms, for which people and scripts search
        log.info(f"{raft.id:x} became leader at term {raft.term + MADE}", shard=self._node.settings.shard,
                 term=raft.term, revision=self._node.store.revision)

    def _log_role(self) -> None:
        raft, before = self._node.raft, self._role
        self._role = raft.role
        if raft.role not in (before, Role.LEADER):
            role = raft.role.name.lower().replace("_", "-")
            log.info(f"{raft.id:x} became {role} at term {raft.term + MADE}", shard=self._node.settings.shard,
                     term=raft.term)

    def leader_changed(self) -> None:
        """Raft may follow another leader or none, or the same in another term."""
        node = self._node
        self._log_role()
        now = (node.raft.leader_id, node.raft.term)
        if now != self._leader:
            self._leader = now
            self.followed_ms = node.now_ms()
            name = node.roster.name(now[0])
            log.info("leader changed", shard=node.settings.shard, leader=f"{now[0]:x}", name=name,
                     term=now[1])
            node.status.say("leader", shard=node.settings.shard, leader=now[0], name=name, term=now[1])
            self.say_state()
            node.upkeep.publishing.publish()
            self.say_ready()

    def second(self, now: float) -> None:
        node = self._node
        if self._contacts is None:
            # a learner and a voter exchange round trips alone while there is no leader
            silent_s = max(2 * node.settings.common.election_timeout_ms / 1000, 2 * INTERVAL_S + 1)
            self._contacts = Contacts(
                node.raft.id, node.settings.shard, node.peers.links, node.peers.received_bytes, silent_s)
        node.peers.look()
        node.roster.second()
        self._contacts.look(node.raft.leader_id, now, node.raft.configuration.voters)

    def say_ready(self) -> None:
        """Tell the supervisor once that this node serves."""
        # as etcd, only with its own attributes applied: MemberList never shows a ready host as unstarted
        if not self.ready and self._leader[0] and self._node.upkeep.publishing.done():
            self.ready = True
            self._node.status.say("ready")
            self._node.upkeep.begin(started=True)

    def say_state(self) -> None:
        """Tell all links this node's state: it has changed, or shows that the node lives."""
        self._node.clock.state_said()
        self._node.fronts.broadcast(Status.STATE, self.state())

    def state(self) -> bytes:
        node, raft = self._node, self._node.raft
        return STATE_BODY.pack(
            node.settings.shard, raft.leader_id, raft.term, raft.commit_index, node.applied_index,
            node.store.revision)
