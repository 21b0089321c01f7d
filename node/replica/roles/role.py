"""What differs between nodes: their roles.

A node is the same everywhere: a Raft log, a state, links, and a tick that drives them. It holds one ``Role``,
chosen in ``node.replica.roles.made``: ``LoneRole`` in a store of one shard; in one of several shards
``OrderRole`` for shard 0, whose log is the order, and ``ShardRole`` for the others, which follow it.

The node calls the role in each tick. What else a role has, it registers with a part of the node: requests
of other nodes in ``Node.handlers``, frames of peers in ``Node.frames``, periodic work with ``Node.clock``,
the end of a link in ``Node.link_ends``, other decisions with ``Node.expiry``, ``Node.upkeep`` and
``Node.writes``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from cluster.features.lessor import Lessor
from cluster.order.moving.mover import Mover
from cluster.order.sequencing.coordinator import Coordinator
from node.links.fronts import FrontLink, Request
from node.links.siblings import NodeLinks
from node.replica.moving.moved import MovedKeys
from node.serving.confirm import Confirmations

Body = Callable[[int], bytes]  # makes a request's body for a link of this version
Handler = Callable[[FrontLink, int, int, bytes], None]  # link, rid, timeout_ms, body


class Owed(IntEnum):
    """What a node that is to end has not answered yet."""

    NOTHING = 0
    FATE = 1  # a client waits for what was logged here
    LEADING = 2  # a client waits here for what only a leader is told


@dataclass(frozen=True, slots=True)
class Kinds:
    """The classes of parts that the simulator replaces by subclasses."""

    lessor: type[Lessor] = Lessor
    confirmations: type[Confirmations] = Confirmations
    links: type[NodeLinks] = NodeLinks
    coordinator: type[Coordinator[Any]] = Coordinator
    mover: type[Mover] = Mover
    moved: type[MovedKeys] = MovedKeys


class Role(Protocol):
    """See the module."""

    @property
    def links(self) -> NodeLinks | None:
        """Links to nodes of other shards, if there are any."""
        return None

    @property
    def gathers(self) -> bool:
        """Whether only this node waits for its applies: it prepares rows early, and may apply late."""

    @property
    def awaited(self) -> bool:
        """Whether another process waits for what is applied here."""
        return False

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
        """Whether :meth:`evaluate` would certainly do nothing now."""

    def submit(self, link: FrontLink, rid: int, method: int, timeout_ms: int, body: bytes) -> None:
        """A write of a front."""

    def submit_all(self, link: FrontLink, requests: Sequence[Request]) -> bool:
        """The writes of a front's frame together. False: none was taken, each is to be submitted."""
        return False

    def evaluate(self) -> None:
        """The first part of a tick: evaluate what is queued, and propose it."""

    def finish(self) -> None:
        """The last part of a tick, before everything is sent."""
        return

    def apply(self, last: int) -> None:
        """The group has committed up to ``last``: apply what can be applied."""

    def catch_up(self) -> None:
        """Apply all that is known to be committed: a read is about to look."""

    def replaced(self) -> None:
        """Another state was installed (H8)."""

    def leader_changed(self) -> None:
        """Raft follows another leader or none, or this replica begins or ceases to lead."""
        return

    def ask_leader(
        self, shard: int, method: int, body: Body, answered: Callable[[int, bytes], bool] | None = None,
    ) -> None:
        """Ask the leader of another shard, if it is known."""
        return

    @property
    def shards(self) -> Sequence[int]:
        """The shards in the order, as this node 0 knows."""
        return (0,)

    def covers(self, voters: Collection[int], last: int) -> bool:
        """Whether a majority of these hosts has durably applied the order up to ``last`` in every other
        shard, as this node 0 knows (I17)."""

    def unapplied(self) -> Iterable[bytes]:
        """Records of the order that are here and not applied yet."""

    def facts(self) -> dict[str, Any]:
        """Figures for ``node.upkeep.facts``."""
        return {}

    def close(self) -> None:
        """The node closes, and answers nothing more."""
        return
