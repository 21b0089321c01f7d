"""What a crash may take, and what it may not: processes killed at random points, logs cut as a power cut
does."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rocksdict import WriteBatch

from cluster.grain import GRAIN
from cluster.raft.types import Entry, HardState, SnapshotPosition
from node.storage import RaftLog, StateStore, StorageCorruption, SyncFailed, directory
from node.storage.log import mark
from tests.soaking import SOAK
from tests.unit.storage.conftest import OpenStore
from tests.unit.storage.state.stores import history
from tests.unit.storage.workload import CONFIGURATION, open_both, replay, stream

SEEDS = range(7, 27 if SOAK else 8)
ROUNDS = 6


def kill_after(root: Path, seed: int, seconds: float) -> int:
    """Run the victim, kill it, and return the last index whose sync it has reported."""
    victim = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.storage.workload", str(root), str(seed)], stdout=subprocess.PIPE,
        text=True,
    )
    assert victim.stdout is not None
    acknowledged = 0
    deadline = None
    try:
        for line in victim.stdout:
            acknowledged = int(line)
            if deadline is None:  # it is at work
                deadline = time.monotonic() + seconds
            if time.monotonic() >= deadline:
                break
        assert victim.poll() is None, "the victim died by itself"
        victim.send_signal(signal.SIGKILL)
        # what it managed to report before the kill counts
        for line in victim.stdout:
            if line.endswith("\n"):
                acknowledged = int(line)
    finally:
        victim.kill()
        victim.wait()
        victim.stdout.close()
    return acknowledged


@pytest.mark.longer
@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_kill_the_log_has_all_that_was_synced_and_replay_gives_the_same_state(
    tmp_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """H9, I17, I19: nothing acknowledged is lost, and half-written runs leave no trace."""
    monkeypatch.setattr(GRAIN, "run_entries", 7)
    rng = random.Random(seed)
    reference, records = open_store("reference"), stream(seed)
    compacted = 0
    for _ in range(ROUNDS):
        acknowledged = kill_after(tmp_path / "victim", seed, rng.uniform(0.02, 0.4))
        log, state = open_both(tmp_path / "victim")
        try:
            assert log.last_index() >= acknowledged > 0
            assert log.committed() >= (acknowledged, 0)  # I25
            assert log.committed()[0] >= log.snapshot_position().index
            assert log.committed()[1] == log.term(log.committed()[0])
            assert (
                log.snapshot_position().index
                <= state.durable_position.shard_index
                == state.position.shard_index
            )
            replay(log, state)
            while reference.position.shard_index < log.last_index():
                reference.apply([next(records)])
            assert state.position == reference.position
            assert state.hash_state().run() == reference.hash_state().run()  # I19
            assert state.hash_kv().run() == reference.hash_kv().run()
            events = history(state, b"\0", b"\0", max(1, state.compact_revision), want_prev=True).events
            assert (
                events
                == history(reference, b"\0", b"\0", max(1, state.compact_revision), want_prev=True).events
            )
            for lease in (1, 2, 3):
                assert state.lease_keys(lease) == reference.lease_keys(lease)
            compacted = max(compacted, state.compact_revision)
        finally:
            state.close()
            log.close()
    assert compacted, "the run was too short to meet a compaction"


def fill_log(path: Path) -> RaftLog:
    log = RaftLog.open(path, initial=CONFIGURATION)
    log.append([Entry(i, 1 + i // 50, 1, b"x" * 100) for i in range(1, 101)], HardState(5, 2, 0))
    log.sync()
    return log


def crash(log: RaftLog, lost_bytes: int = 0) -> Path:
    """What a process that dies now leaves behind; with ``lost_bytes``, a disk that forgot the end of the
    log."""
    root = Path(log.path)
    log._database.flush_wal(False)
    image = root.with_name(root.name + "-crashed")
    shutil.copytree(root, image)
    if lost_bytes:
        file = wal(image)
        os.truncate(file, file.stat().st_size - lost_bytes)
    log.close()
    return image


def wal(path: Path) -> Path:
    """The write-ahead log file with data in it."""
    return max((path / "db").glob("*.log"), key=lambda f: f.stat().st_size)


@pytest.mark.parametrize("lost_bytes", [1, 500, 5000])
def test_a_log_that_lost_its_synced_end_is_refused(tmp_path: Path, lost_bytes: int) -> None:
    """H10: point-in-time recovery drops the tail and says nothing; the mark knows better. Again at every
    start."""
    image = crash(fill_log(tmp_path / "log"), lost_bytes)
    for _ in range(2):
        with pytest.raises(StorageCorruption, match=r"must not vote.*remove the member"):
            RaftLog.open(image, initial=CONFIGURATION)


def test_the_mark_is_synced_a_second_later_though_nothing_more_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H10: a power cut leaves the mark as it was synced."""
    now, path = [100.0], tmp_path / "log" / "synced"
    kept: list[bytes] = []
    real = os.fdatasync

    def synced(fd: int) -> None:
        real(fd)
        if os.path.samestat(os.fstat(fd), path.stat()):
            kept.append(path.read_bytes())

    monkeypatch.setattr(mark.time, "monotonic", lambda: now[0])
    log = RaftLog.open(tmp_path / "log", initial=CONFIGURATION)
    monkeypatch.setattr(os, "fdatasync", synced)
    for index, later_s in ((1, 1.5), (2, 0.5)):
        now[0] += later_s
        log.append([Entry(index, 1, 1, b"e" * 300)], HardState(1, 1, 0))
        log.sync()
    assert not log.mark_is_behind()
    now[0] += 1.0
    assert log.mark_is_behind()
    log.sync()
    assert not log.mark_is_behind()
    before, after = kept[-2:]
    image = crash(log, 100)  # of the second entry
    for name, content in (("before", before), ("after", after)):
        shutil.copytree(image, tmp_path / name)
        (tmp_path / name / "synced").write_bytes(content)
    RaftLog.open(tmp_path / "before", initial=CONFIGURATION).close()
    with pytest.raises(StorageCorruption, match="ends at 1, but 2 had been synced"):
        RaftLog.open(tmp_path / "after", initial=CONFIGURATION)


