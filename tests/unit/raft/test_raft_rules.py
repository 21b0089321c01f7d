"""One test per rule of the paper, the thesis and the review."""

from __future__ import annotations

import pytest

from cluster.raft import (
    Config,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Kind,
    LogContradiction,
    Message,
    NotLeader,
    ProposalDropped,
    Raft,
    Role,
    SnapshotPosition,
)
from tests.raft_log import MemoryLog
from tests.unit.raft.raft_harness import Group, Replica, kinds

THREE = Configuration(frozenset({1, 2, 3}))


def vote(sender: int, to: int, term: int, index: int = 0, log_term: int = 0, forced: bool = False) -> Message:
    return Message(Kind.VOTE, sender, to, term, index, log_term, flag=forced)


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


# -- section 5.3: replication
# ---------------------------------------------------------------------------------


def test_a_shorter_old_append_does_not_cut_off_what_came_after_it() -> None:
    replica = Replica(2, THREE)
    entries = [Entry(i, 1, EntryKind.RECORD, b"%d" % i) for i in (1, 2, 3)]
    replica.raft.step(Message(Kind.APPEND, 1, 2, 1, entries=entries), 0)
    replica.drain()
    replica.raft.step(Message(Kind.APPEND, 1, 2, 1, entries=entries[:1]), 0)
    acks = replica.drain()
    assert replica.raft.last_index == 3
    assert [(m.index, m.log_term) for m in acks] == [(1, 1)]


def test_a_conflict_replaces_the_tail_on_disk_too() -> None:
    replica = Replica(2, THREE)
    replica.raft.step(
        Message(Kind.APPEND, 1, 2, 1, entries=[Entry(i, 1, 1, b"old") for i in (1, 2, 3)]), 0)
    replica.drain()
    replica.raft.step(Message(Kind.APPEND, 3, 2, 2, 1, 1, entries=[Entry(2, 2, 1, b"new")]), 0)
    replica.drain()
    assert [(e.index, e.term, e.data) for e in replica.storage.log] == [(1, 1, b"old"), (2, 2, b"new")]


def test_a_lost_append_is_noticed_without_new_proposals() -> None:
    group = Group()
    leader = group.elect(1)
    group.drop = lambda m: m.kind == Kind.APPEND
    leader.raft.propose(b"x")
    group.settle()
    group.drop = lambda m: False
    group.pass_time(400)
    assert [r.data() for r in group.replicas.values()] == [[b"x"]] * 3


def test_an_old_rejection_does_not_set_a_peer_back() -> None:
    group = Group()
    leader = group.elect(1)
    leader.raft.propose(b"x")
    group.settle()
    leader.raft.step(Message(Kind.APPEND_REJECT, 2, 1, leader.raft.term, index=1), group.now)
    assert leader.raft.peers()[2][:3] == (2, 3, "replicate")


def test_appends_under_way_are_bounded_in_number_and_bytes() -> None:
    for settings in ({"max_inflight": 3}, {"max_inflight_bytes": 30}):
        group = Group(max_append_bytes=10, **settings)
        leader = group.elect(1)
        for _ in range(10):
            leader.raft.propose(b"0123456789")
        sent = [m for m in leader.drain() if m.kind == Kind.APPEND and m.to == 2]
        assert len(sent) == 3
        group.wire += sent
        group.settle()
        assert len(group[2].data()) == 10


def test_entries_are_read_from_storage_once_memory_let_them_go() -> None:
    group = Group(max_tail_bytes=0)
    leader = group.elect(1)
    group.cut = {3}
    for i in range(20):
        leader.raft.propose(b"%d" % i)
        group.settle()
    assert leader.raft.statistics()["tail_entries"] == 0
    group.cut = set()
    group.pass_time(400)
    assert len(group[3].data()) == 20


# -- section 5.4: safety
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "term", "expected"), [(2, 2, True), (3, 2, True), (1, 3, True), (9, 1, False), (1, 2, False)]
)
def test_a_vote_goes_only_to_a_log_at_least_as_complete(index: int, term: int, expected: bool) -> None:
    replica = Replica(1, THREE)
    replica.storage.log = [Entry(1, 1, 1, b""), Entry(2, 2, 1, b"")]
    replica.storage.hard = HardState(2, 0, 0)
    replica.start(0)
    replica.raft.step(vote(2, 1, 4, index, term), 0)
    assert granted(replica) == [(2, expected)]


