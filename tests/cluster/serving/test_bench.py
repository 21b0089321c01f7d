"""The bench against real muster hosts: what it finds of their processes, counts and runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import counters
from bench.client import parse_endpoint
from bench.guard import check
from bench.systems import servers, systems
from bench.systems.systems import System, start_muster, started
from tests import forks
from tests.ports import free_base_port


@pytest.fixture(scope="module", autouse=True)
def _ports() -> Iterator[None]:
    """Of this process: the bench's own choice is the same in all that run side by side."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(systems, "_free_block", lambda size: free_base_port(size // 100 + 1, 3))
        yield


@pytest.fixture(scope="module", params=["0", "1"], ids=["front in node 0", "front of its own"])
def muster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    system = start_muster(
        tmp_path_factory.mktemp("bench"), hosts=1, shards=2, flags=["--fronts", request.param]
    )
    yield system
    system.stop()


def bench(muster: System, *arguments: str) -> dict[str, Any]:
    done = forks.run(
        [sys.executable, "-m", "bench.cli", *arguments, "--endpoints", ",".join(muster.endpoints), "--json"],
        capture_output=True, text=True, timeout=100,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_all_processes_of_a_host_are_found_behind_its_endpoint(muster: System) -> None:
    roots = servers.discover([parse_endpoint(e) for e in muster.endpoints])
    names = sorted(usage.name for usage in servers.sample(roots).values())
    fronts = ["front"] if "1" in muster.flags else []
    nodes = ["node", "node"] if fronts else ["node", "tools.muster.joined"]
    assert names == sorted([*fronts, *nodes, "tools.muster"])


def test_what_the_nodes_did_is_counted(muster: System) -> None:
    before = counters.sample(muster.endpoints)
    result = bench(muster, "put", "--total", "100")
    assert (result["operations"], result["errors"]) == (100, {})
    grown = counters.grown(before, counters.sample(muster.endpoints))
    assert set(grown) == set(counters.NAMES)
    assert 100 <= grown["log_entries"] <= 300  # its entry, and where it is on shard 1 a cut
    assert grown["log_bytes"] > 100 * 264
    assert grown["syncs"] >= 100
    assert 0 < grown["sync_s"] < 60


@pytest.mark.parametrize("arguments", [
    ("txn-compare", "--total", "100", "--clients", "5", "--key-space-size", "20"),
    ("txn-mixed", "--total", "100", "--clients", "5"),
    ("mixed", "--total", "100", "--clients", "5", "--key-space-size", "20"),
    ("stm", "--total", "50", "--clients", "3", "--keys", "4", "--keys-per-txn", "2", "--isolation", "ss"),
    ("lock", "--total", "20", "--clients", "3", "--locker", "lock-client"),
    ("lease-grant", "--total", "100", "--clients", "5"),
    ("scan", "--total", "3", "--page", "50"),
], ids=lambda arguments: arguments[0])
def test_each_command_is_served_without_an_error(muster: System, arguments: tuple[str, ...]) -> None:
    result = bench(muster, *arguments)
    assert (result["operations"], result["errors"]) == (int(arguments[2]), {})


def test_watchers_miss_and_repeat_nothing(muster: System) -> None:
    result = bench(
        muster, "watch", "--streams", "3", "--watchers-per-stream", "4", "--total", "50", "--clients", "5",
        "--prefix", "/bench/", "--key-size", "14", "--key-space-size", "20",
    )
    assert (result["operations"], result["errors"]) == (50 * 12, {})
    assert result["extra"]["to_all"]["count"] == 50


def test_the_guard_counts_one_log_entry_for_each_put_on_each_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `make bench-check` looks at the rest, with more puts, and over several shards
    entries = {load: tuple(bound for bound in check.BOUNDS[load] if bound.what in looked_at)
               for load, looked_at in (("put, 1 client", ("log_entries", "lines")),
                                       ("put, 1000 clients", ("log_entries",)))}  # fmt: skip
    monkeypatch.setattr(check, "BOUNDS", entries)
    result = check.measure(data_dir=tmp_path, puts=100)
    found = {(row["load"], row["what"]): row for row in result["rows"]}
    assert found["put, 1 client", "log_entries"]["value"] == pytest.approx(3.0, abs=0.1)
    assert found["put, 1 client", "log_entries"]["passed"]
    assert found["put, 1000 clients", "log_entries"]["value"] < 1
    assert 1000 < found["put, 1 client", "lines"]["value"] < 10_000
    assert list(tmp_path.iterdir()) == []


def test_a_muster_with_keys_has_a_key_file_of_its_own_and_serves(tmp_path: Path) -> None:
    flags = ["--", "--snapshot-count", "5000"]
    with started(["muster:2+keys"], data_dir=tmp_path, muster_flags=flags, hosts=2) as (system,):
        assert (system.name, system.shards) == ("muster-2+keys", 2)
        key = system.flags[system.flags.index("--peer-key-file") + 1]
        assert Path(key).stat().st_mode & 0o777 == 0o600
        assert system.flags[:3] == ("--", "--snapshot-count", "5000")
        assert bench(system, "put", "--total", "50")["errors"] == {}
