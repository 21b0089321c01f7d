"""What most parts of a node need of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

    from cluster.raft import Raft
    from cluster.settings import NodeSettings
    from node.links.fronts import FrontLink
    from node.storage import StateStore


class AnyNode(Protocol):
    """A part that needs more has a protocol of its own, based on this one."""

    settings: NodeSettings
    loop: asyncio.AbstractEventLoop
    raft: Raft
    store: StateStore

    def now_ms(self) -> int:
        """Raft's time."""

    def wake(self) -> None:
        """Have a tick run at the end of this turn of the loop."""

    def mark_dirty(self, link: FrontLink) -> None:
        """Something is queued on this link: have a tick send it."""
