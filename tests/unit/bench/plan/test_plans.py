"""Prices are found again, plans carry their load, and the simulation keeps the laws of queues."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bench.plan import demand, roles, scale, show
from bench.plan.demand import Demand
from bench.plan.fit import prices as fitted
from bench.plan.model import KINDS, Load, Prices, amounts, capacity, entries, fronts_for, used
from bench.plan.prices import CROWD, Row, Window, quietest
from bench.plan.roles import FOLLOWER, FRONT, LEADER, ORDER_FOLLOWER, ROLES, SEQUENCER, Moment, Seen
from bench.plan.simulate import Setting, simulate
from tools.muster.config import settings

US = 1e-6
PRICES = Prices(
    by_role={
        FRONT: [0.01, 8 * US, 100 * US],
        SEQUENCER: [0.01, 10 * US, 1000 * US, 20 * US, 40 * US],
        ORDER_FOLLOWER: [0.007, 6 * US, 500 * US, 25 * US],
        LEADER: [0.008, 14 * US, 1700 * US, 50 * US],
        FOLLOWER: [0.004, 7 * US, 900 * US, 30 * US],
    },
    batch=350.0, read_front_s=10 * US, read_node_s=18 * US, event_s=3 * US, txn_s=50 * US, sync_s=0.003,
    write_bytes=3.5, node_rss_bytes=120e6, front_rss_bytes=54e6)


@given(st.lists(st.integers(0, 2000), min_size=3, max_size=3),
       st.lists(st.tuples(st.integers(1, 10_000), st.integers(1, 300), st.integers(0, 3)),
                min_size=4, max_size=9))
def test_prices_that_were_paid_explain_what_was_spent(
    paid_us: list[int], work: list[tuple[int, int, int]]
) -> None:
    rows = [([float(a) for a in done], sum(p * a for p, a in zip(paid_us, done, strict=True)) * US)
            for done in work]
    rows = [row for row in rows if row[1] > 0]
    if not rows:
        return
    found = fitted(rows)
    assert min(found) >= 0
    for done, took_s in rows:
        assert sum(p * a for p, a in zip(found, done, strict=True)) == pytest.approx(took_s, rel=1e-3)


def test_work_that_always_comes_with_other_work_has_no_price_of_its_own() -> None:
    found = fitted([([1.0, 2.0], 6.0), ([2.0, 4.0], 12.0)])
    assert sorted(found)[0] == 0
    assert found[0] + 2 * found[1] == pytest.approx(6.0)


def test_no_price_is_negative_whatever_was_measured() -> None:
    assert min(fitted([([1.0, 1.0], 5.0), ([1.0, 2.0], 4.0), ([1.0, 3.0], 3.0)])) >= 0


def test_prices_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to learn"):
        fitted([])


@pytest.mark.parametrize("role", ROLES)
def test_each_role_has_a_price_for_each_of_its_amounts(role: str) -> None:
    assert len(amounts(role, 1.0, 2.0, 3.0, 4.0, 5)) == len(KINDS[role]) == len(PRICES.by_role[role])


@pytest.mark.parametrize("shards", [1, 2, 8, 16, 32, 64])
def test_at_its_capacity_the_first_process_uses_a_whole_cpu_and_no_other_more(shards: int) -> None:
    most, first, fronts = capacity(PRICES, shards)
    cpus = used(PRICES, Load(shards, most, fronts=fronts))
    assert cpus[first] == pytest.approx(1.0, rel=0.02)
    assert max(cpus.values()) <= 1.0 + 1e-6


def test_a_shard_with_few_writes_logs_each_by_itself_and_one_with_many_in_batches() -> None:
    assert entries(PRICES, Load(2, 1.0)) == 0.5
    assert entries(PRICES, Load(2, 70_000.0)) == pytest.approx(100.0)


def test_fronts_stand_on_all_hosts_alike_and_do_not_help_where_answers_alone_are_too_many() -> None:
    assert fronts_for(PRICES, 4, 1000.0, hosts=5) == 5
    assert fronts_for(PRICES, 8, 400_000.0) == 6
    assert fronts_for(PRICES, 64, 64 * 60_000.0) is None


@given(st.floats(0, 300_000), st.floats(0, 1_000_000), st.floats(0, 500_000), st.sampled_from((1, 3, 5)))
def test_a_plan_carries_its_load_and_one_shard_less_does_not(
    writes: float, reads: float, events: float, hosts: int
) -> None:
    asked = Demand(writes_per_s=writes, reads_per_s=reads, events_per_s=events, hosts=hosts)
    try:
        found = demand.plan(asked, PRICES)
    except ValueError:
        assert demand._with(asked, PRICES, demand.MOST_SHARDS) is None
        return
    assert max(found["cpu_by_role"].values()) <= asked.most + 1e-9
    assert found["cpus_per_host"] * asked.most >= found["busiest_host_cpus"] - 1e-9
    assert found["first_at_times"] >= 1 / asked.most - 1e-9
    if found["shards"] > 1:
        assert demand._with(asked, PRICES, found["shards"] - 1) is None


def test_more_of_anything_never_needs_a_smaller_disk() -> None:
    small = demand.plan(Demand(), PRICES)
    for more in (replace(Demand(), keys=9_000_000), replace(Demand(), value_bytes=900),
                 replace(Demand(), kept_s=90_000.0), replace(Demand(), writes_per_s=5000.0)):
        assert demand.plan(more, PRICES)["disk_bytes_per_host"] > small["disk_bytes_per_host"]


def test_a_planned_quota_holds_two_intervals_of_old_versions_and_is_never_below_the_default() -> None:
    asked = Demand()
    found = demand.plan(asked, PRICES)
    row = asked.key_bytes + asked.value_bytes
    assert found["quota_bytes"] >= (asked.keys + 2 * asked.writes_per_s * asked.kept_s) * row
    assert found["disk_bytes_per_host"] >= 2 * found["quota_bytes"]
    assert f"--quota-backend-bytes {found['quota_bytes']}" in _shown(found)
    small = demand.plan(Demand(writes_per_s=1.0, keys=1000, value_bytes=64), PRICES)
    assert small["quota_bytes"] == demand.DEFAULT_QUOTA_BYTES == settings.DEFAULT_QUOTA_BYTES
    assert "--quota-backend-bytes" not in _shown(small)


def _shown(found: dict[str, Any]) -> str:
    out = io.StringIO()
    show.plan(Console(file=out, width=300), {
        "plan": found, "prices": [], "machine": {"cpu": "x", "cpus": 2}, "machine_load": 0.5})
    return out.getvalue()


@pytest.mark.parametrize(("wrong", "words"), [
    (Demand(hosts=2), "hosts must be"), (Demand(most=0.0), "at most 1 CPU"), (Demand(keys=0), "at least 1"),
    (Demand(writes_per_s=-1.0), "not be negative"), (Demand(writes_per_s=1e9), "64 shards do not carry"),
])
def test_what_cannot_be_planned_is_refused_in_words(wrong: Demand, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        demand.plan(wrong, PRICES)


@pytest.mark.parametrize("shards", [1, 2, 8])
@pytest.mark.parametrize("clients", [1, 100, 4000])
def test_a_simulated_store_keeps_below_its_cost_and_no_process_is_busier_than_always(
    shards: int, clients: int
) -> None:
    _, _, fronts = capacity(PRICES, shards)
    seen = simulate(PRICES, Setting(shards, clients, None, 3, fronts, 1.0, 0.5))
    assert seen.writes_per_s > 0
    assert max(seen.busy.values()) <= 1.05  # of work that begins in the window, some ends behind it
    cheapest = max(PRICES.by_role[SEQUENCER][1], PRICES.by_role[LEADER][1])
    assert seen.writes_per_s <= 1.05 * shards / min(cheapest, PRICES.by_role[SEQUENCER][1])


def test_a_lone_client_waits_for_two_syncs_on_another_shard_and_for_one_on_shard_0() -> None:
    of_0 = simulate(PRICES, Setting(1, 1)).latency_s
    other = simulate(PRICES, Setting(2, 1, 0)).latency_s
    assert PRICES.sync_s < of_0 < 2 * PRICES.sync_s + 0.003
    assert 2 * PRICES.sync_s < other < 3 * PRICES.sync_s + 0.006


def test_few_shared_cpus_are_slower_than_one_for_each_process() -> None:
    alone = simulate(PRICES, Setting(4, 1000)).writes_per_s
    assert simulate(PRICES, Setting(4, 1000, cpus=2)).writes_per_s < 0.6 * alone


def test_a_simulation_repeats() -> None:
    assert simulate(PRICES, Setting(3, 500)) == simulate(PRICES, Setting(3, 500))


def test_a_simulation_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs shards"):
        simulate(PRICES, Setting(0, 1))


def test_roles_follow_the_leaders_and_a_window_with_two_leaders_is_refused() -> None:
    def moment(cpu_s: float, leads: str) -> Moment:
        seen = {10 * host + shard: Seen(f"host{host}", shard, cpu_s, 1, 2) for host in range(2)
                for shard in (-1, 0, 1)}
        return Moment(seen, {0: "host0", 1: leads}, {0: 5, 1: 6}, 1, 1, 1)

    work = roles.spent(moment(1.0, "host1"), moment(1.5, "host1"))
    assert [(w.role, w.shard, w.cpu_s) for w in work] == [
        (FRONT, -1, 0.5), (SEQUENCER, 0, 0.5), (FOLLOWER, 1, 0.5),
        (FRONT, -1, 0.5), (ORDER_FOLLOWER, 0, 0.5), (LEADER, 1, 0.5)]
    with pytest.raises(roles.LeaderChanged):
        roles.spent(moment(1.0, "host1"), moment(1.0, "host0"))


def _windows() -> list[Window]:
    """What clusters of these prices would show."""
    found = []
    for shards in (1, 2, 4, 8):
        for load, each, batch in (("idle", 0.0, 1.0), ("100 clients", 3000.0, 20.0), (CROWD, 9000.0, 300.0)):
            logged, rows = each / (batch * shards), []  # no two clusters work alike
            for role in ROLES:
                if shards == 1 and role in (LEADER, FOLLOWER):
                    continue
                own = {FRONT: logged * shards, SEQUENCER: logged * (shards - 1), ORDER_FOLLOWER: 0.0}
                records = logged * (2 if load == CROWD else 1)  # else reports and feeds are as many
                work = tuple(amounts(role, 1.0, each * shards / 3 if role == FRONT else each,
                                     own.get(role, logged), records, shards - 1))
                rows.append(Row(role, load, shards, work, sum(
                    p * a for p, a in zip(PRICES.by_role[role], work, strict=True))))
            found.append(Window(load, shards, 1.0, int(each * shards), batch, 0.003, 1e6, 0.5, tuple(rows),
                                each * shards, 30.0, 5.0, dict.fromkeys(ROLES, 1e8)))
    return found


def test_a_scale_finds_the_prices_again_and_its_checks_hold() -> None:
    windows = _windows()
    found = scale.prices_of(windows, [])
    for role in ROLES:
        assert found.by_role[role] == pytest.approx(PRICES.by_role[role], rel=0.05, abs=2 * US)
    assert max(abs(row["error"]) for row in scale.check_rows(windows, [])) < 0.05


def test_other_programs_only_add_so_the_window_with_the_least_cpu_counts() -> None:
    windows = _windows()
    noisy = [replace(seen, cpu_us_per_op=99.0, rows=()) for seen in windows]
    assert quietest([*noisy, *windows]) == quietest(windows) == windows


@pytest.mark.parametrize(("cpus", "shards", "enough"), [
    (2, 1, False), (7, 1, True), (16, 4, True), (16, 5, False)])
def test_throughput_is_the_machines_where_each_process_has_a_cpu(
    cpus: int, shards: int, enough: bool
) -> None:
    assert scale.enough_cpus(cpus, shards) == enough


def test_a_scale_is_shown_and_written_as_tables_with_all_their_columns(tmp_path: Path) -> None:
    windows = _windows()
    found = scale.prices_of(windows, [])
    result = {
        "machine": {"cpu": "x", "cpus": 2}, "machine_load": 0.5, "prices": scale.price_rows(found),
        "steps": scale.step_rows(windows, found, 2), "checks": scale.check_rows(windows, []),
        "predictions": scale.predictions(found, [(1, 3), (4, 3)], (100,), 0.2), "at_64": scale.wanted(found)}
    show.write_into(tmp_path, result)
    assert {path.name for path in tmp_path.iterdir()} == {
        "scale.tsv", "scale-prices.tsv", "scale-steps.tsv", "scale-checks.tsv"}
    for path in tmp_path.iterdir():
        heads, *rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
        assert rows
        assert {len(row) for row in rows} == {len(heads)}, path.name
    out = io.StringIO()
    show.scale(Console(file=out, width=300), result)
    show.plan(Console(file=out, width=300), result | {"plan": demand.plan(Demand(), PRICES)})
    assert "first to saturate: the sequencer" in out.getvalue()


@pytest.mark.parametrize(("module", "arguments", "words"), [
    ("bench.cli", ["plan"], "run it as muster-bench"),
    ("tools.muster_bench", ["plan", "--hosts", "2"], "hosts must be 1, 3, 5, 7 or 9"),
    ("tools.muster_bench", ["plan", "--writes=-1"], "must not be negative"),
    ("tools.muster_bench", ["scale", "--shards", "2"], "two different numbers of shards"),
    ("tools.muster_bench", ["scale", "--shards", "1,x"], "invalid literal"),
])
def test_wrong_options_are_refused_before_anything_is_measured(
    module: str, arguments: list[str], words: str
) -> None:
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True,
                          timeout=300, check=False)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
