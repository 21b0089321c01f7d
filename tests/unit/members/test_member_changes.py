"""The leader of shard 0 judges a wish for members by where the groups stand now."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.effects import records
from cluster.members.host_changes import HostChange, Kind
from cluster.members.table import Host
from cluster.pb import rpc_pb2
from cluster.raft import Configuration, Role
from cluster.wire.messages import MEMBER_ADD, MEMBER_PROMOTE, MEMBERS_LAX, Status
from node.links.fronts import FrontLink
from node.members.changes import Changes
from node.members.group import REQUEST, REQUEST_8, asked_for, carry_out
from node.members.roster import Roster
from tests.unit.members.leaders import (
    BOTH,
    GROUP,
    LEADER,
    LEARNER,
    Front,
    Node,
    applied,
    both_vote,
    leading,
    removal,
)


def test_a_new_leader_that_does_not_know_what_is_committed_begins_no_change() -> None:
    """I21: both voted there once; then the other was removed and came back as a learner."""
    for sure, changed in ((True, [BOTH]), (False, [])):
        node = Node()
        node.roster.table.take([Host(LEARNER, "b", ("http://h:2",)).encode()])
        proposed: list[Configuration] = []
        node.raft.propose_configuration = proposed.append
        changes = leading(node)
        changes.look()
        node.shard_1_says(10, BOTH, sure=sure)
        changes.look()
        assert proposed == changed


def test_a_learner_that_has_caught_up_since_all_was_settled_is_promoted_at_once() -> None:
    node = Node()
    changes = Changes(cast(Any, node))
    changes.leading()
    changes.look()
    node.shard_1_says(match=0)  # it was added a moment ago, and has nothing
    changes.look()  # nothing is due
    node.asked.clear()

    link = SimpleNamespace(awaits=lambda rid: True)
    wish = rpc_pb2.MemberPromoteRequest(ID=LEARNER).SerializeToString()
    changes.submit(cast(FrontLink, link), 7, bytes((MEMBER_PROMOTE,)) + wish)
    assert node.asked  # it is not judged by what was said then
    assert not node.refused
    node.shard_1_says(match=10)
    assert not node.refused
    row = node.roster.table.hosts[LEARNER]
    assert len(node.appended) == 1
    assert node.appended != [records.host(row.encode())]


def test_the_host_that_was_asked_says_whether_the_quorum_is_looked_at() -> None:
    """As at an etcd, where the member that is asked judges. The leader's own flag counted."""
    wish = rpc_pb2.MemberAddRequest(peerURLs=["http://h:3"]).SerializeToString()
    link = SimpleNamespace(awaits=lambda rid: True)

    def asked(kind: int) -> Node:
        node = Node()
        node.roster.started = set  # nobody has started: a voter may not be added
        changes = Changes(cast(Any, node))
        changes.leading()
        changes.look()
        node.shard_1_says(match=10)
        changes.submit(cast(FrontLink, link), 7, bytes((kind,)) + wish)
        node.shard_1_says(match=10)
        return node

    assert asked(MEMBER_ADD).refused == [
        "etcdserver: re-configuration failed due to not enough started members"
    ]
    lax = asked(MEMBER_ADD | MEMBERS_LAX)
    assert (len(lax.appended), lax.refused) == (1, [])


def test_members_do_not_change_while_a_shard_forms_as_logged() -> None:
    """G14: its record may not be applied yet."""
    node, front = Node(), Front()
    changes = leading(node)
    both_vote(node, changes)
    node.writes.leader.told.forming = 2
    removal(changes, front, LEARNER)
    node.shard_1_says(10, BOTH)
    assert node.refused == ["muster: shard 2 is forming: ask again once that is done"]
    assert node.appended == []


def test_a_removal_is_answered_once_group_0_has_let_the_host_go() -> None:
    """H12: it is the last one. A host that is killed at the answer is missed by nobody."""
    node, front = Node(), Front()
    changes = leading(node)
    both_vote(node, changes)
    removal(changes, front, LEARNER)
    node.shard_1_says(10, BOTH)
    applied(node, changes)
    assert front.answers == []
    alone = Configuration(frozenset((LEADER,)))
    node.shard_1_says(10, alone)
    changes.look()
    assert node.raft.configuration == alone  # asked for
    assert front.answers == []
    node.commit(alone)
    changes.moved()
    assert front.answers == [Status.OK]


