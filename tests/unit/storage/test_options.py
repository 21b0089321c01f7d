"""What the log's recovery needs of RocksDB is what it is opened with; another RocksDB is refused before it
loses anything."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rocksdict import DBRecoveryMode, Options, Rdict

from node.storage import RaftLog, options
from node.storage.errors import LibraryRefused
from node.storage.log import raft_log
from node.storage.options import LOG_NEEDS, check_log_opened, log_options, state_options
from tests.unit.storage.workload import CONFIGURATION


def test_the_log_is_opened_as_its_recovery_needs_it(tmp_path: Path) -> None:
    for _ in range(3):
        opened = RaftLog.open(tmp_path, initial=CONFIGURATION)
        check_log_opened(tmp_path / "db")
        opened.close()
    assert {"wal_recovery_mode", "recycle_log_file_num", "avoid_flush_during_recovery"} < LOG_NEEDS.keys()


def test_manifests_have_a_bound(tmp_path: Path) -> None:
    """RocksDB's own is a gigabyte. A start reads the whole file, and a checkpoint copies it."""
    for made in (log_options(1 << 20, create=True), state_options(1 << 20, 1 << 20, create=True)):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        Rdict(str(folder), made).close()
        (written,) = folder.glob("OPTIONS-*")
        assert f"max_manifest_file_size={1 << 20}\n" in written.read_text()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda o: o.set_wal_recovery_mode(DBRecoveryMode.absolute_consistency()),
         "wal_recovery_mode=kAbsoluteConsistency where kPoint"),
        (lambda o: o.set_wal_recovery_mode(DBRecoveryMode.absolute_consistency()),
         "recycle_log_file_num=0 where 2 is needed"),
        (lambda o: o.set_recycle_log_file_num(0), "recycle_log_file_num=0 where 2 is needed"),
        (lambda o: o.set_allow_mmap_writes(True), "allow_mmap_writes=true where false is needed"),
    ],
)  # fmt: skip
def test_a_log_that_was_opened_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Options], None], told: str
) -> None:
    def changed(write_buffer_bytes: int, *, create: bool) -> Options:
        made = log_options(write_buffer_bytes, create=create)
        change(made)
        return made

    monkeypatch.setattr(raft_log, "log_options", changed)
    with pytest.raises(LibraryRefused, match=told) as refused:
        RaftLog.open(tmp_path, initial=CONFIGURATION)
    assert "Install a version of rocksdict that muster was tried with" in str(refused.value)
    monkeypatch.undo()
    RaftLog.open(tmp_path, initial=CONFIGURATION).close()  # nothing was damaged, and nothing is held


@pytest.mark.parametrize("files", [[], [os.O_WRONLY | os.O_APPEND]])
def test_a_rocksdb_that_writes_to_the_end_of_its_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[int]
) -> None:
    monkeypatch.setattr(options, "_flags_of_files", lambda directory: files)
    with pytest.raises(LibraryRefused, match="does not write its log at an offset of its own"):
        RaftLog.open(tmp_path, initial=CONFIGURATION)


@pytest.mark.parametrize("code", [errno.ENFILE, errno.EACCES])
def test_a_moment_without_files_does_not_blame_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """It stopped the host for good. A file that may not be looked at is passed over."""
    read = Path.read_text

    def lacking(path: Path, *args: Any, **keywords: Any) -> str:
        if path.is_relative_to("/proc/self/fdinfo"):
            raise OSError(code, os.strerror(code))
        return read(path, *args, **keywords)

    monkeypatch.setattr(Path, "read_text", lacking)
    with pytest.raises(OSError if code == errno.ENFILE else LibraryRefused, match=r"."):
        RaftLog.open(tmp_path, initial=CONFIGURATION)
    monkeypatch.undo()
    RaftLog.open(tmp_path, initial=CONFIGURATION).close()


def test_the_flags_of_open_files_are_found(tmp_path: Path) -> None:
    """One that is appended to beside the log, as ``ahead`` does."""
    opened = RaftLog.open(tmp_path, initial=CONFIGURATION)
    before = options._flags_of_files(tmp_path / "db")
    assert before
    newest = max((tmp_path / "db").glob("*.log"))
    with open(newest, "ab"):
        assert len([flags for flags in options._flags_of_files(tmp_path / "db") if flags & os.O_APPEND]) == 1
    assert options._flags_of_files(tmp_path / "db") == before
    opened.close()


