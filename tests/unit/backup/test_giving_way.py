"""Work that gives way wholly: what it returns, and when it is ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from node.backup import giving_way
from node.backup.giving_way import Times, starves
from node.backup.sorting import PacedFile, shrink

_S = 1_000_000_000
_WORK = """
import os, sys, time
from node.backup import giving_way
parent = os.getpid()
def work(write):
    print("of a child")
    {body}
    write(str(os.sched_getscheduler(0) == os.SCHED_IDLE).encode() * 50_000)
    {after}
parts = []
done = giving_way.attempt(work, parts.append, lambda: True)
sys.stdout.write(f"{{done}} {{len(b''.join(parts))}}")
"""


def _run(body: str, after: str = "pass") -> str:
    """In a process without threads, as it has to be."""
    command = [sys.executable, "-c", _WORK.format(body=body, after=after)]
    return subprocess.run(command, check=True, capture_output=True, timeout=60, text=True).stdout


def test_the_result_of_a_child_of_idle_policy_comes_back_whole_and_its_output_nowhere() -> None:
    assert _run("pass") == f"True {len('True') * 50_000}"


def test_a_child_that_fails_is_found_out_and_what_it_wrote_before_is_there() -> None:
    assert _run("raise OSError") == "False 0"
    assert _run("os._exit(3)") == "False 0"
    assert _run("pass", "raise OSError") == f"False {len('True') * 50_000}"


@pytest.mark.parametrize(
    ("ran", "waited", "starving"),
    [
        (_S, 0, False),
        (_S // 2, _S // 2, False),
        (_S // 10, _S * 9 // 10, True),
        (0, _S, True),
        (0, 0, False),  # it waits for the disk
        (_S // 100, _S // 10, False),  # it hardly wanted any
    ],
)
def test_who_gets_less_than_a_quarter_of_what_he_wants_starves(ran: int, waited: int, starving: bool) -> None:
    assert starves(Times(7, 7), Times(7 + ran, 7 + waited)) is starving


_ENDED = """
import os, sys, time
from itertools import count
from node.backup import giving_way
from node.backup.giving_way import Times
giving_way._LOOK_S = 0.01
asked = count()
turns = count()
def work(write):
    while os.getppid() == parent:
        time.sleep(0.01)
parent = os.getpid()
times = (lambda pid: Times(0, 10**9 * next(turns))) if sys.argv[1] == "starving" else giving_way.times_of
wanted = lambda: sys.argv[1] == "starving" or next(asked) < 5
assert not giving_way.attempt(work, print, wanted, times)
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("no child is left")
"""


@pytest.mark.parametrize("why", ["starving", "unwanted"])
def test_a_child_that_starves_or_is_not_wanted_any_more_is_ended(why: str) -> None:
    done = subprocess.run([sys.executable, "-c", _ENDED, why], check=True, capture_output=True, timeout=60)
    assert done.stdout == b"no child is left\n"


def test_where_the_kernel_does_not_tell_nothing_is_tried() -> None:
    assert not giving_way.attempt(lambda write: write(b"never"), pytest.fail, lambda: True, lambda pid: None)


_REFUSED = """
import os, sys, threading
from node.backup import giving_way
def refused(*_):
    raise BlockingIOError if sys.argv[1] == "fork" else RuntimeError("can't start new thread")
setattr(*((os, "fork") if sys.argv[1] == "fork" else (threading.Thread, "start")), refused)
before = os.listdir("/proc/self/fd")
assert not giving_way.attempt(lambda write: write(b"never"), print, lambda: True)
assert os.listdir("/proc/self/fd") == before
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("no child is left")
"""


@pytest.mark.parametrize("missing", ["fork", "thread"])
def test_where_no_child_or_no_thread_can_be_had_the_parent_goes_on(missing: str) -> None:
    """A limit of processes, as a container has, ended the backup, which the parent can make by itself."""
    command = [sys.executable, "-c", _REFUSED, missing]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert done.stdout == b"no child is left\n"


def test_a_process_that_is_gone_has_no_times() -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    assert giving_way.times_of(process.pid) is None
    own = giving_way.times_of(os.getpid())
    assert own is not None
    assert own.ran > 0


def test_a_large_file_is_freed_by_and_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    sizes = []
    monkeypatch.setattr(time, "sleep", lambda _: sizes.append(path.stat().st_size))
    with path.open("w+b") as file:
        file.truncate(20 << 20)
        shrink(file)
    assert sizes == [12 << 20, 4 << 20]


def test_a_file_that_goes_to_the_disk_in_pieces_holds_all_of_them_once(tmp_path: Path) -> None:
    written = [bytes([i % 251]) * (i * 7919 % 300_000) for i in range(20)]
    file = PacedFile(tmp_path / "file")
    for part in written:
        file.write(part)
    assert file.size_bytes == sum(map(len, written))
    file.close()
    assert (tmp_path / "file").read_bytes() == b"".join(written)
