"""A new table of placement at this front, and reads that were on their way by the one before (G7).

A node answers MOVED to a read if its keys are in a change that the front did not know. The front says PLACED
on each link before it sends anything by a new table, so a node knows by which table a read was sent. The
front asks a read again, by the way that the read came, if it was not sent yet or its link has ended: another
link knows only the newest table. Writes need nothing: a leader answers ELSEWHERE for keys of another shard,
and the sequencer knows which shard that is. So it gets what waits for a shard that is gone: a front begins
with the table of the beginning, and serves before a node has told it a newer one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cluster import errors
from cluster.placement import Table
from cluster.wire.messages import Method
from proxy.routing.links import Link
from proxy.routing.routes import ShardRoute
from proxy.routing.waiting import MOVED, PartWaiting, Waiting

if TYPE_CHECKING:
    from proxy.routing.router import Router


class Moved:
    def __init__(self, router: Router) -> None:
        self._router = router
        #: How a client's read is asked again, by its method.
        self.anew: dict[int, Callable[[Waiting], None]] = {}
        self.generation = 0  # of the table by which this front goes; 0: no key has moved
        self._row = b""  # the table, once keys have moved: what nodes are told
        self._left: list[Waiting] = []  # by shards that are gone: unsent
        #: When the read was asked first whose handler asks it again just now; 0: none does.
        self.began = 0.0

    def tell(self, table: Table) -> None:
        """This front goes by another table from here on: say so on each link."""
        self.generation = table.moved
        if table.moved or self._row:
            self._row = table.encode()
        for route in self._router.routes.values():
            for link in route.links.values():
                if link.up:
                    self.greet(link)

    def leaves(self, route: ShardRoute) -> None:
        """A shard is gone. What waits here for it stays until watches have followed."""
        self._left += route.unsent()

    def ask_unsent(self) -> None:
        """Place again what waits here by an older table."""
        left, self._left = self._left, []
        for waiting in left:
            self._anew(waiting)
        if not self._row:
            return  # no key has moved
        router = self._router
        unsent = router.recent.take(self._names_keys) + router.read_index.take(self._names_keys)
        for route in router.routes.values():
            unsent += filter(self._names_keys, route.reads)
            route.reads = deque(waiting for waiting in route.reads if not self._names_keys(waiting))
        for waiting in unsent:
            self.ask(waiting)

    def _anew(self, waiting: Waiting) -> None:
        """Of a shard that is gone."""
        router = self._router
        if self._names_keys(waiting):
            self.ask(waiting)
        elif waiting.left:
            router.gone(waiting)
        else:
            router.to_leader(waiting)

    def placed_anew(self, waiting: Waiting) -> bool:
        """Whether a read whose link has ended is asked again, since keys have moved at some time."""
        if not self._row or not self._names_keys(waiting):
            return False
        self.ask(waiting)
        return True

    def _names_keys(self, waiting: Waiting) -> bool:
        return isinstance(waiting, PartWaiting) or waiting.method in self.anew

    def greet(self, link: Link) -> None:
        """Say by which table this front goes, before anything else."""
        if self._row:
            self._router.post(link, 0, Method.PLACED, self._row)
        if link.near is not None:
            link.near.generation = self.generation

    @contextmanager
    def since(self, began: float) -> Iterator[None]:
        """Reads that are made meanwhile were first asked then: so a large one comes to its time limit."""
        before, self.began = self.began, began
        try:
            yield
        finally:
            self.began = before

    def ask(self, waiting: Waiting) -> None:
        """A read was not sent, or not answered."""
        router = self._router
        if isinstance(waiting, PartWaiting):
            waiting.tell(MOVED, b"")
        elif waiting.left:
            router.gone(waiting)
        elif (anew := self.anew.get(waiting.method)) is not None and waiting.call is not None:
            with self.since(waiting.began):
                anew(waiting)
        else:  # none of a client's
            router.fail(waiting, errors.TIMEOUT)
