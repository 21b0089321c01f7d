"""What the sequencer refuses: nothing of it is logged, and no lease counts as revoked. Who may put under a
lease is judged by its keys in all shards, under locks, where the put gets its place (P3)."""

from __future__ import annotations

from itertools import count

import pytest

from cluster import errors
from cluster.effects import records
from cluster.errors import EtcdError
from cluster.evaluate.replica import Leader
from cluster.evaluate.txns.draft import LARGE_OPS
from cluster.evaluate.txns.transactions import DueAnswer
from cluster.features.auth.principal import NOBODY, Kind, Principal
from cluster.features.auth.state import (
    AuthState,
    Meta,
    Permission,
    Role,
    User,
    meta_row,
    role_row,
    user_row,
)
from cluster.features.lessor import Lessor
from cluster.order.leading.pending import Elsewhere
from cluster.order.leading.rights import Rights
from cluster.order.log import Cut, Fold
from cluster.order.prepare import Grant, Prepare, Touch, decode_attempt
from cluster.order.sequencing import wide
from cluster.order.sequencing.coordinator import Coordinator
from cluster.order.sequencing.fetching import Fetching
from cluster.order.sequencing.reports import Reports
from cluster.order.sequencing.sequencer import Sequencer, Tail
from cluster.order.sequencing.touches import in_all_shards
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement, Table
from cluster.placement.base import Base
from cluster.placement.changes import take_shard
from cluster.placement.table import State
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
        self.auth = auth = AuthState()
        auth.take([user_row(User("alice", b"", True, (), 1)), meta_row(Meta(True, 5))])
        self.leader = Leader(
            Granted(), 5, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=count(1).__next__, auth=auth)
        self.coordinator: Coordinator[str] = Coordinator(
            5, Placement(2, 1), self.leader.view, Fold(7, {1: Cut(1, TERM, 0)}), max_txn_ops=128,
            heartbeat_ms=100, users=auth)
        self.entry = Entry()
        self.sequencer = Sequencer(
            Tail(self.leader, self.coordinator.fold), self.coordinator, Placement(2, 1), Reports(),
            self.entry, Fetching(100, 1000), lambda *asked: None)
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


# -- what locks nothing, or is judged again


def delete_all() -> tuple[int, bytes]:
    return Method.DELETE_RANGE, pb.DeleteRangeRequest(key=b"\0", range_end=b"\0").SerializeToString()


def very_many() -> tuple[int, bytes]:
    """A transaction that is evaluated in parts: only its client is judged ahead."""
    ops = [pb.RequestOp(request_put=pb.PutRequest(key=b"%06d" % n)) for n in range(LARGE_OPS + 1)]
    return Method.TXN, pb.TxnRequest(success=ops).SerializeToString()


def monkeypatch_judge(monkeypatch: pytest.MonkeyPatch) -> list[bytes | None]:
    """The requests that are judged ahead from now on; None: only who asks."""
    judged: list[bytes | None] = []
    judge_ahead = wide.judge_ahead

    def noted(state: AuthState, who: Principal, method: int, body: bytes | None) -> None:
        judged.append(body)
        judge_ahead(state, who, method, body)

    monkeypatch.setattr(wide, "judge_ahead", noted)
    return judged


