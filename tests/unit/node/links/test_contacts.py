"""What a node's log says of its peers, and how often."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from cluster.settings import Peer
from node.links.contacts import AGAIN_S, PATIENCE_S, Contacts


class Link:
    def __init__(self, member_id: int) -> None:
        self.peer = Peer(member_id, f"h{member_id}", f"10.0.0.{member_id}", 2380)
        self.why = ("", "")

    def trouble(self) -> tuple[str, str]:
        return self.why


class World:
    """Host 1 of three, looked at each second."""

    def __init__(self, shard: int = 0) -> None:
        self.links = {2: Link(2), 3: Link(3)}
        self.received = {2: 0, 3: 0}
        self.living: set[int] = set()  # those that send
        self.contacts = Contacts(1, shard, self.links, self.received, 2.0)
        self.now = 0.0
        self.leader = 2
        self.voters = {1, 2, 3}

    def seconds(self, count: float) -> list[dict[str, Any]]:
        with capture_logs() as logged:
            until = self.now + count
            while self.now < until:
                self.now += 1.0
                for member in self.living:
                    self.received[member] += 9
                self.contacts.look(self.leader, self.now, self.voters)
        return [dict(line) for line in logged]


def test_a_host_whose_peers_are_well_says_nothing() -> None:
    assert World().seconds(1000) == []


def test_a_peer_that_is_not_reached_is_named_with_its_address_once_and_then_now_and_then() -> None:
    world = World()
    world.links[3].why = ("Connection refused", "")
    (line,) = world.seconds(PATIENCE_S + 1)
    assert line == {
        "event": "cannot reach a peer", "log_level": "warning", "peer": "h3", "address": "10.0.0.3:2380",
        "shard": 0, "reason": "Connection refused", "for_s": round(PATIENCE_S),
    }
    assert len(world.seconds(AGAIN_S * 4)) == 4
    world.links[3].why = ("", "")
    (line,) = world.seconds(1)
    assert (line["event"], line["log_level"], line["peer"]) == ("reached a peer", "info", "h3")


def test_a_peer_that_was_reached_once_is_lost_and_reached_again() -> None:
    world = World()
    world.seconds(1)
    world.links[2].why = ("Connection timed out", "look here")
    lost, *more = world.seconds(PATIENCE_S + AGAIN_S + 1)
    assert (lost["event"], lost["hint"]) == ("lost a peer", "look here")
    assert [line["event"] for line in more] == ["cannot reach a peer"]


def test_what_is_over_soon_is_no_trouble() -> None:
    world = World()
    for _ in range(10):
        world.links[2].why = ("Connection refused", "")
        assert world.seconds(PATIENCE_S - 1) == []
        world.links[2].why = ("", "")
        assert world.seconds(1) == []


def test_causes_that_take_turns_fill_no_log() -> None:
    world = World()
    lines = []
    for turn in range(int(AGAIN_S) * 4):
        world.links[2].why = (("Connection refused", "no connection in time")[turn % 2], "")
        lines += world.seconds(1)
    assert len(lines) <= 5


def test_another_cause_is_told_soon() -> None:
    """Hosts start one after the other, so the first cause is mostly that nobody is there yet."""
    world = World()
    world.links[2].why = ("Connection refused", "")
    assert len(world.seconds(PATIENCE_S + 1)) == 1
    world.links[2].why = ("it refuses this host: cluster ID mismatch", "")
    assert [line["reason"] for line in world.seconds(3)] == ["it refuses this host: cluster ID mismatch"]
    assert world.seconds(AGAIN_S - 5) == []


def test_that_nobody_leads_is_told_with_those_who_are_reached_and_those_who_are_not() -> None:
    world = World()
    world.leader = 0
    world.links[2].why = ("Connection refused", "")
    world.links[3].why = ("it refuses this host: cluster ID mismatch", "")
    nobody = [
        line for line in world.seconds(AGAIN_S + PATIENCE_S + 1) if line["event"].startswith("no leader")
    ]
    assert len(nobody) == 2
    assert nobody[0]["event"] == "no leader: this host does not reach a majority of the members"
    assert (nobody[0]["reached"], nobody[0]["members"], nobody[0]["needed"]) == ([], 3, 2)
    assert nobody[0]["not_reached"] == {
        "h2": "Connection refused",
        "h3": "it refuses this host: cluster ID mismatch",
    }
    world.leader = 1
    assert [line for line in world.seconds(100) if "leads" in line["event"]] == []


@pytest.mark.parametrize(("voters", "reached", "counted"), [
    ({1, 2}, [], (2, 2)),  # host 3 is a learner, or does not vote yet
    ({2, 3}, ["h3"], (2, 2)),  # this host is
    ({1, 2, 3}, ["h3"], (3, 2)),
    ({1}, [], (1, 1)),
    (set(), ["h3"], (3, 2)),  # a new host knows no voters
])
def test_only_voters_count_for_a_majority(
    voters: set[int], reached: list[str], counted: tuple[int, int]
) -> None:
    world = World()
    world.leader, world.voters = 0, voters
    world.links[2].why = ("Connection refused", "")
    (said,) = [line for line in world.seconds(PATIENCE_S + 1) if line["event"].startswith("no leader")]
    assert (said["reached"], (said["members"], said["needed"])) == (reached, counted)
    assert set(said["not_reached"]) == {"h2"} & {f"h{voter}" for voter in voters or (2,)}
    enough = len(reached) + (1 in voters or not voters) >= counted[1]
    assert said["event"].startswith("no leader, although") is enough


def test_hosts_that_stand_still_are_not_reached() -> None:
    """Their kernels keep the connections: the log sent the operator to the logs of silent hosts."""
    world = World()
    world.living = {2, 3}
    world.seconds(10)
    world.leader = 0
    world.living = {3}
    first, second = world.seconds(AGAIN_S + PATIENCE_S + 2)
    assert first["event"] == "no leader, although this host reaches a majority of the members"
    assert (first["reached"], first["not_reached"]) == (["h3"], {"h2": "connected, but silent for 4 s"})
    assert second["not_reached"] == {"h2": "connected, but silent for 34 s"}
    world.living = set()
    (silent,) = world.seconds(AGAIN_S)
    assert silent["event"] == "no leader: this host does not reach a majority of the members"
    assert (silent["reached"], set(silent["not_reached"])) == ([], {"h2", "h3"})
    world.living = {2, 3}
    (back,) = world.seconds(AGAIN_S)
    assert (back["reached"], back["not_reached"]) == (["h2", "h3"], {})


def test_hosts_that_were_never_heard_may_be_reached() -> None:
    """They dial another address than this host's."""
    world = World()
    world.leader = 0
    (line,) = world.seconds(AGAIN_S)
    assert (line["reached"], line["not_reached"]) == (["h2", "h3"], {})


def test_nodes_of_other_shards_say_the_same_less_often() -> None:
    world = World(shard=2)
    world.links[3].why = ("Connection refused", "")
    lines = world.seconds(AGAIN_S * 5)
    assert [(line["address"], line["shard"]) for line in lines] == [("10.0.0.3:2380", 2)]


def test_a_peer_with_ever_new_troubles_is_told_of_now_and_then_and_its_causes_are_not_kept() -> None:
    world = World()
    for cause in range(40):
        world.links[3].why = (f"cause {cause}", "")
        world.seconds(5)
    world.links[3].why = ("the last one", "")
    lines = world.seconds(4 * AGAIN_S)
    assert 3 <= len(lines) <= 5
    assert {line["reason"] for line in lines} == {"the last one"}
    assert len(world.contacts._troubles[3].told) <= 6
