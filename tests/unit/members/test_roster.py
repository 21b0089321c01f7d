"""Where a node looks for members: its table, and what those say themselves that it does not find there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster import errors
from cluster.members.checks import MOST_URLS
from cluster.members.described import Running
from cluster.members.table import Host, Table, decode_all
from cluster.pb import rpc_pb2
from cluster.raft import Configuration
from cluster.settings import Peer
from cluster.wire.messages import Status
from node.links.fronts import NODE_IDENTITY, FrontLink, Fronts
from node.members.roster import MOST_TOLD, TURN_S, Roster
from tools.muster.machine.zmtp.stream import STRANGER_BYTES

OWN, OTHER, NEW = 1, 2, 3
CLUSTER = 7


class Node:
    """What a roster asks of its node. Two members that know each other."""

    def __init__(self, shard: int = 1) -> None:
        seed = tuple(Peer(i, f"h{i}", "10.0.0.1", 2380 + i, (f"http://10.0.0.1:{2380 + i}",)) for i in (1, 2))
        configuration = Configuration(frozenset((OWN, OTHER)), frozenset())
        self.settings = SimpleNamespace(
            shard=shard, common=SimpleNamespace(peers=seed, cluster_id=CLUSTER, alone=False))
        self.store = SimpleNamespace(hosts=tuple)
        self.raft = SimpleNamespace(
            id=OWN, configuration=configuration, committed_configuration=configuration, peers=dict
        )
        self.links: dict[int, PeerLink] = {}
        self.peers = SimpleNamespace(follow=lambda: None, links=self.links)
        self.fronts = Fronts(CLUSTER, cast(Any, None), cast(Any, None), cast(Any, None), (2, 1))
        self.wake = lambda: None
        self.now = 0.0
        self.loop = SimpleNamespace(time=lambda: self.now)
        self.failed: list[str] = []
        self.fail = self.failed.append


@dataclass
class PeerLink:
    """A node's link to a member."""

    peer: Peer
    stands: bool = True

    def trouble(self) -> tuple[str, str]:
        return ("" if self.stands else "no connection"), ""

    def since(self, otherwise: float) -> float:
        return otherwise


class Front(FrontLink):
    """A front, as a link of node 0: what it knows of the members when it begins, and what it is told."""

    def __init__(self, node: Node, *, local: bool = True, identity: bytes = b"f") -> None:
        super().__init__(identity, lambda parts: True, b"" if local else b"F", 1)
        self.members = Table(node.settings.common.peers)
        self.told = 0
        node.fronts.links[identity + bytes((len(node.fronts.links),))] = self

    def answer(self, rid: int, status: int, body: bytes) -> None:
        assert (rid, status) == (0, Status.MEMBERS)
        self.told += 1
        self.members.follow(decode_all(body))

    @property
    def port(self) -> int:
        """Where it looks for the other member."""
        return self.members.peer(OTHER).port


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


def at_port(port: int) -> Peer:
    return Peer(OTHER, "", "10.0.0.1", port, (f"http://10.0.0.1:{port}",))


def running(node: Node) -> Roster:
    roster = Roster(cast(Any, node), cast(Any, SimpleNamespace(moved=lambda: None)))
    roster.start()
    return roster


@pytest.fixture
def roster() -> Roster:
    return Roster(cast(Any, Node()), cast(Any, None))


def test_a_host_that_takes_no_peers_ends_as_one_of_several() -> None:
    """By its table or its group's configuration, at its start or as its log adds a host."""
    for known, votes in ((2, 1), (1, 2), (1, 1)):
        node, followed = Node(), list[bool]()
        common = node.settings.common
        common.alone, common.peers = True, common.peers[:known]
        node.raft.configuration = Configuration(frozenset((OWN, OTHER)[:votes]), frozenset())
        node.peers.follow = lambda followed=followed: followed.append(True)
        roster = running(node)
        roster.changes = cast(Any, SimpleNamespace(applied=lambda rows: None))
        assert bool(node.failed) == (known + votes > 2) != bool(followed), "no other host is dialled"
        roster.applied([Host(OTHER, "", ("http://10.0.0.1:9",), learner=True).encode()])
        assert node.failed
        assert errors.TAKES_NO_PEER.text in node.failed[0]


