"""A node as far as its upkeep needs it: its log and state are real."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cluster.effects import records
from cluster.members.table import Table
from cluster.pb import rpc_pb2 as pb
from cluster.raft import Configuration, Entry, EntryKind, Role, SnapshotPosition
from cluster.settings import Common, NodeSettings, Peer
from cluster.wire.messages import Method
from node.links.fronts import FrontLink
from node.storage import NoRoom, RaftLog, StateStore
from node.upkeep.space.disks import log_buffer_bytes
from node.upkeep.space.rewriting import Busy
from node.upkeep.upkeep import Upkeep
from tools.muster.machine.disk.disks import NodesMachine

NO_SPACE = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=1, alarm=pb.NOSPACE)
PUT, DELETE = pb.PutRequest(key=b"k", value=b"v"), pb.DeleteRangeRequest(key=b"k")
TXNS = [pb.TxnRequest(success=[op]) for op in (
    pb.RequestOp(request_range=pb.RangeRequest(key=b"k")), pb.RequestOp(request_put=PUT))]
SMALL = {"order_log_bytes": 64 << 20, "write_buffer_bytes": 1 << 20}


class Loop:
    """A loop whose helper thread works at once, and whose clock the test turns."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.later: list[Callable[[], None]] = []
        self.soon: list[Callable[[], None]] = []

    def time(self) -> float:
        return self.now_s

    def call_soon(self, call: Callable[[], None]) -> None:
        self.soon.append(call)

    def call_later(self, after_s: float, call: Callable[[], None]) -> None:
        assert after_s > 0
        self.later.append(call)

    def run_in_executor(self, executor: object, work: Callable[..., Any], *args: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(work(*args))
        except (Busy, NoRoom) as error:
            done.set_exception(error)
        return done


class Machine(NodesMachine):
    """The real one, but for the clock, which the test turns."""

    def now_ms(self) -> int:
        return int(self.loop.time() * 1000)


class Replica:
    """Host 1's node of a shard with a real log and state, as far as its upkeep needs it."""

    def __init__(
        self, path: Path, shard: int = 0, leads: bool = True, run_dir: str = "", **settings: Any
    ) -> None:
        common = Common(
            cluster_id=1,
            member_id=1,
            name="h1",
            shard_count=2,
            placement_depth=1,
            run_dir=run_dir,
            peers=tuple(Peer(i, f"h{i}", "h", 1) for i in (1, 2, 3)),
        )
        fake: Any = self  # for the parts of a node that are stand-ins
        self.settings = NodeSettings(common, shard, str(path), "h", 1, **settings)
        self.roster = SimpleNamespace(table=Table(common.peers))
        group = Configuration(frozenset((1, 2, 3)))
        self.log = RaftLog.open(
            path / "log", initial=group, no_fsync=True, write_buffer_bytes=log_buffer_bytes(self.settings)
        )
        self.store = StateStore.open(path / "state", block_cache_bytes=1 << 20, write_buffer_bytes=1 << 20)
        self.loop, self.stopping, self.applied_index, self.order_index = Loop(), False, 0, 0
        self.machine = Machine(fake.loop, common)
        self.heard = {2: SimpleNamespace(heard_ms=1e6), 3: SimpleNamespace(heard_ms=1e6)}
        self.raft = SimpleNamespace(
            configuration=group,
            held_back=False,
            peers=lambda: self.heard,
            compacted=lambda index: None,
            last_index=0,
            role=Role.FOLLOWER,
            position_at=lambda index: SnapshotPosition(index, 1, group),
        )
        leader = SimpleNamespace(execute=self._log_alarm, view=SimpleNamespace(compact_revision=0))
        self.writes = SimpleNamespace(leader=leader if leads else None)
        self.serve = SimpleNamespace(ranges=SimpleNamespace(count=0))
        self.slicer = SimpleNamespace(start=lambda slices: None)
        self.told: list[tuple[int, bytes, bytes]] = []
        self.peers = SimpleNamespace(send=lambda *frame: self.told.append(frame))
        self.wanted_from = 1 << 62  # of the order, by siblings that a majority stands behind
        self.asked: list[int] = []
        self.woken = False
        self.alarms: list[pb.AlarmRequest] = []
        self.raised: list[pb.AlarmRequest] = []  # of this host's quota
        self.upkeep = Upkeep(
            fake, self.settings, self.machine, self.log, self.store, fake.raft, fake.slicer)
        self.upkeep.truncation.kept_for_others = self.kept_for_others

    def wake(self) -> None:
        self.woken = True

    def mark_dirty(self, link: FrontLink) -> None:
        """Answers are taken by hand."""

    def fail(self, reason: str) -> None:
        raise AssertionError(reason)

    def kept_for_others(self, least: int) -> int:
        self.asked.append(least)
        return self.wanted_from

    def raise_alarm(self, body: bytes) -> None:
        self.raised.append(pb.AlarmRequest.FromString(body))

    def _log_alarm(self, method: int, body: bytes) -> None:
        assert method == Method.SET_ALARM
        self.alarms.append(pb.AlarmRequest.FromString(body))

    def write(self, count: int, size: int, *, apply: bool = True) -> None:
        """Log and apply so many entries."""
        for _ in range(count):
            index = self.log.last_index() + 1
            data = records.put(b"k", 0, 1, bytes(size), 0)
            self.log.append([Entry(index, 1, EntryKind.RECORD, data)])
            if apply:
                self.store.apply([(index, 1, data)])
                self.applied_index = self.order_index = index
                self.upkeep.logged_bytes(len(data))
                self.upkeep.flushes.applied()

    def apply(self, data: bytes) -> None:
        """Log and apply a record."""
        index = self.log.last_index() + 1
        self.log.append([Entry(index, 1, EntryKind.RECORD, data)])
        self.applied_index = self.order_index = index
        if self.store.apply([(index, 1, data)]).alarms:
            self.upkeep.alarms_changed()

    def close(self) -> None:
        self.upkeep.close()
        self.log.close()
        self.store.close()


Make = Callable[..., Replica]


def put_of(size: int) -> pb.PutRequest:
    return pb.PutRequest(key=b"k" * 10, value=bytes(size - 10))
