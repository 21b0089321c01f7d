"""The process that makes a backup: its job in, a line and the file out."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cluster.bolt import Database
from cluster.effects import records
from node.backup.build import Job, send
from node.storage import StateStore
from node.storage.snapshot import SnapshotSource
from tests.unit.storage.conftest import OpenStore, open_store
from tests.unit.storage.workload import stream

__all__ = ["open_store"]
PROCESS = [sys.executable, "-m", "node.backup.process"]
LIMIT_S = 60
LARGE_BYTES = 4 << 20  # more than any pipe holds


def job_of(store: StateStore, folder: Path, value_bytes: int = 0) -> Job:
    """A backup of what a store holds after some changes, into a folder of its own."""
    for index, term, data in itertools.islice(stream(3), 100):
        store.apply([(index, term, data)])
    store.apply([(101, 2, records.put(b"/large", 0, 1, bytes(value_bytes), 0))])
    checkpoint = SnapshotSource.create(store, folder / "outgoing").directory
    (folder / "out").mkdir()
    return Job([str(checkpoint)], str(folder / "out"), [], 64 << 20)


def sent(job: Job) -> bytes:
    """What this process itself writes for a job."""
    parts: list[bytes] = []
    send(job.encode(), os.getppid(), parts.append)
    return b"".join(parts)


def test_it_says_how_much_comes_and_then_writes_the_file(open_store: OpenStore, tmp_path: Path) -> None:
    job = job_of(open_store(), tmp_path)
    done = subprocess.run(PROCESS, input=job.encode(), check=True, capture_output=True, timeout=LIMIT_S)
    line, _, file = done.stdout.partition(b"\n")
    told = json.loads(line)
    assert told["size_bytes"] == len(file)
    assert told["rows"] == len(list(Database(file).rows(b"key")))
    assert Database(file).check() == []
    assert sent(job) == done.stdout


def test_what_it_works_with_is_not_imported_before_it_gives_way() -> None:
    code = "import sys, node.backup.process; print([m for m in ('rocksdict', 'google') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=LIMIT_S)
    assert done.stdout == b"[]\n"


def test_files_of_an_attempt_that_was_ended_are_in_nobodys_way(open_store: OpenStore, tmp_path: Path) -> None:
    job = job_of(open_store(), tmp_path)
    for name in ("plan.new", "run-0", "run-7"):
        (tmp_path / "out" / name).write_bytes(b"half of it")
    line, _, file = sent(job).partition(b"\n")
    assert json.loads(line)["size_bytes"] == len(file)
    assert Database(file).check() == []


_ENDED = """
import sys
from node.backup import giving_way, process
def attempt(work, into, wanted):
    left = int(sys.argv[1])
    def some(data):
        nonlocal left
        into(data[:left])
        left -= len(data)
        if left <= 0:
            raise RuntimeError("ended")
    try:
        work(some)
    except RuntimeError:
        return False
    return True
giving_way.attempt = attempt
process.os.getppid = lambda parent=process.os.getpid(): parent
sys.exit(process.main())
"""


@pytest.mark.parametrize("after", [0, 10, 70_000, 1 << 40])
def test_where_an_attempt_was_ended_the_next_one_goes_on(
    open_store: OpenStore, tmp_path: Path, after: int
) -> None:
    job = job_of(open_store(), tmp_path, 200_000)
    done = subprocess.run([sys.executable, "-c", _ENDED, str(after)], input=job.encode(), check=True,
                          capture_output=True, timeout=LIMIT_S)  # fmt: skip
    assert done.stdout == sent(job)


def test_a_file_whose_rows_are_lost_on_the_way_comes_short(open_store: OpenStore, tmp_path: Path) -> None:
    job = job_of(open_store(), tmp_path)
    sent(job)
    (tmp_path / "out" / "run-0").write_bytes(b"")
    done = subprocess.run(PROCESS, input=job.encode(), check=False, capture_output=True, timeout=LIMIT_S)
    line, _, file = done.stdout.partition(b"\n")
    assert done.returncode
    assert len(file) < json.loads(line)["size_bytes"]


def begun(job: Job) -> subprocess.Popen[bytes]:
    """A process that has begun to write, and waits for somebody to read."""
    process = subprocess.Popen(PROCESS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin as told:
        told.write(job.encode())
    assert json.loads(process.stdout.readline())["size_bytes"] > LARGE_BYTES
    return process


def test_it_ends_when_nobody_reads(open_store: OpenStore, tmp_path: Path) -> None:
    process = begun(job_of(open_store(), tmp_path, LARGE_BYTES))
    children = psutil.Process(process.pid).children(recursive=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(LIMIT_S)
    assert psutil.wait_procs(children, LIMIT_S)[1] == []


_PARENT = """
import subprocess, sys
from pathlib import Path
process = subprocess.Popen([sys.executable, "-m", "node.backup.process"], stdin=open(sys.argv[1], "rb"),
                           stdout=subprocess.PIPE, bufsize=0)
print(process.stdout.readline() and process.pid, flush=True)
sys.stdin.read()
"""


def test_it_ends_with_its_parent(open_store: OpenStore, tmp_path: Path) -> None:
    (tmp_path / "job").write_bytes(job_of(open_store(), tmp_path, LARGE_BYTES).encode())
    command = [sys.executable, "-c", _PARENT, str(tmp_path / "job")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        process = psutil.Process(int(parent.stdout.readline()))
        every = [process, *process.children(recursive=True)]
        parent.send_signal(signal.SIGKILL)
        assert psutil.wait_procs(every, LIMIT_S)[1] == []


@pytest.mark.parametrize("missing", ["", "nowhere"])
def test_why_there_is_no_file_is_told(tmp_path: Path, missing: str) -> None:
    (tmp_path / "out").mkdir()
    (told,) = sent(Job([str(tmp_path / missing)], str(tmp_path / "out"), [], 64 << 20)).splitlines()
    assert json.loads(told)["error"]
