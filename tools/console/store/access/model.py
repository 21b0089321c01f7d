"""What users, roles and permissions are, in both versions of the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from muster_client import EVERYTHING, KeyRange, prefix

Kind = Literal["read", "write", "readwrite"]
Scope = Literal["key", "prefix", "range", "all"]
KINDS: tuple[Kind, ...] = ("read", "write", "readwrite")
ALL = (EVERYTHING, KeyRange(b"", b"\0"))
ROOT = "root"  # the user that may do everything, and its role


@dataclass(frozen=True, slots=True)
class Permission:
    """What a role may do with keys."""

    kind: Kind
    keys: KeyRange

    @property
    def scope(self) -> Scope:
        """How the keys were chosen."""
        if self.keys in ALL:
            return "all"
        if not self.keys.end:
            return "key"
        return "prefix" if prefix(self.keys.start) == self.keys else "range"


@dataclass(frozen=True, slots=True)
class User:
    """A user, with the names of its roles."""

    name: str
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Role:
    """A role, with what it may do."""

    name: str
    permissions: tuple[Permission, ...]


@dataclass(frozen=True, slots=True)
class Access:
    """All of them. ``whole``: false if the user sees nothing but itself and its roles."""

    enabled: bool
    users: tuple[User, ...]
    roles: tuple[Role, ...]
    whole: bool = True


class Accounts(Protocol):
    """Users and roles of one version. Whatever the cluster refuses is a MusterError."""

    scopes: tuple[Scope, ...]
    """What a permission can be for."""

    async def read(self) -> Access:
        """All that the user may see."""

    async def enable(self) -> None:
        """Ask for users from now on."""

    async def disable(self) -> None:
        """Ask for users no more."""

    async def add_user(self, name: str, password: str) -> None:
        """A new user."""

    async def set_password(self, name: str, password: str) -> None:
        """Another password."""

    async def delete_user(self, name: str) -> None:
        """Remove a user."""

    async def grant(self, user: str, role: str) -> None:
        """Give a role to a user."""

    async def revoke(self, user: str, role: str) -> None:
        """Take a role from a user."""

    async def add_role(self, name: str) -> None:
        """A new role, which may do nothing."""

    async def delete_role(self, name: str) -> None:
        """Remove a role, from its users, too."""

    async def allow(self, role: str, permission: Permission) -> None:
        """Let a role read or write keys."""

    async def forbid(self, role: str, permission: Permission) -> None:
        """Take a permission back."""
