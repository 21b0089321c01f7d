"""The whole store in one Python process: S shards on three hosts, fronts, clients, and everything that goes
wrong.

Nodes and fronts are the real ones (``order_host``); clock, network and disks are simulated (``order_world``,
``order_disk``, ``order_store``; with ``Plan.real`` the state store is the real one, ``order_real``). From one
seed: frames delayed and late, connections broken, hosts cut off both ways or one way, links dead, nodes
killed one by one or a host at a time (what was not synced or flushed is lost), paused as zombies, slow disks,
leadership transferred, logs truncated so that replicas install snapshots, messages between nodes repeated
late.

A run is made of a plan (``order_plan``). ``Simulation(seed).run()`` raises :class:`order_world.Violation`, or
returns what it did. When the faults are over everything must come to rest (``order_rest``): every request
answered, every lock gone, all replicas equal (``order_history`` checks what was answered against what was
committed).
"""

from __future__ import annotations

import itertools
import shutil
import weakref
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from cluster.faults import faults
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from cluster.raft import Configuration, Role
from cluster.settings import Common, NodeSettings, genesis_file
from node.replica.roles.made import make_node
from node.replica.server import Node
from tests.sim.births.order_births import FOLDER, Births, Supervisors, place
from tests.sim.checks.order_checks import Checker
from tests.sim.checks.order_history import check_history
from tests.sim.checks.order_watching import TOLD_S
from tests.sim.clients.order_clients import Clients
from tests.sim.clients.order_users import UserClients
from tests.sim.disks.order_disk import KeptDisk, LogDisk
from tests.sim.disks.order_real import RealDisk, RealSink, RealSources, check_stores, make_root
from tests.sim.disks.order_store import Sink, Source, StateDisk, Store
from tests.sim.moves.order_moving import Moves
from tests.sim.world import order_rest
from tests.sim.world.order_faults import SNAPSHOTS_LEFT, HardFaults
from tests.sim.world.order_host import (
    ELECTION_MS,
    FrontProcess,
    NodeProcess,
    RepeatingLink,
    common_settings,
    fine_grained,
    node_settings,
    watched_kinds,
)
from tests.sim.world.order_members import Growing, Members
from tests.sim.world.order_plan import MIX, Plan, plan_of
from tests.sim.world.order_world import Process, Violation, World

ENDLESS = "I23 every wait has an end"  # the rule that something breaks which is left when there is peace

AnyState = StateDisk | RealDisk


@dataclass(frozen=True)
class Kept:
    """A host's disks that it has lost."""

    incarnation: int
    disks: dict[int, tuple[LogDisk, AnyState]]  # by shard
    born: dict[int, tuple[int, ...]]  # its notes of shards that were born


