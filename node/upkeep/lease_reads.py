"""The keys of leases of very many keys are listed before a turn needs them: a few leases at once, in slices.

Each lease is listed once, however often it is asked for: what is due is named again every few seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from cluster.grain import GRAIN
from cluster.raft import Raft, Role
from node.slicing.slicer import Slicer, Slices

if TYPE_CHECKING:
    from node.storage import StateStore

_AT_ONCE = 8  # leases, besides those that a client waits for


class ReadingNode(Protocol):
    raft: Raft
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

    def needs(self, lease: int) -> bool:
        """Whether very many keys hang on a lease."""
        return self._node.store.hangs_many(lease, GRAIN.lease_keys)

    def lacks(self, lease: int) -> bool:
        """Whether very many keys hang on a lease, and are not listed."""
        return lease not in self._node.store.lease_lists and self.needs(lease)

    def goes_on(self, lease: int) -> bool:
        """Whether its keys are being listed."""
        return lease in self._waiting

    def read(self, lease: int, then: Callable[[], None], at_once: bool = False) -> None:
        """Call ``then`` once the keys of a lease are listed, or this replica leads no longer. ``at_once``:
        a client waits for it, so it waits for no other lease."""
        if lease in self._waiting:
            self._waiting[lease].append(then)
        else:
            self._waiting[lease] = [then]
            self._next.append(lease)
        if at_once and lease in self._next:
            self._next.remove(lease)
            self._start(lease)
        self._begin()

    def _begin(self) -> None:
        while self._next and self._running < _AT_ONCE:
            self._start(self._next.popleft())

    def _start(self, lease: int) -> None:
        self._running += 1
        self._node.slicer.start(self._reading(lease))

    def _reading(self, lease: int) -> Slices:
        for _ in self._node.store.lease_lists.read(lease, GRAIN.lease_step):
            if self._node.raft.role is not Role.LEADER:
                break  # nobody asks for them here
            yield
        self._running -= 1
        self._begin()
        for then in self._waiting.pop(lease):
            then()
        self._node.wake()
