"""Raft with one rule taken out each time: what the simulator's checker has to notice."""

from __future__ import annotations

from collections.abc import Callable

from cluster.raft import (
    Config,
    Configuration,
    ConfigurationRefused,
    Kind,
    LogStorage,
    Message,
    Raft,
    Ready,
    Role,
    SnapshotPosition,
)


class LeaderCountsItselfBeforeItsSync(Raft):
    """I2."""

    def _maybe_commit(self) -> None:
        persisted, self.log.persisted = self.log.persisted, self.log.last_index
        super()._maybe_commit()
        self.log.persisted = persisted

    def propose(self, data: bytes) -> int:
        index = super().propose(data)
        self._maybe_commit()
        return index


class CandidateCountsItsVoteBeforeItsSync(Raft):
    """I2."""

    def _become_candidate(self, transfer: bool) -> None:
        super()._become_candidate(transfer)
        self._votes[self.id] = True
        self._tally()


class VoteLeavesBeforeItsSync(Raft):
    """I2."""

    def _on_vote(self, message: Message) -> None:
        super()._on_vote(message)
        self._now_out += [m for m in self._after_sync if m.kind == Kind.VOTE_ACK]
        self._after_sync = [m for m in self._after_sync if m.kind != Kind.VOTE_ACK]


class VoteRequestLeavesBeforeTheLogsSync(Raft):
    """I2: see the election module."""

    def _become_candidate(self, transfer: bool) -> None:
        super()._become_candidate(transfer)
        self._now_out += self._after_sync
        self._after_sync = []


class AckLeavesBeforeItsSync(Raft):
    """I2."""

    def _flush_ack(self) -> None:
        super()._flush_ack()
        self._now_out += self._after_sync
        self._after_sync = []


class TermLeavesBeforeItsSync(Raft):
    """I2."""

    def _send(self, message: Message) -> None:
        self._now_out.append(message)


class VoteIsForgotten(Raft):
    """Section 5.2: the vote belongs to the hard state."""

    def ready(self) -> Ready | None:
        ready = super().ready()
        if ready is not None and ready.hard_state is not None:
            return ready._replace(hard_state=ready.hard_state._replace(vote=0))
        return ready


class VotesTwiceInATerm(Raft):
    """Section 5.2."""

    def _on_vote(self, message: Message) -> None:
        if self._role == Role.FOLLOWER:
            self.vote = self.leader_id = 0
        super()._on_vote(message)


class VotesForAnyLog(Raft):
    """Section 5.4.1."""

    def _up_to_date(self, message: Message) -> bool:
        return True


class ComparesLogsByLengthOnly(Raft):
    """Section 5.4.1: the last term counts first."""

    def _up_to_date(self, message: Message) -> bool:
        return message.index >= self.log.last_index


class CommitsEntriesOfOlderTerms(Raft):
    """Section 5.4.2."""

    def _maybe_commit(self) -> None:
        term, index = self.term, self._quorum_match()
        if index > self.log.commit:
            self.term = self.log.term(index)
            super()._maybe_commit()
            self.term = term

    def _quorum_match(self) -> int:
        current = self._membership.current
        matches = sorted(
            self.log.persisted if v == self.id else self._progress[v].match for v in current.voters
        )
        return matches[len(matches) - current.quorum()]


class TruncatesWithoutConflict(Raft):
    """Section 5.3: an old message must not cut off what was acknowledged since."""

    def _on_append(self, message: Message) -> None:
        log = self.log
        end = message.index + len(message.entries)
        if log.commit <= message.index and log.commit <= end < log.last_index and log.term(end) >= 0:
            log._truncate(end + 1)
            self._membership.truncated(end + 1)
        super()._on_append(message)


class AppendsWithoutLookingAtTheEntryBefore(Raft):
    """Section 5.3, log matching."""

    def _on_append(self, message: Message) -> None:
        log = self.log
        if log.commit <= message.index <= log.last_index:
            message = message._replace(log_term=log.term(message.index))
        super()._on_append(message)


class ForgetsThatATruncationUndoesSyncs(Raft):
    """I2, review (b) Disk: what was synced is not this log any more."""

    def _on_append(self, message: Message) -> None:
        persisted = self.log.persisted
        super()._on_append(message)
        self.log.persisted = min(max(persisted, self.log.persisted), self.log.last_index)


class TellsFollowersACommitTheyMayNotHave(Raft):
    """A heartbeat's commit stays at or below what its receiver acknowledged."""

    def _replicate(self) -> None:
        super()._replicate()
        self._now_out = [
            m._replace(commit=self.log.commit) if m.kind == Kind.HEARTBEAT else m for m in self._now_out
        ]

    def _advance_commit(self, index: int) -> None:
        super()._advance_commit(min(index, self.log.last_index))


