"""Which process does how much, and what that takes by its price. Pure.

Amounts of a role, in the order of their prices. A *record* is an entry of shard 0's log, which is the order
log: every node takes every record, so its price must not be put on a shard's own entries.

* front: seconds, writes and reads that it passes on, log entries of all shards (their answers come together);
* sequencer: seconds, writes of shard 0, records, reports (entries of other shards), feeds (a record to a node
  of its host);
* node 0, which follows it: seconds, writes of shard 0, records, feeds;
* leader of another shard, and follower: seconds, the shard's writes, its entries, records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.plan.roles import FOLLOWER, FRONT, LEADER, ORDER_FOLLOWER, SEQUENCER

#: Names of the amounts by role.
KINDS: Mapping[str, tuple[str, ...]] = {
    FRONT: ("second", "write", "entry"),
    SEQUENCER: ("second", "write", "record", "report", "feed"),
    ORDER_FOLLOWER: ("second", "write", "record", "feed"),
    LEADER: ("second", "write", "entry", "record"),
    FOLLOWER: ("second", "write", "entry", "record"),
}

_MOST_FRONTS = 32  # of a host


@dataclass(slots=True, frozen=True)
class Prices:
    """CPU seconds by role and kind of work; what else a plan needs."""

    by_role: Mapping[str, Sequence[float]]
    batch: float  # writes of an entry while very many clients write
    read_front_s: float  # CPU seconds of a linearizable range of one key, at fronts
    read_node_s: float  # and at nodes, all hosts together
    event_s: float  # CPU seconds of an event for one watcher, all processes of all hosts together
    txn_s: float  # CPU seconds of a transaction over two shards in the coordinator
    sync_s: float  # a sync's time
    write_bytes: float  # written to each host's disk for a byte of a write's key and value
    node_rss_bytes: float
    front_rss_bytes: float


def amounts(role: str, seconds: float, writes: float, entries: float, records: float, others: int
            ) -> list[float]:
    """``writes``, ``entries``: of the process's shard (a front: of all shards, as far as it passes them on);
    of a node 0 the reports of others in ``entries``. ``others``: shards besides 0."""
    return {
        FRONT: [seconds, writes, entries],
        SEQUENCER: [seconds, writes, records, entries, records * others],
        ORDER_FOLLOWER: [seconds, writes, records, records * others],
        LEADER: [seconds, writes, entries, records],
        FOLLOWER: [seconds, writes, entries, records],
    }[role]


@dataclass(slots=True, frozen=True)
class Load:
    """Writes of a second, spread evenly."""

    shards: int
    writes_per_s: float
    hosts: int = 3
    fronts: int = 3  # over all hosts
    entries_per_s: float = 0.0  # of each shard; 0: as full batches make them


def entries(prices: Prices, load: Load) -> float:
    """Log entries of each shard in a second: full ones, as of a process that has no CPU to spare."""
    own = load.writes_per_s / load.shards
    return load.entries_per_s or min(own, max(own / prices.batch, 1.0))


def used(prices: Prices, load: Load) -> dict[str, float]:
    """CPUs that one process of each role uses. Roles that a store of one shard has not are left out."""
    own, others = load.writes_per_s / load.shards, load.shards - 1
    each = entries(prices, load)

    def cpu(role: str, writes: float, of: float) -> float:
        work = amounts(role, 1.0, writes, of, each, others)
        return sum(price * amount for price, amount in zip(prices.by_role[role], work, strict=True))

    found = {FRONT: cpu(FRONT, load.writes_per_s / load.fronts, each * load.shards),
             SEQUENCER: cpu(SEQUENCER, own, each * others), ORDER_FOLLOWER: cpu(ORDER_FOLLOWER, own, 0.0)}
    if others:
        found |= {LEADER: cpu(LEADER, own, each), FOLLOWER: cpu(FOLLOWER, own, each)}
    return found


def capacity(prices: Prices, shards: int, hosts: int = 3) -> tuple[float, str, int]:
    """The most writes a second of which no process uses more than a CPU, the role of the process that then
    uses most, and the fronts that pass so many on."""
    def carried(writes_per_s: float) -> bool:
        cpus = used(prices, Load(shards, writes_per_s, hosts))
        busiest = max(cpu for role, cpu in cpus.items() if role != FRONT)
        return busiest <= 1.0 and fronts_for(prices, shards, writes_per_s, hosts) is not None

    low, high = 0.0, 1e9
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if carried(middle) else (low, middle)
    fronts = fronts_for(prices, shards, low, hosts) or hosts
    at = used(prices, Load(shards, low, hosts, fronts))
    nodes = {role: cpu for role, cpu in at.items() if role != FRONT}
    first = max(nodes, key=lambda role: nodes[role])
    return low, first if nodes[first] > 0.99 else FRONT, fronts


def fronts_for(prices: Prices, shards: int, writes_per_s: float, hosts: int = 3, most: float = 1.0,
               more_cpus: float = 0.0) -> int | None:
    """How many fronts pass so many writes on, a host at least one. ``more_cpus``: for reads and events.
    None if no number does: each front takes a frame of each entry, whose answers go to all of them."""
    load = Load(shards, writes_per_s, hosts, fronts=1)
    second, write, entry = prices.by_role[FRONT]
    left = most - second - entry * entries(prices, load) * shards
    wanted = writes_per_s * write + more_cpus
    if left <= 0 or wanted / left > _MOST_FRONTS * hosts:
        return None
    return hosts * max(1, math.ceil(wanted / left / hosts - 1e-9))