def test_a_member_is_looked_for_where_it_says_until_the_table_names_it(roster: Roster) -> None:
    roster.told(NEW, described(m1="http://10.0.0.1:9", m2="http://10.0.0.1:9", m3="http://10.0.0.1:2383"))
    assert ports(roster) == {OTHER: 2382, NEW: 2383}, "it speaks for itself alone"
    row = Host(NEW, "", ("http://10.0.0.1:2384",))
    roster.table.take([row.encode()])
    assert ports(roster) == {OTHER: 2382, NEW: 2384}


def test_what_a_member_with_many_urls_says_of_itself_is_heard_from_a_stranger() -> None:
    """Above 4 KiB it ended the connection, again and again: a host that was behind never got its log."""
    urls = [f"http://a-long-name-of-a-host-{i:02}.example.com:2380" for i in range(MOST_URLS)]
    clients = [f"http://its-other-name-for-clients-{i:02}.example.com:2379" for i in range(MOST_URLS)]
    node = Node()
    node.settings.common.__dict__.update(member_id=OWN, shard_count=2, placement_depth=1, origin="")
    published = rpc_pb2.Member(ID=OWN, name="h1", clientURLs=clients).SerializeToString()
    node.store.members = lambda: {OWN: published}
    roster = Roster(cast(Any, node), cast(Any, None))
    roster.table.take([Host(OWN, "h1", tuple(urls)).encode()])
    said = roster.described(alone=True)
    assert 1 + len(said) <= STRANGER_BYTES
    host = Running.decode(said).members[0]
    assert set(host.peer_urls) < set(urls)
    behind = Roster(cast(Any, Node()), cast(Any, None))
    behind.told(OWN, said)
    told = behind.peer(OWN)
    assert told is not None
    assert told.host == "a-long-name-of-a-host-00.example.com"
    behind.table.take([Host(OWN, "h1", tuple(urls)).encode()])
    behind.told(OWN, said)
    assert behind.peer(OWN) == behind.table.peer(OWN), "the table is right, and has more"


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


def test_the_order_of_a_members_urls_is_no_other_place(roster: Roster) -> None:
    urls = "http://10.0.0.1:9999", "http://10.0.0.1:2382"
    roster.table.take([Host(OTHER, "", urls).encode()])
    told = json.loads(described(m2=urls[0]))
    told["members"][0]["peer_urls"] = sorted(urls)
    roster.told(OTHER, json.dumps(told).encode())
    assert roster.reachable() == {OTHER: roster.table.peer(OTHER)}
    assert ports(roster) == {OTHER: 9999}


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


def test_a_members_urls_take_turns_from_the_one_where_it_was_found() -> None:
    """As etcd's: one may be of a network that this host does not reach."""
    node = Node(shard=0)
    urls = tuple(f"http://10.0.0.1:{port}" for port in (2380, 2381, 2382))
    seed = Peer(OTHER, "h2", "10.0.0.1", 2382, urls)  # as the flags say it first
    node.settings.common.peers = (node.settings.common.peers[0], seed)
    roster, front = running(node), Front(node)
    link = node.links[OTHER] = PeerLink(seed, stands=False)
    dialled = []
    for second in range(24):
        node.now = 1000 + second * TURN_S / 3
        link.peer = roster.reachable()[OTHER]
        link.stands = 9 <= second < 15 and link.peer.port == 2382
        roster.second()
        dialled.append(link.peer.port)
    turns = [2382] * 3 + [2380] * 3 + [2381] * 3
    assert dialled == [*turns, *[2382] * 8, *turns[3:], 2382], "a lost link's address has a turn, too"
    assert (front.told, link.peer.peer_urls) == (0, urls), "fronts know all of them, and take turns, too"


