"""What one run is: everything a client process needs to know, as plain data."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench.client import tls_context

UNARY = ("put", "range", "txn-put", "txn-compare")
WATCHES = ("watch", "watch-latency")
V2 = ("v2-set", "v2-get", "v2-wait")  # over HTTP/1.1: ``bench.load.traffic.v2``
# see ``bench.load.traffic.actors``
ACTED = ("lease-keepalive", "lease-grant", "mixed", "txn-mixed", "stm", "lock", "scan")
COMMANDS = (*UNARY, *WATCHES, *ACTED, *V2, "watch-get", "kubernetes")
PARTS = ("writes", "lists", "watches")  # of kubernetes, a client process each
STAMP_BYTES = 8  # a watched value opens with the intended time of its put


@dataclass(slots=True, frozen=True)
class Spec:
    """One run, or one client process's share of it (:meth:`split`), to ``total`` or ``duration_s``, the first
    of them."""

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
    # watch-get
    watchers: int = 1  # on all streams together; a stream has one at least
    events: int = 8  # put before, which every watcher has to catch up with
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

    def tls(self) -> ssl.SSLContext | None:
        """By the files named here; None if there are none."""
        if not (self.cacert or self.cert or self.insecure_skip_verify):
            return None
        return tls_context(cacert=self.cacert, cert=self.cert, key=self.key,
                           insecure_skip_verify=self.insecure_skip_verify)

    def check(self) -> None:
        """ValueError, in words for the user, if this cannot be run."""
        if self.command not in COMMANDS:
            raise ValueError(f"unknown command {self.command}")
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        needed, prefix = len(str(self.key_space - 1)), len(self.key_prefix.encode())
        if self.key_size_bytes - prefix < needed:
            raise ValueError(f"{self.key_space} keys need {needed} digits; a key of {self.key_size_bytes} "
                             f"bytes has {max(self.key_size_bytes - prefix, 0)} left after its prefix: "
                             f"give --key-size {prefix + needed} or more, or fewer --keys")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name.replace('distribution', 'key distribution')} must be one of "
                                 f"{', '.join(choices)}")
        for holds, complaint in _RULES + (_KUBERNETES if self.command == "kubernetes" else ()):
            if not holds(self):
                raise ValueError(complaint)

    def split(self, processes: int) -> list[Spec]:
        """The shares of ``processes`` client processes; fewer where there are not enough clients, operations,
        or streams of watchers that catch up."""
        if self.command == "kubernetes":
            of_part = {"writes": max(1, self.conns // 5), "lists": min(self.conns, 8), "watches": self.conns}
            return [replace(self, part=part, conns=of_part[part]) for part in PARTS]
        processes, streams = max(1, min(processes, self.clients, self.total or processes)), self.streams
        if self.command == "watch-get":
            streams = min(streams, self.watchers)
            processes = min(processes, streams)
        on_stream = [_share(self.watchers, i, streams) for i in range(streams)]
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
                streams=_share(streams, i, processes), watchers=sum(on_stream[i::processes]),
                leases=max(1, _share(self.leases, i, processes)),
            ))
            conns_before += conns
            ops_before += total
        return shares

    def dumps(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def loads(cls, text: str) -> Spec:
        raw: dict[str, Any] = json.loads(text)
        return cls(**{**raw, "endpoints": tuple(raw["endpoints"])})


def _share(count: int, i: int, of: int) -> int:
    return count // of + (1 if i < count % of else 0)


_POSITIVE = ("conns", "clients", "key_size_bytes", "key_space", "txn_ops", "streams", "watchers_per_stream",
             "watchers", "leases", "lease_ttl_s", "keys_per_txn", "names", "events", "waiters")
_CHOICES = {"distribution": ("uniform", "zipf", "sequential"),
            # read committed, repeatable reads, serializable, serializable snapshot
            "isolation": ("c", "r", "s", "ss"),
            "locker": ("stm", "lock-client", "lock-rpc")}
#: What holds for every run, and the words for one where it does not.
_RULES: tuple[tuple[Callable[[Spec], bool], str], ...] = (
    # watch-get ends with its watchers
    (lambda s: s.total > 0 or s.duration_s > 0 or s.command == "watch-get",
     "a run needs an end: give a total or a duration"),
    (lambda s: min(s.total, s.duration_s, s.rate_per_s) >= 0 < min(s.timeout_s, s.dial_timeout_s),
     "total, duration and rate must not be negative; the timeouts must be positive"),
    (lambda s: s.val_size_bytes >= 0, "the size of a value must not be negative"),
    (lambda s: s.zipf_exponent > 0, "the zipf exponent must be positive"),
    (lambda s: s.command not in WATCHES or s.val_size_bytes >= STAMP_BYTES,
     f"a watched value holds the time of its put: at least {STAMP_BYTES} bytes"),
    (lambda s: s.command != "v2-wait" or s.clients == 1,
     "v2-wait has one client, which sets the key that all wait for"),
    (lambda s: s.keys_per_txn <= s.key_space,
     "a transaction reads a key only once: key space smaller than the keys per transaction"),
    (lambda s: 0 <= s.write_percent <= 100, "the percentage of writes must be between 0 and 100"),
    (lambda s: s.rw_ratio >= 0, "the ratio of reads to writes must not be negative"),
    (lambda s: not s.user or ":" in s.user, "--user must be name:password"),
    (lambda s: not s.watched_keys or not (s.watch_prefix or s.watchers_per_stream % s.watched_keys),
     "the watchers of a stream must be a multiple of the watched keys, and without a prefix"),
    (lambda s: s.command != "txn-put" or s.txn_ops <= s.key_space,
     "a transaction may put a key only once: key space smaller than the operations"),
    (lambda s: bool(s.endpoints), "no endpoint"),
)
_KUBERNETES: tuple[tuple[Callable[[Spec], bool], str], ...] = (
    (lambda s: not s.total and not s.rate_per_s,
     "kubernetes has a rate for each kind of request and a duration, no total"),
    (lambda s: s.clients == 1, "kubernetes has clients of its own: it takes no --clients and no --stages"),
    (lambda s: min(s.pods, s.nodes, s.page) >= 1 and s.kinds >= 2,
     "pods, nodes and keys of a page must be at least 1, kinds at least 2"),
    (lambda s: s.watches >= s.kinds and s.watches % s.kinds == 0,
     "every API server watches every kind: watches must be a multiple of kinds"),
    (lambda s: s.scale > 0 <= min(s.renewals_per_s, s.keep_alives_per_s, s.statuses_per_s, s.lists_per_s,
                                  s.progress_per_s),
     "the scale must be positive, and no rate negative"),
)
