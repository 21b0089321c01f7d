"""What is compared: the cells, the targets set for them, and the presets that group them.

A cell is one row of work. ``kind`` says how it is run (``bench.compare.comparison``); ``spec`` lacks
endpoints and duration.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.load.spec import Spec

BIG_PREFIX = "/big/"
BIG_KEY_BYTES = 13  # /big/00000000
CONNS = {1: 1, 100: 10, 1000: 100}  # clients: connections, as in etcd's published benchmarks


@dataclass(slots=True, frozen=True)
class Target:
    """What a cell is to reach: a figure of a system over the first's (``ratio``), or the figure itself."""

    figure: str
    most: bool  # at most (or at least) the bound
    bound: float
    ratio: bool = True
    subject: int = 1  # which of the systems: the second, unless there are more of them to judge

    def met(self, value: float) -> bool:
        return value <= self.bound if self.most else value >= self.bound

    def __str__(self) -> str:
        return ("R " if self.ratio else "") + ("<= " if self.most else ">= ") + f"{self.bound:g}"


@dataclass(slots=True, frozen=True)
class Cell:
    """One row of work."""

    name: str
    title: str
    spec: Spec
    kind: str = "load"  # load, disturbed
    disturbance: str = ""  # of a disturbed cell: catch-up, compaction, full-range, backup
    big: bool = False  # needs the big key range
    own_key_of: int = -1  # a single key, on this shard where there are several
    min_shards: int = 1
    duration_s: float = 0.0  # 0: the plan's
    targets: tuple[Target, ...] = ()


@dataclass(slots=True, frozen=True)
class Sizes:
    """How large the large things are; smaller than asked for where a run has to be short."""

    big_keys: int = 100_000
    watchers: int = 10_000
    watch_rate_per_s: float = 10_000.0
    disturbed_rate_per_s: float = 300.0
    scale: float = 0.2  # of a Kubernetes cluster's rates


_BLANK = Spec("put", ())


def _at_least(bound: float, figure: str = "throughput_per_s") -> Target:
    return Target(figure, False, bound)


def _at_most(bound: float, figure: str, *, ratio: bool = True, subject: int = 1) -> Target:
    return Target(figure, True, bound, ratio, subject)


_CLIENT_TARGETS = {
    ("put", 1000): (_at_least(3), _at_most(20, "server_us_per_op", ratio=False)),
    ("put", 100): (_at_least(2), _at_most(0.7, "p99_ms")),
    ("put", 1): (_at_most(1.0, "mean_ms"), _at_most(1.2, "p99_ms")),
    ("range-l", 1000): (_at_least(2),),
    ("range-l", 100): (_at_least(1.5),),
    ("range-l", 1): (_at_most(1.0, "mean_ms"),),
    ("range-s", 1000): (_at_least(1.8),),
    ("range-s", 1): (_at_most(1.2, "mean_ms"),),
}
_WORK = (
    ("put", "put", {"command": "put"}),
    ("range-l", "linearizable range of one key", {"command": "range"}),
    ("range-s", "serializable range of one key", {"command": "range", "serializable": True}),
)


def by_clients() -> list[Cell]:
    """Puts and both ranges with 1, 100 and 1000 clients."""
    return [Cell(f"{name}-{clients}", f"{title}, {clients} client" + ("s" if clients > 1 else ""),
                 replace(_BLANK, clients=clients, conns=conns, **changes),
                 targets=_CLIENT_TARGETS.get((name, clients), ()))
            for name, title, changes in _WORK for clients, conns in CONNS.items()]


def large_reads(sizes: Sizes) -> list[Cell]:
    """Ranges and counts of many keys."""
    end = f"{BIG_PREFIX}{1000:08d}"
    whole = replace(_BLANK, command="range", range_key=BIG_PREFIX, range_end="/big0", clients=4, conns=4)
    scan = replace(whole, command="scan", clients=1, conns=1, timeout_s=30.0)
    n = f"{sizes.big_keys:,}"
    return [
        Cell(
            "range-1k",
            "range of 1,000 keys, 10 clients",
            replace(whole, range_end=end, clients=10, conns=10),
            big=True,
            targets=(_at_least(1.5),),
        ),
        Cell(
            "range-all",
            f"range of {n} keys in one request",
            replace(scan, page=0),
            big=True,
            targets=(_at_least(1.5),),
        ),
        Cell(
            "range-paged",
            f"range of {n} keys in pages of 1,000",
            replace(scan, page=1000),
            big=True,
            targets=(_at_least(1.5),),
        ),
        Cell(
            "count",
            f"count of a prefix of {n} keys",
            replace(whole, count_only=True),
            big=True,
            targets=(_at_most(0.2, "mean_ms"),),
        ),
        Cell(
            "first-page",
            f"first page of 500 of {n} keys, with the exact count",
            replace(whole, limit=500),
            big=True,
            targets=(_at_most(0.2, "mean_ms"),),
        ),
    ]


