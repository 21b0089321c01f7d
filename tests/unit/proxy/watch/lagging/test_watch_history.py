"""Questions for history take turns, whatever becomes of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.faults import faults
from cluster.placement import Placement
from cluster.wire.events import EVENT
from cluster.wire.messages import HISTORY_ANSWER, HISTORY_HEAD, SIGNS, Method, Status
from proxy.routing.router import MethodStats, Waiting
from proxy.routing.waiting import READ_ANY
from proxy.watch.lagging.history import _DROPPED, History, Slice
from tests.unit.proxy.watch.watching import Client, World

FAILED = EtcdError(errors.TOO_MANY_REQUESTS).encode()


@dataclass
class Watched:
    range_end: bytes = b""
    key: bytes = b"k"
    prev_kv: bool = False


def still() -> bool:
    return True


class Replicas:
    """Answers that nobody has any more, or at once."""

    compacted = 0

    def __init__(self) -> None:
        self.asked: list[Waiting] = []
        self.full = False

    def history(
        self, body: bytes, shard: int, then: Callable[[Waiting, int, bytes], None], context: Any
    ) -> None:
        waiting = Waiting(None, Method.HISTORY, body, shard, READ_ANY, 0.0, 7.0, MethodStats())
        waiting.calls(then, context)
        if self.full:
            waiting.tell(Status.ERROR, FAILED)
        else:
            self.asked.append(waiting)


def asked(count: int, then: Callable[[Slice], None]) -> Replicas:
    """So many questions, of which the first ones are under way."""
    replicas = Replicas()
    history = History(replicas, Placement(1), 1 << 20)  # type: ignore[arg-type]  # what it needs of a router
    for number in range(count):
        history.ask(Watched(), number, (0,), 1, then, still)
    return replicas


def test_very_many_that_fail_at_once_are_all_told() -> None:
    found: list[Slice] = []
    replicas = asked(2000, found.append)
    replicas.full = True
    for waiting in replicas.asked:
        waiting.tell(Status.ERROR, FAILED)
    assert [one.failed for one in found] == [True] * 2000


def test_a_sign_of_life_is_no_answer() -> None:
    found: list[Slice] = []
    (waiting,) = asked(1, found.append).asked
    assert HISTORY_HEAD.unpack_from(waiting.body)[3] == SIGNS, "no node sends one that is not asked to"
    for _ in range(3):
        waiting.tell(Status.PARTIAL, b"")
    assert not found
    waiting.tell(Status.OK, HISTORY_ANSWER.pack(5, 4, 0, 0))
    assert [(one.next_revision, one.failed) for one in found] == [(5, False)]


def test_an_answer_in_pieces_is_joined_and_what_a_lost_link_brought_is_dropped() -> None:
    found: list[Slice] = []
    (waiting,) = asked(1, found.append).asked
    table, fields = EVENT.pack(4, 0, 0, 6), b"\n\x04abcd"
    whole = HISTORY_ANSWER.pack(5, 4, 0, 1) + table + fields
    waiting.tell(Status.PARTIAL, whole[:20])
    assert waiting.begins_anew(waiting.began)
    for piece in (whole[:40], b"", whole[40:50]):
        waiting.tell(Status.PARTIAL, piece)
    assert not found
    waiting.tell(Status.OK, whole[50:])
    batch = found[0].batch
    assert batch is not None
    assert (batch.first, batch.last, batch.table, batch.wire) == (4, 4, table, fields)


def test_others_begin_whatever_who_was_told_makes_of_it() -> None:
    def fails(one: Slice) -> None:
        raise EtcdError(errors.TOO_MANY_REQUESTS)

    replicas = asked(8, fails)
    for waiting in list(replicas.asked):
        waiting.tell(Status.ERROR, FAILED)
    assert len(replicas.asked) == 8
    assert [type(met[1]) for met in faults.take()] == [EtcdError]


def test_what_is_asked_of_a_shard_that_gives_no_answer_makes_no_other_wait() -> None:
    replicas, found = Replicas(), list[Slice]()
    history = History(replicas, Placement(2), 1 << 20)  # type: ignore[arg-type]
    for shards in ((1,), (0, 1), (1, 2), (0, 1, 2), (1, 2, 3), (0, 1, 2, 3)):
        for number in range(8):
            history.ask(Watched(b"l"), number, shards, 1, found.append, still)
    for number in range(2000):
        history.ask(Watched(), number, (0,), 1, found.append, still)
        replicas.asked.pop().tell(Status.OK, HISTORY_ANSWER.pack(5, 4, 0, 0))
    assert [one.next_revision for one in found] == [5] * 2000
    assert len(replicas.asked) == 4 * (1 + 2 + 2 + 3) + 3 + 4, "16 in all, and one of each set beyond them"
    for waiting in replicas.asked:  # grows meanwhile
        waiting.tell(Status.OK, HISTORY_ANSWER.pack(5, 4, 0, 0))
    assert len(found) == 2000 + 6 * 8


@pytest.mark.parametrize(("status", "answer", "told"), [
    (Status.ERROR, EtcdError(errors.COMPACTED, "8").encode(), 8),
    (Status.ERROR, FAILED, 5),
    (Status.OK, HISTORY_ANSWER.pack(5, 4, 0, 0), 5),  # of a node that is behind
])
def test_below_a_tables_pruning_the_newest_compaction_is_told(
    status: Status, answer: bytes, told: int) -> None:
    placement = Placement(2)
    placement.replace(replace(placement.table, pruned=5, generation=1))
    replicas, found = Replicas(), list[Slice]()
    history = History(replicas, placement, 1 << 20)  # type: ignore[arg-type]
    history.ask(Watched(), "a client", (), 3, found.append, still)
    for waiting in replicas.asked:
        waiting.tell(status, answer)
    assert [one.compacted for one in found] == [told]


def test_what_nobody_waits_for_any_more_is_not_read() -> None:
    """A client that came back, and asked again for 1,000 watches, waited for those of before."""
    world = World()
    for number in range(20):
        world.write((0, b"k%d" % number))
    hub, gone = world.net.context.hub, Client(world)
    for number in range(1000):
        gone.create(b"k%d" % number, start=2)
    for _ in range(20):  # some have a part of it, and wait for their next turn
        world.net.run()
        for source in world.every.values():
            source.serve()
            source.send_late()
    before = hub.history.slices
    gone.leave()
    world.settle()
    assert hub.statistics()["watches"] == 0
    assert hub.history.slices - before <= 2 * (1 + 1000 // _DROPPED)
    assert gone.call.gathered == 0
    assert not hub.history._turns
