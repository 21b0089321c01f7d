"""So many writes, reads and watches: how many hosts, CPUs, shards and disks. Pure."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from bench.plan.model import Load, Prices, fronts_for, used
from bench.plan.roles import FOLLOWER, FRONT, LEADER, ORDER_FOLLOWER, SEQUENCER

SCHEMA = "muster-bench-plan/1"
MOST_SHARDS = 64
_ROW_BYTES = 40  # of a version besides key and value (docs/run/sizes.md)
DEFAULT_QUOTA_BYTES = 2 << 30  # of a host: ``--quota-backend-bytes``
_SPARE = 1.5  # of the quota: at its end no write is taken
_LOG_BYTES = 200_000_000  # of each shard
_CONNECTION_BYTES = 6_500
_WATCH_BYTES = 7_500


@dataclass(slots=True, frozen=True)
class Demand:
    """What is asked of a cluster. Rates are of a second, sizes of one key or value."""

    writes_per_s: float = 1000.0
    reads_per_s: float = 10_000.0
    events_per_s: float = 0.0  # delivered to watchers, all together
    watches: int = 0
    connections: int = 1000
    wide_per_s: float = 0.0  # transactions over several shards, besides the writes
    key_bytes: int = 32
    value_bytes: int = 256
    keys: int = 1_000_000
    kept_s: float = 3600.0  # between two compactions; each keeps what is younger than that
    hosts: int = 3
    most: float = 0.6  # of a CPU that a process may use: the rest is for bursts and lost hosts

    def check(self) -> None:
        """ValueError, in words for the user, for what no plan can be made of."""
        for name in ("writes_per_s", "reads_per_s", "events_per_s", "watches", "connections", "wide_per_s",
                     "kept_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        for name in ("key_bytes", "keys", "value_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.hosts not in (1, 3, 5, 7, 9):
            raise ValueError("hosts must be 1, 3, 5, 7 or 9: an even number survives no more losses")
        if not 0 < self.most <= 1:
            raise ValueError("a process can use more than 0 and at most 1 CPU")


def plan(demand: Demand, prices: Prices) -> dict[str, Any]:
    """The smallest number of shards whose processes keep within ``most``. ValueError if 64 do not."""
    demand.check()
    for shards in range(1, MOST_SHARDS + 1):
        if (found := _with(demand, prices, shards)) is not None:
            return found
    cpus = _nodes(demand, prices, MOST_SHARDS)
    role = max(cpus, key=lambda name: cpus[name])
    why = f"the {role} would use {cpus[role]:.1f}" if cpus[role] > demand.most else "fronts do not pass it on"
    raise ValueError(f"{MOST_SHARDS} shards do not carry this load with {demand.most:g} CPUs at most for "
                     f"each process: {why}")


def _nodes(demand: Demand, prices: Prices, shards: int) -> dict[str, float]:
    """CPUs of one node of each role."""
    cpus = used(prices, Load(shards, demand.writes_per_s, demand.hosts))
    del cpus[FRONT]
    # any replica answers a read once it has confirmed it, so nodes share them
    reads = demand.reads_per_s * prices.read_node_s / (shards * demand.hosts)
    cpus = {role: cpu + reads for role, cpu in cpus.items()}
    cpus[SEQUENCER] += demand.wide_per_s * prices.txn_s
    return cpus


def _with(demand: Demand, prices: Prices, shards: int) -> dict[str, Any] | None:
    """A plan with so many shards; None if they are too few."""
    hosts, most = demand.hosts, demand.most
    nodes = _nodes(demand, prices, shards)
    if max(nodes.values()) > most:
        return None
    more = demand.reads_per_s * prices.read_front_s + demand.events_per_s * prices.event_s
    fronts = fronts_for(prices, shards, demand.writes_per_s, hosts, most, more)
    if fronts is None:
        return None
    front = used(prices, Load(shards, demand.writes_per_s, hosts, fronts))[FRONT] + more / fronts
    leaders = math.ceil((shards - 1) / hosts)  # of other shards on the host that leads most of them
    busiest = (front * fronts / hosts + nodes[SEQUENCER] + leaders * nodes.get(LEADER, 0.0)
               + (shards - 1 - leaders) * nodes.get(FOLLOWER, 0.0))
    roles = {FRONT: front, **nodes}
    first = max(roles, key=lambda name: roles[name])
    row = demand.key_bytes + demand.value_bytes + _ROW_BYTES
    versions = demand.keys + 2 * demand.writes_per_s * demand.kept_s  # just before a compaction
    quota = max(DEFAULT_QUOTA_BYTES, round(_SPARE * versions * row))
    return {
        "demand": asdict(demand), "hosts": hosts, "shards": shards, "fronts_per_host": fronts // hosts,
        "cpus_per_host": max(2, math.ceil(busiest / most)),
        "cpu_by_role": roles, "busiest_host_cpus": busiest, "first": first,
        "first_at_times": (1 / roles[first]) if roles[first] else math.inf,
        "disk_bytes_per_host": 2 * quota + _LOG_BYTES * shards,
        "disk_write_bytes_per_s":
            demand.writes_per_s * (demand.key_bytes + demand.value_bytes) * prices.write_bytes,
        "quota_bytes": quota,
        "memory_bytes_per_host": (
            shards * prices.node_rss_bytes + fronts // hosts * prices.front_rss_bytes
            + (demand.connections * _CONNECTION_BYTES + demand.watches * _WATCH_BYTES) / hosts),
        "processes_per_host": shards + fronts // hosts,
    }


#: Roles in the order of a table.
SHOWN = (FRONT, SEQUENCER, ORDER_FOLLOWER, LEADER, FOLLOWER)
