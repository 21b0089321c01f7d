"""Users, roles and whether they count: a fold of rows, the same at every replica at the same place of the
order.

Rows, by name (``cluster.features.rows``)::

    m          enabled u8 | auth revision u64 | epoch u64
    s          the secret that simple tokens are signed with, from the first login on
    u<name>    auth revision of its last password u64 | authpb.User
    r<name>    authpb.Role

The *auth revision* begins at 1 and grows with every change of users and roles, as etcd's. *Epoch* is that of
the last disabling: older simple tokens are void, and so are those older than their user's password.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

from google.protobuf.message import DecodeError

from cluster.faults import faults
from cluster.features.auth.permissions import EVERYTHING, Ranges, interval
from cluster.features.rows import Row
from cluster.pb import auth_pb2

ROOT = "root"  # the user that must exist, and the role that may do everything
META_ROW = b"m"
SECRET_ROW = b"s"
_USER, _ROLE = b"u", b"r"
_META = struct.Struct("<BQQ")
_SINCE = struct.Struct("<Q")
READ, WRITE, READWRITE = 0, 1, 2  # authpb.Permission.Type


@dataclass(slots=True, frozen=True)
class User:
    name: str
    password_hash: bytes  # bcrypt's; empty: none
    no_password: bool  # logs in by certificate only
    roles: tuple[str, ...]  # sorted; some may be gone
    since: int  # auth revision of the last password


@dataclass(slots=True, frozen=True)
class Permission:
    """A range that a role may read, write, or both."""

    key: bytes
    range_end: bytes
    kind: int  # READ, WRITE, READWRITE


@dataclass(slots=True, frozen=True)
class Role:
    """Its permissions are in key order."""

    name: str
    permissions: tuple[Permission, ...]


@dataclass(slots=True, frozen=True)
class Meta:
    enabled: bool = False
    revision: int = 1
    epoch: int = 0


class AuthState:
    """Users and roles; rows change them."""

    __slots__ = ("_rights", "meta", "roles", "secret", "users")

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.meta = Meta()
        self.secret = b""
        self.users: dict[str, User] = {}
        self.roles: dict[str, Role] = {}
        self._rights: dict[str, tuple[Ranges, Ranges]] = {}  # by user: what it reads, what it writes
        self.take(rows)

    def copy(self) -> AuthState:
        """A copy to change."""
        made = AuthState()
        made.meta, made.secret = self.meta, self.secret
        made.users, made.roles = dict(self.users), dict(self.roles)
        return made

    @property
    def enabled(self) -> bool:
        return self.meta.enabled

    @property
    def revision(self) -> int:
        return self.meta.revision

    def take(self, rows: Iterable[Row]) -> None:
        """Take rows in. A row that cannot be read changes nothing, here as at every other replica."""
        for name, value in rows:
            try:
                self._take(name, value)
            except (struct.error, DecodeError, UnicodeDecodeError, IndexError) as error:
                faults.met("taking a row of users and roles", error)
        self._rights.clear()

    def _take(self, name: bytes, value: bytes | None) -> None:
        kind, own = name[:1], name[1:].decode()
        if name == META_ROW:
            enabled, revision, epoch = _META.unpack(value or _META.pack(0, 1, 0))
            self.meta = Meta(bool(enabled), revision, epoch)
        elif name == SECRET_ROW:
            self.secret = value or b""
        elif kind == _USER:
            if value is None:
                self.users.pop(own, None)
            else:
                self.users[own] = _user(own, value)
        elif kind == _ROLE:
            if value is None:
                self.roles.pop(own, None)
            else:
                self.roles[own] = _role(own, value)

    def is_root(self, user: User) -> bool:
        return ROOT in user.roles

    def may_read(self, user: User, key: bytes, range_end: bytes) -> bool:
        return self.rights(user)[0].covers(key, range_end)

    def may_write(self, user: User, key: bytes, range_end: bytes) -> bool:
        return self.rights(user)[1].covers(key, range_end)

    def rights(self, user: User) -> tuple[Ranges, Ranges]:
        """What the user reads, and what it writes."""
        if ROOT in user.roles:
            return EVERYTHING, EVERYTHING
        found = self._rights.get(user.name)
        if found is None:
            roles = [role for name in user.roles if (role := self.roles.get(name)) is not None]
            granted = [p for role in roles for p in role.permissions]
            found = self._rights[user.name] = (
                Ranges(interval(p.key, p.range_end) for p in granted if p.kind != WRITE),
                Ranges(interval(p.key, p.range_end) for p in granted if p.kind != READ),
            )
        return found


def _user(name: str, value: bytes) -> User:
    (since,) = _SINCE.unpack_from(value)
    message = auth_pb2.User.FromString(value[_SINCE.size :])
    return User(name, message.password, message.options.no_password, tuple(message.roles), since)


def _role(name: str, value: bytes) -> Role:
    message = auth_pb2.Role.FromString(value)
    return Role(name, tuple(Permission(p.key, p.range_end, p.permType) for p in message.keyPermission))


def user_row(user: User) -> Row:
    message = auth_pb2.User(
        name=user.name.encode(), password=user.password_hash, roles=user.roles,
        options=auth_pb2.UserAddOptions(no_password=user.no_password),
    )
    return _USER + user.name.encode(), _SINCE.pack(user.since) + message.SerializeToString()


def role_row(role: Role) -> Row:
    message = auth_pb2.Role(
        name=role.name.encode(),
        keyPermission=[
            # an enum's number
            auth_pb2.Permission(permType=p.kind, key=p.key, range_end=p.range_end)  # type: ignore[arg-type]
            for p in role.permissions
        ],
    )
    return _ROLE + role.name.encode(), message.SerializeToString()


def gone(thing: User | Role) -> Row:
    """The row of a user or role that is deleted."""
    return (_USER if isinstance(thing, User) else _ROLE) + thing.name.encode(), None


def meta_row(meta: Meta) -> Row:
    return META_ROW, _META.pack(meta.enabled, meta.revision, meta.epoch)


def grown(meta: Meta) -> Row:
    """The row one auth revision later."""
    return meta_row(replace(meta, revision=meta.revision + 1))
