"""The next leader after this node."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster import errors
from cluster.errors import EtcdError
from cluster.raft import Raft, Role
from cluster.wire.messages import Status
from node.links.fronts import FrontLink, say_not_leader

if TYPE_CHECKING:
    from node.upkeep.owner import UpkeepNode


class Succession:
    def __init__(self, node: UpkeepNode, raft: Raft, *, election_ms: int, now_ms: Callable[[], int]) -> None:
        self._node = node
        self._raft = raft
        self._election_ms = election_ms
        self._now_ms = now_ms
        self._tried = 0, 0  # the term in which leadership was handed over last, and to whom
        self.leaving: dict[int, int] = {}  # member -> when it said last that it is about to end, in ms

    def left(self, member_id: int) -> None:
        """A member said that it is about to end."""
        self.leaving[member_id] = self._now_ms()

    def successors(self) -> list[int]:
        """Voters that are reachable and not about to end, the one with the longest log first. Last who was
        handed leadership in this term: it did not take over, as one without a state cannot."""
        raft, now, election_ms = self._raft, self._now_ms(), self._election_ms
        voters = raft.configuration.voters  # a leader serves one that was removed for a while
        found = [
            ((raft.term, member_id) == self._tried, -peer.match, member_id)
            for member_id, peer in raft.peers().items()
            # a member that ends says so every heartbeat until it is gone
            if now - peer.heard_ms < election_ms <= now - self.leaving.get(member_id, -election_ms)
            and member_id in voters
        ]
        return [member_id for *_, member_id in sorted(found)]

    def hand_over(self, member_id: int) -> None:
        """To one of the successors, or to itself: to nobody any more."""
        self._raft.transfer_leadership(member_id)
        self._tried = self._raft.term, member_id

    def transfer(self, link: FrontLink, rid: int, body: bytes) -> None:
        """Hand leadership to the member a front names."""
        node, raft = self._node, self._raft
        if raft.role is not Role.LEADER:
            say_not_leader(raft, link, rid)
        else:
            target = int.from_bytes(body[:8], "little")
            if target not in raft.configuration.voters:
                raise EtcdError(errors.BAD_LEADER_TRANSFEREE)
            raft.transfer_leadership(target)
            node.wake()
            link.answer(rid, Status.OK, b"")
        node.mark_dirty(link)
