"""What one run is: everything a client process needs to know, as plain data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

UNARY = ("put", "range", "txn-put")
WATCHES = ("watch", "watch-latency")
COMMANDS = (*UNARY, *WATCHES, "lease-keepalive")
DISTRIBUTIONS = ("uniform", "zipf", "sequential")
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
    # txn-put
    txn_ops: int = 1
    # watch
    streams: int = 1
    watchers_per_stream: int = 1
    watch_prefix: str = ""  # "": each watches the one key that is put; else the puts go below this prefix
    prev_kv: bool = False
    progress_notify: bool = False
    # lease-keepalive
    leases: int = 1
    lease_ttl_s: int = 60

    def check(self) -> None:
        """ValueError, in words for the user, if this cannot be run."""
        if self.command not in COMMANDS:
            raise ValueError(f"unknown command {self.command}")
        for name in ("conns", "clients", "key_size_bytes", "key_space", "txn_ops", "streams", "watchers_per_stream",
                     "leases", "lease_ttl_s"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.total <= 0 and self.duration_s <= 0:
            raise ValueError("a run needs an end: give a total or a duration")
        if self.total < 0 or self.duration_s < 0 or self.rate_per_s < 0 or self.timeout_s <= 0:
            raise ValueError("total, duration and rate must not be negative; the timeout must be positive")
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(f"key distribution must be one of {', '.join(DISTRIBUTIONS)}")
        if self.zipf_exponent <= 0:
            raise ValueError("the zipf exponent must be positive")
        digits = self.key_size_bytes - len(self.key_prefix.encode())
        if digits < len(str(self.key_space - 1)):
            raise ValueError(f"{self.key_space} keys need {len(str(self.key_space - 1))} digits; a key of "
                             f"{self.key_size_bytes} bytes has {max(digits, 0)} left after its prefix")
        if self.command in WATCHES and self.val_size_bytes < STAMP_BYTES:
            raise ValueError(f"a watched value holds the time of its put: at least {STAMP_BYTES} bytes")
        if self.command == "txn-put" and self.txn_ops > self.key_space:
            raise ValueError("a transaction may put a key only once: key space smaller than the operations")
        if not self.endpoints:
            raise ValueError("no endpoint")

    def split(self, processes: int) -> list[Spec]:
        """The shares of ``processes`` client processes; fewer where there are not enough clients."""
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
