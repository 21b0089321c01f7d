"""The log's file is filled ahead of what is written: what a crash then leaves behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.raft.types import Entry
from node.storage import RaftLog, StorageCorruption
from node.storage.log import ahead
from node.storage.log.ahead import FILL_BYTES, FILLING, FIRST_BYTES
from tests.unit.storage.workload import CONFIGURATION

PAGE = 4096


def entries(first: int, last: int, size: int) -> list[Entry]:
    return [Entry(i, 1, 1, bytes([i % 4]) * size) for i in range(first, last + 1)]  # never like the filling


def newest(log: RaftLog) -> Path:
    return max((Path(log.path) / "db").glob("*.log"), key=lambda file: int(file.stem))


def end_of(file: Path) -> int:
    """Where what is written ends."""
    return len(file.read_bytes().rstrip(FILLING))


def image(log: RaftLog, name: str) -> Path:
    """What a process that dies now leaves behind."""
    root = Path(log.path).with_name(name)
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(log.path, root)
    return root


def last_of(root: Path) -> int:
    """Where a log ends that is opened again; every entry is what was written."""
    log = RaftLog.open(root, initial=CONFIGURATION)
    try:
        for entry in log.entries(1, log.last_index(), 1 << 30):
            assert entry == entries(entry.index, entry.index, len(entry.data))[0]
        return log.last_index()
    finally:
        log.close()


@pytest.fixture
def log(tmp_path: Path):  # type: ignore[no-untyped-def]
    log = RaftLog.open(tmp_path / "log", initial=CONFIGURATION)
    yield log
    log.close()


def test_a_log_with_little_in_it_is_as_long_as_that(log: RaftLog) -> None:
    log.append(entries(1, 10, 100))
    log.sync()
    assert newest(log).stat().st_size == end_of(newest(log)) < FIRST_BYTES


def test_appends_go_to_room_that_is_there(log: RaftLog) -> None:
    log.append(entries(1, 100, 1000))
    size = newest(log).stat().st_size
    assert size == end_of(newest(log)) + FILL_BYTES  # whole pieces
    for i in range(101, 200):
        log.append(entries(i, i, 1000))
        log.sync()
        assert newest(log).stat().st_size == size
    log.append(entries(200, 240, 1000))  # half of it is used: more is filled in
    assert newest(log).stat().st_size == size + FILL_BYTES
    assert last_of(image(log, "crashed")) == 240


@pytest.mark.parametrize("size", [0, 7, 100, 3000, 40_000])
def test_after_a_crash_everything_is_there_whatever_the_filling_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Small fillings often, so that each meets another place in a block; some writes pass the filled end."""
    monkeypatch.setattr(ahead, "FILL_BYTES", 5000)
    monkeypatch.setattr(ahead, "FIRST_BYTES", 1)
    log = RaftLog.open(tmp_path / "log", initial=CONFIGURATION)
    rng, last = random.Random(size), 0
    for _ in range(60):
        count = rng.choice([1, 1, 3, 20])
        log.append(entries(last + 1, last + count, size))
        last += count
    assert log._ahead.filled_bytes > 20_000
    assert last_of(image(log, "crashed")) == last
    log.close()
    assert last_of(tmp_path / "log") == last


