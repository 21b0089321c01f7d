"""One run: client processes are started, wait for each other, and are merged into one result.

The result is a plain dictionary, the ``--json`` output. Times are in the unit of their name; CPU time is
user plus system time. Its fields:

* ``schema``: ``muster-bench/1``.
* ``command``, ``settings``, ``started_at`` (UTC), ``machine``: what was run, when and on what.
* ``interrupted``: whether Ctrl-C was pressed. It ends the run early, and the command behind it.
* ``operations``, ``errors``: answered OK; failed, by kind.
* ``duration_s``, ``throughput_per_s``: from the first operation's start to the last answer (of a watch: the
  last event).
* ``latency_ms``: ``mean min p50 p90 p95 p99 p99.9 max``, exact to a microsecond (nearest rank), without
  failed operations.
* ``histogram_us``: ``[upper bound, count]``, ten bars for each power of ten.
* ``timeline``: ``[second, operations]``; of a watch, puts.
* ``extra``: further latencies, such as ``put``, ``watch_created``, ``to_all``, or ``grant_100`` (a
  hundred leases granted at once).
* ``client``: ``cpu_s``, ``us_per_op``, ``busiest_percent`` (of one CPU), ``reconnects``, each process, and
  ``limited``: ``yes`` if a client process used a whole CPU, ``shared`` if every CPU of the machine was busy.
* ``server``: ``cpu_s``, ``us_per_op``, ``rss_bytes``, ``written_bytes``, ``setup_rss_bytes`` (what
  connections and watchers added), and each process; None where none was found.
* ``machine_busy_percent``: of all CPUs of this machine; ``others_busy_percent``: of that, what neither
  clients nor servers used; None without ``server``.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import psutil

from bench import parent
from bench.client import Endpoint
from bench.load.spec import WATCHES, Spec
from bench.load.stats import Latencies
from bench.load.traffic import kubernetes
from bench.systems import servers

SCHEMA = "muster-bench/1"
START_LIMIT_S = 60.0
CLIENT_LIMITED_PERCENT = 90.0  # of one CPU: from there on the client may be what limits the run
MACHINE_BUSY_PERCENT = 95.0
_REVOKED_PER_S = 1000.0  # leases, at least

#: ``progress(operations, errors)`` so far, over all client processes.
Progress = Callable[[int, int], None]


class RunError(Exception):
    """A failed run: no connection, refused watchers, a dead client process."""


async def run(spec: Spec, *, processes: int = 1, server_roots: Sequence[int] = (),
              progress: Progress | None = None, stop: asyncio.Event | None = None,
              drains: bool = False) -> dict[str, Any]:
    """Make one run. ValueError for a spec that cannot be run, :class:`RunError` if it fails.

    ``stop`` ends it early, with the result until then. With ``drains`` what was due by then is still sent;
    without it ``stop`` is Ctrl-C: a cancellation after it leaves leases, and keeps a result that is there.
    """
    spec.check()
    shares = spec.split(processes)
    usage_idle = servers.sample(server_roots)
    workers: list[_Process] = []
    try:
        for share in shares:
            workers.append(await _Process.start(share))
        await asyncio.gather(*(worker.expect("ready", START_LIMIT_S + spec.timeout_s) for worker in workers))
        usage_before = servers.sample(server_roots)
        machine_before, began = psutil.cpu_times(), time.monotonic()
        started_at = datetime.now(UTC)
        for worker in workers:
            worker.tell("go")

        def report(_: _Process) -> None:
            if progress is not None:
                progress(sum(w.operations for w in workers), sum(w.errors for w in workers))

        async with _stopping(workers, stop, "drain" if drains else "stop"):
            sent = await asyncio.gather(*(worker.expect("sent", None, report) for worker in workers))
        usage_after = servers.sample(server_roots)
        machine_after, measured_s = psutil.cpu_times(), time.monotonic() - began
        puts = sum(event["operations"] for event in sent)
        for worker in workers:
            worker.tell(f"end {puts}")
        limit_s = START_LIMIT_S + spec.timeout_s
        if spec.command in WATCHES:
            limit_s += spec.duration_s + puts / 1000
        results = await asyncio.gather(*(worker.expect("result", limit_s) for worker in workers))
        if spec.command in WATCHES:  # their work goes on until the last event is delivered
            usage_after = servers.sample(server_roots)
            machine_after, measured_s = psutil.cpu_times(), time.monotonic() - began
        with _result_kept(None if drains else stop):
            await asyncio.gather(*(worker.stop(START_LIMIT_S + puts / _REVOKED_PER_S) for worker in workers))
    finally:
        await asyncio.gather(*(worker.stop() for worker in workers))
    merged = _merge(spec, results)
    merged |= {
        "schema": SCHEMA, "command": spec.command, "started_at": started_at.isoformat(timespec="seconds"),
        # a result is shown to others: it has no password
        "settings": {**asdict(spec), "user": spec.user.partition(":")[0], "processes": len(shares)},
        "machine": machine(),
        "machine_busy_percent": _busy_percent(machine_before, machine_after),
    }
    merged["client"]["limited"] = _verdict(merged)
    merged["server"] = of_servers(servers.spent(usage_before, usage_after), merged["operations"],
                               sum(u.rss_bytes for u in usage_before.values())
                               - sum(u.rss_bytes for u in usage_idle.values()))
    merged["others_busy_percent"] = _others_percent(merged, measured_s)
    return merged


@asynccontextmanager
async def _stopping(workers: Sequence[_Process], stop: asyncio.Event | None,
                    order: str) -> AsyncIterator[None]:
    """Within the block, pass ``stop`` on to the workers."""
    async def tell(event: asyncio.Event) -> None:
        await event.wait()
        for worker in workers:
            worker.tell(order)

    if stop is None:
        yield
        return
    told = asyncio.ensure_future(tell(stop))
    try:
        yield
    finally:
        told.cancel()


@contextmanager
def _result_kept(stop: asyncio.Event | None) -> Iterator[None]:
    """A cancellation behind ``stop``, as by Ctrl-C again, ends the block alone."""
    try:
        yield
    except asyncio.CancelledError:
        if stop is None or not stop.is_set():
            raise


async def populate(spec: Spec, *, processes: int = 1, progress: Progress | None = None,
                   stop: asyncio.Event | None = None) -> None:
    """Put every key of the spec's key space once, 100 at a time, until ``stop``. RunError if a put fails."""
    puts = replace(spec, command="put", distribution="sequential", first_key=0, total=spec.key_space,
                   duration_s=0.0, rate_per_s=0.0, clients=min(100, spec.key_space),
                   conns=max(1, min(10, spec.key_space)))
    result = await run(puts, processes=processes, progress=progress, stop=stop)
    if result["errors"]:
        raise RunError(f"keys could not be put: {result['errors']}")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = ""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as info:
        model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "")
    return {"cpu": model or platform.processor(), "cpus": len(os.sched_getaffinity(0)),
            "memory_bytes": psutil.virtual_memory().total, "kernel": platform.release(),
            "python": platform.python_version()}


