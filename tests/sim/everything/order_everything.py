"""Everything at once: users, members, the tree of version 2, leases, installs, walls that do not agree.

An operator changes the members by MEMBERS requests, some of them lax. A host that is added comes with an
empty disk, under the ID that the cluster gave it, and with what a member told it of the others. The operator
destroys the disk of a host the moment that its removal is acknowledged. A host that finds by itself that it
was removed ends, and never starts again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

from cluster.features.auth.principal import Kind, Principal
from cluster.members import checks
from cluster.members.described import Running
from cluster.members.table import Host
from cluster.pb import rpc_pb2 as pb
from cluster.raft import Configuration
from cluster.settings import Common, NodeSettings, Peer
from cluster.wire.messages import (
    HEAD,
    MEMBER_ADD,
    MEMBER_PROMOTE,
    MEMBER_REMOVE,
    MEMBER_UPDATE,
    MEMBERS_LAX,
    Method,
)
from node.links.peer_link import REMOVED
from proxy.auth.shown import Shown
from proxy.routing.router import MethodStats, Waiting
from tests.sim.clients.order_clients import Call
from tests.sim.clients.order_v2 import BASE_S, V2Clients
from tests.sim.disks.order_disk import LogDisk
from tests.sim.disks.order_store import StateDisk
from tests.sim.everything.order_backups import Backups
from tests.sim.world.order_host import common_settings, name_of
from tests.sim.world.order_plan import MIX, Plan
from tests.sim.world.order_sim import Simulation
from tests.sim.world.order_world import Process, Violation

if TYPE_CHECKING:
    from tests.sim.world.order_host import NodeProcess

FAULTS = (
    "kill sequencer", "kill leader", "kill node", "kill host", "restart", "restart", "restart",
    "pause sequencer", "pause leader", "pause node", "pause front", "isolate", "one way", "cut pair",
    "cut sequencer", "heal", "heal", "heal", "break", "transfer", "transfer", "slow disk", "late", "flush",
    "jump clock",
)  # fmt: skip
SKEW_S = 0.4  # what a host's wall clock is off, at most
HEALTHY_S = 0.2  # so long a member is connected before it counts as healthy; etcd's 5 s are a whole run
LOOK_S = 0.05
MOST_HOSTS = 5
NOT_A_LEARNERS = "etcdserver: rpc not supported for learner"
LEFT = "a removal that was acknowledged is true"
VOTES = "who was promoted votes in every group"
_ROOT = Principal(Kind.CERTIFICATE, "root")
_NOT_ROOT = Principal(Kind.CERTIFICATE, "ann")
_REQUESTS: dict[int, Any] = {
    MEMBER_ADD: pb.MemberAddRequest,
    MEMBER_REMOVE: pb.MemberRemoveRequest,
    MEMBER_PROMOTE: pb.MemberPromoteRequest,
    MEMBER_UPDATE: pb.MemberUpdateRequest,
}


@dataclass(frozen=True)
class Joined:
    """What a host that came later was made with."""

    name: str
    url: str
    peers: tuple[Peer, ...]


def plan_for(
    seed: int, shards: int, *, grows: bool = False, more: bool = False, moves: bool = False,
    births: bool = False, real: bool = False, silent: bool = False,
) -> Plan:
    """A plan by chance. ``grows``: an operator asks for growth meanwhile (G16). ``more``: clients watch, and
    members get other addresses. ``moves``: keys move between the shards. ``births``: shards come and go.
    ``real``: over RocksDB. ``silent``: connections are not greeted, as in plans of before."""
    r = Random(f"everything {seed}")
    mix = {name: weight for name, weight in MIX.items() if more or name not in ("watch", "progress")}
    plan = Plan(
        shards=shards,
        hosts=r.choice((2, 3, 3, 3)),
        seconds=4.0,
        clients=6,
        think_s=r.choice((0.01, 0.03)),
        fault_every_s=r.choice((0.3, 0.6, 1.2)),
        snapshot_count=r.choice((20, 40, 10_000)),
        repeats=r.choice((0.0, 0.1)),
        mix={**mix, "lease_put": 4, "grant": 2, "revoke": 2, "keep": 2, "ttl": 2},
        faults=FAULTS,
        users=True,
        lease_ids=r.choice((0, 6, 12)),
        grows=grows,
        updates=more,
        moves=moves,
        move_every_s=0.03,
        cancels=0.02,
        births=births,
        birth_every_s=0.6,
        real=real,
        greets=not silent,  # a member that came and was removed before it said anything hears of that
    )
    if moves or births:  # each waits for members that come
        plan.seconds, plan.fault_every_s = 7.0, 1.2
        plan.member_chance = 0.05
    return plan


class Everything(Simulation):
    """One run."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.joined: dict[int, Joined] = {}  # hosts that came later, by ID
        self.moved: dict[int, Host] = {}  # hosts that have another address by now
        self.urls = 0  # that were given to hosts
        super().__init__(seed, plan)
        self.wall_skew_s = SKEW_S
        self._walls = Random(f"{seed}/walls")
        self.destroyed: set[int] = set()  # they were acknowledged as removed
        self.v2 = V2Clients(self)
        self.backups = Backups(self)

    # -- walls

    def wall_time(self, process: Process) -> float:
        if process.host not in self.wall_jumps:
            self.wall_jumps[process.host] = self._walls.uniform(-SKEW_S, SKEW_S)
        return BASE_S + self.now + self.wall_jumps[process.host]

    def fault(self, action: str) -> None:
        if action == "jump clock":
            self.did[action] = self.did.get(action, 0) + 1
            self.wall_jumps[self.random.choice(self.hosts)] = self._walls.uniform(-SKEW_S, SKEW_S)
        elif len(self.hosts) > 1 or action not in ("cut pair", "cut sequencer"):
            super().fault(action)

    # -- hosts

    def common(self, host: int) -> Common:
        common = common_settings(host, self.plan.hosts, self.plan.shards)
        if host not in self.joined:
            return common
        joined = self.joined[host]
        return replace(common, name=joined.name, peers=joined.peers)

    def node_settings(self, host: int, shard: int) -> NodeSettings:
        settings = super().node_settings(host, shard)
        if host in self.moved:
            moved = self.moved[host]
            settings = replace(settings, listen_host=self.listens_at(host), peer_urls=moved.peer_urls)
            return replace(settings, joined=host in self.joined)
        if host not in self.joined:
            return settings
        joined = self.joined[host]
        return replace(settings, listen_host=self.listens_at(host), peer_urls=(joined.url,), joined=True)

    def _new_disks(self, host: int) -> None:
        super()._new_disks(host)
        if host in self.joined:
            voters = frozenset(peer.member_id for peer in self.joined[host].peers) - {host}
            for shard in self.shards:
                log = self.logs[host, shard] = LogDisk(Configuration(voters))
                log.perhaps_dies = self.perhaps_dies

    def start_node(self, host: int, shard: int) -> None:
        super().start_node(host, shard)
        process = self.nodes[host, shard]
        configuration = process.node.raft.configuration
        if host in self.joined and process.node.raft.log.position.index == 0:
            # what a joiner was told is no step of its group's: nobody counts by it, for it is no voter there
            self.checker.configurations.known(process.name, configuration)
        roster = process.node.roster
        roster.ends = True
        process.happens(None, roster.configured)

    def join(self, told: NodeProcess, host: Host) -> None:
        """A host starts with an empty disk, and with what this member says of the cluster."""
        running = Running.decode(told.node.roster.described())
        peers = tuple(Host(m.member_id, m.name, m.peer_urls, m.learner).peer for m in running.members)
        assert any(peer.member_id == host.member_id for peer in peers)
        self.joined[host.member_id] = Joined(host.peer.host, host.peer_urls[0], peers)
        self._new_disks(host.member_id)
        self.hosts = (*self.hosts, host.member_id)
        for shard in self.shards:
            self.start_node(host.member_id, shard)
        self.start_front(host.member_id)
        self.did["joined"] = self.did.get("joined", 0) + 1

    def move(self, host: Host) -> None:
        """A host's processes end, and start where the members' table says."""
        self._kill_host(host.member_id, front=True)
        self.moved[host.member_id] = host
        self._start_host(host.member_id)
        self.did["moved"] = self.did.get("moved", 0) + 1

    def is_elsewhere(self, host: Host) -> bool:
        """Whether it runs at another address than the table says."""
        there = host.member_id in self.hosts and host.member_id not in self.ended
        return there and self.listens_at(host.member_id) != host.peer.host

    def listens_at(self, host: int) -> str:
        """The name of its address. The operator asks at each look."""
        if host in self.moved:
            return self.moved[host].peer.host
        return self.joined[host].name if host in self.joined else name_of(host)

    def is_taken(self, name: str) -> bool:
        """Whether a host is there that may have been removed, and has not heard of it."""
        return any(self.listens_at(host) == name for host in self.hosts)

    def destroy(self, host: int) -> None:
        """Nothing is left of a host."""
        if host not in self.hosts:
            return
        self._kill_host(host, front=True)
        self.hosts = tuple(h for h in self.hosts if h != host)
        self.destroyed.add(host)
        del self.fronts[host]
        for shard in self.shards_of(host):
            del self.nodes[host, shard], self.logs[host, shard], self.states[host, shard]
        self.supervisors.emptied(host)
        self.did["destroyed"] = self.did.get("destroyed", 0) + 1

    def refused(self, process: NodeProcess) -> None:
        """A host that was removed has heard of it."""
        if process.node.fatal.result() != REMOVED:
            super().refused(process)
            return
        now = [table for table in self._tables() if table.removed(process.host)]
        if not now:
            raise Violation("H12 only a host that was removed ends", process.name)
        self.did["ended as removed"] = self.did.get("ended as removed", 0) + 1
        self.destroy(process.host)

    def durable_logs(self, host: int, shard: int) -> list[LogDisk]:
        return super().durable_logs(host, shard) if (host, 0) in self.logs else []

    def durable_states(self, host: int, shard: int) -> list[StateDisk]:
        return super().durable_states(host, shard) if (host, 0) in self.states else []

    def why_not(self) -> str:
        why = super().why_not()
        return f"{why}; {self.members.standing()}" if why.startswith("not every host") else why

    def _tables(self) -> list[Any]:
        return [process.node.roster.table for _, process in sorted(self.nodes.items())]

    # -- a whole run

    def run(self) -> dict[str, int]:
        with _healthy_soon():
            found = super().run()
        return {**found, **self.backups.did}

    def _run(self) -> None:
        super()._run()
        self.v2.check()
        self.members.check()
        self.backups.check()
        for o in self.clients.operations:
            if o.error == NOT_A_LEARNERS and o.front not in self.joined:
                raise Violation("only a learner refuses as one", f"{o}")

    def _operator(self) -> Operator:
        return Operator(self)