@pytest.mark.parametrize("by", ["configuration", "refusal"])
def test_a_leader_that_removes_itself_answers_as_a_follower(by: str) -> None:
    node, front = Node(), Front()
    changes = leading(node)
    both_vote(node, changes)
    removal(changes, front, LEADER)
    node.shard_1_says(10, BOTH)
    applied(node, changes)
    assert set(node.handed) == {LEARNER}  # before any group lets it go: they may have no way to it
    alone = Configuration(frozenset((LEARNER,)))
    node.shard_1_says(10, alone)
    changes.look()
    node.raft.role = Role.FOLLOWER
    changes.resign()
    changes.look()
    assert front.answers == []
    if by == "refusal":
        changes.left()
    else:
        node.commit(alone)
        changes.look()
    assert front.answers == [Status.OK]
    changes.left()
    assert front.answers == [Status.OK]


def test_a_removal_that_takes_too_long_is_forgotten() -> None:
    node, front = Node(), Front()
    changes = leading(node)
    both_vote(node, changes)
    removal(changes, front, LEARNER)
    node.shard_1_says(10, BOTH)
    applied(node, changes)
    front.patient = False
    changes.look()
    node.commit(Configuration(frozenset((LEADER,))))
    changes.look()
    assert front.answers == []


def test_wishes_that_took_too_long_keep_nobody_out() -> None:
    """Shard 1 has no leader, so none of them gets its turn."""
    node, front, other = Node(), Front(), Front()
    changes = leading(node)
    both_vote(node, changes)
    for _ in range(64):  # as many as may wait
        removal(changes, front, LEARNER)
    assert not changes.settled
    front.patient = False
    changes.look()
    assert changes.settled, "a shard may be added"
    removal(changes, other, LEARNER)
    node.shard_1_says(10, BOTH)
    assert len(node.appended) == 1
    assert front.answers == other.answers == []


def promoting(node: Node, front: Front, silent_ms: int = 0) -> Changes:
    """The leader's, when a client's wish to promote a host is applied."""
    changes = leading(node)
    changes.look()
    wish = rpc_pb2.MemberPromoteRequest(ID=LEARNER).SerializeToString()
    changes.submit(cast(FrontLink, front), 7, bytes((MEMBER_PROMOTE,)) + wish)
    node.shard_1_says(10, silent_ms=silent_ms)
    applied(node, changes)
    return changes


def test_a_promotion_is_answered_once_every_group_has_it() -> None:
    node, front = Node(), Front()
    changes = promoting(node, front)
    node.shard_1_says(10)
    changes.look()
    assert node.raft.configuration == BOTH
    node.commit(BOTH)
    changes.moved()
    assert front.answers == []
    changes._asked.clear()
    changes.look()
    node.shard_1_says(10, BOTH)
    assert front.answers == [Status.OK]


def test_a_shard_that_is_dropped_while_it_is_asked_keeps_no_learner_from_voting() -> None:
    """G13: its leader's answer came after the drop, and nothing newer ever would."""
    node, front = Node(), Front()
    changes = promoting(node, front, silent_ms=2000)
    changes._asked.clear()
    changes.look()
    assert node.asked
    assert node.raft.configuration == GROUP, "its node of shard 1 is not heard"
    node.role.shards = (0,)
    changes.shards_changed()
    node.shard_1_says(10, silent_ms=2000)
    changes.look()
    assert node.raft.configuration == BOTH
    node.commit(BOTH)
    changes.moved()
    assert front.answers == [Status.OK]


def test_members_are_settled_as_soon_as_a_shard_is_dropped() -> None:
    """G14: a shard that is added right after one was retired would be refused for a heartbeat."""
    node = Node()
    changes = leading(node)
    both_vote(node, changes)
    changes.look()
    assert changes.settled
    node.role.shards = (0,)
    changes.shards_changed()
    assert changes.settled
    node.role.shards = (0, 2)
    changes.shards_changed()
    assert not changes.settled, "its leader was not heard"
    assert node.asked, "and is asked at once"


def test_a_promotion_goes_on_elsewhere_and_is_answered_here() -> None:
    """Another host leads shard 0 meanwhile. Its client was told that nobody knows what came of it."""
    node, front = Node(), Front()
    changes = promoting(node, front)
    node.raft.role, node.term_said = Role.FOLLOWER, 0
    changes.resign()
    node.commit(BOTH)
    changes.moved()
    assert front.answers == []
    changes._asked.clear()
    changes.look()
    node.shard_1_says(10)
    assert front.answers == []
    changes._asked.clear()
    changes.look()
    node.shard_1_says(10, BOTH)
    assert front.answers == [Status.OK]
    changes._asked.clear()
    changes.look()
    assert node.asked == []  # nobody waits for anything


