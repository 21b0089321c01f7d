"""What a log takes of the disk beside what it keeps."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest
from rocksdict import Options

from cluster.raft import Entry, EntryKind, SnapshotPosition
from node.storage import RaftLog, StorageCorruption
from node.storage.log import raft_log as log_module
from node.storage.options import LOG_BESIDE
from tests.unit.storage.workload import CONFIGURATION

BUFFER = 1 << 20
KEPT = 4 * BUFFER
REST = 2  # of these: RocksDB's diary and manifest


def most_beside(path: Path, size: int, count: int) -> float:
    """Log entries of this size and truncate as a node does; write buffers that the files took at most beside
    that."""
    log = RaftLog.open(path, initial=CONFIGURATION, write_buffer_bytes=BUFFER, no_fsync=True)
    data, most, since = os.urandom(size), 0, 0
    for index in range(1, count + 1):
        log.append([Entry(index, 1, EntryKind.RECORD, data)])
        since += size
        if since >= BUFFER // 2:
            since = 0
            most = max(most, log.file_bytes() - log.bytes_after(0))
            if (before := log.index_before(KEPT)) > log.snapshot_position().index:
                log.truncate_prefix(SnapshotPosition(before, 1, CONFIGURATION))
    log.close()
    return most / BUFFER


@pytest.mark.parametrize(("size", "count"), [(BUFFER // 4, 600), (BUFFER // 32, 4800), (40, 60_000)])
def test_files_take_a_bounded_number_of_buffers_beside_what_is_kept(
    tmp_path: Path, size: int, count: int
) -> None:
    assert most_beside(tmp_path, size, count) <= LOG_BESIDE + REST


def test_that_rests_on_entries_in_files_of_their_own(tmp_path: Path) -> None:
    """Without them a compaction writes all that is kept once more, and many tables wait for it."""
    made = log_module.log_options

    def without(write_buffer_bytes: int, *, create: bool) -> Options:
        options = made(write_buffer_bytes, create=create)
        options.set_enable_blob_files(False)
        options.set_level_zero_slowdown_writes_trigger(36)
        options.set_level_zero_stop_writes_trigger(36)
        options.set_level_zero_file_num_compaction_trigger(16)
        return options

    with mock.patch.object(log_module, "log_options", without):
        assert most_beside(tmp_path, BUFFER // 4, 600) > LOG_BESIDE + REST


def test_a_file_of_entries_that_is_gone_or_damaged_is_found_out(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path, initial=CONFIGURATION, write_buffer_bytes=BUFFER, no_fsync=True)
    log.append([Entry(index, 1, EntryKind.RECORD, b"x" * 1000) for index in range(1, 10)])
    log.reclaim()
    log.close()
    (blob,) = (tmp_path / "db").glob("*.blob")
    data = bytearray(blob.read_bytes())
    blob.write_bytes(data[:4000] + bytes((data[4000] ^ 1,)) + data[4001:])
    with pytest.raises(StorageCorruption, match=r"orrupt|mismatch"):
        RaftLog.open(tmp_path, initial=CONFIGURATION)
    blob.unlink()
    with pytest.raises(StorageCorruption, match=blob.name):
        RaftLog.open(tmp_path, initial=CONFIGURATION)
