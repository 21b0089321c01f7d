"""Very many connections and watches of one process, in small, on a real etcd."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import uvloop

from bench.client import parse_endpoint
from bench.load import crowd
from bench.load.traffic.holding import Crowd, key_of, source_of
from bench.load.traffic.shares import Shares, spread
from bench.systems.systems import System

#: muster-bench with short waits: before memory is read, and for others' puts.
QUICK = """from bench import cli
from bench.load import crowd
crowd._SETTLE_S = crowd._BESIDE_S = 0.5
cli.main()"""


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", QUICK, "crowd", *arguments], capture_output=True, text=True,
                          timeout=110, check=False)


def test_a_crowd_is_opened_served_watched_and_closed_on_a_system_of_its_own(tmp_path: Path) -> None:
    done = bench("--systems", "etcd", "--connections", "60", "--watches", "300", "--watch-streams", "30",
                 "--processes", "2", "--duration", "0.3", "--data-dir", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["schema"] == "muster-bench-crowd/1"
    (row,) = result["systems"]
    assert (row["failed"], row["errors"]) == ("", {})
    assert (row["connect"]["count"], row["serve"]["count"]) == (60, 120)
    assert (row["watch"]["count"], row["watch"]["streams"], row["deliver"]["count"]) == (300, 30, 300)
    # files of a server's own come and go: each of etcd's three members opens some of its log on a slow disk
    assert row["connected"]["descriptors"] >= row["empty"]["descriptors"] + 60 - 5
    assert row["closed"]["descriptors"] <= row["empty"]["descriptors"] + 20
    for stage in ("connect", "serve", "watch", "end_watches", "close"):
        assert row[stage]["others"]["operations"] > 25  # at 100 a second, for half a second at least
        assert row[stage]["others"]["errors"] == {}
    texts = crowd.markdown(result)
    # no figure is missing
    assert "-" not in [cell.strip() for line in texts.splitlines() for cell in line.split("|")]
    assert list(tmp_path.iterdir()) == []


def test_more_connections_than_files_may_be_open_are_refused_before_anything_starts(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    done = bench("--connections", str(hard), "--data-dir", str(tmp_path / "none"))
    assert done.returncode == 2
    assert f"the hard limit here is {hard:,} (ulimit -Hn)" in " ".join(done.stderr.split())
    done = bench("--connections", str(hard - 500), "--members", "1", "--data-dir", str(tmp_path / "none"))
    assert done.returncode == 2
    assert "a server needs" in done.stderr
    assert not (tmp_path / "none").exists()


def test_a_system_whose_turn_takes_too_long_says_how_far_it_came(tmp_path: Path) -> None:
    done = bench("--systems", "etcd", "--connections", "10", "--watches", "10", "--limit", "2", "--data-dir",
                 str(tmp_path))
    assert done.returncode == 1
    assert "etcd: not done within 2 s" in done.stdout


def test_a_server_that_refuses_half_is_neither_faster_nor_leaner() -> None:
    def row_of(count: int) -> dict[str, Any]:
        row: dict[str, Any] = {"empty": {"rss_bytes": 0}, "connected": {"rss_bytes": 1024 * 1000}}
        row |= {stage: {"took_s": 2.0} for stage in ("connect", "watch")}
        crowd._count(row["connect"], count, [5] * count)
        crowd._count(row["watch"], count)
        return row

    picks = dict(crowd.lines({"connections": 1000, "watches": 1000}))
    for title, figures in (("connections accepted a second", (500, 250)),
                           ("watches created a second", (500, 250)),
                           ("RSS of a connection, KiB", (1, 2))):
        assert (picks[title](row_of(1000)), picks[title](row_of(500))) == figures


def held(work: Any) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await work()

    return uvloop.run(bounded())


def nothing(done: int) -> None:
    """No progress is shown."""


def test_connections_that_the_server_ends_are_counted_with_their_endpoint(own_etcd: System) -> None:
    async def work() -> dict[str, int]:
        crowd = Crowd([parse_endpoint(own_etcd.endpoints[0])], 8, 5.0)
        await crowd.open(5, nothing)
        own_etcd.stop()
        while sum(crowd.errors.values()) < 5:
            await asyncio.sleep(0.01)
        return dict(crowd.errors)

    assert all(own_etcd.endpoints[0] in what and "lost" in what for what in held(work))


def test_an_event_at_the_wrong_watch_or_twice_is_an_error() -> None:
    async def work() -> None:
        crowd = Crowd([], 1, 1.0)
        for watch in (3, 4):
            crowd._awaited[key_of(watch)] = asyncio.get_running_loop().create_future()
        crowd.event(key_of(3), key_of(3))
        assert crowd.errors == {}
        crowd.event(key_of(3), key_of(3))
        assert crowd.errors == {"an event twice, or of no put": 1}
        crowd.event(key_of(5), key_of(4))
        assert crowd.errors["an event for another watch"] == 1

    held(work)


def test_connections_of_one_address_are_no_more_than_it_has_ports() -> None:
    assert source_of("127.0.0.1", 19_999) is None
    assert source_of("127.0.0.1", 20_000) == "127.0.0.2"
    assert source_of("127.0.0.1", 0, share=1) == "127.0.0.65"
    assert source_of("10.0.0.1", 20_000) is None
    assert source_of("localhost", 20_000) is None


def test_processes_without_work_are_not_started() -> None:
    given = ((4, 2, 9, 0), (4, 9, 9, 0), (4, 9, 1, 0), (4, 9, 9, 3))
    assert [spread(*each) for each in given] == [2, 4, 1, 3]


def test_errors_of_all_processes_outlive_them(own_etcd: System) -> None:
    async def work() -> dict[str, int]:
        crowd = Shares([parse_endpoint(own_etcd.endpoints[0])], 8, 5.0, 2)
        crowd.start(4)
        await crowd.open(4, nothing)
        own_etcd.stop()
        await crowd.serve(nothing)
        await crowd.close()
        before = dict(crowd.errors)
        await crowd.close()
        assert crowd.errors == before
        return before

    assert sum(held(work).values()) >= 4


def test_a_crowd_amid_a_step_ends_at_once(own_etcd: System) -> None:
    async def work() -> None:
        crowd = Shares([parse_endpoint(own_etcd.endpoints[0])], 8, 60.0, 2)
        crowd.start(20)
        own_etcd.stop()
        opening = asyncio.ensure_future(crowd.open(20, nothing))
        await asyncio.wait([opening], timeout=0)  # the step is asked for, and the processes only start
        opening.cancel()
        await crowd.close()
        assert (crowd.connections, crowd.errors) == (0, {})

    held(work)


@pytest.mark.parametrize("changes", [{"connections": 0}, {"watch_streams": 11}, {"limit_s": 0.0}])
def test_a_load_that_means_nothing_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        crowd.Load(**{"connections": 10, "watches": 10, **changes}).check()
