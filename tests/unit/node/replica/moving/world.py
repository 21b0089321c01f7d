"""Nodes of one host between which keys move, over stores on disk; links answer at once."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from cluster.order.moving.mover import Copied
from cluster.placement.changes import Moved, move_item, moved_item
from cluster.placement.table import Move
from cluster.settings import Common, NodeSettings
from cluster.wire.frames import HIGHEST
from cluster.wire.messages import Status
from node.replica.moving.copying import Copying
from node.replica.moving.moved import MovedKeys
from node.replica.moving.sources import Sources
from node.storage import StateStore
from tests.unit.storage.moved.cluster import SHARDS, Cluster

ELECTION_MS = 1000
TARGET = SHARDS - 1
KEYS = [b"a/%d" % i for i in range(9)]


class Loop:
    """Its time passes only in :meth:`run`."""

    def __init__(self) -> None:
        self.now = 100.0
        self._due: list[tuple[float, int, SimpleNamespace]] = []
        self._number = itertools.count()

    def time(self) -> float:
        return self.now

    def call_later(self, delay_s: float, call: Callable[[], object]) -> SimpleNamespace:
        timer = SimpleNamespace(call=call)
        timer.cancel = lambda: setattr(timer, "call", None)
        heapq.heappush(self._due, (self.now + delay_s, next(self._number), timer))
        return timer

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._due and self._due[0][0] <= until:
            self.now, _, timer = heapq.heappop(self._due)
            if timer.call is not None:
                timer.call()
        self.now = until


class Link:
    """To another node. It answers within the call, unless it is cut, or ``later``: once those are called."""

    up, version = True, HIGHEST

    def __init__(self, handlers: dict[int, Any]) -> None:
        self.handlers = handlers
        self.cut = False
        self.later: list[Callable[[], object]] | None = None

    def request(self, method: int, body: bytes, answered: Callable[[int, bytes], object]) -> None:
        if not self.cut:
            found: list[tuple[int, bytes]] = []
            link = SimpleNamespace(answer=lambda rid, status, data: found.append((status, data)))
            self.handlers[method](link, 1, 0, body)
            if self.later is None:
                answered(*found[0])
            else:
                self.later.append(partial(answered, *found[0]))


class Host:
    """Whose target copies. ``others``: hosts that are there besides."""

    def __init__(self, cluster: Cluster, others: tuple[int, ...] = ()) -> None:
        self.cluster = cluster
        self.loop = Loop()
        self.reports: list[Copied] = []
        self.grew = self.states = 0
        self.promised = False
        self.went: list[int] = []  # shards that have dropped rows
        self.lacks = {False: "", True: ""}  # why a copy that goes on, or ends, finds no room here
        self.asked: list[tuple[int, int]] = []  # host, shard
        self.links = SimpleNamespace(find=self._find, flush=lambda: None)
        self._links: dict[int, Link] = {}
        self._others = others

    def _find(self, host: int, shard: int) -> Link:
        self.asked.append((host, shard))
        return self.link(shard)

    def link(self, shard: int) -> Link:
        if shard not in self._links:
            self.source(shard)
        return self._links[shard]

    def source(self, shard: int) -> tuple[Copying, Sources]:
        """Of a node that copies ask."""
        role: Any = self
        node, moved = self.node(shard), MovedKeys(self.store(shard))
        sources = Sources(node, moved)
        self._links[shard] = Link(node.handlers)
        copying = Copying(node, role, moved, sources, lambda: self._others)
        copying.placed(self.cluster.table)
        return copying, sources

    def store(self, shard: int) -> StateStore:
        return self.cluster.stores[0, shard]

    def node(self, shard: int) -> Any:
        common = Common(7, 1, "h1", 2, 1, (), "/run/1", election_timeout_ms=ELECTION_MS)
        return SimpleNamespace(
            settings=NodeSettings(common, shard, "/nowhere", "h1", 1), loop=self.loop, handlers={},
            machine=SimpleNamespace(perf_counter=lambda: 0.0), mark_dirty=lambda link: None,
            applies=SimpleNamespace(busy=False),
            upkeep=SimpleNamespace(
                flushes=SimpleNamespace(), room=SimpleNamespace(lacks=lambda *, ends: self.lacks[ends]),
                moved_rows_went=lambda: self.went.append(shard)))

    def copying(self, shard: int) -> Copying:
        return self.source(shard)[0]

    # -- its role

    def copy_grew(self) -> None:
        self.grew += 1

    def report_copied(self, copied: Copied) -> None:
        self.reports.append(copied)

    def ask_for_state(self) -> None:
        self.states += 1

    def promises(self, move: int) -> bool:
        return self.promised


def answers_nothing(link: Any, rid: int, timeout_ms: int, body: bytes) -> None:
    link.answer(rid, Status.UNKNOWN, b"")


def begin(cluster: Cluster, number: int = 1) -> Move:
    """A move of all keys; without the copy that the storage's own tests make."""
    move = Move(number, b"a/", b"a0", cluster.table.owners_of(b"a/", b"a0"), TARGET)
    cluster.place(move_item(move))
    return move


def switched(cluster: Cluster, live: int = len(KEYS)) -> bytes:
    return moved_item(Moved(1, True, cluster.model.revision, live))
