"""How a store grows with its shards, beyond the CPUs of this machine.

Three tables. *Prices*: CPU by role and kind of work, from clusters of 1 to 8 shards on this machine.
*Checks*: CPU by role with so many shards, predicted from prices of the other numbers, beside what was
measured. *Predictions*: writes a second of 1 to 64 shards, each process with a CPU of its own, by cost (the
first process that is busy) and by :mod:`bench.plan.simulate`.

A machine with CPUs for every process of a step measures its throughput too.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.compare.loads import cuts
from bench.load import run
from bench.plan import prices as pricing
from bench.plan.model import KINDS, Prices, capacity
from bench.plan.prices import CROWD, HOSTS, Row, Window
from bench.plan.roles import ROLES
from bench.plan.simulate import Setting, simulate

SCHEMA = "muster-bench-scale/1"
MEASURED = (1, 2, 4, 8)
PREDICTED = ((1, 3), (2, 3), (4, 3), (8, 3), (16, 3), (32, 3), (64, 3), (16, 5), (64, 5), (16, 9), (64, 9))
CLIENTS = (1000, 4000)  # of each shard
REAL = "1000 clients a shard"
_GOAL_SHARDS, _GOAL_PER_S = 64, 1e6


@dataclass(slots=True, frozen=True)
class Steps:
    """What is measured."""

    shards: Sequence[int] = MEASURED
    rounds: int = 3
    duration_s: float = 3.0
    key_bytes: int = 8
    value_bytes: int = 256
    data_dir: Path | None = None


def measure(ground: cuts.Ground, steps: Steps, *, said: Callable[[str], None] = print) -> dict[str, Any]:
    """The ``--json`` dictionary. Where the machine is too busy for a cluster, ``missing`` says why.
    RuntimeError if fewer than two are left."""
    began, windows, cpus = datetime.now(UTC), list[Window](), run.machine()["cpus"]
    missing: dict[int, str] = {}
    for shards in steps.shards:
        said(f"{shards} shard{'s' * (shards > 1)}")
        try:
            windows += _cluster(shards, steps, enough_cpus(cpus, shards))
        except (RuntimeError, run.RunError) as error:
            missing[shards] = str(error).strip()
            said(f"not measured: {missing[shards]}")
    if len({seen.shards for seen in windows}) < 2:
        raise RuntimeError(f"the machine is too busy: {missing}")
    order = pricing.ordering_rows(ground, steps.data_dir, said)
    found = prices_of(windows, order)
    said("the simulation")
    return {
        "schema": SCHEMA, "started_at": began.isoformat(timespec="seconds"), "machine": run.machine(),
        "prices": price_rows(found), "batch": found.batch, "sync_ms": 1000 * found.sync_s,
        "steps": step_rows(windows, found, cpus), "checks": check_rows(windows, order),
        "predictions": predictions(found), "at_64": wanted(found),
        "missing": missing, "windows": [asdict(seen) for seen in windows],
        "order": [asdict(row) for row in order],
    }


def _cluster(shards: int, steps: Steps, real: bool) -> list[Window]:
    """``real``: with throughput, which the machine has the CPUs for."""
    with pricing.cluster(shards, steps.data_dir) as system:
        spec = pricing.spec_of(system, steps.key_bytes, steps.value_bytes)
        asyncio.run(run.populate(spec))
        windows = [pricing.window(system, "idle", None)]
        for _ in range(steps.rounds):
            for name, load in pricing.loads(spec, steps.duration_s).items():
                windows.append(pricing.window(system, name, load))
            if real:
                crowd = replace(spec, conns=100 * shards, clients=CLIENTS[0] * shards,
                                duration_s=steps.duration_s)
                windows.append(pricing.window(system, REAL, crowd, processes=1 + shards))
    return windows


def prices_of(windows: Sequence[Window], order: Sequence[Row]) -> Prices:
    """For writes alone."""
    none = dict.fromkeys(("read_front_s", "read_node_s", "event_s", "txn_s", "write_bytes"), 0.0)
    return pricing.of_windows(windows, none, order)


def price_rows(prices: Prices) -> list[dict[str, Any]]:
    return [{"role": role, "work": kind, "cpu_us": 1e6 * price} for role in ROLES
            for kind, price in zip(KINDS[role], prices.by_role[role], strict=True)]


def step_rows(windows: Sequence[Window], prices: Prices, cpus: int) -> list[dict[str, Any]]:
    """Medians of each cluster and load; for crowds what the simulation says of this machine's CPUs."""
    found = []
    for shards in sorted({seen.shards for seen in windows}):
        for load in dict.fromkeys(seen.load for seen in windows if seen.operations):
            some = [seen for seen in windows if (seen.shards, seen.load) == (shards, load)]
            if some:
                row = {name: statistics.median(getattr(seen, name) for seen in some) for name in (
                    "throughput_per_s", "cpu_us_per_op", "client_us_per_op", "batch", "machine_load")}
                found.append({"shards": shards, "load": load, **row,
                              "simulated_per_s": _here(prices, shards, load, cpus, row["client_us_per_op"])})
    return found


