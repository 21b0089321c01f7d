"""Leases that end: in turns of the loop that are short, however many keys hang on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.effects import records
from cluster.evaluate.replica import Ending, Leader
from cluster.features.lessor import EXPIRY_RETRY_MS, Lessor
from cluster.grain import GRAIN
from cluster.pb import rpc_pb2
from cluster.raft import Role
from cluster.wire.messages import Method
from node.storage import StateStore
from node.upkeep.expiry import Expiry
from tests.unit.proxy.fakes import ManualLoop


class Lists(set[int]):
    """The leases whose keys are listed."""

    full = False
    drop = set.discard

    def read(self, lease: int, step: int) -> Iterator[None]:
        self.add(lease)
        yield


class Node:
    """A leader with leases, of which each that is even has very many keys."""

    def __init__(self) -> None:
        self.looks = 0
        self.most = 0  # looks in one turn
        self.work: list[Iterator[None]] = []
        self.ended: list[int] = []
        self.loop: Any = ManualLoop()
        self.lists = Lists()
        self.raft: Any = SimpleNamespace(role=Role.LEADER)
        store = SimpleNamespace(hangs_many=self._hangs_many, lease_lists=self.lists)
        node: Any = SimpleNamespace(
            loop=self.loop, store=store, slicer=SimpleNamespace(start=lambda work: self.work.append(work)),
            wake=lambda: None, raft=self.raft, lessor=SimpleNamespace(is_expired=lambda lease: True),
            writes=SimpleNamespace(leader=self.next_term(), full=False, weigh=lambda size: None),
        )
        self.expiry = Expiry(node)

    def next_term(self) -> Any:
        return SimpleNamespace(expire=self._expire, view=SimpleNamespace(changes_lease=lambda lease: False))

    def _hangs_many(self, lease: int, many: int) -> bool:
        self.looks += lease % 2 == 0
        return lease % 2 == 0

    def _expire(self, lease: int) -> Ending:
        self.ended.append(lease)
        return Ending(1, 30, part=False)

    def settle(self, begin: Callable[[], None]) -> None:
        """To the end, with a look at each turn."""
        begin()
        for _ in range(1000):
            self.most, self.looks = max(self.most, self.looks), 0
            work, self.work = self.work, []
            if not work and not self.loop._soon:
                return
            self.loop.turn()
            for one in work:
                for _ in one:
                    pass
        raise AssertionError("it does not end")


@pytest.mark.parametrize("shards", [1, 2])
def test_a_turn_looks_at_few_large_leases(shards: int) -> None:
    """A look at one costs 0.2 to 0.5 ms, and five hundred may be due at once."""
    node = Node()
    due = list(range(1, 501))
    if shards == 1:
        node.settle(lambda: node.expiry.add(due))
    else:
        node.settle(lambda: node.expiry.as_read(due, node.ended.extend))
    assert sorted(node.ended) == due
    assert node.most <= 20


def test_a_lease_granted_again_in_the_run_that_revokes_it_is_there(tmp_path: Path) -> None:
    store = StateStore.open(tmp_path)
    applied = store.apply([
        (1, 1, records.lease_grant(9, 60)), (2, 1, records.lease_revoke(9, []) + records.lease_grant(7, 60)),
        (3, 1, records.lease_grant(9, 30)), (4, 1, records.lease_revoke(7, []))])
    lessor = Lessor(1000)
    node: Any = SimpleNamespace(lessor=lessor, now_ms=lambda: 0, store=store)
    Expiry(node).changed(applied)
    assert list(lessor) == [(9, 30, 0)] == list(store.leases())
    assert applied.revoked == [9, 7]
    store.close()


def test_h7_what_one_term_found_due_does_not_end_in_another() -> None:
    """The keys of a lease are read meanwhile; a keep-alive of the next term may have been acknowledged."""
    node = Node()
    node.expiry.add([2])
    work, node.work = node.work, []
    node.expiry._node.writes.leader = node.next_term()
    node.settle(lambda: [None for one in work for _ in one])  # type: ignore[arg-type, return-value]
    assert node.ended == []
    node.settle(lambda: node.expiry.add([4]))
    assert node.ended == [4]


def test_a_lease_that_is_named_again_while_its_keys_are_listed_is_listed_once() -> None:
    """It is named every three seconds, and to list a million keys takes a minute beside writes."""
    node = Node()
    for _ in range(3):
        node.expiry.add([2])
        node.expiry.as_read([2], node.ended.extend)
    assert len(node.work) == 1
    node.settle(lambda: None)
    assert node.ended == [2]


def test_the_keys_of_few_leases_are_listed_at_once() -> None:
    """Their lists are memory: five hundred leases may be due together."""
    node = Node()
    node.expiry.add(range(2, 101, 2))
    while node.loop._soon:
        node.loop.turn()
    assert len(node.work) == 8
    node.settle(lambda: None)
    assert sorted(node.ended) == list(range(2, 101, 2))
    assert not node.lists  # let go


@pytest.mark.parametrize("leases", [[102, 104], [98, 100]])
def test_what_a_client_waits_for_waits_for_no_lease_that_is_due(leases: list[int]) -> None:
    """A revoke of 300 keys waited for eight leases of 150,000, and for all that were found due before."""
    node = Node()
    node.expiry.add(range(2, 101, 2))
    while node.loop._soon:
        node.loop.turn()
    heard: list[str] = []
    node.expiry.when_read(leases, lambda: heard.append("read"))
    for count in (9, 10):
        assert len(node.work) == count
        for _ in node.work[-1]:
            pass
    assert heard == ["read"]
    assert len(node.work) == 10  # no other began for them
    node.settle(lambda: None)
    assert sorted(node.ended) == list(range(2, 101, 2))


def test_a_replica_that_leads_no_longer_lists_no_keys() -> None:
    """It listed those of hundreds of leases to the end, for nobody."""
    node = Node()
    node.expiry.add(range(2, 101, 2))
    heard: list[str] = []
    node.expiry.when_read([200], lambda: heard.append("read"))
    node.lists.clear()
    node.raft.role = Role.FOLLOWER
    node.expiry._node.writes.leader = None
    steps = 0
    while node.work:
        steps += sum(1 for _ in node.work.pop(0))
    assert steps == 0
    assert heard == ["read"]  # what asked for them is told
    assert node.ended == []


def test_no_more_leases_are_listed_for_the_sequencer_while_the_lists_are_full() -> None:
    node = Node()
    node.lists.full = True
    node.expiry.as_read([1, 2, 3], node.ended.extend)
    assert not node.work
    assert node.ended == [1, 3]
    node.lists.full = False
    node.settle(lambda: node.expiry.as_read([2], node.ended.extend))  # the lessor names it again
    node.lists.full = True
    node.settle(lambda: node.expiry.as_read([2], node.ended.extend))  # its list stays as long as that
    assert node.ended == [1, 3, 2, 2]


class Sequencing:
    """A sequencer in memory, whose loop, slices and applies are done when told. Lease 9 is due."""

    def __init__(self, store: StateStore, keys: int) -> None:
        self.store, self.index = store, 0
        self.loop: Any = ManualLoop()
        self.lessor = Lessor(1000)
        self.leader = Leader(store, 1, max_txn_ops=128, lessor=self.lessor, new_lease_id=lambda: 1)
        self.read: list[Iterator[Any]] = []
        self.now_ms = 0
        node: Any = SimpleNamespace(
            loop=self.loop, store=store, slicer=SimpleNamespace(start=self.read.append), wake=lambda: None,
            raft=SimpleNamespace(role=Role.LEADER),
            lessor=self.lessor, now_ms=lambda: self.now_ms,
            writes=SimpleNamespace(leader=self.leader, full=False, weigh=lambda size: None))
        self.expiry = Expiry(node)
        self.lessor.promote(0)
        self.grant(keys)
        self.now_ms = 2_000

    def grant(self, keys: int) -> None:
        self.leader.execute(Method.LEASE_GRANT, rpc_pb2.LeaseGrantRequest(ID=9, TTL=2).SerializeToString())
        for key in range(keys):
            put = rpc_pb2.PutRequest(key=b"%d" % key, lease=9)
            self.leader.execute(Method.PUT, put.SerializeToString())
        self.apply()

    def revoke(self) -> None:
        self.leader.execute(Method.LEASE_REVOKE, rpc_pb2.LeaseRevokeRequest(ID=9).SerializeToString())

    def apply(self) -> None:
        data, batch = self.leader.seal()
        self.index += 1
        self.expiry.changed(self.store.apply([(self.index, 1, data)]))
        self.leader.applied(batch)

    def go_on(self) -> None:
        self.loop.turn()
        read, self.read = self.read, []
        for one in read:
            for _ in one:
                pass
        self.loop.run()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    store = StateStore.open(tmp_path)
    yield store
    store.close()


def test_a_lease_that_was_given_out_twice_ends_once(store: StateStore) -> None:
    """Until its revoke is applied it is due again; the queue may be longer than that."""
    leads = Sequencing(store, 1)
    leads.expiry.look()
    leads.now_ms += EXPIRY_RETRY_MS
    assert leads.lessor.due(leads.now_ms) == [9]
    leads.apply()
    leads.grant(1)
    leads.expiry.add([9])
    assert not leads.leader.dirty
    assert list(leads.lessor) == [(9, 2, 0)]


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("applied", [True, False])
def test_a_lease_that_was_granted_again_while_it_waited_stays(
    store: StateStore, shards: int, applied: bool
) -> None:
    leads, ended = Sequencing(store, GRAIN.lease_keys + 1), []
    if shards == 2:
        leads.expiry.decide = lambda leases: leads.expiry.as_read(leases, ended.extend)
    leads.expiry.look()
    leads.revoke()
    if applied:
        leads.apply()
        leads.grant(1)
    else:
        grant = rpc_pb2.LeaseGrantRequest(ID=9, TTL=2)
        leads.leader.execute(Method.LEASE_GRANT, grant.SerializeToString())
    leads.go_on()
    if leads.leader.dirty:
        leads.apply()
    assert list(leads.lessor) == [(9, 2, 0)]
    assert ended == []


def test_a_lease_that_is_due_still_ends_once_its_keys_are_read(store: StateStore) -> None:
    leads = Sequencing(store, GRAIN.lease_keys + 1)
    leads.expiry.look()
    assert not leads.leader.dirty
    leads.go_on()
    leads.apply()
    assert (list(leads.lessor), list(store.leases())) == ([], [])
