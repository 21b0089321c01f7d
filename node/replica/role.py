"""What a replica does because of its shard's place in the order: the part in which nodes differ.

A ``Node`` is one class: a Raft log, a state, links, and a tick that drives them. It holds one ``Role``,
chosen in ``node.replica.made`` when it is made: ``LoneRole`` in a store of one shard; in one of several
shards ``OrderRole`` for shard 0, whose log is the order, and ``ShardRole`` for the others, which follow it.

The node calls the role on its way through a tick. What a role has besides, it registers with the part of the
node that it adds to: requests of other nodes in ``Node.handlers``, frames of peers in ``Node.frames``, work
of each heartbeat and each second with ``Node.clock``, the end of a link in ``Node.link_ends``, and what it
decides otherwise with ``Node.expiry``, ``Node.upkeep`` and ``Node.writes``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

from cluster.features.lessor import Lessor
from cluster.order.sequencing.coordinator import Coordinator
from node.links.fronts import FrontLink
from node.links.siblings import NodeLinks
from node.serving.confirm import Confirmations

if TYPE_CHECKING:
    import asyncio

    from cluster.raft import Raft
    from cluster.settings import NodeSettings
    from node.machine import NodeMachine
    from node.members.roster import Roster
    from node.replica.clock import Clock
    from node.serving.reads import Reads
    from node.storage import StateStore
    from node.upkeep.expiry import Expiry
    from node.upkeep.upkeep import Upkeep

Body = bytes | Callable[[int], bytes]  # of a request; or what makes it for a link of this version
Handler = Callable[[FrontLink, int, int, bytes], None]  # link, rid, timeout_ms, body


class Owed(IntEnum):
    """What a node that is to end has not answered yet."""

    NOTHING = 0
    FATE = 1  # somebody waits for what was logged here
    LEADING = 2  # somebody waits here for what only a leader is told


@dataclass(frozen=True, slots=True)
class Kinds:
    """The classes of parts that the simulator makes its own subclasses of."""

    lessor: type[Lessor] = Lessor
    confirmations: type[Confirmations] = Confirmations
    links: type[NodeLinks] = NodeLinks
    coordinator: type[Coordinator[Any]] = Coordinator


class RoleNode(Protocol):
    """What the roles in a store of several shards need of their node: what they drive, and where they
    register what they have besides. The protocol of each role adds its own to this."""

    settings: NodeSettings
    machine: NodeMachine
    loop: asyncio.AbstractEventLoop
    raft: Raft
    store: StateStore
    roster: Roster
    reads: Reads
    clock: Clock
    expiry: Expiry
    upkeep: Upkeep
    handlers: dict[int, Handler]
    frames: dict[int, Callable[[int, bytes], None]]

    def wake(self) -> None:
        """Have a tick run."""

    def mark_dirty(self, link: FrontLink) -> None:
        """Something is queued on this link."""


class Role(Protocol):
    """See the module."""

    @property
    def links(self) -> NodeLinks | None:
        """Links to nodes of other shards; None: there are none."""

    @property
    def gathers(self) -> bool:
        """Whether this node alone waits for what is committed: rows are made before, and applied later where
        nobody looks."""

    @property
    def awaited(self) -> bool:
        """Whether another process waits for what is applied here."""

    @property
    def alone(self) -> bool:
        """Whether at most one write is on its way here, and none waits."""

    @property
    def queued(self) -> int:
        """Writes that wait to be evaluated, or are looked at before."""

    @property
    def has_room(self) -> bool:
        """Whether a tick would evaluate writes that are queued."""

    @property
    def owed(self) -> Owed:
        """What keeps this node from ending."""

    @property
    def settled(self) -> bool:
        """Whether :meth:`evaluate` would do nothing now, for certain."""

    def submit(self, link: FrontLink, rid: int, method: int, timeout_ms: int, body: bytes) -> None:
        """A write of a front."""

    def evaluate(self) -> None:
        """The first part of a tick: evaluate what is queued, and propose it."""

    def finish(self) -> None:
        """The last part of a tick, before everything is sent."""

    def apply(self, last: int) -> None:
        """The group has committed up to there: apply what can be applied."""

    def catch_up(self) -> None:
        """Have all applied that is known to be committed: somebody is about to look."""

    def replaced(self) -> None:
        """Another state was installed (H8)."""

    def leader_changed(self) -> None:
        """Raft follows another leader, or none, or this replica leads, or leads no more."""

    def ask_leader(
        self, shard: int, method: int, body: Body, answered: Callable[[int, bytes], bool] | None = None,
    ) -> None:
        """Ask the leader of another shard, if it is known: by the form that its link's version has."""

    def unapplied(self) -> Iterable[bytes]:
        """Records of the order that are here and not applied yet."""

    def facts(self) -> dict[str, Any]:
        """What ``node.upkeep.facts`` tells besides."""

    def close(self) -> None:
        """The node is closing; nothing is answered any more."""