def test_fronts_of_this_host_look_for_a_member_where_the_link_to_it_stands() -> None:
    node = Node(shard=0)
    roster, front = running(node), Front(node)
    link = node.links[OTHER] = PeerLink(at_port(9999), stands=False)
    roster.second()
    assert front.port == 2382, "a member may tell an old address: nothing was found there yet"
    link.stands = True
    roster.second()
    assert front.port == 9999
    roster.second()
    assert front.told == 1, "only what is news"
    link.stands = False
    roster.second()
    assert front.port == 2382
    link.stands = True
    roster.table.take([Host(NEW, "", ("http://10.0.0.1:2383",)).encode()])
    assert front.port == 9999, "another member's row says nothing of this one"
    assert set(front.members.hosts) == {OWN, OTHER, NEW}
    roster.table.take([Host(OTHER, "", ("http://10.0.0.1:9999",)).encode()])
    roster.second()
    assert (front.port, front.told) == (9999, 5)


def test_fronts_of_this_host_reach_a_member_that_was_added_meanwhile() -> None:
    """It may lead before its row comes. Where it is not reached, it may be no member, or none any more."""
    node = Node(shard=0)
    roster, front = running(node), Front(node)
    roster.told(NEW, described(m3="http://10.0.0.1:2383"))
    link = node.links[NEW] = PeerLink(roster.reachable()[NEW], stands=False)
    roster.second()
    assert not front.told
    link.stands = True
    roster.second()
    assert (front.members.peer(NEW).port, front.port) == (2383, 2382)
    late, other = Front(node), Front(node, local=False)
    for greeted in (late, other):
        roster.greet(greeted)
    assert NEW in late.members.hosts
    assert not other.told
    roster.told(NEW, described(m3="http://10.0.0.1:9999"))  # it has moved
    roster.second()
    assert front.members.peer(NEW).port == 2383, "it has not been restarted there yet"
    link.stands = False
    roster.second()
    assert NEW not in front.members.hosts
    node.links[NEW] = PeerLink(roster.reachable()[NEW])
    roster.second()
    assert front.members.peer(NEW).port == 9999
    roster.second()
    assert (front.told, late.told) == (3, 3), "only what is news"


@pytest.mark.parametrize("removed", [False, True])
def test_the_row_of_an_added_member_takes_the_place_of_what_it_told(removed: bool) -> None:
    """One that was removed since may lead until its group has let it go."""
    node = Node(shard=0)
    roster, front = running(node), Front(node)
    roster.told(NEW, described(m3="http://10.0.0.1:2383"))
    link = node.links[NEW] = PeerLink(roster.reachable()[NEW])
    roster.second()
    row = Host(NEW, "", ("http://10.0.0.1:2384",), learner=True, removed=removed)
    roster.table.take([row.encode()])
    assert front.members.hosts[NEW] == Host(NEW, "", ("http://10.0.0.1:2383",), True, removed)
    link.stands = False
    roster.second()
    assert front.members.hosts[NEW] == row
    assert roster.peer(NEW) == row.peer, "what it told is forgotten"


def test_nobody_but_fronts_of_this_host_is_told() -> None:
    """A proxy has links to hosts that are behind and to others: it would go back and forth."""
    node = Node(shard=0)
    roster, own = running(node), Front(node)
    others = [Front(node, local=False), Front(node, identity=NODE_IDENTITY)]
    node.links[OTHER] = PeerLink(at_port(9999))
    roster.second()
    new = Front(node, local=False)
    roster.greet(new)
    assert (own.port, [other.told for other in (*others, new)]) == (9999, [0, 0, 0])
    roster.table.take([Host(NEW, "", ("http://10.0.0.1:2383",)).encode()])
    late = Front(node, local=False)
    roster.greet(late)
    assert [other.port for other in (*others, new, late)] == [2382] * 4, "they are told what is in order"
    assert all(NEW in other.members.hosts for other in (*others, new, late))


