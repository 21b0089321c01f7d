"""What is noted of the log's commit is there after a kill, and nothing else is (I25)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.raft.types import Entry, HardState
from node.storage import RaftLog, SyncFailed
from node.storage.log.note import CommitNote
from tests.unit.storage.workload import CONFIGURATION


def noted(path: Path) -> tuple[int, int]:
    return CommitNote(path).read()


def test_the_latest_note_is_read_and_no_file_is_made_before_there_is_one(tmp_path: Path) -> None:
    note = CommitNote(tmp_path / "committed")
    assert note.read() == (0, 0)
    assert not note.path.exists()
    for index in range(1, 6):
        note.write(index, 3)
        assert noted(note.path) == (index, 3)
    note.close()
    assert noted(note.path) == (5, 3)


def test_a_process_that_is_killed_loses_nothing_of_it(tmp_path: Path) -> None:
    killed = (
        "import os, signal, sys; from pathlib import Path; from node.storage.log.note import CommitNote\n"
        "note = CommitNote(Path(sys.argv[1])); note.read(); note.write(8, 2); note.write(9, 2)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", killed, str(tmp_path / "committed")], check=False, timeout=60)
        assert noted(tmp_path / "committed") == (9, 2)


@pytest.mark.parametrize("torn", range(21))
def test_a_note_that_was_cut_short_leaves_the_one_before(tmp_path: Path, torn: int) -> None:
    note = CommitNote(tmp_path / "committed")
    note.write(0x0707070707, 0x05)
    note.close()
    before = note.path.read_bytes()
    note = CommitNote(note.path)
    note.read()
    note.write(0x0808080808, 0x06)  # no byte of it is as in an empty slot
    note.close()
    after = note.path.read_bytes()
    at = next(i for i in range(len(after)) if after[i] != before[i])
    note.path.write_bytes(after[: at + torn] + before[at + torn :])
    whole = torn == 20
    assert noted(note.path) == ((0x0808080808, 0x06) if whole else (0x0707070707, 0x05))


def test_the_note_after_a_damaged_one_does_not_go_over_the_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "committed"
    note = CommitNote(path)
    note.write(1, 1)
    note.write(2, 1)
    note.close()
    data = bytearray(path.read_bytes())
    data[512] ^= 1  # the second slot
    path.write_bytes(data)
    note = CommitNote(path)
    assert note.read() == (1, 1)
    note.write(3, 1)
    assert path.read_bytes()[:20] == data[:20]
    assert noted(path) == (3, 1)
    note.close()


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 4096])
def test_a_file_that_is_none_says_nothing_and_is_used_again(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "committed"
    path.write_bytes(content)
    note = CommitNote(path)
    assert note.read() == (0, 0)
    note.write(4, 2)
    assert noted(path) == (4, 2)
    assert path.stat().st_size == 4096
    note.close()


def test_a_file_that_cannot_be_made_ends_the_process(tmp_path: Path) -> None:
    with pytest.raises(SyncFailed, match="committed"):
        CommitNote(tmp_path / "no folder" / "committed").write(1, 1)


def test_a_log_knows_after_a_restart_what_was_noted(tmp_path: Path) -> None:
    log = RaftLog.open(tmp_path / "log", initial=CONFIGURATION)
    assert log.committed() == (0, 0)
    log.append([Entry(1, 1, 1, b"a"), Entry(2, 4, 1, b"b")], HardState(4, 0, 0))
    log.note_committed(2)
    log.close()
    log = RaftLog.open(tmp_path / "log", initial=CONFIGURATION)
    assert log.committed() == (2, 4)
    assert log.hard_state().commit == 0
    log.close()