def test_a_mark_that_is_synced_rests_while_nothing_more_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heartbeat that comes while a node syncs for the mark's sake has the log synced once more."""
    now = [100.0]
    monkeypatch.setattr(mark.time, "monotonic", lambda: now[0])
    log = RaftLog.open(tmp_path / "log", initial=CONFIGURATION)
    now[0] += 1.5
    log.append([Entry(1, 1, 1, b"e" * 300)], HardState(1, 1, 0))
    for _ in range(3):
        log.sync()
        now[0] += 0.4
    now[0] += 1.0
    assert not log.mark_is_behind()
    log.append([Entry(2, 1, 1, b"e" * 300)], None)
    log.sync()
    assert not log.mark_is_behind(), "it was time: it is synced at once"
    log.close()


def test_a_log_whose_vote_was_rolled_back_is_refused(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path / "log", initial=CONFIGURATION)
    log.append([], HardState(5, 0, 0))
    log.append([], HardState(5, 2, 0))
    log.sync()
    image = crash(log, 1)
    with pytest.raises(StorageCorruption, match="vote 0, but term 5 and vote 2 had been synced"):
        RaftLog.open(image, initial=CONFIGURATION)


def test_what_was_never_synced_may_be_lost(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path / "log", initial=CONFIGURATION)
    log.append([Entry(1, 1, 1, b"synced")], HardState(1, 1, 0))
    log.sync()
    log.append([Entry(2, 1, 1, b"not synced")])
    log = RaftLog.open(crash(log, 1), initial=CONFIGURATION)
    assert log.last_index() == 1
    log.close()


def test_a_legal_truncation_that_a_crash_overtook_is_no_loss(tmp_path: Path) -> None:
    """A new leader's entries replace synced ones by fewer; the mark is lowered first, so both outcomes
    open."""
    for lost_bytes, last in ((0, 60), (1, 100)):
        log = fill_log(tmp_path / f"log{last}")
        log.append([Entry(60, 6, 1, b"replaces 41 entries")], HardState(6, 0, 0))
        log = RaftLog.open(crash(log, lost_bytes), initial=CONFIGURATION)
        assert log.last_index() == last
        log.close()