def test_a_wish_waits_until_every_group_is_what_the_table_says() -> None:
    """I21. Group 0 has begun to promote a host: that goes on first."""
    node, front = Node(), Front()
    node.roster.table.take([Host(LEARNER, "b", ("http://h:2",)).encode()])
    changes = leading(node)
    node.raft.configuration = BOTH  # and has not committed it
    removal(changes, front, LEARNER)
    node.shard_1_says(10)
    assert node.appended == []
    node.commit(BOTH)
    changes.moved()
    assert (node.appended, node.changes) == ([], [Kind.PROMOTE])
    changes._asked.clear()
    changes.look()
    node.shard_1_says(10, BOTH)
    assert len(node.appended) == 1


def test_a_wish_is_not_kept_waiting_by_a_promotion_that_may_begin() -> None:
    node, front = Node(), Front()
    node.roster.table.take([Host(LEARNER, "b", ("http://h:2",)).encode()])
    changes = leading(node)
    removal(changes, front, LEARNER)
    node.shard_1_says(10)
    assert len(node.appended) == 1
    assert node.raft.configuration == GROUP


def test_a_wish_is_judged_by_what_groups_say_when_its_turn_comes() -> None:
    node, front = Node(), Front()
    changes = leading(node)
    both_vote(node, changes)
    removal(changes, front, LEADER)
    assert node.appended == []  # though all was well a moment ago
    node.shard_1_says(10, BOTH, silent_ms=5000)
    assert node.refused == ["etcdserver: unhealthy cluster"]


def test_a_group_carries_out_nothing_for_a_leader_that_is_none_any_more() -> None:
    node, front = Node(), Front()
    node.roster.table.take([Host(LEARNER, "b", ("http://h:2",)).encode()])
    changes = Changes(cast(Any, node))
    changes.asked(cast(FrontLink, front), 1, REQUEST.pack(0, 0, 5))
    changes.asked(cast(FrontLink, front), 2, REQUEST.pack(Kind.PROMOTE, LEARNER, 4))
    assert node.raft.configuration == GROUP
    changes.asked(cast(FrontLink, front), 3, REQUEST.pack(Kind.PROMOTE, LEARNER, 5))
    assert node.raft.configuration == BOTH
    assert front.answers == [Status.OK] * 2
    node.commit(BOTH)
    changes.moved()
    assert front.answers == [Status.OK] * 3
    assert asked_for(REQUEST_8.pack(Kind.ADD, 3)) == (HostChange(Kind.ADD, 3), 0)


def test_a_group_says_where_it_stands_once_a_change_is_committed_or_a_heartbeat_later() -> None:
    node, front = Node(), Front()
    node.roster.table.take([Host(LEARNER, "b", ("http://h:2",)).encode()])
    changes = Changes(cast(Any, node))
    node.raft.role = Role.FOLLOWER
    changes.asked(cast(FrontLink, front), 1, REQUEST.pack(Kind.PROMOTE, LEARNER, 1))
    node.raft.role = Role.LEADER
    changes.asked(cast(FrontLink, front), 2, REQUEST.pack(Kind.PROMOTE, LEARNER, 1))
    assert front.answers == [Status.NOT_LEADER]
    changes.look()
    assert front.answers == [Status.NOT_LEADER, Status.OK]
    changes.asked(cast(FrontLink, front), 3, REQUEST.pack(Kind.PROMOTE, LEARNER, 1))
    node.raft.role = Role.FOLLOWER
    changes.resign()
    assert front.answers == [Status.NOT_LEADER, Status.OK, Status.NOT_LEADER]
    changes.asked(cast(FrontLink, front), 4, REQUEST.pack(9, LEARNER, 1))  # of a later version
    assert front.answers[3:] == [Status.NOT_LEADER]


def test_another_leader_of_a_group_is_asked_at_once() -> None:
    node = Node()
    node.roster.table.take([Host(LEARNER, "b", ("http://h:2",)).encode()])
    node.commit(BOTH)
    changes = leading(node)
    node.shard_1_says(10)
    assert node.changes == [Kind.PROMOTE]
    changes.another_leads(1)
    assert node.changes == [Kind.PROMOTE] * 2
    node.shard_1_says(10, BOTH)
    changes.another_leads(1)
    assert node.asked == []  # nothing is due


