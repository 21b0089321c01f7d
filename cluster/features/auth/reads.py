"""What shows users and roles, and what a front asks for itself, evaluated on a replica's applied state."""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.auth.state import READWRITE, ROOT, AuthState
from cluster.pb import auth_pb2
from cluster.pb import rpc_pb2 as pb

RANGE = struct.Struct("<I")  # length of the key, before key and range_end of MAY_WATCH
LEASE = struct.Struct("<q")  # MAY_REVOKE
_LOGIN = struct.Struct(
    "<QBB"
)  # auth revision, no_password, length of the secret; then the secret and the hash


class Show(IntEnum):
    """The question: the byte before its request. Numbers are never reused."""

    STATUS = 1
    USER_GET = 2
    USER_LIST = 3
    ROLE_GET = 4
    ROLE_LIST = 5
    # of a front; nothing of these is shown to a client
    LOGIN = 6  # what a password is compared with: the user's name; answered by Login
    SECRET = 7  # what tokens are verified with: nothing; likewise
    MAY_WATCH = 8  # RANGE, key, range_end: whether the principal may watch it
    MAY_REVOKE = 9  # LEASE: whether the client may write this shard's keys on it
    MAY_LIST = 10  # whether it may read this shard's keys on any lease


class Login(NamedTuple):
    """What a front needs to judge a password, and to sign a token."""

    revision: int  # auth revision
    no_password: bool
    secret: bytes  # empty: there is none yet
    password_hash: bytes

    def encode(self) -> bytes:
        return (
            _LOGIN.pack(self.revision, self.no_password, len(self.secret)) + self.secret + self.password_hash
        )


def read_login(data: bytes) -> Login:
    """A Login, from its encoding."""
    revision, no_password, length = _LOGIN.unpack_from(data)
    at = _LOGIN.size + length
    return Login(revision, bool(no_password), data[_LOGIN.size : at], data[at:])


def _status(state: AuthState, _: bytes) -> bytes:
    return pb.AuthStatusResponse(enabled=state.enabled, authRevision=state.revision).SerializeToString()


def _user_get(state: AuthState, body: bytes) -> bytes:
    user = state.users.get(pb.AuthUserGetRequest.FromString(body).name)
    if user is None:
        raise EtcdError(errors.USER_NOT_FOUND)
    return pb.AuthUserGetResponse(roles=user.roles).SerializeToString()


def _user_list(state: AuthState, _: bytes) -> bytes:
    return pb.AuthUserListResponse(users=sorted(state.users, key=str.encode)).SerializeToString()


def _role_get(state: AuthState, body: bytes) -> bytes:
    role = state.roles.get(pb.AuthRoleGetRequest.FromString(body).role)
    if role is None:
        raise EtcdError(errors.ROLE_NOT_FOUND)
    if role.name == ROOT:
        permissions: list[Any] = [
            auth_pb2.Permission(permType=auth_pb2.Permission.READWRITE, range_end=b"\0")
        ]
        assert permissions[0].permType == READWRITE
    else:
        permissions = [
            auth_pb2.Permission(permType=p.kind, key=p.key, range_end=p.range_end)  # type: ignore[arg-type]
            for p in role.permissions
        ]
    return pb.AuthRoleGetResponse(perm=permissions).SerializeToString()


def _role_list(state: AuthState, _: bytes) -> bytes:
    return pb.AuthRoleListResponse(roles=sorted(state.roles, key=str.encode)).SerializeToString()


def _login(state: AuthState, body: bytes) -> bytes:
    if not state.enabled:
        raise EtcdError(errors.AUTH_NOT_ENABLED)
    user = state.users.get(body.decode())
    if user is None:
        raise EtcdError(errors.AUTH_FAILED)
    if user.no_password:
        raise EtcdError(errors.NO_PASSWORD_USER)
    return Login(state.revision, user.no_password, state.secret, user.password_hash).encode()


def _secret(state: AuthState, _: bytes) -> bytes:
    return Login(state.revision, False, state.secret, b"").encode()


def _judged(_: AuthState, body: bytes) -> bytes:
    return b""


_SHOWS: dict[int, Callable[[AuthState, bytes], bytes]] = {
    Show.STATUS: _status,
    Show.USER_GET: _user_get,
    Show.USER_LIST: _user_list,
    Show.ROLE_GET: _role_get,
    Show.ROLE_LIST: _role_list,
    Show.LOGIN: _login,
    Show.SECRET: _secret,
    Show.MAY_WATCH: _judged,
    Show.MAY_REVOKE: _judged,
    Show.MAY_LIST: _judged,
}


def show(state: AuthState, body: bytes) -> bytes:
    """The answer's fields after its header. EtcdError: the refusal."""
    return _SHOWS[body[0]](state, body[1:])
