"""The cells of comparisons, their targets, and the presets that group them."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench.load.spec import Spec

BIG_PREFIX = "/big/"
BIG_KEY_BYTES = 13  # /big/00000000
CONNS = {1: 1, 100: 10, 1000: 100}  # clients: connections, as in etcd's published benchmarks


@dataclass(slots=True, frozen=True)
class Target:
    """A bound for a figure of a system, or for that figure over the first system's (``ratio``)."""

    figure: str
    most: bool  # at most (or at least) the bound
    bound: float
    ratio: bool = True
    subject: int = 1  # index of the system, 1 being the second

    def met(self, value: float) -> bool:
        return value <= self.bound if self.most else value >= self.bound

    def __str__(self) -> str:
        return ("R " if self.ratio else "") + ("<= " if self.most else ">= ") + f"{self.bound:g}"


@dataclass(slots=True, frozen=True)
class Cell:
    """One row of work, run by ``kind``; ``spec`` lacks endpoints and duration."""

    name: str
    title: str
    spec: Spec
    kind: str = "load"  # load, disturbed, tool (etcd's own client: ``go_tool``)
    disturbance: str = ""  # of a disturbed cell: catch-up, compaction, full-range, backup
    big: bool = False  # needs the big key range
    own_key_of: int = -1  # a single key, on this shard where there are several
    min_shards: int = 1
    duration_s: float = 0.0  # 0: the plan's
    targets: tuple[Target, ...] = ()


@dataclass(slots=True, frozen=True)
class Sizes:
    """How large the large cells are."""

    big_keys: int = 100_000
    watchers: int = 10_000
    watch_rate_per_s: float = 10_000.0
    disturbed_rate_per_s: float = 300.0
    scale: float = 0.2  # of a Kubernetes cluster's rates


_BLANK = Spec("put", ())


def _at_least(bound: float) -> Target:
    return Target("throughput_per_s", False, bound)


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
    whole = replace(_BLANK, command="range", range_key=BIG_PREFIX, range_end="/big0", clients=4, conns=4)
    thousand = replace(whole, range_end=f"{BIG_PREFIX}{1000:08d}", clients=10, conns=10)
    scan = replace(whole, command="scan", clients=1, conns=1, timeout_s=30.0)
    n = f"{sizes.big_keys:,}"
    more, shorter = (_at_least(1.5),), (_at_most(0.2, "mean_ms"),)
    return [Cell(name, title, spec, big=True, targets=targets) for name, title, spec, targets in (
        ("range-1k", "range of 1,000 keys, 10 clients", thousand, more),
        ("range-all", f"range of {n} keys in one request", replace(scan, page=0), more),
        ("range-paged", f"range of {n} keys in pages of 1,000", replace(scan, page=1000), more),
        ("count", f"count of a prefix of {n} keys", replace(whole, count_only=True), shorter),
        ("first-page", f"first page of 500 of {n} keys, with the exact count", replace(whole, limit=500),
         shorter),
    )]


def disturbed(sizes: Sizes) -> list[Cell]:
    """Puts at a fixed rate while something long goes on."""
    return [_disturbed(sizes, *of_it) for of_it in (
        ("catch-up", "puts while watchers catch up from revision 1"),
        ("full-range", f"puts while {sizes.big_keys:,} keys are read, over and over"),
        ("compaction", "puts while compaction runs"),
    )]


def backup(sizes: Sizes) -> list[Cell]:
    """Puts at a fixed rate while the whole store is backed up, over and over."""
    return [_disturbed(sizes, "backup", "puts while a backup is made, over and over")]


def _disturbed(sizes: Sizes, disturbance: str, title: str) -> Cell:
    put = replace(_BLANK, clients=100, conns=10, rate_per_s=sizes.disturbed_rate_per_s)
    return Cell(f"put-during-{disturbance}", title, put, "disturbed", disturbance, big=True,
                targets=(_at_most(2.0, "p99_growth", ratio=False),))


