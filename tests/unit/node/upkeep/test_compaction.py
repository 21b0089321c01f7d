"""Compactions: who waits for them, and which ones the clock asks for."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace

import pytest

from cluster.effects import records
from cluster.features.autocompact import AutoCompactor
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import ANSWER, Method, Status, decode_answers
from node.links.fronts import FrontLink
from node.storage.options import REMOVALS
from node.storage.state import counts
from node.upkeep import compaction
from tests.unit.node.upkeep.replicas import Make


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


def test_who_waits_at_a_node_that_ends_is_told_so(replica: Make) -> None:
    """It removes nothing more, and its fronts wait for each answer."""
    node, frames = replica(), list[bytes]()

    def take(parts: list[bytes]) -> bool:
        frames.append(parts[-1])
        return True

    link = FrontLink(b"front", take, b"", 1)
    for rid in (1, 2):
        node.upkeep.compaction.answer_when_done(link, ANSWER.pack(rid, Status.OK, 0))
        if rid == 1:
            node.stopping = True
            node.upkeep.compaction.leave()
    for run in node.loop.soon:
        run()
    link.flush()
    assert [(rid, status) for frame in frames for rid, status, _ in decode_answers(frame)[1]] == [
        (1, Status.PARTIAL), (1, Status.UNKNOWN), (2, Status.UNKNOWN)]


def test_what_compactions_took_is_told(replica: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    node = replica()
    store, compaction = node.store, node.upkeep.compaction
    monkeypatch.setattr(compaction, "_wall_time", lambda: 1_800_000_000.5)
    for index in range(1, 101):
        store.apply([(index, 1, records.put(b"k", 0 if index == 1 else 2, index, b"", 0))])
    compaction.due()
    node.loop.soon.pop()()
    assert (compaction.took.count, compaction.slices.count, compaction.ended_at) == (0, 0, 0), "none is due"
    store.apply([(101, 1, records.compact(store.revision))])
    compaction.due()
    monkeypatch.setattr(node.loop, "call_later", lambda after_s, call: node.loop.soon.append(call))
    while store.compacting:
        node.loop.soon.pop()()
    assert (compaction.took.count, compaction.ended_at) == (1, 1_800_000_000)
    assert compaction.slices.count >= 1
    assert store.compacted_versions == 99


def test_behind_a_compaction_keys_that_are_gone_are_counted_no_more(
    replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "_BLOCK", 16)
    node = replica()
    store = node.store
    assert store.counts.build_step()
    for index in range(1, 101):
        store.apply([(index, 1, b"".join(records.put(b"%04d/%d" % (index, n), 0, 1, b"", 0)
                                         for n in range(10)))])
    store.apply([(101, 1, records.delete_range(b"0", b"1", 1000))])
    store.apply([(102, 1, records.put(b"k", 0, 1, b"", 0))])
    store.apply([(103, 1, records.compact(store.revision))])
    assert len(store.counts._starts) > 20
    begun = []
    monkeypatch.setattr(node.upkeep.counting, "_slicer", SimpleNamespace(start=begun.append))
    while not store.compaction_step(0):
        pass
    store.defragment()  # RocksDB does so in its time
    for _ in range(2):
        node.upkeep.compaction.due()
        node.loop.soon.pop()()
    (forgetting,) = begun  # the second one goes on with the first
    assert len(list(forgetting)) < 10
    assert store.counts._counts == [0, 1]
    node.upkeep.compaction.due()
    node.loop.soon.pop()()
    assert len(begun) == 1, "there is nothing to look at"


def test_behind_the_flush_of_what_a_compaction_removed_it_is_counted_no_more(
    replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next compaction may be far off. RocksDB has merged it by the second flush."""
    monkeypatch.setattr(counts, "_BLOCK", 64)
    node = replica()
    store = node.store
    assert store.counts.build_step()
    begun = []
    monkeypatch.setattr(node.upkeep.counting, "_slicer", SimpleNamespace(start=begun.append))

    def looks(work: Callable[[], object]) -> bool:
        work()
        found = [len(list(forgetting)) for forgetting in begun]
        begun.clear()
        return bool(found)

    for index in range(1, 101):
        store.apply([(index, 1, b"".join(records.put(b"%04d/%d" % (index, n), 0, 1, b"", 0)
                                         for n in range(10)))])
    store.apply([(101, 1, records.delete_range(b"0", b"1", 1000))])
    assert 0 in store.counts._counts
    flush = node.upkeep.flushes._begin
    assert not looks(flush), "without a compaction there is nothing to forget"
    store.apply([(102, 1, records.put(b"k", 0, 1, b"", 0) + records.compact(store.revision + 1))])
    while not store.compaction_step(0):
        pass
    node.upkeep.compaction.due()
    assert looks(node.loop.soon.pop())
    assert 0 in store.counts._counts[1:], "what it removed is not dropped yet"
    assert looks(flush)
    store.defragment()  # RocksDB does so in its time
    assert looks(flush)
    assert store.counts._counts == [0, 1]


