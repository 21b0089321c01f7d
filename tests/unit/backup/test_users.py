"""Users of a backup, once they are restored."""

from __future__ import annotations

import pytest

from cluster import errors
from cluster.bolt.etcd import Auth
from cluster.errors import EtcdError
from cluster.features.auth.judge import _checked
from cluster.features.auth.principal import Kind, Principal
from cluster.features.auth.state import AuthState
from cluster.pb import auth_pb2
from node.backup.users import auth_in, auth_rows


def test_a_token_of_before_a_restore_counts_no_more() -> None:
    alice = auth_pb2.User(
        name=b"alice", password=b"hash", roles=["root"], options=auth_pb2.UserAddOptions(no_password=False))
    backup = Auth(True, 7, [alice], [])
    state = AuthState(auth_rows(backup))
    assert auth_in(auth_rows(backup)) == backup
    with pytest.raises(EtcdError) as caught:
        _checked(state, Principal(Kind.SIMPLE, "alice", 6))
    assert caught.value.kind is errors.INVALID_AUTH_TOKEN
    assert _checked(state, Principal(Kind.SIMPLE, "alice", 7)).user == "alice"
