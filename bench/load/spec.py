"""What one run is: everything a client process needs to know, as plain data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

UNARY = ("put", "range", "txn-put", "txn-compare")
WATCHES = ("watch", "watch-latency")
V2 = ("v2-set", "v2-get", "v2-wait")  # over HTTP/1.1: ``bench.load.traffic.v2``
# see ``bench.load.traffic.actors``
ACTED = ("lease-keepalive", "lease-grant", "mixed", "txn-mixed", "stm", "lock", "scan")
COMMANDS = (*UNARY, *WATCHES, *ACTED, *V2, "watch-get", "kubernetes")
PARTS = ("writes", "lists", "watches")  # of kubernetes, a client process each
DISTRIBUTIONS = ("uniform", "zipf", "sequential")
ISOLATIONS = ("c", "r", "s", "ss")  # read committed, repeatable reads, serializable, serializable snapshot
LOCKERS = ("stm", "lock-client", "lock-rpc")
STAMP_BYTES = 8  # a watched value opens with the intended time of its put


@dataclass(slots=True, frozen=True)
class Spec:
    """One run, or one client process's share of it (:meth:`split`).

    Bounded by ``total`` operations, by ``duration_s``, or by whichever comes first; one of them is set.
    """

    command: str
    endpoints: tuple[str, ...]
    conns: int = 1
    clients: int = 1
    total: int = 0  # operations started; 0: as many as fit in duration_s
    duration_s: float = 0.0  # operations are started for so long; 0: until total
    rate_per_s: float = 0.0  # 0: closed loop, each client waits for its answer; else open loop
    timeout_s: float = 10.0  # of one operation, and for the last answers
    dial_timeout_s: float = 5.0  # of one connection
    seed: int = 1
    key_prefix: str = ""
    key_size_bytes: int = 8
    val_size_bytes: int = 256
    key_space: int = 10_000
    distribution: str = "uniform"
    zipf_exponent: float = 1.1
    first_key: int = 0  # where a sequential key source starts
    # range
    range_key: str = ""  # "": one random key of the key space per operation
    range_end: str = ""
    limit: int = 0
    serializable: bool = False
    keys_only: bool = False
    count_only: bool = False
    page: int = 0  # scan: keys per request; 0: all in one
    # txn-put
    txn_ops: int = 1
    # mixed, txn-mixed
    rw_ratio: float = 1.0  # reads per write
    # stm
    isolation: str = "r"
    keys_per_txn: int = 1
    write_percent: int = 50
    locker: str = "stm"
    # lock
    names: int = 1
    # watch
    streams: int = 1
    watchers_per_stream: int = 1
    watched_keys: int = 0  # each watcher watches one of so many keys, in turn; 0: all of the key space
    watch_prefix: str = ""  # "": each watches the one key that is put; else the puts go below this prefix
    prev_kv: bool = False
    progress_notify: bool = False
    # watch-get: events put before, which every watcher has to catch up with
    events: int = 8
    # v2-wait
    waiters: int = 1  # requests that wait for one key
    # lease-keepalive, lease-grant
    leases: int = 1
    lease_ttl_s: int = 60
    # kubernetes: see ``bench.load.traffic.kubernetes``
    part: str = ""  # what one of its client processes does; "": all
    scale: float = 1.0  # of all rates below
    pods: int = 10_000
    nodes: int = 5_000  # each with a lease, an object that is updated
    watches: int = 1_000
    kinds: int = 200  # of objects; each is watched by as many API servers as there are watches for it
    renewals_per_s: float = 5_000.0
    keep_alives_per_s: float = 1_000.0
    statuses_per_s: float = 500.0
    lists_per_s: float = 1.0  # in pages, and as many in one request
    progress_per_s: float = 50.0
    # how to connect
    user: str = ""  # name:password
    cacert: str = ""
    cert: str = ""
    key: str = ""
    insecure_skip_verify: bool = False

    def check(self) -> None:
        """ValueError, in words for the user, if this cannot be run."""
        if self.command not in COMMANDS:
            raise ValueError(f"unknown command {self.command}")
        for name in (
            "conns",
            "clients",
            "key_size_bytes",
            "key_space",
            "txn_ops",
            "streams",
            "watchers_per_stream",
            "leases",
            "lease_ttl_s",
            "keys_per_txn",
            "names",
            "events",
            "waiters",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        # that ends with its watchers
        if self.total <= 0 and self.duration_s <= 0 and self.command != "watch-get":
            raise ValueError("a run needs an end: give a total or a duration")
        if (
            self.total < 0
            or self.duration_s < 0
            or self.rate_per_s < 0
            or min(self.timeout_s, self.dial_timeout_s) <= 0
        ):
            raise ValueError("total, duration and rate must not be negative; the timeouts must be positive")
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(f"key distribution must be one of {', '.join(DISTRIBUTIONS)}")
        if self.zipf_exponent <= 0:
            raise ValueError("the zipf exponent must be positive")
        digits = self.key_size_bytes - len(self.key_prefix.encode())
        if digits < len(str(self.key_space - 1)):
            needed = len(str(self.key_space - 1))
            least = self.key_size_bytes - digits + needed
            raise ValueError(f"{self.key_space} keys need {needed} digits; a key of "
                             f"{self.key_size_bytes} bytes has {max(digits, 0)} left after its prefix: "
                             f"give --key-size {least} or more, or fewer --keys")
        if self.command in WATCHES and self.val_size_bytes < STAMP_BYTES:
            raise ValueError(f"a watched value holds the time of its put: at least {STAMP_BYTES} bytes")
        for name, choices in (("isolation", ISOLATIONS), ("locker", LOCKERS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}")
        if self.command == "v2-wait" and self.clients != 1:
            raise ValueError("v2-wait has one client, which sets the key that all wait for")
        if self.keys_per_txn > self.key_space:
            raise ValueError(
                "a transaction reads a key only once: key space smaller than the keys per transaction"
            )
        if not 0 <= self.write_percent <= 100:
            raise ValueError("the percentage of writes must be between 0 and 100")
        if self.rw_ratio < 0:
            raise ValueError("the ratio of reads to writes must not be negative")
        if self.user and ":" not in self.user:
            raise ValueError("--user must be name:password")
        if self.watched_keys and (self.watch_prefix or self.watchers_per_stream % self.watched_keys):
            raise ValueError(
                "the watchers of a stream must be a multiple of the watched keys, and without a prefix"
            )
        if self.command == "txn-put" and self.txn_ops > self.key_space:
            raise ValueError("a transaction may put a key only once: key space smaller than the operations")
        if not self.endpoints:
            raise ValueError("no endpoint")
        if self.command == "kubernetes":
            self._check_kubernetes()

    def _check_kubernetes(self) -> None:
        if self.total or self.rate_per_s:
            raise ValueError("kubernetes has a rate for each kind of request and a duration, no total")
        if min(self.pods, self.nodes, self.kinds, self.page) < 1 or self.kinds < 2:
            raise ValueError("pods, nodes and keys of a page must be at least 1, kinds at least 2")
        if self.watches < self.kinds or self.watches % self.kinds:
            raise ValueError("every API server watches every kind: watches must be a multiple of kinds")
        if self.scale <= 0 or min(self.renewals_per_s, self.keep_alives_per_s, self.statuses_per_s,
                                  self.lists_per_s, self.progress_per_s) < 0:
            raise ValueError("the scale must be positive, and no rate negative")

    def split(self, processes: int) -> list[Spec]:
        """The shares of ``processes`` client processes; fewer where there are not enough clients."""
        if self.command == "kubernetes":
            of_part = {"writes": max(1, self.conns // 5), "lists": min(self.conns, 8), "watches": self.conns}
            return [replace(self, part=part, conns=of_part[part]) for part in PARTS]
        processes = max(1, min(processes, self.clients))
        shares = []
        conns_before = ops_before = 0
        for i in range(processes):
            clients = _share(self.clients, i, processes)
            conns = max(1, _share(self.conns, i, processes))
            total = _share(self.total, i, processes)
            shift = conns_before % len(self.endpoints)
            shares.append(replace(
                self, clients=clients, conns=conns, total=total, seed=self.seed * 1009 + i,
                endpoints=self.endpoints[shift:] + self.endpoints[:shift],
                rate_per_s=self.rate_per_s * clients / self.clients,
                first_key=self.first_key + (ops_before or i * (self.key_space // processes)),
                streams=_share(self.streams, i, processes), leases=max(1, _share(self.leases, i, processes)),
            ))
            conns_before += conns
            ops_before += total
        return shares

    def dumps(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def loads(cls, text: str) -> Spec:
        """What :meth:`dumps` wrote."""
        raw: dict[str, Any] = json.loads(text)
        return cls(**{**raw, "endpoints": tuple(raw["endpoints"])})


def _share(count: int, i: int, of: int) -> int:
    return count // of + (1 if i < count % of else 0)
