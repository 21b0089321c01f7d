"""Whom node 0 asks when it wants the leader of another shard, and whose feed a node of a shard takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from cluster.order.leading.queued import Report
from cluster.order.sequencing.reports import Reports
from cluster.wire.messages import ALL_HASTE, LEADER, NO_HASTE, Method, Status
from node.replica.shards.feed_end import FeedEnd
from node.replica.shards.to_leaders import ToLeaders

OWN, GONE = 1, 2
SECOND, THIRD = 2, 3


def test_a_follower_asks_the_one_that_is_named_next() -> None:
    """Only the sequencer gets reports. A node that led before knows who led then."""
    asked: list[tuple[int, Any]] = []
    down: set[int] = set()
    reports = Reports()
    reports.take(Report(1, 5, 2, 5, 5), 7)

    def link(member_id: int, shard: int) -> Any:
        return SimpleNamespace(
            version=9, up=member_id not in down,
            request=lambda method, body, said: asked.append((member_id, said)))

    role: Any = SimpleNamespace(
        reports=reports,
        settings=SimpleNamespace(common=SimpleNamespace(heartbeat_interval_ms=100, election_timeout_ms=1000)),
        links=SimpleNamespace(find=link),
        node=SimpleNamespace(wake=lambda: None, raft=SimpleNamespace(id=OWN)),
        sequencing=False,
    )
    leaders = ToLeaders(role)

    def ask() -> tuple[int, Any]:
        leaders.ask(1, Method.RECONFIGURE, lambda version: b"")
        return asked.pop()

    for answer in (b"", LEADER.pack(0, 3)):
        member_id, said = ask()
        assert member_id == 7
        said(Status.NOT_LEADER, answer)  # nobody leads
    ask()[1](Status.NOT_LEADER, LEADER.pack(8, 3))
    assert ask()[0] == 8
    down.add(8)  # the own host's node knows who leads then
    member_id, said = ask()
    assert member_id == OWN
    said(Status.NOT_LEADER, LEADER.pack(0, 3))  # not yet
    said = ask()[1]
    down.clear()
    said(Status.NOT_LEADER, LEADER.pack(8, 4))
    assert ask()[0] == 8
    role.sequencing = True
    ask()[1](Status.NOT_LEADER, LEADER.pack(7, 3))  # it is told by the leader itself
    assert ask()[0] == 8


def test_a_host_that_was_removed_and_goes_on_alone_takes_its_own_feed() -> None:
    """What its nodes of shards have applied says that they are removed. The order has the row that says
    otherwise."""
    dialled: list[int] = []

    def link(member_id: int, shard: int) -> Any:
        dialled.append(member_id)
        return SimpleNamespace(alive=False, up=False, member_id=member_id, request=lambda *_, **__: None)

    times = iter(range(100))
    node = SimpleNamespace(
        settings=SimpleNamespace(shard=1, common=SimpleNamespace(member_id=OWN, election_timeout_ms=1000)),
        loop=SimpleNamespace(time=lambda: next(times)), order_index=5, wake=lambda: None,
        roster=SimpleNamespace(others=[GONE]),
    )  # fmt: skip
    feed = FeedEnd(cast(Any, SimpleNamespace(node=node, links=SimpleNamespace(get=link))))
    for _ in range(4):
        feed.subscribe()
    assert dialled == [OWN, GONE, OWN, GONE]


def test_while_members_change_or_keys_move_a_node_is_in_haste() -> None:
    node = SimpleNamespace(
        settings=SimpleNamespace(shard=1, common=SimpleNamespace(member_id=OWN, election_timeout_ms=1000)),
        loop=SimpleNamespace(time=lambda: 1.0), order_index=5, wake=lambda: None, hurried_until=0.0,
        watches=SimpleNamespace(active=False), store=SimpleNamespace(revision=3), wanted_revision=3,
    )  # fmt: skip
    role = SimpleNamespace(node=node, leading=None, members_change=False)
    feed = FeedEnd(cast(Any, role))
    assert feed.haste() == NO_HASTE
    role.members_change = True
    assert feed.haste() == ALL_HASTE
    role.members_change, feed.switches = False, lambda: True
    assert feed.haste() == ALL_HASTE, "keys move from here or to here"


def node_0(member: int, leader: int, commit: int, applied: int) -> Any:
    """A link to it."""
    return SimpleNamespace(
        member_id=member, alive=True, up=True, leader=leader, commit=commit, applied=applied,
        drop=lambda reason: None, request=lambda *_, **__: None)


def feed_of(links: dict[int, Any]) -> FeedEnd:
    """At record 105, with the second host's feed. Each look takes a second."""
    times = iter(range(1000))
    node = SimpleNamespace(
        settings=SimpleNamespace(shard=1, common=SimpleNamespace(member_id=OWN, election_timeout_ms=4000)),
        loop=SimpleNamespace(time=lambda: next(times)), order_index=105, wake=lambda: None,
        roster=SimpleNamespace(others=[SECOND, THIRD]))
    role = SimpleNamespace(node=node, links=SimpleNamespace(get=lambda member, shard: links[member]))
    feed = FeedEnd(cast(Any, role))
    feed.link = links[SECOND]
    return feed


def test_a_node_leaves_another_hosts_feed_that_stands() -> None:
    links = {OWN: node_0(OWN, 3, 5, 5)} | {member: node_0(member, 3, 106, 105) for member in (SECOND, THIRD)}
    feed = feed_of(links)
    for _ in range(40):
        feed.subscribe()
    assert feed.link is links[SECOND], "nobody has more"
    links[THIRD].applied = 106
    for _ in range(20):
        feed.subscribe()
    assert feed.link is links[THIRD]


def test_a_node_goes_to_no_feed_that_is_behind_it() -> None:
    """One that passed an old goal of its own host's feeds nothing until it has caught up."""
    links = {OWN: node_0(OWN, 0, 5, 5), SECOND: node_0(SECOND, 0, 105, 105), THIRD: node_0(THIRD, 3, 106, 50)}
    feed = feed_of(links)
    for _ in range(40):
        feed.subscribe()
    assert feed.link is links[SECOND]
    links[THIRD].applied = 105
    for _ in range(20):
        feed.subscribe()
    assert feed.link is links[THIRD]
