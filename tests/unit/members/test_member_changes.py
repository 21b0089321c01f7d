"""The leader of shard 0 judges a wish for members by where the groups stand now."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from cluster.effects import records
from cluster.members.table import Table
from cluster.pb import rpc_pb2
from cluster.raft import Configuration, Role
from cluster.settings import Peer
from cluster.wire.messages import MEMBER_ADD, MEMBER_PROMOTE, MEMBERS_LAX, Status
from node.links.fronts import FrontLink
from node.members.changes import Changes
from node.members.group import Learner, Standing

LEADER, LEARNER = 1, 2
GROUP = Configuration(frozenset((LEADER,)), frozenset((LEARNER,)))


class Node:
    """What ``Changes`` asks of a node 0 that leads a store of two shards."""

    def __init__(self) -> None:
        self.appended: list[bytes] = []
        self.refused: list[str] = []
        self.asked: list[Any] = []  # who waits for what shard 1's leader says
        self.loop = SimpleNamespace(time=lambda: 0.0)
        self.machine = SimpleNamespace(wall_time=lambda: 1.0)
        self.settings = SimpleNamespace(
            common=SimpleNamespace(shard_count=2, heartbeat_interval_ms=100, election_timeout_ms=1000),
            max_learners=1,
        )
        peer = SimpleNamespace(match=10, state="replicate", heard_ms=0, learner=True)
        self.raft = SimpleNamespace(
            role=Role.LEADER,
            term=1,
            last_index=10,
            leader_id=LEADER,
            committed_configuration=GROUP,
            peers=lambda: {LEARNER: peer},
        )
        self.writes = SimpleNamespace(leader=SimpleNamespace(term=1, append=self.appended.append))
        seed = (
            Peer(LEADER, "a", "h", 1, ("http://h:1",)),
            Peer(LEARNER, "b", "h", 2, ("http://h:2",), learner=True),
        )
        self.roster = SimpleNamespace(
            table=Table(seed), started=lambda: {LEADER, LEARNER}, connected_s=lambda member: 60.0
        )
        self.role = SimpleNamespace(ask_leader=self.ask_leader)
        self.reads = SimpleNamespace(refuse=lambda link, rid, e: self.refused.append(str(e)))

    def now_ms(self) -> int:
        return 0

    def wake(self) -> None:
        pass

    def ask_leader(self, shard: int, method: int, body: bytes, answered: Any) -> None:
        self.asked.append(answered)

    def shard_1_says(self, match: int) -> None:
        """To everybody who has asked."""
        asked, self.asked = self.asked, []
        said = Standing(1, GROUP, {LEARNER: Learner(10 - match, match / 10, 0)})
        for answered in asked:
            answered(Status.OK, said.encode())


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
