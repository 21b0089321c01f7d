"""Interleavings too rare for chance: each is harmless, and breaks state machine safety without its rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.raft import Configuration, ConfigurationRefused, Kind, Message, Raft, Role
from tests.sim.raft import raft_mutants as mutants
from tests.unit.raft.raft_harness import Group, Replica


def figure_8(raft_class: type[Raft]) -> Group:
    """The paper's figure 8: an old entry on a majority is not committed by that alone."""
    group = Group(5, raft_class=raft_class, max_append_bytes=1)
    group.elect(1).raft.propose(b"xx")  # (a): index 2 reaches only S2
    group.drop = lambda m: m.kind == Kind.APPEND and m.to != 2
    group.settle()
    group.cut = {1}  # (b): S5 leads and logs another entry at 2, alone
    group.drop = lambda m: m.kind == Kind.APPEND
    group.elect(5)
    group.cut = {5}  # (c): S1 leads again and brings 2, but not its own entry, to S3
    group.drop = lambda m: (
        m.kind == Kind.APPEND and (m.to == 4 or (m.to == 3 and group[3].raft.last_index == 2))
    )
    group.elect(1)
    assert [group[i].raft.last_index for i in (1, 2, 3, 4)] == [3, 3, 2, 1]
    group.cut = {1}  # (d): S5 may still win, and replaces 2
    group.drop = lambda m: False
    group.elect(5)
    return group


def a_probe_knows_less_than_the_leader_committed(raft_class: type[Raft]) -> Group:
    """An empty append tells of a commit beyond the entries it vouches for."""
    group = Group(3, raft_class=raft_class)
    leader = group.elect(1)
    group.cut = {1}
    leader.raft.propose(b"lost")
    group.settle()
    assert group.elect(2).raft.commit_index == 2
    first = group[2].raft.log.term(1)
    probe = Message(Kind.APPEND, 2, 1, group[2].raft.term, 1, first, group[2].raft.commit_index)
    group[1].raft.step(probe, group.now)
    group[1].drain()
    return group


def an_old_append_comes_late(raft_class: type[Raft]) -> Group:
    """A deposed leader's append arrives where a later leader's entry was acknowledged."""
    group = Group(3, raft_class=raft_class)
    group.elect(1).raft.propose(b"old")
    late = [m for m in group[1].drain() if m.to == 3]
    group.cut = {1}
    group.drop = lambda m: m.to == 3 and m.kind in (Kind.COMMIT, Kind.HEARTBEAT)
    assert group.elect(2).raft.commit_index == 2
    for message in late:
        group[3].raft.step(message, group.now)
    group.cut, group.drop = {2}, lambda m: False
    if not group.campaign(1):
        group.elect(3)
    return group


def an_install_below_what_was_acknowledged(raft_class: type[Raft]) -> Group:
    """H8: S2 acknowledged entry 4; its feed has a gap, so it installs a state of index 3."""
    group = Group(3, raft_class=raft_class)
    leader = group.elect(1)
    leader.raft.propose(b"0")
    group.settle()
    group.cut = {3}
    group.drop = lambda m: m.to == 2 and m.kind in (Kind.COMMIT, Kind.HEARTBEAT)
    leader.raft.propose(b"1")
    leader.raft.propose(b"2")
    group.settle()
    assert (leader.raft.commit_index, group[2].raft.commit_index) == (4, 2)
    position = leader.raft.position_at(3)
    for replica in (group[2], group[3]):
        if replica.raft.snapshot_installed(position):
            replica.storage.reset(position)
    group.cut, group.drop = {1}, lambda m: False
    group.elect(2)
    return group


def two_changes_of_a_cut_off_leader(raft_class: type[Raft]) -> Group:
    """Alone, a leader removes one member after the other until it is its own majority."""
    group = Group(3, raft_class=raft_class)
    leader = group.elect(1)
    group.cut = {1}
    leader.raft.propose_configuration(Configuration(frozenset({1, 3})))
    try:
        leader.raft.propose_configuration(Configuration(frozenset({1})))
    except ConfigurationRefused:
        assert raft_class is Raft
    leader.raft.propose(b"x")
    group.settle()
    group.elect(2)
    return group