def test_a_page_that_a_power_cut_left_unwritten_ends_the_log_there(log: RaftLog, tmp_path: Path) -> None:
    """The filling never lets RocksDB find a later entry whose predecessor is gone, wherever the page lies."""
    log.append(entries(1, 100, 1000))
    log.sync()
    synced = end_of(newest(log))
    for i in range(101, 260):
        log.append(entries(i, i, 11 * i % 1500))
    end = end_of(newest(log))
    found = []
    for page in range(synced // PAGE + 1, end // PAGE + 1):
        crashed = image(log, "crashed")
        with open(newest(log).parent.parent.with_name("crashed") / "db" / newest(log).name, "r+b") as file:
            file.seek(page * PAGE)
            file.write(FILLING * PAGE)
        found.append(last_of(crashed))
    assert found == sorted(found)
    assert 100 <= found[0] < found[-1] < 260
    assert len(set(found)) > 20


def test_a_block_that_begins_with_a_whole_record_is_not_looked_for_behind_a_page_that_is_missing(
    log: RaftLog,
) -> None:
    """Behind zeros RocksDB would go on with the next block of 32 KiB, and find entries there."""
    log.append(entries(1, 1, 300))
    before = end_of(newest(log))
    log.append(entries(2, 2, 300))
    overhead = end_of(newest(log)) - before - 300
    log.append(entries(3, 3, -end_of(newest(log)) % 512 + 512 - overhead))
    for i in range(4, 300):  # each takes 512 bytes, so that one begins with every block
        log.append(entries(i, i, 512 - overhead))
    assert end_of(newest(log)) % 512 == 0
    for filling, found in ((FILLING, "last"), (b"\0", "later ones")):
        crashed = image(log, "crashed")
        with open(crashed / "db" / newest(log).name, "r+b") as file:
            file.seek((64 << 10) - PAGE)
            file.write(filling * PAGE)
        if found == "last":
            assert 100 < last_of(crashed) < 130
        else:
            with pytest.raises(StorageCorruption, match=r"has entry \(129, term 1\) after \(12"):
                RaftLog.open(crashed, initial=CONFIGURATION)


def test_a_tail_torn_at_any_byte_ends_the_log_before_its_entry(log: RaftLog) -> None:
    log.append(entries(1, 100, 1000))
    log.sync()
    synced = end_of(newest(log))
    log.append(entries(101, 101, 40))
    second = end_of(newest(log))
    log.append(entries(102, 102, 40))
    for cut in range(synced, second + 1, 3):
        crashed = image(log, "crashed")
        with open(crashed / "db" / newest(log).name, "r+b") as file:
            file.seek(cut)
            file.write(FILLING * (second + 200 - cut))
        assert last_of(crashed) == 100 + (cut >= second)


def test_a_synced_end_that_became_filling_again_is_missed(log: RaftLog) -> None:
    """H10: the filling looks like the end of the log; the mark knows better."""
    log.append(entries(1, 100, 1000))
    log.sync()
    crashed = image(log, "crashed")
    with open(crashed / "db" / newest(log).name, "r+b") as file:
        file.seek(end_of(newest(log)) - 10)
        file.write(FILLING * 10)
    with pytest.raises(StorageCorruption, match="must not vote"):
        RaftLog.open(crashed, initial=CONFIGURATION)


def test_a_flipped_bit_in_the_filling_changes_nothing(log: RaftLog) -> None:
    log.append(entries(1, 100, 1000))
    log.sync()
    end = end_of(newest(log))
    rng = random.Random(3)
    kind = [(6, bit) for bit in range(8)]  # the byte that says what kind of record it is
    for at, bit in [*kind, *((rng.randrange(11), rng.randrange(8)) for _ in range(12)), (5000, 0)]:
        crashed = image(log, "crashed")
        with open(crashed / "db" / newest(log).name, "r+b") as file:
            file.seek(end + at)
            file.write(bytes((FILLING[0] ^ 1 << bit,)))
        assert last_of(crashed) == 100, (at, bit)


VICTIM = """
import os, signal, sys
from pathlib import Path
from node.storage import RaftLog
from tests.unit.storage.log.test_ahead import CONFIGURATION, entries
log = RaftLog.open(sys.argv[1], initial=CONFIGURATION, write_buffer_bytes=256 << 10)
last = 0
while len(list(Path(log.path, "db").glob("*.log"))) < 2:
    log.append(entries(last + 1, last + 20, 1000))
    last += 20
print(last, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_files_before_the_newest_may_end_in_filling_too(tmp_path: Path) -> None:
    """A process that dies just after a change of files has not cut the old one to its length."""
    done = subprocess.run(
        [sys.executable, "-c", VICTIM, str(tmp_path / "log")], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    files = list((tmp_path / "log" / "db").glob("*.log"))
    assert len(files) >= 2
    for file in files:
        with open(file, "ab") as old:
            old.write(FILLING * 70_000)
    assert last_of(tmp_path / "log") == int(done.stdout)


def test_files_are_recycled_as_before(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path / "log", initial=CONFIGURATION, write_buffer_bytes=1 << 20)
    last = 0
    for _ in range(40):
        log.append(entries(last + 1, last + 400, 1000))
        log.sync()
        last += 400
    log.close()
    assert "from recycle list" in (tmp_path / "log" / "db" / "LOG").read_text()
    assert last_of(tmp_path / "log") == last


def test_a_disk_that_is_full_is_rocksdbs_to_tell(log: RaftLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    log.append(entries(1, 1000, 1000))
    log.sync()
    assert log._ahead.filled_bytes == 0
    monkeypatch.undo()
    log.append(entries(1001, 2000, 1000))
    assert log._ahead.filled_bytes > 0
    assert last_of(image(log, "crashed")) == 2000


def test_a_log_that_is_never_synced_is_not_filled(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path / "log", initial=CONFIGURATION, no_fsync=True)
    log.append(entries(1, 1000, 1000))
    assert log._ahead.filled_bytes == 0
    log.close()
    assert os.path.exists(tmp_path / "log" / "synced")
