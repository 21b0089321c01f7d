"""What a simulated run is made of: hosts, shards, clients, what they ask, and what goes wrong meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from cluster.grain import Grain
from cluster.pacing.resting import LARGE_BYTES

HOSTS = (1, 2, 3)  # unless a plan says otherwise
MIX = {"put": 6, "lease_put": 2, "delete": 2, "range": 4, "serializable": 2, "txn": 4, "wide": 4,
       "transfer": 3, "grant": 1, "revoke": 1, "keep": 1, "ttl": 1, "compact": 1, "watch": 1, "progress": 1,
       "list": 1, "hash": 1}
FAULTS = (
    "kill sequencer", "kill leader", "kill leader", "kill node", "kill host", "restart", "restart", "restart",
    "pause sequencer", "pause leader", "pause leader", "pause node", "pause front", "isolate", "one way",
    "cut pair", "cut sequencer", "heal", "heal", "heal", "break", "break", "transfer", "transfer",
    "slow disk", "late", "flush", "empty host",
)
HARD_FAULTS = (
    "kill sequencer", "kill leader", "kill leader", "kill node", "kill host", "restart", "restart", "restart",
    "restart", "pause leader", "pause node", "pause front", "long pause", "isolate", "one way", "cut pair",
    "cut sequencer", "heal", "heal", "heal", "break", "transfer", "transfer", "slow disk", "late", "flush",
    "flush", "empty host", "power cut", "dark host", "full disk", "fail disk", "jump clock",
)


@dataclass
class Plan:
    """What a run is made of; chosen by the seed, unless a test says otherwise."""

    shards: int = 3
    seconds: float = 6.0
    rest_s: float = 30.0  # within which all must have come to rest once the faults are over
    clients: int = 8
    think_s: float = 0.03
    fault_every_s: float = 0.35
    snapshot_count: int = 10_000
    repeats: float = 0.1
    late: float = 0.0
    busy_s: float = 0.0005
    patience: float = 0.3  # share of requests whose client waits for the answer, however long
    mix: dict[str, int] | None = None
    faults: tuple[str, ...] = FAULTS
    turn_rows: int = Grain().turn_rows  # what decides a write is looked at ahead if it is more
    lease_keys: int = Grain().lease_keys  # those of a lease are listed before its end if they are more
    many: int = Grain().many_keys  # a delete of more keys than this is logged as a range
    delete_bytes: int = Grain().delete_bytes  # and one whose rows take more
    turn_deletes: int = Grain().turn_deletes  # a transaction of more deletes of ranges is drafted
    lease_end_bytes: int = Grain().lease_end_bytes  # of deletes at once; an end of more takes parts
    members: bool = False  # hosts leave and come back
    member_chance: float = 0.3  # of a change at each look of the operator
    updates: bool = False  # an operator gives members other addresses
    grows: bool = False  # somebody wants the data to grow, again and again
    births: bool = False  # an operator adds shards, and retires them
    birth_every_s: float = 0.3
    birth_timeout_ms: int = 3000  # a shard that does not serve by then is dropped
    most_born: int = 3  # shards that are there at a time
    loses_genesis: float = 0.0  # chance of a host to lose what its node of a new shard begins with
    moves: bool = False  # an operator moves spans between the shards
    move_every_s: float = 0.2
    drains: float = 0.0  # share of moves that empty the oldest born shard
    leaves_first: float = 0.0  # share of moves of all keys to a born shard: the first shards then retire
    cancels: float = 0.05  # share of looks at which the operator cancels
    targets: tuple[int, ...] = ()  # shards that spans are moved to; none: all
    joins: bool = False  # moves are of several spans together, as a rule
    patience_ms: int = 400  # with hosts whose copies are not close
    hosts: int = len(HOSTS)
    real: bool = False  # the state lies in RocksDB
    finish_s: tuple[float, float] = (0.0, 0.0)  # what it takes to sync a snapshot that has come
    drift: float = 0.0  # clocks run so much faster or slower, at most
    tcp: bool = False  # connections back off, are half open, and are full
    greets: bool = False  # a peer says hello as soon as a connection is made, not only before a frame
    buffer: int = 10_000  # frames that a connection takes for one that does not read
    spare: bool = False  # CPUs are not scarce
    dies: float = 0.0  # chance of a process to die at a point where it hurts
    users: bool = False  # clients are somebody, and what they may changes
    lease_ids: int = 0  # so many IDs of leases are granted again and again; 0: each is granted once
    # lone writes before one counts as alone at a front (decision 22); None: by chance
    lone_after: int | None = None
    slice_events: int = 200  # of a watch's past, in a slice
    checkpoint_ms: int = 0  # between notes of what is left of a lease; 0: none
    large_bytes: int = LARGE_BYTES  # leaders rest between writes of more, while others ask


def plan_of(seed: int) -> Plan:
    """A plan by chance."""
    r = Random(f"plan {seed}")
    plan = Plan(
        shards=r.choice((1, 2, 2, 3, 3, 4)), seconds=r.choice((4.0, 6.0)), clients=r.choice((4, 8, 12)),
        think_s=r.choice((0.01, 0.03, 0.1)), fault_every_s=r.choice((0.15, 0.3, 0.6)),
        repeats=r.choice((0.0, 0.1, 0.4)),
        late=r.choice((0.0, 0.0, 0.01, 0.1)), busy_s=r.choice((0.0001, 0.002)))
    plan.snapshot_count = r.choice((10_000, 10_000, 40, 100))
    mix = dict(MIX)
    flavour = r.choice(("all", "all", "wide", "leases", "watches", "hot"))
    if flavour == "wide":
        mix |= {"wide": 12, "transfer": 10}
    elif flavour == "leases":
        mix |= {"lease_put": 8, "grant": 3, "revoke": 3, "keep": 3, "txn": 2}
    elif flavour == "watches":
        mix |= {"watch": 4, "compact": 2}
    plan.mix = mix
    plan.turn_rows = Random(f"compares {seed}").choice((0, *[Grain().turn_rows] * 3))
    plan.lease_keys = Random(f"lists {seed}").choice((0, 1, Grain().lease_keys))
    plan.turn_deletes = Random(f"drafts {seed}").choice((0, *[Grain().turn_deletes] * 3))
    plan.delete_bytes = Random(f"deletes {seed}").choice((0, 60, *[Grain().delete_bytes] * 2))
    return plan


def _harden(plan: Plan, seed: int) -> Plan:
    """Add what is new to a plan, by chance."""
    r = Random(f"hard plan {seed}")
    plan.faults = HARD_FAULTS
    plan.hosts = r.choice((3, 3, 3, 5))
    plan.drift = r.choice((0.0, 0.01, 0.05))
    plan.dies = r.choice((0.0, 0.2))
    plan.finish_s = r.choice(((0.0, 0.0), (0.0, 2.0), (0.0, 30.0)))
    plan.seconds = r.choice((5.0, 8.0, 14.0))
    plan.snapshot_count = r.choice((10, 40, 10_000))
    plan.many = r.choice((1, 1, plan.many))
    assert plan.mix is not None
    plan.mix |= {
        "compact": plan.mix["compact"] + r.choice((0, 2)), "delete": plan.mix["delete"] + r.choice((0, 6)),
        "lease_put": plan.mix["lease_put"] + r.choice((0, 4)),
    }
    plan.tcp = r.random() < 0.6
    plan.buffer = r.choice((10_000, 10_000, 60))
    return plan


def hard_plan_of(seed: int, *, real: bool = False) -> Plan:
    """A plan by chance with every fault there is; ``real``: over RocksDB."""
    plan = _harden(plan_of(seed), seed)
    plan.real = real
    return plan
