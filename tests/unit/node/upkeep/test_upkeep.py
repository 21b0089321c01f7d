"""Housekeeping of a node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import errors
from cluster.effects import records
from cluster.features.lessor import Lessor
from cluster.members.table import Table
from cluster.pb import rpc_pb2 as pb
from cluster.raft import Configuration, Entry, EntryKind, Role, SnapshotPosition
from cluster.raft.types import PeerStatus
from cluster.settings import Common, NodeSettings, Peer
from cluster.wire.messages import ANSWER, Method, Status, decode_answers
from node.links.fronts import FrontLink
from node.storage import RaftLog, StateStore
from node.upkeep import compaction
from node.upkeep.expiry import Expiry
from node.upkeep.space import quota
from node.upkeep.space.disks import FRAME as SPACE
from node.upkeep.space.disks import log_buffer_bytes
from node.upkeep.upkeep import Upkeep
from tools.muster.machine.disk.disks import NodesMachine


def test_a_lease_granted_again_in_the_run_that_revokes_it_is_there(tmp_path: Path) -> None:
    store = StateStore.open(tmp_path)
    applied = store.apply([
        (1, 1, records.lease_grant(9, 60)), (2, 1, records.lease_revoke(9, []) + records.lease_grant(7, 60)),
        (3, 1, records.lease_grant(9, 30)), (4, 1, records.lease_revoke(7, []))])
    lessor = Lessor(1000)
    node: Any = SimpleNamespace(lessor=lessor, now_ms=lambda: 0)
    Expiry(node).changed(applied)
    assert list(lessor) == [(9, 30, 0)] == list(store.leases())
    assert applied.revoked == [9, 7]
    store.close()


NO_SPACE = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=1, alarm=pb.NOSPACE)
PUT, DELETE = pb.PutRequest(key=b"k", value=b"v"), pb.DeleteRangeRequest(key=b"k")
TXNS = [pb.TxnRequest(success=[op]) for op in (
    pb.RequestOp(request_range=pb.RangeRequest(key=b"k")), pb.RequestOp(request_put=PUT))]


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
        done.set_result(work(*args))
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
        self.writes = SimpleNamespace(leader=SimpleNamespace(execute=self._log_alarm) if leads else None)
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


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Callable[..., Replica]]:
    made: list[Replica] = []

    def make(**settings: Any) -> Replica:
        made.append(Replica(tmp_path / str(len(made)), **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


Make = Callable[..., Replica]
SMALL = {"order_log_bytes": 64 << 20, "write_buffer_bytes": 1 << 20}


def test_a_log_kept_for_a_majority_stops_writes_at_half_of_its_bound_and_transactions_at_three_quarters(
    replica: Make,
) -> None:
    node = replica(**SMALL)
    node.wanted_from = 0
    node.upkeep.peer_said(2, SPACE[0], b"\x01")
    node.write(31, 1 << 20)
    node.upkeep.second()
    assert node.alarms == []
    assert not node.upkeep.quota.exceeded(Method.PUT, PUT.SerializeToString())
    node.write(2, 1 << 20)
    assert node.upkeep.quota.exceeded(Method.PUT, PUT.SerializeToString()), (
        "at once, before the alarm is applied")
    assert node.alarms[0] == NO_SPACE
    assert {a.memberID for a in node.alarms} == {1, 2}
    assert (2, SPACE, b"\x01") in node.told
    assert (3, SPACE, b"\x01") in node.told
    assert node.upkeep.quota.exceeded(Method.LEASE_GRANT, b"")
    assert [node.upkeep.quota.exceeded(Method.TXN, txn.SerializeToString()) for txn in TXNS] == [False, True]
    rest = (Method.DELETE_RANGE, Method.COMPACT, Method.LEASE_REVOKE, Method.SET_ALARM, Method.PUBLISH)
    assert not any(node.upkeep.quota.exceeded(method, DELETE.SerializeToString()) for method in rest)
    node.upkeep.peer_said(2, SPACE[0], b"\x02")
    node.write(20, 1 << 20)
    node.upkeep.second()
    assert [node.upkeep.quota.exceeded(Method.TXN, txn.SerializeToString()) for txn in TXNS] == [True, True]
    assert node.upkeep.quota.exceeded(Method.DELETE_RANGE, b"")
    assert not any(node.upkeep.quota.exceeded(method, b"") for method in rest[1:])
    # those behind have caught up: no flush comes, and yet the log shrinks
    node.store.flush()
    node.wanted_from = 1 << 62
    node.upkeep.peer_said(2, SPACE[0], b"\x00")
    node.upkeep.second()
    node.upkeep.second()
    assert node.log.bytes_after(0) < 8 << 20
    # once the alarm is disarmed: it was never applied here
    assert not node.upkeep.quota.exceeded(Method.PUT, b"")


def test_one_host_that_is_short_is_no_reason_to_stop(replica: Make) -> None:
    node = replica(**SMALL)
    node.wanted_from = 0
    node.write(40, 1 << 20)
    node.upkeep.second()
    assert node.alarms == []
    assert not node.upkeep.quota.exceeded(Method.PUT, b"")
    node.loop.now_s += 11  # ... until another one has been silent for long
    node.heard[2].heard_ms = node.machine.now_ms()
    node.upkeep.second()
    assert node.alarms == [NO_SPACE]
    assert node.upkeep.quota.exceeded(Method.PUT, b"")


def test_who_does_not_lead_says_that_it_is_short_every_second(replica: Make) -> None:
    node = replica(leads=False, **SMALL)
    node.wanted_from = 0
    node.upkeep.second()
    assert node.told == []
    node.write(40, 1 << 20)
    node.upkeep.second()
    node.told.clear()
    node.upkeep.second()
    assert node.told == [(i, SPACE, b"\x01") for i in (1, 2, 3)]
    assert not node.upkeep.quota.exceeded(Method.PUT, b"")


def test_what_is_kept_for_siblings_alone_is_bounded_in_bytes(replica: Make) -> None:
    node = replica(**SMALL)
    node.wanted_from = 0
    node.write(40, 1 << 20)
    node.store.flush()
    node.upkeep.second()
    assert node.asked[-1] == 32  # an eighth of the bound: who wants less than the last 8 MiB installs a state


def test_what_is_kept_for_a_transfer_is_bounded_in_bytes(replica: Make) -> None:
    node = replica(**SMALL)
    node.heard[2] = PeerStatus(0, 1, "snapshot", 0, False, int(1e6))
    node.upkeep.catching_up.begins(2, 1, 1000.0)
    node.write(20, 1 << 20)
    node.store.flush()
    node.upkeep.second()
    assert node.log.snapshot_position().index == 1
    node.write(10, 1 << 20)  # more than three eighths together: that transfer was in vain
    node.store.flush()
    node.upkeep.second()
    assert node.log.bytes_after(0) < 8 << 20


@pytest.mark.parametrize("shard", [0, 1])
def test_a_leader_holds_proposals_back_for_who_ran_out_of_log(replica: Make, shard: int) -> None:
    """A shard's other than 0, too, which has no leader of node.replica.writes."""
    node = replica(shard=shard, leads=not shard, **SMALL)
    node.raft.role = Role.LEADER
    node.heard[2] = PeerStatus(0, 1, "snapshot", 0, False, int(1e6))
    for held_back in (False, True):
        node.upkeep.catching_up.begins(2, node.applied_index + 1, 999.0)
        node.write(30, 1 << 20)
        assert node.raft.held_back is held_back
        node.store.flush()
        node.upkeep.second()
    (again,) = node.loop.later
    again()
    assert not node.raft.held_back
    assert node.woken


