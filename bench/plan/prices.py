"""Measures the prices of :mod:`bench.plan.model` in local clusters of three hosts.

CPU time of processes, not time: other programs change it far less. They still make caches colder, so the
machine's load stands beside every figure.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.compare.loads import cuts
from bench.load import run
from bench.load.spec import Spec
from bench.plan import ordering, roles
from bench.plan.fit import prices as fitted
from bench.plan.model import KINDS, Prices, amounts
from bench.plan.roles import FRONT, ORDER_FOLLOWER, ROLES, SEQUENCER, LeaderChanged, Moment
from bench.systems.systems import System, started

HOSTS = 3
SHARDS = (1, 4)  # of the clusters that a plan's prices are measured on
_FLAGS = ("--", "--fronts", "1")  # fronts as processes of their own
_IDLE_S = 4.0
_TRIES = 3
CROWD = "1000 clients"
_CUT_SHARDS = (8, 64)
_CUTS = cuts.Load(rate_per_s=100.0, duration_s=3.0)


@dataclass(slots=True, frozen=True)
class Row:
    """One process role's mean work in one window, and the CPU that a process of it took."""

    role: str
    load: str
    shards: int
    amounts: tuple[float, ...]
    cpu_s: float


@dataclass(slots=True, frozen=True)
class Window:
    """What was seen of a cluster while it had one load."""

    load: str
    shards: int
    seconds: float
    operations: int
    batch: float  # writes of an entry
    sync_s: float
    written_bytes: float  # of a host
    machine_load: float  # of one minute, other programs' included
    rows: tuple[Row, ...]
    throughput_per_s: float
    cpu_us_per_op: float
    client_us_per_op: float
    rss_bytes: dict[str, float]  # by role, of a process


def loads(spec: Spec, duration_s: float) -> dict[str, Spec]:
    """Few writes of an entry, and many: their prices are told apart by these. No lighter load: what comes
    alone wakes a loop, what comes in numbers shares its turns, so a report costs 300 us or 50."""
    return {
        "100 clients": replace(spec, conns=10, clients=100, duration_s=duration_s),
        CROWD: replace(spec, conns=100, clients=1000, duration_s=duration_s),
    }


@contextmanager
def cluster(shards: int, data_dir: Path | None) -> Iterator[System]:
    """Three hosts with so many shards, until the block ends."""
    with started([f"muster:{shards}"], data_dir=data_dir, muster_flags=_FLAGS, hosts=HOSTS) as systems:
        yield systems[0]


def spec_of(system: System, key_bytes: int, value_bytes: int) -> Spec:
    """Puts of random keys, which lie in all shards alike."""
    return Spec("put", tuple(system.endpoints), key_size_bytes=max(8, key_bytes), val_size_bytes=value_bytes,
                timeout_s=60.0, dial_timeout_s=30.0)


def window(system: System, name: str, spec: Spec | None, processes: int = 1) -> Window:
    """Put one load on a cluster; None: leave it idle. Again if a leader changes, which moves roles.
    RunError if an operation fails; RuntimeError if leaders change each time."""
    for left in reversed(range(_TRIES)):
        try:
            return _window(system, name, spec, processes)
        except LeaderChanged:
            if not left:
                raise
    raise AssertionError("the last try returns or raises")


def _window(system: System, name: str, spec: Spec | None, processes: int) -> Window:
    before, began = _sample(system), time.monotonic()
    result: dict[str, Any] = {
        "operations": 0, "throughput_per_s": 0.0, "errors": {}, "client": {"us_per_op": 0.0}}
    if spec is None:
        time.sleep(_IDLE_S)
    else:
        result = asyncio.run(run.run(spec, processes=processes))
    seconds, after = time.monotonic() - began, _sample(system)
    if result["errors"]:
        raise run.RunError(f"operations failed: {result['errors']}")
    is_put = spec is not None and spec.command == "put"
    return _seen(name, system.shards, seconds, result, is_put, before, after)


def _sample(system: System) -> Moment:
    return roles.sample(system.pids, system.endpoints)


def _seen(name: str, shards: int, seconds: float, result: dict[str, Any], is_put: bool, before: Moment,
          after: Moment) -> Window:
    done = roles.spent(before, after)
    operations = int(result["operations"])
    writes = operations / shards if is_put else 0.0
    grown = {shard: after.entries[shard] - before.entries.get(shard, 0) for shard in after.entries}
    records, all_entries = grown.get(0, 0), sum(grown.values())
    syncs = after.syncs - before.syncs
    rows = []
    for role in ROLES:
        of = [work for work in done if work.role == role]
        if not of:
            continue
        own = {FRONT: all_entries, SEQUENCER: all_entries - records, ORDER_FOLLOWER: 0.0}.get(
            role, (all_entries - records) / max(1, shards - 1))
        passed = operations / len(of) if role == FRONT else writes
        rows.append(Row(role, name, shards, tuple(amounts(role, seconds, passed, own, records, shards - 1)),
                        statistics.mean(work.cpu_s for work in of)))
    cpu_s = sum(work.cpu_s for work in done)
    return Window(
        name, shards, seconds, operations, operations / max(1, all_entries),
        (after.sync_us - before.sync_us) / 1e6 / syncs if syncs else 0.0,
        sum(work.written_bytes for work in done) / HOSTS, os.getloadavg()[0], tuple(rows),
        float(result["throughput_per_s"]), 1e6 * cpu_s / operations if operations else 0.0,
        float(result["client"]["us_per_op"]),
        {role: statistics.mean(work.rss_bytes for work in of) for role in ROLES
         if (of := [work for work in done if work.role == role])})


