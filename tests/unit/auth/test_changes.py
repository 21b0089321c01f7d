"""Users and roles, changed as etcd changes them."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import errors
from cluster.errors import ErrorKind, EtcdError
from cluster.faults import faults
from cluster.features.auth.changes import Change, evaluate
from cluster.features.auth.principal import Kind, Principal, split
from cluster.features.auth.reads import Show, show
from cluster.features.auth.state import AuthState
from cluster.features.rows import RowsOf, decode, encode, sound
from cluster.pb import rpc_pb2 as pb

_PERM = pb.AuthRoleGrantPermissionRequest.DESCRIPTOR.fields_by_name["perm"].message_type._concrete_class


class World:
    """A state that is changed by rows alone, as every replica's."""

    def __init__(self) -> None:
        self.state = AuthState()

    def do(self, change: Change, request: Any) -> None:
        rows = evaluate(self.state, bytes((change,)) + request.SerializeToString())
        body = encode(RowsOf.AUTH, rows)
        assert sound(body, 0, len(body))
        assert decode(body, 0, len(body)) == (RowsOf.AUTH, rows)
        self.state.take(rows)

    def refused(self, change: Change, request: Any) -> ErrorKind:
        with pytest.raises(EtcdError) as raised:
            evaluate(self.state, bytes((change,)) + request.SerializeToString())
        return raised.value.kind

    def add_user(self, name: str, *roles: str) -> None:
        self.do(
            Change.USER_ADD,
            pb.AuthUserAddRequest(name=name, hashedPassword=base64.b64encode(b"hash").decode()),
        )
        for role in roles:
            self.do(Change.USER_GRANT_ROLE, pb.AuthUserGrantRoleRequest(user=name, role=role))


@pytest.fixture
def world() -> World:
    return World()


def test_auth_is_enabled_only_with_a_root_that_has_its_role(world: World) -> None:
    assert world.refused(Change.ENABLE, pb.AuthEnableRequest()) is errors.ROOT_USER_NOT_EXIST
    world.add_user("root")
    assert world.refused(Change.ENABLE, pb.AuthEnableRequest()) is errors.ROOT_ROLE_NOT_EXIST
    world.do(
        Change.USER_GRANT_ROLE, pb.AuthUserGrantRoleRequest(user="root", role="root")
    )  # which need not exist
    revision = world.state.revision
    world.do(Change.ENABLE, pb.AuthEnableRequest())
    world.do(Change.ENABLE, pb.AuthEnableRequest())
    assert (world.state.enabled, world.state.revision) == (True, revision)
    world.do(Change.DISABLE, pb.AuthDisableRequest())
    world.do(Change.DISABLE, pb.AuthDisableRequest())
    assert (world.state.enabled, world.state.revision, world.state.meta.epoch) == (
        False,
        revision + 1,
        revision + 1,
    )


def test_root_is_protected_while_auth_is_enabled(world: World) -> None:
    world.do(Change.ROLE_ADD, pb.AuthRoleAddRequest(name="root"))
    world.add_user("root", "root")
    world.do(Change.ENABLE, pb.AuthEnableRequest())
    assert (
        world.refused(Change.USER_DELETE, pb.AuthUserDeleteRequest(name="root")) is errors.INVALID_AUTH_MGMT
    )
    assert (
        world.refused(Change.ROLE_DELETE, pb.AuthRoleDeleteRequest(role="root")) is errors.INVALID_AUTH_MGMT
    )
    assert (
        world.refused(Change.USER_REVOKE_ROLE, pb.AuthUserRevokeRoleRequest(name="root", role="root"))
        is errors.INVALID_AUTH_MGMT
    )


def test_a_deleted_role_leaves_its_users(world: World) -> None:
    for name in ("b", "a"):
        world.do(Change.ROLE_ADD, pb.AuthRoleAddRequest(name=name))
    world.add_user("u", "b", "a")
    assert world.state.users["u"].roles == ("a", "b")
    world.do(Change.ROLE_DELETE, pb.AuthRoleDeleteRequest(role="a"))
    assert world.state.users["u"].roles == ("b",)
    assert world.refused(Change.ROLE_DELETE, pb.AuthRoleDeleteRequest(role="a")) is errors.ROLE_NOT_FOUND


def test_granting_a_role_that_is_held_changes_nothing(world: World) -> None:
    world.do(Change.ROLE_ADD, pb.AuthRoleAddRequest(name="r"))
    world.add_user("u", "r")
    revision = world.state.revision
    world.do(Change.USER_GRANT_ROLE, pb.AuthUserGrantRoleRequest(user="u", role="r"))
    assert world.state.revision == revision