def idle_watchers(sizes: Sizes) -> Cell:
    """Runs first: the servers have no memory to spare yet, and so many watchers stand out."""
    per_stream = max(1, sizes.watchers // 50)
    spec = replace(_BLANK, command="watch", key_space=1, conns=100, streams=100,
                   watchers_per_stream=per_stream, rate_per_s=1.0)
    return Cell("idle-watchers",
                f"{100 * per_stream:,} idle watchers of one key on 100 connections: memory of each",
                spec, duration_s=1.5, targets=(_at_most(0.5, "watcher_bytes"),))


def others(sizes: Sizes) -> list[Cell]:
    """Transactions, leases, watches with something to deliver."""
    per_stream = max(1, sizes.watchers // 100)
    watch = replace(_BLANK, command="watch", key_space=1, conns=100, streams=100,
                    watchers_per_stream=per_stream, rate_per_s=3.0)
    prefix = replace(watch, conns=10, streams=10, watchers_per_stream=10, key_space=1000, watch_prefix="/w/",
                     key_prefix="/w/", clients=100, rate_per_s=sizes.watch_rate_per_s)
    lease = replace(_BLANK, clients=100, conns=10, lease_ttl_s=600)
    return [
        Cell("txn-1000", "transaction (compare, put, get), 1000 clients",
             replace(_BLANK, command="txn-compare", clients=1000, conns=100), targets=(_at_least(2.5),)),
        Cell("lease-keepalive", "lease keep-alives, 1000 leases, 100 clients",
             replace(lease, command="lease-keepalive", leases=1000), targets=(_at_least(1.5),)),
        Cell("lease-grant", "lease grants, 100 clients", replace(lease, command="lease-grant"),
             duration_s=1.5, targets=(_at_least(1.5),)),
        Cell("watch-one-key",
             f"one key watched by {100 * per_stream:,} watchers on 100 connections: delivery to all",
             watch, targets=(_at_most(0.5, "to_all_ms"),)),
        Cell("watch-prefix", f"100 watchers on a prefix, {sizes.watch_rate_per_s:,.0f} puts/s", prefix,
             targets=(_at_most(0.7, "p99_ms"), _at_most(0, "errors", ratio=False))),
    ]


def by_tool() -> list[Cell]:
    """Puts, both ranges and keep-alives, sent by etcd's own benchmark tool."""
    def sent(cell: Cell) -> Cell:
        spec = replace(cell.spec, range_key="00000001") if cell.spec.command == "range" else cell.spec
        return replace(cell, name=f"tool-{cell.name}", title=f"{cell.title}, by etcd's tool", spec=spec,
                       kind="tool", targets=())

    alive = replace(_BLANK, command="lease-keepalive", clients=100, conns=10)
    title = "lease keep-alives at the leader, 100 clients"
    return [*map(sent, by_clients()), sent(Cell("lease-keepalive", title, alive))]


def by_page(sizes: Sizes) -> list[Cell]:
    """What the documentation's table has, by both tools."""
    wanted = ("txn-1000", "lease-keepalive", "watch-one-key", "range-paged")
    more = [cell for cell in (*others(sizes), *large_reads(sizes)) if cell.name in wanted]
    return [*by_clients(), *more, *by_tool()]


def by_shards() -> list[Cell]:
    """What the number of shards does to puts, transactions and full reads."""
    one_key = replace(_BLANK, key_space=1)
    txn = replace(_BLANK, command="txn-put", txn_ops=2, clients=100, conns=10)
    scan = replace(_BLANK, command="scan", range_key=BIG_PREFIX, range_end="/big0", page=0, timeout_s=30.0)
    cells = {cell.name: replace(cell, targets=()) for cell in by_clients()}
    return [
        replace(cells["put-1000"],
                targets=(_at_most(1.3, "server_us_per_op"), _at_most(1.5, "server_us_per_op", subject=2))),
        Cell("put-4000", "put, 4000 clients on 400 connections", replace(_BLANK, clients=4000, conns=400)),
        cells["put-100"],
        Cell("put-1-shard-0", "put, 1 client, a key of shard 0", one_key, own_key_of=0),
        Cell("put-1-shard-1", "put, 1 client, a key of another shard", one_key, own_key_of=1, min_shards=2),
        cells["range-l-1000"],
        Cell("txn-one-shard", "transaction of 2 puts in one directory, 100 clients",
             replace(txn, key_prefix="/d/", key_space=10_000)),
        Cell("txn-any-shard", "transaction of 2 puts on any shard, 100 clients", txn),
        Cell("range-all", "full range in one request", scan, big=True),
    ]


def by_tls() -> list[Cell]:
    """Puts and ranges of many clients, as they are sent by TLS."""
    return [replace(cell, targets=(_at_least(1.5),) if cell.spec.clients == 1000 else ())
            for cell in by_clients() if cell.spec.clients > 1 and not cell.name.startswith("range-s")]


def of_version_2() -> list[Cell]:
    """Sets and reads of the v2 API, each client on a connection of its own."""
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
    """The load of a Kubernetes cluster; lists have one rate at every scale."""
    spec = replace(_BLANK, command="kubernetes", conns=100, page=500, leases=1000, lease_ttl_s=600,
                   scale=sizes.scale, lists_per_s=0.5 / sizes.scale, timeout_s=30.0)
    return [Cell("kubernetes", f"Kubernetes, {sizes.scale * spec.renewals_per_s:,.0f} renewals/s", spec,
                 targets=(_at_most(0, "errors", ratio=False),))]


@dataclass(slots=True, frozen=True)
class Preset:
    """A named comparison."""

    title: str
    systems: tuple[str, ...]  # compared unless others are named
    budget_s: float  # 0: no limit
    cells: Callable[[Sizes], list[Cell]]  # in the order in which they run
    big_keys: int = 100_000


PRESETS = {
    "puts-and-ranges": Preset("Three members, one shard: puts and ranges", ("etcd", "muster"), 345,
                              lambda sizes: by_clients()),
    "shards": Preset("By the number of shards", ("muster:1", "muster:2", "muster:4"), 345,
                     lambda sizes: by_shards(), 20_000),
    # compaction is the last of the disturbed cells: it takes the history away
    "matrix": Preset("The whole matrix beside etcd", ("etcd", "muster"), 580, lambda sizes: [
        idle_watchers(sizes), *by_clients(), *others(sizes), *large_reads(sizes), *disturbed(sizes)]),
    "page": Preset("The table of the documentation, by muster-bench and by etcd's tool", ("etcd", "muster"),
                   2400, by_page),
    "kubernetes": Preset("What a Kubernetes cluster asks for", ("etcd", "muster", "muster:3"), 0, kubernetes),
    "v2": Preset("Version 2 of the API", ("etcd", "muster"), 120, lambda sizes: of_version_2()),
    "tls": Preset("Clients by TLS", ("etcd+tls", "muster+tls"), 180, lambda sizes: by_tls()),
    "keys": Preset("What peer keys cost", ("muster", "muster+keys", "etcd"), 300, lambda sizes: [
        replace(cell, targets=()) for cell in by_clients() if not cell.name.startswith("range-s")]),
}
ALL = ("puts-and-ranges", "shards", "matrix", "keys")  # what the preset ``all`` stands for


def cells(sizes: Sizes, preset: str = "") -> list[Cell]:
    """The cells of a preset, or every cell there is, in the order in which they run."""
    if preset:
        return PRESETS[preset].cells(sizes)
    groups = (by_shards(), PRESETS["matrix"].cells(sizes), backup(sizes), kubernetes(sizes), of_version_2(),
              by_tool())
    return list({cell.name: cell for group in groups for cell in group}.values())


def choose(patterns: Sequence[str], sizes: Sizes, preset: str = "") -> list[Cell]:
    """The cells that match a shell pattern; without patterns the preset's, or those by clients.

    ValueError if a pattern matches nothing.
    """
    if not patterns:
        return cells(sizes, preset) if preset else by_clients()
    among = cells(sizes, preset)
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(cell.name, pattern) for cell in among):
            raise ValueError(f"no cell matches {pattern}; there are {', '.join(cell.name for cell in among)}")
    return [cell for cell in among if any(fnmatch.fnmatchcase(cell.name, p) for p in patterns)]