def test_a_group_carries_out_only_what_its_own_table_wants_and_can_be_committed() -> None:
    node = Node()
    carry_out(cast(Any, node), HostChange(Kind.PROMOTE, LEARNER), 0, 1000)
    assert node.raft.configuration == GROUP  # it is to stay a learner
    node.roster.table.take([Host(LEARNER, "b", ("http://h:2",)).encode()])
    carry_out(cast(Any, node), HostChange(Kind.PROMOTE, LEARNER), 1000, 1000)
    assert node.raft.configuration == GROUP  # it is not heard, and would be half of the quorum
    carry_out(cast(Any, node), HostChange(Kind.PROMOTE, LEARNER), 999, 1000)
    assert node.raft.configuration == BOTH


def test_a_leader_hands_over_to_nobody_who_is_to_go() -> None:
    node = Node()
    node.roster.table.take([Host(i, "", ("http://h:1",), removed=True).encode() for i in (LEADER, LEARNER)])
    node.commit(Configuration(frozenset((LEADER, LEARNER, 3))))
    node.successors = [LEARNER, 3]
    peer = SimpleNamespace(match=10, state="replicate", heard_ms=0, learner=False)
    node.raft.peers = lambda: {LEARNER: peer, 3: peer}
    carry_out(cast(Any, node), HostChange(Kind.REMOVE, LEADER), 0, 1000)
    assert node.handed == [3]


def test_a_host_is_refused_as_removed_once_its_group_has_let_it_go() -> None:
    node = Node()
    node.commit(BOTH)
    settings = SimpleNamespace(shard=1, common=SimpleNamespace(peers=(), alone=False))
    other = SimpleNamespace(settings=settings, store=SimpleNamespace(hosts=tuple), raft=node.raft)
    roster = Roster(cast(Any, other), cast(Any, None))
    roster.table.take([Host(LEARNER, "b", ("http://h:2",), removed=True).encode()])
    assert not roster.is_removed(LEARNER), "it takes part until then"
    node.commit(Configuration(frozenset((LEADER,))))
    assert roster.is_removed(LEARNER)


def test_a_client_that_may_no_more_when_its_turn_comes_is_refused() -> None:
    node, front = Node(), Front()
    changes = leading(node)
    both_vote(node, changes)
    removal(changes, front, LEARNER)
    node.auth.meta = replace(node.auth.meta, enabled=True)  # and it has not said who it is
    node.shard_1_says(10, BOTH)
    assert (node.appended, node.refused) == ([], ["etcdserver: user name is empty"])


def removal_ahead_of_disks(node: Node) -> Changes:
    """A removal that is applied, while the leader's own disk lacks what was in order before."""
    changes = leading(node)
    both_vote(node, changes)
    node.durable = {LEADER: 6, LEARNER: 12}
    removal(changes, Front(), LEARNER)
    node.shard_1_says(10, BOTH)
    applied(node, changes)
    return changes


def test_a_removal_begins_once_those_that_stay_have_on_disk_what_was_in_order() -> None:
    """I17: records may be gone that only the host that leaves, and others that leave later, have applied."""
    node = Node()
    changes = removal_ahead_of_disks(node)
    node.shard_1_says(10, BOTH)
    changes.look()
    assert node.changes == []
    node.raft.commit_index = 50  # what comes later is dropped by the voters of then
    node.durable = {LEADER: 9, LEARNER: 12}
    changes.look()
    assert node.changes == []
    node.durable[LEADER] = 10
    changes._asked.clear()
    changes.look()
    assert node.changes == [Kind.REMOVE]


def test_another_leader_of_shard_0_asks_for_what_is_in_order_when_it_leads() -> None:
    node = Node()
    changes = removal_ahead_of_disks(node)
    changes.resign()
    node.raft.commit_index = 50
    changes.leading()
    changes.look()
    node.shard_1_says(10, BOTH)
    node.durable[LEADER] = 49
    changes.look()
    assert node.changes == []
    node.durable[LEADER] = 50
    changes._asked.clear()
    changes.look()
    assert node.changes == [Kind.REMOVE]


def test_a_promotion_begins_once_most_of_those_that_vote_then_have_what_was_in_order() -> None:
    node = Node()
    node.roster.table.take([Host(LEARNER, "b", ("http://h:2",)).encode()])
    node.durable = {LEADER: 10, LEARNER: 9}
    changes = leading(node)
    changes.look()
    node.shard_1_says(10)
    assert node.raft.configuration == GROUP
    node.durable[LEARNER] = 10
    changes.look()
    assert node.raft.configuration == BOTH
