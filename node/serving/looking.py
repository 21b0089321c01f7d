"""Range compares of transactions that write, looked at in slices ahead of the turn that evaluates them
(``cluster.evaluate.txns.range_compares``), and transactions of very many operations
(``cluster.evaluate.txns.draft``). A few are looked at at a time; the others wait for these.

A transaction whose deciding keys change faster than its ranges can be walked goes on until its front has
given it up; nobody waits for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.replica import Ahead
from cluster.evaluate.txns.draft import Draft
from cluster.evaluate.txns.range_compares import FEW, RangeCompares
from cluster.evaluate.txns.transactions import Steps
from node.links.fronts import FrontLink
from node.serving.past import PastView
from node.slicing.slicer import Slices

if TYPE_CHECKING:
    from node.replica.server import Node

AT_ONCE = 16  # each keeps an iterator of RocksDB
MOST = 10_000  # of one node: beyond it TooManyRequests
_ROUNDS = 8  # of what changed while what had changed before was looked at

Wanted = Callable[[], bool]
A = TypeVar("A", RangeCompares, Draft, Ahead)


class Looking:
    """The looks ahead of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._running = 0
        self._waiting: deque[tuple[FrontLink, int, Any, Wanted, Callable[[Any], None]]] = deque()

    def __len__(self) -> int:
        return self._running + len(self._waiting)

    def write(self, link: FrontLink, rid: int, looked: Ahead) -> None:
        """For a transaction of ``node.replica.writes``."""
        writes = self._node.writes
        self.start(
            link, rid, looked, lambda: writes.looks(link, rid),
            lambda looked: writes.resume(link, rid, looked))

    def start(
        self, link: FrontLink, rid: int, looked: A, wanted: Wanted, then: Callable[[A | None], None],
    ) -> None:
        """Look at them, as long as that is ``wanted``; ``then`` is called once: with what was seen, or None if it was given
        up or refused."""
        if len(self) >= MOST:
            then(None)
            self._node.reads.refuse(link, rid, EtcdError(errors.TOO_MANY_REQUESTS))
            return
        self._waiting.append((link, rid, looked, wanted, then))
        self._next()

    def _next(self) -> None:
        while self._waiting and self._running < AT_ONCE:
            link, rid, looked, wanted, then = self._waiting.popleft()
            self._running += 1
            self._node.reads.start(link, rid, self._look(link, rid, looked, wanted, then))

    def _look(
        self, link: FrontLink, rid: int, looked: Any, wanted: Wanted, then: Callable[[Any], None],
    ) -> Slices:
        seen: Any = None
        try:
            done = yield from self._steps(link, rid, looked, wanted)
            seen = looked if done and wanted() else None
        finally:
            self._running -= 1
            then(seen)
            self._next()
            self._node.wake()

    def _steps(self, link: FrontLink, rid: int, looked: Ahead, wanted: Wanted) -> Steps[bool]:
        """Whether all was looked at: nothing may be decided by what was given up midway."""
        if isinstance(looked, Draft):
            for _ in looked.steps():
                if not (wanted() and link.awaits(rid)):
                    return False
                yield
            return True
        store = self._node.store
        rounds = 0
        while wanted() and link.awaits(rid):
            if looked.unwalked(store.compact_revision):
                for _ in looked.walk(PastView(store.reader())):
                    if not (wanted() and link.awaits(rid)):
                        return False
                    yield
            changes = yield from looked.catch_up(store)
            rounds += 1
            if changes <= FEW or rounds >= _ROUNDS:
                return True
            yield
        return False
