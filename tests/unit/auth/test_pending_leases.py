"""Who may write under a lease on which pending writes hang keys, and how many are looked at for it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from cluster import errors
from cluster.errors import ErrorKind, EtcdError
from cluster.evaluate.overlay import Overlay
from cluster.evaluate.view import Outcome, Version
from cluster.features.auth.judge import judge
from cluster.features.auth.permissions import NOTHING, Ranges, interval
from cluster.features.auth.principal import Kind, Principal
from cluster.features.auth.state import (
    READWRITE,
    AuthState,
    Permission,
    Role,
    User,
    meta_row,
    role_row,
    user_row,
)
from cluster.order.prepare import Grant, Touch
from cluster.order.sequencing.granted import GrantedView
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from cluster.wire.messages import Method
from tests.unit.order.stores import EmptyStore

LEASE, PUTS = 7, 200
NAMES = ("ann", "bob")


def _users() -> AuthState:
    """Both may write /u/, bob /v/, too."""
    users = AuthState()
    users.take([
        meta_row(replace(users.meta, enabled=True)),
        role_row(Role("u", (Permission(b"/u/", b"/u0", READWRITE),))),
        role_row(Role("v", (Permission(b"/v/", b"/v0", READWRITE),))),
        user_row(User("ann", b"", False, ("u",), 0)), user_row(User("bob", b"", False, ("u", "v"), 0)),
    ])
    return users


def _take(view: Overlay, writes: Iterable[tuple[bytes, int | None]], *deleted: tuple[bytes, bytes]) -> None:
    """Keys with the lease that each hangs on then; None: it is deleted."""
    made = [(key, None if lease is None else Version(8, 8, 1, lease, b"")) for key, lease in writes]
    view.take(Outcome(b"", True, b"", made, 8, ranges=deleted))


def _put(users: AuthState, view: Overlay, name: str, key: bytes) -> ErrorKind | None:
    body = pb.PutRequest(key=key, lease=LEASE).SerializeToString()
    try:
        judge(users, Principal(Kind.CERTIFICATE, name), Method.PUT, body, view)
    except EtcdError as error:
        return error.kind
    _take(view, [(key, LEASE)])
    return None


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Keys that are held against a user's ranges."""
    counted: Counter[str] = Counter()

    def count(method: str) -> None:
        there = getattr(Ranges, method)

        def looked(*args: Any) -> Any:
            counted[method] += 1
            return there(*args)

        monkeypatch.setattr(Ranges, method, looked)

    count("behind")
    count("covers")
    return counted


def test_each_key_that_is_pending_on_a_lease_is_looked_at_once(looks: Counter[str]) -> None:
    """Each put looked at all of them: 3,000 puts under a lease held their leader for 9 s."""
    users, view = _users(), Overlay(EmptyStore(leases=True))
    for number in range(PUTS):
        assert _put(users, view, NAMES[number % 2], b"/u/%d" % number) is None
        if number % 40 == 39:
            view.batch += 1
            view.forget(view.batch - 3, [], [])
    assert looks["covers"] == PUTS, "the key that is put"
    assert looks["behind"] < 2 * PUTS + len(NAMES) * PUTS


def test_keys_that_have_left_the_lease_and_one_that_refuses_are_looked_at_once(looks: Counter[str]) -> None:
    users, view = _users(), Overlay(EmptyStore(leases=True))
    keys = [b"/v/%d" % number for number in range(PUTS)]
    _take(view, [(key, LEASE) for key in keys])
    _take(view, [(key, None) for key in keys])
    for number in range(PUTS):
        assert _put(users, view, "ann", b"/u/%d" % number) is None
    assert looks["behind"] < 4 * PUTS
    _take(view, [(keys[9], LEASE)])
    _take(view, [(b"/u/x%d" % number, LEASE) for number in range(PUTS)])
    looks.clear()
    for number in range(PUTS):
        assert _put(users, view, "ann", b"/u/%d" % number) is errors.PERMISSION_DENIED
        assert _put(users, view, "bob", b"/u/%d" % number) is None
    assert looks["behind"] < 8 * PUTS
    _take(view, [(keys[9], LEASE + 1)])
    assert _put(users, view, "ann", b"/u/1") is None