def a_change_before_an_entry_of_the_own_term(raft_class: type[Raft]) -> Group:
    """Ongaro's erratum: S1's uncommitted addition and S2's hasty removal have disjoint majorities."""
    group = Group(4, raft_class=raft_class)
    group.replicas[5] = Replica(5, Configuration(frozenset()), raft_class=raft_class)
    leader = group.elect(1)
    group.cut = {2, 3, 4}
    leader.raft.propose_configuration(Configuration(frozenset({1, 2, 3, 4, 5})))
    group.settle()
    group.pass_time(150)  # S5 is asked what it has
    assert group[5].raft.last_index == 2
    group.cut = {1, 5}
    group.drop = lambda m: m.kind == Kind.APPEND
    second = group.elect(2)
    group.drop = lambda m: m.to == 4
    try:
        second.raft.propose_configuration(Configuration(frozenset({2, 3, 4})))
    except ConfigurationRefused:
        assert raft_class is Raft
    group.pass_time(150)
    group.cut, group.drop = {2, 3}, lambda m: False
    group.elect(1)
    return group


def a_note_of_an_entry_that_a_power_cut_took(raft_class: type[Raft]) -> Group:
    """I25: S1 noted S2's entry 2 as committed; its disk lost that, and has the one that was there before."""
    group = Group(3, raft_class=raft_class)
    leader = group.elect(1)
    group.cut = {1}
    leader.raft.propose(b"lost")
    group.settle()
    assert group.elect(2).raft.commit_index == 2
    leader.storage.note = 2, group[2].raft.term
    leader.start(group.now, applied=1)
    leader.drain()
    return group


def the_answer_to_an_install_is_lost(raft_class: type[Raft], learner: bool = False) -> Group:
    """S3 installs what S1 has compacted, and nothing that it says of that arrives; S2 is gone meanwhile.

    A state is refused where it is not newer, which says nothing to Raft.
    """
    group = Group(1, learners=[2, 3], raft_class=raft_class) if learner else Group(3, raft_class=raft_class)
    leader, late = group.elect(1), group[3]
    group.cut = {3}
    for i in range(5):
        leader.raft.propose(b"%d" % i)
    group.settle()
    leader.storage.compact(leader.raft.position_at(6))
    leader.raft.compacted(6)
    group.cut = {2}
    group.pass_time(200)
    assert leader.snapshots_to == [(3, 6)]
    group.drop = lambda m: m.kind == Kind.APPEND_ACK
    position = leader.raft.position_at(6)
    assert late.raft.snapshot_installed(position)
    late.storage.reset(position)
    group.settle()
    group.drop = lambda m: False
    if not learner:
        leader.raft.propose(b"last")
    for _ in range(5):
        leader.raft.snapshot_sent(3, False)
        group.pass_time(200)
        if len(leader.snapshots_to) > 1:
            leader.snapshots_to.pop()
            late.raft.say_committed()
            group.settle()
    return group


@pytest.mark.parametrize("learner", [False, True])
def test_a_lost_answer_to_an_install_is_given_again(learner: bool) -> None:
    group = the_answer_to_an_install_is_lost(Raft, learner)
    peer = group[1].raft.peers()[3]
    assert (peer.state, peer.match) == ("replicate", group[1].raft.last_index)
    assert group[3].data() == ([] if learner else [b"last"])
    group.check_applied()


def test_without_that_answer_nothing_is_committed_any_more() -> None:
    group = the_answer_to_an_install_is_lost(mutants.SaysNothingOfAStateItHas)
    assert (group[1].raft.role, group[1].raft.commit_index, group[1].raft.last_index) == (Role.LEADER, 6, 7)


SCENARIOS = [
    (figure_8, mutants.CommitsEntriesOfOlderTerms),
    (a_probe_knows_less_than_the_leader_committed, mutants.FollowerCommitsBeyondWhatWasChecked),
    (an_old_append_comes_late, mutants.ListensToOldTerms),
    (an_install_below_what_was_acknowledged, mutants.SnapshotDropsTheMatchingSuffix),
    (two_changes_of_a_cut_off_leader, mutants.ChangesTheConfigurationTwiceAtOnce),
    (a_note_of_an_entry_that_a_power_cut_took, mutants.BelievesANoteByItsIndexAlone),
    (a_change_before_an_entry_of_the_own_term, mutants.ChangesTheConfigurationBeforeItsTermCommits),
]


@pytest.mark.parametrize("scenario", [s for s, _ in SCENARIOS], ids=lambda s: s.__name__)
def test_raft_survives(scenario: Callable[[type[Raft]], Group]) -> None:
    group = scenario(Raft)
    group.check_applied()
    assert any(r.applied for r in group.replicas.values())


@pytest.mark.parametrize(("scenario", "mutant"), SCENARIOS, ids=lambda s: s.__name__)
def test_without_its_rule_two_replicas_apply_different_entries(
    scenario: Callable[[type[Raft]], Group], mutant: type[Raft]
) -> None:
    group = scenario(mutant)
    with pytest.raises(AssertionError, match="applied Entry"):
        group.check_applied()
