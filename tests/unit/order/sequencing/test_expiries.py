"""Leases that end together: so many in one turn as it has time for, in time that grows with their keys and no
faster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from cluster.effects import records
from cluster.evaluate.overlay import Overlay
from cluster.evaluate.replica import Batch, Leader
from cluster.evaluate.view import Outcome, Version
from cluster.features.auth.permissions import NOTHING
from cluster.features.lessor import Lessor
from cluster.order.log import Cut, Fold
from cluster.order.prepare import Grant, Prepare
from cluster.order.sequencing import expiries
from cluster.order.sequencing.coordinator import Coordinator, Wide
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from cluster.raft import Role
from cluster.wire.messages import Method
from node.storage import StateStore
from node.upkeep.expiry import KEYS, Expiry
from tests.tries import best_of_three, within
from tests.unit.order.stores import EmptyStore

TERM = 3


class Shards:
    """A sequencer and one other shard, which holds so many keys of every lease."""

    def __init__(self, keys_each: int) -> None:
        self.keys_each = keys_each
        self.coordinator: Coordinator[str] = Coordinator(
            5, Placement(2, 1), Overlay(EmptyStore(leases=True)), Fold(7, {1: Cut(1, TERM, 0)}),
            max_txn_ops=128, heartbeat_ms=100,
        )
        self.coordinator.leader_of(1, TERM)
        self.attempts: list[list[int]] = []
        self.ended: list[tuple[list[int], int]] = []  # leases, keys

    def turn(self) -> None:
        """The sequencer's turn; what it asks for is granted before its next one."""
        self.coordinator.run(0, self._append)
        for message in self.coordinator.take_messages():
            if message.method != Method.PREPARE:
                continue
            prepare = Prepare.decode(message.body)
            self.attempts.append(prepare.leases)
            self.coordinator.granted(prepare.attempt, 1, Grant(TERM, [], [
                [b"%d-%d" % (lease, i) for i in range(self.keys_each)] for lease in prepare.leases]))

    def _append(self, item: bytes, outcome: Outcome, wide: Wide[str]) -> None:
        self.ended.append((list(wide.leases), len(outcome.writes)))
        for lease in wide.leases:
            self.coordinator._view.set_lease(lease, False)


@best_of_three
def test_the_end_of_a_lease_of_many_keys_takes_time_in_proportion() -> None:
    """It looked for each key among all before it: 10,000 keys took 1.7 s, past the election timeout."""
    shards = Shards(10_000)
    shards.coordinator.submit(None, Method.LEASE_REVOKE, b"", [1, 2])
    began = time.process_time()
    shards.turn()
    shards.turn()
    took_s = time.process_time() - began
    assert sum(keys for _, keys in shards.ended) == 20_000
    within(took_s, 0.5)


@pytest.mark.parametrize("keys_each", [0, 1, 20, 400, 3000])
def test_so_many_leases_end_together_as_a_turn_has_time_for(keys_each: int) -> None:
    """All of them end, each once."""
    shards = Shards(keys_each)
    leases = list(range(1, 501))
    shards.coordinator.submit(None, Method.LEASE_REVOKE, b"", leases)
    while shards.coordinator.busy:
        there = [lease for lease in leases if shards.coordinator._view.lease_exists(lease)]
        if there:  # as the lessor does until they are gone
            shards.coordinator.submit(None, Method.LEASE_REVOKE, b"", there)
        before = len(shards.ended)
        shards.turn()
        if before > 5:  # by then it knows what to expect
            assert sum(keys for _, keys in shards.ended[before:]) <= max(2 * expiries.KEYS, keys_each)
    ended = [lease for some, _ in shards.ended for lease in some]
    assert sorted(ended) == leases
    assert len(shards.attempts) == len(shards.ended)


def test_what_a_client_revokes_does_not_wait_for_leases_that_are_due() -> None:
    shards = Shards(2000)
    shards.coordinator.submit(None, Method.LEASE_REVOKE, b"", list(range(1, 101)))
    shards.turn()
    assert shards.coordinator.submit(
        "client", Method.LEASE_REVOKE, pb.LeaseRevokeRequest(ID=1000).SerializeToString()
    )
    shards.turn()
    shards.turn()
    assert [1000] in [leases for leases, _ in shards.ended]
    assert len(shards.ended) < 100


def test_a_given_up_expiry_makes_room_for_the_next() -> None:
    """Its shard has lost its leader."""
    shards = Shards(1)
    shards.coordinator.submit(None, Method.LEASE_REVOKE, b"", list(range(1, 40)))
    shards.coordinator.run(0, shards._append)
    assert shards.coordinator.take_messages()
    shards.coordinator.run(100_000, shards._append)
    shards.coordinator.take_messages()
    shards.coordinator.leader_of(1, TERM)
    while shards.coordinator.busy:
        shards.turn()
    assert sorted(lease for leases, _ in shards.ended for lease in leases) == list(range(1, 40))