@contextlib.contextmanager
def _healthy_soon() -> Iterator[None]:
    before, checks.HEALTHY_S = checks.HEALTHY_S, HEALTHY_S
    try:
        yield
    finally:
        checks.HEALTHY_S = before


class Operator:
    """One wish after the other, by any front. It knows of the members what a member says."""

    def __init__(self, simulation: Everything) -> None:
        self._simulation = simulation
        self._random = Random(f"{simulation.seed}/operator")
        self._asked: tuple[int, int] | None = None  # kind and ID of the wish under way
        self._granted: list[tuple[float, float]] = []  # what ann was granted: asked, answered
        self.done = 0
        simulation.at(1.0, None, self._look)

    def _look(self) -> None:
        simulation = self._simulation
        simulation.at(LOOK_S, None, self._look)
        if not self.at_rest:  # groups change, and hand over
            simulation.checker.leases.trouble()
        nodes = [p for (_, shard), p in sorted(simulation.nodes.items()) if not shard and p.alive]
        nodes = [p for p in nodes if not p.paused]
        if not nodes:
            return
        told = max(nodes, key=lambda p: p.node.order_index)
        table = told.node.roster.table
        for host in table.members:
            if (
                host.member_id not in simulation.hosts
                and host.member_id not in simulation.destroyed
                and not simulation.is_taken(host.peer.host)
            ):
                told.happens(None, lambda host=host: simulation.join(told, host))  # type: ignore[misc]
                return
        for host in table.hosts.values():  # one that was removed may lead on, and a new one has to find it
            if simulation.is_elsewhere(host) and self._random.random() < 0.3:
                simulation.move(host)
                return
        if simulation.calm:
            for process in nodes:
                if table.removed(process.host) and self._is_lost(process, table.members):
                    simulation.destroy(process.host)
        if self._asked is not None or simulation.calm:
            return
        if self._random.random() < simulation.plan.member_chance:
            self._wish(table.members)

    def _is_lost(self, host: NodeProcess, members: list[Host]) -> bool:
        """Whether the groups have let a host go, and it knows where none of these members is: nobody but its
        operator tells it of its removal."""
        known = {i: peer.host for i, peer in host.node.roster.reachable().items()}
        listens_at = self._simulation.listens_at
        groups = self._simulation.checker.configurations.now()
        return not any(host.host in group.members() for group in groups) and not any(
            known.get(member.member_id) == listens_at(member.member_id) for member in members)

    def _wish(self, members: list[Host]) -> None:
        r, simulation = self._random, self._simulation
        voters = [host for host in members if not host.learner]
        learners = [host for host in members if host.learner]
        kinds = []
        if len(members) < MOST_HOSTS:
            kinds += [MEMBER_ADD] * (1 + 2 * (len(members) < simulation.plan.hosts))
        if len(voters) > 1 or learners:
            kinds += [MEMBER_REMOVE] * (1 + (len(members) > simulation.plan.hosts))
        if learners:
            kinds += [MEMBER_PROMOTE] * 2
        if simulation.plan.updates and kinds:
            kinds += [MEMBER_UPDATE] * 2
        if not kinds:
            return
        kind = r.choice(kinds)
        if kind == MEMBER_ADD:
            free = [f"http://h{host}:1000" for host in simulation.destroyed if host <= simulation.plan.hosts]
            simulation.urls += 1
            new = f"http://n{simulation.urls}:1000"
            url = r.choice([new, new, *free])
            self._ask(kind, 0, pb.MemberAddRequest(peerURLs=[url], isLearner=r.random() < 0.2))
            return
        host = r.choice(learners if kind == MEMBER_PROMOTE else members)
        if kind == MEMBER_UPDATE:
            simulation.urls += 1
            url = f"http://n{simulation.urls}:1000"
            self._ask(kind, host.member_id, pb.MemberUpdateRequest(ID=host.member_id, peerURLs=[url]))
            return
        self._ask(kind, host.member_id, _REQUESTS[kind](ID=host.member_id))

    def _ask(self, kind: int, member_id: int, request: Any) -> None:
        simulation = self._simulation
        fronts = [f for _, f in sorted(simulation.fronts.items()) if f.alive and not f.paused]
        if not fronts:
            return
        front = self._random.choice(fronts)
        lax = MEMBERS_LAX if self._random.random() < 0.3 else 0
        body = bytes((kind | lax,)) + request.SerializeToString()
        wish = self._asked = kind, member_id
        who = _ROOT if self._random.random() < 0.8 else _NOT_ROOT
        asked_at = simulation.now

        def answered(waiting: Waiting, status: int, body: bytes) -> None:
            if self._asked is wish:
                self._asked = None
            if status == 0:
                if who is not _ROOT:
                    self._granted.append((asked_at, simulation.now))
                self._told(kind, member_id, body)

        def ask() -> None:
            call = Call(lambda data: None, lambda status, message: None)
            call.principal = Shown(front.router.principals, "", who)
            front.router.write(call, Method.MEMBERS, body, 0, MethodStats(), answered)

        def give_up() -> None:
            if self._asked is wish:
                self._asked = None

        front.happens(None, ask)
        simulation.at(2.0, None, give_up)

    def check(self) -> None:
        """P1: who is not root changes members only while there are no users."""
        permissions: Any = self._simulation.clients.permissions  # type: ignore[attr-defined]
        for asked_at, answered_at in self._granted:
            states = permissions.within(asked_at, answered_at)
            if all(state.says(_NOT_ROOT, ("root", b"", b"")) for state in states):
                raise Violation("P1 only root changes the members", f"asked at {asked_at}: {states}")

    def _told(self, kind: int, member_id: int, body: bytes) -> None:
        """A wish was granted."""
        simulation = self._simulation
        self.done += 1
        name = {MEMBER_ADD: "added", MEMBER_REMOVE: "removed", MEMBER_PROMOTE: "promoted",
                MEMBER_UPDATE: "updated"}[kind]
        simulation.did[name] = simulation.did.get(name, 0) + 1
        if kind == MEMBER_PROMOTE:
            for shard, history in simulation.checker.configurations.history.items():
                if not any(member_id in configuration.voters for configuration in history):
                    raise Violation(VOTES, f"{member_id:x} never did in group {shard}")
        if kind != MEMBER_REMOVE:
            return
        listed = {member.ID for member in pb.MemberRemoveResponse.FromString(body[HEAD.size :]).members}
        if member_id in listed:
            raise Violation(LEFT, f"{member_id:x} is among {listed}")
        simulation.at(0.0, None, lambda: simulation.destroy(member_id))

    def standing(self) -> str:
        """What every host has of the members."""
        return "; ".join(
            f"{process.name} {process.node.raft.role.name} {process.node.raft.term}: "
            f"{[(f'{h.member_id:x}', h.learner, h.peer_urls) for h in process.node.roster.table.members]}, "
            f"{process.node.raft.configuration}"
            for _, process in sorted(self._simulation.nodes.items())
        )

    @property
    def at_rest(self) -> bool:
        """Whether every group is what the table says, each host where it says, and nobody is left who was
        removed."""
        simulation = self._simulation
        tables = simulation._tables()
        members = tables[0].members
        voters = frozenset(host.member_id for host in members if not host.learner)
        wanted = Configuration(voters, frozenset(host.member_id for host in members if host.learner))
        known = [(host.member_id, host.learner, host.peer_urls) for host in members]
        return (
            all([(h.member_id, h.learner, h.peer_urls) for h in t.members] == known for t in tables)
            and {host.member_id for host in members} == set(simulation.hosts)
            and not any(map(simulation.is_elsewhere, members))
            and all(c == wanted for c in simulation.checker.configurations.now())
        )
