"""A host that comes back finds a member that was added, or has moved, before its copy of the members' table
says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.members.table import Table
from cluster.pb import rpc_pb2 as pb
from cluster.settings import NodeSettings
from cluster.wire.messages import MEMBER_ADD, MEMBER_UPDATE, MEMBERS_LAX, Method
from proxy.routing.links import Link
from proxy.routing.members.following import Following
from proxy.routing.waiting import MethodStats
from tests.sim.clients.order_clients import Operation
from tests.sim.everything.order_everything import Everything
from tests.sim.mutants.mutant import plan
from tests.sim.world.order_host import NodeProcess

LEADS, MOVES, LAGS = 1, 2, 3  # hosts: of the sequencer, of another shard's leader, and the one that was away
SHARD = 1
AWAY_AT, UPDATED_AT, LED_AT, BACK_AT, ASKED_AT, END = 1.5, 2.0, 4.0, 5.0, 6.5, 15.0
BEHIND_S = 8.0  # so long the lagging host's disk takes for its snapshots


class Moved(Everything):
    """The member that moved leads a shard. The host that was away gets the table's row in a snapshot."""

    def __init__(self, seed: int) -> None:
        super().__init__(
            seed,
            plan(
                shards=2,
                seconds=END,
                fault_every_s=1e9,
                faults=("heal",),
                mix={"put": 1},
                clients=2,
                think_s=0.05,
                lone_after=1 << 30,
                patience=1.0,
                snapshot_count=10,
                updates=True,
                member_chance=0.0,
            ),
        )
        self.asked: list[Operation] = []
        self.addresses: set[str] = set()  # of the member that moved, in the lagging host's table meanwhile
        self.at(AWAY_AT, None, lambda: self._kill_host(LAGS, front=True))
        self.at(UPDATED_AT, None, self.change)
        self.at(LED_AT, None, self._lead)
        self.at(BACK_AT, None, self._return)
        self.at(ASKED_AT, None, self._ask)

    def change(self) -> None:
        self.give(MOVES, "n1")

    @property
    def leads(self) -> int:
        """The host that is to lead the other shard."""
        return MOVES

    def node_settings(self, host: int, shard: int) -> NodeSettings:
        return replace(super().node_settings(host, shard), leader_placement="spread")

    def give(self, member_id: int, name: str) -> None:
        """A member gets another address."""
        self.wish(MEMBER_UPDATE, pb.MemberUpdateRequest(ID=member_id, peerURLs=[f"http://{name}:1000"]))

    def wish(self, kind: int, request: Any) -> None:
        front = self.fronts[LEADS]
        body = bytes((kind,)) + request.SerializeToString()
        call: Any = self.clients.call(lambda data: None, lambda status, message: None)
        front.happens(
            None,
            lambda: front.router.write(
                call, Method.MEMBERS, body, 0, MethodStats(), lambda waiting, status, body: None
            ),
        )

    def _lead(self) -> None:
        """Leaders come to the hosts that the plan says."""
        self.at(0.2, None, self._lead)
        for process, wanted in ((p, self.leads if p.shard else LEADS) for p in self._leaders()):
            if process.host != wanted:
                process.happens(None, lambda process=process, wanted=wanted: self._hand(process, wanted))  # type: ignore[misc]

    @staticmethod
    def _hand(process: NodeProcess, to: int) -> None:
        process.node.raft.transfer_leadership(to)
        process.node.wake()

    def _return(self) -> None:
        self.plan.finish_s = (BEHIND_S, BEHIND_S)
        self._start_host(LAGS)

    def _ask(self) -> None:
        if self.now > BACK_AT + BEHIND_S:
            return
        self.at(0.2, None, self._ask)
        self.addresses.add(self._known())
        key = next(k for k in self.keys if self.placement.shard_of(k) == SHARD)
        self.asked.append(self.clients.ask(self.fronts[LAGS], "Put", pb.PutRequest(key=key, value=b"v")))

    def _known(self) -> str:
        """The address of the member that leads, as the lagging host's table says; empty: it says none."""
        host = self.nodes[LAGS, 0].node.roster.table.hosts.get(self.leads)
        return host.peer.host if host is not None else ""


class Added(Moved):
    """A member that was added meanwhile leads the shard."""

    def change(self) -> None:
        # lax: with a host away and another one to come, etcd's rules refuse it
        self.wish(MEMBER_ADD | MEMBERS_LAX, pb.MemberAddRequest(peerURLs=["http://n1:1000"]))

    @property
    def leads(self) -> int:
        return next(iter(self.joined), MOVES)


@pytest.mark.parametrize(("kind", "did", "known"), [(Moved, "moved", "h2"), (Added, "joined", "")])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.timeout(600)
def test_a_front_of_a_host_that_is_behind_reaches_a_leader_that_has_moved_or_was_added(
    seed: int, kind: type[Moved], did: str, known: str
) -> None:
    simulation = kind(seed)
    simulation.run_faults()
    assert simulation.did[did] == 1
    assert simulation.addresses == {known}, "its own copy of the table was older all the time"
    assert len(simulation.asked) > 30
    assert all(o.ok for o in simulation.asked)
    assert all(o.answered_at - o.asked_at < 2.0 for o in simulation.asked)


@pytest.mark.parametrize("kind", [Moved, Added])
def test_by_the_table_alone_it_would_not(kind: type[Moved], monkeypatch: pytest.MonkeyPatch) -> None:
    listed, look = Table.encode_all, Following.look
    monkeypatch.setattr(Table, "encode_all", lambda self, elsewhere=None: listed(self))

    def of_the_own_node(self: Following, link: Link) -> None:
        if link.member_id == self._front.common.member_id:
            look(self, link)

    monkeypatch.setattr(Following, "look", of_the_own_node)  # others tell it, too, while that knows no leader
    simulation = kind(1)
    simulation.run_faults()
    early = [o for o in simulation.asked if o.asked_at < BACK_AT + BEHIND_S / 2]
    assert early
    assert not any(o.ok and o.answered_at < BACK_AT + BEHIND_S for o in early)
