"""Writes at this replica: admitted, evaluated by the leader, answered when their entry's fate is known.

* Not the leader: NOT_LEADER at once, which tells the front that nothing was logged (I23).
* Leader elected, own term not applied yet: writes queue (bounded) until it is (I8).
* Leader: all writes of a tick are evaluated and become one entry; their answers wait for its apply (I7).
* Term lost: answers of logged entries are held until the entry at their index is applied: same term, it is
  done; another term, it was lost for certain and the front may resend (review (b), Lost term).

Hot path: one put costs a queue append, its evaluation, one struct pack and two list appends here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from cluster import errors
from cluster.errors import EtcdError
from cluster.lease import Lessor
from cluster.messages import ANSWER, HEAD, LEADER, Method, Status
from cluster.pace import Pace
from cluster.replica import AppliedState, Batch, Leader, NotYet
from node.fronts import FrontLink

log = structlog.get_logger("writes")

_MAX_QUEUED = 50_000  # writes waiting to be evaluated; beyond it TooManyRequests
_MAX_ENTRY_BYTES = 4 << 20  # an entry is closed above this size, so that no record holds up the others for long
_MAX_UNCOMMITTED = 8  # entries on their way; while so many are, requests gather for a larger one


class Consensus(Protocol):
    """What is asked of Raft here."""

    @property
    def term(self) -> int: ...
    @property
    def leader_id(self) -> int: ...
    @property
    def is_leader(self) -> bool: ...
    @property
    def transferring(self) -> bool: ...
    def propose(self, data: bytes) -> int: ...


@dataclass(slots=True)
class Proposal:
    """One entry of this leader whose answers are open."""

    index: int
    term: int
    batch: Batch
    answers: list[tuple[FrontLink, bytes]]  # encoded answer records, sent when the entry is applied
    owed: list[tuple[FrontLink, int]]  # (link, rid) of each, to take the answers back if the entry is lost
    controls: list[tuple[FrontLink, bytes, bool]]  # compactions (answer, physical): acknowledged by the node


class Writes:
    """The write path of one replica."""

    def __init__(
        self,
        raft: Consensus,
        store: AppliedState,
        mark_dirty: Callable[[FrontLink], None],
        *,
        max_txn_ops: int,
        lessor: Lessor,
        new_lease_id: Callable[[], int],
        over_quota: Callable[[int, bytes], bool],
        control_applied: Callable[[FrontLink, bytes, bool], None],
        pace: Pace | None = None,
    ) -> None:
        self._raft = raft
        self._store = store
        self._mark_dirty = mark_dirty
        self._max_txn_ops = max_txn_ops
        self._lessor = lessor
        self._new_lease_id = new_lease_id
        self._over_quota = over_quota
        self._control_applied = control_applied
        self._pace = pace or Pace()
        self._queue: deque[tuple[FrontLink, int, int, bytes]] = deque()
        self._queued_bytes = 0
        self._later: list[tuple[int, FrontLink, int, int, bytes]] = []  # need this revision applied first
        self._answers: list[tuple[FrontLink, bytes]] = []
        self._owed: list[tuple[FrontLink, int]] = []
        self._controls: list[tuple[FrontLink, bytes, bool]] = []
        self._staged_bytes = 0
        self._proposals: deque[Proposal] = deque()
        self.leader: Leader | None = None
        self.on_logged: Callable[[int], None] = lambda index: None
        self.committed = 0
        self.proposed = 0
        self.failed = 0

    # -- leadership

    def lead(self) -> Leader:
        """An entry of this replica's own term has been applied: serve from now on (I8)."""
        self.leader = Leader(self._store, self._raft.term, max_txn_ops=self._max_txn_ops, lessor=self._lessor,
                             new_lease_id=self._new_lease_id)
        return self.leader

    def resign(self) -> None:
        """The term is lost: what was not logged certainly never will be."""
        self.leader = None
        for link, rid in self._owed:
            self._not_leader(link, rid)
        self._answers, self._owed, self._controls, self._staged_bytes = [], [], [], 0
        self._refuse_queued()

    def _refuse_queued(self) -> None:
        while self._queue:
            link, rid, _, _ = self._queue.popleft()
            self._not_leader(link, rid)
        self._queued_bytes = 0
        for _, link, rid, _, _ in self._later:
            self._not_leader(link, rid)
        self._later.clear()

    def _not_leader(self, link: FrontLink, rid: int) -> None:
        leader = self._raft.leader_id if not self._raft.is_leader else 0
        link.answer(rid, Status.NOT_LEADER, LEADER.pack(leader, self._raft.term))
        self._mark_dirty(link)
        self.failed += 1

    # -- requests

    def submit(self, link: FrontLink, rid: int, method: int, body: bytes) -> None:
        """Take in one write of a front."""
        if not self._raft.is_leader:
            self._not_leader(link, rid)
        elif len(self._queue) >= _MAX_QUEUED:
            link.answer(rid, Status.ERROR, EtcdError(errors.TOO_MANY_REQUESTS).encode())
            self._mark_dirty(link)
        else:
            self._queue.append((link, rid, method, body))
            self._queued_bytes += len(body)

    @property
    def queued(self) -> int:
        """Writes waiting to be evaluated."""
        return len(self._queue)

    @property
    def due(self) -> bool:
        """Whether an entry may leave now, if there is anything for it (``cluster.pace``)."""
        under_way = len(self._proposals)
        return under_way < _MAX_UNCOMMITTED and self._pace.due(under_way, len(self._queue), self._queued_bytes)

    @property
    def uncommitted(self) -> int:
        """Entries of this leader on their way."""
        return len(self._proposals)

    def run(self) -> None:
        """Evaluate what is queued and propose it, as far as the pipeline has room."""
        leader = self.leader
        if leader is None or self._raft.transferring:
            return  # what is queued waits: for the own term's first apply, or for the hand-over to end
        if not self._raft.is_leader or self._raft.term != leader.term:
            return  # deposed by a message of this very tick: what is queued is refused when Raft says so
        queue = self._queue
        while queue or self._owed or leader.dirty:
            # what others have staged (a cut, a transaction over several shards, a lease's end) has waited its turn
            staged = bool(self._owed) or leader.dirty
            if len(self._proposals) >= _MAX_UNCOMMITTED if staged else not self.due:
                return
            self._evaluate(leader)
            if not self._owed and not leader.dirty:
                return
            self._propose(leader)

    def _evaluate(self, leader: Leader) -> None:
        queue, execute = self._queue, leader.execute
        answers, owed, pack, head, term = self._answers, self._owed, ANSWER.pack, HEAD.pack, leader.term
        size, queued_bytes = self._staged_bytes, self._queued_bytes
        while queue and size < _MAX_ENTRY_BYTES:
            link, rid, method, body = queue.popleft()
            queued_bytes -= len(body)
            if not link.alive:
                continue
            try:
                if self._over_quota(method, body):
                    raise EtcdError(errors.NO_SPACE)
                outcome = execute(method, body)
            except EtcdError as e:
                text = e.encode()
                record = pack(rid, Status.ERROR, len(text)) + text
            except NotYet as e:
                self._later.append((e.revision, link, rid, method, body))
                continue
            else:
                tail = outcome.tail
                record = pack(rid, 0, 16 + len(tail)) + head(outcome.revision, term) + tail
                size += len(outcome.items)
                if method in (Method.COMPACT, Method.SET_ALARM):
                    physical = method == Method.COMPACT and _is_physical(body)
                    self._controls.append((link, record, physical))
                    owed.append((link, rid))
                    continue
            answers.append((link, record))
            owed.append((link, rid))
        self._staged_bytes, self._queued_bytes = size, queued_bytes

    def _propose(self, leader: Leader) -> None:
        data, batch = leader.seal()
        proposal = Proposal(0, leader.term, batch, self._answers, self._owed, self._controls)
        self._answers, self._owed, self._controls, self._staged_bytes = [], [], [], 0
        proposal.index = self._raft.propose(data)
        self._proposals.append(proposal)
        self.on_logged(proposal.index)
        self.proposed += len(proposal.owed)

    def stage(self, link: FrontLink, rid: int, record: bytes) -> None:
        """An answer of what was appended besides: it leaves with the open entry."""
        self._answers.append((link, record))
        self._owed.append((link, rid))

    # -- fates

    def applied(self, index: int, term: int) -> None:
        """The entry at ``index`` has been applied and was of ``term``."""
        proposals = self._proposals
        while proposals and (proposals[0].index <= index or proposals[0].term < term):
            proposal = proposals.popleft()
            if proposal.index == index and proposal.term == term:
                self._done(proposal)
            else:
                # Another leader's entry stands there, or one of a later term stands before it: ours is lost for
                # certain. Left here, it would stand before the entries that this replica logs in a later term.
                for link, rid in proposal.owed:
                    self._not_leader(link, rid)

    def _done(self, proposal: Proposal) -> None:
        leader = self.leader
        if leader is not None and leader.term == proposal.term:
            leader.applied(proposal.batch)
        self.committed += len(proposal.owed)
        link = None
        for link_of, record in proposal.answers:
            if link_of is not link:
                link = link_of
                put = link.put
                self._mark_dirty(link)
            put(record)
        for link_of, record, physical in proposal.controls:
            self._control_applied(link_of, record, physical)
        if self._later:
            self._retry_later()

    def _retry_later(self) -> None:
        revision = self._store.revision
        ready = [w for w in self._later if w[0] <= revision]
        if ready:
            self._later = [w for w in self._later if w[0] > revision]
            self._queue.extendleft([(link, rid, method, body) for _, link, rid, method, body in reversed(ready)])
            self._queued_bytes += sum(len(w[4]) for w in ready)

    def skipped_to(self, index: int) -> None:
        """A snapshot replaced everything up to ``index``: nobody here can tell what became of older entries."""
        while self._proposals and self._proposals[0].index <= index:
            for link, rid in self._proposals.popleft().owed:
                link.answer(rid, Status.UNKNOWN, EtcdError(errors.TIMEOUT_DUE_TO_LEADER_FAIL).encode())
                self._mark_dirty(link)

    def statistics(self) -> dict[str, int]:
        """Counts for metrics."""
        return {"queued": len(self._queue), "uncommitted_entries": len(self._proposals), "committed": self.committed,
                "proposed": self.proposed, "failed": self.failed}


def _is_physical(body: bytes) -> bool:
    from cluster.pb.rpc_pb2 import CompactionRequest

    return CompactionRequest.FromString(body).physical
