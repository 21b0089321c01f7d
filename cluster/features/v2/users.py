"""Users and roles of version 2, and what they may.

They are files of the tree, as in etcd: ``/2/users/<name>``, ``/2/roles/<name>`` and ``/2/enabled``, whose
values are etcd's JSON. So a leader judges a write, and a replica a read, by the same tree that answers it.

A password is compared by the front (it takes long), which then shows the fingerprint of the hash. Where that
is not the user's, the answer is PROVE, with the hash, for the front alone.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from hashlib import sha256

from cluster.features.v2.refusals import Code, V2Error
from cluster.features.v2.requests import PROVE, Answer, Who, said
from cluster.features.v2.text import quoted
from cluster.features.v2.tree import AUTH, KEYS, Node, Tree

USERS, ROLES, ENABLED = AUTH + b"/users", AUTH + b"/roles", AUTH + b"/enabled"
ROOT, GUEST = "root", "guest"
MOST_BYTES = 128 << 10  # of a user or a role
_MOST_JUDGED_BYTES = 256 << 10  # of the roles by which one request is judged: some 20 ms
_MOST_SHOWN_BYTES = 1 << 20  # of a user with its roles
_MOST_LISTED_BYTES = 16 << 20

Names = tuple[str, ...] | None  # None: JSON's null


@dataclass(slots=True, frozen=True)
class User:
    """``/2/users/<name>``."""

    name: str
    password: str  # bcrypt's hash
    roles: Names

    def json(self, *, stored: bool) -> str:
        """As it is stored, or as clients read it."""
        secret = f'"password":{_text(self.password)},' if stored and self.password else ""
        return f'{{"user":{_text(self.name)},{secret}"roles":{_list(self.roles)}}}'


@dataclass(slots=True, frozen=True)
class Permissions:
    """Patterns of keys: a pattern with ``*`` at its end is a prefix."""

    read: Names = None
    write: Names = None

    @property
    def empty(self) -> bool:
        return not self.read and not self.write

    def json(self) -> str:
        return f'{{"kv":{{"read":{_list(self.read)},"write":{_list(self.write)}}}}}'


@dataclass(slots=True, frozen=True)
class Role:
    """``/2/roles/<name>``."""

    name: str
    permissions: Permissions
    grant: Permissions | None = None  # of one that was made with an empty one, as etcd keeps it
    revoke: Permissions | None = None

    def json(self) -> str:
        more = "".join(
            f',"{name}":{found.json()}'
            for name, found in (("grant", self.grant), ("revoke", self.revoke))
            if found is not None
        )
        return f'{{"role":{_text(self.name)},"permissions":{self.permissions.json()}{more}}}'


_ALL = Permissions(("/*",), ("/*",))
ROOT_ROLE, GUEST_ROLE = Role(ROOT, _ALL), Role(GUEST, _ALL)


def _text(text: str) -> str:
    return quoted(text.encode("utf-8", "surrogatepass"))


def _list(names: Names) -> str:
    return "null" if names is None else f"[{','.join(map(_text, names))}]"


# -- what the tree holds


def held(tree: Tree, path: bytes) -> Node | None:
    """The node there, if there is one."""
    try:
        return tree.find(path)
    except V2Error:
        return None


def enabled(tree: Tree) -> bool:
    """Whether requests are judged. Asked for each of them."""
    assert tree.root.children is not None
    below = tree.root.children.get(b"2")
    if below is None or below.children is None:
        return False
    switch = below.children.get(b"enabled")
    return switch is not None and switch.value == b"true"


def find_user(tree: Tree, name: bytes) -> User | None:
    """A user; root always has the role of its name."""
    node = held(tree, USERS + b"/" + name) if name else None
    if node is None or node.children is not None:
        return None
    found = json.loads(node.value)
    user = User(found["user"], found.get("password", ""), _names(found["roles"]))
    return User(ROOT, user.password, with_root(user.roles)) if user.name == ROOT else user


def with_root(roles: Names) -> Names:
    return roles if roles and ROOT in roles else (*(roles or ()), ROOT)


def _role_node(tree: Tree, name: str) -> Node | None:
    encoded = name.encode("utf-8", "surrogatepass")
    if not encoded or b"/" in encoded:
        return None
    node = held(tree, ROLES + b"/" + encoded)
    return None if node is None or node.children is not None else node


def find_role(tree: Tree, name: str) -> Role | None:
    """A role; that of root is not stored, and cannot be changed."""
    if name == ROOT:
        return ROOT_ROLE
    node = _role_node(tree, name)
    return None if node is None else _role_in(node)


def _role_in(node: Node) -> Role:
    found = json.loads(node.value)
    permissions = _permissions(found["permissions"])
    return Role(found["role"], permissions or Permissions(), *map(_permissions, map(found.get, _CHANGES)))


_CHANGES = ("grant", "revoke")


def _permissions(found: dict[str, dict[str, list[str] | None]] | None) -> Permissions | None:
    return None if found is None else Permissions(*(_names(found["kv"][name]) for name in ("read", "write")))


def _names(found: list[str] | None) -> Names:
    return None if found is None else tuple(found)


def fingerprint(known: bytes) -> int:
    """What a front shows of a hash that a password was compared with."""
    return int.from_bytes(sha256(known).digest()[:8]) | 1


# -- what a user may


def _asking(tree: Tree, who: Who | None) -> tuple[User | None, Answer | None]:
    """The user that asks (None: no user is named, or it does not exist), and what is answered instead while
    its password is to be compared."""
    user = None if who is None else find_user(tree, who.name)
    if who is None or user is None or who.certified:
        return user, None
    known = user.password.encode()
    return user, None if who.proof == fingerprint(known) else Answer(tree.index, known, PROVE)


def refusal(
    tree: Tree, who: Who | None, path: bytes, slash: bool, recursive: bool, write: bool
) -> Answer | None:
    """What is answered instead of a request for a key that the user may not make; None: it may."""
    if not enabled(tree):
        return None
    user, unproven = _asking(tree, who)
    if unproven is not None:
        return unproven
    key = path.removeprefix(KEYS) + (b"/" if slash else b"")
    if user is not None:
        allowed = any(_may(role, key, recursive, write) for role in _judging(tree, user))
    elif who is None or who.certified:
        allowed = _may(find_role(tree, GUEST), key, False, write)
    else:
        allowed = False
    if allowed:
        return None
    return Answer(0, V2Error(Code.UNAUTHORIZED, b"Insufficient credentials").json(), Code.UNAUTHORIZED)


def _judging(tree: Tree, user: User) -> Iterator[Role]:
    """The user's roles, as many as count: what a request costs a node is bounded."""
    if ROOT in (user.roles or ()):
        yield ROOT_ROLE
        return
    left = _MOST_JUDGED_BYTES
    for name in dict.fromkeys(user.roles or ()):
        node = _role_node(tree, name)
        left -= 64 if node is None else 64 + len(node.value)
        if left < 0:
            return
        if node is not None:
            yield _role_in(node)


