"""Users, roles and permissions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from muster_client import ranges
from muster_client.pb import auth_pb2
from muster_client.pb import rpc_pb2 as pb
from muster_client.ranges import KeyRange, Keys
from muster_client.wire.calls import Caller, Method

Kind = Literal["read", "write", "readwrite"]
_KINDS: dict[Kind, auth_pb2.Permission.Type] = {
    "read": auth_pb2.Permission.READ, "write": auth_pb2.Permission.WRITE,
    "readwrite": auth_pb2.Permission.READWRITE}
_NAMES = {number: name for name, number in _KINDS.items()}
_ENABLE = Method("Auth/AuthEnable", pb.AuthEnableResponse)
_DISABLE = Method("Auth/AuthDisable", pb.AuthDisableResponse)
_STATUS = Method("Auth/AuthStatus", pb.AuthStatusResponse, repeatable=True)
_USER_ADD = Method("Auth/UserAdd", pb.AuthUserAddResponse)
_USER_GET = Method("Auth/UserGet", pb.AuthUserGetResponse, repeatable=True)
_USER_LIST = Method("Auth/UserList", pb.AuthUserListResponse, repeatable=True)
_USER_DELETE = Method("Auth/UserDelete", pb.AuthUserDeleteResponse)
_USER_PASSWORD = Method("Auth/UserChangePassword", pb.AuthUserChangePasswordResponse)
_USER_GRANT = Method("Auth/UserGrantRole", pb.AuthUserGrantRoleResponse)
_USER_REVOKE = Method("Auth/UserRevokeRole", pb.AuthUserRevokeRoleResponse)
_ROLE_ADD = Method("Auth/RoleAdd", pb.AuthRoleAddResponse)
_ROLE_GET = Method("Auth/RoleGet", pb.AuthRoleGetResponse, repeatable=True)
_ROLE_LIST = Method("Auth/RoleList", pb.AuthRoleListResponse, repeatable=True)
_ROLE_DELETE = Method("Auth/RoleDelete", pb.AuthRoleDeleteResponse)
_ROLE_GRANT = Method("Auth/RoleGrantPermission", pb.AuthRoleGrantPermissionResponse)
_ROLE_REVOKE = Method("Auth/RoleRevokePermission", pb.AuthRoleRevokePermissionResponse)


@dataclass(frozen=True, slots=True)
class Permission:
    """What a role may do with keys."""

    keys: KeyRange
    kind: Kind


@dataclass(frozen=True, slots=True)
class AuthStatus:
    """``revision`` counts the changes of users and roles."""

    enabled: bool
    revision: int


class Auth:
    """Users, roles and permissions; ``client.auth``. Keys are those of the whole store, also in a
    namespace. InvalidRequest or ServerError where the cluster refuses, in etcd's words."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def enable(self) -> None:
        """Ask for users from now on: there must be a user ``root`` with the role ``root``."""
        await self._call(_ENABLE, pb.AuthEnableRequest())

    async def disable(self) -> None:
        """Ask for users no more."""
        await self._call(_DISABLE, pb.AuthDisableRequest())

    async def status(self) -> AuthStatus:
        answer = await self._call(_STATUS, pb.AuthStatusRequest())
        return AuthStatus(answer.enabled, answer.authRevision)

    async def add_user(self, name: str, password: str | None) -> None:
        """A user; without a password it can only come by its TLS certificate."""
        options = auth_pb2.UserAddOptions(no_password=password is None)
        await self._call(_USER_ADD, pb.AuthUserAddRequest(
            name=name, password=password or "", options=options))

    async def delete_user(self, name: str) -> None:
        await self._call(_USER_DELETE, pb.AuthUserDeleteRequest(name=name))

    async def set_password(self, name: str, password: str) -> None:
        await self._call(_USER_PASSWORD, pb.AuthUserChangePasswordRequest(name=name, password=password))

    async def users(self) -> list[str]:
        """All of them, by name."""
        return list((await self._call(_USER_LIST, pb.AuthUserListRequest())).users)

    async def user_roles(self, name: str) -> list[str]:
        """The roles of a user."""
        return list((await self._call(_USER_GET, pb.AuthUserGetRequest(name=name))).roles)

    async def grant_role(self, user: str, role: str) -> None:
        await self._call(_USER_GRANT, pb.AuthUserGrantRoleRequest(user=user, role=role))

    async def revoke_role(self, user: str, role: str) -> None:
        await self._call(_USER_REVOKE, pb.AuthUserRevokeRoleRequest(name=user, role=role))

    async def add_role(self, name: str) -> None:
        await self._call(_ROLE_ADD, pb.AuthRoleAddRequest(name=name))

    async def delete_role(self, name: str) -> None:
        await self._call(_ROLE_DELETE, pb.AuthRoleDeleteRequest(role=name))

    async def roles(self) -> list[str]:
        """All of them, by name."""
        return list((await self._call(_ROLE_LIST, pb.AuthRoleListRequest())).roles)

    async def permissions(self, role: str) -> list[Permission]:
        """What a role may do."""
        answer = await self._call(_ROLE_GET, pb.AuthRoleGetRequest(role=role))
        return [Permission(KeyRange(one.key, one.range_end), _NAMES[one.permType]) for one in answer.perm]

    async def grant_permission(self, role: str, keys: Keys, kind: Kind) -> None:
        """Let a role read or write keys."""
        where = ranges.of(keys)
        await self._call(_ROLE_GRANT, pb.AuthRoleGrantPermissionRequest(name=role, perm=auth_pb2.Permission(
            permType=_KINDS[kind], key=where.start, range_end=where.end)))

    async def revoke_permission(self, role: str, keys: Keys) -> None:
        """Take the permission for exactly these keys back."""
        where = ranges.of(keys)
        await self._call(_ROLE_REVOKE, pb.AuthRoleRevokePermissionRequest(
            role=role, key=where.start, range_end=where.end))

    async def _call(self, method: Method[Any], request: Any) -> Any:
        return await self._caller.unary(method, request)
