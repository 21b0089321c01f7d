"""One test per rule of the paper, the thesis and the review."""

from __future__ import annotations

import pytest

from cluster.raft import (
    Config,
    Configuration,
    HardState,
    Kind,
    LogContradiction,
    Message,
    NotLeader,
    ProposalDropped,
    Raft,
    Role,
)
from tests.raft_log import MemoryLog
from tests.unit.raft.raft_harness import Group, Replica, kinds

THREE = Configuration(frozenset({1, 2, 3}))


def vote(sender: int, to: int, term: int, index: int = 0, log_term: int = 0) -> Message:
    return Message(Kind.VOTE, sender, to, term, index, log_term)


def granted(replica: Replica) -> list[tuple[int, bool]]:
    return [(m.to, m.flag) for m in replica.drain() if m.kind == Kind.VOTE_ACK]


# -- section 5.1, 5.2: terms and elections
# --------------------------------------------------------------------


def test_g12_a_replica_that_may_not_lead_votes_and_never_campaigns() -> None:
    group = Group()
    may = [False, True]
    group[1].raft.may_campaign = lambda: may[0]
    assert not group.campaign(1)
    group.pass_time(5000)
    leader = group.leader
    assert leader.raft.id != 1
    leader.raft.transfer_leadership(1)
    group.pass_time(100)
    assert group[1].raft.role is Role.FOLLOWER
    may.pop(0)
    assert group.campaign(1)


def test_a_replica_votes_once_in_a_term_even_across_a_restart() -> None:
    replica = Replica(1, THREE)
    replica.raft.step(vote(2, 1, 5), 0)
    assert granted(replica) == [(2, True)]
    replica.raft.step(vote(3, 1, 5), 0)
    assert granted(replica) == [(3, False)]
    replica.start(0)
    replica.raft.step(vote(3, 1, 5), 0)
    replica.raft.step(vote(2, 1, 5), 0)
    assert granted(replica) == [(3, False), (2, True)]


def test_a_repeated_vote_is_counted_once() -> None:
    replica = Replica(1, Configuration(frozenset({1, 2, 3, 4, 5})), pre_vote=False)
    replica.raft.tick(3000)
    replica.drain()
    for _ in range(5):
        replica.raft.step(Message(Kind.VOTE_ACK, 2, 1, 1, flag=True), 3000)
    assert replica.raft.role == Role.CANDIDATE


def test_a_vote_of_one_who_is_no_voter_counts_for_nothing() -> None:
    replica = Replica(1, Configuration(frozenset({1, 2, 3}), frozenset({4})), pre_vote=False)
    replica.raft.tick(3000)
    replica.drain()
    for sender in (4, 9):
        replica.raft.step(Message(Kind.VOTE_ACK, sender, 1, 1, flag=True), 3000)
    assert replica.raft.role == Role.CANDIDATE


def test_a_late_vote_changes_nothing_for_a_leader_or_a_follower() -> None:
    group = Group()
    leader = group.elect(1)
    for replica in (leader, group[2]):
        for sender in (2, 3):
            replica.raft.step(
                Message(Kind.VOTE_ACK, sender, replica.id, leader.raft.term, flag=True), group.now
            )
            replica.raft.step(
                Message(Kind.PRE_VOTE_ACK, sender, replica.id, leader.raft.term + 1, flag=True), group.now
            )
    group.settle()
    assert [r.raft.role for r in group.replicas.values()] == [Role.LEADER, Role.FOLLOWER, Role.FOLLOWER]
    assert [r.raft.last_index for r in group.replicas.values()] == [1, 1, 1]


def test_a_candidate_that_cannot_win_any_more_gives_up() -> None:
    replica = Replica(1, THREE, pre_vote=False)
    replica.raft.tick(3000)
    replica.drain()
    for sender in (2, 3):
        replica.raft.step(Message(Kind.VOTE_ACK, sender, 1, 1), 3000)
    assert replica.raft.role == Role.FOLLOWER


def test_a_leader_steps_down_when_it_sees_a_higher_term() -> None:
    group = Group()
    leader = group.elect(1)
    leader.raft.step(Message(Kind.APPEND_REJECT, 2, 1, leader.raft.term + 1), group.now)
    assert leader.raft.role == Role.FOLLOWER
    assert leader.raft.leader_id == 0


def test_a_leader_of_an_older_term_is_told_of_the_newer_one() -> None:
    replica = Replica(1, THREE)
    replica.raft.step(vote(2, 1, 5), 0)
    replica.drain()
    replica.raft.step(Message(Kind.HEARTBEAT, 3, 1, 4), 0)
    assert [(m.to, m.term) for m in replica.drain()] == [(3, 5)]
    assert replica.raft.leader_id == 0


def test_election_timeouts_lie_between_one_and_two() -> None:
    for random, expected in ((0.0, 1000), (0.5, 1500), (0.999, 1999)):
        assert Replica(1, THREE, random=random).raft.next_deadline() == expected


