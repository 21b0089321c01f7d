"""Users and roles of version 2."""

from __future__ import annotations

from typing import Any

from muster_client import EVERYTHING, KeyRange, prefix

from tools.console.store.access.model import Access, Kind, Permission, Role, Scope, User
from tools.console.store.v2.calls import Version2


class Accounts2:
    """Users and roles, asked for as a user of version 2."""

    scopes: tuple[Scope, ...] = ("prefix", "key", "all")

    def __init__(self, v2: Version2) -> None:
        self._v2 = v2

    async def read(self) -> Access:
        enabled = (await self._v2.ask("GET", "/auth/enable"))["enabled"]
        users = (await self._v2.ask("GET", "/auth/users")).get("users") or ()
        roles = (await self._v2.ask("GET", "/auth/roles")).get("roles") or ()
        return Access(
            enabled,
            tuple(sorted(map(_user, users), key=lambda one: one.name)),
            tuple(sorted(map(_role, roles), key=lambda one: one.name)),
        )

    async def enable(self) -> None:
        await self._v2.ask("PUT", "/auth/enable")

    async def disable(self) -> None:
        await self._v2.ask("DELETE", "/auth/enable")

    async def add_user(self, name: str, password: str) -> None:
        await self._put_user(name, password=password)

    async def set_password(self, name: str, password: str) -> None:
        await self._put_user(name, password=password)

    async def delete_user(self, name: str) -> None:
        await self._v2.ask("DELETE", f"/auth/users/{name}")

    async def grant(self, user: str, role: str) -> None:
        await self._put_user(user, grant=[role])

    async def revoke(self, user: str, role: str) -> None:
        await self._put_user(user, revoke=[role])

    async def add_role(self, name: str) -> None:
        await self._put_role(name)

    async def delete_role(self, name: str) -> None:
        await self._v2.ask("DELETE", f"/auth/roles/{name}")

    async def allow(self, role: str, permission: Permission) -> None:
        await self._put_role(role, grant=_wish(permission))

    async def forbid(self, role: str, permission: Permission) -> None:
        await self._put_role(role, revoke=_wish(permission))

    async def _put_user(self, name: str, **fields: Any) -> None:
        await self._v2.ask("PUT", f"/auth/users/{name}", body={"user": name, **fields})

    async def _put_role(self, name: str, **fields: Any) -> None:
        await self._v2.ask("PUT", f"/auth/roles/{name}", body={"role": name, **fields})


def _user(told: dict[str, Any]) -> User:
    roles = (one["role"] if isinstance(one, dict) else one for one in told.get("roles") or ())
    return User(told["user"], tuple(sorted(roles)))


def _role(told: dict[str, Any]) -> Role:
    """A pattern that may be both read and written is one permission."""
    kv = (told.get("permissions") or {}).get("kv") or {}
    read, write = set(kv.get("read") or ()), set(kv.get("write") or ())
    found = []
    for pattern in sorted(read | write):
        kind: Kind = "readwrite" if pattern in read & write else "read" if pattern in read else "write"
        found.append(Permission(kind, keys_of(pattern)))
    return Role(told["role"], tuple(found))


def _wish(permission: Permission) -> dict[str, Any]:
    pattern = pattern_of(permission.keys)
    return {
        "kv": {
            "read": [pattern] if permission.kind != "write" else [],
            "write": [pattern] if permission.kind != "read" else [],
        }
    }


def pattern_of(keys: KeyRange) -> str:
    """Keys as version 2 writes them: ``/a``, or ``/a*`` for a prefix."""
    if keys == EVERYTHING:
        return "/*"
    text = keys.start.decode()
    return f"{text}*" if keys.end else text


def keys_of(pattern: str) -> KeyRange:
    """The keys of a pattern."""
    if pattern == "/*":
        return EVERYTHING
    if pattern == "*":  # a permission of its own
        return KeyRange(b"", b"\0")
    if pattern.endswith("*"):
        return prefix(pattern[:-1])
    return KeyRange(pattern.encode(), b"")
