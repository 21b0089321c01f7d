"""Processes are killed at each step of a move, while clients write, read and watch.

A step is reached for sure: some processes stand still, so that the move can come no further, and what the
others say shows that it is there. Only then somebody is killed. A move that slips through is one more move;
another one is tried.

* *copying*: one host's copy is held up.
* *locked*: the source has locked what moves; the target's leader stands still, and then the sequencer.
* *promised*: as before, and the target's leader has promised its copy by now.
* *appended*: the switch is in the sequencer's log; its followers stand still.
* *switched*: it is committed; who is killed has not applied it.
* *dropping*: what has moved away is being removed.

Moves from and to shard 0 are met as they copy. Its followers cannot stand still for a later step: each host's
copy comes from the node of shard 0 there, or is made by it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from cluster.order.moving.mover import FIRST_PAUSE_MS
from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import LIMIT_S, LocalCluster, local_cluster, until
from tests.cluster.moves.moving import (
    ENDS_S,
    SPANS,
    Nodes,
    Operator,
    directory,
    kill,
    resume,
    standing,
    whole,
)
from tests.cluster.serving.test_births import CALM, HOSTS, Load
from tests.cluster.serving.test_shards import unary
from tests.faults.hosts import Log
from tests.soaking import SOAK

pytestmark = pytest.mark.timeout(3600 if SOAK else 900)

STEPS = ("copying", "locked", "promised", "appended", "switched")
ROLES = ("order", "source", "target", "followers of the order", "followers of the source",
         "followers of the target")
OTHERS, FROM_0, TO_0 = ((1, 2), (2, 1)), ((0, 1), (0, 2)), ((1, 0), (2, 0))  # sources and targets
OF_PAIRS = {OTHERS: STEPS, FROM_0: STEPS[:1], TO_0: STEPS[:1]}
CASES = [(step, role, pairs) for pairs, steps in OF_PAIRS.items() for step in steps for role in ROLES
         ] if SOAK else [
    ("locked", "order", OTHERS), ("promised", "source", OTHERS), ("appended", "order", OTHERS),
    ("switched", "target", OTHERS), ("copying", "source", FROM_0), ("copying", "target", TO_0)]
_TRIES = 40  # moves for one case
_STANDS_S = 1.5  # that one may stand still, and lead nevertheless
_ROWS = 6400  # that a source drops
# Answers of the sequencer, by which a source has granted and the target is asked, before the switch is given
# up. Machines differ, so tries take them in turn
_GRANTED = (8, 4, 16, 2)
# Switches of the move that fail before, in tries 1 to 3, 4 to 7, later ones: the next has 50 ms, 100, 200
_FAILED = (0, 2, 3)
_STANDS_BEFORE_S = 0.7  # a switch that is to fail
_LOOKS = 20  # one after the other: what was sent before the first one has come by the last


class Reads:
    """A client that reads what was acknowledged last, at another host: no answer is older."""

    def __init__(self, endpoints: list[str], load: Load) -> None:
        self._channels = [grpc.insecure_channel(endpoint) for endpoint in endpoints]
        self._load = load
        self.done = 0
        self.stale: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Reads:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for channel in self._channels:
            channel.close()
        self._thread.join(LIMIT_S)

    def _run(self) -> None:
        turn = 0
        while not self._stop.wait(0.01):  # leaves the hosts the CPU
            turn += 1
            # a put or a read that fails is told elsewhere, or says nothing
            with suppress(grpc.RpcError, ValueError, RuntimeError, StopIteration):
                key = next(reversed(self._load.written))
                revision = self._load.written[key]
                found = unary(self._channels[turn % len(self._channels)], "KV/Range",
                              pb.RangeRequest(key=key), pb.RangeResponse, LIMIT_S)
                self.done += 1
                if [kv.mod_revision for kv in found.kvs] != [revision]:
                    self.stale.append(f"{key!r} at {revision}: {found}")


@dataclass
class World:
    cluster: LocalCluster
    operator: Operator
    load: Load


@contextmanager
def world(folder: Path, shards: int = 3) -> Iterator[World]:
    with local_cluster(folder / "c", HOSTS, f"--shards={shards}", extra=CALM) as cluster:
        endpoints = cluster.endpoints()
        operator = Operator(lambda: dict(enumerate(endpoints)), lambda host: folder / "c" / f"host{host}")
        try:
            operator.grow()
            with Load(endpoints) as load, Reads(endpoints, load) as reads:
                until(lambda: len(load.written) > 100)
                yield World(cluster, operator, load)
                ends_well(cluster, load)
                assert not reads.stale
                assert reads.done > 100
        finally:
            operator.close()


def ends_well(cluster: LocalCluster, load: Load) -> None:
    """Nothing that was acknowledged is lost, at any host, and the watch has each change once."""
    more(load)
    load.check()
    wanted = dict(load.written)
    request = pb.RangeRequest(key=b"/load/", range_end=b"/load0", serializable=True)
    for host, endpoint in enumerate(cluster.endpoints()):
        with grpc.insecure_channel(endpoint) as channel:
            def found(channel: grpc.Channel = channel) -> pb.RangeResponse | None:
                with suppress(grpc.RpcError):  # a host that was killed last may still start
                    answer = unary(channel, "KV/Range", request, pb.RangeResponse, LIMIT_S)
                    return answer if answer.header.revision >= max(wanted.values()) else None
                return None

            have = {kv.key: kv.mod_revision for kv in until(found).kvs}
        assert wanted.items() <= have.items(), f"host {host}"
        log = (cluster.data_dir / f"host{host}.log").read_text(encoding="utf-8")
        assert "Traceback" not in log


def more(load: Load) -> None:
    written = len(load.written)
    until(lambda: len(load.written) > written + 50, ENDS_S)


def compact(found: World) -> None:
    """Behind every switch until now. The watch is further; a host that was killed may take no call yet."""
    more(found.load)
    revision = max(found.load.written.values())
    until(lambda: found.load.seen[-1][0] >= revision)
    until(lambda: any(compacted(endpoint, revision) for endpoint in found.cluster.endpoints()), ENDS_S)


def compacted(endpoint: str, revision: int) -> bool:
    """Whether a host says so. An earlier answer may have been lost."""
    with grpc.insecure_channel(endpoint) as channel:
        request = pb.CompactionRequest(revision=revision)
        try:
            unary(channel, "KV/Compact", request, pb.CompactionResponse, LIMIT_S)
        except grpc.RpcError as error:
            return "has been compacted" in str(error.details())
    return True


def looked(condition: Callable[[], object], limit_s: float = _STANDS_S) -> bool:
    """Whether it is true before those that stand still may be taken for dead."""
    ends = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > ends:
            return False
    return True


# -- a move, and how it comes to its steps


@dataclass(frozen=True)
class Move:
    """From one shard to another one. The target's node on one host stands still from the beginning."""

    operator: Operator
    load: Load
    nodes: Nodes
    source: int
    target: int
    number: int
    held: int
    tried: int  # from 1 on

    def said(self) -> dict[str, Any]:
        return self.operator.said(self.number, self.nodes.leaders[0])

    def locks(self, shard: int) -> int:
        """At the shard's leader."""
        return int(self.operator.facts(self.nodes.leaders[shard], shard).get("locks", 0))

    def freezes(self, stack: ExitStack, after: int = 0) -> bool:
        """Whether the sequencer stands still from here on while the source has its lock, ``after`` so many
        answers of the sequencer."""
        resume(self.held)
        if not looked(lambda: self.said().get("step") == "switching"):
            return False
        for _ in range(after):
            self.said()
        stack.enter_context(standing(self.nodes.leader(0)))
        return all(self.locks(self.source) for _ in range(_LOOKS))

    def tires(self) -> bool:
        """Whether some switches have failed: the next one has longer, so that on a full machine the sequencer
        still stands still before that ends. The target's leader stands at the end of each pause alone; after
        all of it, another one would be elected."""
        for failed in range(1, _FAILED[min(self.tried // 4, len(_FAILED) - 1)] + 1):
            with standing(self.nodes.leader(self.target)):
                resume(self.held)
                if not looked(lambda failed=failed: self.said().get("failed_switches", 0) >= failed):
                    return False
            time.sleep((FIRST_PAUSE_MS << failed - 1) / 1000 - _STANDS_BEFORE_S)
        return True

    def appends(self, stack: ExitStack) -> bool:
        """Whether the switch is in the sequencer's log, whose followers stand still from here on."""
        with self.load.resting:  # what is not in order would have to be before the switch
            stack.enter_context(standing(*self.nodes.followers(0)))
            resume(self.held)
            return looked(lambda: self.said().get("step") == "idle")


Reached = Iterator[list[int]]  # those who are to be killed there; nobody: the move was not held up


@contextmanager
def copying(move: Move, victims: list[int]) -> Reached:
    yield victims


@contextmanager
def locked(move: Move, victims: list[int]) -> Reached:
    with standing(move.nodes.leader(move.target)), ExitStack() as stack:
        yield victims if move.freezes(stack) else []


@contextmanager
def promised(move: Move, victims: list[int]) -> Reached:
    with ExitStack() as stack:
        tired = move.tires()
        with standing(move.nodes.leader(move.target)):
            freezes = tired and move.freezes(stack, _GRANTED[(move.tried - 1) % len(_GRANTED)])
        yield victims if freezes and looked(lambda: move.locks(move.target)) else []


@contextmanager
def appended(move: Move, victims: list[int]) -> Reached:
    with ExitStack() as stack:
        yield victims if move.appends(stack) else []


@contextmanager
def switched(move: Move, victims: list[int]) -> Reached:
    order = move.nodes.followers(0)
    late = [pid for pid in victims if pid not in (move.nodes.leader(0), order[1])]
    with ExitStack() as stack:
        appends = move.appends(stack)
        stack.enter_context(standing(*late))
        resume(*set(order).difference(late))
        applied = appends and looked(lambda: move.operator.table(move.nodes.leaders[0]).move is None)
        yield (late or victims) if applied else []


REACHED: dict[str, Callable[[Move, list[int]], AbstractContextManager[list[int]]]] = {
    "copying": copying, "locked": locked, "promised": promised, "appended": appended, "switched": switched}


def of_role(move: Move, role: str) -> list[int]:
    """Its processes."""
    shard = {"order": 0, "source": move.source, "target": move.target}[role.split()[-1]]
    return move.nodes.followers(shard) if role.startswith("followers") else [move.nodes.leader(shard)]


Pairs = tuple[tuple[int, int], ...]


def chosen(found: World, pairs: Pairs) -> tuple[int, int, tuple[bytes, bytes]] | None:
    """What may move next."""
    operator = found.operator
    for source, target in pairs:
        if (span := operator.span(source, target)) is not None:
            return source, target, span
    compact(found)  # so that keys may go back to where they were
    table, sources = operator.table(), {source for source, _ in pairs}
    if sources.isdisjoint(owner for n in range(SPANS) for owner in table.owners_of(*directory(n))):
        wanted = min(sources)  # all has left them
        for other in {0, 1, 2} - sources:
            if (span := operator.span(other, wanted)) is not None:
                operator.moved(operator.begin(span, wanted), span, wanted)
    return None


def killed(found: World, step: str, role: str, pairs: Pairs, tried: int) -> bool:
    """Whether a move was at the step when one of that role was killed. It goes on to its end."""
    nodes = found.operator.nodes()
    source, target, span = until(lambda: chosen(found, pairs), ENDS_S)
    held = nodes.followers(target)[0]
    with standing(held):
        number = found.operator.begin(span, target)
        move = Move(found.operator, found.load, nodes, source, target, number, held, tried)
        # else another host leads the order by now
        waits = looked(lambda: whole(move.said()) == HOSTS - 1, LIMIT_S)
        reached = REACHED[step](move, of_role(move, role)) if waits else nullcontext(list[int]())
        with reached as victims:
            kill(*victims)
    found.operator.moved(number, span, target)
    more(found.load)
    return bool(victims)


@pytest.mark.longer
def test_a_kill_at_each_step_of_a_move_loses_nothing(tmp_path: Path) -> None:
    with world(tmp_path) as found:
        for step, role, pairs in CASES:
            tries = range(1, _TRIES + 1)
            moves = next((tried for tried in tries if killed(found, step, role, pairs, tried)), 0)
            assert moves, f"no move of {pairs} was at {step!r} as {role} was killed"
            print(f"{step}, {role}, {pairs}: killed in move {moves}")


# -- what is left behind


def rows(found: World, span: tuple[bytes, bytes]) -> dict[bytes, int]:
    with grpc.insecure_channel(found.cluster.endpoints()[0]) as channel:
        answer = unary(channel, "KV/Range", pb.RangeRequest(key=span[0], range_end=span[1], keys_only=True),
                       pb.RangeResponse, LIMIT_S)
    return {kv.key: kv.mod_revision for kv in answer.kvs}


def fill(found: World, span: tuple[bytes, bytes]) -> None:
    """So many keys that to remove them takes a while."""
    with grpc.insecure_channel(found.cluster.endpoints()[0]) as channel:
        for first in range(0, _ROWS, 128):
            puts = [pb.RequestOp(request_put=pb.PutRequest(key=b"%s%d" % (span[0], first + n), value=b"v"))
                    for n in range(128)]
            unary(channel, "KV/Txn", pb.TxnRequest(success=puts), pb.TxnResponse, LIMIT_S)


@pytest.mark.soak
def test_a_kill_while_a_source_drops_what_has_left_it_leaves_nothing(tmp_path: Path) -> None:
    """All of it goes nevertheless: otherwise the keys could not come back."""
    with world(tmp_path) as found:
        table = found.operator.table()
        start = next(key for n in range(99) if table.owner(key := b"/left/%d/" % n) == 1)
        span = start, start[:-1] + b"0"
        fill(found, span)
        wanted = rows(found, span)
        source, target, interrupted = 1, 2, 0
        for _ in range(_TRIES):
            logs = [Log(found.cluster.data_dir / f"host{host}.log") for host in range(HOSTS)]
            nodes = found.operator.nodes()
            number = found.operator.begin(span, target)
            found.operator.moved(number, span, target)
            compact(found)
            for host, log in enumerate(logs):
                until(partial(drops, log, number), ENDS_S, look_s=0.002)
                kill(nodes.pids[host, source])
            source, target = target, source
            found.operator.nodes()
            found.operator.moved(found.operator.begin(span, target), span, target)  # once all of it is gone
            assert rows(found, span) == wanted
            interrupted = sum(drops(log, number) > 1 for log in logs)
            compact(found)
            source, target = target, source
            if interrupted:
                break
        assert interrupted, "each drop was over before the kill"


def drops(log: Log, number: int) -> int:
    """How often a host has begun to drop what a move has taken away."""
    return len(re.findall(rf"deleting keys that moved away.*\bmove={number}\b", log.text()))
