"""Who may have what, where the name of a client is no user's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from cluster import errors
from cluster.errors import ErrorKind, EtcdError
from cluster.features.auth.judge import judge
from cluster.features.auth.principal import NOBODY, Kind, Principal
from cluster.features.auth.state import AuthState, meta_row
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method

STRANGER = Principal(Kind.CERTIFICATE, "stranger")
TTL = pb.LeaseTimeToLiveRequest(ID=7, keys=True).SerializeToString()
RANGE = pb.RangeRequest(key=b"k").SerializeToString()


class _Lease:
    def __init__(self, *keys: bytes) -> None:
        self._keys = keys

    def lease_keys(self, lease: int) -> Iterable[bytes]:
        return self._keys


def _refused(who: Principal, method: Method, body: bytes = b"", *keys: bytes) -> ErrorKind | None:
    users = AuthState()
    users.take([meta_row(replace(users.meta, enabled=True))])
    try:
        judge(users, who, method, body, _Lease(*keys))
    except EtcdError as error:
        return error.kind
    return None


@pytest.mark.parametrize(
    "method", [Method.LEASE_GRANT, Method.LEASE_TTL, Method.ALARM, Method.MEMBER_LIST, Method.STATUS]
)
def test_a_certificate_of_no_user_suffices_for_what_shows_no_keys(method: Method) -> None:
    assert _refused(STRANGER, method) is None
    assert _refused(NOBODY, method) is errors.USER_EMPTY
    assert _refused(Principal(Kind.JWT, "stranger", 1), method) is errors.PERMISSION_DENIED


def test_a_certificate_of_no_user_opens_no_key() -> None:
    assert _refused(STRANGER, Method.RANGE, RANGE) is errors.PERMISSION_DENIED
    assert _refused(STRANGER, Method.LEASE_TTL, TTL) is None
    assert _refused(STRANGER, Method.LEASE_TTL, TTL, b"k") is errors.PERMISSION_DENIED
    assert _refused(STRANGER, Method.HASH) is errors.USER_NOT_FOUND