def test_a_transaction_looks_at_a_lease_once() -> None:
    """With 18,432 puts it looked 18,432 times."""

    class Leases:
        looked = 0

        def lease_keys(self, lease: int, limit: int = 0, *, but: Ranges | None = None) -> Iterable[bytes]:
            self.looked += 1
            return [b"/v/1"] if lease == LEASE + 1 else []

    def ops(*leases: int) -> list[pb.RequestOp]:
        return [pb.RequestOp(request_put=pb.PutRequest(key=b"/u/1", lease=lease)) for lease in leases]

    leases, who = Leases(), Principal(Kind.CERTIFICATE, "ann")
    nested = pb.RequestOp(request_txn=pb.TxnRequest(success=ops(LEASE), failure=ops(LEASE)))
    txn = pb.TxnRequest(success=[*ops(LEASE, LEASE + 2, LEASE), nested], failure=ops(LEASE))
    judge(_users(), who, Method.TXN, txn.SerializeToString(), leases)
    assert leases.looked == 2
    txn.failure.extend(ops(LEASE + 1))
    with pytest.raises(EtcdError) as refused:
        judge(_users(), who, Method.TXN, txn.SerializeToString(), leases)
    assert refused.value.kind is errors.PERMISSION_DENIED


def test_of_keys_that_shards_grant_those_outside_the_users_ranges_are_listed() -> None:
    granted = GrantedView(
        Overlay(EmptyStore(leases=True)), Placement(2, 1), {1: [Touch(b"/u/1", b"")]},
        {1: Grant(1, [[]], [[b"/u/1", b"/v/1", b"/u/2"]])}, [LEASE])
    assert granted.lease_keys(LEASE) == [b"/u/1", b"/u/2", b"/v/1"]
    assert granted.lease_keys(LEASE, 1, but=Ranges([interval(b"/u/", b"/u0")])) == [b"/v/1"]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_passed_over_changes_no_verdict(seed: int) -> None:
    """Beside a list of all of the lease's keys."""
    draw, view = random.Random(seed), Overlay(EmptyStore(leases=True))
    keys = [b"/%c/%d" % (room, number) for room in b"uvw" for number in range(3)]
    asked = [Ranges([interval(b"/u/", b"/u0")]), Ranges([interval(b"/u/", b"/w/")]), NOTHING]
    hung: dict[bytes, tuple[int, int | None]] = {}  # each with its batch
    for _ in range(600):
        match draw.randrange(8):
            case 0:
                room = draw.choice(b"uvw")
                gone = b"/%c/" % room, b"/%c0" % room
                _take(view, [], gone)
                hung = {key: held for key, held in hung.items() if not gone[0] <= key < gone[1]}
            case 1:
                view.batch += 1
            case 2:
                batch = view.batch - draw.randrange(1, 3)
                view.forget(batch, [key for key, held in hung.items() if held[0] <= batch], [])
                hung = {key: held for key, held in hung.items() if held[0] > batch}
            case _:
                key, lease = draw.choice(keys), draw.choice((LEASE, LEASE, LEASE + 1, 0, None))
                _take(view, [(key, lease)])
                hung[key] = view.batch, lease
        there = sorted(key for key, held in hung.items() if held[1] == LEASE)
        assert view.lease_keys(LEASE) == there
        but = draw.choice(asked)
        outside = [key for key in there if but.behind(key) == key]
        assert view.lease_keys(LEASE, but=but) == outside
        first = view.lease_keys(LEASE, 1, but=but)
        assert len(first) == min(len(outside), 1)
        assert set(first) <= set(outside)
