"""A plan's prices come from real clusters: each process is found by its role, and its work counted."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from bench.compare.loads import cuts
from bench.load import run
from bench.plan import demand, prices
from bench.plan.roles import FOLLOWER, FRONT, LEADER, ORDER_FOLLOWER, ROLES, SEQUENCER
from bench.systems import systems
from tests.ports import free_base_port, free_ports
from tools.muster_bench import RealGround


@pytest.mark.timeout(600)
def test_a_plan_goes_by_what_processes_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "free_ports", free_ports)  # of this process alone
    monkeypatch.setattr(systems, "_free_block", lambda size: free_base_port(size // 100 + 1, 4))
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
    assert steps == ["a cluster with 1 shard", "a cluster with 4 shards", "the order of 3 shards",
                     "the coordinator"]
    of_one, of_four = ({row.role for seen in windows if seen.shards == shards for row in seen.rows}
                       for shards in (1, 4))
    assert of_one == {FRONT, SEQUENCER, ORDER_FOLLOWER}
    assert of_four == {FRONT, SEQUENCER, ORDER_FOLLOWER, LEADER, FOLLOWER}
    # CPU comes in hundredths of a second: a short window may show none of one role, not of all
    assert max(price for role in ROLES for price in found.by_role[role]) > 0
    assert found.batch >= 1
    assert min(found.sync_s, found.txn_s, found.event_s) > 0
    assert found.node_rss_bytes > 10e6
    assert demand.plan(demand.Demand(writes_per_s=10.0, reads_per_s=10.0), found)["shards"] == 1
