"""Short time slices, as far as the kernel has such a thing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tools.muster.machine.process import scheduling

if not scheduling.slice_s():
    pytest.skip(
        "this kernel tells no time slices (Linux before 6.12, or another system)", allow_module_level=True
    )


def in_a_process(code: str) -> str:
    """What it prints; the process that runs the tests keeps the slices it has."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def test_threads_started_later_have_short_slices_too_and_nothing_else_changes() -> None:
    assert in_a_process("""
import os, threading
from tools.muster.machine.process import scheduling
before = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0), scheduling.slice_s()
assert scheduling.short_slices()
assert (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)) == before[:2]
found = []
threads = [threading.Thread(target=lambda: found.append(scheduling.slice_s())) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert found == [scheduling.SHORT_S] * 2 and before[2] > scheduling.SHORT_S, (found, before)
assert scheduling.set_slice(0, 0) and scheduling.slice_s() == before[2]
print("as it should be")
""") == "as it should be"


def test_compactions_of_rocksdb_keep_the_usual_slices_and_flushes_have_short_ones(
    tmp_path: os.PathLike[str],
) -> None:
    assert (
        in_a_process(f"""
from pathlib import Path
from tools.muster.machine.process import scheduling
usual = scheduling.slice_s()
scheduling.short_slices()
from node.storage import StateStore
from tools.muster.machine.disk.threads import lower_compactions
store = StateStore.open({str(tmp_path)!r} + "/state", opened=lower_compactions)
found = {{(t / "comm").read_text().strip(): scheduling.slice_s(int(t.name))
         for t in Path("/proc/self/task").iterdir()}}
assert found["rocksdb:low"] == usual, found
assert found["rocksdb:high"] == scheduling.SHORT_S, found
store.close()
print("as it should be")
""")
        == "as it should be"
    )


def test_a_thread_under_another_policy_is_left_alone() -> None:
    assert in_a_process("""
import os
from tools.muster.machine.process import scheduling
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
assert not scheduling.short_slices()
assert os.sched_getscheduler(0) == os.SCHED_BATCH
print("as it should be")
""") == "as it should be"


def test_a_system_without_it_is_none_the_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "_SYSCALLS", {})
    assert not scheduling.short_slices()
    assert scheduling.slice_s() == 0.0
