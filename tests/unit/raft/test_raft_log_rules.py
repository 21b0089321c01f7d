"""One test per rule of the paper and the review on logs: replication, safety, what waits for a sync."""

from __future__ import annotations

import pytest

from cluster.raft import (
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Kind,
    LogContradiction,
    Message,
    SnapshotPosition,
)
from tests.unit.raft.raft_harness import Group, Replica, kinds

THREE = Configuration(frozenset({1, 2, 3}))


def vote(sender: int, to: int, term: int, index: int = 0, log_term: int = 0) -> Message:
    return Message(Kind.VOTE, sender, to, term, index, log_term)


def granted(replica: Replica) -> list[tuple[int, bool]]:
    return [(m.to, m.flag) for m in replica.drain() if m.kind == Kind.VOTE_ACK]


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
