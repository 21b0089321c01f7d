"""What the sequencer's coordinator spends on a transaction over two shards, without processes or sockets.

The coordinator, its fold and its open entry are the real ones. This module answers for the shards' leaders,
and is not counted. CPU time only, so other programs on the machine matter little.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from cluster.evaluate.replica import Leader
from cluster.evaluate.txns.transactions import DueAnswer
from cluster.evaluate.view import Current
from cluster.features.auth.permissions import Ranges
from cluster.features.lessor import Lessor
from cluster.order.leading.queued import Report
from cluster.order.log import Cut, Fold
from cluster.order.prepare import Grant, decode_attempt
from cluster.order.sequencing.coordinator import Coordinator, Outgoing
from cluster.order.sequencing.fetching import Fetching
from cluster.order.sequencing.reports import Reports
from cluster.order.sequencing.sequencer import Sequencer, Tail
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from cluster.wire.messages import Method

_TERM, _LEADERS_TERM = 5, 3
_SHARDS = 4
_MAX_OPS = 128
_VALUE = bytes(256)
_GRANT = Grant(_LEADERS_TERM, [[]], []).encode()  # one key, which is not there
_ATTEMPT_BYTES = 16
_PENDING = 1 << 40  # a revision that no key has


class _Empty:
    """Shard 0's applied state: no keys."""

    revision = 7
    compact_revision = 0

    def current(self, key: bytes) -> Current | None:
        return None

    def get(self, key: bytes, revision: int = 0) -> bytes | None:
        return None

    def scan(self, start: bytes, end: bytes, revision: int = 0, look: int = 0) -> Iterator[Any]:
        return iter(())

    def reader(self, revision: int = 0) -> Any:
        return self

    def live_count(self, start: bytes, end: bytes) -> int:
        return 0

    def changes(self, from_revision: int) -> Iterator[Any]:
        return iter(())

    def lease(self, lease: int) -> tuple[int, int] | None:
        return None

    def meta(self, name: str) -> bytes | None:
        return None

    def alarms(self) -> list[tuple[int, int]]:
        return []

    def lease_keys(self, lease: int, limit: int = 0, *, but: Ranges | None = None) -> list[bytes]:
        return []


class _Entry:
    """The open entry: counts answers."""

    def __init__(self) -> None:
        self.answered = 0

    def weigh(self, size: int) -> None:
        pass

    def stage(self, token: int, status: int, body: bytes) -> None:
        self.answered += 1

    def stage_late(self, token: int, due: DueAnswer) -> None:
        raise AssertionError("nothing here shows many rows")


class Ordering:
    """A sequencer of four shards, whose clients send transactions that compare and put a key of one shard
    and put one of another."""

    def __init__(self, at_once: int) -> None:
        """``at_once``: transactions under way, on keys of their own."""
        placement = Placement(_SHARDS, 2)
        self._leader = Leader(_Empty(), _TERM, max_txn_ops=_MAX_OPS, lessor=Lessor(1000),
                              new_lease_id=lambda: 1)
        tail = Tail(self._leader, Fold(7, {shard: Cut(20, _LEADERS_TERM, 0) for shard in placement.others}))
        self._coordinator: Coordinator[int] = Coordinator(
            _TERM, placement, self._leader.view, tail.fold, max_txn_ops=_MAX_OPS, heartbeat_ms=100,
            users=self._leader.auth)
        reports, self._entry = Reports(), _Entry()
        for shard in placement.others:
            reports.take(Report(shard, 20, _LEADERS_TERM, 0, 9), 2)
        self._sequencer: Sequencer[int] = Sequencer(
            tail, self._coordinator, placement, reports, self._entry, Fetching(100, 1000),
            lambda *given: None)
        for shard in placement.others:
            self._coordinator.leader_of(shard, _LEADERS_TERM)
        self._free = at_once
        self._bodies = deque(_bodies(placement, 2 * at_once))
        self._asked: deque[Outgoing] = deque()
        self._index = 0

    def turn(self, grants: int) -> tuple[int, float]:
        """One turn of the sequencer's loop, in which the leaders grant so many prepares, the oldest first.
        How many transactions that completed, and the CPU seconds of it."""
        clock = time.process_time
        began = clock()
        for _ in range(self._free):
            self._coordinator.submit(1, Method.TXN, self._bodies[0])
            self._bodies.rotate(-1)
        self._sequencer.run(self._index, due=True)
        self._asked += self._coordinator.take_messages()
        spent_s = clock() - began
        answers = [(asked.shard, decode_attempt(asked.body[:_ATTEMPT_BYTES]))
                   for asked in (self._asked.popleft() for _ in range(min(grants, len(self._asked))))]
        began = clock()
        for shard, attempt in answers:
            self._coordinator.granted(attempt, shard, Grant.decode(_GRANT))
        self._sequencer.run(self._index, due=True)
        _, batch = self._leader.seal()
        self._index += 1
        self._coordinator.logged(self._index)
        self._leader.view.forget(batch.number, batch.keys, ())
        spent_s += clock() - began
        self._free, self._entry.answered = self._entry.answered, 0
        return self._free, spent_s


def _bodies(placement: Placement, count: int) -> Iterator[bytes]:
    keys = {shard: _keys(placement, shard) for shard in placement.others}
    for number in range(count):
        first, second = next(keys[1 + number % 3]), next(keys[1 + (number + 1) % 3])
        yield pb.TxnRequest(
            compare=[pb.Compare(key=first, result=pb.Compare.NOT_EQUAL, target=pb.Compare.CREATE,
                                create_revision=_PENDING)],
            success=[pb.RequestOp(request_put=pb.PutRequest(key=key, value=_VALUE))
                     for key in (first, second)],
            failure=[pb.RequestOp(request_range=pb.RangeRequest(key=first))]).SerializeToString()


def _keys(placement: Placement, shard: int) -> Iterator[bytes]:
    for number in itertools.count():
        key = b"/%08d/key" % number
        if placement.shard_of(key) == shard:
            yield key


def measure(transactions: int, at_once: int, grants: int) -> float:
    """CPU microseconds of a transaction, over so many."""
    ordering, done, spent_s = Ordering(at_once), 0, 0.0
    while done < transactions:
        completed, took_s = ordering.turn(grants)
        done, spent_s = done + completed, spent_s + took_s
    return 1e6 * spent_s / done
