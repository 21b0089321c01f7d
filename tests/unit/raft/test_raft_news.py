"""News of commits (D4, decision 26), and what is answered without a tick: one test per rule."""

from __future__ import annotations

import pytest

from cluster.raft import (
    Kind,
    Message,
)
from tests.unit.raft.raft_harness import Group, kinds

# -- D4: commit news
# ------------------------------------------------------------------------------------------


def test_followers_learn_of_a_commit_at_once_without_time_passing() -> None:
    group = Group()
    leader = group.elect(1)
    leader.raft.propose(b"x")
    group.settle()
    assert [r.raft.commit_index for r in group.replicas.values()] == [2, 2, 2]


def test_commit_news_rides_with_an_append_that_is_due() -> None:
    group = Group()
    leader = group.elect(1)
    leader.raft.propose(b"x")
    leader.drain()
    leader.raft.step(Message(Kind.APPEND_ACK, 2, 1, 1, 2, 1), group.now)
    leader.raft.propose(b"y")
    assert [(m.kind, m.commit) for m in leader.drain() if m.to == 2] == [(Kind.APPEND, 2)]


def patient_group(*patient: int) -> Group:
    group = Group(commit_rides_ms=3)
    for id_ in patient:
        group[id_].raft.patient = True
    return group


def test_a_peer_that_can_wait_learns_of_a_commit_from_the_next_append() -> None:
    group = patient_group(2)
    leader = group.elect(1)
    group.pass_time(200)
    leader.raft.propose(b"x")
    group.settle()
    assert [r.raft.commit_index for r in group.replicas.values()] == [2, 1, 2]
    leader.raft.propose(b"y")
    assert [(m.kind, m.commit) for m in leader.drain() if m.to == 2] == [(Kind.APPEND, 2)]


def test_a_peer_that_can_wait_is_told_in_time_where_no_append_comes() -> None:
    group = patient_group(2, 3)
    leader = group.elect(1)
    group.pass_time(200)
    leader.raft.propose(b"x")
    group.settle()
    assert [r.raft.commit_index for r in group.replicas.values()] == [2, 1, 1]
    assert leader.raft.next_deadline() == group.now + 3
    group.pass_time(3, step_ms=1)
    assert [r.raft.commit_index for r in group.replicas.values()] == [2, 2, 2]
    assert leader.raft.next_deadline() > group.now + 3  # nothing more to tell


def test_a_peer_that_cannot_wait_any_more_says_so_with_its_next_answer() -> None:
    group = patient_group(2, 3)
    leader = group.elect(1)
    group.pass_time(200)
    group[2].raft.patient = False
    leader.raft.propose(b"x")
    group.settle()
    assert [r.raft.commit_index for r in group.replicas.values()] == [2, 2, 1]


# -- steps that leave nothing to do but to answer
# --------------------------------------------------------------


def test_a_heartbeat_that_brings_no_news_is_answered_without_a_ready() -> None:
    group = Group()
    group.elect(1)
    follower = group[2].raft
    assert not follower.step(Message(Kind.HEARTBEAT, 1, 2, 1, commit=1, round=5), group.now)
    assert [(m.kind, m.to, m.round) for m in follower.take_answers()] == [(Kind.HEARTBEAT_ACK, 1, 5)]
    assert follower.take_answers() == []  # each is handed out once
    assert follower.ready() is None


def test_a_heartbeat_of_a_term_that_is_not_synced_yet_is_answered_by_a_ready() -> None:
    """I2: the answer shows the term."""
    group = Group()
    follower = group[2]
    follower.slow_disk = True
    assert follower.raft.step(Message(Kind.HEARTBEAT, 1, 2, 7), group.now)
    assert follower.drain() == []
    assert kinds(follower.sync()) == [Kind.HEARTBEAT_ACK]


def test_a_heartbeat_that_brings_a_commit_leaves_it_to_a_ready() -> None:
    group = Group()
    leader = group.elect(1)
    group.drop = lambda m: m.kind == Kind.COMMIT
    leader.raft.propose(b"x")
    group.settle()
    assert group[2].raft.step(Message(Kind.HEARTBEAT, 1, 2, 1, commit=2), group.now)
    group[2].drain()
    assert group[2].data() == [b"x"]


def test_an_ack_after_the_quorums_leaves_its_leader_nothing_to_do() -> None:
    group = patient_group(2, 3)
    leader = group.elect(1)
    group.pass_time(200)
    index = leader.raft.propose(b"x")
    leader.drain()
    assert leader.raft.step(Message(Kind.APPEND_ACK, 2, 1, 1, index, 1, flag=True), group.now)
    assert leader.data() == []
    leader.drain()
    assert leader.data() == [b"x"]
    assert not leader.raft.step(Message(Kind.APPEND_ACK, 3, 1, 1, index, 1, flag=True), group.now)
    assert leader.raft.take_answers() == []
    assert leader.raft.ready() is None


@pytest.mark.parametrize("tells_commit", [True, False])
def test_an_ack_before_the_quorums_and_a_sync_before_it_leave_their_leader_nothing_to_do(
    tells_commit: bool,
) -> None:
    group = Group(5, tells_commit=tells_commit)
    leader = group.elect(1)
    leader.slow_disk = True
    index = leader.raft.propose(b"x")
    leader.drain()
    assert not leader.raft.step(Message(Kind.APPEND_ACK, 2, 1, 1, index, 1), group.now)
    assert not leader.raft.persisted(leader.unsynced[-1].sequence)
    assert leader.raft.ready() is None
    assert leader.raft.step(Message(Kind.APPEND_ACK, 3, 1, 1, index, 1), group.now)
    leader.drain()
    assert leader.data() == [b"x"]
    # at once: not patient
    assert leader.raft.step(Message(Kind.APPEND_ACK, 4, 1, 1, index, 1), group.now) == tells_commit
    leader.drain()


def test_a_sync_that_makes_a_quorum_leaves_its_leader_a_commit() -> None:
    group = Group(3)
    leader = group.elect(1)
    leader.slow_disk = True
    index = leader.raft.propose(b"x")
    leader.drain()
    assert not leader.raft.step(Message(Kind.APPEND_ACK, 2, 1, 1, index, 1), group.now)
    assert leader.raft.persisted(leader.unsynced[-1].sequence)
    leader.drain()
    assert leader.data() == [b"x"]


def test_where_others_tell_what_is_committed_no_message_goes_for_it_alone() -> None:
    group = Group(tells_commit=False)
    leader = group.elect(1)
    leader.raft.propose(b"x")
    group.settle()
    assert [r.raft.commit_index for r in group.replicas.values()] == [2, 1, 1]
    assert group[2].raft.prove_committed(2, 1)
    group.settle()
    assert group[2].data() == [b"x"]
    group.pass_time(200)  # heartbeats bring it, too
    assert group[3].data() == [b"x"]


def test_a_proof_of_commitment_counts_only_for_the_entry_that_has_its_term() -> None:
    """C6: log matching proves the prefix, an index alone proves nothing (H3)."""
    group = Group(tells_commit=False)
    leader = group.elect(1)
    leader.raft.propose(b"x")
    group.settle()
    follower = group[2].raft
    assert not follower.prove_committed(2, 2)  # another leader's entry stands there
    assert not follower.prove_committed(3, 1)  # it has not come yet
    assert follower.commit_index == 1
    assert follower.prove_committed(2, 1)
    assert not follower.prove_committed(2, 1)  # no news
