"""The replica as its driver sees it: messages, time and finished syncs go in, a Ready comes out. The driver's
loop::

    raft.step(message, now_ms) ...; raft.tick(now_ms); raft.propose(...)
    while (ready := raft.ready()) is not None:
        carry it out (see Ready), apply raft.log_entries(first, last), raft.applied(index)
    wait for messages, a finished sync (raft.persisted), or raft.next_deadline()

After a pause, step the waiting messages before the tick: they may make an election unnecessary. Write each
Ready's entries (unsynced) before asking for the next one. LogContradiction, or an exception that no method
names: the process must end (I1, H10).

Hot path: a proposal of 300 B to three replicas costs the leader 15 us in all and each follower 8 us, plus 2
us to encode and 3 us to decode a message; ten proposals in a tick cost the leader 30 us together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cluster.raft.election import Election
from cluster.raft.messages import Kind, Message
from cluster.raft.promises import Promise, join
from cluster.raft.types import (
    Config,
    Configuration,
    Entry,
    HardState,
    LogContradiction,
    LogStorage,
    NotLeader,
    PeerStatus,
    Ready,
    Role,
    SnapshotPosition,
)

_FROM_LEADER = frozenset((Kind.APPEND, Kind.HEARTBEAT, Kind.COMMIT))


class Raft(Election):
    """``random`` returns numbers in [0, 1). After a restart call ``applied`` with the state's durable
    position before the first ``ready``."""

    def __init__(self, config: Config, storage: LogStorage, random: Callable[[], float], now_ms: int) -> None:
        super().__init__(config, storage, random, now_ms)
        self._handlers: dict[int, Callable[[Message], None]] = {
            Kind.PRE_VOTE: self._on_pre_vote, Kind.PRE_VOTE_ACK: self._on_pre_vote_ack,
            Kind.VOTE: self._on_vote, Kind.VOTE_ACK: self._on_vote_ack, Kind.APPEND: self._on_append,
            Kind.APPEND_ACK: self._on_append_ack, Kind.APPEND_REJECT: self._on_append_reject,
            Kind.HEARTBEAT: self._on_heartbeat, Kind.HEARTBEAT_ACK: self._on_heartbeat_ack,
            Kind.COMMIT: self._on_commit, Kind.TIMEOUT_NOW: self._on_timeout_now}

    def step(self, message: Message, now_ms: int) -> bool:
        """Take a message. False: it gives the next Ready nothing to do, but :meth:`take_answers` may."""
        if now_ms > self._now:
            self._now = now_ms
        if message.to != self.id or message.sender == self.id:
            return False
        if message.term != self.term and not self._settle_term(message):
            self._due = True
            return True
        self._quiet = False
        self._handlers[message.kind](message)
        if self._quiet:
            return False
        self._due = True
        return True

    def take_answers(self) -> list[Message]:
        """Messages of a coming Ready that wait for no sync (I2), each handed out once."""
        answers, self._now_out = self._now_out, []
        return answers

    def _settle_term(self, message: Message) -> bool:
        """Section 5.1, for a message of another term; returns whether it is still to be handled."""
        kind, term = message.kind, message.term
        if term > self.term:
            if kind in (Kind.VOTE, Kind.PRE_VOTE) and not message.flag and self._hears_leader():
                return False
            # these two name a term that no replica is in yet
            if kind != Kind.PRE_VOTE and not (kind == Kind.PRE_VOTE_ACK and message.flag):
                self._become_follower(term, message.sender if kind in _FROM_LEADER else 0)
            return True
        if kind in _FROM_LEADER:
            # Show a leader of an older term this one. With pre-vote nothing else would unseat it, if this
            # replica's term rose in a campaign that failed.
            self._send(Message(Kind.HEARTBEAT_ACK, self.id, message.sender, self.term))
        elif kind == Kind.PRE_VOTE:
            self._send(Message(Kind.PRE_VOTE_ACK, self.id, message.sender, self.term))
        elif kind == Kind.VOTE:
            self._send(Message(Kind.VOTE_ACK, self.id, message.sender, self.term))
        return False

    def tick(self, now_ms: int) -> None:
        """Heartbeats, elections, time limits. Call it at ``next_deadline`` at the latest."""
        if now_ms > self._now:
            self._now = now_ms
        self._due = True
        if self._role == Role.LEADER:
            self._tick_leader()
        elif self._now >= self._deadline_ms:
            self._campaign()

    def next_deadline(self) -> int:
        if self._role != Role.LEADER:
            return self._deadline_ms
        due = self._heartbeat_ms if self._heartbeat_ms < self._news_ms else self._news_ms
        return min(due, self._transfer_deadline_ms) if self._transferee else due

    def read_index(self, context: int) -> None:
        """Ask for an index that holds everything acknowledged so far. ``Ready.reads`` or
        ``Ready.reads_failed`` answers with ``context``, by a round begun after this call (H2). NotLeader."""
        if self._role != Role.LEADER:
            raise NotLeader(self.leader_id)
        self._reads.waiting.append(context)
        self._due = True

    def persisted(self, sequence: int) -> bool:
        """The Ready of that sequence and all before are synced. False: that gives the next Ready nothing to
        do."""
        campaigns = self._role == Role.CANDIDATE
        flight = self._hard_flight
        while flight and flight[0][0] <= sequence:
            _, self._saved_term, self._saved_vote = flight.popleft()
        moved = self.log.sync_done(sequence)
        self._note_sync()
        if campaigns:
            self._vote_synced()
        elif self._role == Role.LEADER and moved:
            self._maybe_commit()
        log = self.log
        log.trim()
        if campaigns or log.commit > self._announced < log.persisted:
            self._due = True
            return True
        return False

    def applied(self, index: int) -> None:
        """The state holds everything up to ``index``. Before the first Ready: the state's position, committed
        whatever the hard state says. LogContradiction if the log ends before it (H10)."""
        log = self.log
        if index > log.commit:
            if self._sequence or index > log.last_index:
                raise LogContradiction(
                    f"H10: state is at {index}, log committed to {log.commit}, ends at {log.last_index}")
            log.commit = index
        log.applied = max(log.applied, index)
        if index > self._announced:  # after a restart: the state has the members as of then
            self._due = True
            self._announced = index
            self._announced_configuration = self._membership.at(index)[1]
        log.trim()

    def prove_committed(self, index: int, term: int) -> bool:
        """Another log proves that entry ``index`` is committed with ``term``.

        By log matching all before it is committed here too, if the entry here has that term. True if that is
        news: the next Ready hands it out, once it is synced here.
        """
        log = self.log
        if index <= log.commit or index > log.last_index or log.term(index) != term:
            return False
        assert self._role != Role.LEADER or term < self.term, (
            "I3: named as committed before its leader has committed it")
        self._advance_commit(index)
        self._due = True
        return True

    def compacted(self, index: int) -> None:
        """Storage dropped the entries up to ``index`` and has moved its ``snapshot_position``."""
        position = self._storage.snapshot_position()
        if position.index < index or index > self.log.applied:
            raise ValueError(
                f"compacted to {index}: storage begins after {position.index}, applied {self.log.applied}")
        self.log.compact(position)
        self._due = True
        self._membership.compacted(position.index, position.configuration)

    def snapshot_installed(self, position: SnapshotPosition) -> bool:
        """The state became a snapshot of ``position``. Sync the stored log first, so that a restart can tell
        an unfinished install from a lost log (H10).

        True: the log has no suffix that matches. The driver begins its stored log after ``position`` (synced)
        before it asks for the next Ready, or when it starts again. False: the stored log stays (H8). A
        position that is applied already is ignored.
        """
        log = self.log
        if position.index <= log.applied:
            return False
        if position.index <= log.commit and log.term(position.index) not in (-1, position.term):
            raise LogContradiction(f"I1: a snapshot contradicts the committed entry {position.index}")
        if position.term > self.term:
            self._become_follower(position.term, 0)
        elif self._role != Role.FOLLOWER and log.term(position.index) != position.term:
            self._become_follower(self.term, 0)  # the log it leads or campaigns with is about to go
        reset = log.install(position)
        self._due = True
        if reset:
            self._ack_to = 0
            self._membership.truncated(position.index + 1)
            self._membership.compacted(position.index, position.configuration)
        self._announced = max(self._announced, position.index)
        self._configuration_moved = True
        if self.leader_id and self._role == Role.FOLLOWER:
            self._acknowledge(self.leader_id, position.index)
        return reset

    def say_committed(self) -> None:
        """A snapshot was refused, as the state has all of it: acknowledge to the leader what is committed.

        It may have missed the answer to an install. Until it hears of that index again, it sends snapshots,
        and counts this replica for nothing. As with any ack, the log's sync comes first (I2), and the leader
        of this term looks whether its log has that entry. Learners answer, too.
        """
        if self.leader_id and self._role == Role.FOLLOWER:
            self._acknowledge(self.leader_id, self.log.commit)
            self._due = True

    def ready(self) -> Ready | None:
        """What the driver has to do now, each thing handed out once; None: nothing."""
        if not self._due and not self._now_out:
            return None
        self._due = False
        return self._made_ready()

    def _made_ready(self) -> Ready | None:
        """Looks at all that may have come."""
        log = self.log
        if self._role is Role.LEADER:
            self._replicate()
        elif self._ack_to:
            self._flush_ack()
        sequence = self._sequence + 1
        entries = log.hand_out(sequence) if log.handed != log.last_index else []
        handed = self._handed_hard
        must_sync = changed = handed.term != self.term or handed.vote != self.vote
        hard = None
        if entries:
            must_sync = True
            self._begin_sync()
            # In one batch with the entries: after a crash, a disk that has a configuration change then also
            # has the commit index of that time.
            changed = changed or handed.commit != log.commit
        if changed:
            self._handed_hard = hard = HardState(self.term, self.vote, log.commit)
            self._hard_flight.append((sequence, self.term, self.vote))
            self._begin_sync()
        something = must_sync
        # Applied is only what the own disk holds: the state is never ahead of the log (H10).
        first = last = self._announced
        bound = log.commit if log.commit < log.persisted else log.persisted
        configuration = None
        if bound > last:
            self._announced = last = bound
            something = True
        if self._configuration_moved or self._membership.latest_index > first:
            configuration = self._committed_configuration(last)
        leader = (self.leader_id, int(self._role), self.term)
        leader_changed = leader != self._announced_leader
        if not (something or self._now_out or self._after_sync or self._reads_done or leader_changed
                or self._reads_failed or self._snapshots_to or configuration is not None):
            return None
        self._sequence = sequence
        self._announced_leader = leader
        ready = Ready(
            sequence, hard, entries, self._now_out, self._after_sync, must_sync, (first, last),
            self._reads_done, self._reads_failed, leader_changed, self._snapshots_to, configuration)
        self._now_out, self._after_sync = [], []
        self._reads_done, self._reads_failed, self._snapshots_to = [], [], []
        return ready

    def _committed_configuration(self, index: int) -> Configuration | None:
        self._configuration_moved = False
        configuration = self._membership.at(index)[1]
        if configuration == self._announced_configuration:
            return None
        self._announced_configuration = configuration
        return configuration

    def log_entries(self, first: int, last: int, max_bytes: int = 1 << 62) -> list[Entry]:
        """Entries ``[first, last]`` from memory or storage, cut short behind ``max_bytes`` of data."""
        found: list[Entry] = []
        while first <= last and max_bytes > 0:
            more = self.log.entries(first, last, max_bytes)
            found += more
            first = more[-1].index + 1
            max_bytes -= sum([len(entry.data) for entry in more])
        return found

    @property
    def commit_index(self) -> int:
        """Everything up to here is committed, as far as this replica knows."""
        return self.log.commit

    @property
    def announced_index(self) -> int:
        """Everything up to here was in ``Ready.committed``: committed, and synced here."""
        return self._announced

    @property
    def last_index(self) -> int:
        return self.log.last_index

    @property
    def applied_index(self) -> int:
        """As the driver said last."""
        return self.log.applied

    @property
    def persisted_index(self) -> int:
        return self.log.persisted

    @property
    def configuration(self) -> Configuration:
        """The one in effect: the latest in the log, committed or not."""
        return self._membership.current

    @property
    def committed_configuration(self) -> Configuration:
        """As far as this replica knows."""
        return self._membership.at(self.log.commit)[1]

    def position_at(self, index: int) -> SnapshotPosition:
        """The snapshot position of a state at ``index``. ValueError if the log does not have it."""
        term = self.log.term(index)
        if term < 0:
            raise ValueError(f"entry {index} is compacted or not there")
        return SnapshotPosition(index, term, self._membership.at(index)[1])

    @property
    def transferring(self) -> bool:
        """A leader that is handing over takes no proposals."""
        return self._transferee != 0

    @property
    def takes_proposals(self) -> bool:
        """Whether :meth:`propose` would log now, and the driver does not hold it back. Look before anything
        is evaluated for an entry: what is evaluated and cannot be proposed blocks later requests (I23)."""
        return (self._role == Role.LEADER and not self._transferee and not self.held_back
                and self._uncommitted_bytes < self.config.max_uncommitted_bytes)

    def peers(self) -> dict[int, PeerStatus]:
        learners = self._membership.current.learners
        return {
            peer: PeerStatus(
                p.match, p.next, p.state.name.lower(), len(p.inflight), peer in learners, p.heard_ms)
            for peer, p in self._progress.items()}

    def promises(self) -> dict[int, Promise]:
        """What each member has acknowledged, as far as this replica knows; and this one, whose log may not
        say any more, in an old copy, that it is a member."""
        known = self._membership.current.members() | {self.id}
        found = {m: self._promised[m] for m in known if m in self._promised}
        join(found, self._acknowledged_here())
        return found

    def remember(self, promises: Mapping[int, Promise]) -> None:
        """What members have acknowledged, as another leader says, or this replica's own disk."""
        join(self._promised, promises)

    def statistics(self) -> dict[str, int]:
        log = self.log
        return {
            "term": self.term, "role": int(self.role), "leader_id": self.leader_id,
            "first_index": log.position.index + 1, "last_index": log.last_index,
            "persisted_index": log.persisted, "commit_index": log.commit, "applied_index": log.applied,
            "tail_entries": len(log.tail), "tail_bytes": log.tail_bytes,
            "uncommitted_bytes": self._uncommitted_bytes if self._role == Role.LEADER else 0,
            "reads_waiting": self._reads.count(), "sequence": self._sequence}
