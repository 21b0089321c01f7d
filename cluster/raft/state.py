"""What a replica remembers, and the changes of it that every part of Raft makes.

Rules:

- Nothing that speaks for this replica leaves before the sync that covers it (I2). A message that shows a term
  waits in ``_after_sync`` until that term is synced; votes and append acks until what they name is, too. The
  leader's own copy and a candidate's own vote count only once synced.
- A term only rises; a vote is cast once in a term (section 5.2).
- Time is the caller's ``now_ms`` and never goes back here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from cluster.raft.log import RaftLog
from cluster.raft.membership import Membership
from cluster.raft.messages import Kind, Message
from cluster.raft.progress import Progress
from cluster.raft.promises import Promise, join
from cluster.raft.reads import ReadRounds
from cluster.raft.types import Config, LogContradiction, LogStorage, Role

_SCAN_BYTES = 1 << 20
_FADES = 0.9  # what a sync leaves of the time that is remembered of longer ones
NEVER_MS = 1 << 62


class RaftState:
    def __init__(self, config: Config, storage: LogStorage, random: Callable[[], float], now_ms: int) -> None:
        self.config = config
        self.id = config.id
        self._storage = storage
        self._random = random
        self._now = now_ms
        self._restore(storage)
        #: Whether this replica's driver can wait for news of commits; may be changed at any time.
        self.patient = False
        #: Set by the driver: whether this replica may lead. It votes without.
        self.may_campaign: Callable[[], bool] = lambda: True
        self.held_back = False  # set by the driver: a leader takes no proposals for now
        self._quiet = False  # the message being handled leaves nothing to do but to answer it
        self._due = True  # something has come since the last Ready: the next one may have something to do
        self._begin_ready()

        self.leader_id = 0
        self._role = Role.FOLLOWER
        self._votes: dict[int, bool] = {}
        self._contact_ms = now_ms  # when the leader was last heard
        self._deadline_ms = 0
        self._rearm()
        if config.soon_at_start:
            self._deadline_ms -= config.election_timeout_ms - config.heartbeat_ms
        if self._membership.current.voters == {self.id}:
            self._deadline_ms = now_ms  # no leader to wait for

        self._reset_leading()
        self._promised: dict[int, Promise] = {}  # by members, as far as it is known besides
        self._term_start = 0  # index of a leader's first entry
        self._led_term = 0  # that it leads, or led last
        self._heartbeat_ms = now_ms  # when the next is due
        self._transfer_deadline_ms = 0

    def _restore(self, storage: LogStorage) -> None:
        """Hard state, log and members, as stored. LogContradiction."""
        hard = storage.hard_state()
        self.log = log = RaftLog(storage, self.config.max_tail_bytes)
        if hard.commit > log.last_index:
            raise LogContradiction(
                f"H10: log ends at {log.last_index}, but {hard.commit} had been committed here")
        log.commit = max(log.commit, hard.commit)
        index, term = storage.committed()
        if index > log.commit and log.term(index) == term:  # I25: that very entry, or nothing
            log.commit = index
        self.term = self._saved_term = hard.term
        self.vote = self._saved_vote = hard.vote
        if log.last_term > self.term:  # a crash between installing a snapshot and writing the term it brought
            self.term, self.vote = log.last_term, 0
        self._handed_hard = hard
        # (sequence, term, vote) handed out for storage
        self._hard_flight: deque[tuple[int, int, int]] = deque()
        self._membership = membership = Membership(log.position.index, log.position.configuration)
        first = log.position.index + 1
        while first <= log.last_index:
            entries = log.entries(first, log.last_index, _SCAN_BYTES)
            membership.appended(entries)
            first = entries[-1].index + 1

    def _begin_ready(self) -> None:
        log = self.log
        self._sequence = 0
        self._syncs = False  # a sync is under way
        self._sync_began_ms = 0
        self._usual_sync_ms = 0.0  # the longest of late: a longer one's part of it fades with each sync
        self._now_out: list[Message] = []
        self._after_sync: list[Message] = []
        self._ack_to = 0
        self._ack_index = 0
        self._reads_done: list[tuple[int, int]] = []
        self._reads_failed: list[int] = []
        self._snapshots_to: list[tuple[int, int]] = []
        self._announced = log.applied  # committed entries handed out up to here
        self._announced_configuration = log.position.configuration
        self._configuration_moved = self._membership.latest_index > log.position.index
        self._announced_leader: tuple[int, int, int] = (0, int(Role.FOLLOWER), self.term)

    def _reset_leading(self) -> None:
        """What a leader knows of its peers, at the begin and the end of its term."""
        self._progress: dict[int, Progress] = {}
        # removed or demoted peer -> (index of that, since when it is committed)
        self._leaving: dict[int, tuple[int, int]] = {}
        self._reads = ReadRounds()
        self._uncommitted_bytes = 0
        self._heartbeat_due = False
        self._news_ms = NEVER_MS  # when patient peers are told of a commit that no append has brought them
        self._rides_ms = self.config.commit_rides_ms  # 0: due to be told
        self._transferee = 0
        # how far the own disk had synced the log, and since when it has not moved while more was committed
        self._synced_index = 0
        self._hung_since_ms = self._now


    @property
    def knows_commit(self) -> bool:
        """Whether this leader knows what is committed: an entry of its own term is (paper, section 8)."""
        return self._role == Role.LEADER and self.log.commit >= self._term_start

    @property
    def role(self) -> Role:
        if self._role == Role.FOLLOWER and self.id not in self._membership.current.voters:
            return Role.LEARNER
        return self._role

    @property
    def is_leader(self) -> bool:
        return self._role is Role.LEADER

    def _hears_leader(self) -> bool:
        """Thesis 4.2.3: a replica that hears from a leader does not help to unseat it."""
        if not self.config.check_quorum or self.leader_id == 0:
            return False
        return self._role == Role.LEADER or self._now - self._contact_ms < self.config.election_timeout_ms

    def _rearm(self) -> None:
        """A new election timeout, by chance between one and two (section 5.2)."""
        timeout = self.config.election_timeout_ms
        self._timeout_ms = timeout + int(timeout * self._random())
        self._deadline_ms = self._now + self._timeout_ms

    def _acknowledged_here(self) -> dict[int, Promise]:
        """What members have acknowledged to this replica in the term that it leads."""
        if self._role != Role.LEADER:
            return {}
        commit, term = self.log.commit, self._led_term
        found = {peer: p.match for peer, p in self._progress.items() if p.match}
        found[self.id] = self.log.persisted
        return {member: Promise(term, index, min(index, commit)) for member, index in found.items()}

    def _become_follower(self, term: int, leader_id: int) -> None:
        """Follow ``leader_id`` (0: not known yet) in ``term``."""
        if term > self.term:
            self.term, self.vote = term, 0
            self._ack_to = 0
        if self._role == Role.LEADER:
            self._reads_failed += self._reads.drain()
            join(self._promised, self._acknowledged_here())
            self._reset_leading()
        self._role = Role.FOLLOWER
        self.leader_id = leader_id
        self._votes.clear()
        self._rearm()

    def _advance_commit(self, index: int) -> None:
        """Everything up to ``index`` is committed. LogContradiction if the log ends before."""
        log = self.log
        if index <= log.commit:
            return
        if index > log.last_index:
            # the leader only says what this replica had acknowledged, after a sync
            raise LogContradiction(
                f"H10: log ends at {log.last_index}, but this replica had acknowledged {index}")
        log.commit = index

    def _begin_sync(self) -> None:
        if not self._syncs:
            self._syncs, self._sync_began_ms = True, self._now

    def _note_sync(self) -> None:
        """How long syncs take, from what is handed out to the report; what waits meanwhile is synced next."""
        if self._syncs:
            self._usual_sync_ms = max(self._now - self._sync_began_ms, self._usual_sync_ms * _FADES)
        self._syncs, self._sync_began_ms = bool(self._hard_flight) or self.log.syncs, self._now

    def _send(self, message: Message) -> None:
        """As soon as the term it shows is synced (I2)."""
        if self._saved_term == self.term:
            self._now_out.append(message)
        else:
            self._after_sync.append(message)

    def _acknowledge(self, to: int, index: int) -> None:
        """An append ack is due; the next ready() makes one of several."""
        if self._ack_to != to or index > self._ack_index:
            self._ack_to, self._ack_index = to, index

    def _flush_ack(self) -> None:
        to, index = self._ack_to, self._ack_index
        self._ack_to = 0
        log = self.log
        message = Message(Kind.APPEND_ACK, self.id, to, self.term, index, log.term(index), flag=self.patient)
        if index <= log.persisted and self._saved_term == self.term:
            self._now_out.append(message)
        else:
            self._after_sync.append(message)  # I2
