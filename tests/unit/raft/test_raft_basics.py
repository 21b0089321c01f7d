"""A group elects, replicates, commits and reads; the shapes of entries and messages."""

from __future__ import annotations

import pytest

from cluster.raft import (
    Configuration,
    Entry,
    IntegrityError,
    Kind,
    Message,
    NotLeader,
    Role,
    decode_messages,
    encode_messages,
)
from tests.unit.raft.raft_harness import Group, Replica


def test_three_replicas_elect_one_leader_and_agree_on_what_it_proposes() -> None:
    group = Group()
    group.pass_time(3000)
    leader = group.leader
    for i in range(5):
        leader.raft.propose(b"%d" % i)
    group.settle()
    assert [r.data() for r in group.replicas.values()] == [[b"0", b"1", b"2", b"3", b"4"]] * 3
    assert {r.raft.leader_id for r in group.replicas.values()} == {leader.id}


def test_a_single_voter_leads_at_once_and_commits_by_its_own_sync() -> None:
    replica = Replica(7, Configuration(frozenset({7})))
    replica.raft.tick(0)
    replica.drain()
    assert replica.raft.role == Role.LEADER
    replica.slow_disk = True
    index = replica.raft.propose(b"x")
    replica.drain()
    assert replica.raft.commit_index < index
    replica.sync()
    replica.drain()
    assert replica.raft.commit_index == index
    assert replica.data() == [b"x"]
    replica.raft.read_index(9)
    replica.drain()
    assert replica.reads == [(9, index)]


def test_proposals_of_a_tick_leave_in_one_message_per_follower() -> None:
    group = Group()
    leader = group.elect(1)
    for i in range(10):
        leader.raft.propose(b"%d" % i)
    messages = leader.drain()
    assert [(m.kind, m.to, len(m.entries)) for m in messages] == [(Kind.APPEND, 2, 10), (Kind.APPEND, 3, 10)]


def test_a_follower_refuses_proposals_and_reads_and_names_the_leader() -> None:
    group = Group()
    group.elect(2)
    with pytest.raises(NotLeader) as refused:
        group[1].raft.propose(b"x")
    assert refused.value.leader_id == 2
    with pytest.raises(NotLeader):
        group[3].raft.read_index(1)


def test_a_restarted_replica_knows_its_term_vote_and_log() -> None:
    group = Group()
    leader = group.elect(1)
    leader.raft.propose(b"kept")
    group.settle()
    follower = group[2]
    term, last = follower.raft.term, follower.raft.last_index
    follower.start(group.now)
    assert (follower.raft.term, follower.raft.vote, follower.raft.last_index) == (term, 1, last)
    follower.applied.clear()
    group.pass_time(300)
    assert follower.data() == [b"kept"]


def test_entries_and_messages_survive_the_wire() -> None:
    entries = [Entry(5, 2, 1, b"abc"), Entry(6, 2, 2, b"")]
    sent = [
        Message(Kind.APPEND, 1, 2, 3, 4, 2, 4, 0, 0, False, entries),
        Message(Kind.VOTE, 1, 2, 2**64 - 1, 9, 8, flag=True),
    ]
    assert decode_messages(encode_messages(sent)) == sent
    assert Entry.decode(entries[0].encode()) == entries[0]
    configuration = Configuration(frozenset({3, 1}), frozenset({2**63}))
    assert Configuration.decode(configuration.encode()) == configuration


def test_a_flipped_bit_anywhere_in_an_entry_is_noticed() -> None:
    wire = Entry(5, 2, 1, b"abcdef").encode()
    for position in range(len(wire)):
        for bit in range(8):
            damaged = bytearray(wire)
            damaged[position] ^= 1 << bit
            with pytest.raises(IntegrityError):
                Entry.decode(bytes(damaged))


def test_a_frame_cut_short_anywhere_is_refused_as_a_whole() -> None:
    entries = [Entry(5, 2, 1, b"abcdef")]
    wire = encode_messages([Message(Kind.APPEND, 1, 2, 3, 4, 2, 4, 0, 0, False, entries)])
    for end in range(1, len(wire)):
        with pytest.raises(IntegrityError):
            decode_messages(wire[:end])
