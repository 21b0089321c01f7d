"""A lease over several shards whose keys' names take very much ends in several revisions, each a multi."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from cluster import errors
from cluster.effects import records
from cluster.errors import EtcdError
from cluster.evaluate.replica import Leader
from cluster.evaluate.txns.transactions import DueAnswer
from cluster.features.lessor import Lessor
from cluster.grain import GRAIN
from cluster.order.log import Cut, Fold, decode_multi
from cluster.order.prepare import Grant, Prepare
from cluster.order.sequencing.coordinator import Coordinator
from cluster.order.sequencing.fetching import Fetching
from cluster.order.sequencing.reports import Reports
from cluster.order.sequencing.sequencer import Sequencer, Tail
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from cluster.wire.messages import Method, Status
from node.storage import StateStore
from tests.unit.order.stores import EmptyStore

TERM = 3
PLACEMENT = Placement(2, 1)


def names(lease: int, number: int) -> list[bytes]:
    """Keys of shard 1 that take 100 bytes each in an entry."""
    keys = (b"%03d-%03d" % (lease, n) + b"-" * 88 for n in range(1000))
    return list(islice((key for key in keys if PLACEMENT.shard_of(key) == 1), number))


class Two:
    """The sequencer of two shards. The other one has ``keys``, and applies what is logged."""

    def __init__(self, keys: dict[int, list[bytes]]) -> None:
        self.keys = keys
        self.said: list[tuple[str, int, bytes]] = []
        self.alive = True
        self.revisions: list[int] = []  # keys that went with each
        self.entries: list[list[int]] = []  # kinds of items
        self.begin(
            Leader(EmptyStore(leases=True), 5, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 1),
            PLACEMENT,
        )

    def begin(self, leader: Leader, placement: Placement) -> None:
        self.leader = leader
        self.coordinator: Coordinator[str] = Coordinator(
            5,
            placement,
            leader.view,
            Fold(7, {1: Cut(1, TERM, 0)}),
            max_txn_ops=128,
            heartbeat_ms=100,
            gone=lambda token: not self.alive,
        )
        self.sequencer = Sequencer(
            Tail(leader, self.coordinator.fold),
            self.coordinator,
            placement,
            Reports(),
            self,
            Fetching(100, 1000),
            lambda *asked: None,
        )
        self.coordinator.leader_of(1, TERM)

    def weigh(self, size: int) -> None:
        """The open entry has room."""

    def stage(self, token: str, status: int, body: bytes) -> None:
        self.said.append((token, status, body))

    def stage_late(self, token: str, due: DueAnswer) -> None:
        raise AssertionError("an end of a lease is never late")

    def turn(self, now_ms: int = 0) -> None:
        self.sequencer.run(now_ms, due=True)
        data, _ = self.leader.seal()
        if kinds := [kind for kind, _, _ in records.items(data)]:
            self.entries.append(kinds)
        self._apply(data)
        for message in self.coordinator.take_messages():
            if message.method == Method.PREPARE:
                prepare = Prepare.decode(message.body)
                keys = [list(self.keys.get(lease, ())) for lease in prepare.leases]
                self.coordinator.granted(prepare.attempt, 1, Grant(TERM, [], keys))

    def _apply(self, data: bytes) -> None:
        for kind, pos, end in records.items(data):
            if kind == records.Item.MULTI:
                multi = decode_multi(data, pos, end)
                gone: list[list[bytes]] = [[] for _ in range(multi.groups)]
                for part in multi.parts:
                    gone[part.group] += [part.items[at:to] for _, at, to in records.items(part.items)]
                self.revisions += map(len, gone)
                lost = {key for keys in gone for key in keys}
                for keys in self.keys.values():
                    keys[:] = [key for key in keys if key not in lost]
            elif kind == records.Item.LEASE_REVOKE:
                (lease,) = records.LEASE_ID.unpack_from(data, pos)
                assert not self.keys.pop(lease), "I15"

    def settle(self) -> None:
        for _ in range(50):
            if not self.coordinator.busy:
                return
            self.turn()
        raise AssertionError("it does not end")


@pytest.fixture(autouse=True)
def few_bytes() -> Iterator[None]:
    with GRAIN.finer(lease_end_bytes=1000):
        yield


def test_a_due_lease_of_long_names_ends_in_several_multis() -> None:
    """All names went into one: with hundreds of MB the sequencer fell with each attempt to end it."""
    two = Two({9: names(9, 35)})
    assert two.coordinator.submit(None, Method.LEASE_REVOKE, b"", [9])
    two.settle()
    assert two.revisions == [10, 10, 10, 5]
    assert two.entries == [[records.Item.MULTI]] * 3 + [[records.Item.MULTI, records.Item.LEASE_REVOKE]]
    assert two.leader.view.revision == 7 + 4


def test_leases_that_fit_have_a_revision_each_also_behind_others() -> None:
    two = Two(
        {lease: names(lease, keys) for lease, keys in ((1, 6), (2, 4), (3, 3), (4, 25), (5, 10), (6, 1))}
    )
    assert two.coordinator.submit(None, Method.LEASE_REVOKE, b"", [1, 2, 3, 4, 5, 6])
    two.settle()
    assert two.revisions == [6, 4, 3, 10, 10, 5, 10, 1]
    assert not two.keys


def test_a_name_that_takes_more_than_all_goes_alone() -> None:
    two = Two({9: [key + b"-" * 1000 for key in names(9, 3)]})
    assert two.coordinator.submit(None, Method.LEASE_REVOKE, b"", [9])
    two.settle()
    assert sum(two.revisions) == len(two.revisions) == 3


def test_a_client_that_revokes_such_a_lease_is_answered_when_all_has_gone() -> None:
    two = Two({9: names(9, 25)})
    body = pb.LeaseRevokeRequest(ID=9).SerializeToString()
    assert two.coordinator.submit("asked", Method.LEASE_REVOKE, body, deadline_ms=50)
    assert two.coordinator.submit("later", Method.LEASE_REVOKE, body)
    while two.keys:
        assert not two.said
        two.turn(100 if two.revisions else 0)  # what has begun ends, also behind its deadline
    two.settle()
    assert two.revisions == [10, 10, 5]
    assert [(token, status) for token, status, _ in two.said] == [
        ("asked", Status.OK),
        ("later", Status.ERROR),
    ]
    assert two.said[1][2] == EtcdError(errors.LEASE_NOT_FOUND).encode()


def test_the_rest_of_a_due_lease_goes_before_what_waits_for_it(tmp_path: Path) -> None:
    """I15: where shard 0 is alone, a client's revoke overtook it. Then its ID was granted again, and the
    rest ended that lease."""
    store = StateStore.open(tmp_path)
    names_of_9 = [b"%02d" % number + b"-" * 93 for number in range(15)]
    store.apply([(1, 1, records.lease_grant(9, 60) + b"".join(
        records.put(name, 0, 1, b"", 9) for name in names_of_9))])
    two = Two({9: []})
    leader = Leader(store, 5, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 1)
    two.begin(leader, Placement(1, 1))
    assert two.coordinator.submit(None, Method.LEASE_REVOKE, b"", [9])
    body = pb.LeaseRevokeRequest(ID=9).SerializeToString()
    assert two.coordinator.submit("later", Method.LEASE_REVOKE, body)
    two.turn()
    assert two.coordinator.busy
    with pytest.raises(EtcdError):  # a part of its keys is left
        leader.execute(Method.LEASE_GRANT, pb.LeaseGrantRequest(ID=9).SerializeToString())
    two.settle()
    assert two.revisions == [10, 5]
    assert [EtcdError.decode(error).kind for _, _, error in two.said] == [errors.LEASE_NOT_FOUND]
    store.close()


def test_a_lost_term_gives_back_a_revoke_that_has_begun() -> None:
    """Its front asks the next sequencer, which ends what is left."""
    two = Two({9: names(9, 25)})
    body = pb.LeaseRevokeRequest(ID=9).SerializeToString()
    assert two.coordinator.submit("asked", Method.LEASE_REVOKE, body)
    while not two.revisions:
        two.turn()
    assert two.coordinator.resign() == ["asked"]
    assert not two.said


def test_a_revoke_that_is_refused_behind_its_first_part_is_not_said_to_have_done_nothing() -> None:
    """Keys were gone, and the error was one of those that say that the write did not happen."""
    two = Two({9: names(9, 25)})
    body = pb.LeaseRevokeRequest(ID=9).SerializeToString()
    for token in ("begun", "later"):
        assert two.coordinator.submit(token, Method.LEASE_REVOKE, body)
    while not two.revisions:
        two.turn()
    two.coordinator.evaluator.refusal = lambda method, body: errors.CORRUPT
    two.settle()
    assert two.revisions == [10]
    assert [(token, EtcdError.decode(error).kind) for token, _, error in two.said] == [
        ("begun", errors.TIMEOUT), ("later", errors.CORRUPT)]


def test_a_lease_that_goes_on_is_not_begun_twice() -> None:
    """The lessor names it again and again."""
    two = Two({9: names(9, 35)})
    while two.keys:
        assert two.coordinator.submit(None, Method.LEASE_REVOKE, b"", [9])
        two.turn()
        assert two.coordinator.statistics()["queued"] + two.coordinator.statistics()["running"] <= 1
    assert two.revisions == [10, 10, 10, 5]
