"""Changes of users and roles of version 2: etcd's rules, each change whole.

etcd's members change them by several writes; here the leader does it in one. The rows are those of the files
that are written, one index each, as in etcd.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from cluster.features.rows import Row
from cluster.features.v2.counters import COUNTED, counter_rows
from cluster.features.v2.events import Action, Event, Shown
from cluster.features.v2.requests import Answer, Who, said
from cluster.features.v2.tree import AUTH, Node, Tree, event_row, gone_row, node_row
from cluster.features.v2.users import (
    ENABLED,
    GUEST,
    GUEST_ROLE,
    MOST_BYTES,
    ROLES,
    ROOT,
    USERS,
    Names,
    Permissions,
    Role,
    User,
    enabled,
    find_role,
    find_user,
    held,
    message,
    root_refusal,
    with_root,
)

_NONE = Permissions()


class UserOp(IntEnum):
    """Which change; no number of ``Op``. Numbers are never reused."""

    PUT_USER = 64
    DELETE_USER = 65
    PUT_ROLE = 66
    DELETE_ROLE = 67
    ENABLE = 68
    DISABLE = 69


_FIRST = bytes((UserOp.PUT_USER,))
_CHANGE = struct.Struct("<BBqH")  # op, whether a user is named, now, length of the name


def concerns_users(body: bytes) -> bool:
    """Whether a V2_WRITE is a ``UserChange``."""
    return body[:1] >= _FIRST


@dataclass(slots=True, frozen=True)
class UserWish:
    """The wanted user: the body of a PUT, its password hashed."""

    password: str = ""
    roles: Names = None
    grant: Names = None
    revoke: Names = None

    def encode(self) -> bytes:
        return json.dumps([self.password, self.roles, self.grant, self.revoke]).encode()

    @classmethod
    def decode(cls, data: bytes) -> UserWish:
        """ValueError: it is none."""
        password, *names = json.loads(data)
        return cls(password, *map(_named, names))


@dataclass(slots=True, frozen=True)
class RoleWish:
    """The wanted role: the body of a PUT."""

    permissions: Permissions = _NONE
    grant: Permissions | None = None
    revoke: Permissions | None = None

    def encode(self) -> bytes:
        parts = (self.permissions, self.grant, self.revoke)
        return json.dumps([None if part is None else [part.read, part.write] for part in parts]).encode()

    @classmethod
    def decode(cls, data: bytes) -> RoleWish:
        """ValueError: it is none."""
        permissions, grant, revoke = (
            None if part is None else Permissions(*map(_named, part)) for part in json.loads(data)
        )
        return cls(permissions or _NONE, grant, revoke)


def _named(names: list[str] | None) -> Names:
    if names is not None and not all(isinstance(name, str) for name in names):
        raise ValueError("not a list of names")
    return None if names is None else tuple(names)


@dataclass(slots=True, frozen=True)
class UserChange:
    """A change that is wanted (V2_WRITE)."""

    op: UserOp
    name: bytes = b""
    wish: bytes = b""  # of a UserWish or a RoleWish
    who: Who | None = None
    now_ns: int = 0

    def encode(self) -> bytes:
        head = _CHANGE.pack(self.op, self.who is not None, self.now_ns, len(self.name))
        return b"".join((head, said(self.who), self.name, self.wish))

    @classmethod
    def decode(cls, data: bytes) -> UserChange:
        """struct.error, ValueError: it is none."""
        op, named, now_ns, length = _CHANGE.unpack_from(data)
        who, at = Who.decode(data, _CHANGE.size, named)
        name = data[at : at + length]
        if b"/" in name or name in (b".", b"..") or (not name and op < UserOp.ENABLE):
            raise ValueError(f"not a name: {name!r}")
        return cls(UserOp(op), name, data[at + length :], who, now_ns)


class Refused(Exception):
    """A change that is refused: etcd's status and words."""

    def __init__(self, status: int, text: str | bytes) -> None:
        self.status = status
        self.body = message(text)
        super().__init__(str(text))