@pytest.mark.parametrize(("who", "what", "refusal"), [
    (NOBODY, delete_all(), errors.USER_EMPTY),
    (NOBODY, very_many(), errors.USER_EMPTY),
    (NOBODY, (Method.LEASE_REVOKE, pb.LeaseRevokeRequest(ID=LEASE).SerializeToString()), errors.USER_EMPTY),
    (Principal(Kind.INVALID), delete_all(), errors.INVALID_AUTH_TOKEN),
    (Principal(Kind.INVALID), very_many(), errors.INVALID_AUTH_TOKEN),
    (Principal(Kind.SIMPLE, "alice", 4), very_many(), errors.INVALID_AUTH_TOKEN),
    (ALICE, delete_all(), errors.PERMISSION_DENIED),
])
def test_a_client_without_rights_locks_nothing(
    who: Principal, what: tuple[int, bytes], refusal: errors.ErrorKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,000 deletes of all keys without a login stopped all other requests over shards for seconds."""
    two, (method, body) = Two(), what
    two.auth.take([user_row(User("alice", b"", True, (), 5)), meta_row(Meta(True, 5))])
    judged = monkeypatch_judge(monkeypatch)
    assert two.coordinator.submit("asked", method, body, who=who)
    two.sequencer.run(0, due=True)
    assert judged == ([None] if what == very_many() else [body])
    assert not two.coordinator.take_unlooked()  # nor is it looked at any more
    assert two.coordinator.take_messages() == []
    assert two.entry.said == [("asked", Status.ERROR, EtcdError(refusal).encode())]
    assert not two.coordinator.busy


def test_who_loses_its_rights_before_its_locks_are_granted_is_refused() -> None:
    two, (method, body) = Two(), delete_all()
    may_write(two.auth, (b"\0", b"\0"))
    assert two.coordinator.submit("asked", method, body, who=ALICE)
    two.sequencer.run(0, due=True)
    (prepare,) = [Prepare.decode(m.body) for m in two.coordinator.take_messages()]
    may_write(two.auth)
    two.coordinator.granted(prepare.attempt, 1, Grant(TERM, [[] for _ in prepare.touches], []))
    two.sequencer.run(0, due=True)
    assert two.entry.said == [("asked", Status.ERROR, EtcdError(errors.PERMISSION_DENIED).encode())]


def test_i20_what_waited_for_its_locks_is_refused_by_an_alarm_that_was_applied_meanwhile() -> None:
    """An expiry is not: no client asks for it."""
    two, (method, body) = Two(), delete_all()
    may_write(two.auth, (b"\0", b"\0"))
    assert two.coordinator.submit("asked", method, body, who=ALICE)
    two.sequencer.run(0, due=True)
    (prepare,) = [Prepare.decode(m.body) for m in two.coordinator.take_messages()]
    two.coordinator.evaluator.refusal = lambda method, body: errors.CORRUPT
    two.coordinator.granted(prepare.attempt, 1, Grant(TERM, [[] for _ in prepare.touches], []))
    two.sequencer.run(0, due=True)
    assert two.entry.said == [("asked", Status.ERROR, EtcdError(errors.CORRUPT).encode())]
    (release,) = two.coordinator.take_messages()
    assert (release.shard, release.method) == (1, Method.RELEASE)
    assert two.coordinator.submit(None, Method.LEASE_REVOKE, b"", [LEASE])
    two.sequencer.run(0, due=True)
    (prepare,) = [Prepare.decode(m.body) for m in two.coordinator.take_messages()]
    two.coordinator.granted(prepare.attempt, 1, Grant(TERM, [], [[]]))
    completed = two.coordinator.completed
    two.sequencer.run(0, due=True)
    assert two.coordinator.completed == completed + 1
    assert len(two.entry.said) == 1


def test_what_a_shard_cannot_grant_is_refused_and_lets_go() -> None:
    two, (method, body) = Two(), delete_all()
    may_write(two.auth, (b"\0", b"\0"))
    assert two.coordinator.submit("asked", method, body, who=ALICE)
    two.sequencer.run(0, due=True)
    (prepare,) = [Prepare.decode(m.body) for m in two.coordinator.take_messages()]
    two.coordinator.cannot_grant(prepare.attempt, EtcdError(errors.REQUEST_TOO_LARGE))
    two.sequencer.run(0, due=True)
    assert two.entry.said == [("asked", Status.ERROR, EtcdError(errors.REQUEST_TOO_LARGE).encode())]
    (release,) = two.coordinator.take_messages()
    assert (release.shard, release.method) == (1, Method.RELEASE)
    assert not two.coordinator.busy


def test_what_all_shards_grant_together_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the sequencer holds what none of them would send alone."""
    monkeypatch.setattr(wide, "_LARGE_BYTES", 10)
    monkeypatch.setattr(wide, "MOST_GRANTED_BYTES", 1000)
    two, (method, body) = Two(), delete_all()
    may_write(two.auth, (b"\0", b"\0"))
    for size, status in ((900, Status.OK), (1100, Status.ERROR)):
        assert two.coordinator.submit("asked", method, body, who=ALICE)
        two.sequencer.run(0, due=True)
        (prepare,) = [Prepare.decode(m.body) for m in two.coordinator.take_messages()
                      if m.method == Method.PREPARE]
        two.coordinator.granted(
            prepare.attempt, 1, Grant(TERM, [[] for _ in prepare.touches], [], size=size))
        two.sequencer.run(0, due=True)
        assert two.entry.said.pop()[1] == status
        two.coordinator.logged(9)


def test_an_end_of_leases_is_never_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would never end: an expiry is asked for again, and has nobody to be told."""
    monkeypatch.setattr(wide, "_LARGE_BYTES", 10)
    monkeypatch.setattr(wide, "MOST_GRANTED_BYTES", 1000)
    two = Two()
    assert two.coordinator.submit(None, Method.LEASE_REVOKE, b"", [LEASE])
    two.sequencer.run(0, due=True)
    (prepare,) = [Prepare.decode(m.body) for m in two.coordinator.take_messages()]
    two.coordinator.granted(prepare.attempt, 1, Grant(TERM, [], [[b"k0"]], size=2000))
    two.sequencer.run(0, due=True)
    assert two.leader.dirty
    assert not two.coordinator.busy


# -- puts under leases


def may_write(auth: AuthState, *ranges: tuple[bytes, bytes]) -> None:
    """Alice's role, from now on."""
    auth.take([
        role_row(Role("few", tuple(Permission(key, end, 2) for key, end in ranges))),
        user_row(User("alice", b"", True, ("few",), 1)), meta_row(Meta(True, 5)),
    ])


def under_lease(key: bytes) -> list[tuple[int, bytes]]:
    """A put under the lease, alone and in a transaction."""
    put = pb.PutRequest(key=key, value=b"v", lease=LEASE)
    txn = pb.TxnRequest(success=[pb.RequestOp(request_put=put)])
    return [(Method.PUT, put.SerializeToString()), (Method.TXN, txn.SerializeToString())]


@pytest.mark.parametrize("at", [0, 1], ids=["put", "txn"])
@pytest.mark.parametrize("key", [b"k0", b"k1", b"k2", b"k3"])
def test_p3_a_put_under_a_lease_locks_its_keys_in_all_shards_and_is_judged_there(at: int, key: bytes) -> None:
    two, (method, body) = Two(), under_lease(key)[at]
    may_write(two.auth, (b"k", b"l"), (b"other", b""))
    for hangs, status in ((b"other", Status.OK), (b"secret", Status.ERROR)):
        assert two.coordinator.submit("asked", method, body, who=ALICE)
        two.sequencer.run(0, due=True)
        (prepare,) = [Prepare.decode(m.body) for m in two.coordinator.take_messages()
                      if m.method == Method.PREPARE]
        assert prepare.leases == [LEASE]
        rows: list[list[tuple[bytes, bytes]]] = [[] for _ in prepare.touches]
        two.coordinator.granted(prepare.attempt, 1, Grant(TERM, rows, [[hangs]]))
        two.sequencer.run(0, due=True)
        assert two.entry.said.pop()[1] == status


def test_g2_a_shard_without_keys_is_asked_for_what_it_had_while_the_keys_of_a_lease_are_locked() -> None:
    """Its rows were never asked for, so the request timed out."""
    table = take_shard(Table.initial(Base(1, 2)), 1, State.FORMING, 1, (1,))
    table = take_shard(table, 1, State.SERVING, 1, ())
    placement = Placement(1)
    placement.replace(table)
    assert in_all_shards({1: [Touch(b"k", b"", False, 5)]}, placement) == {1: [Touch(b"k", b"", False, 5)]}


def test_p3_it_is_judged_by_the_users_of_its_place() -> None:
    two, (method, body) = Two(), under_lease(b"k0")[0]
    may_write(two.auth, (b"\0", b"\0"))
    assert two.coordinator.submit("asked", method, body, who=ALICE)
    two.sequencer.run(0, due=True)
    (prepare,) = [Prepare.decode(m.body) for m in two.coordinator.take_messages()]
    may_write(two.auth, (b"k", b"l"))
    two.coordinator.granted(prepare.attempt, 1, Grant(TERM, [[] for _ in prepare.touches], [[b"secret"]]))
    two.sequencer.run(0, due=True)
    assert two.entry.said == [("asked", Status.ERROR, EtcdError(errors.PERMISSION_DENIED).encode())]


def test_p3_what_was_not_asked_for_is_asked_for_anew() -> None:
    """Users are enabled between its prepare and its turn."""
    two, (method, body) = Two(), under_lease(b"k0")[0]
    two.auth.take([meta_row(Meta(False, 5))])
    key = next(key for key in (b"k%d" % n for n in range(9)) if Placement(2, 1).shard_of(key) == 1)
    method, body = under_lease(key)[0]
    assert two.coordinator.submit("asked", method, body, who=ALICE)
    two.sequencer.run(0, due=True)
    (first,) = [Prepare.decode(m.body) for m in two.coordinator.take_messages()]
    assert (first.leases, first.named) == ([], [LEASE])
    may_write(two.auth, (b"k", b"l"))
    two.coordinator.granted(first.attempt, 1, Grant(TERM, [[]], []))
    two.sequencer.run(0, due=True)
    assert two.entry.said == []
    _, again = two.coordinator.take_messages()
    second = Prepare.decode(again.body)
    assert second.attempt > first.attempt
    assert (second.leases, second.named) == ([LEASE], [])


def test_root_looks_at_no_keys_of_a_lease() -> None:
    two, (method, body) = Two(), under_lease(b"k0")[0]
    two.auth.take([user_row(User("root", b"", True, ("root",), 1)), role_row(Role("root", ()))])
    key = next(key for key in (b"k%d" % n for n in range(9)) if not Placement(2, 1).shard_of(key))
    method, body = under_lease(key)[0]
    assert two.coordinator.submit("asked", method, body, who=Principal(Kind.SIMPLE, "root", 5))
    two.sequencer.run(0, due=True)
    assert two.coordinator.take_messages() == []
    assert two.entry.said[0][1] == Status.OK


def test_p3_one_shards_leader_does_not_judge_a_put_under_a_lease() -> None:
    auth = AuthState()
    may_write(auth, (b"k", b"l"))
    rights = Rights(lambda: auth)
    for method, body in under_lease(b"k0"):
        with pytest.raises(Elsewhere):
            rights.judge(ALICE, method, body)
    for method, body in under_lease(b"secret"):
        with pytest.raises(EtcdError):
            rights.judge(ALICE, method, body)
