"""A cluster as the policy sees it: keys with load, shards that a CPU each serves, moves that take a while.

No CPU is used: a leader's share is the load of its keys times a price, and at most one CPU. Time is a number.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from cluster.growth.bounds import Bounds
from cluster.growth.facts import Facts, Host, Shard
from cluster.growth.limits import Past
from cluster.growth.policy import Advice, Policy
from cluster.growth.sample import MOST_PER_S, Sample, Weighed
from cluster.growth.wishes import Kind, Wish, is_move
from cluster.placement.base import Base
from cluster.placement.changes import Moved, take_compact, take_move, take_moved, take_shard
from cluster.placement.table import Move, State, Table

PUTS = 20_000.0  # a second that a CPU serves
IDLE = 0.01  # of a CPU, with no load
NOISE = 0.02  # of a CPU: so far a look's figures are beside the load
BIRTH_S, MOVE_S, COMPACTION_S = 5.0, 30.0, 300.0
STEP_S = 20.0  # between two looks; a leader looks each 5 s
HOSTS = {1: "a", 2: "b", 3: "c"}

Load = Callable[[float], Mapping[bytes, float]]  # at a time in s: puts a second of each key


def keys() -> list[bytes]:
    return [b"/k/%04d" % number for number in range(200)]


def even(puts: float, names: list[bytes]) -> dict[bytes, float]:
    return dict.fromkeys(names, puts / len(names))


class Model:
    def __init__(self, load: Load, *, shards: int = 1, limits: Bounds | None = None, seed: int = 1,
                 free_cpus: float = 2.0, auto: bool = True) -> None:
        self.limits = limits or Bounds()
        self.table = Table.initial(Base(shards, 2))
        self.past = Past(self.table, 0)
        self.policy = Policy(self.limits, self.past, 0)
        self.now_s = 0.0
        self.free_cpus, self.auto, self.compacts = free_cpus, auto, True
        self._compacted = 0
        self._owners_of, self._owners = self.table, dict[bytes, int]()
        self.done: list[tuple[float, Wish]] = []
        self.advised: list[tuple[float, Wish]] = []
        self.hottest: list[float] = []  # what the hottest leader was asked for, at each look
        self.changes: dict[str, object] = {}  # of the facts
        self._load = load
        self._random, self._noise = random.Random(seed), random.Random(seed)
        self._samples: dict[int, Sample] = {}
        self._due: list[tuple[float, Callable[[], None]]] = []

    # -- the cluster

    def asked(self, load: Mapping[bytes, float]) -> dict[int, dict[bytes, float]]:
        """The load of each shard."""
        if self._owners_of is not self.table:
            self._owners_of, self._owners = self.table, {}
        owners, owner = self._owners, self.table.owner
        found: dict[int, dict[bytes, float]] = {shard: {} for shard in self.table.shards}
        for key, puts in load.items():
            shard = owners.get(key, -1)
            if shard < 0:
                shard = owners[key] = owner(key)
            found[shard][key] = puts
        return found

    def _serves(self) -> list[int]:
        return [shard for shard, known in self.table.shards.items() if known.state == State.SERVING]

    def _take(self, table: Table) -> None:
        self.table = table
        self.past.took(table, self._now_ms)

    @property
    def _now_ms(self) -> int:
        return int(self.now_s * 1000)

    def facts(self) -> Facts:
        load = self._load(self.now_s)
        asked = self.asked(load)
        shards, hottest = {}, 0.0
        for shard in self._serves():
            own = asked[shard]
            puts = sum(own.values())
            hottest = max(hottest, puts / PUTS)
            sample = self._samples.setdefault(shard, Sample())
            told: tuple[Weighed, ...] = ()
            cpu = min(max(IDLE + puts / PUTS + self._noise.uniform(-NOISE, NOISE), 0.001), 1.0)
            if cpu > self.limits.hot:
                looks = int(MOST_PER_S * STEP_S)
                weight = min(puts, PUTS) * STEP_S / looks
                for at, key in enumerate(self._random.choices(list(own), list(own.values()), k=looks)):
                    sample.take(self._now_ms - int(STEP_S * 1000 * (1 - at / looks)), key, weight)
                told = tuple(sample.weighed(self._now_ms))
            shards[shard] = Shard(
                leader=shard % 3 + 1, term=1, cpu=cpu, rate=min(puts, PUTS), live_bytes=1000 * len(own),
                keys=len(own), sample=told, marks=tuple(sorted(own)[:: len(own) // 64 + 1]) if told else ())
        self.hottest.append(hottest)
        hosts = {member: Host(4.0, self.free_cpus, 0.8) for member in HOSTS}
        known = {"compact_revision": self._compacted, **self.changes}
        return Facts(self._now_ms, self.table, hosts, HOSTS, shards, **known)  # type: ignore[arg-type]

    # -- time

    def run(self, seconds: float) -> None:
        until = self.now_s + seconds
        while self.now_s < until:
            self.now_s += STEP_S
            for due in [due for due in self._due if due[0] <= self.now_s]:
                self._due.remove(due)
                due[1]()
            if self.compacts and self.now_s % COMPACTION_S == 0:
                self._compacted = int(self.now_s)
                self.table = take_compact(self.table, self._compacted)
            facts = self.facts()
            advice = self.policy.look(facts)
            self._note(advice)
            if (wished := advice.due) is not None and self.auto:
                self.begin(wished, facts)

    def _note(self, advice: Advice) -> None:
        if advice.given and advice.wished is not None:
            self.advised.append((self.now_s, advice.wished))

    def begin(self, wished: Wish, facts: Facts) -> None:
        self.done.append((self.now_s, wished))
        self.policy.began(wished, facts)
        table = self.table
        if is_move(wished):
            number = table.last_move + 1
            sources = table.owners_of(wished.start, wished.end)
            at = int(self.now_s)
            self._take(take_move(table, Move(number, wished.start, wished.end, sources, wished.target), at))
            self._later(MOVE_S, lambda: self._take(
                take_moved(self.table, Moved(number, True, int(self.now_s), 0), int(self.now_s))))
        elif wished.kind == Kind.ADD:
            shard = max(table.shards) + 1
            self._take(take_shard(table, shard, State.FORMING, shard, (1, 2, 3)))
            self._later(BIRTH_S, lambda: self._take(take_shard(self.table, shard, State.SERVING, 0, ())))
        else:
            self._take(take_shard(table, wished.shard, State.RETIRING, 0, ()))
            self._later(BIRTH_S, lambda: self._drop(wished.shard))

    def _drop(self, shard: int) -> None:
        """G10: once its past is compacted."""
        if self.table.may_be_asked_of(shard):
            self._later(BIRTH_S, lambda: self._drop(shard))
        else:
            self._take(take_shard(self.table, shard, State.DROPPED, 0, ()))

    def _later(self, seconds: float, then: Callable[[], None]) -> None:
        self._due.append((self.now_s + seconds, then))

    def kinds(self) -> list[str]:
        return [wished.kind.value for _, wished in self.done]
