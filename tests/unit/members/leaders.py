"""Leaders of shard 0 and of other groups, without a network, and what asks them for changes of members."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from cluster.effects import records
from cluster.features.auth.state import AuthState
from cluster.members.host_changes import Kind
from cluster.members.table import Host, Table
from cluster.pb import rpc_pb2
from cluster.raft import Configuration, Role
from cluster.settings import Peer
from cluster.wire.messages import MEMBER_REMOVE, Status
from node.links.fronts import FrontLink
from node.members.changes import Changes
from node.members.group import NAMES_TERM, Learner, Standing, asked_for
from node.upkeep.log.floors import Floors

LEADER, LEARNER = 1, 2
GROUP = Configuration(frozenset((LEADER,)), frozenset((LEARNER,)))
BOTH = Configuration(frozenset((LEADER, LEARNER)))


class Node:
    """What ``Changes`` asks of a node 0 that leads a store of two shards."""

    def __init__(self) -> None:
        self.appended: list[bytes] = []
        self.refused: list[str] = []
        self.asked: list[Any] = []  # who waits for what shard 1's leader says
        self.changes: list[Kind] = []  # that it was asked for
        self.handed: list[int] = []  # whom shard 0 was handed to
        self.term_said = 1  # by who asks
        self.loop = SimpleNamespace(time=lambda: 0.0)
        self.machine = SimpleNamespace(wall_time=lambda: 1.0)
        self.settings = SimpleNamespace(
            common=SimpleNamespace(
                shard_count=2, heartbeat_interval_ms=100, election_timeout_ms=1000, peer_tls=None,
                alone=False),
            max_learners=1,
        )
        peer = SimpleNamespace(match=10, state="replicate", heard_ms=0, learner=True)
        self.raft = SimpleNamespace(
            id=LEADER,
            role=Role.LEADER,
            term=1,
            last_index=10,
            leader_id=LEADER,
            is_leader=False,
            commit_index=10,
            knows_commit=True,
            configuration=GROUP,
            committed_configuration=GROUP,
            peers=lambda: {LEARNER: peer},
            transferring=False,
            propose_configuration=self.proposed,
        )
        self.auth = AuthState()
        self.store = None
        self.writes = SimpleNamespace(
            leader=SimpleNamespace(term=1, append_host=lambda row: self.appended.append(records.host(row)),
                                   auth=self.auth, told=SimpleNamespace(forming=0))
        )
        seed = (
            Peer(LEADER, "a", "h", 1, ("http://h:1",)),
            Peer(LEARNER, "b", "h", 2, ("http://h:2",), learner=True),
        )
        self.roster = SimpleNamespace(
            table=Table(seed),
            started=lambda: {LEADER, LEARNER},
            connected_s=lambda member: 60.0,
            listed=list,
        )
        self.durable = {LEADER: 10, LEARNER: 10}  # of the order, by host, in shard 1
        self.role = SimpleNamespace(
            ask_leader=self.ask_leader, covers=self.covers, shards=(0, 1))
        self.reads = SimpleNamespace(refuse=lambda link, rid, e: self.refused.append(str(e)))
        self.successors = [LEARNER]
        self.upkeep = SimpleNamespace(succession=SimpleNamespace(
            successors=lambda: self.successors, hand_over=self.handed.append))

    def now_ms(self) -> int:
        return 0

    def wake(self) -> None:
        pass

    def mark_dirty(self, link: Any) -> None:
        pass

    def proposed(self, configuration: Configuration) -> None:
        self.raft.configuration = configuration

    def commit(self, configuration: Configuration) -> None:
        """In group 0."""
        self.raft.configuration = self.raft.committed_configuration = configuration

    def covers(self, voters: frozenset[int], last: int) -> bool:
        found = Floors(LEADER, 2)
        for host, durable in self.durable.items():
            found.came(host, durable.to_bytes(8, "little"))
        return found.of_majority(voters)[0] >= last

    def ask_leader(self, shard: int, method: int, body: Any, answered: Any) -> None:
        change, term = asked_for(body(NAMES_TERM))
        assert term == self.term_said
        self.asked.append(answered)
        if change is not None:
            self.changes.append(change.kind)

    def shard_1_says(
        self, match: int, group: Configuration = GROUP, silent_ms: int = 0, sure: bool = True
    ) -> None:
        """To everybody who has asked."""
        asked, self.asked = self.asked, []
        other = LEARNER if LEARNER in group.members() else 9
        said = Standing(1, group, {other: Learner(10 - match, match / 10, silent_ms)}, sure=sure)
        for answered in asked:
            answered(Status.OK, said.encode())


class Front:
    """A front's link."""

    version = NAMES_TERM

    def __init__(self) -> None:
        self.patient = True
        self.answers: list[int] = []

    def awaits(self, rid: int) -> bool:
        return self.patient

    def answer(self, rid: int, status: int, body: bytes) -> None:
        self.answers.append(status)


def leading(node: Node) -> Changes:
    changes = Changes(cast(Any, node))
    changes.leading()
    return changes


def removal(changes: Changes, front: Front, member_id: int) -> None:
    wish = rpc_pb2.MemberRemoveRequest(ID=member_id).SerializeToString()
    changes.submit(cast(FrontLink, front), 7, bytes((MEMBER_REMOVE,)) + wish)


def applied(node: Node, changes: Changes) -> None:
    """What was logged last."""
    data = node.appended[-1]
    rows = [data[pos:end] for _, pos, end in records.items(data)]
    node.roster.table.take(rows)
    changes.applied(rows)


def both_vote(node: Node, changes: Changes) -> None:
    node.roster.table.take([Host(LEARNER, "b", ("http://h:2",)).encode()])
    node.commit(BOTH)
    changes.look()
    node.shard_1_says(10, BOTH)
