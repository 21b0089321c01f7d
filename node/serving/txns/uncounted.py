"""Writes with large ranges that come while the keys are still being counted, as after a start.

To evaluate them is to count their ranges, and that would walk over all of these in one turn of the leader. So
they wait, and count along. Ranges of few keys are walked, and those before the cursor are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from cluster.errors import EtcdError
from cluster.evaluate.footprint import footprint
from cluster.evaluate.spans import inverted
from cluster.evaluate.steps import Steps
from cluster.features.auth.principal import named
from cluster.wire.messages import Method
from node.links.fronts import FrontLink, Request

if TYPE_CHECKING:
    from cluster.raft import Raft
    from node.replica.roles.role import Role
    from node.serving.reads import Reads
    from node.serving.txns.looking import Looking
    from node.storage import StateStore

_FEW = 16  # ranges; 0.4 ms each, to see whether it has few keys
_METHODS = frozenset((Method.DELETE_RANGE, Method.TXN))


class UncountedNode(Protocol):
    store: StateStore
    raft: Raft
    role: Role
    looking: Looking
    reads: Reads


class Count:
    """Count keys until all are counted (``cluster.evaluate.steps.Stepped``)."""

    def __init__(self, store: StateStore) -> None:
        self._store = store

    def steps(self) -> Steps[None]:
        while not (self._store.counts.build_step() and self._store.counts.cut_step()):
            yield


class Uncounted:
    def __init__(self, node: UncountedNode) -> None:
        self._node = node

    def taker(self, requests: Sequence[Request]) -> Role | Uncounted:
        """What takes the requests of a frame."""
        if self._node.store.counts.ready or not any(method in _METHODS for _, method, _, _ in requests):
            return self._node.role
        return self

    def submit_all(self, link: FrontLink, requests: Sequence[Request]) -> bool:
        return False

    def submit(self, link: FrontLink, rid: int, method: int, timeout_ms: int, body: bytes) -> None:
        """To the role, now or once all is counted."""
        node = self._node
        if node.store.counts.ready or not node.raft.is_leader or not self._waits(method, body):
            node.role.submit(link, rid, method, timeout_ms, body)
        else:
            counted = partial(self._counted, (link, rid, method, timeout_ms, body))
            node.looking.start(link, rid, Count(node.store), lambda: True, counted)

    def _counted(self, request: tuple[FrontLink, int, int, int, bytes], done: Count | None) -> None:
        if done is None:
            return  # nobody waits for it any more
        link, rid, *_ = request
        try:
            self._node.role.submit(*request)
        except EtcdError as e:
            self._node.reads.refuse(link, rid, e)

    def _waits(self, method: int, body: bytes) -> bool:
        _, method, body = named(method, body)
        if method not in _METHODS:
            return False
        try:
            touched = footprint(method, body)
        except EtcdError:  # refused in its turn
            return False
        ranges = [span for span in (*touched.reads, *touched.writes) if span[1] and not inverted(span)]
        return len(ranges) > _FEW or any(self._node.store.uncounted(*span) for span in ranges)