def test_the_first_election_after_a_start_comes_sooner_where_that_is_wanted_and_only_the_first() -> None:
    for random, expected in ((0.0, 100), (0.5, 600), (0.999, 1099)):
        replica = Replica(1, THREE, random=random, soon_at_start=True)
        assert replica.raft.next_deadline() == expected
        replica.raft.tick(expected)
        assert kinds(replica.drain()) == [Kind.PRE_VOTE] * 2
        assert replica.raft.next_deadline() == expected + 1000 + int(1000 * random)


def test_a_replica_that_campaigns_soon_after_its_start_unseats_no_leader() -> None:
    group = Group(soon_at_start=True)
    leader = group.elect(1)
    group.settle()
    term = leader.raft.term
    group.cut = {3}  # the leader is not heard there before it campaigns
    group[3].start(group.now)
    group.now = group[3].raft.next_deadline()
    group[3].raft.tick(group.now)
    asked = group[3].drain()
    assert kinds(asked) == [Kind.PRE_VOTE] * 2
    group.cut = set()
    group.wire += asked
    group.settle()
    group.pass_time(5000)
    assert (leader.raft.role, leader.raft.term) == (Role.LEADER, term)
    assert group[3].raft.leader_id == 1


# -- section 8, H2, I13: reads
# --------------------------------------------------------------------------------


def test_a_question_waits_until_an_entry_of_the_own_term_is_committed() -> None:
    group = Group()
    group.drop = lambda m: m.kind == Kind.APPEND_ACK
    leader = group.elect(1)
    leader.raft.read_index(1)
    group.settle()
    assert leader.reads == []
    group.drop = lambda m: False
    group.pass_time(300)
    assert leader.reads == [(1, 1)]


def test_an_answer_sent_before_the_question_does_not_confirm_it() -> None:
    group = Group()
    leader = group.elect(1)
    leader.raft.read_index(1)
    group.collect()
    group.cut = {1}
    for message in [m for m in group.wire if m.to == 2]:
        group[2].raft.step(message, group.now)
    group.wire.clear()
    late = group[2].drain()  # the answer to round 1
    assert kinds(late) == [Kind.HEARTBEAT_ACK]
    leader.raft.read_index(2)
    for message in late:
        leader.raft.step(message, group.now)
    leader.drain()
    assert leader.reads == [(1, 1)]


def test_questions_of_a_tick_share_a_round_and_learners_do_not_confirm() -> None:
    group = Group(3, learners=[4])
    leader = group.elect(1)
    for context in range(100):
        leader.raft.read_index(context)
    messages = leader.drain()
    assert [(m.kind, m.to) for m in messages] == [(Kind.HEARTBEAT, 2), (Kind.HEARTBEAT, 3)]
    leader.raft.step(Message(Kind.HEARTBEAT_ACK, 4, 1, 1, round=1), group.now)
    leader.drain()
    assert leader.reads == []
    leader.raft.step(Message(Kind.HEARTBEAT_ACK, 3, 1, 1, round=1), group.now)
    leader.drain()
    assert leader.reads == [(context, 1) for context in range(100)]


def test_questions_fail_when_leadership_is_lost() -> None:
    group = Group()
    leader = group.elect(1)
    leader.raft.read_index(7)
    leader.drain()
    leader.raft.read_index(8)
    leader.raft.step(Message(Kind.HEARTBEAT, 2, 1, leader.raft.term + 1), group.now)
    leader.drain()
    assert leader.reads_failed == [7, 8]


def test_a_lost_round_is_asked_again_although_appends_flow() -> None:
    group = Group()
    leader = group.elect(1)
    group.drop = lambda m: m.kind == Kind.HEARTBEAT
    leader.raft.read_index(7)
    group.settle()
    group.drop = lambda m: False
    for _ in range(30):
        leader.raft.propose(b"x")
        group.pass_time(10)
    assert leader.reads == [(7, 1)]


# -- thesis 4.2.3, 6.2, 9.6: undisturbed leaders
# --------------------------------------------------------------


def test_a_leader_without_a_quorum_steps_down_within_an_election_timeout() -> None:
    group = Group()
    leader = group.elect(1)
    group.cut = {1}
    group.pass_time(1100)
    assert leader.raft.role != Role.LEADER
    with pytest.raises(NotLeader):
        leader.raft.propose(b"x")


def test_slow_disks_do_not_look_like_a_lost_quorum() -> None:
    group = Group(max_inflight=10_000)  # so that appends never cease
    leader = group.elect(1)
    group[2].slow_disk = group[3].slow_disk = True
    for _ in range(300):
        leader.raft.propose(b"x")
        group.pass_time(10)
    assert leader.raft.role == Role.LEADER
    assert leader.raft.commit_index == 1


def hangs(group: Group, *replicas: int) -> None:
    """Their syncs do not end any more, and something is proposed."""
    for replica in replicas:
        group[replica].slow_disk = True
    group[1].raft.propose(b"meanwhile")
    group.settle()


