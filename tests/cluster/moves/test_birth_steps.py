"""Processes are killed at each step of a shard's birth and of its end, while clients write, read and watch.

A step is reached for sure: supervisors stand still, and without them no shard comes further. Only a drop may
slip through: another one is tried.

* *formed*: the shard is in order, and each node 0 has written what it begins with; no host has its directory.
* *made*: it runs on one host of three, so that it has no leader.
* *serving*: it has just begun to.
* *retiring*: it has keys that are to move away.
* *dropped*: it is over; hosts still have its directory.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.pb import shards_pb2
from cluster.placement.table import State
from tests.cluster.local_cluster import until
from tests.cluster.moves.moving import ENDS_S, Nodes, kill, standing
from tests.cluster.moves.test_steps import World, compact, more, world
from tests.cluster.serving.test_births import HOSTS

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

ROLES = ("order", "follower of the order", "born", "host")
BIRTHS = [(step, role) for step in ("formed", "made", "serving") for role in ROLES
          if (step, role) != ("formed", "born")]  # nothing of it runs yet
ENDS = [(step, role) for step in ("retiring", "dropped") for role in ROLES
        if (step, role) != ("dropped", "born")]  # nothing of it runs any more
_TRIES = 10


class Birth:
    """Of one shard, and who is to be killed."""

    def __init__(self, found: World, role: str) -> None:
        self.world, self.operator = found, found.operator
        self.role = role
        self.nodes: Nodes = self.operator.nodes()
        self.supervisors = [host["pid"] for host in found.cluster.status()["hosts"]]
        self.shard = max(self.operator.table().shards) + 1

    def state(self) -> State | None:
        known = self.operator.table().shards.get(self.shard)
        return None if known is None else known.state

    def folder(self, host: int, shard: int) -> Path:
        return self.world.cluster.data_dir / f"host{host}" / "member" / f"shard-{shard}"

    def ask(self, method: str, request: Any, response: Any, state: State) -> None:
        """Until the shard is in this state at least: an answer may be lost."""
        def done() -> bool:
            if (self.state() or 0) < state:
                self.operator.ask(method, request, response)
            return (self.state() or 0) >= state

        until(done, ENDS_S, look_s=0.2)

    def add(self) -> None:
        self.ask("AddShard", shards_pb2.AddShardRequest(), shards_pb2.AddShardResponse, State.FORMING)

    def serves(self) -> None:
        """It, or another one in its place, on all hosts."""
        until(lambda: not self.operator.table().forming, ENDS_S, look_s=0.1)
        self.operator.nodes()

    def born(self, host: int) -> dict[str, Any]:
        """What a host's node of the shard says."""
        return self.operator.facts(host, self.shard)

    def kill(self, born: int | None = None) -> None:
        """``born``: the shard's process that is meant."""
        leads = self.nodes.leaders[0]
        if self.role == "order":
            kill(self.nodes.leader(0))
        elif self.role == "follower of the order":
            kill(self.nodes.followers(0)[0])
        elif self.role == "born":
            assert born is not None
            kill(born)
        else:
            host = next(host for host in range(HOSTS) if host != leads)
            kill(self.supervisors[host])  # all of its processes end with it
            until(lambda: self.world.cluster.run("start", str(host)).returncode == 0, ENDS_S, look_s=0.5)


@contextmanager
def formed(birth: Birth) -> Any:
    with standing(*birth.supervisors):
        birth.add()
        until(lambda: all((birth.folder(host, 0) / f"genesis-{birth.shard}").exists()
                          for host in range(HOSTS)))
        assert not any(birth.folder(host, birth.shard).exists() for host in range(HOSTS))
        assert birth.state() == State.FORMING
        yield None


@contextmanager
def made(birth: Birth) -> Any:
    runs = birth.nodes.leaders[0]
    with standing(*(pid for host, pid in enumerate(birth.supervisors) if host != runs)):
        birth.add()
        until(lambda: birth.born(runs))
        assert birth.state() == State.FORMING
        yield birth.born(runs)["pid"]


@contextmanager
def serving(birth: Birth) -> Any:
    birth.add()
    until(lambda: birth.state() == State.SERVING, ENDS_S, look_s=0.002)
    yield until(lambda: [said["pid"] for host in range(HOSTS)
                         if (said := birth.born(host)).get("role") == "leader"])[0]


REACHED: dict[str, Callable[[Birth], AbstractContextManager[Any]]] = {
    "formed": formed, "made": made, "serving": serving}


def test_a_kill_at_each_step_of_a_birth_loses_nothing(tmp_path: Path) -> None:
    with world(tmp_path) as found:
        for step, role in BIRTHS:
            birth = Birth(found, role)
            with REACHED[step](birth) as born:
                birth.kill(born)
            birth.serves()
            more(found.load)


def moves_to(found: World, source: int, target: int) -> tuple[bytes, bytes]:
    def span() -> tuple[bytes, bytes] | None:
        if (known := found.operator.span(source, target)) is None:
            compact(found)
        return known

    moved: tuple[bytes, bytes] = until(span, ENDS_S)
    found.operator.moved(found.operator.begin(moved, target), moved, target)
    return moved


def test_a_kill_at_each_step_of_a_shards_end_loses_nothing(tmp_path: Path) -> None:
    with world(tmp_path) as found:
        for step, role in ENDS:
            assert any(ended(found, step, role) for _ in range(_TRIES)), f"{step} was never reached"
            more(found.load)


def ended(found: World, step: str, role: str) -> bool:
    """A shard comes and goes; whether the step was reached."""
    birth = Birth(found, role)
    birth.add()
    birth.serves()
    birth.shard = max(found.operator.table().shards)
    source = next(shard for shard in (0, 1, 2) if found.operator.span(shard, birth.shard))
    moves_to(found, source, birth.shard)
    birth.nodes = found.operator.nodes()
    request = shards_pb2.RetireShardRequest(shard=birth.shard, with_keys=True)
    birth.ask("RetireShard", request, shards_pb2.RetireShardResponse, State.RETIRING)
    if step == "retiring":
        birth.kill(birth.nodes.leader(birth.shard))
    compact(found)
    moves_to(found, birth.shard, source)
    if step == "dropped":
        reached = dropped(birth)
    else:
        compact(found)
        until(lambda: birth.state() == State.DROPPED, ENDS_S)
        reached = True
    until(lambda: not any(birth.folder(host, birth.shard).exists() for host in range(HOSTS)), ENDS_S)
    return reached


def dropped(birth: Birth) -> bool:
    """What the shard had is compacted, and somebody is killed while hosts have its directories. Supervisors
    stand still once the drop is seen, and no sooner: they hand new links to nodes, by which the drop asks
    disks. False: they were faster."""
    birth.nodes, world = birth.operator.nodes(), birth.world
    leads = birth.nodes.leaders[0]
    stands = [host for host in range(HOSTS) if host != leads]
    birth.supervisors = [host["pid"] for host in world.cluster.status()["hosts"]]
    compact(world)

    def is_dropped() -> bool:
        kept = all(birth.folder(host, birth.shard).exists() for host in range(HOSTS))
        shards = birth.operator.table(leads).shards  # its host may apply the drop after a follower's
        over = shards[birth.shard].state == State.DROPPED
        assert kept or over or any(birth.operator.table(host).shards[birth.shard].state == State.DROPPED
                                   for host in stands), "a directory went before the shard was dropped"
        return over

    until(is_dropped, ENDS_S, look_s=0.001)
    with standing(*(birth.supervisors[host] for host in stands)):
        reached = all(birth.folder(host, birth.shard).exists() for host in stands)
        if reached:
            birth.kill()
    return reached
