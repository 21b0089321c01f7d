"""Elections (section 5.2, 5.4.1; thesis 9.6 for pre-vote, 4.2.3 for the refusal to disturb a leader).

::

    FOLLOWER --timeout--> PRE_CANDIDATE --quorum would--> CANDIDATE --quorum did--> LEADER
       ^  ^--------------------|  no quorum, leader seen      |                        |
       |------------------------------------------------------|    higher term seen    |
       |-----------------------------------------------------------quorum not heard----|

Rules:

- One vote a term, first come, first served, only for a log at least as complete as one's own (5.4.1).
- A vote, the candidate's own included, counts only once it is synced (I2). A request for votes leaves only
  after the sync of the log that it names: a crash could otherwise leave votes under way for a lost log, and
  the same term be tried again with a shorter one.
- A replica that hears from a leader answers no request for votes, unless that leader asked for it (transfer).
"""

from __future__ import annotations

from cluster.raft.messages import Kind, Message
from cluster.raft.replication import Replication
from cluster.raft.types import Role


class Election(Replication):
    def _campaign(self, transfer: bool = False) -> None:
        """Try to become leader: ask first, unless the leader itself asked for it."""
        if self.id not in self._membership.current.voters or not self.may_campaign():
            self._rearm()
        elif self.config.pre_vote and not transfer:
            self._become_pre_candidate()
        else:
            self._become_candidate(transfer)

    def _become_pre_candidate(self) -> None:
        self._role = Role.PRE_CANDIDATE
        self.leader_id = 0
        self._rearm()
        self._votes = {self.id: True}
        for peer in sorted(self._membership.current.voters - {self.id}):
            self._send(self._vote_request(Kind.PRE_VOTE, peer, self.term + 1, False))
        self._tally()

    def _become_candidate(self, transfer: bool) -> None:
        self.term += 1
        self.vote = self.id
        self._ack_to = 0
        self._role = Role.CANDIDATE
        self.leader_id = 0
        self._rearm()
        self._votes = {}
        for peer in sorted(self._membership.current.voters - {self.id}):
            self._after_sync.append(self._vote_request(Kind.VOTE, peer, self.term, transfer))  # I2
        # its own vote counts in _vote_synced

    def _vote_request(self, kind: Kind, peer: int, term: int, transfer: bool) -> Message:
        log = self.log
        return Message(kind, self.id, peer, term, log.last_index, log.last_term, flag=transfer)

    def _vote_synced(self) -> None:
        """The Readys so far are synced: a candidate's own vote may now count (I2)."""
        if self._saved_term == self.term and self._saved_vote == self.id and self.id not in self._votes:
            self._votes[self.id] = True
            self._tally()

    def _tally(self) -> None:
        current = self._membership.current
        votes = [self._votes[v] for v in current.voters if v in self._votes]
        granted = sum(votes)
        if granted >= current.quorum():
            if self._role == Role.PRE_CANDIDATE:
                self._become_candidate(False)
            else:
                self._start_leading()
        elif len(current.voters) - (len(votes) - granted) < current.quorum():
            self._become_follower(self.term, 0)


    def _up_to_date(self, message: Message) -> bool:
        """Section 5.4.1: the candidate's log is at least as complete as this one."""
        log = self.log
        return (message.log_term, message.index) >= (log.last_term, log.last_index)

    def _on_pre_vote(self, message: Message) -> None:
        granted = message.term > self.term and self._up_to_date(message)
        term = message.term if granted else self.term
        self._send(Message(Kind.PRE_VOTE_ACK, self.id, message.sender, term, flag=granted))

    def _on_pre_vote_ack(self, message: Message) -> None:
        if self._role == Role.PRE_CANDIDATE and message.term == self.term + message.flag:
            self._votes.setdefault(message.sender, message.flag)
            self._tally()

    def _on_vote(self, message: Message) -> None:
        free = self.vote == message.sender or (self.vote == 0 and self.leader_id == 0)
        if free and self._up_to_date(message):
            self.vote = message.sender
            self._deadline_ms = self._now + self._timeout_ms
            self._after_sync.append(  # I2
                Message(Kind.VOTE_ACK, self.id, message.sender, self.term, flag=True))
        else:
            self._send(Message(Kind.VOTE_ACK, self.id, message.sender, self.term))

    def _on_vote_ack(self, message: Message) -> None:
        if self._role == Role.CANDIDATE:
            self._votes.setdefault(message.sender, message.flag)
            self._tally()

    def _on_timeout_now(self, message: Message) -> None:
        if self._role != Role.LEADER and message.sender == self.leader_id:
            self._campaign(transfer=True)
