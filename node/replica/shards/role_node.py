"""What the roles in a store of several shards need of their node."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from node.links.fronts import FrontLink
from node.replica.roles.role import Handler

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


class RoleNode(Protocol):
    """What both roles drive, and where they register the rest."""

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

    def wake(self) -> None: ...
    def mark_dirty(self, link: FrontLink) -> None: ...