def test_a_sibling_flushes_for_what_node_0_logged(replica: Make) -> None:
    """It has no rows of that itself; node 0 keeps the records until the flush."""
    node = replica(shard=1, **SMALL)
    for index in range(1, 9):
        node.store.apply([(index, 1, b"")])
        node.applied_index = node.order_index = index
        node.upkeep.logged_bytes(0, 1 << 20)
        node.upkeep.flushes.applied()
    assert node.store.durable_position.order_index == 6  # 3 MiB, and 3 MiB more


def put_of(size: int) -> pb.PutRequest:
    return pb.PutRequest(key=b"k" * 10, value=bytes(size - 10))


def test_a_request_is_judged_with_its_own_size(replica: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """etcd's quota.go: 256 bytes for a put besides key and value, the larger branch of a transaction, 64 for
    a lease."""
    node = replica(quota_backend_bytes=1 << 20)
    used = (1 << 20) - 2000
    monkeypatch.setattr(node.store, "size_in_use_bytes", lambda: used)

    def refused(method: int, request: Any) -> bool:
        node.raised.clear()
        node.upkeep.alarms_changed()  # what was asked for has come and gone
        found = node.upkeep.quota.exceeded(method, request.SerializeToString())
        assert node.raised == ([NO_SPACE] if found else [])
        return found

    def op(size: int) -> pb.RequestOp:
        return pb.RequestOp(request_put=put_of(size))

    assert not node.upkeep.quota.fits(0)  # so the queue is looked at one by one
    assert not refused(Method.PUT, put_of(2000 - 256 - 1))
    assert refused(Method.PUT, put_of(2000 - 256))
    assert not refused(Method.TXN, pb.TxnRequest(success=[op(700)] * 2, failure=[op(1743)]))
    assert refused(Method.TXN, pb.TxnRequest(success=[op(744)] * 2, failure=[op(10)]))
    assert refused(
        Method.TXN, pb.TxnRequest(success=[pb.RequestOp(request_txn=pb.TxnRequest(failure=[op(1744)]))])
    )
    assert not refused(Method.DELETE_RANGE, pb.DeleteRangeRequest(key=bytes(5000)))
    assert not refused(Method.LEASE_GRANT, pb.LeaseGrantRequest(TTL=1))
    used = (1 << 20) - 64
    assert refused(Method.LEASE_GRANT, pb.LeaseGrantRequest(TTL=1))
    assert refused(Method.PUT, put_of(10))


def test_the_quota_is_of_all_shards_of_a_host_together(
    replica: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = [replica(shard=shard, run_dir=str(tmp_path), quota_backend_bytes=1 << 20) for shard in (0, 1)]
    used = [1000, 700_000]
    for shard, node in enumerate(two):
        monkeypatch.setattr(node.store, "size_in_use_bytes", lambda shard=shard: used[shard])
    for node in reversed(two):
        node.upkeep.second()
    assert not two[0].upkeep.quota.exceeded(Method.PUT, put_of(300_000).SerializeToString())
    assert two[0].upkeep.quota.exceeded(Method.PUT, put_of(400_000).SerializeToString())
    two[0].upkeep.alarms_changed()
    used[1] = 1 << 20
    two[1].write(1, 100_000)  # it tells so while it grows
    two[0].upkeep.second()
    assert two[0].upkeep.quota.exceeded(Method.PUT, PUT.SerializeToString())
    used[1] = 1000
    two[1].upkeep.alarms_changed()
    assert not two[0].upkeep.quota.exceeded(Method.PUT, PUT.SerializeToString())


def full(replica: Make, monkeypatch: pytest.MonkeyPatch) -> Replica:
    """A store that is full, and its alarm disarmed."""
    node = replica(quota_backend_bytes=1 << 20)
    monkeypatch.setattr(node.store, "size_in_use_bytes", lambda: 2 << 20)
    node.apply(records.txn([records.put(b"%d" % i, 0, 1, b"v", 0) for i in range(20)]))
    node.upkeep.second()
    assert node.raised == [NO_SPACE]
    node.apply(records.alarm(True, pb.NOSPACE, 1))
    assert node.upkeep.quota.exceeded(Method.PUT, PUT.SerializeToString())
    node.apply(records.alarm(False, pb.NOSPACE, 1))
    node.raised.clear()
    return node


def test_many_requests_that_are_refused_at_once_ask_for_one_alarm(
    replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is applied by and by; each request to node 0 would log it again."""
    node = replica(quota_backend_bytes=1 << 20)
    monkeypatch.setattr(node.store, "size_in_use_bytes", lambda: 2 << 20)
    node.apply(records.put(b"k", 0, 1, b"v", 0))
    for _ in range(100):
        assert node.upkeep.quota.exceeded(Method.PUT, PUT.SerializeToString())
    assert 1 <= len(node.raised) <= 2
    node.raised.clear()
    node.upkeep.second()
    assert node.raised == [NO_SPACE], "once more each second"


def test_a_full_store_that_was_disarmed_waits_for_the_next_put(
    replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = full(replica, monkeypatch)
    node.apply(records.delete(b"0"))
    for _ in range(3):
        assert not node.upkeep.quota.exceeded(Method.DELETE_RANGE, DELETE.SerializeToString())
        assert node.upkeep.quota.exceeded(Method.PUT, b""), "as is asked before the queue is looked at"
        node.upkeep.second()
    assert node.raised == []
    for _ in range(2):
        assert node.upkeep.quota.exceeded(Method.PUT, PUT.SerializeToString())
    assert node.raised == [NO_SPACE]
    node.upkeep.second()
    assert node.raised == [NO_SPACE] * 2, "again until it is applied"
    node.apply(records.alarm(True, pb.NOSPACE, 1))
    node.upkeep.second()
    assert node.raised == [NO_SPACE] * 2


def test_a_put_that_others_let_in_raises_the_alarm_of_a_full_store(
    replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = full(replica, monkeypatch)
    monkeypatch.setattr(quota, "_CHANGES", 3)
    for i in range(7):
        node.apply(records.delete(b"%d" % i))
    node.apply(records.txn([records.delete(b"%d" % i) for i in range(7, 20)]))
    node.upkeep.second()
    assert node.raised == []
    node.apply(records.put(b"k", 0, 1, b"v", 0))
    for _ in range(7):
        node.upkeep.second()
    assert node.raised


def test_puts_go_on_as_soon_as_there_is_room_and_the_alarm_is_disarmed(
    replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = full(replica, monkeypatch)
    monkeypatch.setattr(node.store, "size_in_use_bytes", lambda: 1 << 19)
    assert not node.upkeep.quota.exceeded(Method.PUT, PUT.SerializeToString())
    assert node.raised == []


def test_far_from_the_quota_nobody_looks_at_requests(replica: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    node = replica(quota_backend_bytes=1 << 30)
    assert not node.upkeep.quota.exceeded(Method.PUT, b"")
    monkeypatch.setattr(node.store, "size_in_use_bytes", None)
    assert node.upkeep.quota.fits(100 << 20)
    assert not node.upkeep.quota.exceeded(Method.PUT, put_of(1 << 20).SerializeToString())
    off = replica(quota_backend_bytes=-1)
    assert not off.upkeep.quota.exceeded(Method.PUT, b"")
    assert off.upkeep.quota.fits(1 << 60)


def test_who_waits_until_old_data_is_gone_is_bounded(replica: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MAX_WAITING", 3)
    node = replica()
    frames: list[bytes] = []

    def take(parts: list[bytes]) -> bool:
        frames.append(parts[-1])
        return True

    links = [FrontLink(b"%d" % i, take, b"", i) for i in range(2)]

    def answers(link: FrontLink) -> list[tuple[int, int]]:
        link.flush()
        found = [(rid, status) for frame in frames for rid, status, _ in decode_answers(frame)[1]]
        frames.clear()
        return found

    def ask(link: FrontLink, rid: int) -> None:
        node.upkeep.compaction.answer_when_done(link, ANSWER.pack(rid, Status.OK, 0))

    for rid in range(1, 5):
        ask(links[0], rid)
    assert answers(links[0]) == [
        (1, Status.PARTIAL),
        (2, Status.PARTIAL),
        (3, Status.PARTIAL),
        (4, Status.UNKNOWN),
    ]
    links[0].alive = False  # its places are free
    for rid in range(1, 4):
        ask(links[1], rid)
    (compact,) = node.loop.soon
    compact()
    assert answers(links[1]) == [(rid, Status.PARTIAL) for rid in (1, 2, 3)] + [
        (rid, Status.OK) for rid in (1, 2, 3)
    ]


def test_while_a_member_is_corrupt_nothing_is_written_and_the_alarm_can_be_disarmed(replica: Make) -> None:
    node = replica()
    writes = (Method.PUT, Method.DELETE_RANGE, Method.TXN, Method.COMPACT, Method.LEASE_GRANT,
              Method.LEASE_REVOKE)
    node.store.apply([(node.log.last_index() + 1, 1, records.alarm(True, pb.CORRUPT, 2))])
    assert {node.upkeep.quota.refusal(method, b"") for method in writes} == {None}, "not known yet"
    node.upkeep.alarms_changed()
    assert {node.upkeep.quota.refusal(method, b"") for method in writes} == {errors.CORRUPT}
    assert node.upkeep.quota.refusal(Method.SET_ALARM, b"") is None
    node.store.apply([(node.log.last_index() + 2, 1, records.alarm(False, pb.CORRUPT, 2))])
    node.upkeep.alarms_changed()
    assert {node.upkeep.quota.refusal(method, b"") for method in writes} == {None}


@pytest.mark.parametrize("checks", [False, True])
def test_keys_and_leases_that_do_not_agree_raise_corrupt_if_asked_for(replica: Make, checks: bool) -> None:
    node = replica(corrupt_check=checks)
    for _ in range(2):
        node.upkeep.lease_checks._corrupt()
    found = [(alarm.action, alarm.memberID, alarm.alarm) for alarm in node.raised]
    assert found == ([(pb.AlarmRequest.ACTIVATE, 1, pb.CORRUPT)] * 2 if checks else [])
