"""An attack, and what may not come of it.

- No process ends (pids are compared) and no shard has another leader or term.
- Every request of a bystander at the same host is answered, and its p99 at most doubles. All of
  three hosts, attacker and bystander share the machine's CPUs, where the attacker has the least
  priority; on a machine of two CPUs that others use, a p99 without any attack is anything from 5 to
  50 ms. So the bound is twice the measured one or twice :data:`FLOOR_S`, whichever is more. What
  these attacks once did is 1 to 10 s. The first try has turns with the attack alone, the floor
  bounds them, and a short turn without it shows that all is answered afterwards. Where that is not
  enough, turns with the attack and without take turns, and medians are compared. The best of three
  tries counts, since other work only adds.
- Once the attacker has left, the memory that the processes of each host have to themselves (USS) comes back
  to what it was, and a fifth, at most.
"""

from __future__ import annotations

import contextlib
import functools
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cluster.local_cluster import local_cluster, until
from tests.faults.attacking import rows
from tests.faults.attacking.bystander import Bystander, Turn
from tests.faults.attacking.raw import gentle
from tests.faults.hosts import Hosts
from tests.faults.shards import keys_of
from tests.soaking import SOAK
from tests.tries import TRIES

SHARDS = 2
FLOOR_S = 0.1
TURNS = int(os.environ.get("MUSTER_ATTACK_TURNS", "3" if SOAK else "2"))
TURN_S = 1.5  # a turn with the attack takes as long as the attack, if that is longer
AFTER_S = 0.4  # 32 requests
MEMORY_LIMIT_S = 60.0
_MOST = 1.2  # of the memory before
# an election would be one's own fault only after a stall of two seconds: the machine is shared
_FLAGS = ("--heartbeat-interval=100", "--election-timeout=2000")


@dataclass
class Seen:
    """What came of an attack. Seconds and bytes; memory is of the host that has most more than before."""

    quiet: list[Turn] = field(default_factory=list)  # of the last try
    attacked: list[Turn] = field(default_factory=list)
    earlier: list[Turn] = field(default_factory=list)  # of tries before it
    took_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    left_bytes: int = 0

    @property
    def quiet_p99_s(self) -> float:
        """Without the attack."""
        return statistics.median(turn.p99_s for turn in self.quiet)

    @property
    def attacked_p99_s(self) -> float:
        """Beside it."""
        return statistics.median(turn.p99_s for turn in self.attacked)

    def again(self) -> None:
        """Begin another try."""
        self.earlier += self.quiet + self.attacked
        self.quiet, self.attacked = [], []

    @property
    def failures(self) -> list[str]:
        """Requests that were not answered, in all tries."""
        return [failure for turn in self.earlier + self.quiet + self.attacked for failure in turn.failures]

    def __str__(self) -> str:
        slowest = max(turn.slowest_s for turn in self.attacked)
        return (
            f"p99 {1e3 * self.quiet_p99_s:.0f} ms without, {1e3 * self.attacked_p99_s:.0f} ms beside, slowest"
            f" {1e3 * slowest:.0f} ms; an attack takes {statistics.median(self.took_s):.2f} s; memory"
            f" {self.peak_bytes / 1e6:+.0f} MB meanwhile, {self.left_bytes / 1e6:+.0f} MB after"
        )