def test_what_a_large_compaction_removes_is_flushed_soon(replica: Make) -> None:
    """RocksDB merges it then; in write buffers each list over it would walk it."""
    node = replica(shard=1)
    flushed: list[bool] = []
    node.upkeep.on_flushed = lambda: flushed.append(True)
    for removals, flushes in ((REMOVALS - 10, 0), (REMOVALS, 1), (REMOVALS, 0)):
        flushed.clear()
        index = node.store.position.order_index + 1
        puts = b"".join(records.put(b"k", 2 if n else 0, n + 1, b"", 0) for n in range(removals))
        node.store.apply([(index, 1, puts), (index + 1, 1, records.compact(node.store.revision + removals))])
        while not node.store.compaction_step(0):
            pass
        node.upkeep.compaction.due()
        node.loop.soon.pop()()
        for _ in range(2):
            node.upkeep.flushes.hasten(wanted=False)
        assert len(flushed) == flushes
        node.store.flush()
    node.loop.now_s += 10
    node.upkeep.flushes.hasten(wanted=False)
    assert flushed, "not twice within ten seconds"


def test_the_clock_compacts_at_the_leader_of_shard_0_alone(replica: Make) -> None:
    """``--auto-compaction-mode=revision``: all but the last so many."""
    for shard, leads in ((0, True), (0, False), (1, True)):
        node = replica(
            shard=shard, leads=leads, auto_compaction_mode="revision", auto_compaction_retention="10")
        asked: list[tuple[int, bytes]] = []
        if node.writes.leader is not None:
            node.writes.leader.execute = lambda *request, to=asked: to.append(request)
            node.writes.leader.view = SimpleNamespace(compact_revision=0)
        node.write(30, 10)
        for _ in range(2):
            node.upkeep.second()
            node.loop.now_s += 301
        expected = [(Method.COMPACT, pb.CompactionRequest(revision=21).SerializeToString())]
        assert asked == (expected if leads and not shard else [])


def test_a_new_leader_compacts_by_what_it_sampled_as_a_follower() -> None:
    """As in etcd. It began to sample when it began to lead: leaders that last less than a retention never
    compacted."""
    hour_ms = 3_600_000
    follower, compacted = AutoCompactor("periodic", "24"), []
    for second in range(0, 30 * 3600, 60):
        leads = second >= 25 * 3600
        due = follower.due(
            revision=1 + second, now_ms=second * 1000,
            compacted=(compacted[-1][1] if compacted else 0) if leads else None)
        if due is not None:
            compacted.append((second * 1000, due))
    assert compacted[0][0] == 25 * hour_ms, "at once"
    assert [at - before for (before, _), (at, _) in pairwise(compacted)] == [hour_ms] * (len(compacted) - 1)
    for at_ms, revision in compacted:  # sampled every six minutes
        assert 24 * hour_ms <= at_ms - (revision - 1) * 1000 < 24 * hour_ms + 360_000


def test_a_follower_keeps_as_many_samples_as_a_retention_has() -> None:
    follower = AutoCompactor("periodic", "1h")
    for second in range(0, 48 * 3600, 60):
        assert follower.due(second, second * 1000, compacted=None) is None
    assert len(follower._samples) <= 12
    assert follower.due(1 << 40, 48 * 3_600_000, compacted=0) == 47 * 3600


@pytest.mark.parametrize(("retention", "idle_min", "within_min"), [("1h", 311, 67), ("10m", 47, 11)])
def test_a_period_with_nothing_to_compact_is_not_waited_for_again(
    retention: str, idle_min: int, within_min: int
) -> None:
    """What a burst of writes leaves goes once it is a retention old, and a tenth, as in etcd."""
    leader, compacted, burst_at = AutoCompactor("periodic", retention), 0, 0
    for minute in range(idle_min + 2 * within_min):
        revision = 100 + max(minute - idle_min, 0)
        if (due := leader.due(revision, minute * 60_000, compacted=compacted)) is not None:
            assert due > compacted, "of the idle time one is enough"
            compacted = due
            burst_at = burst_at or (minute if due > 100 else 0)
    assert idle_min < burst_at <= idle_min + within_min


def test_a_compaction_that_the_corrupt_alarm_forbids_is_due_once_it_is_disarmed(replica: Make) -> None:
    node = replica(leads=True, auto_compaction_mode="periodic", auto_compaction_retention="1h")
    asked: list[tuple[int, bytes]] = []
    assert node.writes.leader is not None
    node.writes.leader.execute = lambda *request: asked.append(request)
    node.writes.leader.view = SimpleNamespace(compact_revision=0)
    node.write(30, 10)
    for minute in range(65):
        node.upkeep.alarms.corrupt = minute > 50
        node.upkeep.second()
        node.loop.now_s += 60
    assert not asked
    node.upkeep.alarms.corrupt = False
    node.upkeep.second()
    assert asked == [(Method.COMPACT, pb.CompactionRequest(revision=31).SerializeToString())]
