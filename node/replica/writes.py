"""Writes at this replica: admitted, evaluated by the leader, answered when their entry's fate is known.

* Not the leader: NOT_LEADER at once, which tells the front that nothing was logged (I23).
* Leader elected, own term not applied yet: writes queue (bounded) until it is (I8).
* Leader: all writes of a tick are evaluated and become one entry; their answers wait for its apply (I7).
* Term lost: answers of logged entries wait until the entry at their index is applied. With the same term it
  is done; with another term it is certainly lost, and the front may resend (review (b), Lost term).

Hot path: one put costs a queue append, its evaluation, one struct pack and a list append here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from cluster import errors
from cluster.errors import ErrorKind, EtcdError
from cluster.evaluate.feature_table import EVERYWHERE
from cluster.evaluate.overlay import AppliedState, NotYet
from cluster.evaluate.replica import Ahead, Batch, Leader
from cluster.evaluate.requests import refused_behind_a_part
from cluster.evaluate.txns.compares import Unlooked
from cluster.evaluate.txns.transactions import DueAnswer
from cluster.features.auth.judge import Leases, judge
from cluster.features.auth.principal import NOBODY, SAID, split
from cluster.features.rows import RowsOf
from cluster.order.leading.pending import Elsewhere
from cluster.pacing.pace import MAX_ENTRY_BYTES, Pace
from cluster.pipeline.aside import Aside
from cluster.pipeline.intake import Intake
from cluster.pipeline.under_way import UnderWay
from cluster.placement.owned import Shown
from cluster.raft import Raft
from cluster.wire.messages import ANSWER, HEAD, LEADER, OF_KEYS, PUT_ANSWER, Method, Status
from node.links.fronts import FrontLink, say_not_leader
from node.storage import Prepared, PreparedPuts, PreparedRows

_PUT, _V2_WRITE = int(Method.PUT), int(Method.V2_WRITE)
_HEAD_BYTES = HEAD.size
_MAX_UNCOMMITTED = 8  # entries on their way; while so many are, requests gather for a larger one

Request = tuple[FrontLink, int, int, bytes]  # its way back, rid, method
Reply = tuple[FrontLink, int, bytes]  # its way back, rid, the encoded answer record


class Turn(FrontLink):
    """Stands in the queue for a piece of the leader's own work, as the link of one who hears no answer."""

    __slots__ = ("work",)

    def __init__(self, work: Callable[[Leader], int]) -> None:
        super().__init__(b"", lambda parts: False, b"", 0)
        self.alive = False
        self.work = work


class Beside(NamedTuple):
    """What is done beside the loop for requests that touch many rows."""

    # link, rid, answer, term: answers what shows many rows
    answer: Callable[[FrontLink, int, DueAnswer, int], None]
    # link, rid, what to look at, if it is still wanted, what takes the result (``node.serving.txns.looking``)
    look: Callable[[FrontLink, int, Ahead, Callable[[], bool], Callable[[Any], None]], None]
    shown: Callable[[], Shown]  # of the keys that are here now


class Owed:
    """What an entry of this leader owes, from the first answer that will leave with it."""

    __slots__ = ("answers", "batch", "controls", "count", "index", "late", "rows", "size", "term")

    def __init__(self) -> None:
        self.index = self.term = 0  # of the entry, once it is logged
        self.answers: list[Reply] = []  # sent when the entry is applied
        # compactions, refused ones with physical, too (answer, physical): acknowledged by the node
        self.controls: list[tuple[Reply, bool]] = []
        self.late: list[tuple[FrontLink, int, DueAnswer]] = []  # made once it is applied
        self.size = 0  # bytes that go into the entry, roughly
        self.count = 0  # of all these, once it is sealed
        self.batch: Batch | None = None  # as well
        self.rows: Prepared | None = None  # of a batch that is nothing but plain puts, or plain sets

    @property
    def owed(self) -> list[tuple[FrontLink, int]]:
        """The requests that are answered with it, if only that it is lost."""
        return [(link, rid) for link, rid, _ in (*self.answers, *self.late)] + [
            (link, rid) for (link, rid, _), _ in self.controls]