def test_a_permission_of_the_same_range_is_replaced(world: World) -> None:
    world.do(Change.ROLE_ADD, pb.AuthRoleAddRequest(name="r"))
    for key, kind in ((b"b", 0), (b"a", 1), (b"b", 2)):
        world.do(
            Change.ROLE_GRANT_PERMISSION,
            pb.AuthRoleGrantPermissionRequest(name="r", perm=_PERM(key=key, permType=kind)),
        )
    assert [(p.key, p.kind) for p in world.state.roles["r"].permissions] == [(b"a", 1), (b"b", 2)]
    grant = pb.AuthRoleGrantPermissionRequest
    assert world.refused(Change.ROLE_GRANT_PERMISSION, grant(name="r")) is errors.PERMISSION_NOT_GIVEN
    for key, range_end in ((b"", b""), (b"b", b"a"), (b"b", b"b")):
        assert (
            world.refused(
                Change.ROLE_GRANT_PERMISSION, grant(name="r", perm=_PERM(key=key, range_end=range_end))
            )
            is errors.INVALID_AUTH_MGMT
        )
    revoke = pb.AuthRoleRevokePermissionRequest
    assert (
        world.refused(Change.ROLE_REVOKE_PERMISSION, revoke(role="r", key=b"a", range_end=b"z"))
        is errors.PERMISSION_NOT_GRANTED
    )
    world.do(Change.ROLE_REVOKE_PERMISSION, revoke(role="r", key=b"a"))
    assert [p.key for p in world.state.roles["r"].permissions] == [b"b"]


def test_the_role_root_is_shown_with_every_key(world: World) -> None:
    asked = bytes((Show.ROLE_GET,)) + pb.AuthRoleGetRequest(role="root").SerializeToString()
    with pytest.raises(EtcdError):
        show(world.state, asked)
    world.do(Change.ROLE_ADD, pb.AuthRoleAddRequest(name="root"))
    (perm,) = pb.AuthRoleGetResponse.FromString(show(world.state, asked)).perm
    assert (perm.permType, perm.key, perm.range_end) == (2, b"", b"\0")


def test_a_state_is_the_fold_of_its_rows(world: World) -> None:
    world.do(Change.ROLE_ADD, pb.AuthRoleAddRequest(name="r"))
    world.add_user("root", "root")
    world.add_user("ü", "r")
    copy = world.state.copy()
    world.do(Change.ENABLE, pb.AuthEnableRequest())
    assert not copy.enabled
    assert world.state.enabled
    assert copy.users == world.state.users


@given(st.binary(max_size=60))
def test_rows_that_nobody_can_read_change_nothing(value: bytes) -> None:
    state = AuthState()
    state.take([(b"u\xff", value), (b"m", value if len(value) != 17 else b""), (b"?", value)])
    assert faults.count  # they are counted
    faults.take()
    assert not state.users
    assert state.meta == AuthState().meta


@given(st.binary(max_size=60))
def test_a_body_of_rows_is_read_only_if_it_is_sound(data: bytes) -> None:
    if sound(data, 0, len(data)):
        decode(data, 0, len(data))
    else:
        with pytest.raises(ValueError, match="cut short"):
            decode(data, 0, len(data))


@given(st.sampled_from(list(Kind)), st.text(max_size=20), st.integers(0, 2**63), st.binary(max_size=20))
def test_a_principal_stands_before_its_request(kind: Kind, user: str, revision: int, body: bytes) -> None:
    principal = Principal(kind, user, revision)
    assert split(principal.encode() + body) == (principal, body)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("aGFz\naA==\n", b"hash"), ("aGFz\r\naA==", b"hash"), ("", b""), ("\n", b""),
        ("aGFz aA==", None), ("aGFzaA", None), ("aGFz\taA==", None),
    ],
)  # fmt: skip
def test_a_hash_is_base64_as_go_reads_it(world: World, given: str, kept: bytes | None) -> None:
    """The command ``base64`` breaks lines after 76 characters, and a hash of bcrypt has 80."""
    world.add_user("u")
    request = pb.AuthUserChangePasswordRequest(name="u", hashedPassword=given)
    if kept is None:
        assert world.refused(Change.USER_CHANGE_PASSWORD, request) is errors.NO_PASSWORD_USER
        return
    world.do(Change.USER_CHANGE_PASSWORD, request)
    assert world.state.users["u"].password_hash == kept