class Attacked:
    """A cluster with rows in it, and a bystander at the host that is attacked: the leader's."""

    _known = False  # the bystander has asked before

    def __init__(self, hosts: Hosts, bystander: Bystander, at: int, fronts: int) -> None:
        self.hosts = hosts
        self.fronts = fronts  # of a host, each a process of its own
        self.endpoint = "{}:{}".format(*hosts.endpoints[at])
        self._bystander = bystander

    def standing(self) -> list[object]:
        """All that no attack may change: processes, leaders, terms."""
        found: list[object] = []
        for status in self._statuses():
            found += [status["pid"], *(front["pid"] for front in status["fronts"])]
            found += [(node["pid"], node["leader"], node["term"]) for node in status["nodes"]]
        return found

    def _statuses(self) -> list[dict[str, Any]]:
        """What each host says of itself, once all of its nodes have said something."""
        def told(host: int) -> dict[str, Any] | None:
            status = self.hosts.status(host)
            return status if status and all("term" in node for node in status["nodes"]) else None

        return [until(functools.partial(told, host)) for host in range(len(self.hosts.endpoints))]

    def memory(self) -> list[int]:
        """What the processes of each host have to themselves."""
        found = []
        for status in self._statuses():
            pids = {status["pid"], *(p["pid"] for p in status["fronts"] + status["nodes"])}
            found.append(sum(psutil.Process(pid).memory_full_info().uss for pid in pids))
        return found

    def beside(
        self,
        attack: Callable[[], object],
        *,
        turns: int = TURNS,
        floor_s: float = FLOOR_S,
        most_bytes: int = 0,
    ) -> Seen:
        """Attack in every second turn, and judge. The attack has left when the callable returns.
        ``most_bytes``: that a host may take for it meanwhile, 0 for any."""
        seen = Seen()
        if not self._known:
            self.turn(TURN_S)  # what is made at the first requests of a client is there
            self._known = True
        standing, memory = self.standing(), self.memory()
        with watching(self.memory) as peaks:
            for number in range(TRIES):
                bound_s = self._tried(seen, attack, turns, floor_s, compared=number > 0)
                if seen.attacked_p99_s <= bound_s or number + 1 == TRIES or seen.failures:
                    break
                print(f"once more: p99 {seen.attacked_p99_s:.3f} s, {bound_s:.3f} s at most", flush=True)
                seen.again()
        seen.peak_bytes = max(peak - was for peak, was in zip(peaks, memory, strict=True))

        def came_back() -> bool:
            now = self.memory()
            seen.left_bytes = max(n - was for n, was in zip(now, memory, strict=True))
            return all(n <= _MOST * was for n, was in zip(now, memory, strict=True))

        deadline = time.monotonic() + MEMORY_LIMIT_S
        while not (back := came_back()) and time.monotonic() < deadline:
            time.sleep(0.5)
        print(seen, flush=True)
        assert not seen.failures, seen.failures[:5]
        stands = self.standing()
        assert stands == standing, f"processes, leaders, terms: {standing} before, {stands} after"
        assert seen.attacked_p99_s <= bound_s, seen
        assert not most_bytes or seen.peak_bytes <= most_bytes, seen
        assert back, (
            f"{[m >> 20 for m in memory]} MiB before, {[m >> 20 for m in self.memory()]} after: {seen}"
        )
        return seen

    def _tried(
        self, seen: Seen, attack: Callable[[], object], turns: int, floor_s: float, *, compared: bool
    ) -> float:
        """The turns of a try; the bound of its p99. ``compared``: with turns without the attack."""
        for _ in range(turns):
            if compared:
                seen.quiet.append(self.turn(TURN_S))
            began = time.monotonic()
            seen.attacked.append(self.turn(TURN_S, attack))
            seen.took_s.append(time.monotonic() - began)
        if compared:
            return 2 * max(seen.quiet_p99_s, floor_s)
        seen.quiet.append(self.turn(AFTER_S))
        return 2 * floor_s

    def turn(self, least_s: float, attack: Callable[[], object] = lambda: None) -> Turn:
        """A turn of the bystander's, so long at least, with an attack."""
        self._bystander.begin()
        try:
            error: list[BaseException] = []
            until_s = time.monotonic() + least_s
            attacker = threading.Thread(target=_attacking, args=(attack, error))
            attacker.start()
            attacker.join()
            time.sleep(max(0.0, until_s - time.monotonic()))
        finally:
            turn = self._bystander.end()
        if error:
            raise error[0]
        return turn


def _attacking(attack: Callable[[], object], error: list[BaseException]) -> None:
    gentle()
    try:
        attack()
    except BaseException as e:
        error.append(e)


@contextlib.contextmanager
def watching(memory: Callable[[], list[int]]) -> Iterator[list[int]]:
    """The most memory that each host has meanwhile, looked at four times a second."""
    peaks = memory()
    stop = threading.Event()

    def watch() -> None:
        gentle()
        while not stop.wait(0.25):
            peaks[:] = map(max, peaks, memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        stop.set()
        watcher.join()


def _settled(hosts: Hosts) -> bool:
    """Whether one host leads every shard: until then leaders move there by themselves."""
    statuses = [hosts.status(host) for host in range(len(hosts.endpoints))]
    leaders = {node.get("leader", "") for status in statuses if status for node in status["nodes"]}
    return all(statuses) and len(leaders) == 1 and "" not in leaders


@contextlib.contextmanager
def attacked(data_dir: Path, fronts: int, *flags: str) -> Iterator[Attacked]:
    """Three hosts with two shards and rows. ``fronts``: 0 for the front in node 0's process; ``flags``: of
    the server's."""
    with local_cluster(  # cold: its memory is looked at
        data_dir, 3, f"--shards={SHARDS}", f"--fronts={fronts}", extra=(*_FLAGS, *flags), cold=True
    ) as cluster:
        hosts = Hosts(cluster)
        until(lambda: _settled(hosts))
        at = hosts.leader()
        endpoint = "{}:{}".format(*hosts.endpoints[at])
        rows.load(endpoint)
        keys = [key for shard in range(SHARDS) for key in keys_of(shard, SHARDS, 1)]
        with Bystander(endpoint, keys) as bystander:
            yield Attacked(hosts, bystander, at, fronts)


BOTH_FRONTS = [
    pytest.param(0, id="front in node 0"),
    pytest.param(1, id="front of its own", marks=pytest.mark.soak),
]