class Writes:
    def __init__(
        self, raft: Raft, store: AppliedState, mark_dirty: Callable[[FrontLink], None],
        make_leader: Callable[[], Leader], *, refusal: Callable[[int, bytes], ErrorKind | None],
        control_applied: Callable[[FrontLink, bytes, bool], None], pace: Pace | None = None,
        beside: Beside | None = None,
    ) -> None:
        """``make_leader()``: the evaluator for Raft's present term. With ``beside`` it may leave answers for
        later, and ask for a look ahead."""
        self._raft = raft
        self._store = store
        self._mark_dirty = mark_dirty
        self._make_leader = make_leader
        self._refusal = refusal
        self._control_applied = control_applied
        self._intake: Intake[Request] = Intake(pace or Pace())
        self._later: list[tuple[int, FrontLink, int, int, bytes]] = []  # need this revision applied first
        self._open = Owed()
        self._under_way: UnderWay[Owed] = UnderWay(_MAX_UNCOMMITTED)
        self._beside = beside
        # requests for which a look ahead is under way, as they go back into the queue
        self._aside: Aside[tuple[FrontLink, int], tuple[int, bytes]] = Aside()
        # of requests that are queued, in _later or held
        self._looked: dict[tuple[FrontLink, int], Ahead] = {}
        self._parts: list[Request] = []  # of which the open entry holds a part: they go on with the next one
        self._begun: set[tuple[FrontLink, int]] = set()  # of which a part is logged, queued again
        self.held: list[Request] = []  # they wait for the end of a move's switch (``node.replica.moving``)
        self.leader: Leader | None = None
        self.on_logged: Callable[[int], None] = lambda index: None
        # whether so many bytes are within the quota for certain
        self.fits: Callable[[int], bool] = lambda size: True
        # where other shards may have keys of a lease (Elsewhere); None: all are here
        self.lease_keys: Leases | None = None
        # whether a write is another shard's, as keys have moved; None: none is
        self.lacks: Callable[[int, bytes], bool] | None = None
        self.committed = 0
        self.proposed = 0
        self.failed = 0

    # -- leadership

    def lead(self) -> Leader:
        """Serve from now on: an entry of this replica's own term has been applied (I8)."""
        self.leader = self._make_leader()
        return self.leader

    def resign(self) -> None:
        """The term is lost: nothing that was not logged will be."""
        self.leader = None
        lost = self._open.owed
        lost += [(link, rid) for link, rid, _, _ in self._intake.drain() if not isinstance(link, Turn)]
        lost += [(link, rid) for _, link, rid, _, _ in self._later]
        lost += self._aside.drain()
        self._open = Owed()
        self._later.clear()
        self._looked.clear()
        self._begun.clear()
        for link, rid in lost:
            self._not_leader(link, rid)

    def _not_leader(self, link: FrontLink, rid: int) -> None:
        say_not_leader(self._raft, link, rid)
        self._mark_dirty(link)
        self.failed += 1

    # -- requests

    def submit(self, link: FrontLink, rid: int, method: int, body: bytes) -> None:
        if not self._raft.is_leader:
            self._not_leader(link, rid)
        elif not self._intake.take((link, rid, method, body), self._elsewhere):
            link.answer(rid, Status.ERROR, EtcdError(errors.TOO_MANY_REQUESTS).encode())
            self._mark_dirty(link)

    def submit_all(self, link: FrontLink, requests: Sequence[tuple[int, int, int, bytes]]) -> bool:
        """Take the writes of a frame together. False: they are to be submitted one by one."""
        return self._raft.is_leader and self._intake.take_all(
            [(link, rid, method, body) for rid, method, _, body in requests],
            self._elsewhere)

    @property
    def _elsewhere(self) -> int:
        """Requests that wait outside of the queue."""
        return len(self._later) + len(self._aside) + len(self.held)

    def take_queued(self) -> list[Request]:
        """All that is queued, which the caller puts back, or answers."""
        return self._intake.drain()

    def take_held(self) -> list[Request]:
        held, self.held = self.held, []
        return held

    def goes_on(self, link: FrontLink, rid: int) -> None:
        """A request that was queued is another's now: nothing of it stays here."""
        self._looked.pop((link, rid), None)
        self._begun.discard((link, rid))

    def sweep(self) -> None:
        """Each second: drop what waits and its front has given up, so that it keeps no other one out (I23).
        While very many keys are deleted, or before this leader serves, nothing is evaluated for long."""
        if len(self._intake) + self._elsewhere:
            self._intake.forget(_given_up)
            self._later = [later for later in self._later if not _given_up(later[1:])]
            self.held = [request for request in self.held if not _given_up(request)]
            self._looked = {
                token: looked for token, looked in self._looked.items() if token[0].awaits(token[1])}

    def put_back(self, requests: list[Request]) -> None:
        self._intake.first(requests)

    @property
    def queued(self) -> int:
        return len(self._intake.queue)

    def in_turn(self, work: Callable[[Leader], int]) -> None:
        """Do this behind all that is queued now and before what comes later, or never if the term ends. It
        returns bytes to be logged. One at a time: it comes on top of the most requests that may wait."""
        self._intake.queue.append((Turn(work), 0, 0, b""))

    @property
    def aside(self) -> int:
        """Transactions with a look ahead under way."""
        return len(self._aside)

    @property
    def due(self) -> bool:
        """Whether an entry may leave now, if there is anything for it (``cluster.pacing.pace``)."""
        return self.has_room and self._intake.due(len(self._under_way))

    @property
    def has_room(self) -> bool:
        return self._under_way.has_room and self._raft.takes_proposals

    @property
    def ready(self) -> bool:
        """Whether :meth:`run` has anything to propose now."""
        leader = self.leader
        if leader is None:
            return False
        return self.has_room if self._staged(leader) else bool(self._intake.queue) and self.due

    @property
    def alone(self) -> bool:
        """Whether at most one request is under way here, and none waits."""
        entries = self._under_way.entries
        return not self._intake.queue and (
            not entries or (len(entries) == 1 and len(entries[0].answers) <= 1))

    @property
    def uncommitted(self) -> int:
        return len(self._under_way)

    def run(self) -> None:
        leader = self.leader
        if leader is None or self._raft.transferring:
            return  # until the own term's first apply, or the end of the hand-over
        raft = self._raft
        if not raft.is_leader or raft.term != leader.term:
            return  # deposed by a message of this tick: what is queued is refused when Raft tells so
        queue, view = self._intake.queue, leader.view
        most_read = view.read + MAX_ENTRY_BYTES  # what is read holds the turn, however a request comes out
        staged = self._staged(leader)
        while queue or staged:
            # what was staged (a cut, a transaction over several shards, a lease's end) has waited its turn
            if not (self.has_room if staged else self.due):
                return
            self._evaluate(leader, most_read)
            if not self._staged(leader):
                return
            self._propose(leader)
            if view.read >= most_read:
                return  # :attr:`ready` says whether it goes on in the next turn
            staged = self._staged(leader)

    def _staged(self, leader: Leader) -> bool:
        owed = self._open
        return bool(owed.answers or owed.controls or owed.late) or leader.dirty

    def _evaluate(self, leader: Leader, most_read: int) -> None:
        intake, owed, put = self._intake, self._open, leader.put
        queue, answers, pack, term = intake.queue, owed.answers, PUT_ANSWER.pack, leader.term
        size, queued_bytes = owed.size, intake.bytes
        # near the quota each is judged by its own size; where users are enabled, by its client
        puts = not leader.auth.enabled and self._refusal(_PUT, b"") is None and self.fits(queued_bytes)
        while queue and size < MAX_ENTRY_BYTES:
            link, rid, method, body = queue.popleft()
            queued_bytes -= len(body)
            if not link.alive:
                self.goes_on(link, rid)
                if isinstance(link, Turn):
                    size += link.work(leader)
                continue
            if puts and method == _PUT and (revision := put(body)):
                answers.append((link, rid, pack(rid, 0, _HEAD_BYTES, revision, term)))
                size += len(body)
            elif puts and method == _V2_WRITE and (tail := leader.v2_set(body)) is not None:
                head = pack(rid, 0, _HEAD_BYTES + len(tail), leader.view.revision, term)
                answers.append((link, rid, head + tail))
                size += len(body) + len(tail)  # as much as is logged, roughly
            else:
                size += self._execute(leader, link, rid, method, body)
                puts = puts and not leader.auth.enabled  # it may have enabled users
                if leader.view.read >= most_read:
                    break
        owed.size, intake.bytes = size, queued_bytes
        if self._parts:
            intake.first(self._parts)
            self._parts = []

    def _execute(self, leader: Leader, link: FrontLink, rid: int, method: int, body: bytes) -> int:
        """Any write but a plain put. Returns the bytes to be logged."""
        looked = self._looked.pop((link, rid), None) if self._looked else None
        said, asked = method, body  # as it goes back into the queue
        if begun := bool(self._begun) and (link, rid) in self._begun:
            self._begun.remove((link, rid))
        try:
            method, body = self._judged(leader, link, method, body)
            if (refusal := self._refusal(method, body)) is not None:
                raise EtcdError(refusal)
            self._check_own(method, body)
            if looked is None and method == Method.TXN and (looked := leader.ahead(body)) is not None:
                raise Unlooked
            outcome = leader.execute(method, body, looked)
        except EtcdError as e:
            text = (refused_behind_a_part(e) if begun else e).encode()
            refused = link, rid, ANSWER.pack(rid, Status.ERROR, len(text)) + text
            if e.kind is errors.COMPACTED and _is_physical(method, body):  # it waits for that, as etcd's
                self._open.controls.append((refused, True))
            else:
                self._open.answers.append(refused)
            return 0
        except Elsewhere:
            link.answer(rid, Status.ELSEWHERE, LEADER.pack(0, 0))
            self._mark_dirty(link)
            return 0
        except NotYet as e:
            return self._wait((e.revision, link, rid, said, asked), looked)
        except Unlooked as e:
            assert self._beside is not None
            token = link, rid
            self._aside.put(token, (said, asked))  # judged again in its turn
            self._beside.look(
                link, rid, leader.look(e, body, looked), partial(self._aside.__contains__, token),
                partial(self.resume, link, rid))
            return 0
        if outcome.part:
            self._parts.append((link, rid, said, asked))
            self._begun.add((link, rid))
            return len(outcome.items)
        if outcome.late is not None:
            due = DueAnswer(outcome.late, outcome.revision - outcome.changed, outcome.revision)
            self.stage_late((link, rid), due)
            return len(outcome.items)
        tail = outcome.tail
        reply = (
            link, rid,
            ANSWER.pack(rid, 0, _HEAD_BYTES + len(tail)) + HEAD.pack(outcome.revision, leader.term) + tail)
        if method in EVERYWHERE:
            self._open.controls.append((reply, _is_physical(method, body)))
        else:
            self._open.answers.append(reply)
        return len(outcome.items)

    def _judged(self, leader: Leader, link: FrontLink, method: int, body: bytes) -> tuple[int, bytes]:
        """Method and body of a request whose client may have that done. EtcdError: it may not."""
        principal, said = NOBODY, method & SAID
        if said:
            principal, body = split(body)
            method &= ~SAID
        if said or (leader.auth.enabled and link.watches):  # auth may have been enabled since it came
            judge(leader.auth, principal, method, body, self.lease_keys or leader.view)
        return method, body

    def _check_own(self, method: int, body: bytes) -> None:
        """Elsewhere: it is another shard's by now (G7)."""
        if self.lacks is not None and method in OF_KEYS and self.lacks(method, body):
            raise Elsewhere

    def _wait(self, later: tuple[int, FrontLink, int, int, bytes], looked: Ahead | None) -> int:
        self._later.append(later)
        if looked is not None:
            self._looked[later[1], later[2]] = looked
        assert len(self._intake) + len(self._later) <= self._intake.most + 1, "I23: what waits is bounded"
        return 0

    def resume(self, link: FrontLink, rid: int, looked: Ahead | None) -> None:
        """A look ahead is done; None: it was given up, and nothing is answered here."""
        asked = self._aside.back((link, rid))
        if asked is not None and looked is not None:
            self._looked[link, rid] = looked
            self._intake.first([(link, rid, *asked)])

    def _propose(self, leader: Leader) -> None:
        owed, self._open = self._open, Owed()
        data, owed.batch = leader.seal()
        owed.count = len(owed.answers) + len(owed.controls) + len(owed.late)
        self.proposed += owed.count
        index = self._raft.propose(data)
        self._under_way.logged(index, leader.term, owed)
        self.on_logged(index)

    @property
    def full(self) -> bool:
        """Whether what is appended besides waits until the open entry has left."""
        return self._open.size >= MAX_ENTRY_BYTES

    def weigh(self, size: int) -> None:
        """``size`` bytes were appended besides: the open entry has less room for what is queued."""
        self._open.size += size

    def stage(self, token: tuple[FrontLink, int], status: int, body: bytes) -> None:
        """An answer of what was appended besides: it leaves with the open entry."""
        link, rid = token
        self._open.answers.append((link, rid, ANSWER.pack(rid, status, len(body)) + body))

    def stage_late(self, token: tuple[FrontLink, int], due: DueAnswer) -> None:
        """As :meth:`stage`, for an answer that is made once the entry is applied."""
        assert self._beside is not None
        self._open.late.append((*token, due._replace(shown=self._beside.shown())))

    # -- fates

    def prepare(self) -> None:
        for owed in self._under_way.entries:
            if owed.rows is not None or owed.batch is None:
                continue
            if owed.batch.puts:
                owed.rows = PreparedPuts(owed.batch.puts)
            elif owed.batch.sets:
                owed.rows = PreparedRows(RowsOf.V2, owed.batch.sets)

    def prepared(self, index: int, term: int) -> Prepared | None:
        """The rows of the entry there, if it is this leader's own and they are made."""
        owed = self._under_way.at(index, term)
        return None if owed is None else owed.rows

    def applied(self, index: int, term: int) -> None:
        for owed, done in self._under_way.applied(index, term):
            if done:
                self._done(owed)
            else:
                for link, rid in owed.owed:
                    self._not_leader(link, rid)

    def _done(self, owed: Owed) -> None:
        leader = self.leader
        if leader is not None and leader.term == owed.term and owed.batch is not None:
            leader.applied(owed.batch)
        self.committed += owed.count
        link = None
        for link_of, _, record in owed.answers:
            if link_of is not link:
                link = link_of
                put = link.put
                self._mark_dirty(link)
            put(record)
        for link_of, rid, due in owed.late:
            assert self._beside is not None
            self._beside.answer(link_of, rid, due, owed.term)
        for (link_of, _, record), physical in owed.controls:
            self._control_applied(link_of, record, physical)
        if self._later:
            self._retry_later()

    def _retry_later(self) -> None:
        revision = self._store.revision
        ready = [w for w in self._later if w[0] <= revision]
        if ready:
            self._later = [w for w in self._later if w[0] > revision]
            for w in ready:
                if self._looked and not w[1].awaits(w[2]):
                    self._looked.pop((w[1], w[2]), None)
            ready = [w for w in ready if w[1].awaits(w[2])]
            self._intake.first([w[1:] for w in ready])

    def skipped_to(self, index: int) -> None:
        """A snapshot replaced everything up to ``index``: the fate of older entries is unknown here."""
        for owed in self._under_way.skipped_to(index):
            for link, rid in owed.owed:
                link.answer(rid, Status.UNKNOWN, EtcdError(errors.TIMEOUT_DUE_TO_LEADER_FAIL).encode())
                self._mark_dirty(link)

    def statistics(self) -> dict[str, int]:
        return {
            "queued": len(self._intake), "uncommitted_entries": len(self._under_way),
            "committed": self.committed, "proposed": self.proposed, "failed": self.failed}


def _given_up(request: Request) -> bool:
    """A revoke goes on whoever waits for it: it may have ended its lease in part (I15)."""
    link, rid, method, _ = request
    return not (link.awaits(rid) or isinstance(link, Turn) or method & ~SAID == Method.LEASE_REVOKE)


def _is_physical(method: int, body: bytes) -> bool:
    from cluster.pb.rpc_pb2 import CompactionRequest

    return method == Method.COMPACT and CompactionRequest.FromString(body).physical