def _may(role: Role | None, key: bytes, recursive: bool, write: bool) -> bool:
    if role is None:
        return False
    if role.name == ROOT:
        return True
    patterns = role.permissions.write if write else role.permissions.read
    for pattern in patterns or ():
        if pattern.endswith("*"):
            if key.startswith(pattern[:-1].encode("utf-8", "surrogatepass")):
                return True
        elif not recursive and pattern and key == pattern.encode("utf-8", "surrogatepass"):
            return True
    return False


def root_refusal(tree: Tree, who: Who | None) -> Answer | None:
    """What is answered instead of a request that needs the role root; None: the user has it."""
    if not enabled(tree):
        return None
    user, unproven = _asking(tree, who)
    if unproven is not None:
        return unproven
    if user is not None and ROOT in (user.roles or ()):
        return None
    return Answer(tree.index, message("Insufficient credentials"), 401)


# -- what is shown


def message(text: str | bytes) -> bytes:
    """The body of a refusal."""
    told = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return f'{{"message":{quoted(told)}}}'.encode()


_TOO_LARGE = 500, message("etcdserver: request is too large")


class What(IntEnum):
    """A question about users and roles. Numbers are never reused."""

    ENABLED = 1  # any client may ask
    MAY = 2  # whether the user has the role root
    USERS = 3
    USER = 4
    ROLES = 5
    ROLE = 6


_SHOW = struct.Struct("<BB")  # what, whether a user is named


