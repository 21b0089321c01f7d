"""Changes of users and roles: each request of etcd's Auth service, evaluated against the state.

A change is refused with etcd's error, or gives the rows that it writes; the same request at the same state
gives the same rows. Passwords come as bcrypt hashes only (``hashedPassword``), made by the front.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from typing import Any

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.auth.state import (
    READ,
    READWRITE,
    ROOT,
    SECRET_ROW,
    AuthState,
    Meta,
    Permission,
    Role,
    User,
    gone,
    grown,
    meta_row,
    role_row,
    user_row,
)
from cluster.features.rows import Row
from cluster.pb import rpc_pb2 as pb

SECRET_BYTES = 32
_Rows = list[Row]


class Change(IntEnum):
    """The kind of a change: the byte before its request. Numbers are never reused."""

    ENABLE = 1
    DISABLE = 2
    USER_ADD = 3
    USER_DELETE = 4
    USER_CHANGE_PASSWORD = 5
    USER_GRANT_ROLE = 6
    USER_REVOKE_ROLE = 7
    ROLE_ADD = 8
    ROLE_DELETE = 9
    ROLE_GRANT_PERMISSION = 10
    ROLE_REVOKE_PERMISSION = 11
    SECRET = 12  # of a front: 32 random bytes, taken if there is no secret yet


def _user(state: AuthState, name: str) -> User:
    found = state.users.get(name)
    if found is None:
        raise EtcdError(errors.USER_NOT_FOUND)
    return found


def _role(state: AuthState, name: str) -> Role:
    found = state.roles.get(name)
    if found is None:
        raise EtcdError(errors.ROLE_NOT_FOUND)
    return found


def _hash(request: Any) -> bytes:
    text = request.hashedPassword.translate({10: None, 13: None})  # line breaks, as Go's base64
    try:
        return binascii.a2b_base64(text, strict_mode=bool(text))
    except (binascii.Error, ValueError) as error:
        raise EtcdError(errors.NO_PASSWORD_USER) from error


def _enable(state: AuthState, _: Any) -> _Rows:
    if state.enabled:
        return []
    root = state.users.get(ROOT)
    if root is None:
        raise EtcdError(errors.ROOT_USER_NOT_EXIST)
    if not state.is_root(root):
        raise EtcdError(errors.ROOT_ROLE_NOT_EXIST)
    return [meta_row(replace(state.meta, enabled=True))]


def _disable(state: AuthState, _: Any) -> _Rows:
    if not state.enabled:
        return []
    revision = state.revision + 1
    return [meta_row(Meta(False, revision, revision))]  # whatever was signed before is void


def _user_add(state: AuthState, request: Any) -> _Rows:
    name: str = request.name
    if not name:
        raise EtcdError(errors.USER_EMPTY)
    if name in state.users:
        raise EtcdError(errors.USER_ALREADY_EXIST)
    no_password: bool = request.options.no_password
    password = b"" if no_password else _hash(request)
    return [user_row(User(name, password, no_password, (), state.revision + 1)), grown(state.meta)]


def _user_delete(state: AuthState, request: Any) -> _Rows:
    if state.enabled and request.name == ROOT:
        raise EtcdError(errors.INVALID_AUTH_MGMT)
    return [gone(_user(state, request.name)), grown(state.meta)]


def _user_change_password(state: AuthState, request: Any) -> _Rows:
    user = _user(state, request.name)
    password = b"" if user.no_password else _hash(request)
    return [user_row(replace(user, password_hash=password, since=state.revision + 1)), grown(state.meta)]


def _user_grant_role(state: AuthState, request: Any) -> _Rows:
    user, role = _user(state, request.user), request.role
    if role != ROOT:  # which need not exist
        _role(state, role)
    if role in user.roles:
        return []
    return [user_row(replace(user, roles=_sorted((*user.roles, role)))), grown(state.meta)]


def _user_revoke_role(state: AuthState, request: Any) -> _Rows:
    if state.enabled and request.name == ROOT and request.role == ROOT:
        raise EtcdError(errors.INVALID_AUTH_MGMT)
    user = _user(state, request.name)
    if request.role not in user.roles:
        raise EtcdError(errors.ROLE_NOT_GRANTED)
    return [user_row(_without(user, request.role)), grown(state.meta)]


def _sorted(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(names, key=str.encode))  # as bytes, as etcd


def _without(user: User, role: str) -> User:
    return replace(user, roles=tuple(name for name in user.roles if name != role))


def _role_add(state: AuthState, request: Any) -> _Rows:
    if not request.name:
        raise EtcdError(errors.ROLE_EMPTY)
    if request.name in state.roles:
        raise EtcdError(errors.ROLE_ALREADY_EXIST)
    return [role_row(Role(request.name, ())), grown(state.meta)]


def _role_delete(state: AuthState, request: Any) -> _Rows:
    name: str = request.role
    if state.enabled and name == ROOT:
        raise EtcdError(errors.INVALID_AUTH_MGMT)
    role = _role(state, name)
    held = [user_row(_without(user, name)) for user in state.users.values() if name in user.roles]
    return [gone(role), *held, grown(state.meta)]


def _role_grant_permission(state: AuthState, request: Any) -> _Rows:
    if not request.HasField("perm"):
        raise EtcdError(errors.PERMISSION_NOT_GIVEN)
    perm = request.perm
    if not _is_range(perm.key, perm.range_end) or not READ <= perm.permType <= READWRITE:
        raise EtcdError(errors.INVALID_AUTH_MGMT)
    role = _role(state, request.name)
    granted = Permission(perm.key, perm.range_end, perm.permType)
    others = [p for p in role.permissions if (p.key, p.range_end) != (perm.key, perm.range_end)]
    if len(others) == len(role.permissions):
        permissions = sorted((*others, granted), key=lambda p: p.key)
    else:
        permissions = [
            granted if (p.key, p.range_end) == (perm.key, perm.range_end) else p for p in role.permissions
        ]
    return [role_row(Role(role.name, tuple(permissions))), grown(state.meta)]


def _is_range(key: bytes, range_end: bytes) -> bool:
    return bool(key) and (not range_end or key < range_end or range_end == b"\0")


def _role_revoke_permission(state: AuthState, request: Any) -> _Rows:
    role = _role(state, request.role)
    left = tuple(p for p in role.permissions if (p.key, p.range_end) != (request.key, request.range_end))
    if len(left) == len(role.permissions):
        raise EtcdError(errors.PERMISSION_NOT_GRANTED)
    return [role_row(Role(role.name, left)), grown(state.meta)]


_CHANGES: dict[int, tuple[Any, Callable[[AuthState, Any], _Rows]]] = {
    Change.ENABLE: (pb.AuthEnableRequest, _enable),
    Change.DISABLE: (pb.AuthDisableRequest, _disable),
    Change.USER_ADD: (pb.AuthUserAddRequest, _user_add),
    Change.USER_DELETE: (pb.AuthUserDeleteRequest, _user_delete),
    Change.USER_CHANGE_PASSWORD: (pb.AuthUserChangePasswordRequest, _user_change_password),
    Change.USER_GRANT_ROLE: (pb.AuthUserGrantRoleRequest, _user_grant_role),
    Change.USER_REVOKE_ROLE: (pb.AuthUserRevokeRoleRequest, _user_revoke_role),
    Change.ROLE_ADD: (pb.AuthRoleAddRequest, _role_add),
    Change.ROLE_DELETE: (pb.AuthRoleDeleteRequest, _role_delete),
    Change.ROLE_GRANT_PERMISSION: (pb.AuthRoleGrantPermissionRequest, _role_grant_permission),
    Change.ROLE_REVOKE_PERMISSION: (pb.AuthRoleRevokePermissionRequest, _role_revoke_permission),
}


def evaluate(state: AuthState, body: bytes) -> _Rows:
    """The rows that a change writes. ``body``: its kind, then its request. EtcdError: the refusal."""
    kind, request = body[0], body[1:]
    if kind == Change.SECRET:
        return [] if state.secret or len(request) != SECRET_BYTES else [(SECRET_ROW, request)]
    parse, change = _CHANGES[kind]
    return change(state, parse.FromString(request))
