"""The log from the leader to its peers (section 5.3), commit (5.4), reads (8) and the state of peers.

Hot path: in the steady state a proposal costs one append per follower and tick, one ack each, and one commit
message each when nothing else is due. :meth:`_replicate` builds all messages to peers, once per Ready: that
batches a tick's proposals, and makes every heartbeat younger than the read questions it confirms (H2).

Rules:

- A follower takes entries only if the one before them matches, and answers only when they are synced (I2).
- A leader commits an index once a quorum's *synced* logs have it, its own counting like any other (I2), and
  only if the entry there is of its own term (section 5.4.2).
- It sends a peer no entries before ``next`` without knowing that the logs agree up to there (see progress).
"""

from __future__ import annotations

from cluster.raft.messages import Kind, Message
from cluster.raft.progress import PROBE, REPLICATE, SNAPSHOT, Progress
from cluster.raft.state import NEVER_MS, RaftState
from cluster.raft.types import (
    Configuration,
    ConfigurationRefused,
    Entry,
    EntryKind,
    NotLeader,
    ProposalDropped,
    Role,
    entry_checksum,
)

_LEAVING_TIMEOUTS = 2  # election timeouts that a removed peer is still sent the news of its removal


class Replication(RaftState):
    """Part of :class:`cluster.raft.Raft`."""

    def _start_leading(self) -> None:
        """The first acts of a new leader: forget what it thought of peers, and log an entry of its term."""
        log, now = self.log, self._now
        self._role, self.leader_id, self._votes = Role.LEADER, self.id, {}
        self._led_term = self.term
        members = self._membership.current.members()
        self._reset_leading()
        self._progress = {m: Progress(log.last_index + 1, now) for m in sorted(members) if m != self.id}
        self._heartbeat_ms = now + self.config.heartbeat_ms
        before = self._membership.before()
        if before is not None and self._membership.latest_index > log.commit:
            self._hold_back(before)
        self._term_start = self._append_local(EntryKind.NOOP, b"")

    def _hold_back(self, before: Configuration) -> None:
        """Hold entries back from members that the uncommitted configuration drops or demotes (membership)."""
        current, index = self._membership.current, self._membership.latest_index
        for peer in (before.members() - current.members()) | (before.voters & current.learners):
            self._leaving[peer] = (index, self._now)
            self._add_peer(peer)

    def _add_peer(self, peer: int) -> None:
        if peer not in self._progress:
            self._progress[peer] = Progress(self.log.last_index + 1, self._now)

    def _append_local(self, kind: int, data: bytes) -> int:
        index = self.log.last_index + 1
        term = self.term
        self.log.append(Entry(index, term, kind, data, entry_checksum(index, term, kind, data)))
        self._uncommitted_bytes += len(data)
        self._due = True
        return index

    def _check_may_propose(self) -> None:
        if self._role != Role.LEADER:
            raise NotLeader(self.leader_id)
        if self._transferee:
            raise ProposalDropped("leadership is being transferred")
        if self._uncommitted_bytes >= self.config.max_uncommitted_bytes:
            raise ProposalDropped("too much is uncommitted")

    def propose(self, data: bytes) -> int:
        """Log ``data``; its index. NotLeader, ProposalDropped: certainly not logged."""
        self._check_may_propose()
        return self._append_local(EntryKind.RECORD, data)

    def propose_configuration(self, new: Configuration) -> int:
        """Log a change by one member, in effect at once, safe once committed; its index. NotLeader,
        ProposalDropped, ConfigurationRefused."""
        self._check_may_propose()
        current = self._membership.current
        if not self.knows_commit:  # the erratum: see membership
            raise ConfigurationRefused("no entry of this leader's term is committed yet")
        if self._membership.latest_index > self.log.commit:  # I21
            raise ConfigurationRefused("the change before is not committed yet")
        current.check_step(new)
        if self.id not in new.voters:
            raise ConfigurationRefused("a leader is not removed: transfer leadership first")
        index = self._append_local(EntryKind.CONFIG, new.encode())
        self._membership.appended([self.log.tail[-1]])
        self._hold_back(current)
        for peer in new.members() - current.members():
            self._leaving.pop(peer, None)
            self._add_peer(peer)
        return index

    def _replicate(self) -> None:
        log, config, now = self.log, self.config, self._now
        commit, last = log.commit, log.last_index
        heartbeat, self._heartbeat_due = self._heartbeat_due, False
        asking = bool(self._reads.waiting) and self._begin_round(heartbeat)
        unsent = self._held_from() if self._leaving else ()
        rides_ms, self._rides_ms = self._rides_ms, config.commit_rides_ms
        news_ms, self._news_ms = self._news_ms, NEVER_MS
        for peer, progress in self._progress.items():
            if peer in unsent:
                pass
            elif progress.state is not REPLICATE:
                self._probe(peer, progress)
            elif progress.next <= last or progress.check_due:
                self._feed(peer, progress)
            known = commit if commit < progress.match else progress.match
            if (asking or heartbeat) and self._is_called(peer, progress, asking, heartbeat):
                progress.sent_ms = now
                progress.sent_commit = known
                self._now_out.append(
                    Message(Kind.HEARTBEAT, self.id, peer, self.term, 0, 0, known, self._reads.latest))
            elif known > progress.sent_commit and config.tells_commit:  # D4; no append has told it
                if progress.patient and rides_ms:
                    self._news_ms = min(news_ms, now + rides_ms)
                    continue
                progress.sent_commit = known
                self._now_out.append(Message(Kind.COMMIT, self.id, peer, self.term, 0, 0, known))

    def _held_from(self) -> list[int]:
        """Peers that get no entries, as their removal or demotion is uncommitted: see membership."""
        return [peer for peer, (index, _) in self._leaving.items() if self.log.commit < index]

    def _feed(self, peer: int, progress: Progress) -> None:
        """All that may be under way to a peer, or an empty append where one may have been lost."""
        config, last, sent = self.config, self.log.last_index, False
        while (progress.next <= last and len(progress.inflight) < config.max_inflight
               and progress.inflight_bytes < config.max_inflight_bytes
               and self._send_append(peer, progress)):
            sent = True
        if progress.check_due:
            progress.check_due = False
            if not sent:
                self._send_append(peer, progress, empty=True)

    def _probe(self, peer: int, progress: Progress) -> None:
        if progress.state == PROBE and not progress.waiting:
            self._send_append(peer, progress)

    def _is_called(self, peer: int, progress: Progress, asking: bool, heartbeat: bool) -> bool:
        """Whether a peer gets a heartbeat now: a read's question, or the one due.

        Not after an append just now, whose answer will come. But an append's answer waits for a disk, so a
        silent peer is asked, or a slow disk would look like a lost leader; and a round of reads may be lost.
        """
        if asking and peer in self._membership.current.voters:
            return True
        interval = self.config.heartbeat_ms
        return heartbeat and (
            self._now - progress.sent_ms >= interval or self._now - progress.heard_ms >= 2 * interval
            or len(self._reads) > 0)

    def _send_append(self, peer: int, progress: Progress, empty: bool = False) -> bool:
        """One append to ``peer``; False if it needs a snapshot instead."""
        log = self.log
        first = progress.next
        before = first - 1
        before_term = log.term(before)
        if before_term < 0:
            if self._now - progress.heard_ms < self.config.election_timeout_ms:  # a dead peer can wait
                progress.await_snapshot()
                self._snapshots_to.append((peer, log.position.index))
            return False
        entries: list[Entry] = []
        if first <= log.last_index and not empty:
            entries = log.entries(first, log.last_index, self.config.max_append_bytes)
        end = before + len(entries)
        if progress.state == REPLICATE:
            if entries:
                size = 0
                for entry in entries:
                    size += len(entry.data)
                if not progress.inflight:
                    progress.checked_ms = self._now
                progress.next = end + 1
                progress.inflight.append((end, size))
                progress.inflight_bytes += size
        else:
            progress.waiting = True
        progress.sent_ms = self._now
        commit = log.commit
        told = commit if commit < end else end
        if told > progress.sent_commit:
            progress.sent_commit = told
        self._now_out.append(
            Message(Kind.APPEND, self.id, peer, self.term, before, before_term, commit, 0, 0, False, entries))
        return True

    def _begin_round(self, heartbeat: bool) -> bool:
        reads = self._reads
        if not reads.waiting or self.log.commit < self._term_start:  # I13
            return False
        if len(reads) >= self.config.max_read_rounds and not heartbeat:
            return False
        reads.begin(self.log.commit)
        if self._membership.current.quorum() == 1:
            self._reads_done += reads.confirm(reads.latest)
            return False
        return True

    def _on_append_ack(self, message: Message) -> None:
        progress = self._progress.get(message.sender)
        if progress is None:
            return
        log, index = self.log, message.index
        progress.heard_ms = self._now
        progress.patient = message.flag
        if index > log.last_index or (index > log.position.index and log.term(index) != message.log_term):
            return  # not this log: an install of what a later leader committed, whose term will come
        news = progress.acknowledged(index)
        before = log.commit
        if news:
            progress.checked_ms = self._now
        if (progress.state == PROBE and index >= progress.match) or (
                progress.state == SNAPSHOT and progress.match >= log.position.index):
            progress.replicate()
        if news:
            self._maybe_commit()
            if message.sender == self._transferee:
                self._hand_over()
            if self._leaving:
                self._leaver_has(message.sender, index)
            # an ack before the quorum's, or after it: the commit was sent, or the next append brings it
            self._quiet = (
                log.commit == before and progress.next > log.last_index and not self._transferee
                and (not self.config.tells_commit or min(before, progress.match) <= progress.sent_commit
                     or (self._news_ms != NEVER_MS and progress.patient)))

    def _on_append_reject(self, message: Message) -> None:
        progress = self._progress.get(message.sender)
        if progress is None:
            return
        progress.heard_ms = self._now
        agreed = message.hint
        if agreed > self.log.position.index:
            agreed, _ = self.log.find_conflict(agreed, message.log_term)
        progress.rejected(message.index, agreed)

    def _on_heartbeat_ack(self, message: Message) -> None:
        progress = self._progress.get(message.sender)
        if progress is None:
            return
        now = self._now
        progress.heard_ms = now
        changed = progress.patient != message.flag
        progress.patient = message.flag
        if progress.state == REPLICATE:
            if progress.match < progress.next - 1 and now - progress.checked_ms >= self.config.heartbeat_ms:
                progress.check_due = True  # nothing acknowledged for a while: was an append lost?
                progress.checked_ms = now
        else:
            progress.waiting = False
        if message.round > progress.acked_round:
            progress.acked_round = message.round
            if len(self._reads):
                self._reads_done += self._reads.confirm(self._confirmed_round())
        self._quiet = progress.state == REPLICATE and not (progress.check_due or self._reads_done or changed)

    def _confirmed_round(self) -> int:
        current = self._membership.current
        rounds = sorted(
            self._reads.latest if v == self.id else self._progress[v].acked_round for v in current.voters)
        return rounds[len(rounds) - current.quorum()]

    def _maybe_commit(self) -> None:
        log, progress = self.log, self._progress
        current = self._membership.current
        # I2: this replica's own copy counts once synced
        if progress:
            matches = sorted(log.persisted if v == self.id else progress[v].match for v in current.voters)
            index = matches[len(matches) - current.quorum()]
        else:
            index = log.persisted
        if index > log.commit and log.term(index) == self.term:  # section 5.4.2
            before = log.commit
            self._advance_commit(index)
            if self._uncommitted_bytes:
                first = max(before, self._term_start - 1) + 1
                for i in range(first - log.tail_first, index + 1 - log.tail_first):
                    self._uncommitted_bytes -= len(log.tail[i].data)

    def _tick_leader(self) -> None:
        now, config = self._now, self.config
        if config.check_quorum and self._quorum_heard_ms() + config.election_timeout_ms <= now:
            self._become_follower(self.term, 0)  # thesis 6.2
            return
        if self._transferee and now >= self._transfer_deadline_ms:
            self._transferee = 0
        if self._look_at_the_disk():
            return
        for peer, (index, since) in list(self._leaving.items()):
            if self.log.commit < index:
                self._leaving[peer] = (index, now)
            elif now - since >= _LEAVING_TIMEOUTS * config.election_timeout_ms:
                self._let_go(peer)
        if now >= self._heartbeat_ms:
            self._heartbeat_ms = now + config.heartbeat_ms
            self._heartbeat_due = True
            if self._transferee:
                self._hand_over()
        if now >= self._news_ms:
            self._news_ms = NEVER_MS
            self._rides_ms = 0

    def _look_at_the_disk(self) -> bool:
        """Lead no longer while the own disk hangs: True if this replica has stepped down.

        The others commit and the heartbeats go on, so no other voter campaigns; but a leader applies, and so
        answers, only what its own disk has. After an election timeout in which the disk has synced nothing of
        what is committed, the voter with most of the log takes over; after another one any voter may. Where
        syncs take that long anyway, twice their time counts: all disks may be slow, each at its moment.
        """
        log, now = self.log, self._now
        if log.commit <= log.persisted or log.persisted != self._synced_index:
            self._synced_index, self._hung_since_ms = log.persisted, now
            return False
        limit = max(self.config.election_timeout_ms, 2 * self._usual_sync_ms)
        if now - self._hung_since_ms >= 2 * limit:
            self._become_follower(self.term, 0)
            return True
        if now - self._hung_since_ms >= limit and not self._transferee:
            self.transfer_leadership(max(self._membership.current.voters - {self.id}, key=self._as_heir))
        return False

    def _as_heir(self, voter: int) -> tuple[bool, int, int]:
        """The voters that are heard, those first that have most of the log."""
        progress = self._progress[voter]
        heard = self._now - progress.heard_ms < self.config.election_timeout_ms
        return heard, progress.match, -voter

    def _quorum_heard_ms(self) -> int:
        current = self._membership.current
        heard = sorted(self._now if v == self.id else self._progress[v].heard_ms for v in current.voters)
        return heard[len(heard) - current.quorum()]

    def _let_go(self, peer: int) -> None:
        """A peer knows of its removal or demotion, or never will."""
        del self._leaving[peer]
        if peer not in self._membership.current.members():
            self._progress.pop(peer, None)

    def _leaver_has(self, peer: int, index: int) -> None:
        if peer in self._leaving and index >= self._leaving[peer][0]:
            self._let_go(peer)

    def transfer_leadership(self, target: int) -> None:
        """Let voter ``target`` take over once it has the whole log; given up after an election timeout, and
        until then proposals are dropped. A repeat changes nothing. NotLeader, ConfigurationRefused."""
        if self._role != Role.LEADER:
            raise NotLeader(self.leader_id)
        if target not in self._membership.current.voters:
            raise ConfigurationRefused(f"{target} is no voter")
        if target == self.id:
            self._transferee = 0
            return
        if target == self._transferee:
            return
        self._transferee = target
        self._transfer_deadline_ms = self._now + self.config.election_timeout_ms
        self._hand_over()
        self._due = True

    def _hand_over(self) -> None:
        """Have the transferee campaign, if its log is complete (thesis 3.10)."""
        progress = self._progress.get(self._transferee)
        if progress is not None and progress.match == self.log.last_index:
            self._now_out.append(Message(Kind.TIMEOUT_NOW, self.id, self._transferee, self.term))

    def snapshot_sent(self, peer: int, ok: bool) -> None:
        """A snapshot of ``Ready.snapshots_to`` reached ``peer``, or did not: probe again."""
        progress = self._progress.get(peer)
        if progress is not None and progress.state == SNAPSHOT:
            progress.probe(self.log.position.index + 1 if ok else progress.match + 1)
            progress.waiting = True  # until a heartbeat's answer shows that it is there
            self._due = True

    def report_unreachable(self, peer: int) -> None:
        progress = self._progress.get(peer)
        if progress is not None and progress.state == REPLICATE:
            progress.probe(progress.match + 1)
            self._due = True

    def _follow(self, message: Message) -> None:
        if self._role == Role.LEADER:
            raise AssertionError(f"I1: {message.sender} leads term {self.term} besides {self.id}")
        if self._role != Role.FOLLOWER:
            self._become_follower(self.term, message.sender)
        self.leader_id = message.sender
        self._contact_ms = self._now
        self._deadline_ms = self._now + self._timeout_ms

    def _on_append(self, message: Message) -> None:
        self._follow(message)
        log, before = self.log, message.index
        if before < log.commit:
            # an old message, or a leader that probes: what is committed agrees with it
            self._acknowledge(message.sender, log.commit)
            return
        if before > log.last_index or log.term(before) != message.log_term:
            hint, hint_term = log.find_conflict(before, message.log_term)
            self._send(Message(
                Kind.APPEND_REJECT, self.id, message.sender, self.term, before, hint_term, 0, 0, hint))
            return
        entries = message.entries
        if entries:
            first_new = log.merge(entries)
            if first_new:
                if self._membership.latest_index >= first_new:
                    self._membership.truncated(first_new)
                self._membership.appended(entries[first_new - entries[0].index :])
        end = before + len(entries)
        self._advance_commit(min(message.commit, end))
        self._acknowledge(message.sender, end)

    def _on_heartbeat(self, message: Message) -> None:
        self._quiet = (
            message.commit <= self.log.commit and self._role == Role.FOLLOWER
            and self.leader_id == message.sender and self._saved_term == self.term)
        self._follow(message)
        self._advance_commit(message.commit)
        self._send(Message(
            Kind.HEARTBEAT_ACK, self.id, message.sender, self.term, round=message.round, flag=self.patient))

    def _on_commit(self, message: Message) -> None:
        self._follow(message)
        self._advance_commit(message.commit)
