"""Leases that end: a few in each turn of the loop; one of many keys once these have been read, in slices.

A thousand leases may be due at once, and one may have a hundred thousand keys, 13 us each from the disk. All
keys of a lease go in one revision, so one turn ends it, once they are listed (``lease_reads``): 2 us a key.
Only keys of very long names go in several, each in an entry of its own (``GRAIN.lease_end_bytes``). With
several shards a key takes 5 us at the sequencer, which decides how many leases end in one attempt
(``cluster.order.sequencing.expiries``).
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from cluster.effects import records
from cluster.evaluate.replica import Leader
from cluster.evaluate.validate import parse
from cluster.features.auth.principal import SAID
from cluster.features.lessor import Lessor
from cluster.pb import rpc_pb2
from cluster.raft import Raft
from cluster.raft import Role as RaftRole
from cluster.wire.messages import Method
from node.links.fronts import FrontLink
from node.slicing.slicer import Slicer
from node.upkeep.lease_reads import LeaseReads

if TYPE_CHECKING:
    from node.replica.roles.role import Role
    from node.replica.writes import Writes
    from node.storage import Applied, StateStore

KEYS = 400  # a turn's: 8 to 12 us each
_LEASE = 4  # what a lease costs besides its keys, in keys
_LOOK = 40  # what it costs to find that very many hang on a lease, in keys


class ExpiryNode(Protocol):
    loop: AbstractEventLoop
    raft: Raft
    store: StateStore
    lessor: Lessor
    slicer: Slicer
    writes: Writes
    role: Role

    def now_ms(self) -> int: ...

    def wake(self) -> None: ...


class Expiry:
    def __init__(self, node: ExpiryNode) -> None:
        self._node = node
        self._due: deque[int] = deque()
        self._reads = LeaseReads(node)
        self._of: Leader | None = None  # the term that they are of (H7: decided and appended in one term)
        self._scheduled = self._closed = False
        self.decide: Callable[[list[int]], None] = self.add  # what becomes of leases that were found due (H7)
        self.enough: Callable[[], bool] = lambda: False  # of them wait: none are to be found for now

    def changed(self, applied: Applied) -> None:
        """Grants and revokes were applied: the registry follows, on every replica, in their order."""
        lessor, now = self._node.lessor, self._node.now_ms()
        for kind, lease, seconds in applied.leases:
            if kind == records.Item.LEASE_GRANT:
                lessor.granted(lease, seconds, now)
            elif kind == records.Item.LEASE_REVOKE:
                lessor.revoked(lease)
                self._node.store.lease_lists.drop(lease)
            else:
                lessor.checkpointed(lease, seconds)

    def look(self) -> None:
        if self._node.lessor.primary and not self.enough():
            self.decide(self._node.lessor.due(self._node.now_ms()))

    def add(self, leases: Iterable[int]) -> None:
        """The leading term found these due."""
        leader = self._node.writes.leader
        if leader is not self._of:
            self._due.clear()
            self._of = leader
        due = set(self._due)  # while entries cannot leave they are named again and again
        self._due.extend(lease for lease in leases if lease not in due)
        if self._due and not self._scheduled:
            self._some()

    def _some(self) -> None:
        self._scheduled = False
        leader = self._node.writes.leader
        if leader is None or leader is not self._of or self._closed or self.decide != self.add:
            self._due.clear()  # found due again; where the data has grown meanwhile, over all shards
            return
        left, writes = KEYS, self._node.writes
        while self._due and left > 0 and not writes.full:
            lease = self._due.popleft()
            if not self._ends(lease):
                left -= 1
                continue
            if self._reads.lacks(lease):
                if not self._reads.goes_on(lease):
                    self._reads.read(lease, partial(self._was_read, leader, lease))
                left -= _LOOK
                continue
            ending = leader.expire(lease)
            writes.weigh(ending.size)
            left -= ending.keys + _LEASE
            if ending.part:
                self._due.appendleft(lease)
            else:
                self._node.store.lease_lists.drop(lease)
        self._node.wake()
        if self._due and not writes.full:  # else the next look goes on
            self._scheduled = True
            self._node.loop.call_soon(self._some)

    def _ends(self, lease: int) -> bool:
        """Whether it is still the lease that was found due: clients may end it, and grant its ID again, while
        it waits. What is logged of it and not applied decides otherwise; it is found due again."""
        leader = self._node.writes.leader
        return (leader is not None and self._node.lessor.is_expired(lease)
                and not leader.view.changes_lease(lease))

    def _was_read(self, of: Leader, lease: int) -> None:
        if self._node.writes.leader is of is self._of:  # H7: else another term has to find it due
            self.add([lease])

    def revoke(self, link: FrontLink, rid: int, timeout_ms: int, body: bytes, said: bytes = b"") -> None:
        """A client's LeaseRevokeRequest, once the keys of its lease have been read. ``said``: the principal
        before it. EtcdError if it is none."""
        node, lease = self._node, parse(rpc_pb2.LeaseRevokeRequest.FromString, body).ID
        method = Method.LEASE_REVOKE | (SAID if said else 0)

        def submit() -> None:  # to what is the role once they are read
            node.role.submit(link, rid, method, timeout_ms, said + body)

        if node.raft.role is RaftRole.LEADER:
            self.when_read([lease], submit)
        else:
            submit()

    def when_read(self, leases: Sequence[int], then: Callable[[], None]) -> None:
        """Call ``then`` once the keys of these leases are in memory: at once unless there are very many."""
        for at, lease in enumerate(leases, 1):
            if self._reads.needs(lease):
                self._reads.read(lease, partial(self.when_read, leases[at:], then), at_once=True)
                return
        then()

    def as_read(self, leases: list[int], then: Callable[[list[int]], None]) -> None:
        """Call ``then`` with most of these leases at once, and with each lease of very many keys when these
        are read: with those that are due still. Some are left out while very much is kept of others: they are
        named again."""
        def told(found: list[int]) -> None:
            if ending := [lease for lease in found if self._ends(lease)]:
                then(ending)

        few = []
        left = KEYS
        if self._closed:
            return
        for at, lease in enumerate(leases):
            if left <= 0:
                self._node.loop.call_soon(partial(self.as_read, leases[at:], then))
                break
            if self._reads.needs(lease):
                lists = self._node.store.lease_lists
                if not self._reads.goes_on(lease) and (lease in lists or not lists.full):
                    self._reads.read(lease, partial(told, [lease]))
                left -= _LOOK
            else:
                few.append(lease)
        if few:
            told(few)

    def close(self) -> None:
        """The store is about to be closed: no lease ends here any more."""
        self._closed = True
