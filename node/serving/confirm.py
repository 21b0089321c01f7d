"""Questions that only a confirmed sequencer may answer: read indexes, keep-alives, time to live.

All questions of a tick share one confirmation round, begun after they arrived (H2): Raft counts only answers
to messages sent after ``read_index`` was called. Keep-alives are memory, not log entries, and are answered
after the same round (H7): a zombie cannot promise a lease that its successor does not know.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct

from cluster import errors
from cluster.errors import EtcdError
from cluster.faults import MISTAKES, faults
from cluster.features.auth.principal import SAID
from cluster.features.lessor import Lessor
from cluster.pb import rpc_pb2
from cluster.raft import Raft
from cluster.wire.messages import LEASE_DUE, READ_INDEX_ANSWER, Method, Status
from node.links.fronts import FrontLink, say_not_leader
from node.serving.leases.keys import answer_keys
from node.slicing.slicer import Slices
from node.storage import StateStore

# questions without a confirmation, or that wait for a revocation; a front asks one for all reads of a tick
MOST_OPEN = 100_000
_SWEPT = 20_000  # that were given up, in a turn of the loop: 40 ms
_PASSED = 100_000  # that were looked at in it; of those that are answered more cannot come in a second
Question = tuple[FrontLink, int, int, bytes]  # link, rid, method, body
Judged = Callable[[FrontLink, int, bytes], tuple[int, bytes]]  # of a question, but for its rid


@dataclass(slots=True, frozen=True)
class Times:
    """Clocks of a node, and its patience."""

    now: Callable[[], float]  # of the loop, seconds
    now_ms: Callable[[], int]  # of leases
    limit_s: float  # a confirmed question waits so long for the apply of its index


class Confirmations:
    """Open questions and the rounds that will answer them. ``blocked`` gets leases whose keep-alives wait for
    the log."""

    def __init__(
        self, raft: Raft, store: StateStore, lessor: Lessor, mark_dirty: Callable[[FrontLink], None], *,
        applied_index: Callable[[], int], times: Times, beside: Callable[[FrontLink, int, Slices], None],
        judged: Judged = lambda link, method, body: (method & ~SAID, body),
    ) -> None:
        """``beside``: runs long work in slices. ``judged``: takes the principal off, if there is one."""
        self._judged = judged
        self._raft = raft
        self._store = store
        self._lessor = lessor
        self._mark_dirty = mark_dirty
        self._applied_index = applied_index
        self._now, self._now_ms, self._limit_s = times.now, times.now_ms, times.limit_s
        self._beside = beside
        self._questions: list[Question] = []
        self._rounds: dict[int, list[Question]] = {}
        # keep-alives that await the revocation of their lease, or that a checkpoint of it is cleared
        self._blocked: dict[int, list[Question]] = {}
        self._blocking = 0  # questions in there
        # the same with their leases, the oldest first, and some that are answered
        self._waiting: deque[tuple[int, Question]] = deque()
        self.blocked: Callable[[int], None] = lambda lease: None
        # confirmed, but not applied here: index, time limit
        self._applying: deque[tuple[int, float, list[Question]]] = deque()
        self._asking = 0  # questions in open rounds, and in there
        self._context = 0
        self.rounds = 0

    @property
    def open(self) -> bool:
        """Whether followers have been asked and a quorum has not answered yet."""
        return bool(self._rounds)

    @property
    def asked(self) -> bool:
        """Whether questions wait for a round to begin."""
        return bool(self._questions)

    def ask(self, link: FrontLink, rid: int, method: int, body: bytes) -> None:
        if not self._raft.is_leader:
            self._not_leader((link, rid, method, body))
        elif len(self._questions) + self._asking >= MOST_OPEN:
            link.answer(rid, Status.ERROR, EtcdError(errors.TOO_MANY_REQUESTS).encode())
            self._mark_dirty(link)
        else:
            self._questions.append((link, rid, method, body))

    def run(self, serving: bool) -> None:
        """Start a round for the questions that came since the last one, if this leader serves."""
        if self._questions and serving and self._raft.is_leader:  # else deposed in this very tick: see resign
            questions, self._questions = self._questions, []
            self._asking += len(questions)
            self._context += 1
            self._rounds[self._context] = questions
            self.rounds += 1
            self._raft.read_index(self._context)

    def confirmed(self, context: int, index: int) -> None:
        questions = self._rounds.pop(context, [])
        if not questions:
            return
        if index > self._applied_index():
            self._applying.append((index, self._now() + self._limit_s, questions))
        else:
            self._answer(questions, index)

    def applied(self, index: int) -> None:
        applying = self._applying
        while applying and applying[0][0] <= index:
            asked, deadline, questions = applying.popleft()
            if self._now() < deadline:
                self._answer(questions, asked)
            else:
                self._asking -= len(questions)

    def failed(self, contexts: list[int]) -> None:
        for context in contexts:
            self._lost(self._rounds.pop(context, []))

    def _lost(self, questions: list[Question]) -> None:
        self._asking -= len(questions)
        for question in questions:
            self._not_leader(question)

    def resign(self) -> None:
        """The term is lost: fronts ask the next sequencer. An apply may never come: the disk may hang."""
        self.failed(list(self._rounds))
        while self._applying:
            self._lost(self._applying.popleft()[2])
        questions, self._questions = self._questions, []
        for question in questions:
            self._not_leader(question)
        for blocked in self._blocked.values():
            for question in blocked:
                self._not_leader(question)
        self._blocked.clear()
        self._waiting.clear()
        self._blocking = 0

    def _not_leader(self, question: Question) -> None:
        link, rid, _, _ = question
        say_not_leader(self._raft, link, rid)
        self._mark_dirty(link)

    def _answer(self, questions: list[Question], index: int) -> None:
        assert self._applied_index() >= index, (
            f"I13: {index} was committed when they asked, {self._applied_index()} is applied"
        )
        self._asking -= len(questions)
        read_index = READ_INDEX_ANSWER.pack(self._applied_index(), self._store.revision, self._raft.term)
        for question in questions:
            if question[2] == Method.READ_INDEX:
                link, rid, _, _ = question
                link.answer(rid, Status.OK, read_index)
                self._mark_dirty(link)
            else:
                self._answer_of_lease(question)

    def _answer_of_lease(self, question: Question) -> None:
        """A mistake here ends one question, not the others of its round."""
        link, rid, method, body = question
        try:
            # now: users may be enabled, or have changed, since it came
            method, body = self._judged(link, method, body)
            if method == Method.LEASE_KEEPALIVES:
                self._keep_alives(link, rid, body)
            elif method == Method.LEASE_KEEPALIVE:
                self._keep_alive(link, rid, body, question)
            else:
                self._time_to_live(link, rid, body)
        except EtcdError as error:
            link.answer(rid, Status.ERROR, error.encode())
        except MISTAKES as error:
            faults.met(f"answering a question of method {method}", error)
            link.answer(rid, Status.ERROR, EtcdError(errors.INTERNAL_FAULT).encode())
        self._mark_dirty(link)

    def _keep_alives(self, link: FrontLink, rid: int, body: bytes) -> None:
        """A front's keep-alives of one tick, all under this one round (H7)."""
        leases = Struct(f"<{len(body) // 8}q")
        renew, now_ms = self._lessor.renew, self._now_ms()
        ttls = [LEASE_DUE if (ttl := renew(lease, now_ms)) is None else ttl for lease in leases.unpack(body)]
        link.ok(rid, self._store.revision, self._raft.term, leases.pack(*ttls))

    def _keep_alive(self, link: FrontLink, rid: int, body: bytes, question: Question) -> None:
        """``body``: of the question, without a principal."""
        lease = rpc_pb2.LeaseKeepAliveRequest.FromString(body).ID
        ttl = self._lessor.renew(lease, self._now_ms())
        if ttl is None:  # the log decides
            if self._blocking >= MOST_OPEN:
                link.answer(rid, Status.ERROR, EtcdError(errors.TOO_MANY_REQUESTS).encode())
            else:
                self._blocking += 1
                self._blocked.setdefault(lease, []).append(question)
                self._waiting.append((lease, question))
                self.blocked(lease)
            return
        link.ok(rid, self._store.revision, self._raft.term,
                rpc_pb2.LeaseKeepAliveResponse(ID=lease, TTL=ttl).SerializeToString())

    def decided(self, leases: list[int]) -> None:
        """These leases are gone, or their checkpoints are cleared: answer the keep-alives that waited."""
        for lease in leases:
            for question in self._blocked.pop(lease, []):
                self._blocking -= 1
                self._answer_of_lease(question)

    def sweep(self) -> None:
        """Each second: fronts give up keep-alives whose lease cannot end, the oldest first, and what comes
        before this leader serves. These make room for others."""
        self._questions = [question for question in self._questions if question[0].awaits(question[1])]
        waiting, given_up, found = self._waiting, dict[int, int](), 0
        for _ in range(min(len(waiting), _PASSED)):
            if found >= _SWEPT:
                break
            lease, question = waiting[0]
            number = given_up.get(lease, 0)
            questions = self._blocked.get(lease, [])
            if number < len(questions) and questions[number] is question:  # else it was answered
                if question[0].awaits(question[1]):
                    break
                given_up[lease] = number + 1
                found += 1
            waiting.popleft()
        for lease, number in given_up.items():
            del self._blocked[lease][:number]
            if not self._blocked[lease]:
                del self._blocked[lease]
        self._blocking -= found

    def _time_to_live(self, link: FrontLink, rid: int, body: bytes) -> None:
        request = rpc_pb2.LeaseTimeToLiveRequest.FromString(body)
        answer = rpc_pb2.LeaseTimeToLiveResponse(ID=request.ID)
        ttl = self._lessor.time_to_live(request.ID, self._now_ms())
        if ttl is None:
            answer.TTL = -1
        else:
            answer.TTL, answer.grantedTTL = ttl
            if request.keys:
                work = answer_keys(self._store, link, rid, self._raft.term, answer)
                if work is not None:
                    self._beside(link, rid, work)
                return
        link.ok(rid, self._store.revision, self._raft.term, answer.SerializeToString())