def changed(tree: Tree, body: bytes) -> tuple[list[Row], bytes]:
    """The rows that a change writes, which the tree is to take, and its answer: the code is the HTTP status.
    struct.error, ValueError: it is no request."""
    change = UserChange.decode(body)
    refused = root_refusal(tree, change.who)
    if refused is not None:
        return [], refused.encode()
    files = Files(tree, change.now_ns)
    try:
        status, shown = _EVALUATE[change.op](files, change)
    except Refused as error:
        status, shown = error.status, error.body
    rows = files.rows()
    return rows, Answer(files.index, shown, status).encode()


class Files:
    """The files that one change writes: one index and one event each. The tree stays as it is."""

    def __init__(self, tree: Tree, now_ns: int) -> None:
        self.tree = tree
        self.index = tree.index
        self._now_ns = now_ns
        self._counts = list(tree.counts)
        self._rows: list[Row] = []
        self._made = False  # the directories are there

    def rows(self) -> list[Row]:
        if not self._rows:
            return []
        return [*self.tree.outdated(), *self._rows, *counter_rows(self.index, self._counts)]

    def make(self) -> None:
        """Make the directories, and the switch, where they are missing."""
        if self._made:
            return
        self._made = True
        for path in (AUTH, USERS, ROLES):
            if held(self.tree, path) is None:
                self._put(path, None, None)
        if held(self.tree, ENABLED) is None:
            self._put(ENABLED, b"false", None)

    def put(self, path: bytes, value: str) -> None:
        """Write a file. Refused: it is too long."""
        data = value.encode("utf-8", "surrogatepass")
        if len(data) > MOST_BYTES:
            raise Refused(500, "etcdserver: request is too large")
        self.make()
        self._put(path, data, held(self.tree, path))

    def delete(self, node: Node) -> None:
        self.index += 1
        self._rows.append(gone_row(node.key))
        gone = Shown(node.key, False, None, 0, self.index, node.created)
        self._event(Event(Action.DELETE, gone, _before(node), self._now_ns), "deleteSuccess")

    def _put(self, path: bytes, value: bytes | None, before: Node | None) -> None:
        self.index += 1
        created = self.index if before is None else before.created
        self._rows.append(node_row(path, value is None, created, self.index, 0, value or b""))
        made = Shown(path, value is None, value, 0, self.index, created)
        if before is None:
            self._event(Event(Action.CREATE, made, None, self._now_ns), "createSuccess")
        else:
            self._event(Event(Action.UPDATE, made, _before(before), self._now_ns), "updateSuccess")

    def _event(self, event: Event, counted: str) -> None:
        self._counts[COUNTED.index(counted)] += 1
        self._rows.append(event_row(event.index, event.encode()))


def _before(node: Node) -> Shown:
    return Shown(node.key, False, node.value, 0, node.modified, node.created)


_Done = tuple[int, bytes]


def _deleted(files: Files, path: bytes, missing: bytes) -> _Done:
    files.make()
    node = held(files.tree, path)
    if node is None:
        raise Refused(404, missing)
    files.delete(node)
    return 200, b""


# -- users


def _put_user(files: Files, change: UserChange) -> _Done:
    wish = UserWish.decode(change.wish)
    name = change.name.decode()
    if not wish.grant and not wish.revoke:
        known = None if wish.roles else find_user(files.tree, change.name)
        if known is None:
            user = _created(files, change.name, name, wish)
            return 200 if wish.roles else 201, f"{user.json(stored=False)}\n".encode()
    elif wish.roles:
        raise Refused(400, "User JSON contains both roles and grant/revoke")
    else:
        known = find_user(files.tree, change.name)
        if known is None:
            raise Refused(404, f"auth: User {name} does not exist.")
    user = _merged(known, wish)
    if user == known:
        raise Refused(400, "auth: User not updated. Use grant/revoke/password to update the user.")
    files.put(USERS + b"/" + change.name, user.json(stored=True))
    return 200, f"{user.json(stored=False)}\n".encode()


def _created(files: Files, key: bytes, name: str, wish: UserWish) -> User:
    if not wish.password:
        raise Refused(400, f"auth: Cannot create user {name} with an empty password")
    user = User(name, wish.password, with_root(wish.roles) if name == ROOT else wish.roles)
    path = USERS + b"/" + key
    files.make()
    if held(files.tree, path) is not None:
        raise Refused(409, f"auth: User {name} already exists.")
    files.put(path, user.json(stored=True))
    return user


