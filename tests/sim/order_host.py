"""Real nodes and real fronts on simulated machines.

Everything of ``node`` and ``proxy`` runs here as it is, but for what touches the machine: clocks, random numbers,
sockets, disks, threads, and HTTP. :func:`substituted` puts the simulator's in their places.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import order_disk
from order_checks import watched_classes
from order_leases import watched_lessor
from order_streams import PROGRESS_S
from order_tcp import sockets
from order_watching import FRAGMENT_BYTES
from order_world import Dealer, DiskBroke, PowerCut, Process, Router

import cluster.evaluate.transactions
import cluster.faults
import node.links.peers
import node.links.siblings
import node.replica.applying
import node.replica.order_node
import node.replica.server
import node.serving.lease_ids
import node.serving.lease_keys
import node.serving.reads
import node.storage.directory
import node.storage.keys
import node.storage.state.apply
import node.storage.state.compaction
import node.storage.state.deletes
import node.storage.state.hashing
import node.storage.state.reads
import node.storage.state.store
import node.upkeep.snapshots
import node.upkeep.upkeep
import proxy.watch.hub
from cluster.raft import LogContradiction
from cluster.settings import Common, FrontSettings, NodeSettings, Peer
from cluster.wire.messages import Method
from node.links.siblings import NodeLink
from node.main import make_node
from node.replica.order_node import OrderNode
from node.replica.server import Node
from node.replica.shard_node import ShardNode
from node.storage import StorageError
from proxy.routing.links import Connector, Link
from proxy.routing.router import SWEEP_S
from proxy.routing.router import Router as FrontRouter
from proxy.services.context import Context
from proxy.services.table import register_all
from tools.muster.machine.zmtp import Receive

if TYPE_CHECKING:
    from order_sim import Simulation

HEARTBEAT_MS = 50
ELECTION_MS = 400
_REPEATED = frozenset((Method.PREPARE, Method.RELEASE, Method.QUERY, Method.REPORT))


class NodeProcess(Process):
    """One node of one host."""

    def __init__(self, simulation: Simulation, host: int, shard: int) -> None:
        super().__init__(simulation, host, f"node {host}.{shard}")
        self.shard = shard
        self.log = simulation.logs[host, shard]
        self.disk = simulation.states[host, shard]
        self.emptied = host in simulation.kept  # it stands on disks that are not those it voted with
        simulation.starting = simulation.current = self
        self.node: Node = make_node(simulation.node_settings(host, shard), self)  # type: ignore[arg-type]
        # clients are few here: now and then entries leave while others are under way, as they do under load
        self.node.pace.full_requests = self.random.choice((1, 2, 256))
        if isinstance(self.node, OrderNode):
            self.node.company.busy = 1  # a record waits for others as it does under load
        elif isinstance(self.node, ShardNode):
            self.node.returning.fewest = 1  # and an entry for clients
        self.node.start()

    def happens(self, source: object, event: Callable[[], object]) -> None:
        """A node that finds that it is not who it was ends, and is not started again (``node.main``). One whose disk fails
        ends too."""
        try:
            super().happens(source, event)
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
            if self.alive and self.node.fatal.done():
                (self.world.disk_failed if self.log.failing else self.world.refused)(self)


class FrontProcess(Process):
    """One front of one host, without HTTP: clients call its handlers."""

    def __init__(self, simulation: Simulation, host: int) -> None:
        super().__init__(simulation, host, f"front {host}")
        simulation.starting = simulation.current = self
        self.handlers: dict[str, Any] = {}
        self.shown = 0  # the highest revision that an answer through it had
        self.told = 0  # the same, with what its watches were sent
        self.sessions = simulation.next_life("sessions") << 32
        common = simulation.common(host)
        self._connector: Any = SimpleNamespace(_common=common)
        self.router = FrontRouter(self, common, self._connect)
        if self.router.rounds is not None:
            self.router.rounds.busy = 1  # answers wait for each other as they do under load
        chance = self.random.choice((0, 3, 1 << 30))
        self.router.lone_after = chance if simulation.plan.lone_after is None else simulation.plan.lone_after
        self.context = Context(FrontSettings(
            common=common, index=0, listen=(), watch_progress_notify_interval_ms=int(PROGRESS_S * 1000)), self.router)
        self.context.hub.fragment_bytes = FRAGMENT_BYTES
        register_all(self, self.context)
        self._sweep()

    # -- a registry

    def unary(self, path: str, handler: Any) -> None:
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

    def _connect(self, receiver: Any, shard: int, member_id: int) -> Link:
        self.sessions += 1
        local = member_id == self.host
        link = Link(receiver, shard, member_id, self.sessions, b"" if local else b"F")
        link.seen_at = self.time()
        make_dealer, _ = sockets(self.world.plan.tcp)
        dealer = make_dealer(self, endpoint(self.host, member_id, shard), b"f%d" % self.sessions, reconnects=False,
                             silence_s=self._connector._common.silence_s, buffer=self.world.plan.buffer)
        dealer.connected = lambda: Connector._greet(self._connector, link)
        dealer.broken = lambda: link.close("connection lost")
        dealer.receive = lambda parts: link.frame(parts[-1], self.time())
        link.attach(SimpleNamespace(send=lambda frame: dealer.send([frame]), close=dealer.close))
        return link


def endpoint(own: int, host: int, shard: int) -> str:
    return f"ipc:///run/{host}/node-{shard}.sock" if own == host else f"tcp://h{host}:{1000 + shard}"


class RepeatingLink(NodeLink):
    """What may be repeated between nodes is repeated, and late (cluster.order.prepare, H5)."""

    repeats = 0.0

    def request(self, method: int, body: bytes, answered: Callable[[int, bytes], object] | None = None, *, stays: bool = False) -> int:
        process: Any = self._links.loop
        if method in _REPEATED and process.random.random() < self.repeats:
            process.call_later(process.random.choice((0.01, 0.1, 1.0)) * process.random.random(),
                               lambda: self.alive and NodeLink.request(self, method, body, answered))
        return super().request(method, body, answered, stays=stays)


class _Pool:
    def __init__(self, size: int, thread_name_prefix: str = "") -> None:
        """Threads are the loop's business here."""

    def shutdown(self, wait: bool = True) -> None:
        """The process ends."""


