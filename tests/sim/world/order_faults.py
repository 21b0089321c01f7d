"""What else goes wrong: disks that fail or are full, power that is gone everywhere, clocks that drift and
jump, long pauses, and processes that die at a point where it hurts. ``order_plan.hard_plan_of`` gives a plan
with all of it by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.sim.disks.order_store import StateDisk
from tests.sim.world.order_host import NodeProcess
from tests.sim.world.order_world import PowerCut, Violation

if TYPE_CHECKING:
    from tests.sim.world.order_sim import Simulation

SNAPSHOTS_LEFT = "H8 a snapshot that nobody installs is removed"
_MOST_RECEIVED = 3  # snapshots on a node's disk: one that comes, and those that are being finished beside it
_LONG_PAUSES_S = (2.0, 5.0, 10.0)
_REMOVED_S = 1.0 + max(_LONG_PAUSES_S)  # by then what is to be removed is, by whoever was paused


class HardFaults:
    """The faults of a simulation that ``order_sim`` does not know itself. Each is a method named as the
    fault."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def power_cut(self) -> None:
        """Of all hosts at once: what is unsynced is lost everywhere."""
        simulation = self._simulation
        self._go_dark(simulation.hosts)

    def blackout(self) -> None:
        """The same for a moment, after which most nodes come back from their last flush."""
        simulation, r = self._simulation, self._simulation.random
        for _, disk in sorted(simulation.states.items()):
            if isinstance(disk, StateDisk) and r.random() < 0.8:
                disk.applied.clear()
        self.power_cut()
        simulation.at(r.choice((0.02, 0.1, 0.3)), None, simulation._restart)

    def dark_host(self) -> None:
        """The power of one host is cut: it tells nobody."""
        self._go_dark((self._simulation.random.choice(self._simulation.hosts),))

    def _go_dark(self, hosts: tuple[int, ...]) -> None:
        simulation = self._simulation
        simulation.dark |= set(hosts)
        for host in hosts:
            simulation._kill_host(host, front=True, unsynced=False)

    def full_disk(self) -> None:
        """Nothing finds room on a host any more."""
        simulation = self._simulation
        host = simulation.random.choice(simulation.hosts)
        for node in self._nodes_of(host):
            self._fails(node)

    def fail_disk(self) -> None:
        """The device under one node says no."""
        simulation = self._simulation
        self._fails(simulation.random.choice([n for _, n in sorted(simulation.nodes.items())]))

    def _nodes_of(self, host: int) -> list[NodeProcess]:
        return [node for (at, _), node in sorted(self._simulation.nodes.items()) if at == host]

    def _fails(self, node: NodeProcess) -> None:
        if node.alive:
            node.log.failing = node.disk.failing = True

    def long_pause(self) -> None:
        """Of any process, for up to ten seconds."""
        simulation, r = self._simulation, self._simulation.random
        nodes = [n for _, n in sorted(simulation.nodes.items())]
        simulation._pause(
            r.choice(r.choice((nodes, simulation._leaders() or nodes))), r.choice(_LONG_PAUSES_S)
        )

    def jump_clock(self) -> None:
        """A host's wall clock is set, by up to an hour."""
        simulation, r = self._simulation, self._simulation.random
        host = r.choice(simulation.hosts)
        simulation.wall_jumps[host] = simulation.wall_jumps.get(host, 0.0) + r.choice((-1, 1)) * r.choice(
            (0.5, 30.0, 3600.0)
        )

    # -- what follows from them

    def perhaps_dies(self, where: str) -> None:
        """A process may die at this point of its work."""
        simulation = self._simulation
        process = simulation.current
        chance = simulation.plan.dies * (0.02 if where == "in an apply" else 1.0)
        if not chance or simulation.calm or not isinstance(process, NodeProcess) or not process.alive:
            return
        if (
            simulation.nodes.get((process.host, process.shard)) is process
            and simulation.random.random() < chance
        ):
            simulation.did[f"died {where}"] = simulation.did.get(f"died {where}", 0) + 1
            raise PowerCut(where)

    def disk_failed(self, process: NodeProcess) -> None:
        """A node ends because its disk fails; for want of space its host does."""
        simulation = self._simulation
        simulation.did["ended by a disk"] = simulation.did.get("ended by a disk", 0) + 1
        if all(node.log.failing or not node.alive for node in self._nodes_of(process.host)):
            simulation._kill_host(process.host, front=True)
        else:
            simulation.kill(process)

    def snapshots_left(self) -> str:
        """What is left of snapshots that came; nothing when all is at rest."""
        for (host, shard), disk in sorted(self._simulation.states.items()):
            if disk.sinks:
                return f"{SNAPSHOTS_LEFT}: node {host}.{shard} has {len(disk.sinks)}"
        return ""

    def received(self, process_name: str, sinks: set[Any]) -> None:
        """A node begins to receive a snapshot, beside these others. Some of them may just be being
        removed."""
        if len(sinks) > _MOST_RECEIVED:
            early = set(sinks)

            def look() -> None:
                if len(left := early & sinks) > _MOST_RECEIVED:
                    raise Violation(SNAPSHOTS_LEFT, f"{process_name} has {len(left)}")

            self._simulation.at(_REMOVED_S, None, look)