def _merged(user: User, wish: UserWish) -> User:
    roles = set(user.roles or ())
    for role in wish.grant or ():
        if role in roles:
            raise Refused(409, f"auth: Granting duplicate role {role} for user {user.name}")
        roles.add(role)
    for role in wish.revoke or ():
        if role not in roles:
            raise Refused(409, f"auth: Revoking ungranted role {role} for user {user.name}")
        roles.remove(role)
    return User(user.name, wish.password or user.password, _sorted(roles))


def _sorted(names: set[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: name.encode("utf-8", "surrogatepass")))


def _delete_user(files: Files, change: UserChange) -> _Done:
    if enabled(files.tree) and change.name == ROOT.encode():
        raise Refused(403, "auth: Cannot delete root user while auth is enabled.")
    return _deleted(files, USERS + b"/" + change.name, b"auth: User %b does not exist" % change.name)


# -- roles


def _put_role(files: Files, change: UserChange) -> _Done:
    wish = RoleWish.decode(change.wish)
    name = change.name.decode()
    if not (wish.grant and not wish.grant.empty) and not (wish.revoke and not wish.revoke.empty):
        _changeable(name)
        role = Role(name, wish.permissions, wish.grant, wish.revoke)
        files.make()
        if held(files.tree, ROLES + b"/" + change.name) is not None:
            raise Refused(409, f"auth: Role {name} already exists.")
        files.put(ROLES + b"/" + change.name, role.json())
        return 201, f"{role.json()}\n".encode()
    if not wish.permissions.empty:
        raise Refused(400, "Role JSON contains both permissions and grant/revoke")
    _changeable(name)
    known = find_role(files.tree, name)
    if known is None:
        raise Refused(404, f"auth: Role {name} does not exist.")
    role = Role(name, _revoked(_granted(known.permissions, wish.grant), wish.revoke))
    if role == known:
        raise Refused(400, "auth: Role not updated. Use grant/revoke to update the role.")
    files.put(ROLES + b"/" + change.name, role.json())
    return 200, f"{role.json()}\n".encode()


def _changeable(name: str) -> None:
    if name == ROOT:
        raise Refused(403, f"auth: Cannot modify role {name}: is root role.")


def _granted(known: Permissions, more: Permissions | None) -> Permissions:
    if more is None:
        return known
    return Permissions(_added(known.read, more.read, "read"), _added(known.write, more.write, "write"))


def _added(known: Names, more: Names, kind: str) -> Names:
    found = set(known or ())
    for pattern in more or ():
        if pattern in found:
            raise Refused(409, f"auth: Granting duplicate {kind} permission {pattern}")
        found.add(pattern)
    return _sorted(found)


def _revoked(known: Permissions, less: Permissions | None) -> Permissions:
    if less is None:
        return known
    return Permissions(
        _sorted(set(known.read or ()) - set(less.read or ())),
        _sorted(set(known.write or ()) - set(less.write or ())),
    )


def _delete_role(files: Files, change: UserChange) -> _Done:
    if change.name == ROOT.encode():
        _changeable(ROOT)
    return _deleted(files, ROLES + b"/" + change.name, b"auth: Role %b doesn't exist." % change.name)


# -- the switch


def _enable(files: Files, change: UserChange) -> _Done:
    if enabled(files.tree):
        raise Refused(409, "auth: already enabled")
    if find_user(files.tree, ROOT.encode()) is None:
        raise Refused(409, "auth: No root user available, please create one")
    if find_role(files.tree, GUEST) is None:
        files.put(ROLES + b"/" + GUEST.encode(), GUEST_ROLE.json())
    files.put(ENABLED, "true")
    return 200, b""


def _disable(files: Files, change: UserChange) -> _Done:
    if not enabled(files.tree):
        raise Refused(409, "auth: already disabled")
    files.put(ENABLED, "false")
    return 200, b""


_EVALUATE: dict[UserOp, Callable[[Files, UserChange], _Done]] = {
    UserOp.PUT_USER: _put_user,
    UserOp.DELETE_USER: _delete_user,
    UserOp.PUT_ROLE: _put_role,
    UserOp.DELETE_ROLE: _delete_role,
    UserOp.ENABLE: _enable,
    UserOp.DISABLE: _disable,
}