class FollowerCommitsBeyondWhatWasChecked(Raft):
    """Section 5.3: min(leader's commit, last new entry)."""

    def _on_append(self, message: Message) -> None:
        super()._on_append(message)
        if self._ack_to:
            self._advance_commit(min(message.commit, self.log.last_index))


class ListensToOldTerms(Raft):
    """Section 5.1: a message of an older term changes nothing."""

    def step(self, message: Message, now_ms: int) -> None:
        if message.term < self.term and self._role != Role.LEADER and message.kind == Kind.APPEND:
            message = message._replace(term=self.term)
        super().step(message, now_ms)


class ReadJoinsARoundUnderWay(Raft):
    """H2."""

    def _begin_round(self, heartbeat: bool) -> bool:
        reads = self._reads
        if len(reads) and self.log.commit >= self._term_start:
            reads._rounds[-1][2].extend(reads.waiting)
            reads.waiting = []
        return super()._begin_round(heartbeat)


class ReadNeedsNoRound(Raft):
    """I13: leadership must be confirmed."""

    def _begin_round(self, heartbeat: bool) -> bool:
        reads = self._reads
        if reads.waiting and self.log.commit >= self._term_start:
            reads.begin(self.log.commit)
            self._reads_done += reads.confirm(reads.latest)
        return False


class ReadBeforeAnEntryOfTheOwnTerm(Raft):
    """I13, section 8."""

    def _begin_round(self, heartbeat: bool) -> bool:
        start, self._term_start = self._term_start, 0
        asking = super()._begin_round(heartbeat)
        self._term_start = start
        return asking


class SnapshotDropsTheMatchingSuffix(Raft):
    """H8."""

    def snapshot_installed(self, position: SnapshotPosition) -> bool:
        log = self.log
        if log.commit < position.index < log.last_index and self._role == Role.FOLLOWER:
            log._truncate(position.index)
            self._membership.truncated(position.index)
        return super().snapshot_installed(position)


class SaysNothingOfAStateItHas(Raft):
    """The leader that missed the answer to an install would send that state for ever."""

    def say_committed(self) -> None:
        """Nothing."""


class AppliesWhatItsOwnDiskLacks(Raft):
    """H10: the state would be ahead of the log after a crash."""

    def ready(self) -> Ready | None:
        ready = super().ready()
        if ready is not None and self.log.commit > ready.committed[1]:
            self._announced = self.log.commit
            return ready._replace(committed=(ready.committed[0], self.log.commit))
        return ready


class ForgetsWhatWasCommitted(Raft):
    """I25: a start takes the note of what was committed."""

    def __init__(self, config: Config, storage: LogStorage, random: Callable[[], float], now_ms: int) -> None:
        storage.note = 0, 0  # type: ignore[attr-defined]
        super().__init__(config, storage, random, now_ms)


class BelievesANoteByItsIndexAlone(Raft):
    """I25: the log must have the very entry that the note names."""

    def __init__(self, config: Config, storage: LogStorage, random: Callable[[], float], now_ms: int) -> None:
        index = storage.committed()[0]
        if storage.snapshot_position().index < index <= storage.last_index():
            storage.note = index, storage.term(index)  # type: ignore[attr-defined]
        super().__init__(config, storage, random, now_ms)


class StartsWithAllThatItLogged(Raft):
    """I25: what is logged is not committed."""

    def __init__(self, config: Config, storage: LogStorage, random: Callable[[], float], now_ms: int) -> None:
        super().__init__(config, storage, random, now_ms)
        self.log.commit = self.log.last_index


class ChangesTheConfigurationTwiceAtOnce(Raft):
    """Thesis 4.1: one uncommitted change at most."""

    def propose_configuration(self, new: Configuration) -> int:
        try:
            return super().propose_configuration(new)
        except ConfigurationRefused:
            if self.log.commit < self._term_start or self.id not in new.voters:
                raise
        commit, self.log.commit = self.log.commit, self.log.last_index
        try:
            return super().propose_configuration(new)
        finally:
            self.log.commit = commit


class ChangesTheConfigurationBeforeItsTermCommits(Raft):
    """The erratum to single-server changes."""

    def propose_configuration(self, new: Configuration) -> int:
        if self._membership.latest_index > self.log.commit:
            raise ConfigurationRefused("the change before is not committed yet")
        start, self._term_start = self._term_start, 0
        try:
            return super().propose_configuration(new)
        finally:
            self._term_start = start


class UsesAConfigurationOnlyOnceItIsOld(Raft):
    """Thesis 4.1: the latest configuration in the log decides, here it is the one before."""

    def _maybe_commit(self) -> None:
        current = self._membership.current
        history = self._membership._history
        if len(history) > 1:
            old = history[-2][1]
            if old.voters <= {self.id, *self._progress}:
                self._membership.current = old
        super()._maybe_commit()
        self._membership.current = current
