"""``auth``, ``user`` and ``role``."""

from __future__ import annotations

import sys
from typing import TypeVar

from google.protobuf.message import Message
from muster_client.pb import auth_pb2
from muster_client.pb import rpc_pb2 as pb

from cluster.errors import ROOT_ROLE_NOT_EXIST
from cluster.gotext import prefix_end, text
from tools.musterctl import passwords
from tools.musterctl.client import Client, RequestError, Session, failing_with, session
from tools.musterctl.command import Exit, Invocation
from tools.musterctl.printing import print_auth

R = TypeVar("R", bound=Message)
_PERMISSIONS = {"READ": 0, "WRITE": 1, "READWRITE": 2}


def _args(invocation: Invocation, count: int, message: str) -> list[str]:
    if len(invocation.args) != count:
        raise Exit(128, message)
    return invocation.args


def _ask(s: Session, method: str, request: Message, kind: type[R]) -> R:
    return s.ask(f"Auth/{method}", request, kind, limited=False)


def _change(invocation: Invocation, method: str, request: Message, kind: type[R], said: str) -> None:
    s = session(invocation)
    print_auth.done(s.printer, said, _ask(s, method, request, kind))


# -- auth


def status(invocation: Invocation) -> None:
    _args(invocation, 0, "auth status command does not accept any arguments")
    s = session(invocation)
    print_auth.status(s.printer, s.ask("Auth/AuthStatus", pb.AuthStatusRequest(), pb.AuthStatusResponse))


def enable(invocation: Invocation) -> None:
    """A root without its role is given it."""
    _args(invocation, 0, "auth enable command does not accept any arguments")
    s = session(invocation)
    client = s.client()
    with failing_with():
        try:
            _enable(s, client)
        except RequestError as error:
            if str(error) != ROOT_ROLE_NOT_EXIST.text:
                raise
            client.unary(
                "Auth/RoleAdd", pb.AuthRoleAddRequest(name="root"), pb.AuthRoleAddResponse, s.timeout_s
            )
            grant = pb.AuthUserGrantRoleRequest(user="root", role="root")
            client.unary("Auth/UserGrantRole", grant, pb.AuthUserGrantRoleResponse, s.timeout_s)
            _enable(s, client)
    print("Authentication Enabled")


def _enable(s: Session, client: Client) -> None:
    client.unary("Auth/AuthEnable", pb.AuthEnableRequest(), pb.AuthEnableResponse, s.timeout_s)


def disable(invocation: Invocation) -> None:
    _args(invocation, 0, "auth disable command does not accept any arguments")
    s = session(invocation)
    s.ask("Auth/AuthDisable", pb.AuthDisableRequest(), pb.AuthDisableResponse)
    print("Authentication Disabled")


# -- user


def user_add(invocation: Invocation) -> None:
    (name,) = _args(invocation, 1, "user add command requires user name as its argument")
    flags = invocation.flags
    request = pb.AuthUserAddRequest(name=name, options=auth_pb2.UserAddOptions())
    if flags.switch("no-password"):
        request.options.no_password = True
    elif flags.string("new-user-password"):
        request.password = flags.string("new-user-password")
    elif ":" in name:
        request.name, _, request.password = name.partition(":")
        if not request.name:
            raise Exit(128, "empty user name is not allowed")
    else:
        request.password = _new_password(invocation, name)
    _change(invocation, "UserAdd", request, pb.AuthUserAddResponse, f"User {request.name} created\n")


def _new_password(invocation: Invocation, name: str) -> str:
    if not invocation.flags.switch("interactive"):
        words = text(sys.stdin.buffer.readline()).split()
        return words[0] if words else ""
    password = passwords.ask(f"Password of {name}: ")
    if not password:
        raise Exit(128, "empty password")
    if password != passwords.ask(f"Type password of {name} again for confirmation: "):
        raise Exit(128, "given passwords are different")
    return password


def user_get(invocation: Invocation) -> None:
    (name,) = _args(invocation, 1, "user get command requires user name as its argument")
    s = session(invocation)
    r = _ask(s, "UserGet", pb.AuthUserGetRequest(name=name), pb.AuthUserGetResponse)
    if not invocation.flags.switch("detail"):
        print_auth.user(s.printer, name, r)
        return
    print(f"User: {name}")
    for role in r.roles:
        print()
        _show_role(s, role)


def user_list(invocation: Invocation) -> None:
    _args(invocation, 0, "user list command requires no arguments")
    s = session(invocation)
    print_auth.users(s.printer, _ask(s, "UserList", pb.AuthUserListRequest(), pb.AuthUserListResponse))


def user_delete(invocation: Invocation) -> None:
    (name,) = _args(invocation, 1, "user delete command requires user name as its argument")
    _change(invocation, "UserDelete", pb.AuthUserDeleteRequest(name=name), pb.AuthUserDeleteResponse,
            f"User {name} deleted\n")


