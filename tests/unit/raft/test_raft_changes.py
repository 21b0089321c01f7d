"""One test per rule of transfers, membership and snapshots."""

from __future__ import annotations

import pytest

from cluster.raft import (
    Configuration,
    ConfigurationRefused,
    Kind,
    Message,
    ProposalDropped,
    Role,
    SnapshotPosition,
)
from tests.unit.raft.raft_harness import Group, Replica, kinds

THREE = Configuration(frozenset({1, 2, 3}))


# -- thesis 3.10: transfer
# ------------------------------------------------------------------------------------


def test_a_transfer_waits_until_the_target_has_the_log() -> None:
    group = Group()
    leader = group.elect(1)
    leader.raft.propose(b"x")
    leader.raft.transfer_leadership(2)
    assert Kind.TIMEOUT_NOW not in kinds(leader.drain())
    with pytest.raises(ProposalDropped):
        leader.raft.propose(b"y")
    group.pass_time(300)
    assert group.leader.id == 2
    assert group[2].data() == [b"x"]


def test_a_transfer_is_given_up_after_an_election_timeout() -> None:
    group = Group()
    leader = group.elect(1)
    group.cut = {2}
    leader.raft.transfer_leadership(2)
    group.pass_time(1100)
    assert leader.raft.propose(b"x") == 2


def test_a_transfer_that_is_asked_for_again_is_given_up_no_later() -> None:
    """A client that repeated it to a voter that was down held writes off without end."""
    group = Group()
    leader = group.elect(1)
    group.cut = {2}
    leader.raft.transfer_leadership(2)
    for _ in range(2):
        group.pass_time(400)
        leader.raft.transfer_leadership(2)
    group.pass_time(300)
    assert not leader.raft.transferring
    leader.raft.transfer_leadership(2)
    group.pass_time(500)
    leader.raft.transfer_leadership(3)
    group.pass_time(100)
    assert group.leader.id == 3, "another target takes its place"


def test_leadership_goes_to_voters_only() -> None:
    group = Group(3, learners=[4])
    with pytest.raises(ConfigurationRefused):
        group.elect(1).raft.transfer_leadership(4)


# -- thesis chapter 4, I21, H12: membership
# -------------------------------------------------------------------


def test_learners_receive_the_log_and_never_campaign_or_count() -> None:
    group = Group(1, learners=[2])
    leader = group.elect(1)
    leader.raft.propose(b"x")
    group.settle()
    assert group[2].data() == [b"x"]
    assert group[2].raft.role == Role.LEARNER
    group.cut = {2}
    leader.raft.propose(b"y")
    group.settle()
    assert leader.raft.commit_index == leader.raft.last_index
    group.pass_time(5000)
    assert group[2].raft.role == Role.LEARNER


def test_a_configuration_counts_from_the_moment_it_is_logged() -> None:
    group = Group(1)
    group.replicas[2] = Replica(2, Configuration(frozenset()))
    leader = group.elect(1)
    group.cut = {2}
    leader.raft.propose_configuration(Configuration(frozenset({1, 2})))
    group.settle()
    assert leader.raft.commit_index == 1
    group.cut = set()
    group.pass_time(300)
    assert leader.raft.commit_index == 2
    assert leader.configurations == [Configuration(frozenset({1, 2}))]
    assert group[2].configurations == [Configuration(frozenset({1, 2}))]


def test_a_truncation_brings_back_the_configuration_before() -> None:
    group = Group()
    leader = group.elect(1)
    group.cut = {1}
    leader.raft.propose_configuration(Configuration(frozenset({1, 2})))
    leader.drain()
    group.elect(2)
    assert leader.raft.configuration == Configuration(frozenset({1, 2}))
    group.cut = set()
    group.pass_time(300)
    assert leader.raft.configuration == THREE
    assert leader.configurations == []


@pytest.mark.parametrize(
    "new",
    [
        Configuration(frozenset({1, 2, 3, 4, 5})),
        Configuration(frozenset({1, 2, 4})),
        Configuration(frozenset({2, 3})),
        Configuration(frozenset()),
        Configuration(frozenset({1, 2, 3}), frozenset({3})),
        Configuration(frozenset({2, 3}), frozenset({1})),
    ],
    ids=["two more", "swapped", "leader removed", "nobody", "both", "leader demoted"],
)
def test_a_change_by_more_than_one_member_or_of_the_leader_is_refused(new: Configuration) -> None:
    leader = Group().elect(1)
    with pytest.raises(ConfigurationRefused):
        leader.raft.propose_configuration(new)
    assert leader.raft.last_index == 1


@pytest.mark.parametrize("learners", [(), (3,)], ids=["removed", "demoted"])
def test_a_voter_on_its_way_out_gets_heartbeats_and_no_entry_before_that_is_committed(
    learners: tuple[int, ...],
) -> None:
    group = Group()
    leader = group.elect(1)
    group.cut = {2}
    new = Configuration(frozenset({1, 2}), frozenset(learners))
    index = leader.raft.propose_configuration(new)
    group.pass_time(900)
    assert group[3].raft.last_index == index - 1
    assert group[3].raft.leader_id == 1
    # without the leader the other two can still go on: 3 votes, although 1 alone has the longer log
    group.cut = {1}
    assert group.elect(2).raft.commit_index == group[2].raft.last_index