def _merge(spec: Spec, results: list[dict[str, Any]]) -> dict[str, Any]:
    latencies, errors, extra = Latencies(), Counter[str](), dict[str, Latencies]()
    seconds: Counter[int] = Counter()
    to_all_us: dict[int, int] = {}  # of each put: the last watcher is in any of the processes
    for result in results:
        latencies.merge(Latencies(result["latencies"]))
        errors.update(result["errors"])
        for name, pairs in result["extra"].items():
            extra.setdefault(name, Latencies()).merge(Latencies(pairs))
        for at_s, operations in result["timeline"]:
            seconds[int(max(0.0, at_s - 1e-6))] += operations
        for put, took_us in result["to_all_us"]:
            to_all_us[put] = max(took_us, to_all_us.get(put, 0))
    if spec.command in (*WATCHES, "v2-wait"):
        extra["to_all"] = Latencies()
        extra["to_all"].add(to_all_us.values())
    duration_s = (max(r["ended_ns"] for r in results) - min(r["started_ns"] for r in results)) / 1e9
    operations = len(latencies)
    client = [{**{name: r[name] for name in ("pid", "user_s", "system_s", "max_rss_bytes")},
               "busy_percent": 100 * (r["user_s"] + r["system_s"]) / max(duration_s, 1e-9)} for r in results]
    cpu_s = sum(c["user_s"] + c["system_s"] for c in client)
    return {
        "operations": operations,
        "duration_s": duration_s,
        "throughput_per_s": operations / duration_s if duration_s else 0.0,
        "errors": dict(errors),
        "latency_ms": latencies.summary_ms(),
        "histogram_us": latencies.buckets(),
        "timeline": [[second, seconds[second]] for second in range(max(seconds, default=-1) + 1)],
        "extra": {name: {"count": len(values), "latency_ms": values.summary_ms()}
                  for name, values in extra.items()},
        **(_rates(spec, results) if spec.command == "kubernetes" else {}),
        "client": {"processes": client, "cpu_s": cpu_s,
                   "us_per_op": cpu_s / operations * 1e6 if operations else 0.0,
                   "busiest_percent": max(c["busy_percent"] for c in client),
                   "reconnects": sum(r["reconnects"] for r in results)},
    }


