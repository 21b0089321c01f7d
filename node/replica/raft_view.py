"""Raft as the write path and the confirmations see it."""

from __future__ import annotations

from cluster.raft import Raft, Role


class RaftView:
    """See the module."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self.propose = raft.propose
        self.read_index = raft.read_index

    @property
    def term(self) -> int:
        return self._raft.term

    @property
    def leader_id(self) -> int:
        return self._raft.leader_id

    @property
    def is_leader(self) -> bool:
        return self._raft.role is Role.LEADER

    @property
    def transferring(self) -> bool:
        return self._raft.transferring

    @property
    def takes_proposals(self) -> bool:
        return self._raft.takes_proposals
