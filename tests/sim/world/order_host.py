"""Real nodes and real fronts on simulated machines.

Everything of ``node`` and ``proxy`` runs here as it is, on ``order_machine.SimulatedMachine``.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from cluster.faults import faults
from cluster.grain import GRAIN, Grain
from cluster.members.origin import NEW
from cluster.raft import LogContradiction
from cluster.settings import Common, FrontSettings, NodeSettings, Peer
from cluster.wire.messages import Method
from node.links.siblings import NodeLink, NodeLinks
from node.replica.moving.moved import MovedKeys
from node.replica.roles.role import Kinds
from node.replica.server import Node
from node.replica.shards.order_role import OrderRole
from node.replica.shards.shard_role import ShardRole
from node.storage import StorageError
from proxy.routing.links import Connector
from proxy.routing.router import SWEEP_S
from proxy.routing.router import Router as FrontRouter
from proxy.services.table import register_all
from proxy.shared.context import Context
from tests.sim.births.order_births import FOLDER
from tests.sim.checks.order_variants import watched_classes
from tests.sim.checks.order_watching import FRAGMENT_BYTES
from tests.sim.clients.order_leases import watched_lessor
from tests.sim.clients.order_streams import PROGRESS_S
from tests.sim.moves.order_moving import SimulatedMovedKeys, hurried_mover
from tests.sim.world.order_machine import SimulatedMachine
from tests.sim.world.order_world import DiskBroke, PowerCut, Process

if TYPE_CHECKING:
    from tests.sim.world.order_sim import Simulation

HEARTBEAT_MS = 50
ELECTION_MS = 400
_REPEATED = frozenset((Method.PREPARE, Method.RELEASE, Method.QUERY, Method.REPORT, Method.SHOWN))


class NodeProcess(Process):
    """One node of one host."""

    def __init__(self, simulation: Simulation, host: int, shard: int) -> None:
        super().__init__(simulation, host, f"node {host}.{shard}")
        self.shard = shard
        self.where = host, shard
        self.looked: tuple[object, ...] = ()  # what the checker saw after the last step
        self.served: object = None  # a leader whose right to serve it has looked at
        self._checker = simulation.checker
        self.log = simulation.logs[host, shard]
        self.disk = simulation.states[host, shard]
        self.emptied = host in simulation.kept  # it stands on disks that are not those it voted with
        simulation.current = self
        settings = simulation.node_settings(host, shard)
        machine: Any = SimulatedMachine(simulation, self)
        self.node: Node = simulation.make_node(settings, machine, self)
        self._ended: Any = self.node.fatal
        # clients are few here: now and then entries leave while others are under way, as they do under load
        self.node.pace.full_requests = self.random.choice((1, 2, 256))
        self.node.large.large_bytes = simulation.plan.large_bytes
        role = self.node.role
        if isinstance(role, OrderRole):
            role.company.policy.busy = 1  # a record waits for others as it does under load
            role.company.fewest = 2  # or has enough, where CPUs are to spare
        elif isinstance(role, ShardRole):
            role.returning.policy.fewest = 1  # and an entry for clients
        self.node.roster.ends = False  # a host that was removed comes back under its identity here
        self.node.start()

    def happens(self, source: object, event: Callable[[], object]) -> None:
        """A node that finds that it is not who it was ends, and is not started again
        (``tools.muster.processes.node``). One whose disk fails ends too."""
        try:
            if self.paused:
                self._inbox.append((source, event))
            elif self.alive:
                self.world.current = self
                event()
                self._checker.stepped(self)
        except PowerCut:
            self.world.died(self)
        except (StorageError, DiskBroke):
            if not self.log.failing:
                raise
            self.world.disk_failed(self)
        except LogContradiction:
            if not self.emptied:
                raise
            self.world.refused(self)
        else:
            if self._ended.finished and self.alive:
                (self.world.disk_failed if self.log.failing else self.world.refused)(self)


class FrontProcess(Process):
    """One front of one host, without HTTP: clients call its handlers."""

    def __init__(self, simulation: Simulation, host: int) -> None:
        super().__init__(simulation, host, f"front {host}")
        simulation.current = self
        self.handlers: dict[str, Any] = {}
        self.shown = 0  # the highest revision that an answer through it had
        self.told = 0  # the same, with what its watches were sent
        common = simulation.common(host)
        sessions = itertools.count((simulation.next_life("sessions") << 32) + 1)
        machine: Any = SimulatedMachine(simulation, self)
        loop: Any = self
        connector = Connector(machine, common, lambda: next(sessions))
        self.router = FrontRouter(loop, common, connector)
        connector.follow(self.router.members)
        if self.router.rounds is not None:
            self.router.rounds.busy = 1  # answers wait for each other as they do under load
        chance = self.random.choice((0, 3, 1 << 30))
        self.router.lone_after = chance if simulation.plan.lone_after is None else simulation.plan.lone_after
        self.context = Context(
            FrontSettings(
                common=common, index=0, listen=(), watch_progress_notify_interval_ms=int(PROGRESS_S * 1000)
            ),
            self.router,
        )
        self.context.hub.fragment_bytes = FRAGMENT_BYTES
        self.context.hub.history.slice_events = simulation.plan.slice_events
        self.context.hub.random = self.random.random
        register_all(self, self.context)
        self._sweep()

    # -- a registry

    def unary(self, path: str, handler: Any, counted: str = "unary") -> None:
        if path.startswith("/etcdserverpb."):
            self.handlers[path.rpartition("/")[2]] = handler

    stream = unary

    def http(self, path: str, handler: Any) -> None:
        raise AssertionError("no HTTP here")

    # -- a process

    def _sweep(self) -> None:
        self.call_later(SWEEP_S, self._sweep)
        self.router.sweep()
        self.context.tick(self.time())


def watched_kinds(simulation: Simulation) -> Kinds:
    """Parts of nodes that tell the checker what they are about to do, and links that repeat themselves."""
    coordinator, confirmations = watched_classes(simulation)
    links = type("RepeatingLinks", (NodeLinks,), {"kind": RepeatingLink})
    mover = hurried_mover(simulation.plan.patience_ms)
    moved: Any = MovedKeys if simulation.plan.real else SimulatedMovedKeys
    return Kinds(watched_lessor(simulation), confirmations, links, coordinator, mover, moved)


class RepeatingLink(NodeLink):
    """What may be repeated between nodes is repeated, and late (cluster.order.prepare, H5)."""

    repeats = 0.0

    def request(
        self,
        method: int,
        body: bytes,
        answered: Callable[[int, bytes], object] | None = None,
        *,
        stays: bool = False,
    ) -> int:
        process: Any = self._links.loop
        if method in _REPEATED and process.random.random() < self.repeats:
            process.call_later(process.random.choice((0.01, 0.1, 1.0)) * process.random.random(),
                               lambda: self.alive and NodeLink.request(self, method, body, answered))
        return super().request(method, body, answered, stays=stays)


def _raise(where: str, error: BaseException) -> None:
    """What ends a request only, elsewhere, is a fault of the program here."""
    raise AssertionError(f"a fault, {where}: {error!r}") from error


@contextlib.contextmanager
def fine_grained(simulation: Simulation) -> Iterator[None]:
    """As long as this lasts little is much, so that long work is seldom done in one go, and a fault ends the
    run."""
    plan = simulation.plan
    grain: dict[str, float] = {
        "many_keys": plan.many,
        "delete_bytes": plan.delete_bytes,
        "turn_deletes": plan.turn_deletes,
        "late_rows": plan.many,
        "late_bytes": 20 * plan.many,
        "turn_rows": plan.turn_rows,
        "piece_rows": min(plan.many, 2),
        "lease_keys": plan.lease_keys,
        "lease_end_bytes": plan.lease_end_bytes,
        "lease_step": min(plan.lease_keys + 1, Grain().lease_step),
        "lease_changes": min(plan.lease_keys + 2, Grain().lease_changes),
        "unused_link_s": 0.5,
    }
    if plan.real:
        grain |= {
            "apply_slice_s": 0.00015,  # one step
            "delete_slice_rows": 2,
            "compaction_check": 1,
            "compaction_take_check": 1,
            "compaction_chunk": 4,
            "run_entries": 4,
            "apply_slice_bytes": 300,
            "snapshot_chunk_bytes": 4096,
            "snapshot_window_bytes": 16384,
        }
    heard, faults.heard = faults.heard, _raise
    try:
        with GRAIN.finer(**grain), simulation.checker.parts.watched():
            yield
    except Exception as error:
        error.add_note(f"seed {simulation.seed}")
        raise
    finally:
        faults.heard = heard


def name_of(host: int) -> str:
    """Where a host of the beginning listens."""
    return f"h{host}"


def common_settings(host: int, hosts: int, shards: int) -> Common:
    peers = tuple(Peer(i, f"h{i}", f"h{i}", 1000, (f"http://h{i}:1000",)) for i in range(1, hosts + 1))
    return Common(
        cluster_id=7,
        member_id=host,
        name=f"h{host}",
        shard_count=shards,
        placement_depth=1,
        peers=peers,
        run_dir=f"/run/{host}",
        origin=NEW,
        heartbeat_interval_ms=HEARTBEAT_MS,
        election_timeout_ms=ELECTION_MS,
    )


def node_settings(
    common: Common, shard: int, snapshot_count: int, incarnation: int, checkpoint_ms: int
) -> NodeSettings:
    return NodeSettings(
        common,
        shard,
        f"/{common.member_id}/{FOLDER}{shard}",
        name_of(common.member_id),
        1000 + shard,
        incarnation=incarnation,
        initial_election_tick_advance=False,  # time without a leader is what some histories need
        client_urls=(f"http://h{common.member_id}:2379",),
        peer_urls=(f"http://h{common.member_id}:1000",),
        snapshot_count=snapshot_count,
        snapshot_catchup_entries=snapshot_count // 2,
        lease_checkpoint_interval_ms=checkpoint_ms,
    )
