"""A refused transaction over several shards: nothing of it is logged, and no lease counts as revoked."""

from __future__ import annotations

from itertools import count

import pytest

from cluster import errors
from cluster.effects import records
from cluster.errors import EtcdError
from cluster.evaluate.replica import Leader
from cluster.evaluate.txns.transactions import DueAnswer
from cluster.features.auth.principal import Kind, Principal
from cluster.features.auth.state import AuthState, Meta, User, meta_row, user_row
from cluster.features.lessor import Lessor
from cluster.order.log import Cut, Fold
from cluster.order.prepare import Grant, Prepare, decode_attempt
from cluster.order.sequencing.coordinator import Coordinator
from cluster.order.sequencing.fetching import Fetching
from cluster.order.sequencing.reports import Reports
from cluster.order.sequencing.sequencer import Sequencer, Tail
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from cluster.wire.messages import Method, Status
from tests.unit.order.stores import EmptyStore

LEASE, TERM = 77, 3
ALICE = Principal(Kind.SIMPLE, "alice", 5)  # has no role


class Granted(EmptyStore):
    """One lease is there, and stays: nothing is applied."""

    def lease(self, lease: int) -> tuple[int, int] | None:
        return (3600, 0) if lease == LEASE else None


class Entry:
    """The open entry, as far as it is answered with."""

    def __init__(self) -> None:
        self.said: list[tuple[str, int, bytes]] = []

    def weigh(self, size: int) -> None:
        """It has room."""

    def stage(self, token: str, status: int, body: bytes) -> None:
        self.said.append((token, status, body))

    def stage_late(self, token: str, due: DueAnswer) -> None:
        raise AssertionError("a refusal is never late")


class Two:
    """The sequencer of two shards; of the other one the test answers."""

    def __init__(self) -> None:
        auth = AuthState()
        auth.take([user_row(User("alice", b"", True, (), 1)), meta_row(Meta(True, 5))])
        self.leader = Leader(
            Granted(), 5, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=count(1).__next__, auth=auth)
        self.coordinator: Coordinator[str] = Coordinator(
            5, Placement(2, 1), self.leader.view, Fold(7, {1: Cut(1, TERM, 0)}), max_txn_ops=128,
            heartbeat_ms=100, users=auth)
        self.entry = Entry()
        self.sequencer = Sequencer(
            Tail(self.leader, self.coordinator.fold), self.coordinator, Placement(2, 1), Reports(),
            self.entry, Fetching(100), lambda *asked: None)
        self.coordinator.leader_of(1, TERM)

    def revoke(self, who: Principal | None, keys: list[bytes]) -> None:
        """One LeaseRevoke, to its answer; ``keys`` hang on the lease in the other shard."""
        body = pb.LeaseRevokeRequest(ID=LEASE).SerializeToString()
        assert self.coordinator.submit("asked", Method.LEASE_REVOKE, body, **({"who": who} if who else {}))
        self.sequencer.run(0, due=True)
        (prepare,) = [Prepare.decode(m.body) for m in self.coordinator.take_messages()]
        self.coordinator.granted(prepare.attempt, 1, Grant(TERM, [], [keys]))
        self.sequencer.run(0, due=True)

    def grant(self) -> None:
        """EtcdError."""
        self.leader.execute(
            Method.LEASE_GRANT, pb.LeaseGrantRequest(ID=LEASE, TTL=2).SerializeToString())


def test_a_refused_revoke_logs_nothing_lets_go_and_leaves_the_lease() -> None:
    two = Two()
    two.revoke(ALICE, [b"secret"])
    assert two.entry.said == [("asked", Status.ERROR, EtcdError(errors.PERMISSION_DENIED).encode())]
    assert not two.leader.dirty
    (release,) = two.coordinator.take_messages()
    assert (release.shard, release.method) == (1, Method.RELEASE)
    assert two.coordinator.fate(decode_attempt(release.body)) == 0  # H5: never appended
    assert not two.coordinator.busy
    assert two.leader.view.lease_exists(LEASE)
    two.leader.execute(
        Method.PUT, pb.PutRequest(key=b"k", value=b"v", lease=LEASE).SerializeToString())
    with pytest.raises(EtcdError) as refusal:
        two.grant()
    assert refusal.value.kind is errors.LEASE_EXIST


def test_i15_a_lease_that_is_there_is_granted_anew_only_behind_a_revoke_that_is_logged() -> None:
    two = Two()
    two.leader.set_lease(LEASE, False)  # as no request does
    with pytest.raises(EtcdError) as refusal:
        two.grant()
    assert refusal.value.kind is errors.LEASE_EXIST
    two = Two()
    two.coordinator._users.take([meta_row(Meta(False, 6))])
    two.revoke(None, [])
    two.grant()
    logged, _ = two.leader.seal()
    kinds = [kind for kind, _, _ in records.items(logged)]
    assert kinds == [records.Item.MULTI, records.Item.LEASE_REVOKE, records.Item.LEASE_GRANT]
    with pytest.raises(EtcdError):
        two.grant()


def test_an_expiry_that_is_logged_lets_its_lease_be_granted_anew() -> None:
    two = Two()
    two.leader.expire(LEASE)
    two.leader.seal()
    two.grant()