def test_a_leader_whose_disk_hangs_hands_over_after_an_election_timeout() -> None:
    group = Group()
    group.elect(1)
    hangs(group, 1)
    assert group[1].raft.commit_index > group[1].raft.persisted_index
    group.pass_time(800)
    assert group.leader is group[1]
    group.pass_time(400)
    assert group.leader is not group[1]
    assert group[1].raft.role is Role.FOLLOWER
    group.leader.raft.propose(b"by another")
    group.settle()
    assert group.leader.data() == [b"meanwhile", b"by another"]
    assert group[1].data() == []
    group[1].slow_disk = False
    group[1].sync()
    group.pass_time(1000)
    assert group[1].data() == [b"meanwhile", b"by another"]
    group.check_applied()


def test_a_leader_whose_disk_hangs_steps_down_where_its_heir_does_not_take_over() -> None:
    group = Group()
    group.elect(1)
    hangs(group, 1)
    group[2].raft.may_campaign = lambda: False
    group.pass_time(1900)
    assert group.leader is group[1]
    group.pass_time(2500)
    assert group.leader is group[3]


def test_a_leader_keeps_leading_where_no_other_disk_is_faster() -> None:
    group = Group()
    group.elect(1)
    hangs(group, 1, 2, 3)
    group.pass_time(5000)
    assert group.leader is group[1]

    alone = Group(1)
    alone.pass_time(1000)
    hangs(alone, 1)
    alone.pass_time(5000)
    assert alone.leader is alone[1]


def test_a_leader_keeps_leading_while_its_disk_is_only_slow() -> None:
    group = Group()
    group.elect(1)
    hangs(group, 1)
    for i in range(6):
        group.pass_time(900)
        group[1].sync()
        group[1].raft.propose(b"%d" % i)
        group.settle()
        assert group.leader is group[1]


def test_a_follower_that_gets_appends_and_answers_gets_no_heartbeats() -> None:
    group = Group()
    leader = group.elect(1)
    sent: list[Kind] = []
    group.drop = lambda m: sent.append(Kind(m.kind)) or False  # type: ignore[func-returns-value]
    for _ in range(100):
        leader.raft.propose(b"x")
        group.pass_time(10)
    assert Kind.HEARTBEAT not in sent


def test_who_hears_from_a_leader_ignores_candidates() -> None:
    group = Group()
    group.elect(1)
    term = group[2].raft.term
    group[2].raft.step(vote(3, 2, term + 5, 9, term), group.now)
    assert group[2].drain() == []
    assert group[2].raft.term == term


def test_a_replica_that_was_cut_off_does_not_unseat_the_leader() -> None:
    group = Group()
    leader = group.elect(1)
    term = leader.raft.term
    group.cut = {3}
    group.pass_time(6000)
    group.cut = set()
    group.pass_time(2000)
    assert (leader.raft.role, leader.raft.term, group[3].raft.term) == (Role.LEADER, term, term)


def test_without_pre_vote_a_higher_term_does_not_lock_a_replica_out() -> None:
    group = Group(pre_vote=False)
    group.elect(1)
    group.cut = {3}
    group.pass_time(6000)
    group.cut = set()
    group.pass_time(6000)
    group.leader.raft.propose(b"x")
    group.settle()
    assert group[3].data() == [b"x"]


# -- bounds and odd input
# -------------------------------------------------------------------------------------


def test_uncommitted_bytes_are_bounded() -> None:
    group = Group(max_uncommitted_bytes=100)
    leader = group.elect(1)
    group.cut = {1}
    for _ in range(10):
        assert leader.raft.takes_proposals
        leader.raft.propose(b"0123456789")
    assert not leader.raft.takes_proposals
    with pytest.raises(ProposalDropped):
        leader.raft.propose(b"x")
    group.settle()
    group.cut = set()
    group.pass_time(400)
    assert leader.raft.statistics()["uncommitted_bytes"] == 0
    assert leader.raft.takes_proposals
    leader.raft.held_back = True
    assert not leader.raft.takes_proposals
    leader.raft.held_back = False
    assert not group[2].raft.takes_proposals  # it follows
    leader.raft.propose(b"x")


def test_messages_for_or_from_somebody_else_are_ignored() -> None:
    replica = Replica(1, THREE)
    replica.raft.step(vote(2, 3, 9), 0)
    replica.raft.step(vote(1, 1, 9), 0)
    assert replica.drain() == []
    assert replica.raft.term == 0


def test_time_never_goes_back() -> None:
    replica = Replica(1, THREE)
    replica.raft.tick(900)
    replica.raft.step(Message(Kind.HEARTBEAT, 2, 1, 1), 100)
    assert replica.raft.next_deadline() == 900 + 1500


def test_an_id_of_zero_and_a_heartbeat_beyond_the_timeout_are_refused() -> None:
    with pytest.raises(ValueError):
        Config(0)
    with pytest.raises(ValueError):
        Config(1, heartbeat_ms=1000, election_timeout_ms=1000)


def test_a_log_that_contradicts_its_hard_state_is_refused() -> None:
    storage = MemoryLog(THREE)
    storage.hard = HardState(1, 0, 7)
    with pytest.raises(LogContradiction, match="H10"):
        Raft(Config(1), storage, lambda: 0.0, 0)
