"""News of the table of placement: a node tells fronts what it has applied, on each link in its order.

G9: nothing that is newer than a change leaves on a link before the news of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.placement import Table
from cluster.wire.frames import GROWTH_SINCE
from cluster.wire.messages import Status
from node.links.fronts import FrontLink

if TYPE_CHECKING:
    from node.storage import StateStore
    from node.upkeep.owner import UpkeepNode


class Placed:
    def __init__(
        self, node: UpkeepNode, store: StateStore, told: Callable[[Table], None] = lambda table: None
    ) -> None:
        """``told``: of each table that is applied here."""
        self._node = node
        self._store = store
        self._told = told

    def greet(self, link: FrontLink) -> None:
        """A link is new: its front knows the table of the beginning."""
        table = self._store.placement() if link.watches and link.version >= GROWTH_SINCE else None
        if table is not None and table.generation:
            link.answer(0, Status.PLACEMENT, table.encode())

    def applied(self, table: Table) -> None:
        self._told(table)
        self._node.fronts.broadcast(Status.PLACEMENT, table.encode())
        self._node.wake()

    def replaced(self) -> None:
        """Another state was installed."""
        table = self._store.placement()
        if table is not None and table.generation:
            self.applied(table)