def test_a_new_leader_keeps_a_voter_on_its_way_out_calm_too() -> None:
    group = Group()
    leader = group.elect(1)
    group.cut = {3}
    leader.raft.propose_configuration(Configuration(frozenset({1, 2})))
    group.drop = lambda m: m.kind == Kind.APPEND_ACK
    group.settle()
    group.now += 2500
    leader.raft.tick(group.now)  # hears from nobody: steps down
    second = group.elect(2)
    assert second.raft.commit_index < 2
    group.cut = set()
    group.pass_time(500)
    assert group[3].raft.last_index == 1
    assert group[3].raft.leader_id == 2
    group.drop = lambda m: False
    group.pass_time(500)
    assert group[3].raft.role == Role.LEARNER
    assert 3 not in second.raft.peers()


def test_a_removed_member_is_told_and_campaigns_no_more() -> None:
    group = Group()
    leader = group.elect(1)
    leader.raft.propose_configuration(Configuration(frozenset({1, 2})))
    group.settle()
    assert group[3].configurations == [Configuration(frozenset({1, 2}))]
    assert 3 not in leader.raft.peers()
    group.pass_time(5000)
    assert group[3].raft.role == Role.LEARNER
    assert leader.raft.role == Role.LEADER


def test_a_restart_finds_the_configuration_in_the_log() -> None:
    group = Group()
    leader = group.elect(1)
    leader.raft.propose_configuration(Configuration(frozenset({1, 2, 3}), frozenset({4})))
    group.settle()
    group[2].start(group.now)
    assert group[2].raft.configuration.learners == {4}


# -- section 7, H8: snapshots
# ---------------------------------------------------------------------------------


def compacted_group() -> Group:
    """1 leads, 3 lacks what 1 has compacted."""
    group = Group()
    leader = group.elect(1)
    group.cut = {3}
    for i in range(5):
        leader.raft.propose(b"%d" % i)
    group.settle()
    for replica in (group[1], group[2]):
        replica.storage.compact(replica.raft.position_at(6))
        replica.raft.compacted(6)
    group.cut = set()
    group.pass_time(300)
    return group


def test_a_peer_that_needs_what_is_compacted_is_asked_to_take_a_snapshot() -> None:
    group = compacted_group()
    assert group[1].snapshots_to == [(3, 6)]
    assert group[1].raft.peers()[3].state == "snapshot"
    position = group[1].raft.position_at(6)
    assert group[3].raft.snapshot_installed(position)
    group[3].storage.reset(position)
    group[1].raft.propose(b"x")
    group.pass_time(300)
    assert group[3].data() == [b"x"]


def test_a_failed_snapshot_is_asked_for_again() -> None:
    group = compacted_group()
    group[1].raft.snapshot_sent(3, False)
    group.pass_time(300)
    assert group[1].snapshots_to == [(3, 6), (3, 6)]


def test_an_install_keeps_the_log_after_it_and_never_goes_back() -> None:
    group = Group()
    leader = group.elect(1)
    for i in range(4):
        leader.raft.propose(b"%d" % i)
    group.settle()
    replica = group[2]
    assert not replica.raft.snapshot_installed(leader.raft.position_at(3))
    assert (replica.raft.applied_index, replica.raft.last_index) == (5, 5)
    replica.start(group.now)  # its state is at 0 again, its log is not
    assert not replica.raft.snapshot_installed(leader.raft.position_at(3))
    assert (replica.raft.applied_index, replica.raft.last_index) == (3, 5)


def test_an_install_overtakes_entries_that_were_not_handed_out_yet() -> None:
    group = Group()
    leader = group.elect(1)
    for i in range(4):
        leader.raft.propose(b"%d" % i)
    append = next(m for m in leader.drain() if m.to == 2)
    replica = group[2]
    replica.raft.step(append, group.now)
    group.settle()
    position = leader.raft.position_at(3)
    assert replica.storage.last_index() == 5
    late = Replica(2, THREE)  # the same, but the state comes before its first Ready
    late.raft.step(Message(Kind.APPEND, 1, 2, 1, 0, 0, entries=replica.storage.log), 0)
    assert not late.raft.snapshot_installed(position)
    late.storage.reset(position)  # the stored log does not reach there
    late.raft.compacted(3)
    late.drain()
    assert [e.index for e in late.storage.log] == [4, 5]
    assert (late.raft.last_index, late.raft.persisted_index, late.raft.applied_index) == (5, 5, 3)


def test_a_snapshot_of_a_later_term_ends_the_older_one() -> None:
    group = Group()
    leader = group.elect(1)
    term = leader.raft.term
    assert leader.raft.snapshot_installed(SnapshotPosition(9, term + 3, THREE))
    assert (leader.raft.role, leader.raft.term, leader.raft.vote) == (Role.FOLLOWER, term + 3, 0)


def test_what_is_committed_is_said_again_once_it_is_synced_and_to_a_leader_alone() -> None:
    group = Group(learners=[4])
    leader = group.elect(1)
    group.settle()
    leader.raft.say_committed()
    assert leader.drain() == []
    leader.raft.propose(b"x")
    append = next(m for m in leader.drain() if m.to == 4)
    late = group[4]
    late.slow_disk = True
    late.raft.step(append._replace(commit=2), group.now)
    late.drain()
    late.raft.say_committed()
    assert (late.raft.commit_index, late.drain()) == (2, []), "I2"
    acks = [m for m in late.sync() if m.kind == Kind.APPEND_ACK]
    term = leader.raft.term
    assert [(m.to, m.term, m.index, m.log_term) for m in acks] == [(1, term, 2, term)] * 2
    late.raft.step(Message(Kind.HEARTBEAT, 2, 4, term + 1), group.now)
    late.drain()
    late.sync()
    late.raft.say_committed()
    assert [(m.to, m.term, m.index) for m in late.drain()] == [(2, term + 1, 2)]
    late.start(group.now)
    late.raft.say_committed()
    assert [m.kind for m in late.drain()] == [], "it knows no leader yet"