def test_no_more_leases_are_to_be_found_due_while_expiries_wait() -> None:
    shards = Shards(1)
    coordinator = shards.coordinator
    coordinator._has_leader.clear()
    found = 0
    while not coordinator.ends_enough:
        found += 1
        coordinator.submit(None, Method.LEASE_REVOKE, b"", [found])
        coordinator.run(0, shards._append)
        assert found < 100
    assert found > 1
    assert coordinator.submit("a client's does not count", Method.TXN, b"")
    coordinator.leader_of(1, TERM)
    shards.turn()
    assert not coordinator.ends_enough
    while coordinator.busy:
        shards.turn()
    assert [lease for leases, _ in shards.ended for lease in leases if leases] == list(range(1, found + 1))


# -- one shard


@best_of_three
def test_the_keys_of_a_lease_are_found_without_looking_at_everything_that_is_pending() -> None:
    """500 leases beside 10,000 pending writes: each looked at all of them."""
    view = Overlay(EmptyStore(leases=True))
    for number in range(20_000):
        lease = number % 500 + 1
        view.take(Outcome(b"", True, b"", [(b"k%05d" % number, Version(8, 8, 1, lease, b""))], 8))
    began = time.process_time()
    found = [view.lease_keys(lease) for lease in range(1, 501)]
    took_s = time.process_time() - began
    assert found[6] == [b"k%05d" % number for number in range(6, 20_000, 500)]
    within(took_s, 0.25)


def test_pending_keys_of_a_lease_come_and_go(store: StateStore) -> None:
    """Whatever happens to a key, its last pending write says which lease it hangs on."""
    leader = Leader(store, 1, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 9)
    index = 0
    for lease in (1, 2):
        leader.execute(Method.LEASE_GRANT, pb.LeaseGrantRequest(ID=lease, TTL=100).SerializeToString())

    def put(key: bytes, lease: int) -> None:
        leader.execute(Method.PUT, pb.PutRequest(key=key, value=b"v", lease=lease).SerializeToString())

    def apply(data: bytes, batch: Batch) -> None:
        nonlocal index
        index += 1
        store.apply([(index, 1, data)], want_events=False)
        leader.applied(batch)

    put(b"a", 1)
    put(b"b", 1)
    put(b"c", 2)
    apply(*leader.seal())
    put(b"a", 2)
    put(b"d", 1)
    put(b"e", 1)
    assert leader.put(pb.PutRequest(key=b"e", value=b"plain").SerializeToString())
    assert (leader.view.lease_keys(1), leader.view.lease_keys(2)) == ([b"b", b"d"], [b"a", b"c"])
    first = leader.seal()
    put(b"d", 2)
    leader.execute(Method.DELETE_RANGE, pb.DeleteRangeRequest(key=b"c").SerializeToString())
    assert (leader.view.lease_keys(1), leader.view.lease_keys(2)) == ([b"b"], [b"a", b"d"])
    apply(*first)
    assert (leader.view.lease_keys(1), leader.view.lease_keys(2)) == ([b"b"], [b"a", b"d"])
    apply(*leader.seal())
    assert (leader.view.lease_keys(1), leader.view.lease_keys(2)) == ([b"b"], [b"a", b"d"])
    assert not leader.view._hung
    assert not leader.view._attached


class Turns:
    """An event loop whose turns are taken by hand, and as much of a node as ends leases."""

    def __init__(self, leader: Leader, store: Any) -> None:
        self.due: list[Callable[[], None]] = []
        self.work: list[Iterator[None]] = []
        self.writes = SimpleNamespace(leader=leader, full=False, weigh=lambda size: None)
        node: Any = SimpleNamespace(
            loop=SimpleNamespace(call_soon=self.due.append), slicer=SimpleNamespace(start=self.work.append),
            wake=lambda: None, writes=self.writes, store=store,
            lessor=SimpleNamespace(is_expired=lambda lease: True), raft=SimpleNamespace(role=Role.LEADER),
        )
        self.expiry = Expiry(node)

    def run(self) -> None:
        due, self.due[:] = list(self.due), []
        for call in due:
            call()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    store = StateStore.open(f"{tmp_path}/state")
    yield store
    store.close()


