"""A front's services over fake nodes, what happens to these at random, and how all comes to rest. Who its
clients are is said elsewhere (``run.py``, ``connected/``)."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

import pytest

from proxy.grpc.registry import Registry
from proxy.services.table import register_all
from tests.unit.proxy.fakes import ManualLoop, Net
from tests.unit.proxy.random.answers import Answers
from tests.unit.proxy.random.nodes import Nodes
from tests.unit.proxy.random.tables import Tables
from tests.unit.proxy.random.threads import Threads

_LAST_LOOKS = 60
_LOOK_S = 0.25
_PAUSES_S = (0.05, 0.05, 0.3, 1.0)
_SECRET = b"s" * 32


@dataclass(eq=False)
class Timer:
    callback: Callable[..., object]
    args: tuple[Any, ...]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True

    def __call__(self) -> None:
        if not self.cancelled:
            self.callback(*self.args)


class TimedLoop(ManualLoop):
    """Its timers go off as time passes."""

    def __init__(self, threads: Threads) -> None:
        super().__init__()
        self.run_in_executor = threads.begin
        self._timers: list[tuple[float, int, Timer]] = []
        self._number = count()

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any
    ) -> Timer:
        timer = Timer(callback, args)
        self._soon.append(timer)
        return timer

    def call_later(  # type: ignore[override]
        self, delay_s: float, callback: Callable[..., object], *args: Any
    ) -> Timer:
        return self.call_at(self.now + delay_s, callback, *args)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:
        timer = Timer(callback, args)
        heapq.heappush(self._timers, (when, next(self._number), timer))
        return timer

    def run(self) -> None:
        while True:
            while self._timers and self._timers[0][0] <= self.now:
                self._soon.append(heapq.heappop(self._timers)[2])
            if not self._soon:
                return
            super().run()


@dataclass
class Events:
    """What may happen, with how often."""

    random: Random
    every: list[Callable[[], None]] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)

    def add(self, weight: int, event: Callable[[], None]) -> None:
        self.every.append(event)
        self.weights.append(weight)

    def happen(self) -> None:
        (event,) = self.random.choices(self.every, self.weights)
        event()


class World:
    """``seed`` decides everything: also how many shards there are, whether keys move and users change,
    whether the front is a proxy without a node, and whether it stops."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
        self.random = random = Random(seed)
        self.moves, self.users = random.random() < 0.5, random.random() < 0.5
        self.stops = random.random() < 0.25
        self.threads = Threads(random, monkeypatch)
        self.loop = TimedLoop(self.threads)
        self.net = Net(shards=random.choice((1, 2, 3)), own=random.choice((1, 1, 1, 0)), loop=self.loop)
        self.net.context.hub.random = random.random
        self.net.started(random.choice((1, 2, 3)))
        self.nodes = Nodes(random, self.net, self.users)
        self.answers = Answers(self.nodes)
        self.tables = Tables(random, self.nodes)
        self.registry = registry
        self.paths: dict[str, str] = {}  # of gRPC, by method
        self._changes_of_users = 0
        self.events = Events(random)
        for weight, event in (
            (3, self.nodes.lose_a_link), (2, self.nodes.cut_or_mend), (2, self.nodes.cut_a_shard_or_mend),
            (2, self._elect), (2 * self.users, self._change_users), (4 * self.moves, self._change_tables),
            (10, self._pause), (28, self._serve),
        ):
            self.events.add(weight, event)

    def register(self) -> None:
        register_all(self.registry, self.net.context)
        paths = [path.decode() for path in self.registry._methods if b"Health" not in path]
        self.paths = {path.rpartition("/")[2]: path for path in paths}

    def handler(self, method: str) -> Any:
        return self.registry.served(self.paths[method])

    def happen(self, steps: int) -> None:
        for _ in range(steps):
            self.events.happen()
            self.expire()
            if self.random.random() < 0.7:
                self.net.run()

    def expire(self) -> None:
        """End calls whose time limit is over."""
        raise NotImplementedError

    def look(self) -> None:
        """Time passes, and nodes answer all that they are asked."""
        for _ in range(_LAST_LOOKS):
            self.net.pass_time(_LOOK_S)
            self.expire()
            self.threads.finish(all_of_them=True)
            self.answers.give(everything=True)

    # -- events

    def _elect(self) -> None:
        self.nodes.elect(self.random.choice((0, 1, 2, 3)))

    def _change_users(self) -> None:
        self._changes_of_users += 1
        at = self._changes_of_users
        self.net.router.principals.heard(at, self.random.random() < 0.7, at, _SECRET)

    def _change_tables(self) -> None:
        for _ in range(3):
            self.tables.change()

    def _pause(self) -> None:
        self.net.pass_time(self.random.choice(_PAUSES_S))

    def _serve(self) -> None:
        self.threads.finish(all_of_them=False)
        self.answers.give()
