"""Users and roles of version 3, by gRPC."""

from __future__ import annotations

import asyncio
from typing import Any

from muster_client import Client, KeyRange, MusterError, PermissionDenied
from muster_client.pb import auth_pb2
from muster_client.pb import rpc_pb2 as pb
from muster_client.wire.calls import Method

from tools.console.store import raw
from tools.console.store.access.model import Access, Kind, Permission, Role, Scope, User

_TOGETHER = 16
_KINDS: dict[Kind, auth_pb2.Permission.Type] = {
    "read": auth_pb2.Permission.READ,
    "write": auth_pb2.Permission.WRITE,
    "readwrite": auth_pb2.Permission.READWRITE,
}
_KIND_OF = {number: kind for kind, number in _KINDS.items()}
_STATUS = Method("Auth/AuthStatus", pb.AuthStatusResponse, repeatable=True)
_USERS = Method("Auth/UserList", pb.AuthUserListResponse, repeatable=True)
_USER = Method("Auth/UserGet", pb.AuthUserGetResponse, repeatable=True)
_ROLES = Method("Auth/RoleList", pb.AuthRoleListResponse, repeatable=True)
_ROLE = Method("Auth/RoleGet", pb.AuthRoleGetResponse, repeatable=True)


async def user(client: Client, name: str) -> User:
    """A user with its roles; each user may ask for itself. MusterError."""
    told = await raw.call(client, _USER, pb.AuthUserGetRequest(name=name))
    return User(name, tuple(sorted(told.roles)))


async def role(client: Client, name: str) -> Role:
    """A role with its permissions; each user may ask for its own. MusterError."""
    told = await raw.call(client, _ROLE, pb.AuthRoleGetRequest(role=name))
    found = (Permission(_KIND_OF[one.permType], KeyRange(one.key, one.range_end)) for one in told.perm)
    return Role(name, tuple(sorted(found, key=lambda one: (one.keys.start, one.keys.end))))


class Version3:
    """Users and roles, asked for as one user; empty: nobody by name."""

    scopes: tuple[Scope, ...] = ("prefix", "key", "range", "all")

    def __init__(self, client: Client, name: str) -> None:
        self._client, self._name = client, name

    async def read(self) -> Access:
        """Everything, or, for all but ``root``, the user itself and its roles."""
        try:
            status = await raw.call(self._client, _STATUS, pb.AuthStatusRequest())
            names = sorted((await raw.call(self._client, _USERS, pb.AuthUserListRequest())).users)
            roles = sorted((await raw.call(self._client, _ROLES, pb.AuthRoleListRequest())).roles)
        except PermissionDenied:
            if not self._name:
                raise
            own = await user(self._client, self._name)
            return Access(True, (own,), await self._roles(own.roles), whole=False)
        return Access(status.enabled, await self._users(names), await self._roles(roles))

    async def enable(self) -> None:
        await self._ask("AuthEnable", pb.AuthEnableRequest())

    async def disable(self) -> None:
        await self._ask("AuthDisable", pb.AuthDisableRequest())

    async def add_user(self, name: str, password: str) -> None:
        """Without a password, the user can only come by its TLS certificate."""
        options = auth_pb2.UserAddOptions(no_password=not password)
        await self._ask("UserAdd", pb.AuthUserAddRequest(name=name, password=password, options=options))

    async def set_password(self, name: str, password: str) -> None:
        await self._ask("UserChangePassword", pb.AuthUserChangePasswordRequest(name=name, password=password))

    async def delete_user(self, name: str) -> None:
        await self._ask("UserDelete", pb.AuthUserDeleteRequest(name=name))

    async def grant(self, user: str, role: str) -> None:
        await self._ask("UserGrantRole", pb.AuthUserGrantRoleRequest(user=user, role=role))

    async def revoke(self, user: str, role: str) -> None:
        await self._ask("UserRevokeRole", pb.AuthUserRevokeRoleRequest(name=user, role=role))

    async def add_role(self, name: str) -> None:
        await self._ask("RoleAdd", pb.AuthRoleAddRequest(name=name))

    async def delete_role(self, name: str) -> None:
        await self._ask("RoleDelete", pb.AuthRoleDeleteRequest(role=name))

    async def allow(self, role: str, permission: Permission) -> None:
        wish = auth_pb2.Permission(
            permType=_KINDS[permission.kind], key=permission.keys.start, range_end=permission.keys.end
        )
        await self._ask("RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(name=role, perm=wish))

    async def forbid(self, role: str, permission: Permission) -> None:
        keys = permission.keys
        await self._ask(
            "RoleRevokePermission",
            pb.AuthRoleRevokePermissionRequest(role=role, key=keys.start, range_end=keys.end),
        )

    async def _ask(self, name: str, request: Any) -> None:
        answer = getattr(pb, f"Auth{name.removeprefix('Auth')}Response")
        await raw.call(self._client, Method(f"Auth/{name}", answer), request)

    async def _users(self, names: list[str]) -> tuple[User, ...]:
        gate = asyncio.Semaphore(_TOGETHER)

        async def one(name: str) -> User | None:
            async with gate:
                try:
                    return await user(self._client, name)
                except PermissionDenied:
                    raise
                except MusterError as error:
                    if "user name not found" in str(error):  # it was deleted meanwhile
                        return None
                    raise

        return tuple(found for found in await asyncio.gather(*map(one, names)) if found is not None)

    async def _roles(self, names: tuple[str, ...] | list[str]) -> tuple[Role, ...]:
        gate = asyncio.Semaphore(_TOGETHER)

        async def one(name: str) -> Role | None:
            async with gate:
                try:
                    return await role(self._client, name)
                except PermissionDenied:
                    raise
                except MusterError as error:
                    if "role name not found" in str(error):
                        return None
                    raise

        return tuple(found for found in await asyncio.gather(*map(one, names)) if found is not None)
