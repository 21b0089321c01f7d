"""node.storage.RaftLog as ``cluster.raft`` uses it."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.raft.types import Configuration, Entry, HardState, SnapshotPosition
from node.storage import DirectoryLocked, RaftLog, opening
from node.storage.log import mark as marks
from node.storage.log.mark import Mark, MarkFile
from node.storage.log.raft_log import ROW_BYTES
from tests.unit.storage.workload import CONFIGURATION


def entry(index: int, term: int, size: int = 10) -> Entry:
    return Entry(index, term, 1, bytes([index % 256]) * size)


@pytest.fixture
def log(tmp_path: Path):  # type: ignore[no-untyped-def]
    log = RaftLog.open(tmp_path / "log", initial=CONFIGURATION)
    yield log
    log.close()


def reopened(log: RaftLog) -> RaftLog:
    log.close()
    return RaftLog.open(log.path, initial=Configuration(frozenset({9})))


def test_a_fresh_log_is_empty_and_knows_its_group(log: RaftLog) -> None:
    assert log.hard_state() == HardState(0, 0, 0)
    assert log.snapshot_position() == SnapshotPosition(0, 0, CONFIGURATION)
    assert (log.first_index(), log.last_index(), log.term(0)) == (1, 0, 0)


def test_what_was_appended_is_read_back_after_a_restart(log: RaftLog) -> None:
    log.append([entry(1, 1), entry(2, 3)], HardState(3, 2, 1))
    log.append([entry(3, 3)])
    log.set_meta("incarnation/2", b"\x07")
    log = reopened(log)
    assert log.entries(1, 3, 1 << 20) == [entry(1, 1), entry(2, 3), entry(3, 3)]
    assert [log.term(i) for i in range(4)] == [0, 1, 3, 3]
    assert log.hard_state() == HardState(3, 2, 1)
    assert log.meta("incarnation/2") == b"\x07"
    assert log.meta("incarnation/3") is None
    log.close()


def test_the_highest_index_stays_when_another_leaders_entries_take_the_place_of_later_ones(
    log: RaftLog
) -> None:
    log.append([entry(i, 1) for i in range(1, 6)])
    log.append([entry(3, 2)])
    assert (log.last_index(), log.highest_index()) == (3, 5)
    log.append([entry(4, 2), entry(5, 2), entry(6, 2)])
    assert (log.last_index(), log.highest_index()) == (6, 6)
    log.reset(SnapshotPosition(2, 2, CONFIGURATION))
    assert (log.last_index(), log.highest_index()) == (2, 6)


def test_entries_stop_before_max_bytes_but_give_at_least_one(log: RaftLog) -> None:
    log.append([entry(i, 1, 100) for i in range(1, 11)])
    assert [e.index for e in log.entries(2, 10, 350)] == [2, 3, 4]
    assert [e.index for e in log.entries(5, 10, 0)] == [5]
    assert [e.index for e in log.entries(9, 10, 1 << 20)] == [9, 10]


def test_how_many_bytes_lie_behind_an_entry_is_known_whatever_becomes_of_the_log(log: RaftLog) -> None:
    def looks(log: RaftLog, sizes: dict[int, int]) -> None:
        """The log's entries have these sizes."""
        first, last = log.first_index(), log.last_index()
        assert list(sizes) == list(range(first, last + 1))
        for index in range(first - 1, last + 1):
            after = sum(size + ROW_BYTES for i, size in sizes.items() if i > index)
            assert log.bytes_after(index) == after
            assert log.bytes_after(log.index_before(after)) == after
        assert log.index_before(log.bytes_after(0) + 1) == first - 1
        assert log.index_before(1) == max(i for i in range(first - 1, last + 1) if log.bytes_after(i) >= 1)

    assert (log.bytes_after(0), log.index_before(0), log.index_before(10)) == (0, 0, 0)
    sizes = {i: 10 * i for i in range(1, 11)}
    log.append([entry(i, 1, size) for i, size in sizes.items()])
    looks(log, sizes)
    log.append([entry(8, 2, 5)])  # instead of what stood there
    sizes = {i: size for i, size in sizes.items() if i < 8} | {8: 5}
    looks(log, sizes)
    log.truncate_prefix(SnapshotPosition(3, 1, CONFIGURATION))
    sizes = {i: size for i, size in sizes.items() if i > 3}
    looks(log, sizes)
    log = reopened(log)
    looks(log, sizes)
    log.truncate_prefix(SnapshotPosition(8, 2, CONFIGURATION))
    assert (log.bytes_after(8), log.bytes_after(0), log.index_before(0)) == (0, 0, 8)
    log.append([entry(9, 2, 7)])
    looks(log, {9: 7})
    log.reset(SnapshotPosition(20, 3, CONFIGURATION))
    log.append([entry(21, 3, 9), entry(22, 3, 1)])
    looks(log, {21: 9, 22: 1})
    log.close()


def test_conflicting_entries_are_replaced_with_their_tail(log: RaftLog) -> None:
    log.append([entry(i, 1) for i in range(1, 11)])
    log.append([entry(4, 2), entry(5, 2)], HardState(2, 0, 0))
    for _ in range(2):
        assert log.last_index() == 5
        assert [log.term(i) for i in range(1, 6)] == [1, 1, 1, 2, 2]
        assert [e.term for e in log.entries(1, 5, 1 << 20)] == [1, 1, 1, 2, 2]
        log = reopened(log)
    log.close()


@pytest.mark.parametrize("wrong", [[entry(5, 1)], [entry(4, 1), entry(6, 1)], [entry(4, 0)]])
def test_entries_that_do_not_fit_are_refused(log: RaftLog, wrong: list[Entry]) -> None:
    log.append([entry(i, 1) for i in range(1, 4)])
    with pytest.raises(ValueError, match="entry"):
        log.append(wrong)