def test_leases_that_are_due_end_a_few_in_each_turn(store: StateStore) -> None:
    """500 leases of 20 keys ended in one turn of 0.37 s."""
    for lease in range(1, 301):
        store.apply([(lease, 1, records.lease_grant(lease, 60) + b"".join(
            records.put(b"%d/%d" % (lease, i), 0, 1, b"v", lease) for i in range(20)))], want_events=False)
    leader = Leader(store, 1, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 9)
    turns = Turns(leader, store)
    expiry = turns.expiry
    largest = total = 0

    def turn() -> None:
        nonlocal largest, total
        _, batch = leader.seal()
        leader._sealed.remove(batch)
        largest, total = max(largest, len(batch.keys)), total + len(batch.keys)

    expiry.add(range(1, 301))
    expiry.add(range(1, 301))  # named again: they end once
    turn()
    while turns.due:
        turns.run()
        turn()
    assert total == 6000
    assert largest <= KEYS + 20


def test_h7_leases_that_one_term_found_due_are_not_ended_by_the_next() -> None:
    leaders = [
        Leader(EmptyStore(leases=True), term, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 9)
        for term in (1, 2)
    ]
    turns = Turns(leaders[0], MagicMock(hangs_many=lambda lease, many: False))
    expiry = turns.expiry
    expiry.add(range(1, 1001))
    turns.writes.leader = leaders[1]
    while turns.due:
        turns.run()
    assert not leaders[1].dirty
    expiry.add([7])
    assert leaders[1].dirty


def lease_of(store: StateStore, keys: int) -> Leader:
    """Lease 7 with so many keys, in a store that was opened just now: nothing is in memory."""
    data = [records.lease_grant(7, 60)]
    data += [b"".join(records.put(b"k%06d" % n, 0, 1, b"v", 7) for n in range(first, min(first + 500, keys)))
             for first in range(0, keys, 500)]
    for index, record in enumerate(data, 1):
        store.apply([(index, 1, record)], want_events=False)
    store.forget_versions()
    return Leader(store, 1, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 9)


def test_the_keys_of_a_large_lease_are_read_in_slices_before_it_ends(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20,000 keys took 0.45 s in one turn, most of it to read them one by one."""
    leader = lease_of(store, 3000)
    reads = [0]
    live = StateStore._live

    def counted(self: StateStore, key: bytes, revision: int) -> bytes | None:
        reads[0] += 1
        return live(self, key, revision)

    monkeypatch.setattr(StateStore, "_live", counted)
    turns = Turns(leader, store)
    turns.expiry.add([7])
    assert not leader.dirty
    (work,) = turns.work
    before = 0
    for _ in work:
        assert reads[0] - before <= 32
        assert not leader.dirty
        before = reads[0]
    assert leader.dirty
    assert reads[0] == 3000  # none in the turn that ends it
    _, batch = leader.seal()
    assert len(batch.keys) == 3000


def test_h7_a_lease_whose_keys_were_read_in_a_term_that_is_lost_does_not_end(store: StateStore) -> None:
    leader = lease_of(store, 600)
    turns = Turns(leader, store)
    turns.expiry.add([7])
    turns.writes.leader = later = Leader(
        store, 2, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 9
    )
    for _ in turns.work[0]:
        pass
    assert not leader.dirty
    assert not later.dirty


def test_a_large_lease_does_not_hold_up_others_that_are_due_with_it(store: StateStore) -> None:
    """In a store of several shards they ended together, after all its keys had been read."""
    leader = lease_of(store, 3000)
    turns = Turns(leader, store)
    ended: list[list[int]] = []
    turns.expiry.as_read([5, 7, 6], ended.append)
    assert ended == [[5, 6]]
    for work in turns.work:
        for _ in work:
            assert ended == [[5, 6]]
    assert ended == [[5, 6], [7]]


def test_one_key_of_a_lease_is_found_behind_those_that_pending_writes_have_taken(store: StateStore) -> None:
    leader = Leader(store, 1, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 9)
    leader.execute(Method.LEASE_GRANT, pb.LeaseGrantRequest(ID=1, TTL=100).SerializeToString())
    keys = [b"k%03d" % number for number in range(40)]
    for key in keys:
        leader.execute(Method.PUT, pb.PutRequest(key=key, value=b"v", lease=1).SerializeToString())
    data, batch = leader.seal()
    store.apply([(1, 1, data)], want_events=False)
    leader.applied(batch)
    for count, key in enumerate(keys, 1):
        assert leader.view.lease_keys(1, 1, but=NOTHING)[:1] == [key]
        leader.execute(Method.PUT, pb.PutRequest(key=key, value=b"plain").SerializeToString())
        assert leader.view.lease_keys(1, but=NOTHING) == keys[count:]
    assert leader.view.lease_keys(1, 1, but=NOTHING) == []
