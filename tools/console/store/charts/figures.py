"""What a look at a host's ``/metrics`` tells, and two looks of the time between. Names are etcd's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

_HANDLED = "grpc_server_handled_total"
_HANDLING = "grpc_server_handling_seconds_bucket"  # with --metrics=extensive alone
_TIMES = {
    "etcd_disk_wal_fsync_duration_seconds_bucket": "fsync",
    "etcd_server_apply_duration_seconds_bucket": "apply",
}
_COUNTERS = {
    "etcd_debugging_mvcc_events_total": "events",
    "etcd_server_slow_apply_total": "slow/apply",
    "etcd_server_slow_read_indexes_total": "slow/read index",
}
_GAUGES = {"etcd_debugging_mvcc_watcher_total": "watches"}
_ELECTIONS = "etcd_server_leader_changes_seen_total"
_REVISION = "etcd_debugging_mvcc_current_revision"
_CPU = {"process_cpu_seconds_total": 1.0, "muster_node_cpu_us_total": 1e-6}  # muster has more processes
_MEMORY = "process_resident_memory_bytes"
_READ = (_HANDLED, _HANDLING, *_TIMES, *_COUNTERS, *_GAUGES, _ELECTIONS, _REVISION, *_CPU, _MEMORY)
_GOOD = ("OK", "Canceled")  # a client that ends its watch is no error
SLOW_S = 0.1

Totals = dict[str, float]
"""Since a process began, by front: one that begins again must not hide what the others count."""
Buckets = dict[float, Totals]
"""Counts of what took no longer, by seconds."""


def _totals() -> Totals:
    return defaultdict(float)


@dataclass(slots=True)
class Figures:
    """Totals by name; ``times``: as buckets; ``gauges``: as of now. ``fronts``: those that have answered; ""
    is the rest of a host. ``twice``: the CPU time of a process that holds shard 0's node and the front."""

    totals: dict[str, Totals] = field(default_factory=lambda: defaultdict(_totals))
    times: dict[str, Buckets] = field(default_factory=lambda: defaultdict(lambda: defaultdict(_totals)))
    gauges: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    fronts: set[str] = field(default_factory=lambda: {""})
    twice: Totals = field(default_factory=dict)


def read(text: str) -> Figures:
    """The figures in an answer. ValueError: it is none."""
    found = Figures()
    # most counters are zero, and a host has thousands: the parser need not see them
    lines = (line for line in text.split("\n") if line.startswith(_READ) and not line.endswith(" 0"))
    once: dict[str, float] = {}  # the CPU time of the only front, and of shard 0's node
    found.gauges["memory"] = 0.0
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            if sample.name in _CPU and sample.labels in ({}, {"shard": "0"}):
                once[sample.name] = sample.value * _CPU[sample.name]
            if sample.name == _MEMORY:
                found.gauges["memory"] += sample.value
            else:
                _take(found, sample)
    if _is_one_process(once):
        found.twice[""] = once["process_cpu_seconds_total"]
    return found


def _is_one_process(once: Mapping[str, float]) -> bool:
    """Whether shard 0's node holds the front: their CPU times are the same, but for the time between two
    looks."""
    front, node = (once.get(name, 0.0) for name in _CPU)
    return min(front, node) > 0 and abs(front - node) <= min(0.02 * node + 0.05, 1.0)


def _take(found: Figures, sample: Sample) -> None:
    name, labels, value = sample.name, sample.labels, sample.value
    front = labels.get("front", "")
    found.fronts.add(front)
    if name == _HANDLED:
        found.totals[f"requests/{labels.get('grpc_method', '')}"][front] += value
        if (code := labels.get("grpc_code", "")) not in _GOOD:
            found.totals[f"errors/{code}"][front] += value
    elif name == _HANDLING:
        method, limit_s = labels.get("grpc_method", ""), float(labels.get("le", ""))
        if labels.get("grpc_type", "unary") == "unary":  # a watch lasts as long as its client wants
            found.times["handling"][limit_s][front] += value
            found.times[f"handling/{method}"][limit_s][front] += value
    elif name in _TIMES:
        found.times[_TIMES[name]][float(labels.get("le", ""))][front] += value
    elif name in _COUNTERS:
        found.totals[_COUNTERS[name]][front] += value
    elif name in _CPU:
        found.totals["cpu"][front] += value * _CPU[name]
    elif name in _GAUGES:
        found.gauges[_GAUGES[name]] += value
    elif name == _ELECTIONS:
        found.totals["elections"][front] = value
    elif name == _REVISION:  # each front of a host has its own
        found.gauges["revision"] = max(found.gauges["revision"], value)


def between(before: Figures, after: Figures, span_s: float) -> dict[str, float]:
    """Rates in a second, percentiles in seconds and gauges, by name; what did not happen is left out."""
    told = dict(after.gauges)
    for name, totals in after.totals.items():
        known = before.totals.get(name, {})
        if grown := _elections(known, totals) if name == "elections" else _grown(before, known, totals):
            told[name] = grown / span_s
    if before.twice and after.twice and "cpu" in told:  # what one look alone says changes no total
        told["cpu"] -= _grown(before, before.twice, after.twice) / span_s
    for name, buckets in after.times.items():
        counted = before.times.get(name, {})
        grown_by = {limit_s: _grown(before, counted.get(limit_s, {}), counts)
                    for limit_s, counts in buckets.items()}
        count = grown_by.get(float("inf"), 0.0)
        if not count:
            continue
        if name.startswith("handling/"):
            if slow := count - grown_by.get(SLOW_S, 0.0):
                told[f"slow/{name.removeprefix('handling/')}"] = slow / span_s
            continue
        for share, word in ((0.5, "p50"), (0.99, "p99")):
            told[f"{name}/{word}"] = quantile(grown_by, share)
    return told


def _grown(figures: Figures, before: Totals, after: Totals) -> float:
    """What was counted since. A counter that fell began again with its process. A front that did not answer
    before tells nothing of the time between."""
    return sum(
        total - known if total >= (known := before.get(front, 0.0)) else total
        for front, total in after.items() if front in figures.fronts)


def _elections(before: Totals, after: Totals) -> float:
    """Each front of a host sees them all; one that began again saw a leader appear, too."""
    seen = [total - before[front] for front, total in after.items() if before.get(front, total + 1) <= total]
    return max(seen or after.values())


def quantile(buckets: Mapping[float, float], share: float) -> float:
    """The time that a share of all stayed below, in seconds; within a bucket as if evenly spread."""
    limits_s = sorted(buckets)
    wanted = share * buckets[limits_s[-1]]
    low_s = low = 0.0
    for limit_s in limits_s:
        count = buckets[limit_s]
        if count >= wanted and count > low:
            if limit_s == float("inf"):
                break
            return low_s + (limit_s - low_s) * (wanted - low) / (count - low)
        if limit_s != float("inf"):
            low_s, low = limit_s, max(low, count)
    return low_s
