"""The keys of leases of very many keys are listed before a turn needs them: a few leases at once, in slices.

Each lease is listed once, however often it is asked for: what is due is named again every few seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from node.slicing.slicer import Slicer, Slices

if TYPE_CHECKING:
    from node.storage import StateStore

MANY = 256  # keys of a lease that are read first
_STEP = 32  # keys read in a step
_AT_ONCE = 8  # leases


class ReadingNode(Protocol):
    store: StateStore
    slicer: Slicer

    def wake(self) -> None: ...


class LeaseReads:
    def __init__(self, node: ReadingNode) -> None:
        self._node = node
        # what is to be done once the keys of these leases are listed
        self._waiting: dict[int, list[Callable[[], None]]] = {}
        self._next: deque[int] = deque()  # those of them that are not begun
        self._running = 0

    def lacks(self, lease: int) -> bool:
        """Whether very many keys hang on a lease, and are not listed."""
        return lease not in self._node.store.lease_lists and self._node.store.hangs_many(lease, MANY)

    def goes_on(self, lease: int) -> bool:
        """Whether its keys are being listed."""
        return lease in self._waiting

    def read(self, lease: int, then: Callable[[], None]) -> None:
        """Call ``then`` once the keys of a lease are listed."""
        if lease in self._waiting:
            self._waiting[lease].append(then)
            return
        self._waiting[lease] = [then]
        self._next.append(lease)
        self._begin()

    def _begin(self) -> None:
        while self._next and self._running < _AT_ONCE:
            self._running += 1
            self._node.slicer.start(self._reading(self._next.popleft()))

    def _reading(self, lease: int) -> Slices:
        yield from self._node.store.lease_lists.read(lease, _STEP)
        self._running -= 1
        self._begin()
        for then in self._waiting.pop(lease):
            then()
        self._node.wake()
