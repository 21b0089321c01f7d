"""Hosts that send each other states, on a clock that the test turns."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cluster.effects import records
from cluster.raft import Configuration, Role
from node.storage import StateStore
from node.storage.snapshot import SnapshotSink
from node.upkeep.log.catching_up import CatchingUp
from node.upkeep.log.snapshots import Snapshots
from tests.unit.machines import machine_on

GROUP = Configuration(frozenset((1, 2, 3)))
RETRY_S = 0.1  # Raft asks again after a heartbeat


class World:
    """A clock that the test turns, and what happens at which time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._serial = itertools.count()
        self.finish_s = 0.0

    def time(self) -> float:
        return self.now

    def at(self, after_s: float, call: Callable[[], object]) -> None:
        heapq.heappush(self._events, (self.now + after_s, next(self._serial), call))

    def call_later(self, after_s: float, call: Callable[..., object], *args: object) -> None:
        self.at(after_s, lambda: call(*args))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, call = heapq.heappop(self._events)
            call()
        self.now = until

    def run_in_executor(self, executor: object, work: Callable[..., Any], *args: Any) -> Future[Any]:
        """The work is done at the end of the time that it takes."""
        done: Future[Any] = Future()

        def run() -> None:
            try:
                result = work(*args)
            except Exception as e:
                done.set_exception(e)
            else:
                done.set_result(result)

        self.at(self.finish_s if getattr(work, "__func__", None) is SnapshotSink.finish else 0.0, run)
        return done


class Host:
    """One member of a group, as far as its snapshots need it."""

    def __init__(self, world: World, member_id: int, folder: Path) -> None:
        self.world, self.loop, self.member_id = world, world, member_id
        self.machine = machine_on(world)
        self.settings = SimpleNamespace(data_dir=str(folder), min_free_disk_bytes=1)
        self.state = folder / "state"
        self.store = StateStore.open(self.state, block_cache_bytes=1 << 20, write_buffer_bytes=1 << 20)
        self.stopping = False
        self.hosts: dict[int, Host] = {}
        self.said: list[float] = []  # when Raft was asked to answer its leader again
        self.wanting: set[int] = set()  # peers that Raft sends states to until they have one
        self.log = SimpleNamespace(begin_install=lambda at: None, finish_install=lambda at: None)
        self.raft = SimpleNamespace(
            role=Role.FOLLOWER, snapshot_sent=self._sent, snapshot_installed=lambda at: True,
            say_committed=lambda: self.said.append(world.now),
            position_at=lambda index: SimpleNamespace(configuration=GROUP))
        self.peers = SimpleNamespace(send=self._send)
        self.snapshots = Snapshots(self, CatchingUp())  # type: ignore[arg-type]
        self._sweep()

    def put(self, count: int) -> None:
        first = self.store.position.order_index + 1
        self.store.apply(
            [
                (i, 1, records.put(b"/k/%d" % i, 0, 1, bytes([i % 251]) * 1000, 0))
                for i in range(first, first + count)
            ]
        )

    def feed(self, peer: int) -> None:
        """Raft wants a state sent, again and again until one has arrived."""
        self.wanting.add(peer)
        self.snapshots.send_to(peer, 0)

    def _sent(self, peer: int, ok: bool) -> None:
        if ok:
            self.wanting.discard(peer)
        elif peer in self.wanting:
            self.world.at(RETRY_S, lambda: self.snapshots.send_to(peer, 0))

    def _send(self, peer: int, kind: bytes, data: bytes) -> bool:
        self.world.at(0.001, lambda: self.hosts[peer].snapshots.frame(self.member_id, data))
        return True

    def _sweep(self) -> None:
        self.world.at(1.0, self._sweep)
        self.snapshots.sweep()

    def state_replaced(self) -> None:
        """A snapshot was installed."""

    def wake(self) -> None:
        """No ticks here."""

    def directories(self) -> list[str]:
        """Copies of a state that a host keeps, but for its own and the one that it replaced."""
        found = [p.name for p in self.state.iterdir() if p.name.startswith("incoming")]
        outgoing = Path(self.settings.data_dir) / "outgoing"
        return found + ([p.name for p in outgoing.iterdir()] if outgoing.exists() else [])
