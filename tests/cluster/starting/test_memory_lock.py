"""``--memory-mlock``: the memory of each process of a host is locked, or the host does not start."""

from __future__ import annotations

import ctypes
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.cluster.local_cluster import ROOT, command, environment, free_base_port, until
from tests.cluster.one_host import started
from tools.muster.machine.process import locking
from tools.muster.machine.process.crash import FATAL_EXIT

_MB = 1 << 20
_PR_CAPBSET_DROP, _CAP_IPC_LOCK = 24, 14
_LIMIT_S = 60.0
_libc = ctypes.CDLL(None)

may_lock = pytest.mark.skipif(
    locking.limit_that_ends_growth() != 0, reason="needs an unlimited RLIMIT_MEMLOCK, or CAP_IPC_LOCK")


def locked_bytes(pid: int) -> int:
    """As the kernel tells."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmLck:"))) << 10


def limited(most: int) -> Callable[[], None]:
    """In a new process: let it lock so many bytes, whoever runs it."""
    def do() -> None:
        _libc.prctl(_PR_CAPBSET_DROP, _CAP_IPC_LOCK, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (most, most))

    return do


def refused(data_dir: Path, most: int) -> subprocess.CompletedProcess[str]:
    """What a host says that may lock so many bytes."""
    port = free_base_port(1)
    return subprocess.run(
        command("--memory-mlock", "--fronts=0", f"--data-dir={data_dir}", "--log-format=console",
                f"--listen-client-urls=http://127.0.0.1:{port}",
                f"--advertise-client-urls=http://127.0.0.1:{port}",
                f"--listen-peer-urls=http://127.0.0.1:{port + 1}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{port + 1}"),
        preexec_fn=limited(most), capture_output=True, text=True, timeout=_LIMIT_S, env=environment(),
        check=False)  # fmt: skip


@may_lock
@pytest.mark.parametrize("fronts", [0, 1])
def test_every_process_of_a_host_locks_its_memory(fronts: int, tmp_path: Path) -> None:
    flags = ("--memory-mlock", f"--fronts={fronts}", "--quota-backend-bytes=-1")
    with started(tmp_path / "data", 0, 2, *flags, cold=True) as host:
        until(lambda: b"ready to serve client requests" in host.log.read_bytes())
        supervisor = psutil.Process(host.process.pid)
        family = [supervisor, *supervisor.children(recursive=True)]
        assert len(family) == 3 + fronts
        for process in family:
            assert locked_bytes(process.pid) >= process.memory_info().rss, process.cmdline()


def test_without_the_flag_nothing_is_locked(tmp_path: Path) -> None:
    with started(tmp_path / "data", 0, 1, "--fronts=0", cold=True) as host:
        until(host.serves)
        supervisor = psutil.Process(host.process.pid)
        assert [locked_bytes(p.pid) for p in (supervisor, *supervisor.children())] == [0, 0]


def test_a_host_that_may_lock_too_little_says_so_and_does_not_start(tmp_path: Path) -> None:
    made = refused(tmp_path / "data", 8 * _MB)
    assert made.returncode == 1
    assert made.stderr.splitlines()[-1] == (
        "muster: mlock error: cannot allocate memory: --memory-mlock needs a limit of locked memory "
        f"(ulimit -l, LimitMEMLOCK= of systemd) that is unlimited; it is {8 * _MB} bytes here"
    )
    assert not (tmp_path / "data").exists()


def test_a_process_of_a_host_that_may_lock_too_little_refuses_for_good() -> None:
    code = """
import structlog
from cluster.settings import Common
from tools.muster.machine.process.setup import hold_memory

common = Common(1, 1, "a", 1, 1, (), "", memory_mlock=True, status_fd=1)
hold_memory(common, structlog.get_logger())
"""
    made = subprocess.run([sys.executable, "-c", code], preexec_fn=limited(8 * _MB), capture_output=True,
                          text=True, timeout=_LIMIT_S, env=environment(), cwd=ROOT, check=False)  # fmt: skip
    assert made.returncode == FATAL_EXIT
    told = json.loads(made.stdout.splitlines()[-1])
    assert told["event"] == "fatal"
    assert told["error"].startswith("mlock error: cannot allocate memory: ")


@may_lock
def test_what_a_process_frees_goes_back_all_the_same_and_the_lock_stays() -> None:
    code = """
from pathlib import Path
from tools.muster.machine.process import locking
from tools.muster.machine.process.trimming import resident_bytes
import ctypes

libc = ctypes.CDLL(None)
locking.lock_memory()
blocks = [bytes(65_536) for _ in range(1000)]
kept = blocks[-1]
before = resident_bytes()
del blocks
libc.malloc_trim(0)
in_vain = resident_bytes()
locking.put_aside(lambda: libc.malloc_trim(0))
locked = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmLck" in line)
print(before - in_vain, before - resident_bytes(), locked.split()[1])
"""
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=_LIMIT_S,
                          env=environment(), cwd=ROOT, check=True)  # fmt: skip
    in_vain, freed, locked_kb = map(int, made.stdout.split())
    assert in_vain < 8 * _MB < 40 * _MB < freed
    assert locked_kb > 0
