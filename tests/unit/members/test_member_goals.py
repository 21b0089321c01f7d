"""What happens next when the groups are not what the table wants (H12, I21)."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from cluster.members import goals
from cluster.members.host_changes import HostChange, Kind
from cluster.members.table import Host
from cluster.raft import Configuration

URLS = ("http://h:1",)


def group(voters: str, learners: str = "") -> Configuration:
    """``group("AB", "C")``: hosts by letter."""
    return Configuration(frozenset(map(ord, voters)), frozenset(map(ord, learners)))


def table(members: str, learners: str = "", removed: str = "") -> dict[int, Host]:
    hosts = [Host(ord(c), c, URLS) for c in members]
    hosts += [Host(ord(c), c, URLS, learner=True) for c in learners]
    hosts += [Host(ord(c), c, URLS, removed=True) for c in removed]
    return {host.member_id: host for host in hosts}


def due(
    hosts: dict[int, Host], *groups: Configuration, caught_up: str = ""
) -> tuple[Kind, str, list[int]] | None:
    found = goals.due(hosts, groups, lambda member: chr(member) in caught_up)
    return None if found is None else (found.change.kind, chr(found.change.member_id), found.groups)


def test_nothing_is_due_where_every_group_is_what_the_table_says() -> None:
    assert due(table("ABC"), group("ABC"), group("ABC")) is None
    assert goals.settled(table("ABC"), [group("ABC"), group("ABC")])


def test_a_new_host_joins_group_0_first_and_as_a_learner() -> None:
    hosts = table("AB")
    assert due(hosts, group("A"), group("A"), group("A")) == (Kind.ADD, "B", [0])
    assert due(hosts, group("A", "B"), group("A"), group("A")) == (Kind.ADD, "B", [1, 2])
    assert due(hosts, group("A", "B"), group("A", "B"), group("A")) == (Kind.ADD, "B", [2])
    assert due(hosts, group("A", "B"), group("A", "B"), group("A", "B")) is None


def test_it_votes_once_it_has_caught_up_everywhere() -> None:
    hosts, learners = table("AB"), (group("A", "B"), group("A", "B"))
    assert goals.settled(hosts, learners)  # a promotion that has not begun is in nobody's way
    assert due(hosts, *learners, caught_up="B") == (Kind.PROMOTE, "B", [0])
    # what has begun goes on, though it fell behind since
    assert due(hosts, group("AB"), group("A", "B")) == (Kind.PROMOTE, "B", [1])
    assert not goals.settled(hosts, [group("AB"), group("A", "B")])


def test_a_host_that_is_to_stay_a_learner_is_not_promoted() -> None:
    assert due(table("A", "B"), group("A", "B"), caught_up="B") is None
    assert due(table("A", "B"), group("A")) == (Kind.ADD, "B", [0])


def test_a_removed_host_leaves_group_0_last() -> None:
    hosts = table("AB", removed="C")
    assert due(hosts, group("ABC"), group("ABC"), group("ABC")) == (Kind.REMOVE, "C", [1, 2])
    assert due(hosts, group("ABC"), group("AB"), group("ABC")) == (Kind.REMOVE, "C", [2])
    assert due(hosts, group("ABC"), group("AB"), group("AB")) == (Kind.REMOVE, "C", [0])
    assert not goals.settled(hosts, [group("ABC"), group("AB"), group("AB")])
    assert goals.settled(hosts, [group("AB"), group("AB"), group("AB")])


def test_the_only_voter_stays_until_another_host_votes() -> None:
    hosts, groups = table("B", removed="A"), (group("A", "B"), group("A", "B"))
    assert due(hosts, *groups) is None  # A has nobody to hand over to, and B needs it to catch up
    assert goals.settled(hosts, groups)  # B may be given up for another one
    assert due(hosts, *groups, caught_up="B") == (Kind.PROMOTE, "B", [0])
    assert due(hosts, group("AB"), group("A", "B")) == (Kind.PROMOTE, "B", [1])
    assert due(hosts, group("AB"), group("AB")) == (Kind.REMOVE, "A", [1])


def test_a_change_that_is_logged_and_not_committed_has_begun() -> None:
    hosts, groups = table("AB"), [group("A", "B"), group("A", "B")]
    assert goals.settled(hosts, groups, groups)
    assert not goals.settled(hosts, groups, [group("AB"), group("A", "B")])


def test_a_host_that_the_table_does_not_know_is_left_alone() -> None:
    assert due(table("AB"), group("ABC"), group("ABC")) is None


def test_the_removed_go_before_new_ones_come() -> None:
    assert due(table("ABD", removed="C"), group("ABC")) == (Kind.REMOVE, "C", [0])
    assert due(table("ABD", removed="C"), group("AB")) == (Kind.ADD, "D", [0])


def _walk(random: Random, shards: int) -> Iterator[list[list[Configuration]]]:
    """Wishes at random, carried out group by group in any order that is due; a look now and then is an old
    one."""
    hosts = table("A")
    histories = [[group("A")] for _ in range(shards)]
    for step in range(200):
        known = [history[-1] for history in histories]
        if goals.settled(hosts, known) and random.random() < 0.5:
            members = [h for h in hosts.values() if not h.removed]
            if len(members) > 1 and random.random() < 0.4:
                gone = random.choice(members)
                hosts = {**hosts, gone.member_id: Host(gone.member_id, gone.name, URLS, removed=True)}
                if not any(h.member_id in known[0].voters and not h.removed for h in hosts.values()):
                    hosts = {**hosts, gone.member_id: gone}
            else:
                hosts = {**hosts, 1000 + step: Host(1000 + step, "", URLS, learner=random.random() < 0.3)}
        found = goals.due(hosts, known, lambda member: True)
        if found is not None:
            chosen = random.choice(found.groups)
            histories[chosen].append(found.change.target(known[chosen]))
        yield histories


@pytest.mark.parametrize("seed", range(20))
def test_no_two_groups_are_further_apart_than_one_change(seed: int) -> None:
    shards = 1 + seed % 4
    for histories in _walk(Random(seed), shards):
        for history in histories:
            at = min(len(history), len(histories[0]))
            assert abs(len(history) - len(histories[0])) <= 1
            assert history[:at] == histories[0][:at]
            assert history[-1].voters <= histories[0][-1].members()
    assert len(histories[0]) > 10


def test_a_change_names_no_way_back() -> None:
    assert HostChange(Kind.ADD, ord("A")).done(group("A"))


def test_who_votes_changes_once_most_of_those_that_vote_then_need_nothing_from_before() -> None:
    """I17. To add a learner, or to remove one, needs nothing. What has begun goes on."""
    asked: list[frozenset[int]] = []

    def due_without(hosts: dict[int, Host], *groups: Configuration) -> goals.Due | None:
        def covered(change: HostChange, target: Configuration) -> bool:
            asked.append(target.voters)
            return False

        return goals.due(hosts, groups, lambda member: True, covered=covered)

    assert due_without(table("AB", removed="C"), group("ABC"), group("ABC")) is None
    assert due_without(table("ABC"), group("AB", "C"), group("AB", "C")) is None
    assert asked == [frozenset(map(ord, "AB")), frozenset(map(ord, "ABC"))]
    assert not goals.settled(table("AB", removed="C"), [group("ABC"), group("ABC")])  # no wish comes between
    assert due_without(table("AB"), group("A"), group("A")) is not None
    assert due_without(table("A", removed="B"), group("A", "B"), group("A", "B")) is not None
    assert due_without(table("AB", removed="C"), group("ABC"), group("AB")) is not None
    assert len(asked) == 2


def test_a_groups_nodes_flush_while_others_are_to_vote_in_it() -> None:
    assert not goals.votes_change(table("ABC", "D"), group("ABC", "D"))
    assert goals.votes_change(table("AB", removed="C"), group("ABC"))
    assert goals.votes_change(table("ABC"), group("AB", "C"))
    assert not goals.votes_change(table("ABC"), group("AB", "C"), lambda member_id: False)  # it has not come
    assert not goals.votes_change(table("ABC"), group("AB"))  # it is not there yet
    assert not goals.votes_change(table("AB", removed="C"), group("AB", "C"))  # no voter leaves
    assert not goals.votes_change(table("", removed="A"), group("A"))  # it stays until another one votes
