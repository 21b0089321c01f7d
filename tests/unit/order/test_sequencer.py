"""The end of the sequencer's log: fold, overlay and open entry move together, by one run."""

from __future__ import annotations

from typing import Any

import pytest

from cluster import errors
from cluster.evaluate.replica import Leader
from cluster.evaluate.txns.transactions import DueAnswer
from cluster.features.lessor import Lessor
from cluster.order.leading.queued import Report
from cluster.order.log import Cut, Fold, encode_cut
from cluster.order.prepare import Grant, Prepare
from cluster.order.sequencing.coordinator import Coordinator
from cluster.order.sequencing.fetching import Fetching
from cluster.order.sequencing.reports import Reports
from cluster.order.sequencing.sequencer import Sequencer, Tail
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from cluster.wire.messages import HEAD, Method, Status
from tests.unit.order.stores import EmptyStore

TERM = 5  # the sequencer's
PLACEMENT = Placement(2, 1)
MANY = [b"k%d" % i for i in range(100)]
KEYS = [next(key for key in MANY if PLACEMENT.shard_of(key) == shard) for shard in (0, 1)]


class Entry:
    """The open entry of shard 0's leader: what was staged with it."""

    def __init__(self) -> None:
        self.size = 0
        self.staged: list[tuple[str, int, bytes]] = []

    def weigh(self, size: int) -> None:
        self.size += size

    def stage(self, token: str, status: int, body: bytes) -> None:
        self.staged.append((token, status, body))

    def stage_late(self, token: str, due: DueAnswer) -> None:
        raise AssertionError("nothing here shows rows")


class Store:
    """A sequencer of two shards, over a store at revision 7; shard 1's leader is of term 3."""

    def __init__(self) -> None:
        self.entry, self.reports = Entry(), Reports()
        state: Any = EmptyStore(leases=True)
        leader = Leader(state, TERM, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 7)
        self.tail = Tail(leader, Fold(7, {1: Cut(20, 3, 2)}))
        self.coordinator: Coordinator[str] = Coordinator(
            TERM, PLACEMENT, leader.view, self.tail.fold, max_txn_ops=128, heartbeat_ms=100,
            users=leader.auth)
        self.reports.take(Report(1, 20, 3, 2, 9), 2)
        self.sequencer: Sequencer[str] = Sequencer(
            self.tail, self.coordinator, PLACEMENT, self.reports, self.entry, Fetching(100, 1000),
            lambda *given: None)

    def put(self, token: str, shard: int = 1, lease: int = 0) -> None:
        body = pb.PutRequest(key=KEYS[shard], value=b"v", lease=lease).SerializeToString()
        assert self.coordinator.submit(token, Method.PUT, body)

    def granted(self, term: int = 3) -> None:
        """Shard 1's leader answers what it was asked."""
        for message in self.coordinator.take_messages():
            if message.method == Method.PREPARE:
                asked = Prepare.decode(message.body)
                self.coordinator.granted(asked.attempt, 1, Grant(term, [[] for _ in asked.touches], []))

    @property
    def state(self) -> tuple[int, int, int, bool]:
        leader = self.tail.leader
        return self.tail.fold.revision, self.tail.fold.cut(1).index, leader.view.revision, leader.dirty


@pytest.fixture
def store() -> Store:
    return Store()


def test_who_has_reported_before_this_term_is_known_to_lead(store: Store) -> None:
    assert store.coordinator.free_for(Method.PUT, pb.PutRequest(key=KEYS[1]).SerializeToString(), 1)


def test_a_cut_moves_the_fold_and_the_overlay_by_what_its_shards_have_grown(store: Store) -> None:
    store.reports.take(Report(1, 24, 3, 5, 9), 2)
    assert store.sequencer.run(0, due=True) == {1: 3}
    assert store.state == (10, 24, 10, True)
    assert store.sequencer.run(0, due=True) == {}
    assert store.state == (10, 24, 10, True)


def test_cuts_gather_as_writes_do_unless_a_lock_waits_for_them(store: Store) -> None:
    store.reports.take(Report(1, 24, 3, 5, 9), 2)
    assert store.sequencer.run(0, due=False) == {}
    assert store.state == (7, 20, 7, False)
    store.put("a")
    assert store.sequencer.run(0, due=False) == {1: 3}


def test_a_multi_moves_them_by_one_and_its_answer_leaves_with_the_entry(store: Store) -> None:
    store.put("a")
    store.sequencer.run(0, due=False)
    store.granted()
    assert store.entry.staged == []
    store.sequencer.run(0, due=False)
    assert store.state == (8, 20, 8, True)
    ((token, status, body),) = store.entry.staged
    assert (token, status, HEAD.unpack(body[: HEAD.size])) == ("a", Status.OK, (8, TERM))
    assert store.entry.size > 0


def test_the_cut_of_a_run_stands_before_its_multis(store: Store) -> None:
    """So the revision of a multi counts what the cut gives its place."""
    store.put("a")
    store.sequencer.run(0, due=False)
    store.granted()
    store.reports.take(Report(1, 24, 3, 5, 9), 2)
    store.sequencer.run(0, due=False)
    assert store.state == (11, 24, 11, True)
    assert HEAD.unpack(store.entry.staged[0][2][: HEAD.size]) == (11, TERM)


def test_i10_a_cut_of_a_later_term_is_known_to_the_multis_of_its_run(store: Store) -> None:
    store.put("a")
    store.sequencer.run(0, due=False)
    store.granted(term=3)
    store.reports.take(Report(1, 21, 4, 2, 9), 2)
    store.sequencer.run(0, due=False)
    assert store.entry.staged == []
    assert store.coordinator.statistics()["restarted"] == 1


def test_a_refusal_leaves_with_the_entry_and_logs_nothing(store: Store) -> None:
    store.put("a", lease=99)
    store.tail.leader.view.set_lease(99, False)  # revoked, and not applied yet
    store.sequencer.run(0, due=False)
    store.granted()
    store.sequencer.run(0, due=False)
    assert store.entry.staged == [("a", Status.ERROR, errors.EtcdError(errors.LEASE_NOT_FOUND).encode())]
    assert store.state == (7, 20, 7, False)
    assert store.entry.size == 0


def test_what_the_fold_refuses_moves_nothing(store: Store) -> None:
    with pytest.raises(AssertionError, match="I4"):
        store.tail.append(encode_cut({1: Cut(19, 3, 2)}), [], [])
    assert store.state == (7, 20, 7, False)