def disturbed(sizes: Sizes) -> list[Cell]:
    """Puts at a fixed rate while something long goes on."""
    put = replace(_BLANK, clients=100, conns=10, rate_per_s=sizes.disturbed_rate_per_s)
    twice = (_at_most(2.0, "p99_growth", ratio=False),)
    return [
        Cell(
            "put-during-catch-up",
            "puts while watchers catch up from revision 1",
            put,
            "disturbed",
            "catch-up",
            big=True,
            targets=twice,
        ),
        Cell(
            "put-during-full-range",
            f"puts while {sizes.big_keys:,} keys are read, over and over",
            put,
            "disturbed",
            "full-range",
            big=True,
            targets=twice,
        ),
        Cell(
            "put-during-compaction",
            "puts while compaction runs",
            put,
            "disturbed",
            "compaction",
            big=True,
            targets=twice,
        ),
    ]


def backup(sizes: Sizes) -> list[Cell]:
    """The same while a backup of all that there is is made, over and over: of the large range's keys, too."""
    put = replace(_BLANK, clients=100, conns=10, rate_per_s=sizes.disturbed_rate_per_s)
    return [Cell("put-during-backup", "puts while a backup is made, over and over", put, "disturbed",
                 "backup", big=True, targets=(_at_most(2.0, "p99_growth", ratio=False),))]


