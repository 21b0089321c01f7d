"""Whose turn it is when a host joins or leaves every group (H12, I21)."""

from __future__ import annotations

from cluster.members.host_changes import HostChange, Kind, can_commit, may_begin, next_groups, wanted
from cluster.members.table import Host
from cluster.raft import Configuration

ALL = Configuration(frozenset((1, 2, 3)))
WITHOUT = Configuration(frozenset((1, 2)))
LEARNS = Configuration(frozenset((1, 2)), frozenset((3,)))


def turns(change: HostChange, groups: list[Configuration]) -> list[list[int]]:
    """Who is asked, round by round, until every group has it."""
    found = []
    while due := next_groups(change, groups):
        found.append(due)
        for group in due:
            groups[group].check_step(change.target(groups[group]))  # one step of Raft
            groups[group] = change.target(groups[group])
    return found


def test_a_host_leaves_group_0_last_and_joins_it_first() -> None:
    assert turns(HostChange(Kind.REMOVE, 3), [ALL, ALL, ALL]) == [[1, 2], [0]]
    assert turns(HostChange(Kind.ADD, 3), [WITHOUT, WITHOUT, WITHOUT]) == [[0], [1, 2]]
    assert turns(HostChange(Kind.PROMOTE, 3), [LEARNS, LEARNS, LEARNS]) == [[0], [1, 2]]


def test_a_change_that_somebody_else_has_begun_is_gone_on_with() -> None:
    assert turns(HostChange(Kind.REMOVE, 3), [ALL, WITHOUT, ALL]) == [[2], [0]]
    assert turns(HostChange(Kind.PROMOTE, 3), [ALL, LEARNS, ALL]) == [[1]]


def test_the_next_change_waits_for_every_group() -> None:
    assert may_begin([ALL, ALL, ALL])
    assert not may_begin([ALL, WITHOUT, ALL])


def test_one_group_is_first_and_last() -> None:
    assert turns(HostChange(Kind.REMOVE, 3), [ALL]) == [[0]]
    assert turns(HostChange(Kind.ADD, 3), [WITHOUT]) == [[0]]


def test_to_add_a_voter_or_to_promote_one_changes_nothing() -> None:
    assert HostChange(Kind.ADD, 3).done(ALL)
    assert HostChange(Kind.PROMOTE, 3).done(ALL)
    assert HostChange(Kind.REMOVE, 3).done(WITHOUT)


def test_only_a_learner_is_promoted() -> None:
    promoted = HostChange(Kind.PROMOTE, 3)
    assert promoted.target(WITHOUT) == WITHOUT  # it has left meanwhile
    assert promoted.target(LEARNS) == ALL


def test_a_group_carries_out_what_its_own_table_wants() -> None:
    host = Host(3, "", ())
    learner, gone = Host(3, "", (), learner=True), Host(3, "", (), removed=True)
    found = {
        kind: [wanted(HostChange(kind, 3), row) for row in (None, host, learner, gone)] for kind in Kind
    }
    assert found == {
        Kind.ADD: [False, True, True, False],
        Kind.PROMOTE: [False, True, False, False],
        Kind.REMOVE: [False, False, False, True],
    }


def test_a_change_begins_once_those_that_are_heard_can_commit_it() -> None:
    assert can_commit(WITHOUT, {1, 2})
    assert not can_commit(WITHOUT, {1, 3})
    assert can_commit(ALL, {1, 3})
