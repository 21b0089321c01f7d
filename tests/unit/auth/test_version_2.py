"""Users of version 3 and the tree of version 2."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import PERMISSION_DENIED, EtcdError
from cluster.evaluate.replica import Leader
from cluster.features.auth.state import AuthState, Meta, meta_row
from cluster.features.lessor import Lessor
from cluster.features.v2.requests import Op, Write
from cluster.wire.messages import Method
from tests.unit.order.stores import EmptyStore


def test_writes_of_version_2_are_nobodys_while_users_of_version_3_are_enabled() -> None:
    """A front may not know of them yet."""
    auth = AuthState()
    store: Any = EmptyStore()
    leader = Leader(store, 1, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 7, auth=auth)
    write = Write(Op.SET, b"/1/a", b"1", now_ns=1).encode()
    auth.take([meta_row(Meta(True, 5))])
    with pytest.raises(EtcdError) as refusal:
        leader.execute(Method.V2_WRITE, write)
    assert refusal.value.kind is PERMISSION_DENIED
    assert not leader.dirty
    auth.take([meta_row(Meta(False, 6))])
    leader.execute(Method.V2_WRITE, write)
    assert leader.dirty
