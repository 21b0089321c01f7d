"""Users and roles of version 3, by gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import grpc
from muster_client import AuthenticationFailed, Client, MusterError, PermissionDenied, ServerError
from muster_client.pb import rpc_pb2 as pb

from tools.console.store import raw
from tools.console.store.access.model import Access, Permission, Role, Scope, User

_TOGETHER = 16
_NOT_ENABLED = "etcdserver: authentication is not enabled"
T = TypeVar("T")


async def user(client: Client, name: str) -> User:
    """A user with its roles; each user may ask for itself. MusterError."""
    return User(name, tuple(sorted(await client.auth.user_roles(name))))


async def role(client: Client, name: str) -> Role:
    """A role with its permissions; each user may ask for its own. MusterError."""
    found = (Permission(one.kind, one.keys) for one in await client.auth.permissions(name))
    return Role(name, tuple(sorted(found, key=lambda one: (one.keys.start, one.keys.end))))


async def are_enabled(client: Client) -> bool:
    """Whether users count. MusterError."""
    try:
        return (await client.auth.status()).enabled
    except ServerError as error:
        if error.code is not grpc.StatusCode.UNIMPLEMENTED:
            raise
    try:  # etcd 3.4 tells it by why nobody can log in
        await raw.call(client, raw.AUTHENTICATE, pb.AuthenticateRequest())
    except ServerError as error:
        if error.message == _NOT_ENABLED:
            return False
        if not isinstance(error, AuthenticationFailed):
            raise
    return True


class Version3:
    """Users and roles, asked for as one user; empty: nobody by name."""

    scopes: tuple[Scope, ...] = ("prefix", "key", "range", "all")

    def __init__(self, client: Client, name: str) -> None:
        self._client, self._name = client, name

    async def read(self) -> Access:
        """Everything, or, for all but ``root``, the user itself and its roles."""
        auth = self._client.auth
        try:
            enabled = await are_enabled(self._client)
            names = sorted(await auth.users())
            roles = sorted(await auth.roles())
        except PermissionDenied:
            if not self._name:
                raise
            own = await user(self._client, self._name)
            return Access(True, (own,), await self._roles(own.roles), whole=False)
        found = await self._every(user, names, "user name not found")
        return Access(enabled, found, await self._roles(roles))

    async def enable(self) -> None:
        await self._client.auth.enable()

    async def disable(self) -> None:
        await self._client.auth.disable()

    async def add_user(self, name: str, password: str) -> None:
        """Without a password, the user can only come by its TLS certificate."""
        await self._client.auth.add_user(name, password or None)

    async def set_password(self, name: str, password: str) -> None:
        await self._client.auth.set_password(name, password)

    async def delete_user(self, name: str) -> None:
        await self._client.auth.delete_user(name)

    async def grant(self, user: str, role: str) -> None:
        await self._client.auth.grant_role(user, role)

    async def revoke(self, user: str, role: str) -> None:
        await self._client.auth.revoke_role(user, role)

    async def add_role(self, name: str) -> None:
        await self._client.auth.add_role(name)

    async def delete_role(self, name: str) -> None:
        await self._client.auth.delete_role(name)

    async def allow(self, role: str, permission: Permission) -> None:
        await self._client.auth.grant_permission(role, permission.keys, permission.kind)

    async def forbid(self, role: str, permission: Permission) -> None:
        await self._client.auth.revoke_permission(role, permission.keys)

    async def _every(
        self, ask: Callable[[Client, str], Awaitable[T]], names: Iterable[str], gone: str
    ) -> tuple[T, ...]:
        """What is asked of each name; ``gone``: the server's words of one that was deleted meanwhile."""
        gate = asyncio.Semaphore(_TOGETHER)

        async def one(name: str) -> T | None:
            async with gate:
                try:
                    return await ask(self._client, name)
                except PermissionDenied:
                    raise
                except MusterError as error:
                    if gone in str(error):
                        return None
                    raise

        return tuple(found for found in await asyncio.gather(*map(one, names)) if found is not None)

    async def _roles(self, names: Iterable[str]) -> tuple[Role, ...]:
        return await self._every(role, names, "role name not found")
