"""Work for transactions that write, done in slices ahead of the turn that evaluates them: range compares
(``cluster.evaluate.txns.range_compares``) and steps of large ones (``cluster.evaluate.steps.Stepped``). Few
run at a time; the others wait, links in turn.

A transaction whose deciding keys change faster than its ranges can be walked goes on until its front has
given it up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.steps import Stepped, Steps
from cluster.evaluate.txns.range_compares import FEW, RangeCompares
from cluster.pacing.turns import Turns
from node.links.fronts import FrontLink
from node.serving.reads import Reads
from node.serving.txns.past import PastView
from node.slicing.slicer import Slices
from node.storage import StateStore

# the shares of two connections (``--max-connection-range-compares``); each keeps an iterator of RocksDB
AT_ONCE = 32
MOST = 10_000  # of one node: beyond it TooManyRequests
_ROUNDS = 8  # of what changed while what had changed before was looked at

Wanted = Callable[[], bool]
Look = tuple[FrontLink, int, Any, Wanted, Callable[[Any], None]]
A = TypeVar("A", bound="RangeCompares | Stepped")


class Looking:
    def __init__(self, store: StateStore, reads: Reads, wake: Callable[[], None]) -> None:
        self._store = store
        self._reads = reads
        self._wake = wake
        self._turns: Turns[Look] = Turns(AT_ONCE)

    def __len__(self) -> int:
        return self._turns.used + len(self._turns)

    def start(
        self, link: FrontLink, rid: int, looked: A, wanted: Wanted, then: Callable[[A | None], None],
    ) -> None:
        """Look while it is ``wanted``; ``then`` is called once: with what was seen, or None if that was given
        up or refused."""
        if len(self) >= MOST:
            then(None)
            self._reads.refuse(link, rid, EtcdError(errors.TOO_MANY_REQUESTS))
            return
        look = link, rid, looked, wanted, then
        if self._turns.enter(link.identity, 1, look):
            self._begin(look)

    def _begin(self, look: Look) -> None:
        link, rid, *_ = look
        self._reads.start(link, rid, self._look(*look))

    def _look(
        self, link: FrontLink, rid: int, looked: Any, wanted: Wanted, then: Callable[[Any], None],
    ) -> Slices:
        seen: Any = None
        try:
            done = yield from self._steps(link, rid, looked, wanted)
            seen = looked if done and wanted() else None
        finally:
            self._turns.leave(link.identity, 1)
            try:
                then(seen)
            finally:  # a mistake there ends this one alone
                while (found := self._turns.next()) is not None:
                    self._begin(found[2])
                self._wake()

    def _steps(
        self, link: FrontLink, rid: int, looked: RangeCompares | Stepped, wanted: Wanted
    ) -> Steps[bool]:
        """Whether all was looked at: nothing may be decided by what was given up midway."""
        if not isinstance(looked, RangeCompares):
            for _ in looked.steps():
                if not (wanted() and link.awaits(rid)):
                    return False
                yield
            return True
        store = self._store
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