def idle_watchers(sizes: Sizes) -> Cell:
    """So many that what they take stands out, and on servers that have no memory to spare yet: first."""
    per_stream = max(1, sizes.watchers // 50)
    return Cell(
        "idle-watchers",
        f"{100 * per_stream:,} idle watchers of one key on 100 connections: memory of each",
        replace(
            _BLANK,
            command="watch",
            key_space=1,
            conns=100,
            streams=100,
            watchers_per_stream=per_stream,
            rate_per_s=1.0,
        ),
        duration_s=1.5,
        targets=(_at_most(0.5, "watcher_bytes"),),
    )


def others(sizes: Sizes) -> list[Cell]:
    """Transactions, leases, watches with something to deliver."""
    per_stream = max(1, sizes.watchers // 100)
    watch = replace(_BLANK, command="watch", key_space=1, conns=100, streams=100)
    return [
        Cell(
            "txn-1000",
            "transaction (compare, put, get), 1000 clients",
            replace(_BLANK, command="txn-compare", clients=1000, conns=100),
            targets=(_at_least(2.5),),
        ),
        Cell(
            "lease-keepalive",
            "lease keep-alives, 1000 leases, 100 clients",
            replace(_BLANK, command="lease-keepalive", clients=100, conns=10, leases=1000, lease_ttl_s=600),
            targets=(_at_least(1.5),),
        ),
        Cell(
            "lease-grant",
            "lease grants, 100 clients",
            replace(_BLANK, command="lease-grant", clients=100, conns=10, lease_ttl_s=600),
            duration_s=1.5,
            targets=(_at_least(1.5),),
        ),
        Cell(
            "watch-one-key",
            f"one key watched by {100 * per_stream:,} watchers on 100 connections: delivery to all",
            replace(watch, watchers_per_stream=per_stream, rate_per_s=3.0),
            targets=(_at_most(0.5, "to_all_ms"),),
        ),
        Cell(
            "watch-prefix",
            f"100 watchers on a prefix, {sizes.watch_rate_per_s:,.0f} puts/s",
            replace(
                watch,
                conns=10,
                streams=10,
                watchers_per_stream=10,
                key_space=1000,
                watch_prefix="/w/",
                key_prefix="/w/",
                clients=100,
                rate_per_s=sizes.watch_rate_per_s,
            ),
            targets=(_at_most(0.7, "p99_ms"), _at_most(0, "errors", ratio=False)),
        ),
    ]


def by_shards() -> list[Cell]:
    """What the number of shards does to puts, transactions and full reads."""
    txn = replace(_BLANK, command="txn-put", txn_ops=2, clients=100, conns=10)
    cells = {cell.name: cell for cell in by_clients()}
    return [
        replace(
            cells["put-1000"],
            targets=(_at_most(1.3, "server_us_per_op"), _at_most(1.5, "server_us_per_op", subject=2)),
        ),
        Cell("put-4000", "put, 4000 clients on 400 connections", replace(_BLANK, clients=4000, conns=400)),
        replace(cells["put-100"], targets=()),
        Cell("put-1-shard-0", "put, 1 client, a key of shard 0", replace(_BLANK, key_space=1), own_key_of=0),
        Cell(
            "put-1-shard-1",
            "put, 1 client, a key of another shard",
            replace(_BLANK, key_space=1),
            own_key_of=1,
            min_shards=2,
        ),
        replace(cells["range-l-1000"], targets=()),
        Cell(
            "txn-one-shard",
            "transaction of 2 puts in one directory, 100 clients",
            replace(txn, key_prefix="/d/", key_space=10_000),
        ),
        Cell("txn-any-shard", "transaction of 2 puts on any shard, 100 clients", txn),
        Cell(
            "range-all",
            "full range in one request",
            replace(_BLANK, command="scan", range_key=BIG_PREFIX, range_end="/big0", page=0, timeout_s=30.0),
            big=True,
        ),
    ]


def by_tls() -> list[Cell]:
    """Puts and ranges of many clients, as they are sent by TLS."""
    return [replace(cell, targets=(_at_least(1.5),) if cell.spec.clients == 1000 else ())
            for cell in by_clients() if cell.spec.clients > 1 and not cell.name.startswith("range-s")]


def of_version_2() -> list[Cell]:
    """Sets and reads of the v2 API, each client on a connection of its own; the floors of issue 15."""
    spec = replace(_BLANK, clients=100, conns=100, key_space=1000)
    get = replace(spec, command="v2-get", serializable=True)
    return [
        Cell("v2-set-100", "version 2: set, 100 clients", replace(spec, command="v2-set"),
             targets=(_at_least(1),)),
        Cell("v2-get-100", "version 2: read, 100 clients", get, targets=(_at_least(0.6),)),
        Cell("v2-get-l-100", "version 2: read with quorum=true, 100 clients",
             replace(get, serializable=False)),
        Cell("v2-set-1", "version 2: set, 1 client", replace(spec, command="v2-set", clients=1, conns=1)),
    ]


def kubernetes(sizes: Sizes) -> list[Cell]:
    """What a Kubernetes cluster asks for; pods are listed as often at any scale, or too seldom."""
    spec = replace(_BLANK, command="kubernetes", conns=100, page=500, leases=1000, lease_ttl_s=600,
                   scale=sizes.scale, lists_per_s=0.5 / sizes.scale, timeout_s=30.0)
    return [Cell("kubernetes", f"Kubernetes, {sizes.scale * spec.renewals_per_s:,.0f} renewals/s", spec,
                 targets=(_at_most(0, "errors", ratio=False),))]


@dataclass(slots=True, frozen=True)
class Preset:
    """A named comparison: its cells, what it compares by default, and how long it may take."""

    name: str
    title: str
    systems: tuple[str, ...]
    budget_s: float
    big_keys: int = 100_000


PRESETS = {
    "issue2": Preset("issue2", "Three members, one shard: puts and ranges", ("etcd", "muster"), 345),
    "issue3": Preset("issue3", "By the number of shards", ("muster:1", "muster:2", "muster:4"), 345, 20_000),
    "issue4": Preset("issue4", "The whole matrix beside etcd", ("etcd", "muster"), 580),
    "kubernetes": Preset("kubernetes", "What a Kubernetes cluster asks for",
                         ("etcd", "muster", "muster:3"), 0),
    "issue15": Preset("issue15", "Version 2 of the API", ("etcd", "muster"), 120),
    "tls": Preset("tls", "Clients by TLS", ("etcd+tls", "muster+tls"), 180),
    "keys": Preset("keys", "What peer keys cost", ("muster", "muster+keys", "etcd"), 300),
}
ALL = ("issue2", "issue3", "issue4", "keys")  # what all means


def cells(sizes: Sizes, preset: str = "") -> list[Cell]:
    """Every cell, or those of a preset, in the order in which they run: compaction last, it takes the history
    away."""
    if preset == "issue2":
        return by_clients()
    if preset == "issue3":
        return by_shards()
    if preset == "issue4":
        return [idle_watchers(sizes), *by_clients(), *others(sizes), *large_reads(sizes), *disturbed(sizes)]
    if preset == "kubernetes":
        return kubernetes(sizes)
    if preset == "issue15":
        return of_version_2()
    if preset == "tls":
        return by_tls()
    if preset == "keys":
        return [replace(cell, targets=()) for cell in by_clients() if not cell.name.startswith("range-s")]
    groups = (by_shards(), [idle_watchers(sizes)], by_clients(), others(sizes), large_reads(sizes),
              disturbed(sizes), backup(sizes), kubernetes(sizes), of_version_2())
    found = {cell.name: cell for group in groups for cell in group}
    return list(found.values())


def choose(patterns: Sequence[str], sizes: Sizes, preset: str = "") -> list[Cell]:
    """The cells whose names match one of the shell patterns; for none the preset's, or those by clients.

    ValueError if a pattern matches nothing.
    """
    if not patterns:
        return cells(sizes, preset) if preset else by_clients()
    among = cells(sizes, preset)
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(cell.name, pattern) for cell in among):
            raise ValueError(f"no cell matches {pattern}; there are {', '.join(cell.name for cell in among)}")
    return [cell for cell in among if any(fnmatch.fnmatchcase(cell.name, p) for p in patterns)]