def test_a_mark_that_a_killed_process_has_lowered_is_synced_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same entries come again, and replace the same ones: the mark names no more than it seems to."""
    log = fill_log(tmp_path / "log")
    lasting = Path(log.path, "synced").read_bytes()

    def never(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    replacing = [Entry(60, 6, 1, b"replaces 41 entries")]
    with monkeypatch.context() as killed:
        killed.setattr(os, "fdatasync", never)
        with pytest.raises(SyncFailed):
            log.append(replacing, HardState(6, 0, 0))
    image = crash(log)
    real = os.fdatasync

    def synced(fd: int) -> None:
        nonlocal lasting
        real(fd)
        lasting = (image / "synced").read_bytes()

    monkeypatch.setattr(os, "fdatasync", synced)
    log = RaftLog.open(image, initial=CONFIGURATION)
    assert log.last_index() == 100
    log.append(replacing, HardState(6, 0, 0))
    left = lasting
    cut = crash(log)
    (cut / "synced").write_bytes(left)
    log = RaftLog.open(cut, initial=CONFIGURATION)
    assert log.last_index() == 60
    log.close()


def test_a_sync_that_ends_after_a_truncation_does_not_raise_the_mark_over_it(tmp_path: Path) -> None:
    log = fill_log(tmp_path / "log")

    class Database:  # the loop truncates while the helper thread waits for the disk
        def flush_wal(self, sync: bool) -> None:
            log._database = real
            log.append([Entry(60, 6, 1, b"")], HardState(6, 0, 0))

    real = log._database
    log._database = Database()  # type: ignore[assignment]
    log.sync()
    log = RaftLog.open(crash(log), initial=CONFIGURATION)
    assert log.last_index() == 60
    log.close()


def test_a_truncation_claims_nothing_whose_sync_is_under_way(tmp_path: Path) -> None:
    """A new leader's entries may come before those of the last one, and a vote, are synced."""
    log = fill_log(tmp_path / "log")
    disk = shutil.copytree(log.path, tmp_path / "disk")
    log.append([Entry(101, 5, 1, b""), Entry(102, 5, 1, b"")], HardState(9, 3, 0))
    log.append([Entry(102, 9, 1, b"")])
    shutil.copy(Path(log.path, "synced"), disk)  # the mark is synced at once, the entries are not
    log.close()
    log = RaftLog.open(disk, initial=CONFIGURATION)
    assert (log.last_index(), log.hard_state().term) == (100, 5)
    log.close()


def test_a_sync_claims_nothing_that_was_written_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper thread's sync may fall between an append's bookkeeping and its write."""
    log = fill_log(tmp_path / "log")

    def sync_then_die(self: RaftLog, batch: WriteBatch) -> None:
        monkeypatch.undo()
        self.sync()
        raise SyncFailed("the write never happened")

    monkeypatch.setattr(RaftLog, "_write", sync_then_die)
    with pytest.raises(SyncFailed):
        log.append([Entry(101, 5, 1, b"")], HardState(9, 3, 0))
    log = RaftLog.open(crash(log), initial=CONFIGURATION)
    assert (log.last_index(), log.hard_state().term) == (100, 5)
    log.close()


def test_a_sync_that_another_one_overtakes_takes_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark on the disk knows of the later one: a truncation lowers it."""
    log = fill_log(tmp_path / "log")

    class Overtaken:
        def flush_wal(self, sync: bool) -> None:
            monkeypatch.undo()
            log.append([Entry(102, 5, 1, b"")])
            log.sync()

    log.append([Entry(101, 5, 1, b"")])
    monkeypatch.setattr(log, "_database", Overtaken())
    log.sync()
    forced = []
    write = log._mark.write

    def noted(covered: mark.Mark, force: bool = False) -> None:
        forced.append(force)
        write(covered, force=force)

    monkeypatch.setattr(log._mark, "write", noted)
    log.append([Entry(102, 9, 1, b"")])
    assert forced == [True]
    log.close()


