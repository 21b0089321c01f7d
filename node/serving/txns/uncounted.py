"""Writes with large ranges that come while the keys are still being counted, as after a start.

To evaluate them is to count their ranges, and that would walk over all of these in one turn of the leader. So
they wait until these are counted, and one piece of work for all of them counts along. Ranges of few keys are
walked, and those that are counted by now do not wait. Those over several shards wait at the sequencer's node
for shard 0's keys. Another shard's leader counts its own in one turn: to refuse would leave the others'
ranges locked. A node that is to end and whose place nobody takes goes on counting for a while
(``node.replica.leaving``). Then it refuses them: they were never logged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.footprint import footprint
from cluster.evaluate.spans import Span, inverted
from cluster.faults import MISTAKES, faults
from cluster.features.auth.principal import named
from cluster.wire.messages import Method
from node.links.fronts import FrontLink, Request, say_not_leader
from node.slicing.slicer import Slicer, Slices

if TYPE_CHECKING:
    from cluster.raft import Raft
    from node.replica.roles.role import Role
    from node.serving.reads import Reads
    from node.storage import StateStore

_MOST = 10_000  # that wait: beyond it TooManyRequests
_MOST_BYTES = 64 << 20  # of theirs
_STEPS = 16  # of counting, 0.3 ms each, between two looks at all that wait
_METHODS = frozenset((Method.DELETE_RANGE, Method.TXN))


class UncountedNode(Protocol):
    store: StateStore
    raft: Raft
    role: Role
    slicer: Slicer
    reads: Reads
    left: bool

    def now_ms(self) -> int: ...
    def wake(self) -> None: ...
    def mark_dirty(self, link: FrontLink) -> None: ...


class Waiting(NamedTuple):
    link: FrontLink
    rid: int
    method: int
    until_ms: int
    body: bytes
    ranges: list[Span]  # what is counted last comes first


class Uncounted:
    def __init__(self, node: UncountedNode) -> None:
        self._node = node
        self._waiting: deque[Waiting] = deque()
        self._bytes = 0
        self._counting = False  # the work is under way

    def __len__(self) -> int:
        return len(self._waiting)

    def taker(self, requests: Sequence[Request]) -> Role | Uncounted:
        """What takes the requests of a frame."""
        if self._node.store.counts.ready or not any(method in _METHODS for _, method, _, _ in requests):
            return self._node.role
        return self

    def submit_all(self, link: FrontLink, requests: Sequence[Request]) -> bool:
        return False

    def submit(self, link: FrontLink, rid: int, method: int, timeout_ms: int, body: bytes) -> None:
        """To the role, now or once its ranges are counted. EtcdError."""
        node = self._node
        ranges = [] if node.store.counts.ready or not node.raft.is_leader else _ranges(method, body)
        if not ranges or not node.store.uncounted(ranges):
            node.role.submit(link, rid, method, timeout_ms, body)
            return
        if node.left:
            self._refuse(link, rid)
            return
        if len(self) >= _MOST or self._bytes + len(body) > _MOST_BYTES:
            raise EtcdError(errors.TOO_MANY_REQUESTS)
        self._waiting.append(Waiting(link, rid, method, node.now_ms() + timeout_ms, body, ranges))
        self._bytes += len(body)
        if not self._counting:
            self._counting = True
            node.slicer.start(self._count())

    def refuse(self) -> None:
        """All that wait. Their fronts were told to ask elsewhere, and send them again."""
        while self._waiting:
            waiting = self._waiting.popleft()
            self._refuse(waiting.link, waiting.rid)
        self._bytes = 0

    def _refuse(self, link: FrontLink, rid: int) -> None:
        say_not_leader(self._node.raft, link, rid)
        self._node.mark_dirty(link)

    def _count(self) -> Slices:
        node = self._node
        try:
            while self._waiting:
                for _ in range(_STEPS):
                    counts = node.store.counts
                    if not node.raft.is_leader or (counts.build_step() and counts.cut_step()):
                        break
                    yield
                yield from self._look()
        finally:
            self._counting = False

    def _look(self) -> Slices:
        """Pass on what waits no longer."""
        for _ in range(len(self)):
            if not self._waiting:  # refused meanwhile
                return
            waiting = self._waiting.popleft()
            if self._waits(waiting):
                self._waiting.append(waiting)
            else:
                self._bytes -= len(waiting.body)
                self._pass_on(*waiting[:5])
            yield

    def _waits(self, waiting: Waiting) -> bool:
        """A node that has lost its term refuses it, and nothing of it is logged."""
        node, knows = self._node, self._node.store.counts.knows
        awaited = waiting.link.awaits(waiting.rid) and node.raft.is_leader
        return awaited and not all(knows(*span) for span in waiting.ranges)

    def _pass_on(self, link: FrontLink, rid: int, method: int, until_ms: int, body: bytes) -> None:
        if not link.awaits(rid):
            return
        try:
            self._node.role.submit(link, rid, method, max(until_ms - self._node.now_ms(), 0), body)
        except EtcdError as e:
            self._node.reads.refuse(link, rid, e)
        except MISTAKES as error:  # the others go on
            faults.met(f"taking in a request of method {method}", error)
            self._node.reads.refuse(link, rid, EtcdError(errors.INTERNAL_FAULT))
        self._node.wake()


def _ranges(method: int, body: bytes) -> list[Span]:
    """What a request counts."""
    _, method, body = named(method, body)
    if method == Method.WIDE:
        method, body = body[0], body[1:]
    if method not in _METHODS:
        return []
    try:
        touched = footprint(method, body)
    except EtcdError:  # refused in its turn
        return []
    ranges = {span for span in (*touched.reads, *touched.writes) if span[1] and not inverted(span)}
    return sorted(ranges, key=lambda span: (span[1] == b"\0", span[1]), reverse=True)
