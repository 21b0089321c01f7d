"""Where a node looks for members: its table, and what those say themselves that it does not find there."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.members.table import Host
from cluster.raft import Configuration
from cluster.settings import Peer
from node.members.roster import MOST_TOLD, TURN_S, Roster

OWN, OTHER, NEW = 1, 2, 3
CLUSTER = 7


class Node:
    """What a roster asks of its node. Two members that know each other."""

    def __init__(self) -> None:
        seed = tuple(Peer(i, f"h{i}", "10.0.0.1", 2380 + i, (f"http://10.0.0.1:{2380 + i}",)) for i in (1, 2))
        configuration = Configuration(frozenset((OWN, OTHER)), frozenset())
        self.settings = SimpleNamespace(shard=1, common=SimpleNamespace(peers=seed, cluster_id=CLUSTER))
        self.store = SimpleNamespace(hosts=tuple)
        self.raft = SimpleNamespace(
            id=OWN, configuration=configuration, committed_configuration=configuration, peers=dict
        )
        self.peers = SimpleNamespace(follow=lambda: None)
        self.now = 0.0
        self.loop = SimpleNamespace(time=lambda: self.now)


def described(cluster_id: int = CLUSTER, **urls: str) -> bytes:
    """``urls``: by member, ``m2=``."""
    members = [
        {"id": member.removeprefix("m"), "name": "", "peer_urls": [url], "learner": False}
        for member, url in urls.items()
    ]
    said = {"cluster_id": f"{cluster_id:x}", "shards": 2, "depth": 1, "members": members, "removed": []}
    return json.dumps(said).encode()


def ports(roster: Roster) -> dict[int, int]:
    return {member_id: peer.port for member_id, peer in roster.reachable().items()}


@pytest.fixture
def roster() -> Roster:
    return Roster(cast(Any, Node()), cast(Any, None))


def test_a_member_is_looked_for_where_it_says_until_the_table_names_it(roster: Roster) -> None:
    roster.told(NEW, described(m1="http://10.0.0.1:9", m2="http://10.0.0.1:9", m3="http://10.0.0.1:2383"))
    assert ports(roster) == {OTHER: 2382, NEW: 2383}, "it speaks for itself alone"
    row = Host(NEW, "", ("http://10.0.0.1:2384",))
    roster.table.take([row.encode()])
    assert ports(roster) == {OTHER: 2382, NEW: 2384}


def test_a_member_that_has_moved_is_looked_for_there(roster: Roster) -> None:
    roster.told(OTHER, described(m2="http://10.0.0.1:9999"))
    assert ports(roster) == {OTHER: 9999}
    told = roster.peer(OTHER)
    assert told is not None
    assert told.port == 9999
    assert roster.peer(NEW) is None
    roster.told(OTHER, described(m2="http://10.0.0.1:2382"))
    assert roster.reachable() == {OTHER: roster.table.peer(OTHER)}, "it has come back"
    roster.told(OTHER, described(m2="http://10.0.0.1:9999"))
    roster.table.take([Host(OTHER, "", ("http://10.0.0.1:9998",)).encode()])
    assert ports(roster) == {OTHER: 9998}


def test_a_member_that_tells_where_it_was_is_dialled_where_the_table_says_too() -> None:
    """One that has just moved lacks the row that says so, and gets no log until its leader reaches it."""
    node = Node()
    roster = Roster(cast(Any, node), cast(Any, None))
    dialled = []
    for second in range(12):
        node.now = second * TURN_S / 3
        roster.told(OTHER, described(m2="http://10.0.0.1:9999"))
        roster.told(NEW, described(m3="http://10.0.0.1:2383"))
        dialled.append(ports(roster)[OTHER])
        assert ports(roster)[NEW] == 2383, "the table does not know it: there is one place to dial"
    assert dialled == [9999] * 3 + [2382] * 3 + [9999] * 3 + [2382] * 3


@pytest.mark.parametrize(
    "odd",
    [b"", b"{}", b"[" * 100_000, described(8, m3="http://10.0.0.1:2383"), b'{"cluster_id": "zz"}',
     b'{"cluster_id": "7", "shards": Infinity}', described(m2="http://10.0.0.1:2383"),
     described(m3="no URL"), described(m3="http://a\0b:1"), described(m3="http://a:1/x")],
)  # fmt: skip
def test_an_answer_that_cannot_be_read_or_does_not_name_its_sender_is_passed_over(
    roster: Roster, odd: bytes
) -> None:
    roster.told(NEW, odd)
    assert ports(roster) == {OTHER: 2382}


def test_so_many_are_told_and_no_more(roster: Roster) -> None:
    """Where there is no key, whoever knows the cluster's ID may say hello."""
    for member_id in range(16, 16 + MOST_TOLD + 10):
        roster.told(member_id, described(**{f"m{member_id:x}": "http://10.0.0.1:2383"}))
    assert len(roster.reachable()) == 1 + MOST_TOLD
    assert OTHER in roster.reachable()
