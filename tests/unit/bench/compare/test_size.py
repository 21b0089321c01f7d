"""What keys cost, measured on a real etcd; and the example of the client as a library (``bench.client``)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import bench.client
from bench.compare.loads import size
from bench.systems.systems import System

ROOT = Path(__file__).parents[4]
#: muster-bench with short waits before sizes are read.
QUICK = "from bench.compare.loads import size; size._SETTLE_S = 0.3; from bench import cli; cli.main()"


def test_size_tells_every_stage_of_a_system_that_it_starts_and_stops_itself(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", QUICK, "size", "--systems", "etcd", "--keys", "2000",
                           "--data-dir", str(tmp_path), "--json"],
                          capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    (row,) = result["systems"]
    assert result["schema"] == "muster-bench-size/1"
    for stage in ("empty", "loaded", "restarted", "overwritten", "compacted", "defragmented"):
        assert len(row[stage]["processes"]) == 3
        assert row[stage]["rss_bytes"] >= row[stage]["pss_bytes"] > 10 * 2**20
    values_bytes = 3 * 2000 * 256
    assert row["loaded"]["disk_bytes"] > values_bytes
    assert 0 < row["start_s"] <= row["restart_s"]
    assert row["compact_s"] > 0
    assert len(row["defragment_s"]) == 3
    assert list(tmp_path.iterdir()) == []


def test_the_main_thread_restarts_a_system_which_ends_with_the_thread_that_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restart, threads = System.restart, []

    def noted(system: System) -> float:
        threads.append(threading.current_thread())
        return restart(system)

    monkeypatch.setattr(System, "restart", noted)
    monkeypatch.setattr(size, "_SETTLE_S", 0.0)
    size.measure(["etcd"], size.Load(50), data_dir=tmp_path, said=lambda line: None)
    assert threads == [threading.main_thread()]


def test_files_are_counted_by_the_blocks_they_take_and_collected_logs_are_not(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 30)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "data").write_bytes(bytes(range(256)) * 400)
    log = tmp_path / "m0.log"
    log.write_bytes(bytes(range(256)) * 4000)
    assert 102_400 <= size.disk_bytes(tmp_path, [log]) < 300_000


def test_the_example_in_the_documentation_works(etcd: System) -> None:
    found = re.search(r"(?m)^As a library::\n\n((?: {4}.*\n|\n)+)", bench.client.__doc__ or "")
    assert found is not None
    example = textwrap.dedent(found[1])
    done = subprocess.run([sys.executable, "-c", example.replace("127.0.0.1:2379", etcd.endpoints[0])],
                          capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert 'value: "w"' in done.stdout
