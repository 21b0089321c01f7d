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

_AT_ONCE = 8  # leases; besides them as many that a client waits for


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
        self._asked: deque[int] = deque()  # those that a client waits for, which are not begun either
        self._running = {False: 0, True: 0}  # by whether a client waits for it

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
        a client waits for it, so it waits for no lease but such ones."""
        if lease in self._waiting:
            self._waiting[lease].append(then)
        else:
            self._waiting[lease] = [then]
            self._next.append(lease)
        if at_once and lease in self._next:
            self._next.remove(lease)
            self._asked.append(lease)
        self._begin()

    def _begin(self) -> None:
        running, lists = self._running, self._node.store.lease_lists
        while self._next and running[False] < _AT_ONCE:
            self._start(self._next.popleft(), asked=False)
        # a list that is being made counts in no bound of memory but this one
        while self._asked and running[True] < (1 if lists.full else _AT_ONCE):
            self._start(self._asked.popleft(), asked=True)

    def _start(self, lease: int, *, asked: bool) -> None:
        self._running[asked] += 1
        self._node.slicer.start(self._reading(lease, asked))

    def _reading(self, lease: int, asked: bool) -> Slices:
        for _ in self._node.store.lease_lists.read(lease, GRAIN.lease_step):
            if self._node.raft.role is not Role.LEADER:
                break  # nobody asks for them here
            yield
        self._running[asked] -= 1
        self._begin()
        for then in self._waiting.pop(lease):
            then()
        self._node.wake()