class _Context:
    """zmq.Context: knows its process."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def destroy(self, linger: int) -> None:
        """The process ends."""


def _raise(where: str, error: Exception) -> None:
    """What ends a request only, elsewhere, is a fault of the program here."""
    raise AssertionError(f"a fault, {where}: {error!r}") from error


@contextlib.contextmanager
def substituted(simulation: Simulation) -> Iterator[None]:
    """The machine is the simulator's as long as this lasts."""

    def here() -> Process:
        assert simulation.current is not None
        return simulation.current

    def dealer(loop: Process, context: _Context, address: str, identity: bytes, receive: Receive, *, keys: object,
               hwm: int, silence_s: float, opened: Callable[[], None] | None = None) -> Dealer:
        # ``opened`` is not called: a hello is asked for, as of a partner that does not say it by itself
        socket = make_dealer(context.process, address, identity, silence_s=silence_s, buffer=simulation.plan.buffer)
        socket.receive = receive
        return socket

    def router(loop: Process, context: _Context, address: str, receive: Receive, *, keys: object, hwm: int,
               silence_s: float = 0.0, strangers: bool = False, gone: Callable[[bytes], None] | None = None) -> Router:
        socket = make_router(context.process, address)
        socket.receive = receive
        return socket

    make_dealer, make_router = sockets(simulation.plan.tcp)
    coordinator, confirmations = watched_classes(simulation)
    system = SimpleNamespace(urandom=lambda size: here().random.getrandbits(8 * size).to_bytes(size, "big"))
    zmq = SimpleNamespace(Context=lambda io_threads: _Context(simulation.starting))
    clock = SimpleNamespace(monotonic=lambda: here().time(), time=lambda: here().wall_time(),
                            perf_counter=simulation.perf_counter,
                            perf_counter_ns=lambda: int(simulation.perf_counter() * 1e9))
    places: list[tuple[Any, str, Any]] = [
        (node.replica.server, "zmq", zmq),
        (node.replica.server, "random", SimpleNamespace(SystemRandom=lambda: simulation.starting.random)),
        (node.replica.server, "time", clock),
        (node.replica.server, "Confirmations", confirmations),
        (node.replica.server, "Lessor", watched_lessor(simulation)),
        (node.replica.order_node, "Coordinator", coordinator),
        (node.replica.server, "Syncer", order_disk.Syncer),
        (node.replica.server, "RaftLog", SimpleNamespace(open=simulation.open_log)),
        (node.replica.server, "StateStore", SimpleNamespace(open=simulation.open_state)),
        (node.replica.server, "open_router", router),
        (node.links.peers, "open_router", router),
        (node.links.peers, "open_dealer", dealer),
        (node.links.peers, "os", system),
        (node.links.siblings, "open_dealer", dealer),
        (node.links.siblings, "os", system),
        (node.links.siblings, "NodeLink", RepeatingLink),
        (node.links.siblings, "_UNUSED_S", 0.5),
        (node.serving.reads, "time", clock),
        (cluster.faults.faults, "met", _raise),
        (node.replica.applying, "time", clock),
        (cluster.evaluate.transactions, "MANY", simulation.plan.many),
        (cluster.evaluate.transactions, "LATE_ROWS", simulation.plan.many),
        (cluster.evaluate.transactions, "TURN_ROWS", simulation.plan.turn_rows),
        (node.serving.lease_keys, "MANY", simulation.plan.turn_rows),
        (node.upkeep.upkeep, "ThreadPoolExecutor", _Pool),
        (node.serving.lease_ids, "time", clock),
        (node.upkeep.snapshots, "SnapshotSource", simulation.sources),
        (node.upkeep.snapshots, "SnapshotSink", simulation.make_sink),
        (proxy.watch.hub, "random", SimpleNamespace(random=lambda: here().random.random())),
    ]
    if simulation.plan.real:
        places += _real_places(simulation, clock)
    before = [(place, name, getattr(place, name)) for place, name, _ in places]
    try:
        for place, name, value in places:
            setattr(place, name, value)
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)


