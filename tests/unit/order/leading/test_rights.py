"""What a shard's leader says that it has applied counts for all that it has logged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster import errors
from cluster.effects.records import items
from cluster.errors import EtcdError
from cluster.features.auth.principal import SAID, Kind, Principal
from cluster.features.auth.state import AuthState, User, meta_row, user_row
from cluster.order.leading.rights import Rights
from cluster.order.leading.shard_leader import ShardLeader, Start
from cluster.order.log import ENTRY_ITEMS
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method, Status
from tests.unit.order.stores import EmptyStore, answers

ROOT, ANN = Principal(Kind.CERTIFICATE, "root"), Principal(Kind.CERTIFICATE, "ann")
PUT = pb.PutRequest(key=b"a", value=b"1").SerializeToString()


def enabled() -> AuthState:
    root, ann = User("root", b"", True, ("root",), 1), User("ann", b"", True, (), 1)
    users = AuthState([user_row(root), user_row(ann)])
    users.take([meta_row(replace(users.meta, enabled=True, revision=users.revision + 1))])
    return users


def test_nothing_counts_before_it_serves_whatever_changes() -> None:
    users = AuthState()
    rights = Rights(lambda: users)
    assert rights.said(0, 5) == (0, False)
    users.take([meta_row(replace(users.meta, enabled=True))])
    rights.applied(0, 0, 5)
    assert rights.said(0, 6) == (0, False)
    rights.serve()
    assert rights.said(0, 6) == (6, True), "and that is news"
    assert rights.said(0, 7) == (7, False)


def test_a_change_counts_once_what_was_begun_before_is_in_order() -> None:
    users = AuthState()
    rights = Rights(lambda: users)
    rights.serve()
    assert rights.said(2, 8)[0] == 8
    users.take([meta_row(replace(users.meta, enabled=True))])
    rights.applied(4, 2, 8)
    assert rights.said(2, 9) == (8, False)
    users.take([meta_row(replace(users.meta, revision=2))])
    rights.applied(6, 4, 9)
    assert rights.said(4, 10) == (9, False), "what was begun before the first is in order"
    rights.applied(7, 5, 10)
    assert rights.said(5, 11) == (9, False), "nothing changed: no new wait"
    assert rights.said(6, 12) == (12, True)


def leader(users: AuthState) -> ShardLeader[str]:
    found: ShardLeader[str] = ShardLeader(
        EmptyStore(), 1, 3, Start(5, 0), max_txn_ops=128, users=lambda: users)
    found.applied_records([(1, 2, [])])
    found.serve()
    return found


def test_a_refusal_waits_for_its_entry() -> None:
    leading = leader(enabled())
    leading.submit("nobody", Method.PUT, PUT)
    leading.submit("ann", Method.PUT | SAID, ANN.encode() + PUT)
    leading.submit("root", Method.PUT | SAID, ROOT.encode() + PUT)
    leading.run()
    assert answers(leading) == [], "I7"
    assert len(list(items(leading.seal(), ENTRY_ITEMS))) == 1, "root's"
    leading.logged(6)
    leading.applied_entries(6, 1)
    told = {token: (status, body) for token, status, body in answers(leading)}
    assert told["root"][0] == Status.OK
    assert told["nobody"] == (Status.ERROR, EtcdError(errors.USER_EMPTY).encode())
    assert told["ann"] == (Status.ERROR, EtcdError(errors.PERMISSION_DENIED).encode())


@pytest.mark.parametrize("who", [ROOT, ANN])
def test_nobody_is_judged_while_users_are_not_enabled(who: Principal) -> None:
    leading = leader(AuthState())
    leading.submit("one", Method.PUT | SAID, who.encode() + PUT)
    leading.submit("two", Method.PUT, PUT)
    leading.run()
    assert len(list(items(leading.seal(), ENTRY_ITEMS))) == 2
