"""Physical compaction, in slices so that no request waits; and compaction by the clock
(``--auto-compaction-*``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.autocompact import AutoCompactor
from cluster.histogram import COMPACTION_MS, COMPACTION_SLICE_MS, Histogram
from cluster.order.sequencing.coordinator import MAX_WAITING
from cluster.pb import rpc_pb2
from cluster.raft import Raft
from cluster.settings import NodeSettings
from cluster.wire.messages import ANSWER, Method, Status
from node.links.fronts import FrontLink
from node.machine import Machine
from node.slicing.yielding import Others

if TYPE_CHECKING:
    from cluster.evaluate.replica import Leader
    from node.storage import StateStore
    from node.upkeep.owner import UpkeepNode
    from node.upkeep.space.alarms import Alarms

log = structlog.get_logger("upkeep")

# A compaction has time, requests have not: while there are any (node.slicing.yielding) it takes a fifth of
# the loop, as etcd pauses between batches, in short slices: what comes waits for one
_SLICE_US = 500
_BESIDE_US = 200
_PAUSE_S = 0.001


class Compaction:
    def __init__(self, node: UpkeepNode, machine: Machine, store: StateStore, raft: Raft, *,
                 freed: Callable[[], None]) -> None:
        self._node = node
        self._loop, self._perf_counter, self._wall_time = (
            machine.loop, machine.perf_counter, machine.wall_time)
        self._store = store
        self._freed = freed
        self._running = False
        self._began = 0.0
        self.took, self.slices = Histogram(COMPACTION_MS), Histogram(COMPACTION_SLICE_MS)
        self.ended_at = 0  # the last one, in Unix time
        self._requests = Others(machine.perf_counter, lambda: (raft.last_index, node.serve.ranges.count))
        self._waiting: list[tuple[FrontLink, bytes]] = []
        self._left = False

    def due(self) -> None:
        if not self._running:
            self._running, self._began = True, self._loop.time()
            self._loop.call_soon(self._some)

    def _some(self) -> None:
        node = self._node
        if node.stopping:
            return
        beside = self._requests.about()
        if not self._step(_BESIDE_US if beside else _SLICE_US):
            self._loop.call_later(_PAUSE_S if beside else 0, self._some)
            return
        self._running = False
        waiting, self._waiting = self._waiting, []
        for link, record in waiting:
            link.put(record)
            node.mark_dirty(link)
        self._freed()

    def _step(self, budget_us: int) -> bool:
        if not self._store.compacting:
            return True
        began = self._perf_counter()
        done = self._store.compaction_step(budget_us)
        self.slices.observe((self._perf_counter() - began) * 1000)
        if done:
            self.took.observe(round((self._loop.time() - self._began) * 1000))
            self.ended_at = int(self._wall_time())
        return done

    def answer_when_done(self, link: FrontLink, record: bytes) -> None:
        """A compaction with ``physical``: tell the front that it is in order, and answer once the old data is
        gone here."""
        rid = ANSWER.unpack_from(record)[0]
        self._node.mark_dirty(link)
        self._waiting = [waiting for waiting in self._waiting if waiting[0].alive]
        if self._left:
            self._refuse(link, rid)
            return
        if len(self._waiting) < MAX_WAITING:
            link.answer(rid, Status.PARTIAL, b"")
            self._waiting.append((link, record))
        else:  # it is in order, and will be done
            link.answer(rid, Status.UNKNOWN, EtcdError(errors.TOO_MANY_REQUESTS).encode())
        self.due()

    def leave(self) -> None:
        """This node is about to end, and its fronts were told: nobody waits any more until old data is gone
        here. The compactions are in order."""
        self._left = True
        waiting, self._waiting = self._waiting, []
        for link, record in waiting:
            self._refuse(link, ANSWER.unpack_from(record)[0])

    def _refuse(self, link: FrontLink, rid: int) -> None:
        link.answer(rid, Status.UNKNOWN, EtcdError(errors.TIMEOUT_DUE_TO_LEADER_FAIL).encode())
        self._node.mark_dirty(link)


class ClockCompaction:
    """What the leader of shard 0 compacts by the clock."""

    def __init__(self, settings: NodeSettings, store: StateStore, *, alarms: Alarms,
                 leader: Callable[[], Leader | None], now_ms: Callable[[], int]) -> None:
        self._first = settings.shard == 0
        self._store = store
        self._alarms = alarms
        self._leader = leader
        self._now_ms = now_ms
        self._auto = AutoCompactor(settings.auto_compaction_mode, settings.auto_compaction_retention)

    def second(self) -> None:
        if not self._first:
            return
        leader = None if self._alarms.corrupt else self._leader()
        compacted = None if leader is None else leader.view.compact_revision
        revision = self._auto.due(self._store.revision, self._now_ms(), compacted=compacted)
        if leader is not None and revision is not None:
            log.info("automatic compaction", revision=revision)
            leader.execute(Method.COMPACT, rpc_pb2.CompactionRequest(revision=revision).SerializeToString())