def _real_places(simulation: Simulation, clock: SimpleNamespace) -> list[tuple[Any, str, Any]]:
    """Where the real store looks at a clock, and what makes small things be done in many steps."""
    write_current = node.storage.directory.write_current

    def switch(root: Any, name: str) -> None:
        simulation.perhaps_dies("before a state is switched in")
        write_current(root, name)
        simulation.perhaps_dies("when a state is switched in")

    storage = node.storage
    return [
        *((module, "time", clock) for module in (storage.compaction, storage.hashing, storage.reads)),
        (storage.state, "lower_compactions", lambda: 0),  # it looks for all threads: slow
        (storage.directory, "write_current", switch),
        (node.replica.applying, "SLICE_S", 0.00015),  # one step
        (storage.deletes, "SLICE_ROWS", 2),
        (storage.compaction, "_TIME_CHECK", 1),
        (storage.compaction, "_TAKE_CHECK", 1),
        (storage.compaction, "_CHUNK", 4),
        (storage.keys, "RUN_ENTRIES", 4),
        (storage.apply, "SLICE_BYTES", 300),
        (node.upkeep.snapshots, "_CHUNK_BYTES", 4096),
        (node.upkeep.snapshots, "_WINDOW_BYTES", 16384),
    ]


def common_settings(host: int, hosts: int, shards: int) -> Common:
    peers = tuple(Peer(i, f"h{i}", f"h{i}", 1000, (f"http://h{i}:1000",)) for i in range(1, hosts + 1))
    return Common(cluster_id=7, member_id=host, name=f"h{host}", shard_count=shards, placement_depth=1, peers=peers,
                  run_dir=f"/run/{host}", heartbeat_interval_ms=HEARTBEAT_MS, election_timeout_ms=ELECTION_MS)


def node_settings(common: Common, shard: int, snapshot_count: int, incarnation: int) -> NodeSettings:
    return NodeSettings(
        common, shard, f"/{common.member_id}/{shard}", f"h{common.member_id}", 1000 + shard, incarnation=incarnation,
        initial_election_tick_advance=False,  # time without a leader is what some histories need
        client_urls=(f"http://h{common.member_id}:2379",), peer_urls=(f"http://h{common.member_id}:1000",),
        snapshot_count=snapshot_count, snapshot_catchup_entries=snapshot_count // 2)
