"""The replica as its driver sees it: messages, time and finished syncs go in, a Ready comes out.

Nothing here waits, reads a clock or writes anything. The driver's loop::

    raft.step(message, now_ms) ...; raft.tick(now_ms); raft.propose(...)
    while (ready := raft.ready()) is not None:
        carry it out (see Ready), apply raft.log_entries(first, last), raft.applied(index)
    wait for messages, a finished sync (raft.persisted), or raft.next_deadline()

After a pause of the process, step the messages that wait before the tick: what they say may make an election
unnecessary. Each Ready's entries are written (not synced) before the next one is asked for.

Hot path: one proposal of 300 B to three replicas, with both acks, its own sync and the commit news, costs the
leader 15 us in all and each follower 8 us, plus 2 us to encode and 3 us to decode a message; ten proposals in
a tick cost the leader 30 us together.

LogContradiction, or an exception that the methods do not name, means that this replica contradicts itself or
its peers: the process must end (I1, H10).
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
    """One replica of one group.

    ``random`` returns numbers in [0, 1); ``now_ms`` is any clock that does not go back. After a restart call
    ``applied`` with the state's durable position before the first ``ready``.
    """

    def __init__(self, config: Config, storage: LogStorage, random: Callable[[], float], now_ms: int) -> None:
        super().__init__(config, storage, random, now_ms)
        self._handlers: dict[int, Callable[[Message], None]] = {
            Kind.PRE_VOTE: self._on_pre_vote,
            Kind.PRE_VOTE_ACK: self._on_pre_vote_ack,
            Kind.VOTE: self._on_vote,
            Kind.VOTE_ACK: self._on_vote_ack,
            Kind.APPEND: self._on_append,
            Kind.APPEND_ACK: self._on_append_ack,
            Kind.APPEND_REJECT: self._on_append_reject,
            Kind.HEARTBEAT: self._on_heartbeat,
            Kind.HEARTBEAT_ACK: self._on_heartbeat_ack,
            Kind.COMMIT: self._on_commit,
            Kind.TIMEOUT_NOW: self._on_timeout_now,
        }

    # -- what goes in ----------------------------------------------------------------------------------------

    def step(self, message: Message, now_ms: int) -> bool:
        """A message from a peer came. False: it gives the next Ready nothing to do, but perhaps an answer to
        send (:meth:`take_answers`)."""
        if now_ms > self._now:
            self._now = now_ms
        if message.to != self.id or message.sender == self.id:
            return False
        if message.term != self.term and not self._settle_term(message):
            return True
        self._quiet = False
        self._handlers[message.kind](message)
        return not self._quiet

    def take_answers(self) -> list[Message]:
        """Messages of a Ready to come that may leave now: each waits for nothing (I2), and is handed out
        once."""
        answers, self._now_out = self._now_out, []
        return answers

    def _settle_term(self, message: Message) -> bool:
        """Section 5.1, for a message of another term; whether it is still to be handled."""
        kind, term = message.kind, message.term
        if term > self.term:
            if kind in (Kind.VOTE, Kind.PRE_VOTE) and not message.flag and self._hears_leader():
                return False
            # the two that speak of a term nobody is in yet
            if kind != Kind.PRE_VOTE and not (kind == Kind.PRE_VOTE_ACK and message.flag):
                self._become_follower(term, message.sender if kind in _FROM_LEADER else 0)
            return True
        if kind in _FROM_LEADER:
            # A leader of an older term: unseat it by showing this one. With pre-vote nothing else would, when
            # this replica's term rose in a campaign that came to nothing.
            self._send(Message(Kind.HEARTBEAT_ACK, self.id, message.sender, self.term))
        elif kind == Kind.PRE_VOTE:
            self._send(Message(Kind.PRE_VOTE_ACK, self.id, message.sender, self.term))
        elif kind == Kind.VOTE:
            self._send(Message(Kind.VOTE_ACK, self.id, message.sender, self.term))
        return False

    def tick(self, now_ms: int) -> None:
        """Time passed: heartbeats, elections, time limits. Call it at ``next_deadline`` at the latest."""
        self._advance(now_ms)
        if self._role == Role.LEADER:
            self._tick_leader()
        elif self._now >= self._deadline_ms:
            self._campaign()

    def next_deadline(self) -> int:
        """When ``tick`` has something to do, if nothing happens before."""
        if self._role != Role.LEADER:
            return self._deadline_ms
        due = self._heartbeat_ms if self._heartbeat_ms < self._news_ms else self._news_ms
        return min(due, self._transfer_deadline_ms) if self._transferee else due

    def read_index(self, context: int) -> None:
        """Ask for an index that holds everything acknowledged so far; answered in ``Ready.reads`` or
        ``Ready.reads_failed``, with ``context`` (H2: by a round begun after this call). NotLeader."""
        if self._role != Role.LEADER:
            raise NotLeader(self.leader_id)
        self._reads.waiting.append(context)

    def persisted(self, sequence: int) -> bool:
        """Everything in the Ready of that sequence, and before it, is synced. False: that gives the next
        Ready nothing to do: no quorum has it yet, say."""
        campaigns = self._role == Role.CANDIDATE
        flight = self._hard_flight
        while flight and flight[0][0] <= sequence:
            _, self._saved_term, self._saved_vote = flight.popleft()
        moved = self.log.sync_done(sequence)
        if campaigns:
            self._vote_synced()
        elif self._role == Role.LEADER and moved:
            self._maybe_commit()
        log = self.log
        log.trim()
        return campaigns or min(log.commit, log.persisted) > self._announced

    def applied(self, index: int) -> None:
        """The state holds everything up to ``index``. Before the first Ready: where the state stands; it is
        committed, then, whatever the hard state remembers. LogContradiction if the log ends before it
        (H10)."""
        log = self.log
        if index > log.commit:
            if self._sequence or index > log.last_index:
                raise LogContradiction(
                    f"H10: state is at {index}, log committed to {log.commit}, ends at {log.last_index}"
                )
            log.commit = index
        log.applied = max(log.applied, index)
        if index > self._announced:  # after a restart: the state knows who was a member then
            self._announced = index
            self._announced_configuration = self._membership.at(index)[1]
        log.trim()

    def prove_committed(self, index: int, term: int) -> bool:
        """Something that is committed elsewhere says that entry ``index`` is committed and has ``term``.

        It is, with all before it, in this log too if the entry here has that term (log matching); otherwise
        nothing follows yet. True if that was news: the next Ready hands it out, once it is synced here.
        """
        log = self.log
        if index <= log.commit or index > log.last_index or log.term(index) != term:
            return False
        assert self._role != Role.LEADER or term < self.term, (
            "I3: named as committed before its leader has committed it"
        )
        self._advance_commit(index)
        return True

    def compacted(self, index: int) -> None:
        """Storage dropped the entries up to ``index``; its ``snapshot_position`` says so already."""
        position = self._storage.snapshot_position()
        if position.index < index or index > self.log.applied:
            raise ValueError(
                f"compacted to {index}: storage begins after {position.index}, applied {self.log.applied}"
            )
        self.log.compact(position)
        self._membership.compacted(position.index, position.configuration)

    def snapshot_installed(self, position: SnapshotPosition) -> bool:
        """A state snapshot of ``position`` was switched in. Sync the stored log before that, so that a
        restart which finds the state ahead of the log knows an unfinished install from a lost log (H10).

        True: the log has no suffix that matches it, and the driver must begin its stored log after
        ``position`` (synced) before it asks for the next Ready; a driver that crashed in between does so when
        it starts. False: the stored log goes on as it is (H8). A position that is applied already is ignored.
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
        if reset:
            self._ack_to = 0
            self._membership.truncated(position.index + 1)
            self._membership.compacted(position.index, position.configuration)
        self._announced = max(self._announced, position.index)
        self._configuration_moved = True
        if self.leader_id and self._role == Role.FOLLOWER:
            self._acknowledge(self.leader_id, position.index)
        return reset

    # -- what comes out --------------------------------------------------------------------------------------

    def ready(self) -> Ready | None:
        """What the driver has to do now; None if nothing. Each thing is handed out once."""
        log = self.log
        if self._role == Role.LEADER:
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
            # Commit rides along with entries, in the same batch: whoever has the entry of a configuration
            # change on its disk then also knows, after a crash, what was committed when it came.
            changed = changed or handed.commit != log.commit
        if changed:
            self._handed_hard = hard = self._hard_state()
            self._hard_flight.append((sequence, self.term, self.vote))
        # Only what this replica's own disk holds is applied, so that its state is never ahead of its log
        # (H10).
        first = last = self._announced
        bound = log.commit if log.commit < log.persisted else log.persisted
        configuration = None
        if bound > last:
            self._announced = last = bound
        if self._configuration_moved or self._membership.latest_index > first:
            configuration = self._committed_configuration(last)
        leader = (self.leader_id, int(self._role), self.term)
        leader_changed = leader != self._announced_leader
        if not (
            must_sync
            or last > first
            or self._now_out
            or self._after_sync
            or self._reads_done
            or leader_changed
            or self._reads_failed
            or self._snapshots_to
            or configuration is not None
        ):
            return None
        self._sequence = sequence
        self._announced_leader = leader
        ready = Ready(
            sequence, hard, entries, self._now_out, self._after_sync, must_sync, (first, last),
            self._reads_done, self._reads_failed, leader_changed, self._snapshots_to, configuration,
        )
        self._now_out, self._after_sync = [], []
        self._reads_done, self._reads_failed, self._snapshots_to = [], [], []
        return ready

    def _committed_configuration(self, index: int) -> Configuration | None:
        """The configuration as of ``index``, if it is not the one announced last."""
        self._configuration_moved = False
        configuration = self._membership.at(index)[1]
        if configuration == self._announced_configuration:
            return None
        self._announced_configuration = configuration
        return configuration

    def log_entries(self, first: int, last: int, max_bytes: int = 1 << 62) -> list[Entry]:
        """Entries ``[first, last]``, for applying; from memory, older ones from storage. Cut short once they
        hold ``max_bytes`` of data, which the last of them may pass."""
        found: list[Entry] = []
        while first <= last and max_bytes > 0:
            more = self.log.entries(first, last, max_bytes)
            found += more
            first = more[-1].index + 1
            max_bytes -= sum([len(entry.data) for entry in more])
        return found

    # -- questions -------------------------------------------------------------------------------------------

    @property
    def commit_index(self) -> int:
        """Everything up to here is committed, as far as this replica knows."""
        return self.log.commit

    @property
    def announced_index(self) -> int:
        """Everything up to here was handed out for applying, by a Ready: it is committed, and synced here."""
        return self._announced

    @property
    def last_index(self) -> int:
        """The last entry of the log."""
        return self.log.last_index

    @property
    def applied_index(self) -> int:
        """What the driver last said it had applied."""
        return self.log.applied

    @property
    def persisted_index(self) -> int:
        """The last entry that is synced here."""
        return self.log.persisted

    @property
    def configuration(self) -> Configuration:
        """The one in effect: the latest in the log, committed or not."""
        return self._membership.current

    @property
    def committed_configuration(self) -> Configuration:
        """The latest one that is committed, as far as this replica knows."""
        return self._membership.at(self.log.commit)[1]

    def position_at(self, index: int) -> SnapshotPosition:
        """The snapshot position for a state that has applied exactly up to ``index``."""
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
        """Whether :meth:`propose` would log something now, and the driver does not hold it back. Look before
        anything is evaluated for an entry: what is evaluated and cannot be proposed is in everybody's way."""
        return (self._role == Role.LEADER and not self._transferee and not self.held_back
                and self._uncommitted_bytes < self.config.max_uncommitted_bytes)

    def peers(self) -> dict[int, PeerStatus]:
        """A leader's view of the others; empty elsewhere."""
        learners = self._membership.current.learners
        return {
            peer: PeerStatus(
                p.match, p.next, p.state.name.lower(), len(p.inflight), peer in learners, p.heard_ms
            )
            for peer, p in self._progress.items()
        }

    def promises(self) -> dict[int, Promise]:
        """What each member has acknowledged, as far as this replica knows."""
        found = {m: self._promised[m] for m in self._membership.current.members() if m in self._promised}
        join(found, self._acknowledged_here())
        return found

    def remember(self, promises: Mapping[int, Promise]) -> None:
        """What members have acknowledged, as another leader says, or this replica's own disk."""
        join(self._promised, promises)

    def statistics(self) -> dict[str, int]:
        """Figures for metrics and the console."""
        log = self.log
        return {
            "term": self.term,
            "role": int(self.role),
            "leader_id": self.leader_id,
            "first_index": log.position.index + 1,
            "last_index": log.last_index,
            "persisted_index": log.persisted,
            "commit_index": log.commit,
            "applied_index": log.applied,
            "tail_entries": len(log.tail),
            "tail_bytes": log.tail_bytes,
            "uncommitted_bytes": self._uncommitted_bytes if self._role == Role.LEADER else 0,
            "reads_waiting": self._reads.count(),
            "sequence": self._sequence,
        }