def _here(prices: Prices, shards: int, load: str, cpus: int, client_us: float) -> float | None:
    """The simulation of a crowd on this machine; None for other loads."""
    if load not in (CROWD, REAL):
        return None
    clients = CLIENTS[0] if load == REAL else max(1, CLIENTS[0] // shards)
    shared = 0 if enough_cpus(cpus, shards) else cpus
    return simulate(prices, Setting(
        shards, clients, cpus=shared, client_s=client_us / 1e6 if shared else 0.0)).writes_per_s


def check_rows(windows: Sequence[Window], order: Sequence[Row]) -> list[dict[str, Any]]:
    """CPU of a process of each role while the crowd writes: predicted from the other clusters, and seen."""
    found = []
    for shards in sorted({seen.shards for seen in windows}):
        others = [seen for seen in windows if seen.shards != shards]
        if not others or {seen.shards for seen in others} == {1}:
            continue  # one shard alone tells nothing of leaders
        prices = prices_of(others, order)
        for role in ROLES:
            some = [row for seen in pricing.quietest(windows) if (seen.shards, seen.load) == (shards, CROWD)
                    for row in seen.rows if row.role == role]
            if not some:
                continue
            errors = [_cost(prices, row) / row.cpu_s - 1 for row in some if row.cpu_s]
            if errors:
                found.append({"shards": shards, "role": role, "error": statistics.median(errors),
                              "cpu": statistics.median(row.cpu_s / row.amounts[0] for row in some),
                              "machine_load": statistics.median(
                                  seen.machine_load for seen in windows if seen.shards == shards)})
    return found


def _cost(prices: Prices, row: Row) -> float:
    return sum(p * a for p, a in zip(prices.by_role[row.role], row.amounts, strict=True))


def predictions(prices: Prices, settings: Sequence[tuple[int, int]] = PREDICTED,
                clients: Sequence[int] = CLIENTS, seconds: float = 2.0) -> list[dict[str, Any]]:
    """By cost and by simulation; ``linear``: of so many times one shard's writes with as many hosts.
    ``order_only``: shard 0 owns no keys."""
    found, ones = [], {}
    for shards, hosts in settings:
        by_cost, first, fronts = capacity(prices, shards, hosts)
        if hosts not in ones:
            ones[hosts] = (capacity(prices, 1, hosts)[0], {
                count: simulate(prices, Setting(1, count, None, hosts, hosts, seconds)).writes_per_s
                for count in clients})
        row: dict[str, Any] = {
            "shards": shards, "hosts": hosts, "fronts": fronts, "by_cost_per_s": by_cost, "first": first,
            "linear": by_cost / (shards * ones[hosts][0])}
        for count in clients:
            one = shards * ones[hosts][1][count]
            for name, own in (("simulated", None), ("order_only", 0)):
                if own is None or shards > 1:
                    seen = simulate(prices, Setting(shards, count, own, hosts, fronts, seconds))
                    row[f"{name}_{count}"] = asdict(seen) | {"linear": seen.writes_per_s / one}
        found.append(row)
    return found


def wanted(prices: Prices) -> dict[str, Any]:
    """By cost, what 64 shards carry, and whether that is the goal."""
    by_cost, first, fronts = capacity(prices, _GOAL_SHARDS)
    return {"shards": _GOAL_SHARDS, "goal_per_s": _GOAL_PER_S, "by_cost_per_s": by_cost, "first": first,
            "fronts": fronts, "reached": by_cost >= _GOAL_PER_S}


def enough_cpus(cpus: int, shards: int) -> bool:
    """Whether this machine has a CPU for each process: its nodes, fronts and the load."""
    return cpus >= HOSTS * (shards + 1) + 1