class Simulation(World):
    """One run."""

    def __init__(self, seed: int, plan: Plan | None = None) -> None:
        super().__init__(seed)
        self.plan = plan if plan is not None else plan_of(seed)
        self.hosts = tuple(range(1, self.plan.hosts + 1))
        self.hard = HardFaults(self)
        self.perhaps_dies, self.disk_failed = self.hard.perhaps_dies, self.hard.disk_failed
        self._disks, self._folders = itertools.count(1), itertools.count(1)
        self.sources: Any = RealSources(
            lambda path: self.states[place(path)]  # type: ignore[arg-type,return-value]
        ) if self.plan.real else Source
        if self.plan.real:
            self._root = make_root()
            self._clean = weakref.finalize(self, shutil.rmtree, self._root, ignore_errors=True)
        shards = self.plan.shards
        self.shards = range(shards)
        self.placement = Placement(shards, 1)
        configuration = Configuration(frozenset(self.hosts))
        self.configuration = configuration
        self.logs: dict[tuple[int, int], LogDisk] = {}
        self.states: dict[tuple[int, int], AnyState] = {}
        self.incarnations: dict[int, int] = {}  # of the data directory that a host has now
        self.kept: dict[int, Kept] = {}  # what a host had before its disks were emptied
        self.ended: set[int] = set()  # hosts that were refused, and do not start again
        self.keys = self._choose_keys()
        self.late = self.plan.late
        self.calm = False
        self.calm_at = 0.0  # when the faults were over
        self.nodes: dict[tuple[int, int], NodeProcess] = {}
        self.fronts: dict[int, FrontProcess] = {}
        self.kinds = watched_kinds(self)
        self.supervisors = Supervisors(self)
        self.checker = Checker(self)
        self.did: dict[str, int] = {}
        self._perf = itertools.count()
        self._copies = Random(f"{seed}/messages of copies")
        self._power = Random(f"{seed}/power")
        for host in self.hosts:
            self._new_disks(host)
        self.clients: Clients

    def _new_disks(self, host: int) -> None:
        """An empty data directory: another incarnation (H10)."""
        self.incarnations[host] = self.random.getrandbits(63) | 1
        for shard in self.shards:
            self.new_disk(host, shard)

    def new_disk(self, host: int, shard: int) -> None:
        """An empty directory of a node."""
        log = self.logs[host, shard] = LogDisk(self.configuration)
        disk = self.states[host, shard] = self._new_state(host, shard)
        disk.watched = lambda content: self.checker.applied((host, shard), content)
        log.perhaps_dies = self.perhaps_dies

    def shards_of(self, host: int) -> list[int]:
        """Of which its host has directories."""
        first = [shard for shard in self.shards if shard not in self.supervisors.retired[host]]
        return [*first, *sorted(self.supervisors.noted[host])]

    def _new_state(self, host: int, shard: int) -> AnyState:
        if not self.plan.real:
            return StateDisk(shard)
        number = next(self._disks)
        disk = RealDisk(self._root / f"{host}-{shard}-{number:04d}", Random(f"{self.seed}/disk {number}"))
        disk.flushes_itself, disk.perhaps_dies = 0.02, self.perhaps_dies
        return disk

    def new_folder(self, name: str) -> Path:
        """One of the run's own, beside the states that lie in RocksDB."""
        return self._root / f"{name}-{next(self._folders):04d}"

    def _choose_keys(self) -> list[bytes]:
        """A few keys in each shard, two directories of two keys and one that stands alone."""
        found: dict[int, list[bytes]] = {s: [] for s in self.shards}
        for name in itertools.chain(b"abcdefghijklmnopqrstuvwxyz"):
            prefix = b"/" + bytes((name,)) + b"/"
            keys = found[self.placement.shard_of(prefix)]
            if len(keys) < 4:
                keys += [prefix + b"1", prefix + b"2"]
            single = b"k" + bytes((name,))
            keys = found[self.placement.shard_of(single)]
            if not any(k.startswith(b"k") for k in keys):
                keys.append(single)
        return sorted(k for keys in found.values() for k in keys)

    # -- the machines

    def common(self, host: int) -> Common:
        return common_settings(host, len(self.hosts), self.plan.shards)

    def node_settings(self, host: int, shard: int) -> NodeSettings:
        settings = node_settings(self.common(host), shard, self.plan.snapshot_count, self.incarnations[host],
                                 self.plan.checkpoint_ms)
        settings = replace(settings, birth_timeout_ms=self.plan.birth_timeout_ms)
        if (voters := self.supervisors.noted[host].get(shard)) is None:
            return settings
        return replace(settings, born=voters, genesis=genesis_file(f"/{host}/{FOLDER}0", shard))

    def open_log(
        self, path: str, *, initial: Configuration, no_fsync: bool, write_buffer_bytes: int
    ) -> LogDisk:
        log = self.logs[place(path)]
        log.begin(initial)
        return log

    def open_kept(self, path: str) -> KeptDisk:
        return self.logs[place(path)].kept

    def open_state(self, path: str, **sizes: int) -> Any:
        disk = self.states[place(path)]
        if isinstance(disk, RealDisk):
            return disk.open(lambda: int(self.perf_counter() * 1e9), sizes["shard"])
        return Store(disk)

    def make_sink(self, path: str) -> Any:
        disk = self.states[place(path)]
        low, high = self.plan.finish_s
        takes_s = self.random.uniform(low, high) if high else 0.0
        sink = RealSink(disk, takes_s) if isinstance(disk, RealDisk) else Sink(disk, takes_s)
        self.hard.received(path, disk.sinks)
        return sink

    def clock_rate(self, host: int) -> float:
        drift = self.plan.drift
        return Random(f"{self.seed}/clock {host}").uniform(1 - drift, 1 + drift) if drift else 1.0

    def perf_counter(self) -> float:
        """A slice of long work ends after a few steps."""
        return next(self._perf) * 0.0001

    def make_node(self, settings: NodeSettings, machine: Any, process: NodeProcess) -> Node:
        return make_node(settings, machine, self.kinds)

    def start_node(self, host: int, shard: int) -> None:
        self.logs[host, shard].failing = self.states[host, shard].failing = False
        try:
            process = NodeProcess(self, host, shard)
        except Violation:
            raise
        except Exception as error:
            self.checker.failed(f"node {host}.{shard} as it starts", error)
            raise
        process.busy_s = self.plan.busy_s
        self.nodes[host, shard] = process
        self.supervisors.started(host, shard)
        self.checker.started(process)

    def remove_node(self, host: int, shard: int) -> None:
        """Its shard is dropped: its directory goes with it."""
        if (process := self.nodes.pop((host, shard), None)) is not None:
            self.kill(process)
        del self.logs[host, shard], self.states[host, shard]

    def start_front(self, host: int) -> None:
        self.fronts[host] = FrontProcess(self, host)
        self.fronts[host].busy_s = self.plan.busy_s

    def kill(self, process: NodeProcess, *, unsynced: bool = True) -> None:
        """``unsynced``: some of it may have reached the disk all the same."""
        if process.alive:
            self.checker.dies(process)
            process.kill()
            process.log.crash(self.random.randint(0, process.log.unsynced) if unsynced else 0)
            process.disk.crash(self.random)
            killed = process.shard or self._power.random() < 0.6  # else the host lost its power
            process.log.had_applied = 0 if process.shard or not killed else process.node.applied_index
            if not killed:
                process.log.lose_notes(self._power)

    died = kill

    # -- what goes wrong

    def hang_disk(self, host: int, for_s: float) -> None:
        """No sync of a host's nodes ends for a while."""
        self.did["hung"] = self.did.get("hung", 0) + 1
        for (of, _), process in sorted(self.nodes.items()):
            if of == host:
                process.node.syncer.hangs_until = self.now + for_s  # type: ignore[attr-defined]

    def _leaders(self, shard: int | None = None) -> list[NodeProcess]:
        return [n for (_, s), n in sorted(self.nodes.items()) if n.alive and not n.paused
                and (shard is None or s == shard) and n.node.raft.role is Role.LEADER]

    def nemesis(self) -> None:
        """One fault, or the end of some."""
        if self.calm:
            return
        self.at(self.random.expovariate(1 / self.plan.fault_every_s), None, self.nemesis)
        self.fault(self.random.choice(self.plan.faults))

    def fault(self, action: str) -> None:
        r = self.random
        if action not in ("heal", "restart", "flush"):
            self.checker.leases.trouble()
        self.did[action] = self.did.get(action, 0) + 1
        verb, _, what = action.partition(" ")
        if verb in ("kill", "pause") and what not in ("host", "front"):
            shard = 0 if what == "sequencer" else None
            nodes = self._leaders(shard) if what != "node" else [n for _, n in sorted(self.nodes.items())]
            nodes = [n for n in nodes if n.alive and not n.paused and (what != "leader" or n.shard)]
            if nodes:
                (self._kill if verb == "kill" else self._pause)(r.choice(nodes))
        elif action == "kill host":
            self._kill_host(r.choice(self.hosts), front=r.random() < 0.3)
        elif action == "empty host":
            self.empty(r.choice(self.hosts))
        elif action == "restart":
            self._restart()
        elif action == "pause front":
            self._pause(r.choice([f for _, f in sorted(self.fronts.items())]))
        elif action == "isolate":
            host = r.choice(self.hosts)
            self.blocked |= {p for h in self.hosts if h != host for p in ((host, h), (h, host))}
        elif action == "one way":
            host = r.choice(self.hosts)
            self.blocked |= {(host, h) if r.random() < 0.5 else (h, host) for h in self.hosts if h != host}
        elif action in ("cut pair", "cut sequencer"):
            a, b = r.sample(self.hosts, 2)
            leaders = self._leaders(0)
            if action == "cut sequencer" and leaders:
                a = leaders[0].host
                b = r.choice([h for h in self.hosts if h != a])
            self.blocked |= {(a, b), (b, a)}
        elif action == "heal":
            self.heal()
        elif action == "break":
            connections = self.connections()
            for connection in r.sample(connections, min(len(connections), r.choice((1, 3, 30)))):
                connection.break_()
        elif action == "transfer":
            leaders = self._leaders()
            if leaders:
                leader = r.choice(leaders)
                voters = sorted(leader.node.raft.configuration.voters)
                leader.happens(None, lambda: (leader.node.raft.transfer_leadership(r.choice(voters)),
                                              leader.node.wake()))
        elif action == "slow disk":
            node = r.choice([n for _, n in sorted(self.nodes.items())])
            node.node.syncer.slow = not node.node.syncer.slow  # type: ignore[attr-defined]
        elif action == "hung disk":
            self.hang_disk(r.choice(self.hosts), r.uniform(0.2, 3.0))
        elif action == "late":
            self.late = r.choice((0.0, self.plan.late, 0.1))
        elif action == "flush":
            node = r.choice([n for _, n in sorted(self.nodes.items())])
            if node.alive and not node.paused:
                node.happens(None, node.node.store.flush)
        else:
            getattr(self.hard, action.replace(" ", "_"))()

    def _kill(self, node: NodeProcess) -> None:
        self.kill(node)

    def _kill_host(self, host: int, *, front: bool, unsynced: bool = True) -> None:
        self.supervisors.died(host)
        for shard in self.shards_of(host):
            if (process := self.nodes.get((host, shard))) is not None:
                self.kill(process, unsynced=unsynced)
        if front and self.fronts[host].alive:
            self.fronts[host].kill()
            self.clients.front_died(self.fronts[host])

    # -- disks that are lost, and found again (H10)

    def empty(self, host: int) -> bool:
        """A host dies, and comes back without its data, once all its peers know it: towards others nobody
        could tell (``node.links.incarnations``). Whether it did."""
        peers = [n for _, n in sorted(self.nodes.items()) if n.host != host]
        known = self.incarnations[host]
        if self.kept or not all(n.alive and n.node.incarnations.heard(host) == known for n in peers):
            return False
        self._kill_host(host, front=True)
        shards = self.shards_of(host)
        self.kept[host] = Kept(known, {s: (self.logs[host, s], self.states[host, s]) for s in shards},
                               self.supervisors.emptied(host))
        self._new_disks(host)
        self._start_host(host)
        self.did["emptied"] = self.did.get("emptied", 0) + 1
        return True

    def copy_disks(self, host: int) -> Kept:
        """A copy of a host's data directory, as it is now."""
        disks = {}
        for shard in self.shards:
            state = self.states[host, shard]
            assert isinstance(state, StateDisk)
            disks[shard] = self.logs[host, shard].copied(), state.copied()
        return Kept(self.incarnations[host], disks, {})

    def put_back(self, host: int, copy: Kept) -> None:
        """A host dies, and comes back with an old copy of its data."""
        self._kill_host(host, front=True)
        self.kept[host] = Kept(
            self.incarnations[host], {s: (self.logs[host, s], self.states[host, s]) for s in self.shards}, {})
        for shard, (log, state) in copy.disks.items():
            self.logs[host, shard], self.states[host, shard] = log, state
        self._start_host(host)

    def refused(self, process: NodeProcess) -> None:
        """A node found that it is not who it was: its host ends, and starts no more (``tools.muster``'s
        supervisor)."""
        host = process.host
        if host not in self.kept:
            raise Violation(
                "H10 only an emptied host is refused", f"{process.name}: {process.node.fatal.result()}")
        self.did["refused"] = self.did.get("refused", 0) + 1
        self.ended.add(host)
        self._kill_host(host, front=True)

    def find_disks(self) -> None:
        """The lost disks are found again."""
        for host, kept in self.kept.items():
            self._kill_host(host, front=True)
            self.incarnations[host] = kept.incarnation
            for shard, (log, state) in kept.disks.items():
                self.logs[host, shard], self.states[host, shard] = log, state
            self.supervisors.found(host, kept.born, kept.disks)
        self.kept.clear()
        self.ended.clear()

    def durable_logs(self, host: int, shard: int) -> list[LogDisk]:
        """Where a host's log lies: on its disk, and on the one that it has lost."""
        where = host, shard
        logs = [self.logs[where]] if where in self.logs else []
        if host in self.kept and shard in (lost := self.kept[host].disks):
            logs.append(lost[shard][0])
        return logs

    def durable_states(self, host: int, shard: int) -> list[StateDisk]:
        """As ``durable_logs`` of shard 0: where there is no directory of this shard, nothing is on it."""
        nothing: Any = StateDisk(shard)
        states: list[Any] = [self.states.get((host, shard), nothing)]
        if host in self.kept:
            states.append(self.kept[host].disks.get(shard, (None, nothing))[1])
        return states

    def _pause(self, process: Process, length: float = 0.0) -> None:
        if process.alive and not process.paused:
            process.pause()
            length = length or self.random.choice((0.05, 0.3, 0.6, 1.0, 2.0))
            self.at(length, None, lambda: process.resume() if process.paused else None)

    def _restart(self) -> None:
        if self.ended and (self.calm or self.random.random() < 0.5):
            self.find_disks()
        for host in self.hosts:
            if host not in self.ended:
                self._start_host(host)

    def _start_host(self, host: int) -> None:
        self.dark.discard(host)
        for shard in self.shards_of(host):
            process = self.nodes.get((host, shard))
            if not (process is not None and process.alive) and host not in self.ended:
                self.start_node(host, shard)
            if host not in self.hosts:
                return  # as it started it heard that it was removed
        if not self.fronts[host].alive and host not in self.ended:
            self.start_front(host)

    # -- a whole run

    def run(self) -> dict[str, int]:
        """The faults, then peace and proof of progress. What it did, 0 where it did nothing of a kind."""
        RepeatingLink.repeats = self.plan.repeats
        faults.take()
        before = faults.count
        with fine_grained(self):
            try:
                self._run()
                # say, an item that its leader made and nobody can apply (cluster.order.sound)
                if faults.count > before:
                    raise Violation("no request and no record meets a mistake", f"{faults.take()}")
            except Violation:
                raise
            except Exception as error:
                where = self.current.name if self.current is not None else "the simulation"
                self.checker.failed(where, error)
            finally:
                for disk in self.states.values():
                    if isinstance(disk, RealDisk):
                        disk.end()
        if self.plan.grows:
            self.did["level"] = self.checker.replay.level
        if self.members is not None:
            self.did["changes of hosts"] = self.members.done
        return Counter({**self.did, **self.checker.counts, "events": self.events,
                        "operations": len(self.clients.operations), "watches": len(self.clients.watches)})

    def run_faults(self) -> None:
        """The faults, without what comes after them: everything stays as it is in their midst."""
        RepeatingLink.repeats = self.plan.repeats
        with fine_grained(self):
            self._run_faults()

    def _run_faults(self) -> None:
        for host in self.hosts:
            for shard in self.shards_of(host):
                self.start_node(host, shard)
            self.start_front(host)
        self.clients = self._new_clients()
        self.at(1.0, None, self.nemesis)
        self.members = self._operator()
        self.growth = Growing(self) if self.plan.grows or self.plan.births or self.plan.moves else None
        self.births = Births(self) if self.plan.births else None
        self.moves = Moves(self) if self.plan.moves else None
        self.run_until(self.plan.seconds)

    def _new_clients(self) -> Clients:
        kind = UserClients if self.plan.users else Clients
        return kind(self, self.plan.clients, self.plan.think_s, self.plan.mix or MIX)

    def _operator(self) -> Any:
        """Who changes hosts in this run; None: nobody."""
        return Members(self) if self.plan.members else None

    def _run(self) -> None:
        self._run_faults()
        self.peace()
        if not self.run_until(self.now + self.plan.rest_s + 2 * self.plan.finish_s[1], self._at_rest):
            why = self.why_not()
            raise Violation(
                ENDLESS if why.startswith("I23")
                else SNAPSHOTS_LEFT if why.startswith(SNAPSHOTS_LEFT) else "liveness", why)
        self._last_questions()
        check_history(self)  # type: ignore[arg-type]
        if self.plan.real:
            check_stores(self)

    def _last_questions(self) -> None:
        """Every watch is told how far it is (I16), and what all replicas have is the same (I19)."""
        clients = self.clients
        streams = [s for s in clients.watching.streams if s.ended is None]
        for stream in streams:
            clients.watching.ask_progress(stream)
        fronts = [front for _, front in sorted(self.fronts.items())]
        clients.patience = 1.0
        # a front whose node said that its host is removed asks it no more: only here do such IDs come back
        hashed = [clients.ask(front, "HashKV", pb.HashKVRequest(revision=self.checker.replay.revision))
                  for front in fronts if not front.router.members.removed(front.router.common.member_id)]
        for front in fronts:
            clients.ask(front, "LeaseLeases", pb.LeaseLeasesRequest())
        self.run_until(self.now + TOLD_S, lambda: not clients.waiting and not any(s.asked for s in streams))
        if len({(o.error, o.ok and (o.response.hash, o.response.compact_revision)) for o in hashed}) != 1:
            raise Violation("I19 replicas hash alike", f"{hashed}")
        if clients.waiting:
            raise Violation(ENDLESS, f"{[w[0] for w in clients.waiting.values()]}")

    def peace(self) -> None:
        """No faults any more; clients ask no more."""
        self.calm = True
        self.clients.stopped = True
        self.late = 0.0
        RepeatingLink.repeats = 0.0
        self.heal()
        self.find_disks()
        for disk in (*self.logs.values(), *self.states.values()):
            disk.failing = False
        self._restart()
        for _, process in sorted({**self.nodes, **{(h, -1): f for h, f in self.fronts.items()}}.items()):
            if process.paused:
                process.resume()
            if isinstance(process, NodeProcess):
                process.node.syncer.slow = False  # type: ignore[attr-defined]
        self.calm_at = self.now

    def _at_rest(self) -> bool:
        rested = self.now > self.calm_at + 3 * ELECTION_MS / 1000
        return rested and not self.checker.leases.ending() and not self.why_not()

    def why_not(self) -> str:
        """What is still under way (``order_rest``); empty: nothing."""
        return order_rest.why_not(self)
