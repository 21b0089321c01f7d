"""What members have acknowledged, and who must have lost it (H10)."""

from __future__ import annotations

import pytest

from cluster.raft import Configuration, Kind, Message, Role
from cluster.raft.promises import Promise, decode, encode, join
from tests.unit.raft.raft_harness import Replica

PROMISE = Promise(term=5, index=150, committed=140)


@pytest.mark.parametrize(
    ("term", "last_index", "kept"),
    [
        (5, 150, True), (5, 151, True), (6, 150, True),
        (6, 140, True),  # a later leader has replaced what was not committed
        (6, 139, False), (5, 149, False), (4, 150, False), (4, 200, False), (0, 0, False),
    ],
)  # fmt: skip
def test_which_disks_may_be_those_of_a_member_that_has_acknowledged(
    term: int, last_index: int, kept: bool
) -> None:
    assert PROMISE.is_kept(term, last_index) == kept


def test_two_promises_are_one_that_is_kept_where_both_are() -> None:
    promises = [Promise(*p) for p in ((5, 150, 140), (5, 151, 140), (6, 141, 141), (4, 300, 130), (7, 0, 0))]
    disks = [(term, index) for term in range(4, 9) for index in (0, 130, 139, 140, 141, 150, 151, 299, 300)]
    for one in promises:
        for other in promises:
            both = one.joined(other)
            assert both == other.joined(one)
            for disk in disks:
                assert both.is_kept(*disk) == (one.is_kept(*disk) and other.is_kept(*disk)), (one, other)


def test_promises_by_member_on_the_wire() -> None:
    known = {1: PROMISE, 7: Promise(1, 2, 0)}
    join(known, {7: Promise(2, 1, 1), 9: PROMISE})
    assert known == {1: PROMISE, 7: Promise(2, 1, 1), 9: PROMISE}
    assert decode(encode(known)) == known
    with pytest.raises(ValueError, match="cut short"):
        decode(encode(known)[:-1])


def test_a_leader_remembers_what_was_acknowledged_when_it_leads_no_more() -> None:
    leader = Replica(1, Configuration(frozenset({1, 2, 3})), pre_vote=False)
    leader.raft.tick(3000)
    leader.drain()
    leader.raft.step(Message(Kind.VOTE_ACK, 2, 1, 1, flag=True), 3000)
    leader.drain()
    leader.raft.propose(b"x")
    leader.drain()
    leader.raft.step(Message(Kind.APPEND_ACK, 2, 1, 1, 1, 1), 3000)
    leader.drain()
    known = {1: Promise(1, 2, 1), 2: Promise(1, 1, 1)}
    assert leader.raft.promises() == known
    leader.raft.step(Message(Kind.HEARTBEAT, 3, 1, 2), 3001)
    assert leader.raft.role == Role.FOLLOWER
    assert leader.raft.promises() == known
    leader.raft.remember({2: Promise(2, 7, 3), 9: Promise(2, 7, 3)})
    assert leader.raft.promises() == {**known, 2: Promise(2, 7, 3)}, "of members alone"


def test_a_replica_knows_its_own_promise_before_its_log_says_that_it_is_a_member() -> None:
    joined = Replica(4, Configuration(frozenset({1, 2, 3})))  # as an old copy of a host that joined
    joined.raft.remember({4: PROMISE, 9: PROMISE})
    assert joined.raft.promises() == {4: PROMISE}