def test_a_removed_log_is_missed(tmp_path: Path) -> None:
    fill_log(tmp_path).close()
    for file in (tmp_path / "db").iterdir():
        file.unlink()
    with pytest.raises(StorageCorruption, match=r"is gone.*must not vote"):
        RaftLog.open(tmp_path, initial=CONFIGURATION)


def test_a_removed_mark_is_missed(tmp_path: Path) -> None:
    fill_log(tmp_path).close()
    (tmp_path / "synced").unlink()
    with pytest.raises(StorageCorruption, match="synced is missing"):
        RaftLog.open(tmp_path, initial=CONFIGURATION)


def test_a_log_that_does_not_meet_the_state_is_refused(tmp_path: Path) -> None:
    fill_log(tmp_path).close()
    log = RaftLog.open(tmp_path, initial=CONFIGURATION)
    log.verify(100)
    with pytest.raises(StorageCorruption, match="ends at 100, but 101 had been applied"):
        log.verify(101)
    log.truncate_prefix(SnapshotPosition(40, 1, CONFIGURATION))
    log.verify(40)
    with pytest.raises(StorageCorruption, match="ends at 39, but the log begins behind 40"):
        log.verify(39)
    log.close()


def test_a_crash_between_the_switch_of_the_state_and_that_of_the_log_is_mended(tmp_path: Path) -> None:
    fill_log(tmp_path).close()
    target = SnapshotPosition(500, 7, CONFIGURATION)
    log = RaftLog.open(tmp_path, initial=CONFIGURATION)
    log.begin_install(target)
    log.close()
    log = RaftLog.open(tmp_path, initial=CONFIGURATION)
    log.verify(500)  # the state was switched
    assert (log.last_index(), log.snapshot_position()) == (500, target)
    log.append([Entry(501, 7, 1, b"")], HardState(7, 0, 0))
    log.close()

    log = RaftLog.open(tmp_path, initial=CONFIGURATION)
    log.begin_install(SnapshotPosition(900, 8, CONFIGURATION))
    log.close()
    log = RaftLog.open(tmp_path, initial=CONFIGURATION)
    log.verify(501)  # the state was not switched
    assert log.last_index() == 501
    with pytest.raises(StorageCorruption):  # and the intent is forgotten
        log.verify(900)
    log.close()


def test_a_start_makes_a_switch_last_before_the_state_of_before_goes(
    open_store: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process was killed behind the rename of an install, before it had synced that."""
    open_store().close()
    root = tmp_path / "state"
    shutil.copytree(root / "db-1", root / "db-2")
    directory.write_current(root, "db-2")
    lasting: list[list[str]] = []
    monkeypatch.setattr(directory, "sync_directory", lambda path: lasting.append(sorted(os.listdir(path))))
    open_store()
    assert lasting == [["current", "db-1", "db-2"]]
    assert sorted(os.listdir(root)) == ["current", "db-2"]

    def fail(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(directory, "sync_directory", fail)
    with pytest.raises(SyncFailed, match="Input/output error"):
        directory.remove_others(root, "db-2")


def test_a_state_cut_between_its_slices_shows_nothing_of_the_run(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(b) Visibility: rows above the position are invisible, and applying them again changes nothing."""
    monkeypatch.setattr(GRAIN, "apply_slice_bytes", 3000)
    monkeypatch.setattr(GRAIN, "run_entries", 7)
    records = stream(3)
    first, second = [next(records) for _ in range(40)], [next(records) for _ in range(40)]
    store, reference = open_store(), open_store("reference")
    store.apply(first)
    reference.apply(first)

    def seen() -> object:
        return (
            store.position, store.hash_state().run(),
            history(store, b"\0", b"\0", store.compact_revision or 1),
        )

    before, written = seen(), 0
    write = StateStore.write

    def write_some(self: StateStore, batch: WriteBatch) -> None:
        nonlocal written
        written += 1
        if written > 3:
            raise OSError("cut off here")
        write(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(StateStore, "write", write_some)
        with pytest.raises(OSError, match="cut off"):
            store.apply(second)
    assert written > 3
    store.flush()
    store.close()
    store = open_store()
    assert seen() == before
    store.apply(second)
    reference.apply(second)
    assert store.hash_state().run() == reference.hash_state().run()
