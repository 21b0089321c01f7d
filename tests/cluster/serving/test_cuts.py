"""The price of the order: a line through measured steps, and one real step. What a plan goes by: each process
is found by its role, and its work counted."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.compare.loads import cuts
from bench.cpu_limit import limited
from bench.load import run
from bench.plan import demand, prices
from bench.plan.roles import FOLLOWER, FRONT, LEADER, ORDER_FOLLOWER, ROLES, SEQUENCER
from bench.systems import systems
from tests.ports import free_base_port, free_ports
from tests.tries import best_of_three, within
from tools.muster_bench import RealGround


def row(
    cuts_per_s: float, reports_per_s: float, *, kept_up: bool = True, us: tuple[float, float] = (1000, 10)
) -> dict[str, Any]:
    """A step of a sequencer to which a cut and a report have those prices."""
    cpu = (us[0] * cuts_per_s + us[1] * reports_per_s) / 1e6
    return {
        "cuts_per_s": cuts_per_s, "reports_per_s": reports_per_s, "sequencer_cpu": cpu, "kept_up": kept_up,
    }


def test_a_sequencer_saturates_where_cuts_that_come_just_in_time_leave_no_cpu_for_more_reports() -> None:
    steps = [row(100, 200), row(150, 600), row(180, 2000), row(5, 9000, kept_up=False, us=(1, 99))]
    # 30 cuts a second are 3 % of a CPU, 97 % are 97,000 reports a second, those of 485 shards, and there is
    # shard 0
    assert cuts.saturation(steps, 200) == pytest.approx(486)
    assert cuts.saturation(steps, 200, 0.13) == pytest.approx(51)
    assert cuts.saturation(steps, 200, 0.02) == pytest.approx(1)  # not even the cuts
    assert cuts.saturation(steps[-2:], 200) is None  # one step says nothing
    assert cuts.saturation([row(100, 200), row(200, 400)], 200) is None  # as many reports in each cut


def test_one_shard_has_no_cuts() -> None:
    with pytest.raises(ValueError, match="no cuts"):
        cuts.measure(RealGround(), [1], cuts.Load(1, 0.1))


@best_of_three
def test_a_limited_process_gets_its_share_and_no_more() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            with limited(busy.pid, 0.2):
                began, before = time.monotonic(), sum(psutil.Process(busy.pid).cpu_times()[:2])
                time.sleep(1.0)
                used = sum(psutil.Process(busy.pid).cpu_times()[:2]) - before
                within(used, 0.25 * (time.monotonic() - began) + 0.02)
        except RuntimeError as e:
            pytest.skip(str(e))
        finally:
            busy.kill()


def test_synthetic_shards_get_real_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "free_ports", free_ports)  # of this process alone
    with tempfile.TemporaryDirectory(prefix="m-") as short:  # a path of a socket has at most 107 bytes
        result = cuts.measure(RealGround(), [3], cuts.Load(20, 1.0, Path(short)), said=lambda line: None)
        assert list(Path(short).iterdir()) == []
    (step,) = result["rows"]
    assert 0 < step["cuts_per_s"] <= 1.1 * step["reports_per_s"]
    assert step["fed_per_s"] >= step["cuts_per_s"]  # two shards on three hosts
    assert 0 < step["sequencer_cpu"] < 2
    assert 0 < step["to_order_p50_ms"] <= step["to_order_p99_ms"]
    assert cuts.markdown(result).count("\n") == 5


@pytest.mark.timeout(600)
def test_a_plan_goes_by_what_processes_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "free_ports", free_ports)  # of this process alone
    monkeypatch.setattr(systems, "_free_block", lambda size: free_base_port(size // 100 + 1, 2))
    monkeypatch.setattr(prices, "SHARDS", (1, 2))
    monkeypatch.setattr(prices, "_IDLE_S", 0.5)
    monkeypatch.setattr(prices, "_CUT_SHARDS", (3,))
    monkeypatch.setattr(prices, "_CUTS", cuts.Load(20.0, 1.0))
    for left in (2, 1, 0):
        steps: list[str] = []
        try:
            with tempfile.TemporaryDirectory(prefix="m-") as short:  # a socket's path has at most 107 bytes
                found, windows = prices.measure(
                    RealGround(), key_bytes=16, value_bytes=64, data_dir=Path(short), duration_s=0.5,
                    rounds=1, said=steps.append)
            break
        except (run.RunError, RuntimeError):  # leaders changed, or hosts did not start: a full machine
            if not left:
                raise
    assert steps == ["a cluster with 1 shard", "a cluster with 2 shards", "the order of 3 shards",
                     "the coordinator"]
    of_one, of_two = ({row.role for seen in windows if seen.shards == shards for row in seen.rows}
                      for shards in (1, 2))
    assert of_one == {FRONT, SEQUENCER, ORDER_FOLLOWER}
    assert of_two == {FRONT, SEQUENCER, ORDER_FOLLOWER, LEADER, FOLLOWER}
    # CPU comes in hundredths of a second: a short window may show none of one role, not of all
    assert max(price for role in ROLES for price in found.by_role[role]) > 0
    assert found.batch >= 1
    assert min(found.sync_s, found.txn_s, found.event_s) > 0
    assert found.node_rss_bytes > 10e6
    assert demand.plan(demand.Demand(writes_per_s=10.0, reads_per_s=10.0), found)["shards"] == 1