def quietest(windows: Sequence[Window]) -> list[Window]:
    """Of each cluster and load the window that took the least CPU: other programs only add to it."""
    found: dict[tuple[int, str], Window] = {}
    for seen in windows:
        at = seen.shards, seen.load
        if at not in found or seen.cpu_us_per_op < found[at].cpu_us_per_op:
            found[at] = seen
    return list(found.values())


def ordering_rows(ground: cuts.Ground, data_dir: Path | None, said: Callable[[str], None]) -> list[Row]:
    """What the order of many shards takes at nodes 0, whose other shards only report."""
    load, rows = replace(_CUTS, data_dir=data_dir), []
    found = cuts.measure(ground, _CUT_SHARDS, load, said=lambda line: said(f"the order of {line}"))
    for step in found["rows"]:
        seconds, others = load.duration_s, step["shards"] - 1
        reports, records = step["reports_per_s"] * seconds, step["cuts_per_s"] * seconds
        for role, cpu in ((SEQUENCER, step["sequencer_cpu"]), (ORDER_FOLLOWER, step["follower_cpu"])):
            rows.append(Row(role, "cuts", step["shards"],
                            tuple(amounts(role, seconds, 0.0, reports, records, others)), cpu * seconds))
    return rows


def of_windows(windows: Sequence[Window], more: dict[str, float], order: Sequence[Row] = ()) -> Prices:
    """The prices that windows of puts and idleness tell, with :func:`ordering_rows`. ``more``: the other
    fields of Prices."""
    windows, by_role = quietest(windows), {}
    for role in ROLES:
        rows = [row for row in (*(row for seen in windows for row in seen.rows), *order)
                if row.role == role and row.cpu_s > 0]
        by_role[role] = (fitted([(row.amounts, row.cpu_s) for row in rows]) if rows
                         else [0.0] * len(KINDS[role]))
    fewest = min(seen.shards for seen in windows)
    crowded = [seen for seen in windows if seen.load == CROWD and seen.shards == fewest]
    return Prices(
        by_role=by_role, batch=max(1.0, statistics.median(seen.batch for seen in crowded)),
        sync_s=statistics.median(seen.sync_s for seen in windows if seen.sync_s),
        node_rss_bytes=max(
            size for seen in windows for role, size in seen.rss_bytes.items() if role != FRONT),
        front_rss_bytes=max(seen.rss_bytes[FRONT] for seen in windows), **more)


def measure(ground: cuts.Ground, *, key_bytes: int, value_bytes: int, data_dir: Path | None = None,
            duration_s: float = 3.0, rounds: int = 2, said: Callable[[str], None] = print
            ) -> tuple[Prices, list[Window]]:
    """In about a minute. RunError or RuntimeError if the machine is too busy for it."""
    windows: list[Window] = []
    more: dict[str, float] = {}
    for shards in SHARDS:
        said(f"a cluster with {shards} shard{'s' * (shards > 1)}")
        with cluster(shards, data_dir) as system:
            spec = spec_of(system, key_bytes, value_bytes)
            asyncio.run(run.populate(spec))
            windows.append(window(system, "idle", None))
            for _ in range(rounds):
                for name, load in loads(spec, duration_s).items():
                    windows.append(window(system, name, load))
            if shards == 1:
                more = _reads_and_events(system, spec, duration_s)
    order = ordering_rows(ground, data_dir, said)
    said("the coordinator")
    more["txn_s"] = statistics.median(ordering.measure(2000, 100, 200) for _ in range(3)) / 1e6
    crowded = [seen for seen in windows if seen.load == CROWD and seen.shards == 1]
    size = max(8, key_bytes) + value_bytes
    more["write_bytes"] = statistics.median(seen.written_bytes / seen.operations for seen in crowded) / size
    return of_windows(windows, more, order), windows


def _reads_and_events(system: System, spec: Spec, duration_s: float) -> dict[str, float]:
    crowd = replace(spec, conns=100, clients=1000, duration_s=duration_s)
    reads = window(system, "reads", replace(crowd, command="range"))
    by_role = {row.role: row.cpu_s for row in reads.rows}
    nodes = by_role[SEQUENCER] + (HOSTS - 1) * by_role[ORDER_FOLLOWER]
    watched = replace(spec, command="watch", conns=10, streams=10, watchers_per_stream=100, key_space=1,
                      duration_s=0.0, total=200)
    events = window(system, "events", watched)
    return {"read_front_s": HOSTS * by_role[FRONT] / reads.operations,
            "read_node_s": nodes / reads.operations,
            "event_s": events.cpu_us_per_op / 1e6}