def test_a_prefix_is_dropped_only_at_an_entry_of_the_log(log: RaftLog) -> None:
    log.append([entry(i, 1 + i // 5) for i in range(1, 11)])
    with pytest.raises(ValueError, match="not in the log"):
        log.truncate_prefix(SnapshotPosition(7, 9, CONFIGURATION))
    with pytest.raises(ValueError, match="not in the log"):
        log.truncate_prefix(SnapshotPosition(11, 3, CONFIGURATION))
    other = Configuration(frozenset({1, 2}), frozenset({4}))
    log.truncate_prefix(SnapshotPosition(7, 2, other))
    log.truncate_prefix(SnapshotPosition(3, 1, CONFIGURATION))  # older: nothing to do
    for _ in range(2):
        assert log.snapshot_position() == SnapshotPosition(7, 2, other)
        assert (log.first_index(), log.last_index()) == (8, 10)
        assert log.term(7) == 2
        assert [e.index for e in log.entries(8, 10, 1 << 20)] == [8, 9, 10]
        with pytest.raises(IndexError):
            log.term(6)
        with pytest.raises(IndexError):
            log.entries(7, 9, 1)
        log = reopened(log)
    log.close()


def test_an_install_keeps_a_matching_suffix_and_drops_any_other(log: RaftLog) -> None:
    """H8: the entries behind the snapshot may have been acknowledged."""
    log.append([entry(i, 1) for i in range(1, 11)], HardState(1, 1, 0))
    position = SnapshotPosition(6, 1, CONFIGURATION)
    log.begin_install(position)
    log.finish_install(position)
    assert (log.first_index(), log.last_index()) == (7, 10)
    position = SnapshotPosition(8, 2, CONFIGURATION)
    log.begin_install(position)
    log.finish_install(position)
    for _ in range(2):
        assert (log.first_index(), log.last_index(), log.term(8)) == (9, 8, 2)
        assert log.hard_state() == HardState(1, 1, 0)  # I18: the own vote is kept
        log = reopened(log)
    log.append([entry(9, 2)])
    assert log.entries(9, 9, 1) == [entry(9, 2)]
    log.close()


def test_a_second_opening_is_refused(log: RaftLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "ENDING_S", 0.0)
    with pytest.raises(DirectoryLocked, match="in use by another process"):
        RaftLog.open(log.path, initial=CONFIGURATION)


def test_an_opening_waits_for_a_node_that_ends(log: RaftLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of a host that was killed end a moment after it."""
    looks: list[float] = []

    def ends(pause_s: float) -> None:
        looks.append(pause_s)
        if len(looks) == 2:
            log.close()

    monkeypatch.setattr(opening, "ENDING_S", 60.0)
    monkeypatch.setattr(opening, "time", SimpleNamespace(monotonic=time.monotonic, sleep=ends))
    RaftLog.open(log.path, initial=CONFIGURATION).close()
    assert len(looks) == 2


def test_a_term_never_goes_back(log: RaftLog) -> None:
    log.append([], HardState(4, 0, 0))
    with pytest.raises(ValueError, match="goes back"):
        log.append([], HardState(3, 0, 0))


def test_syncs_in_a_thread_and_appends_in_the_loop_do_not_disturb_each_other(log: RaftLog) -> None:
    rng = random.Random(1)
    stop = threading.Event()
    failures: list[BaseException] = []

    def sync() -> None:
        try:
            while not stop.is_set():
                log.sync()
        except BaseException as e:
            failures.append(e)

    thread = threading.Thread(target=sync)
    thread.start()
    term = 1
    try:
        for _ in range(300):
            if rng.random() < 0.1 and log.last_index() > 2:  # a new leader replaces some
                term += 1
                first = rng.randrange(max(log.first_index(), log.last_index() - 20), log.last_index() + 1)
            else:
                first = log.last_index() + 1
            log.append(
                [entry(i, term, 200) for i in range(first, first + rng.randrange(1, 10))],
                HardState(term, 0, 0),
            )
            if rng.random() < 0.02:
                last = log.last_index()
                log.truncate_prefix(SnapshotPosition(last - 1, log.term(last - 1), CONFIGURATION))
    finally:
        stop.set()
        thread.join()
    assert not failures
    first, last = log.first_index(), log.last_index()
    log = reopened(log)  # the mark agrees
    assert (log.first_index(), log.last_index()) == (first, last)
    log.close()


def test_the_mark_is_synced_before_the_log_gets_shorter_though_the_disk_had_it_so_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H10: the system writes out by itself what a mark said in between."""
    syncs: list[int] = []
    mark = MarkFile(tmp_path / "mark", no_fsync=False)
    monkeypatch.setattr(os, "fdatasync", syncs.append)
    monkeypatch.setattr(marks, "_SYNC_INTERVAL_S", 1e9)  # however busy the machine is
    shorter, longer = Mark(90, 1, 1, 1), Mark(100, 1, 1, 1)
    mark.create()
    mark.write(shorter, force=True)
    before = len(syncs)
    mark.write(shorter, force=True)
    mark.write(longer)
    assert len(syncs) == before, "at most once a second"
    mark.write(shorter, force=True)
    assert len(syncs) == before + 1
    mark.close()


def test_without_fsync_everything_else_is_the_same(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path / "log", initial=CONFIGURATION, no_fsync=True)
    log.append([entry(1, 1)], HardState(1, 1, 0))
    log.sync()
    log = reopened(log)
    assert log.last_index() == 1
    log.close()