def _rates(spec: Spec, results: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Each kind's asked and reached rate."""
    reached = {kind: sum(count for _, count in result["extra"][kind]) / took_s
               for result in results for kind, took_s in result["kinds_s"].items()}
    return {"asked_per_s": kubernetes.rates(spec), "reached_per_s": reached}


def _verdict(result: dict[str, Any]) -> str:
    """Whether the client side limited the run: ``no``, or how."""
    done_per_s, extra = result["throughput_per_s"], result["extra"]
    if sent := extra.get("put") or extra.get("round"):  # operations are events here, which have no rate
        done_per_s = 0.0 if result["errors"] else sent["count"] / result["duration_s"]
    if 0 < 0.98 * result["settings"]["rate_per_s"] < done_per_s:
        return "no"
    no_cpu_free = result["machine_busy_percent"] >= MACHINE_BUSY_PERCENT
    if result["client"]["busiest_percent"] >= CLIENT_LIMITED_PERCENT:
        more = "no CPU is free: measure from another machine" if no_cpu_free else "use more --processes"
        return f"yes: a client process used a whole CPU, so servers may do more; {more}"
    if no_cpu_free:
        return "shared: all CPUs of this machine were busy, so clients and servers competed for them"
    return "no"


def of_servers(used: list[servers.Spent], operations: int, setup_rss_bytes: int) -> dict[str, Any] | None:
    if not used:
        return None
    cpu_s = sum(u.cpu_s for u in used)
    return {"processes": [asdict(u) for u in used], "cpu_s": cpu_s,
            "us_per_op": cpu_s / operations * 1e6 if operations else 0.0,
            "rss_bytes": sum(u.rss_bytes for u in used), "setup_rss_bytes": setup_rss_bytes,
            "written_bytes": sum(u.written_bytes for u in used)}


def _others_percent(result: dict[str, Any], measured_s: float) -> float | None:
    """CPU used by neither clients nor servers; None if the servers' part is unknown.

    It includes interrupts, the kernel's threads and this process, so it is above 0.
    """
    if result["server"] is None:
        return None
    own_s = result["client"]["cpu_s"] + result["server"]["cpu_s"]
    own_percent: float = 100 * own_s / max(measured_s * (os.cpu_count() or 1), 1e-9)
    return max(0.0, float(result["machine_busy_percent"]) - own_percent)


def _busy_percent(before: Any, after: Any) -> float:
    """All CPUs of the machine between two ``psutil.cpu_times``."""
    idle = after.idle + getattr(after, "iowait", 0.0) - before.idle - getattr(before, "iowait", 0.0)
    total = sum(after[:8]) - sum(before[:8])  # guest time, after these, is counted in user time
    return min(100.0, max(0.0, 100 * (1 - idle / total))) if total > 0 else 0.0


class _Process:
    """A client process and its progress."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.operations = 0
        self.errors = 0

    @classmethod
    async def start(cls, spec: Spec) -> _Process:
        started = cls(await parent.started("bench.load.worker"))
        started.tell(spec.dumps())
        return started

    def tell(self, order: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(order.encode() + b"\n")

    async def expect(self, event: str, limit_s: float | None,
                     progress: Callable[[_Process], None] | None = None) -> dict[str, Any]:
        """Its next event of that name. RunError if it fails or dies, or by the limit."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(limit_s):
                while line := await self._process.stdout.readline():
                    said: dict[str, Any] = json.loads(line)
                    if said["event"] == "failed":
                        raise RunError(said["reason"])
                    if said["event"] == event:
                        return said
                    if said["event"] == "progress":
                        self.operations, self.errors = said["operations"], said["errors"]
                        if progress is not None:
                            progress(self)
        except TimeoutError:
            raise RunError(f"a client process did not get to '{event}' within {limit_s:.0f} s") from None
        raise RunError(f"a client process ended with code {await self._process.wait()}")

    async def stop(self, limit_s: float = 5.0) -> None:
        """Close its stdin, which ends it; kill it after some seconds. Behind its result it revokes leases."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        deadline = time.monotonic() + limit_s
        while self._process.returncode is None:
            try:
                async with asyncio.timeout(max(0.01, deadline - time.monotonic())):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()


def local_roots(endpoints: Sequence[Endpoint], given: Sequence[int]) -> list[int]:
    """The server processes to measure: those given, else those found behind the endpoints."""
    return list(given) or servers.discover(endpoints)
