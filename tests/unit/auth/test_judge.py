"""Who may have what, where the name of a client is no user's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from cluster import errors
from cluster.errors import ErrorKind, EtcdError
from cluster.features.auth.judge import judge
from cluster.features.auth.permissions import Ranges
from cluster.features.auth.principal import NOBODY, Kind, Principal
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
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method

STRANGER = Principal(Kind.CERTIFICATE, "stranger")
UNNAMED = Principal(Kind.CERTIFICATE)
REVISION = 2  # of users and roles
TTL = pb.LeaseTimeToLiveRequest(ID=7, keys=True).SerializeToString()
RANGE = pb.RangeRequest(key=b"k").SerializeToString()


class _Lease:
    def __init__(self, *keys: bytes) -> None:
        self._keys = keys

    def lease_keys(self, lease: int, limit: int = 0, *, but: Ranges | None = None) -> Iterable[bytes]:
        return self._keys


def _refused(who: Principal, method: Method, body: bytes = b"", *keys: bytes) -> ErrorKind | None:
    users = AuthState()
    root = User("root", b"", False, ("root",), 0)
    users.take([meta_row(replace(users.meta, enabled=True, revision=REVISION)), user_row(root)])
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
    assert _refused(Principal(Kind.JWT, "stranger", REVISION), method) is errors.PERMISSION_DENIED


@pytest.mark.parametrize("method", [Method.TXN, Method.READ_TXN])
def test_a_transaction_of_nothing_needs_no_user_but_no_old_token(method: Method) -> None:
    assert _refused(NOBODY, method) is None
    assert _refused(Principal(Kind.JWT, "stranger", REVISION), method) is None
    assert _refused(Principal(Kind.JWT, "stranger", REVISION - 1), method) is errors.AUTH_OLD_REVISION
    assert _refused(Principal(Kind.JWT, "stranger", 0), method) is None


def test_a_certificate_of_no_user_opens_no_key() -> None:
    assert _refused(STRANGER, Method.RANGE, RANGE) is errors.PERMISSION_DENIED
    assert _refused(STRANGER, Method.LEASE_TTL, TTL) is None
    assert _refused(STRANGER, Method.LEASE_TTL, TTL, b"k") is errors.PERMISSION_DENIED
    assert _refused(STRANGER, Method.HASH) is errors.USER_NOT_FOUND


def test_a_certificate_without_a_common_name_is_one_of_no_user() -> None:
    """It was taken for none. Root's requests have etcd's answer to the empty name."""
    assert _refused(UNNAMED, Method.LEASE_GRANT) is _refused(UNNAMED, Method.MEMBER_LIST) is None
    assert _refused(UNNAMED, Method.RANGE, RANGE) is errors.PERMISSION_DENIED
    assert _refused(UNNAMED, Method.LEASE_TTL, TTL) is None
    assert _refused(UNNAMED, Method.LEASE_TTL, TTL, b"k") is errors.PERMISSION_DENIED
    assert _refused(UNNAMED, Method.HASH) is errors.USER_EMPTY


def test_a_web_token_of_revision_0_names_nobody_for_keys() -> None:
    assert _refused(Principal(Kind.JWT, "root", 0), Method.RANGE, RANGE) is errors.USER_EMPTY
    assert _refused(Principal(Kind.JWT, "root", 0), Method.HASH) is None


class _Leases:
    """Each has many keys, which are listed as the store lists them."""

    def __init__(self) -> None:
        self.listed = 0

    def leased_keys(self, but: Ranges) -> Iterable[bytes]:
        for lease in range(100):
            yield from self.lease_keys(lease, 1, but=but)

    def lease_keys(self, lease: int, limit: int = 0, *, but: Ranges | None = None) -> Iterable[bytes]:
        assert but is not None
        keys = [b"k/%03d" % at for at in range(1000)]
        found = [key for key in keys if but.behind(key) == key][: limit or None]
        self.listed += len(found)
        return found


@pytest.mark.parametrize(
    ("user", "granted", "refused", "listed"),
    [
        ("root", None, None, 0),
        ("all", (b"\0", b"\0"), None, 0),
        ("some", (b"k/", b"k0"), None, 0),
        ("few", (b"k/", b"k/500"), errors.PERMISSION_DENIED, 1),
        ("none", None, errors.PERMISSION_DENIED, 1),
        ("stranger", None, errors.PERMISSION_DENIED, 1),
    ],
)
@pytest.mark.parametrize(
    ("method", "body"),
    [
        (Method.LEASE_KEEPALIVE, pb.LeaseKeepAliveRequest(ID=7).SerializeToString()),
        (Method.LEASE_TTL, TTL),
        (Method.LEASE_LEASES, b""),
        (Method.PUT, pb.PutRequest(key=b"k/1", lease=7).SerializeToString()),
    ],
)
def test_no_keys_of_a_lease_are_listed_that_the_client_may_write(
    user: str, granted: tuple[bytes, bytes] | None, refused: ErrorKind | None, listed: int,
    method: Method, body: bytes,
) -> None:
    """60 keep-alives of 20,000 keys held the loop of a node for five seconds, root's too."""
    users, leases = AuthState(), _Leases()
    users.take([meta_row(replace(users.meta, enabled=True))])
    if user != "stranger":
        users.take([user_row(User(user, b"", False, ("root" if user == "root" else "r",), 0))])
    if granted is not None:
        users.take([role_row(Role("r", (Permission(*granted, READWRITE),)))])
    met = None
    try:
        judge(users, Principal(Kind.CERTIFICATE, user), method, body, leases)
    except EtcdError as error:
        met = error.kind
    assert met is refused
    assert leases.listed == (listed if method != Method.PUT or granted is not None else 0)


def test_an_old_web_token_opens_no_key_of_a_lease_but_to_root() -> None:
    keep = pb.LeaseKeepAliveRequest(ID=7).SerializeToString()
    old, root = (Principal(Kind.JWT, name, REVISION - 1) for name in ("u", "root"))
    assert _refused(old, Method.LEASE_KEEPALIVE, keep) is None
    assert _refused(old, Method.LEASE_KEEPALIVE, keep, b"k") is errors.AUTH_OLD_REVISION
    assert _refused(root, Method.RANGE, RANGE) is errors.AUTH_OLD_REVISION
    assert _refused(root, Method.LEASE_KEEPALIVE, keep, b"k") is None


@pytest.mark.parametrize(
    "method", [Method.LEASE_GRANT, Method.LEASE_TTL, Method.ALARM, Method.MEMBER_LIST, Method.STATUS]
)
def test_an_old_web_token_suffices_for_what_shows_no_keys(method: Method) -> None:
    """As at etcd: one change of users ended the monitoring by web tokens."""
    assert _refused(Principal(Kind.JWT, "root", REVISION - 1), method) is None