def user_passwd(invocation: Invocation) -> None:
    (name,) = _args(invocation, 1, "user passwd command requires user name as its argument")
    request = pb.AuthUserChangePasswordRequest(name=name, password=_new_password(invocation, name))
    _change(invocation, "UserChangePassword", request, pb.AuthUserChangePasswordResponse,
            "Password updated\n")


def user_grant_role(invocation: Invocation) -> None:
    user, role = _args(invocation, 2, "user grant command requires user name and role name as its argument")
    request = pb.AuthUserGrantRoleRequest(user=user, role=role)
    _change(invocation, "UserGrantRole", request, pb.AuthUserGrantRoleResponse,
            f"Role {role} is granted to user {user}\n")


def user_revoke_role(invocation: Invocation) -> None:
    user, role = _args(invocation, 2, "user revoke-role requires user name and role name as its argument")
    request = pb.AuthUserRevokeRoleRequest(name=user, role=role)
    _change(invocation, "UserRevokeRole", request, pb.AuthUserRevokeRoleResponse,
            f"Role {role} is revoked from user {user}\n")


# -- role


def role_add(invocation: Invocation) -> None:
    (role,) = _args(invocation, 1, "role add command requires role name as its argument")
    _change(invocation, "RoleAdd", pb.AuthRoleAddRequest(name=role), pb.AuthRoleAddResponse,
            f"Role {role} created\n")


def role_delete(invocation: Invocation) -> None:
    (role,) = _args(invocation, 1, "role delete command requires role name as its argument")
    _change(invocation, "RoleDelete", pb.AuthRoleDeleteRequest(role=role), pb.AuthRoleDeleteResponse,
            f"Role {role} deleted\n")


def role_get(invocation: Invocation) -> None:
    (role,) = _args(invocation, 1, "role get command requires role name as its argument")
    s = session(invocation)
    _show_role(s, role)


def _show_role(s: Session, role: str) -> None:
    found = _ask(s, "RoleGet", pb.AuthRoleGetRequest(role=role), pb.AuthRoleGetResponse)
    print_auth.role(s.printer, role, found)


def role_list(invocation: Invocation) -> None:
    _args(invocation, 0, "role list command requires no arguments")
    s = session(invocation)
    print_auth.roles(s.printer, _ask(s, "RoleList", pb.AuthRoleListRequest(), pb.AuthRoleListResponse))


def role_grant_permission(invocation: Invocation) -> None:
    if len(invocation.args) < 3:
        raise Exit(
            128, "role grant command requires role name, permission type, and key [endkey] as its argument")
    role, kind = invocation.args[:2]
    if kind.upper() not in _PERMISSIONS:
        raise Exit(128, f"invalid permission type: {kind}")
    key, range_end = _permission_range(invocation, invocation.args[2:])
    perm = auth_pb2.Permission(key=key, range_end=range_end)
    perm.permType = _PERMISSIONS[kind.upper()]  # type: ignore[assignment]  # an enum's number
    request = pb.AuthRoleGrantPermissionRequest(name=role, perm=perm)
    _change(invocation, "RoleGrantPermission", request, pb.AuthRoleGrantPermissionResponse,
            f"Role {role} updated\n")


def role_revoke_permission(invocation: Invocation) -> None:
    if len(invocation.args) < 2:
        raise Exit(128, "role revoke-permission command requires role name and key [endkey] as its argument")
    role, shown = invocation.args[:2]
    key, range_end = _permission_range(invocation, invocation.args[1:])
    request = pb.AuthRoleRevokePermissionRequest(role=role, key=key, range_end=range_end)
    end = "<open ended>" if range_end == b"\0" else f"{text(range_end)})"
    what = f"range [{shown}, {end}" if range_end else f"key {shown}"
    _change(invocation, "RoleRevokePermission", request, pb.AuthRoleRevokePermissionResponse,
            f"Permission of {what} is revoked from role {role}\n")


def _permission_range(invocation: Invocation, args: list[str]) -> tuple[bytes, bytes]:
    prefix, from_key = invocation.flags.switch("prefix"), invocation.flags.switch("from-key")
    key = args[0].encode("utf-8", "surrogateescape")
    if prefix and from_key and (not key or len(args) == 1):
        raise Exit(128, "--from-key and --prefix flags are mutually exclusive")
    if not key:
        return b"\0", b"\0" if prefix or from_key else b""
    if len(args) == 1:
        return key, prefix_end(key) if prefix else b"\0" if from_key else b""
    if prefix or from_key:
        raise Exit(128, f"unexpected endkey argument with --{'prefix' if prefix else 'from-key'} flag")
    return key, args[1].encode("utf-8", "surrogateescape")
