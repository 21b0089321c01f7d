"""What a front says of nodes that it does not reach, and how soon it comes back to one that refused it."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from cluster.settings import Peer
from cluster.wire.messages import Status
from proxy.routing.links import ASTRAY, REFUSED
from proxy.routing.members.reach import AGAIN_S, PATIENCE_S, Reach
from proxy.routing.routes import ShardRoute
from tests.unit.proxy.fakes import Net

PEERS = tuple(Peer(i, f"h{i}", f"10.0.0.{i}", 2380) for i in (1, 2))


class Link:
    """One that is never answered."""

    up = leaving = greeted = usable = False
    leader = term = 0
    near = None
    applied = began = 0
    stands_s = stated_at = 0.0

    def __init__(self, receiver: Any, shard: int, member_id: int) -> None:
        self.shard, self.member_id = shard, member_id

    @property
    def heard(self) -> bool:
        return self.up

    def silent(self, now: float, limit_s: float) -> bool:
        return False

    def excuse(self, held_s: float, now: float) -> None:
        pass


def route(own: int = 0) -> ShardRoute:
    receiver: Any = None
    connect: Any = Link
    return ShardRoute(1, own, [1, 2], connect, receiver, 1.0)


def looked(reach: Reach, of: ShardRoute, begin: int, end: int) -> list[dict[str, Any]]:
    with capture_logs() as logged:
        for now in range(begin, end):
            reach.look([of], float(now))
    return [dict(line) for line in logged]


def test_a_proxy_that_reaches_no_node_says_why_by_name_and_address_now_and_then() -> None:
    shard, reach = route(), Reach(PEERS)
    for peer, reason in ((1, "Connection refused"), (2, REFUSED + "cluster ID mismatch")):
        shard.ensure(peer, 0.0)
        shard.lost(shard.links[peer], 0.0, reason)
    first, *more = looked(reach, shard, 0, int(PATIENCE_S + 3 * AGAIN_S))
    assert first == {
        "event": "no node of the shard answers",
        "log_level": "warning",
        "shard": 1,
        "for_s": round(PATIENCE_S),
        "not_reached": {
            "h1 (10.0.0.1:2380)": "Connection refused",
            "h2 (10.0.0.2:2380)": "refused: cluster ID mismatch",
        },
    }
    assert len(more) == 2
    shard.ensure(1, 100.0)
    up: Any = shard.links[1]
    up.up = True
    (line,) = looked(reach, shard, 200, 220)
    assert (line["event"], line["log_level"]) == ("a node of the shard answers", "info")


def test_a_leader_that_is_at_no_address_yet_is_reached_once_it_is() -> None:
    """A host that was down while it was added is told of it by others: its front ended."""
    shard = route()
    at: list[int] = []

    def connect(receiver: Any, number: int, member_id: int) -> Any:
        return Link(receiver, number, member_id) if member_id != 9 or at else None

    shard._connect = connect
    shard.ensure(1, 0.0)
    teller: Any = shard.links[1]
    teller.up, teller.leader, teller.term = True, 9, 5
    shard.choose(0.0)
    assert (shard.leader, shard.leader_link, list(shard.links)) == (9, None, [1])
    at.append(9)
    shard.choose(1.0)
    assert sorted(shard.links) == [1, 9]


@pytest.mark.parametrize("own", [0, 1])
def test_without_a_node_here_a_link_to_each_node_is_opened_again(own: int) -> None:
    """After a restart of each host, a proxy had a link to the leader alone, and with its death to nobody."""
    shard = route(own=own)
    shard.upkeep(0.0)
    leader: Any = shard.links[1]
    leader.up = leader.greeted = leader.usable = True
    leader.leader, leader.term = 1, 5
    shard.choose(0.0)
    shard.lost(shard.links[2], 1.0, "connection lost")
    for tick in range(20):
        shard.upkeep(1.0 + tick / 10)
    assert sorted(shard.links) == ([1] if own else [1, 2])


@pytest.mark.parametrize(
    ("reason", "again_s"), [("connection lost", 0.05), (REFUSED + "cluster ID mismatch", 5.0)]
)
def test_one_that_refused_is_asked_again_after_a_while(reason: str, again_s: float) -> None:
    shard = route()
    shard.ensure(1, 0.0)
    shard.lost(shard.links[1], 0.0, reason)
    shard.ensure(1, again_s - 0.01)
    assert not shard.links
    shard.ensure(1, again_s)
    assert list(shard.links) == [1]


def test_one_of_many_refusals_is_logged() -> None:
    """It was one a second, on both sides."""
    net = Net().started(leader=1)
    with capture_logs() as logged:
        for _ in range(10):
            net.nodes[1].answer(0, Status.REFUSED, b"cluster ID mismatch")
            net.pass_time(5.5)
    downs = [
        line["log_level"]
        for line in logged
        if line["event"] == "link down" and line["reason"].startswith(REFUSED)
    ]
    assert len(downs) >= 5
    assert downs.count("warning") == 1


def test_where_another_member_answers_is_dialled_again_soon_and_told_of_once() -> None:
    """Nobody has to mend it: the member's own address comes with the table, or with a look-up."""
    net = Net().started(leader=1)
    with capture_logs() as logged:
        for _ in range(10):
            net.nodes[1].answer(0, Status.REFUSED, b"to field mismatch (got 2 want 3)")
            net.pass_time(1.1)
    downs = [
        line["log_level"]
        for line in logged
        if line["event"] == "link down" and line["reason"] == ASTRAY + "to field mismatch (got 2 want 3)"
    ]
    assert len(downs) >= 5
    assert downs.count("warning") == 1


def test_another_shards_node_gets_no_requests_and_is_told_of_once() -> None:
    """Its link is lost: what its node says further does not count either."""
    net = Net()
    astray = net.nodes[1]
    astray.shard, astray.leader = 2, 1
    members: list[bytes] = []
    net.router.following.told = lambda link, body: members.append(body)  # type: ignore[method-assign]
    dialled: list[object] = []
    with capture_logs() as logged:
        for _ in range(30):
            if astray.link is not None:
                if astray.link not in dialled:
                    dialled.append(astray.link)
                astray.say_state()
                astray.answer(0, Status.MEMBERS, b"")
            net.pass_time(0.1)
        assert not any(link.up for link in net.router.routes[0].links.values() if link.member_id == 1)
    downs = [line for line in logged if line["event"] == "link down" and line["reason"].startswith(ASTRAY)]
    assert len(dialled) >= 3, "it is dialled anew"
    assert [line["log_level"] for line in downs].count("warning") == 1  # the others may be too low to be seen
    assert downs[0]["reason"] == "astray: shard 2's node answers"
    assert members == []
    astray.shard = 0
    net.pass_time(3.0)
    assert net.router.routes[0].links[1].up


def test_who_was_tried_in_vain_counts_until_it_answers_or_is_no_member() -> None:
    of = route()
    assert of.in_vain() == 0
    of.upkeep(1.0)
    assert of.in_vain() == 0, "they may answer yet"
    for link in list(of.links.values()):
        of.lost(link, 1.0, "no connection")
    assert of.in_vain() == 2
    of.upkeep(9.0)
    assert of.in_vain() == 2
    of.opened(of.links[1], 9.0)
    assert of.in_vain() == 1
    of.follow([1])
    assert of.in_vain() == 0
