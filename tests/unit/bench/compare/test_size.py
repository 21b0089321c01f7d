"""What keys cost, measured on a real etcd; and the documentation's example of the client as a library."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from bench.compare.loads import size
from bench.systems.systems import System

PAGE = Path(__file__).parents[4] / "docs" / "benchmarks-tables.md"


def test_size_tells_every_stage_of_a_system_that_it_starts_and_stops_itself(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "bench.cli", "size", "--systems", "etcd", "--keys", "2000", "--data-dir",
            str(tmp_path), "--json",
        ],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
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


def test_files_are_counted_by_the_blocks_they_take_and_collected_logs_are_not(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 30)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "data").write_bytes(bytes(range(256)) * 400)
    log = tmp_path / "m0.log"
    log.write_bytes(bytes(range(256)) * 4000)
    assert 102_400 <= size.disk_bytes(tmp_path, [log]) < 300_000


def test_the_example_in_the_documentation_works(etcd: System) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    done = subprocess.run([sys.executable, "-c", found[1].replace("127.0.0.1:2379", etcd.endpoints[0])],
                          capture_output=True, text=True, timeout=60, cwd=PAGE.parents[1], check=False)
    assert done.returncode == 0, done.stderr
    assert 'value: "w"' in done.stdout
