"""The process that builds a backup: its job in, its result out."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.bolt import Database
from node.backup.build import Job, result
from node.storage import StateStore
from node.storage.snapshot import SnapshotSource
from tests.unit.storage.conftest import OpenStore, open_store
from tests.unit.storage.workload import stream

__all__ = ["open_store"]


def job_of(store: StateStore, folder: Path) -> Job:
    """A backup of what a store holds after some changes, into a folder of its own."""
    for index, term, data in itertools.islice(stream(3), 100):
        store.apply([(index, term, data)])
    checkpoint = SnapshotSource.create(store, folder / "outgoing").directory
    (folder / "out").mkdir()
    return Job([str(checkpoint)], str(folder / "out" / "backup.db"), [], 64 << 20)


def test_it_tells_what_it_has_built(open_store: OpenStore, tmp_path: Path) -> None:
    job = job_of(open_store(), tmp_path)
    done = subprocess.run([sys.executable, "-m", "node.backup.process"], input=job.encode(), check=True,
                          capture_output=True, timeout=60)  # fmt: skip
    told = json.loads(done.stdout)
    assert told["size_bytes"] == Path(job.output).stat().st_size
    assert Database(Path(job.output).read_bytes()).check() == []


def test_what_it_works_with_is_not_imported_before_it_gives_way() -> None:
    code = "import sys, node.backup.process; print([m for m in ('rocksdict', 'google') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
    assert done.stdout == b"[]\n"


def test_files_of_an_attempt_that_was_ended_are_in_nobodys_way(open_store: OpenStore, tmp_path: Path) -> None:
    job = job_of(open_store(), tmp_path)
    for name in ("backup.db", "run-0", "run-7"):
        (tmp_path / "out" / name).write_bytes(b"half of it")
    told = json.loads(result(job.encode().decode(), os.getppid()))
    assert told["size_bytes"] == Path(job.output).stat().st_size
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["backup.db"]


@pytest.mark.parametrize("missing", ["", "nowhere"])
def test_why_there_is_no_file_is_told(open_store: OpenStore, tmp_path: Path, missing: str) -> None:
    (tmp_path / "out").mkdir()
    job = Job([str(tmp_path / missing)], str(tmp_path / "out" / "backup.db"), [], 64 << 20)
    assert json.loads(result(job.encode().decode(), os.getppid()))["error"]