@pytest.mark.parametrize(("note", "commit"), [
    ((3, 2), 3),  # I25: all before it is committed, too
    ((3, 3), 1),  # another entry stood there
    ((5, 2), 1),  # the log has lost it
    ((1, 1), 1),  # the hard state knows as much
    ((0, 0), 1),  # nothing was noted
])
def test_a_start_commits_what_was_noted_if_the_log_has_that_very_entry(
    note: tuple[int, int], commit: int
) -> None:
    replica = Replica(1, THREE)
    replica.storage.log = [Entry(index, term, 1, b"") for index, term in ((1, 1), (2, 2), (3, 2), (4, 2))]
    replica.storage.hard, replica.storage.note = HardState(2, 0, 1), note
    replica.start(0)
    assert replica.raft.commit_index == commit
    assert replica.drain() == []  # nobody was heard
    assert [e.index for e in replica.applied] == list(range(1, commit + 1))


def test_a_note_of_what_is_compacted_says_nothing() -> None:
    replica = Replica(1, THREE)
    replica.storage.position = SnapshotPosition(7, 2, THREE)
    replica.storage.note = 5, 2
    replica.start(0, applied=7)
    assert replica.raft.commit_index == 7


def test_a_new_leader_logs_an_entry_of_its_own_term_first() -> None:
    leader = Group().elect(1)
    assert [(e.kind, e.data) for e in leader.applied] == [(EntryKind.NOOP, b"")]


def test_an_entry_of_an_older_term_is_committed_only_by_one_of_the_own_term() -> None:
    group = Group()
    leader = group.elect(1)
    group.drop = lambda m: m.kind == Kind.APPEND_ACK
    leader.raft.propose(b"x")
    group.settle()
    group.cut = {1}
    group.drop = lambda m: m.kind == Kind.APPEND
    second = group.elect(2).raft
    assert (second.commit_index, second.last_index) == (1, 3)
    second.step(Message(Kind.APPEND_ACK, 3, 2, second.term, 2, 1), group.now)
    assert second.commit_index == 1
    second.step(Message(Kind.APPEND_ACK, 3, 2, second.term, 3, second.term), group.now)
    assert second.commit_index == 3


# -- I2: only after the sync
# ----------------------------------------------------------------------------------


def test_no_vote_ack_or_own_count_leaves_before_its_sync() -> None:
    group = Group()
    leader = group.elect(1)
    for replica in group.replicas.values():
        replica.slow_disk = True
    leader.raft.propose(b"x")
    group.settle()
    assert leader.raft.commit_index == 1
    group.wire += group[2].sync()
    group.settle()
    assert leader.raft.commit_index == 1
    leader.sync()
    group.settle()
    assert leader.raft.commit_index == 2


def test_a_truncation_takes_back_what_was_synced_or_will_be() -> None:
    replica = Replica(2, THREE)
    replica.slow_disk = True
    replica.raft.step(Message(Kind.APPEND, 1, 2, 1, entries=[Entry(i, 1, 1, b"old") for i in (1, 2, 3)]), 0)
    replica.drain()
    replica.raft.step(Message(Kind.APPEND, 3, 2, 2, 1, 1, entries=[Entry(2, 2, 1, b"new")]), 0)
    replica.raft.persisted(replica.unsynced[0].sequence)  # the sync of the old entries ends now
    assert replica.raft.persisted_index == 1
    assert Kind.APPEND_ACK not in kinds(replica.drain())


def test_committed_entries_wait_for_the_own_disk_before_they_are_applied() -> None:
    group = Group()
    leader = group.elect(1)
    leader.slow_disk = True
    leader.raft.propose(b"x")
    group.settle()  # the others' syncs commit it
    assert leader.raft.commit_index == 2
    assert leader.data() == []
    leader.sync()
    leader.drain()
    assert leader.data() == [b"x"]


def test_a_replica_whose_log_ends_before_what_it_acknowledged_stops() -> None:
    group = Group()
    leader = group.elect(1)
    leader.raft.propose(b"x")
    group.settle()
    group[2].storage.log.clear()  # H10: wiped, under the old identity
    group[2].storage.hard = HardState(0, 0, 0)
    group[2].start(group.now)
    with pytest.raises(LogContradiction, match="H10"):
        group.pass_time(300)


def test_a_state_ahead_of_the_log_is_refused_at_the_start() -> None:
    replica = Replica(1, THREE)
    with pytest.raises(LogContradiction, match="H10"):
        replica.raft.applied(5)


def test_a_restart_goes_on_where_the_state_stands() -> None:
    group = Group()
    leader = group.elect(1)
    for i in range(4):
        leader.raft.propose(b"%d" % i)
    group.settle()
    group[2].applied.clear()
    group[2].start(group.now, applied=3)
    group.pass_time(300)
    assert group[2].data() == [b"2", b"3"]


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
