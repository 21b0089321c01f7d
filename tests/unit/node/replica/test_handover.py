"""H13: a shard's leader whose entries are not put in order hands over to a peer with a live feed, and only
then."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from cluster.leader_placement import MAX_LAG
from cluster.order.following.stuck import APPLY_LIMIT
from cluster.order.leading.queued import Report
from cluster.order.log import Cut
from cluster.raft import Configuration, Role
from cluster.settings import Common, NodeSettings, Peer
from node.replica.shards.handover import _LIVE, _QUESTION, HandOver

ELECTION_MS = 1000
SHARD = 1


@dataclass
class FakePeer:
    match: int
    heard_ms: int


@dataclass
class FakeRaft:
    role: Role = Role.LEADER
    last_index: int = 50
    commit_index: int = 50
    transferring: bool = False
    configuration: Configuration = field(
        default_factory=lambda: Configuration(frozenset((1, 2, 3)), frozenset())
    )
    others: dict[int, FakePeer] = field(default_factory=dict)
    transfers: list[int] = field(default_factory=list)

    def peers(self) -> dict[int, FakePeer]:
        return self.others if self.role is Role.LEADER else {}

    def transfer_leadership(self, target: int) -> None:
        self.transfers.append(target)


class FakeLeading:
    serving = True

    def report(self, commit_index: int) -> Report | None:
        return Report(SHARD, commit_index, 3, 40, 7)


class FakeFold:
    def __init__(self) -> None:
        self.last = Cut(40, 3, 30)

    def cut(self, shard: int) -> Cut:
        assert shard == SHARD
        return self.last


class FakeNode:
    """A leader with two followers that keep up, and time that is told."""

    def __init__(self, member: int = 1) -> None:
        peers = tuple(Peer(m, f"h{m}", "127.0.0.1", 1) for m in (1, 2, 3))
        common = Common(7, member, "h", 3, 2, peers, "/nowhere", election_timeout_ms=ELECTION_MS)
        self.settings = NodeSettings(common, SHARD, "/nowhere", "127.0.0.1", 1)
        self.now = 10_000
        self.raft = FakeRaft(others={2: FakePeer(50, 10_000), 3: FakePeer(50, 10_000)})
        self.leading: FakeLeading | None = FakeLeading()
        self.fold = FakeFold()
        self.sequencer = member
        self.reachable = 0
        self.order_index = 7
        self.order_known = self.stopping = self.starved = False
        self.sent: list[tuple[int, bytes]] = []
        self.peers = self
        self.node = self.placing = self.feed = self  # it is its own role
        self.handover = HandOver(self, "together")  # type: ignore[arg-type]

    def now_ms(self) -> int:
        return self.now

    def send(self, member: int, kind: bytes, data: bytes) -> bool:
        assert kind == b"L"
        self.sent.append((member, data))
        return True

    def reachable_sequencer(self) -> int:
        return self.reachable

    def catch_up(self) -> None:
        """It applies what comes as it comes."""

    def wake(self) -> None:
        pass

    def run(self, ms: int, meanwhile: Any = None) -> None:
        """Heartbeats."""
        for _ in range(ms // 100):
            self.now += 100
            for peer in self.raft.others.values():
                peer.heard_ms = self.now
            if meanwhile is not None:
                meanwhile()
            self.handover.heartbeat()

    def seconds(self, count: int, told: dict[int, bytes]) -> None:
        """Heartbeats, and looks at who is wanted as leader; members answer what they are asked as they are
        told to."""
        for _ in range(count):
            self.run(1000)
            self.sent.clear()
            self.handover.second()
            for member, data in self.sent:
                assert data == _QUESTION
                if member in told:
                    self.handover.frame(member, told[member])


LIVE = _LIVE.pack(b"!", 3, 9)
DEAD = _LIVE.pack(b"!", 0, 9)


def test_a_leader_whose_entries_are_not_cut_hands_over_to_a_peer_with_a_live_feed() -> None:
    node = FakeNode()
    node.run(ELECTION_MS)
    assert node.sent == [], "a cut may still come"
    node.run(200)
    assert {m for m, data in node.sent if data == _QUESTION} == {2, 3}
    node.handover.frame(2, DEAD)
    assert node.raft.transfers == [], "that one can do no better"
    node.handover.frame(3, LIVE)
    node.handover.frame(2, LIVE)
    assert node.raft.transfers == [3], "once"
    assert node.handover.moved == 1


def test_a_leader_whose_next_order_record_is_kept_nowhere_hands_over_though_all_of_it_is_in_order() -> None:
    node = FakeNode()
    node.fold.last = Cut(50, 3, 40)
    node.run(3 * ELECTION_MS)
    assert node.sent == []
    node.starved = True
    node.run(ELECTION_MS + 200)
    assert {m for m, data in node.sent if data == _QUESTION} == {2, 3}
    node.handover.frame(2, _LIVE.pack(b"!", 3, node.order_index))
    assert node.raft.transfers == [], "that one wants the same record"
    node.handover.frame(3, LIVE)
    assert node.raft.transfers == [3]


def test_a_leader_whose_feed_has_records_to_come_waits_for_them() -> None:
    node = FakeNode()
    node.order_known = True  # a delete of a million keys takes longer to apply than an election (D8)
    node.run(3 * ELECTION_MS)
    node.handover.frame(3, LIVE)
    assert node.sent == []
    assert node.raft.transfers == []
    node.order_known = False
    node.run(ELECTION_MS + 200)
    assert {m for m, data in node.sent if data == _QUESTION} == {2, 3}


def test_an_order_that_moves_on_without_its_entries_is_no_excuse() -> None:
    node = FakeNode()
    node.order_known = True  # always some record behind, as under load

    def move() -> None:
        node.order_index += 1

    node.run(ELECTION_MS + 200, move)
    assert {m for m, data in node.sent if data == _QUESTION} == {2, 3}


def test_a_feed_that_stands_still_is_no_excuse_for_ever() -> None:
    node = FakeNode()
    node.order_known = True  # its node 0 tells of commits, and what that applies itself stands still
    node.run(APPLY_LIMIT * ELECTION_MS)
    assert node.sent == []
    node.run(ELECTION_MS + 200)
    assert {m for m, data in node.sent if data == _QUESTION} == {2, 3}
    node.handover.frame(2, _LIVE.pack(b"!", 3, node.order_index))
    assert node.raft.transfers == [], "that one applies the same for as long"
    node.handover.frame(3, _LIVE.pack(b"!", 3, node.order_index + 1))
    assert node.raft.transfers == [3]


def test_every_long_apply_has_the_whole_time() -> None:
    node = FakeNode()
    node.order_known = True
    for _ in range(3):
        node.run((APPLY_LIMIT - 1) * ELECTION_MS)
        node.order_index += 1  # one is through, and there is another behind it
    assert node.sent == []


def test_a_leader_that_is_cut_is_not_troubled() -> None:
    node = FakeNode()

    def cut() -> None:
        node.fold.last = Cut(node.fold.last.index + 1, 3, 30)
        node.raft.commit_index = node.fold.last.index + 5  # always some behind, as under load

    node.run(10 * ELECTION_MS, cut)
    assert node.sent == []
    node.handover.frame(3, LIVE)  # the answer of a question long ago
    assert node.raft.transfers == []


def test_an_idle_leader_is_not_troubled() -> None:
    node = FakeNode()
    node.fold.last = Cut(50, 3, 40)
    node.run(10 * ELECTION_MS)
    assert node.sent == []
    node.raft.commit_index = 51  # what is written now has its own time
    node.run(ELECTION_MS - 100)
    assert node.sent == []


def test_a_peer_that_lags_or_is_silent_is_not_asked() -> None:
    node = FakeNode()
    node.raft.last_index = 1000
    node.raft.others[3] = FakePeer(1000, 0)
    node.run(ELECTION_MS)
    node.raft.others[3].heard_ms = node.now - ELECTION_MS - 100
    node.now += 100
    node.handover.heartbeat()
    assert node.sent == []


def test_a_peer_that_is_no_voter_is_neither_asked_nor_wanted() -> None:
    node = FakeNode()
    node.raft.configuration = Configuration(frozenset((1, 3)), frozenset((2,)))
    node.sequencer = 2
    node.run(2 * ELECTION_MS)
    assert {m for m, _ in node.sent} == {3}
    node.fold.last = Cut(50, 3, 40)
    for _ in range(10):
        node.run(1000)
        node.handover.second()
    assert node.raft.transfers == []


def test_a_peer_whose_own_state_is_behind_is_no_help() -> None:
    node = FakeNode()
    node.run(ELECTION_MS + 200)
    node.handover.frame(3, _LIVE.pack(b"!", 3, node.order_index - 1))
    assert node.raft.transfers == []


def test_it_is_tried_ever_more_rarely() -> None:
    node = FakeNode()
    node.run(ELECTION_MS + 200)
    moments = []
    for _ in range(3000):
        node.run(100)
        before = len(node.raft.transfers)
        node.handover.frame(3, LIVE)
        if len(node.raft.transfers) > before:
            moments.append(node.now)
    gaps = [b - a for a, b in itertools.pairwise(moments)]
    assert gaps[0] >= 5 * ELECTION_MS
    assert gaps == sorted(gaps)
    assert len(moments) < 12


def test_a_peer_tells_whether_it_reaches_the_sequencer() -> None:
    peer = FakeNode(3)
    peer.leading = None
    peer.raft.role = Role.FOLLOWER
    peer.handover.frame(1, _QUESTION)
    peer.reachable = 2
    peer.handover.frame(1, _QUESTION)
    assert peer.sent == [(1, _LIVE.pack(b"!", 0, 7)), (1, _LIVE.pack(b"!", 2, 7))]


def gathering(policy: str = "together") -> FakeNode:
    """A leader whose entries are all in order, on another host than the sequencer."""
    node = FakeNode()
    node.handover = HandOver(node, policy)  # type: ignore[arg-type]
    node.fold.last = Cut(50, 3, 40)
    node.order_index = 5000
    node.sequencer = 2
    return node


def test_leaders_gather_where_the_sequencer_is() -> None:
    node = gathering()
    node.seconds(3, {2: _LIVE.pack(b"!", 2, 5000)})
    assert node.raft.transfers == [2], (
        "as soon as the wish has stood for long enough: asking takes no time of its own"
    )


def test_leaders_spread() -> None:
    node = gathering("spread")
    node.seconds(3, {3: _LIVE.pack(b"!", 2, 5000)})
    assert node.raft.transfers == [3]


def test_nobody_is_asked_where_the_leader_is_wanted_already() -> None:
    node = gathering()
    node.sequencer = 1
    node.seconds(5, {})
    assert node.sent == []


def test_leadership_does_not_go_to_a_replica_that_is_behind_in_the_order() -> None:
    node = gathering()  # Raft's log is all there, on every one of them
    told = {2: _LIVE.pack(b"!", 2, 5000 - MAX_LAG - 1)}
    node.seconds(20, told)
    assert node.raft.transfers == []
    told[2] = _LIVE.pack(b"!", 2, 5000 - MAX_LAG)  # what the feed of a loaded order has on its way
    node.seconds(2, told)
    assert node.raft.transfers == [2]


def test_leadership_does_not_go_to_a_replica_without_a_feed_or_without_a_word() -> None:
    node = gathering()
    node.seconds(20, {2: _LIVE.pack(b"!", 0, 5000)})
    assert node.raft.transfers == [], "starved: its feed is dead"
    node.seconds(20, {})
    assert node.raft.transfers == [], "silent"


def test_what_a_replica_said_before_does_not_count_for_long() -> None:
    node = gathering()
    node.seconds(1, {2: _LIVE.pack(b"!", 2, 5000)})
    node.seconds(20, {})
    assert node.raft.transfers == []
