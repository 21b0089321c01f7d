"""The simulated machine (``cluster.machine.Machine``): clocks, randomness, links, threads and disks out of
one seed.

Nodes and fronts run on it as they are. What else a simulation wants of them it asks for where they have a
place for it: finer slices of long work (``cluster.grain``), parts that tell the checker what they do
(``order_host.Kinds``).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from cluster.endpoints import older_endpoint
from cluster.histogram import Histogram
from cluster.machine import Receive
from node.storage import Position
from tests.sim.disks import order_disk
from tests.sim.world.order_tcp import sockets
from tests.sim.world.order_world import Dealer, Process, Router

if TYPE_CHECKING:
    from tests.sim.world.order_sim import Simulation


class Said:
    """What a process says of itself: its host's supervisor hears of shards."""

    def __init__(self, simulation: Simulation, process: Process) -> None:
        self._simulation = simulation
        self._process = process

    def say(self, event: str, **facts: Any) -> None:
        self._simulation.supervisors.say(self._process, event, facts)


class Idle(Executor):
    """Threads are the loop's business here (``Process.run_in_executor``)."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """The process ends."""


class Numbers:
    """Random numbers of a process. Those that only make names have a generator of their own."""

    def __init__(self, process: Process) -> None:
        self.random = process.random.random
        self.getrandbits = Random(f"{process.world.seed}/{process.name}/names").getrandbits


class SimulatedMachine:
    """One process's. Its loop is the process itself."""

    def __init__(self, simulation: Simulation, process: Process) -> None:
        self.loop: Any = process
        self.status = Said(simulation, process)
        self.random = Numbers(process)
        self.turns = SimpleNamespace(late=Histogram((1.0,)), longest_s=0.0, long=0)
        self.traffic = SimpleNamespace(sent=0, received=0)
        self.monotonic = process.time
        self.wall_time = process.wall_time
        self.perf_counter = simulation.perf_counter
        self._simulation = simulation
        self._process = process
        self.names: Any = None  # no client shows a certificate
        self._make_dealer, self._make_router = sockets(simulation.plan.tcp)

    def now_ms(self) -> int:
        process = self._process
        return int((process.world.now * process.clock_rate + process.clock_offset) * 1000)

    def random_bytes(self, size: int) -> bytes:
        return self._process.random.getrandbits(8 * size).to_bytes(size, "big")

    # -- links

    def listen(
        self,
        endpoint: str,
        receive: Receive,
        *,
        keyed: bool,
        hwm: int,
        silence_s: float = 0.0,
        strangers: bool = False,
        gone: Callable[[bytes], None] | None = None,
    ) -> Router:
        socket = self._make_router(self._process, endpoint)
        socket.receive = receive
        return socket

    def dial(
        self,
        endpoint: str,
        identity: bytes,
        receive: Receive,
        *,
        shard: int | None,
        hwm: int,
        silence_s: float = 0.0,
        opened: Callable[[], None] | None = None,
        lost: Callable[[str], None] | None = None,
    ) -> Dealer:
        """A link that is made again does not say so, unless the plan ``greets``: a hello is asked for, as of
        a partner that does not say it by itself."""
        # nodes listen by themselves here, each at a port of its own
        at = endpoint if shard is None else older_endpoint(endpoint, shard)
        socket = self._make_dealer(self._process, at, identity, reconnects=lost is None,
                                   silence_s=silence_s, buffer=self._simulation.plan.buffer)
        socket.receive = receive
        if opened is not None and (lost is not None or self._simulation.plan.greets):
            socket.connected = opened
        if lost is not None:
            socket.broken = lambda: lost("connection lost")
        return socket

    # -- threads and disks

    def thread(self, name: str) -> Executor:
        return Idle()

    def syncs(self, sync: Callable[[], None], done: Callable[[int], None]) -> order_disk.Syncer:
        return order_disk.Syncer(self._process, sync, done)

    def poller(self) -> None:
        """There is nothing to look at."""

    def open_log(self, path: str, **options: Any) -> Any:
        return self._simulation.open_log(path, **options)

    def open_state(self, path: str, **sizes: int) -> Any:
        return self._simulation.open_state(path, **sizes)

    def begin_state(self, path: str, genesis: Path) -> None:
        self._simulation.supervisors.begin_state(path)

    def genesis(
        self, store: Any, path: Path, position: Position, fold: tuple[bytes, bytes]
    ) -> Callable[[], None]:
        return self._simulation.supervisors.write(store, str(path), position, fold)

    def has_begun(self, folder: Path) -> bool:
        return self._simulation.supervisors.has_begun(str(folder))

    def open_kept(self, path: str) -> Any:
        return self._simulation.open_kept(path)

    def snapshot_of(self, store: Any, folder: Path) -> Any:
        return self._simulation.sources.create(store, str(folder))

    def snapshot_into(self, folder: Path, spare_bytes: int) -> Any:
        return self._simulation.make_sink(str(folder))

    def remove_left_snapshots(self, folder: Path) -> None:
        self._simulation.sources.remove_left(str(folder))

    # -- the process

    def client_descriptors(self) -> int:
        return 1 << 30

    def resident_bytes(self) -> int:
        return 0

    def cpu_s(self) -> float:
        return 0.0

    def cpus_scarce(self) -> bool:
        return not self._simulation.plan.spare
