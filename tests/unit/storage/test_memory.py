"""What a replica takes in memory does not grow with what it holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soaking import SOAK

KEYS = 1_000_000 if SOAK else 60_000
LIMIT_MB = 400 if SOAK else 250

_SCRIPT = """
import json, os, sys
import psutil
from cluster.effects import records
from cluster.raft.types import Configuration, Entry, HardState, SnapshotPosition
from node.storage import RaftLog, StateStore
path, count = sys.argv[1], int(sys.argv[2])
configuration = Configuration(frozenset({1}))
log = RaftLog.open(path + "/log", initial=configuration, no_fsync=True)
store = StateStore.open(path + "/state")
me = psutil.Process()
peak = start = me.memory_info().rss
for index in range(1, count // 100 + 1):
    keys = range(index * 100, index * 100 + 100)
    data = b"".join(records.put(b"/registry/pods/%09d" % key, 0, 1, os.urandom(256), 0) for key in keys)
    log.append([Entry(index, 1, 1, data)], HardState(1, 1, index - 1))
    store.apply([(index, 1, data)])
    for key in keys[:3]:
        store.current(b"/registry/pods/%09d" % key)
    if index % 100 == 0:
        log.sync()
        peak = max(peak, me.memory_info().rss)
    if index % 2000 == 0:
        covered = store.flush()
        log.truncate_prefix(SnapshotPosition(covered.shard_index, covered.term, configuration))
assert store.count(b"\\0", b"\\0") == count // 100 * 100
assert sum(1 for _ in store.scan(b"\\0", b"\\0")) == count // 100 * 100
for key in range(100, count, 37):
    assert store.current(b"/registry/pods/%09d" % key).version == 1
peak = max(peak, me.memory_info().rss)
store.apply([(store.position.shard_index + 1, 1, records.compact(store.revision))])
while not store.compaction_step(10_000):
    pass
peak = max(peak, me.memory_info().rss)
print(json.dumps({"start_mb": start >> 20, "peak_mb": peak >> 20}))
store.close()
log.close()
"""


@pytest.mark.longer
@pytest.mark.timeout(900)
def test_memory_is_bounded_whatever_the_number_of_keys(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tmp_path), str(KEYS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(found)
    assert found["peak_mb"] < LIMIT_MB
