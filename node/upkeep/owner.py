"""The node whose upkeep it is, as the parts of :class:`~node.upkeep.upkeep.Upkeep` see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from node.links.fronts import FrontLink

if TYPE_CHECKING:
    from node.links.fronts import Fronts
    from node.links.incarnations import Incarnations
    from node.links.peers import Peers
    from node.members.roster import Roster
    from node.replica.writes import Writes
    from node.serving.serve import Serve
    from node.upkeep.expiry import Expiry


class UpkeepNode(Protocol):
    """What the parts need of their node that is made after them, or changes."""

    stopping: bool
    applied_index: int
    order_index: int
    writes: Writes
    expiry: Expiry
    serve: Serve
    roster: Roster
    incarnations: Incarnations
    fronts: Fronts
    peers: Peers

    def fail(self, reason: str) -> None: ...

    def wake(self) -> None: ...

    def mark_dirty(self, link: FrontLink) -> None: ...

    def raise_alarm(self, body: bytes) -> None: ...
