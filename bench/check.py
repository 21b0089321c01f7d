"""The guard: counts the work of a put, a keep-alive and a watched event in a quiet local cluster of three
hosts, and compares it with bounds.

It has counters, and CPU as a ratio to a loop measured beside it, since speed is the machine's. The work of an
idle cluster (heartbeats) is subtracted.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import counters
from bench.load import run
from bench.load.spec import Spec
from bench.report import text
from bench.systems import servers
from bench.systems.systems import System, started

SCHEMA = "muster-bench-check/1"
PUTS = 1000
_IDLE_S = 1.0
_SHARDS = 4
_TRIES = 3  # a bound is broken if it is in every try: other programs only add


@dataclass(slots=True, frozen=True)
class Bound:
    """The most that one operation may cost over all three hosts; ``seen`` was measured when it was set."""

    what: str
    seen: float
    most: float


#: By load. 1 client shares no work, 1000 share most. Events: 2,000 watchers of one key on 100 connections,
#: puts and the creation of watchers included. Frames of nodes include those of a front in the same process
#: (decision 18). A change that worsens a number on purpose says why, and sets both anew.
BOUNDS: dict[str, tuple[Bound, ...]] = {
    "1 client": (
        Bound("log_entries", 3.0, 3.05), Bound("syncs", 3.0, 3.6), Bound("log_bytes", 1142, 1240),
        Bound("peer_bytes", 947, 1180), Bound("node_frames", 4.0, 7.0), Bound("front_frames", 0.95, 1.2),
        Bound("cpu_loops", 19, 35),
    ),
    "1000 clients": (
        Bound("log_entries", 0.02, 0.1), Bound("syncs", 0.016, 0.1), Bound("log_bytes", 847, 910),
        Bound("peer_bytes", 566, 620), Bound("node_frames", 0.02, 0.15), Bound("front_frames", 0.02, 0.12),
        Bound("cpu_loops", 0.30, 0.6),
    ),
    # a lone put on a shard other than 0 goes by the sequencer; its prepare may meet the lock of the put
    # before it and be sent again
    "1 client, 4 shards": (
        Bound("log_entries", 3.0, 3.3), Bound("syncs", 3.2, 3.9), Bound("node_frames", 7.9, 11.5),
        Bound("cpu_loops", 25, 50),
    ),
    "1000 clients, 4 shards": (
        Bound("log_entries", 0.03, 0.12), Bound("syncs", 0.033, 0.15), Bound("node_frames", 0.14, 0.28),
        Bound("cpu_loops", 0.53, 1.05),
    ),
    "keep-alives": (
        Bound("node_frames", 0.15, 0.3), Bound("front_frames", 0.05, 0.15), Bound("cpu_loops", 0.16, 0.32),
    ),
    "watched events": (
        Bound("node_frames", 0.002, 0.01), Bound("front_frames", 0.0004, 0.005),
        Bound("cpu_loops", 0.011, 0.03),
    ),
}


def measure(*, data_dir: Path | None = None, muster_flags: Sequence[str] = (),
            puts: int = PUTS) -> dict[str, Any]:
    """Count what has bounds. The ``--json`` dictionary; ``passed``: every bound holds."""
    loads: dict[str, list[dict[str, float]]] = {}
    for name, suffix in (("muster", ""), (f"muster:{_SHARDS}", f", {_SHARDS} shards")):
        of_it = {load for load in BOUNDS if load.endswith("shards") == bool(suffix)}
        if not (wanted := {load for load in of_it if BOUNDS[load]}):
            continue
        with started([name], data_dir=data_dir, muster_flags=muster_flags) as (system,):
            specs = {load + suffix: spec for load, spec in _specs(system, puts).items()}
            loads |= asyncio.run(_loads(system, {load: specs[load] for load in specs if load in wanted}))
    rows = _judge(loads)
    return {
        "schema": SCHEMA, "machine": run.machine(), "flags": list(muster_flags), "puts": puts, "rows": rows,
        "measured": loads, "passed": all(row["passed"] for row in rows),
    }


def _judge(loads: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    rows = []
    for load, found in loads.items():
        for bound in BOUNDS[load]:
            values = [one[bound.what] for one in found if bound.what in one]
            value = min(values, default=None)
            rows.append({"load": load, "what": bound.what, "value": value, "seen": bound.seen,
                         "most": bound.most, "passed": value is not None and value <= bound.most})
    return rows


def _specs(system: System, puts: int) -> dict[str, Spec]:
    spec = Spec("put", tuple(system.endpoints), total=puts, key_space=1000, timeout_s=20.0)
    crowd = replace(spec, conns=100, clients=1000)
    return {
        "1 client": spec,
        "1000 clients": replace(crowd, total=5 * puts),
        "keep-alives": replace(crowd, command="lease-keepalive", leases=1000, lease_ttl_s=600,
                               key_space=10_000, total=20 * puts),
        "watched events": replace(spec, command="watch", conns=100, streams=100, watchers_per_stream=20,
                                  key_space=1, total=max(1, puts // 5)),
    }


async def _loads(system: System, loads: dict[str, Spec]) -> dict[str, list[dict[str, float]]]:
    # warm: caches, connections
    await run.run(next(spec for name, spec in loads.items() if name.startswith("1000 clients")))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in loads}
    for _ in range(_TRIES):
        for name, load in loads.items():
            found[name].append(await _work(system, load))
        if all(row["passed"] for row in _judge(found)):
            break
    return found


async def _work(system: System, spec: Spec) -> dict[str, float]:
    """Each counter's growth per operation, without that of an idle second."""
    idle_from, cpu_from, began = counters.sample(system.endpoints), _cpu_s(system), time.monotonic()
    await asyncio.sleep(_IDLE_S)
    idle_s = time.monotonic() - began
    before, cpu_before, began = counters.sample(system.endpoints), _cpu_s(system), time.monotonic()
    idle = {name: value / idle_s for name, value in counters.grown(idle_from, before).items()}
    idle_cpu = (cpu_before - cpu_from) / idle_s
    result = await run.run(spec)
    cpu_s, took_s = _cpu_s(system) - cpu_before, time.monotonic() - began
    grown = counters.grown(before, counters.sample(system.endpoints))
    if result["errors"]:
        raise run.RunError(f"operations failed: {result['errors']}")
    work = {name: max(0.0, value - idle[name] * took_s) / result["operations"]
            for name, value in grown.items()}
    work["cpu_loops"] = max(0.0, cpu_s - idle_cpu * took_s) / result["operations"] / calibration_s()
    return work


def _cpu_s(system: System) -> float:
    return sum(usage.cpu_s for usage in servers.sample(system.pids).values())


def calibration_s() -> float:
    """CPU seconds of a thousand turns of a small loop: the machine's speed at this moment."""
    times = []
    for _ in range(7):
        began = time.process_time()
        table: dict[int, bytes] = {}
        for i in range(1000):
            table[i & 63] = b"".join((b"k%d" % i, b"v"))
        times.append(time.process_time() - began)
    return statistics.median(times)


def show(console: Console, result: dict[str, Any]) -> None:
    rows = [[row["load"], row["what"], "not served" if row["value"] is None else f"{row['value']:.3f}",
             f"{row['seen']:.3f}", f"{row['most']:.3f}", "ok" if row["passed"] else "ABOVE"]
            for row in result["rows"]]
    heads = ["load", "for one operation", "now", "when the bound was set", "at most", ""]
    text.write(console, text.table(heads, rows, (0, 1, 5), lambda row: "" if row[5] == "ok" else "red"))