def test_a_front_of_this_host_is_told_where_members_are_at_each_greeting() -> None:
    """Its node was another process when it was told last, and may find this member nowhere."""
    front, node = Front(Node(shard=0)), Node(shard=0)
    front.members.follow([Host(OTHER, "h2", ("http://10.0.0.1:9999",))])
    roster = running(node)
    roster.greet(front)
    assert not roster.table.moved
    assert front.port == 2382
    node.links[OTHER] = PeerLink(at_port(9999))
    roster.second()
    roster.greet(front)
    assert front.port == 9999
    other_shards = running(Node(shard=1))
    other_shards.greet(front)
    assert front.told == 2


def test_what_a_member_told_is_forgotten_once_it_is_where_the_table_says() -> None:
    node = Node()
    roster, front = running(node), Front(node)
    roster.told(OTHER, described(m2="http://10.0.0.1:9999"))
    link = node.links[OTHER] = PeerLink(at_port(2382), stands=False)
    roster.second()
    assert ports(roster) == {OTHER: 9999}
    link.stands = True
    roster.second()
    assert ports(roster) == {OTHER: 2382}
    link.peer = at_port(9999)
    roster.second()
    assert not front.told, "node 0 alone tells"


def test_a_removed_member_stays_removed_for_fronts_wherever_it_is() -> None:
    """It may lead until its group has let it go."""
    node = Node(shard=0)
    roster, front = running(node), Front(node)
    roster.table.take([Host(OTHER, "h2", ("http://10.0.0.1:2382",), removed=True).encode()])
    node.links[OTHER] = PeerLink(at_port(9999))
    node.links[NEW] = PeerLink(Peer(NEW, "", "10.0.0.1", 2383, ("http://10.0.0.1:2383",)))
    roster.second()
    assert front.port == 9999
    assert front.members.removed(OTHER)
    assert NEW not in front.members.hosts, "neither the table nor it itself says that it is a member"


def test_a_removed_member_tells_where_it_is_until_its_group_has_let_it_go() -> None:
    """A host that is behind knows its former address alone, and the removal may wait for that host."""
    node, other, moved = Node(), Node(), "http://10.0.0.1:9999"
    other.raft.id = OTHER
    vars(node.settings.common).update(member_id=OWN, shard_count=2, placement_depth=1, origin="")
    node.store.members = dict
    roster, behind = running(node), running(other)
    roster.table.take([Host(OWN, "h1", (moved,), removed=True).encode()])
    assert [m.member_id for m in Running.decode(roster.described()).members] == [OTHER]
    behind.told(OWN, roster.described(alone=True))
    assert ports(behind)[OWN] == 9999


@pytest.mark.parametrize(
    "odd",
    [b"", b"{}", b"[" * 100_000, described(8, m3="http://10.0.0.1:2383"), b'{"cluster_id": "zz"}',
     b'{"cluster_id": "7", "shards": Infinity}', described(m2="http://10.0.0.1:2383"),
     described(m3="no URL"), described(m3="http://a\0b:1"), described(m3="http://a:1/x"),
     described(m3="http://\ud800:1"), described(m3="http://a:1").replace(b'name": "', b'name": "\\ud800')],
)  # fmt: skip
def test_an_answer_that_cannot_be_read_or_does_not_name_its_sender_is_passed_over(
    roster: Roster, odd: bytes
) -> None:
    roster.told(NEW, odd)
    assert ports(roster) == {OTHER: 2382}


def test_nobody_is_told_of_as_a_member(roster: Roster) -> None:
    """Whoever says hello may name member 0, which stands for none. Fronts would not read its row."""
    roster.told(0, described(m0="http://10.0.0.1:2383"))
    assert ports(roster) == {OTHER: 2382}


def test_so_many_are_told_and_no_more(roster: Roster) -> None:
    """Where there is no key, whoever knows the cluster's ID may say hello."""
    for member_id in range(16, 16 + MOST_TOLD + 10):
        roster.told(member_id, described(**{f"m{member_id:x}": "http://10.0.0.1:2383"}))
    assert len(roster.reachable()) == 1 + MOST_TOLD
    assert OTHER in roster.reachable()