@dataclass(slots=True, frozen=True)
class Show:
    """A question about users and roles (V2_READ, Kind.USERS)."""

    what: What
    who: Who | None = None
    name: bytes = b""

    def encode(self) -> bytes:
        return _SHOW.pack(self.what, self.who is not None) + said(self.who) + self.name

    @classmethod
    def decode(cls, data: bytes) -> Show:
        """struct.error, ValueError: it is none."""
        what, named = _SHOW.unpack_from(data)
        who, at = Who.decode(data, _SHOW.size, named)
        return cls(What(what), who, data[at:])


def shown(tree: Tree, asked: Show) -> Answer:
    """Its answer; the code is the HTTP status."""
    *_, answer = steps(tree, asked)
    assert answer is not None, "it is the last one"
    return answer


def lists(asked: Show) -> bool:
    """Whether the answer may take long."""
    return asked.what in (What.USERS, What.ROLES)


def steps(tree: Tree, asked: Show) -> Iterator[Answer | None]:
    """Its answer at last, in short steps."""
    index = tree.index
    if asked.what == What.ENABLED:
        yield Answer(index, b'{"enabled":%b}\n' % (b"true" if enabled(tree) else b"false"), 200)
        return
    refused = root_refusal(tree, asked.who)
    if refused is not None:
        yield refused
    elif lists(asked):
        listed = None
        for listed in (_users if asked.what == What.USERS else _roles)(tree):
            if listed is None:
                yield None
        status, body = _TOO_LARGE if listed is None else (200, listed)
        yield Answer(index, body, status)
    else:
        status, body = _SHOWN[asked.what](tree, asked.name)
        yield Answer(index, body, status)


def _role_texts(tree: Tree) -> Callable[[str], str | None]:
    """What is shown of a role (None: it does not exist), each read once."""

    @cache
    def text(name: str) -> str | None:
        role = find_role(tree, name)
        return None if role is None else role.json()

    return text


def _user(tree: Tree, name: bytes) -> tuple[int, bytes]:
    user = find_user(tree, name)
    if user is None:
        return 404, message(b"auth: User %b does not exist." % name)
    role_text, texts, size = _role_texts(tree), [], 0
    for role in user.roles or ():
        text = role_text(role)
        if text is None:
            return 404, message(f"auth: Role {role} does not exist.")
        texts.append(text)
        size += len(text)
        if size > _MOST_SHOWN_BYTES:
            return _TOO_LARGE
    return 200, f"{_with_roles(user, texts)}\n".encode()


def _role(tree: Tree, name: bytes) -> tuple[int, bytes]:
    role = find_role(tree, name.decode("utf-8", "surrogateescape"))
    if role is None:
        return 404, message(b"auth: Role %b does not exist." % name)
    return 200, f"{role.json()}\n".encode()


def _with_roles(user: User, roles: list[str]) -> str:
    listed = f',"roles":[{",".join(roles)}]' if roles else ""
    return f'{{"user":{_text(user.name)}{listed}}}'


def _users(tree: Tree) -> Iterator[bytes | None]:
    """The list at last; only None: it is too long."""
    role_text, found, size = _role_texts(tree), [], 0
    for name in _below(tree, USERS):
        user = find_user(tree, name)
        if user is None:
            continue
        texts = []
        for role in user.roles or ():
            text = role_text(role)
            if text is not None:
                texts.append(text)
                size += len(text)
            if size > _MOST_LISTED_BYTES:
                return
            yield None
        found.append(_with_roles(user, texts))
        size += len(found[-1])
        yield None
    listed = f"[{','.join(found)}]" if found else "null"
    yield f'{{"users":{listed}}}\n'.encode()


def _roles(tree: Tree) -> Iterator[bytes | None]:
    """The list at last; only None: it is too long."""
    found, size = [], 0
    for name in sorted([ROOT.encode(), *_below(tree, ROLES)]):
        role = find_role(tree, name.decode("utf-8", "surrogatepass"))
        if role is not None:
            found.append(role.json())
            size += len(found[-1])
        if size > _MOST_LISTED_BYTES:
            return
        yield None
    yield f'{{"roles":[{",".join(found)}]}}\n'.encode()


def _below(tree: Tree, path: bytes) -> Iterable[bytes]:
    """The names there, in order; hidden ones are not listed, as in etcd."""
    node = held(tree, path)
    children = {} if node is None else node.children or {}
    return sorted(name for name, child in children.items() if not child.hidden)


_SHOWN = {What.MAY: lambda tree, name: (200, b""), What.USER: _user, What.ROLE: _role}
