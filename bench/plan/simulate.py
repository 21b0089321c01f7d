"""Discrete events: shards, fronts and the sequencer as queues, each process with a CPU of its own. Pure.

Closed loop: so many clients of each shard write again once they are answered. The writes of an entry travel
together. What each step takes comes from :class:`bench.plan.model.Prices`:

1. a front passes writes on to a shard's leader, which gathers while an entry is under way, or until
   ``MOST_WRITES`` have come;
2. the leader takes what has come into an entry, which is synced at each host and acknowledged by a majority;
3. the leader reports it; the sequencer puts all reports that have come into a record, which is an entry of
   shard 0 with shard 0's own writes, and commits likewise;
4. the record is fed to every node; then the leader answers by the fronts.

With ``cpus``, all processes share so many: the check on a small machine.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from bench.plan.model import KINDS, Prices
from bench.plan.roles import FOLLOWER, FRONT, LEADER, ORDER_FOLLOWER, SEQUENCER

MOST_WRITES = 512  # of an entry (cluster/pacing/pace.py gathers so many)


@dataclass(slots=True, frozen=True)
class Setting:
    shards: int
    clients: int  # of each shard
    own_clients: int | None = None  # of shard 0; None: as many. 0: it orders, and owns no keys
    hosts: int = 3
    fronts: int = 3  # over all hosts
    seconds: float = 3.0
    warm_up_s: float = 1.0
    hop_s: float = 0.0002  # between two hosts, one way
    cpus: int = 0  # that all processes share; 0: each has its own
    client_s: float = 0.0  # CPU of the load generator for a write, on the shared CPUs


@dataclass(slots=True, frozen=True)
class Simulated:
    writes_per_s: float
    latency_s: float  # mean, by Little's law
    batch: float
    busy: dict[str, float]  # by role: the busiest process's share of a CPU
    first: str


class _Cpus:
    """So many CPUs that processes share, first come, first served."""

    def __init__(self, count: int) -> None:
        self._free = [0.0] * count

    def begin(self, now: float, takes: float) -> float:
        """When work that is ready now ends."""
        started = max(now, heapq.heappop(self._free))
        heapq.heappush(self._free, started + takes)
        return started + takes


class _Process:
    """Work in the order of its coming."""

    def __init__(self, cpus: _Cpus | None) -> None:
        self._cpus = cpus
        self._until = 0.0
        self.busy_s = 0.0

    def work(self, now: float, takes: float) -> float:
        """When it is done."""
        ready = max(now, self._until)
        self._until = ready + takes if self._cpus is None else self._cpus.begin(ready, takes)
        self.busy_s += takes
        return self._until


@dataclass(slots=True)
class _Shard:
    waiting: int  # writes at its leader
    under_way: int = 0  # entries that are not in order yet


class _Run:
    def __init__(self, prices: Prices, setting: Setting) -> None:
        self.setting = setting
        self._price = {role: dict(zip(KINDS[role], prices.by_role[role], strict=True)) for role in KINDS}
        self._sync_s = prices.sync_s
        cpus = _Cpus(setting.cpus) if setting.cpus else None
        self._fronts = [_Process(cpus) for _ in range(setting.fronts)]
        self._clients = _Process(cpus) if setting.client_s else None
        self._leaders = [_Process(cpus) for _ in range(setting.shards)]  # 0: the sequencer
        self._followers = [[_Process(cpus) for _ in range(setting.hosts - 1)] for _ in range(setting.shards)]
        own = setting.clients if setting.own_clients is None else setting.own_clients
        self._shards = [_Shard(setting.clients if shard else own) for shard in range(setting.shards)]
        self._all_clients = own + setting.clients * (setting.shards - 1)
        self._reported: list[tuple[int, int]] = []  # shard and writes of entries that wait for a record
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = 0
        self.done = self.entries = 0

    def at(self, when: float, then: Callable[[float], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, then))

    def run(self) -> Simulated:
        setting = self.setting
        for shard in range(setting.shards):
            self.at(0.0, lambda now, shard=shard: self._log(shard, now))  # type: ignore[misc]
        end = setting.warm_up_s + setting.seconds
        counted = False
        while self._events and self._events[0][0] < end:
            now, _, then = heapq.heappop(self._events)
            if not counted and now >= setting.warm_up_s:
                counted = True
                self.done = self.entries = 0
                for process in self._all():
                    process.busy_s = 0.0
            then(now)
        rate = self.done / setting.seconds
        busy = {role: max(p.busy_s for p in of) / setting.seconds for role, of in self._roles().items() if of}
        return Simulated(
            rate, self._all_clients / rate if rate else 0.0, self.done / max(1, self.entries),
            busy, max(busy, key=lambda role: busy[role]))

    def _roles(self) -> dict[str, list[_Process]]:
        return {FRONT: self._fronts, SEQUENCER: self._leaders[:1], LEADER: self._leaders[1:],
                ORDER_FOLLOWER: self._followers[0], FOLLOWER: [p for of in self._followers[1:] for p in of]}

    def _all(self) -> list[_Process]:
        return [process for of in self._roles().values() for process in of]

    # -- an entry of a shard, or a record

    def _log(self, shard: int, now: float) -> None:
        """Begin an entry with what waits, unless one is under way and more may come."""
        own = self._shards[shard]
        reports = len(self._reported) if not shard else 0
        if not (own.waiting or reports) or (own.under_way and own.waiting < MOST_WRITES):
            return
        own.under_way += 1
        taken = min(own.waiting, MOST_WRITES)
        own.waiting -= taken
        cut, self._reported = (self._reported, []) if not shard else ([], self._reported)
        self.entries += 1
        price = self._price[LEADER if shard else SEQUENCER]
        takes = taken * price["write"] + (price["entry"] if shard else
                                          price["record"] + reports * price["report"])
        logged = self._leaders[shard].work(now, takes)
        self._replicate(shard, taken, logged, lambda at: self._committed(shard, taken, cut, at))

    def _replicate(self, shard: int, writes: int, now: float, then: Callable[[float], None]) -> None:
        price = self._price[FOLLOWER if shard else ORDER_FOLLOWER]
        takes = writes * price["write"] + price["entry" if shard else "record"]
        hop = self.setting.hop_s
        acks = sorted(process.work(now + hop, takes) + self._sync_s + hop
                      for process in self._followers[shard])
        majority = (self.setting.hosts - 1) // 2
        done = max(now + self._sync_s, acks[majority - 1]) if majority else now + self._sync_s
        self.at(done, then)

    def _committed(self, shard: int, writes: int, cut: list[tuple[int, int]], now: float) -> None:
        if shard:
            self.at(now + self.setting.hop_s, lambda at: self._report(shard, writes, at))
            return
        price, hop = self._price, self.setting.hop_s
        others = self.setting.shards - 1
        fed = self._leaders[0].work(now, others * price[SEQUENCER]["feed"])
        for process in self._followers[0]:
            process.work(now + hop, others * price[ORDER_FOLLOWER]["feed"])
        for other in range(1, self.setting.shards):
            self._leaders[other].work(fed, price[LEADER]["record"])
            for process in self._followers[other]:
                process.work(fed + hop, price[FOLLOWER]["record"])
        self._answer(0, writes, fed)
        for other, ordered in cut:
            self._answer(other, ordered, self._leaders[other].work(fed, 0.0))

    def _report(self, shard: int, writes: int, now: float) -> None:
        self._reported.append((shard, writes))
        self._log(0, now)

    def _answer(self, shard: int, writes: int, now: float) -> None:
        """By the fronts, to clients that write again, and back to the leader."""
        self._shards[shard].under_way -= 1
        if writes:
            self.done += writes
            price, count = self._price[FRONT], len(self._fronts)
            each = writes / count * price["write"] + price["entry"]
            done = max(front.work(now + self.setting.hop_s, each) for front in self._fronts)
            if self._clients is not None:
                done = self._clients.work(done, writes * self.setting.client_s)
            self.at(done + self.setting.hop_s, lambda at: self._came(shard, writes, at))
        self.at(now, lambda at: self._log(shard, at))

    def _came(self, shard: int, writes: int, now: float) -> None:
        self._shards[shard].waiting += writes
        self._log(shard, now)


def simulate(prices: Prices, setting: Setting) -> Simulated:
    """What so many clients get. ValueError for a setting without shards, clients or fronts."""
    if min(setting.shards, setting.clients, setting.hosts, setting.fronts) < 1 or setting.seconds <= 0:
        raise ValueError("a simulation needs shards, clients, hosts, fronts and time")
    return _Run(prices, setting).run()
