"""Counts the work of a put, a range, a transaction, a keep-alive and a watched event in a local cluster of
three hosts, and compares it with the bounds of ``bounds``.

The work of an idle cluster (heartbeats) is subtracted. Counts of a lone client repeat. Those of a crowd
depend on how many requests share a batch, which other programs on the machine change. ``lines`` (of Python,
``traced``) are counted in a cluster of their own, since counting takes most of its time.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import counters
from bench.client import parse_endpoint
from bench.guard import traced
from bench.guard.bounds import BOUNDS, LINES_OF, Bound
from bench.guard.events import Events
from bench.load import run
from bench.load.spec import Spec
from bench.report import text
from bench.systems import servers
from bench.systems.systems import System, start_muster

SCHEMA = "muster-bench-check/2"
PUTS = 1000
SHARDS = 4
_IDLE_S = 0.5
_TRIES = 4  # a bound is broken if it is in every try: other programs only add
_LINES = "lines"


def measure(*, data_dir: Path | None = None, muster_flags: Sequence[str] = (),
            puts: int = PUTS) -> dict[str, Any]:
    """Count what has bounds. The ``--json`` dictionary; ``passed``: every bound holds."""
    found: dict[str, list[dict[str, float]]] = {load: [] for load in BOUNDS}
    missing: dict[str, str] = {}
    if sys.version_info[:2] != LINES_OF:
        missing[_LINES] = f"the figures are of Python {'.'.join(map(str, LINES_OF))}"
    for shards, counts_lines in ((1, False), (1, True), (SHARDS, False)):
        wanted = {load: bounds for load in BOUNDS if load.endswith("shards") == (shards > 1)
                  if (bounds := [b for b in BOUNDS[load]
                                 if (b.what == _LINES) == counts_lines and b.what not in missing])}
        if not wanted:
            continue
        with _cluster(data_dir, muster_flags, shards, counts_lines) as cluster:
            missing |= cluster.events.missing
            tried = asyncio.run(_tried(cluster, wanted, puts // 2 if counts_lines else puts))
        for load, tries in tried.items():
            found[load] += tries
    rows = _judge(found, missing)
    return {
        "schema": SCHEMA, "machine": run.machine(), "flags": list(muster_flags), "puts": puts, "rows": rows,
        "measured": found, "missing": missing, "passed": all(row["passed"] for row in rows),
    }


def _judge(found: dict[str, list[dict[str, float]]], missing: Container[str] = ()) -> list[dict[str, Any]]:
    """Rows for all bounds but those of what this machine cannot count."""
    return [_row(load, bound, tries) for load, tries in found.items() for bound in BOUNDS[load]
            if bound.what not in missing]


def _row(load: str, bound: Bound, tries: list[dict[str, float]]) -> dict[str, Any]:
    value = min((one[bound.what] for one in tries if bound.what in one), default=None)
    return {"load": load, "what": bound.what, "value": value, "seen": bound.seen, "most": bound.most,
            "why": bound.why, "passed": value is not None and value <= bound.most}


@dataclass(slots=True)
class _Cluster:
    system: System
    events: Events
    lines: str = ""  # the folder of their counts, if they are counted

    def begin(self) -> dict[str, float]:
        """All counts. What /metrics costs lies before those of processes here, and behind them in
        :meth:`end`."""
        return self._told() | self._of_processes()

    def end(self) -> dict[str, float]:
        found = self._of_processes()
        return self._told() | found

    def _told(self) -> dict[str, float]:
        return {} if self.lines else counters.sample(self.system.endpoints)

    def _of_processes(self) -> dict[str, float]:
        cpu_s = sum(usage.cpu_s for usage in servers.sample(self.system.pids).values())
        if self.lines:  # all else would have the tracer's own work in it
            return {_LINES: float(traced.read(self.lines))}
        return self.events.read() | {"cpu_us": cpu_s * 1e6}


@contextmanager
def _cluster(data_dir: Path | None, flags: Sequence[str], shards: int, counts_lines: bool
             ) -> Iterator[_Cluster]:
    """Three hosts in a new directory, until the block ends."""
    parent = data_dir or Path(os.environ.get("TMPDIR", "/var/tmp"))
    parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="muster-bench-", dir=parent,
                                                                    ignore_cleanup_errors=True)))
        environment, lines = {}, home / _LINES
        if counts_lines:
            (site := home / "site").mkdir()
            lines.mkdir()
            shutil.copyfile(traced.__file__, site / "sitecustomize.py")
            path = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
            environment = {"PYTHONPATH": os.pathsep.join(path), traced.FOLDER: str(lines)}
        system = start_muster(home / "data", shards=shards, flags=flags, more=environment)
        stack.callback(system.stop)
        events = stack.enter_context(Events(servers.sample(system.pids)))
        yield _Cluster(system, events, str(lines) if counts_lines else "")


def _specs(endpoints: Sequence[str], puts: int) -> dict[str, Spec]:
    """By load, without its number of shards."""
    spec = Spec("put", tuple(endpoints), total=puts, key_space=1000, timeout_s=30.0, dial_timeout_s=20.0)
    crowd = replace(spec, conns=100, clients=1000)
    alive = replace(spec, command="lease-keepalive", leases=1, lease_ttl_s=600)
    return {
        "put, 1 client": spec,
        "range, 1 client": replace(spec, command="range"),
        "txn, 1 client": replace(spec, command="txn-compare"),
        "keep-alive, 1 client": alive,
        "watched event, 1 watcher": replace(spec, command="watch", key_space=1, total=puts // 2),
        "put, 1000 clients": replace(crowd, total=5 * puts),
        "range, 1000 clients": replace(crowd, command="range", total=10 * puts),
        "txn, 1000 clients": replace(crowd, command="txn-compare", total=5 * puts),
        "keep-alive, 1000 clients": replace(alive, conns=100, clients=1000, leases=1000, total=20 * puts),
        "watched event, 2000 watchers": replace(
            spec, command="watch", conns=100, streams=100, watchers_per_stream=20, key_space=1,
            total=max(1, puts // 5)),
    }


async def _tried(cluster: _Cluster, wanted: dict[str, list[Bound]], puts: int
                 ) -> dict[str, list[dict[str, float]]]:
    """By load its tries: one, and others until each bound held in one of them."""
    endpoints = sorted(cluster.system.endpoints, key=_leads, reverse=True)
    specs = _specs(endpoints, puts)  # the leader first: a lone client's way is as long each time
    await run.populate(specs["put, 1 client"])
    await run.run(specs["put, 1000 clients"])  # warm: caches, connections
    found: dict[str, list[dict[str, float]]] = {load: [] for load in wanted}
    left = list(wanted)
    for _ in range(_TRIES):
        for load in left:
            found[load].append(await _work(cluster, specs[load.partition(f", {SHARDS} shards")[0]]))
        left = [load for load in left
                if not all(_row(load, bound, found[load])["passed"] for bound in wanted[load]
                           if bound.what not in cluster.events.missing)]
    return found


def _leads(endpoint: str) -> float:
    """How many shards the member leads."""
    where = parse_endpoint(endpoint)
    metrics = counters.parse(counters.http_get(where.host, where.port, "/metrics"))
    return metrics.get("etcd_server_is_leader", 0.0)


async def _work(cluster: _Cluster, spec: Spec) -> dict[str, float]:
    """Each count's growth for one operation, without that of an idle cluster.

    Idle is the lesser of before and after: what comes once in a while, an entry that a host writes of itself,
    is no rate, and a slow load would have it subtracted many times.
    """
    idle_before = await _idle(cluster)
    before, began = cluster.begin(), time.monotonic()
    result = await run.run(spec)
    took_s, after = time.monotonic() - began, cluster.end()
    if result["errors"]:
        raise run.RunError(f"operations failed: {result['errors']}")
    idle_after = await _idle(cluster)
    idle = {name: min(idle_before[name], idle_after[name]) for name in before}
    work = {name: max(0.0, after[name] - before[name] - idle[name] * took_s) / result["operations"]
            for name in before}
    if "cpu_us" in work:
        work["cpu_loops"] = work["cpu_us"] / 1e6 / calibration_s()
    return work


async def _idle(cluster: _Cluster) -> dict[str, float]:
    """Each count's growth in a second without a request."""
    before, began = cluster.begin(), time.monotonic()
    await asyncio.sleep(_IDLE_S)
    idle_s, after = time.monotonic() - began, cluster.end()
    return {name: (after[name] - before[name]) / idle_s for name in before}


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
    rows = [[row["load"], row["what"], "not counted" if row["value"] is None else f"{row['value']:.3f}",
             f"{row['seen']:.3f}", f"{row['most']:.3f}", "ok" if row["passed"] else "ABOVE", row["why"]]
            for row in result["rows"]]
    heads = ["load", "for one operation", "now", "recorded", "at most", "", "why the bound is wider"]
    text.write(console, text.table(heads, rows, (0, 1, 5, 6), lambda row: "red" if row[5] == "ABOVE" else ""))
    for load, tries in result["measured"].items():
        if found := [one["instructions"] for one in tries if "instructions" in one]:
            text.write(console, f"{load}: {min(found):,.0f} instructions outside of the kernel")
    for name, why in result["missing"].items():
        instead = "; lines and CPU time (cpu_loops) stand in for them" if name == "instructions" else ""
        text.write(console, f"{name} are not counted on this machine: {why}{instead}")
