"""Who leads next: whom a leader hands over to, by itself or because a client names it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.raft import Configuration, Role
from cluster.wire.messages import Status, decode_answers
from node.links.fronts import FrontLink
from node.upkeep.group.succession import Succession

ELECTION_MS = 1000


class Leader:
    """Member 1 of four, of which 4 is no voter any more."""

    def __init__(self) -> None:
        self.now_ms = 10_000
        self.handed_to: list[int] = []
        self.woken = 0
        self.dirty: list[FrontLink] = []
        self.frames: list[bytes] = []
        self.link = FrontLink(b"front", self._take, b"", 1)
        self.heard = {member_id: SimpleNamespace(match=match, heard_ms=10_000)
                      for member_id, match in ((2, 7), (3, 9), (4, 9))}
        self.raft: Any = SimpleNamespace(
            role=Role.LEADER, is_leader=True, leader_id=1, term=5,
            configuration=Configuration(frozenset((1, 2, 3))),
            peers=lambda: self.heard, transfer_leadership=self.handed_to.append)
        self.succession = Succession(self, self.raft, election_ms=ELECTION_MS, now_ms=lambda: self.now_ms)

    def _take(self, parts: list[bytes]) -> bool:
        self.frames.append(parts[-1])
        return True

    def wake(self) -> None:
        self.woken += 1

    def mark_dirty(self, link: FrontLink) -> None:
        self.dirty.append(link)

    def transfer(self, target: int) -> tuple[int, bytes]:
        self.succession.transfer(self.link, 1, target.to_bytes(8, "little"))
        assert self.dirty == [self.link]
        self.link.flush()
        ((_, status, body),) = decode_answers(self.frames[-1])[1]
        return status, body


def test_the_voter_that_is_furthest_along_comes_first() -> None:
    leader = Leader()
    assert leader.succession.successors() == [3, 2]
    leader.heard[3].heard_ms -= ELECTION_MS
    assert leader.succession.successors() == [2], "one that is silent is no choice"


def test_who_did_not_take_over_in_this_term_comes_last() -> None:
    """One that has the log and no state cannot campaign: it was asked again and again."""
    leader = Leader()
    leader.succession.hand_over(3)
    assert leader.succession.successors() == [2, 3]
    leader.succession.hand_over(2)
    assert leader.succession.successors() == [3, 2]
    leader.succession.hand_over(3)
    leader.raft.term = 7  # it did, and this one leads again
    assert leader.succession.successors() == [3, 2]
    assert leader.handed_to == [3, 2, 3]


def test_nobody_follows_who_is_about_to_end() -> None:
    leader = Leader()
    leader.succession.left(3)
    assert leader.succession.successors() == [2]
    leader.now_ms += ELECTION_MS
    for peer in leader.heard.values():
        peer.heard_ms = leader.now_ms
    assert leader.succession.successors() == [3, 2], "it was started anew"


def test_a_client_names_who_leads_next() -> None:
    leader = Leader()
    assert leader.transfer(2) == (Status.OK, b"")
    assert (leader.handed_to, leader.woken) == ([2], 1)


def test_only_a_voter_can_be_named() -> None:
    leader = Leader()
    with pytest.raises(EtcdError) as refused:
        leader.transfer(4)
    assert refused.value.kind == errors.BAD_LEADER_TRANSFEREE
    assert leader.handed_to == []


def test_who_does_not_lead_says_who_does() -> None:
    leader = Leader()
    leader.raft.role, leader.raft.is_leader, leader.raft.leader_id = Role.FOLLOWER, False, 3
    assert leader.transfer(2) == (Status.NOT_LEADER, (3).to_bytes(8, "little") + (5).to_bytes(8, "little"))
    assert leader.handed_to == []
