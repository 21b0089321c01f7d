"""Users and roles between the rows that muster keeps and the buckets that etcd keeps."""

from __future__ import annotations

from collections.abc import Iterable

from cluster.bolt.etcd import Auth, Row
from cluster.features.auth.state import AuthState, Meta, Permission, Role, User, meta_row, role_row, user_row
from cluster.pb import auth_pb2


def auth_in(rows: Iterable[Row]) -> Auth:
    """What such rows say, but for the secret that tokens are signed with."""
    state = AuthState(rows)
    users = [auth_pb2.User(
        name=user.name.encode(), password=user.password_hash, roles=user.roles,
        options=auth_pb2.UserAddOptions(no_password=user.no_password)) for user in state.users.values()]
    roles = [auth_pb2.Role.FromString(role_row(role)[1] or b"") for role in state.roles.values()]
    return Auth(state.enabled, state.revision, users, roles)


def auth_rows(auth: Auth) -> list[Row]:
    """The rows of a backup's users and roles. Old tokens are void: none were signed here."""
    made = [meta_row(Meta(auth.enabled, auth.revision))]
    for user in auth.users:
        made.append(user_row(User(user.name.decode(), user.password, user.options.no_password,
                                  tuple(sorted(user.roles)), auth.revision)))
    for role in auth.roles:
        permissions = tuple(Permission(p.key, p.range_end, p.permType) for p in role.keyPermission)
        made.append(role_row(Role(role.name.decode(), permissions)))
    return [(name, value) for name, value in made if value is not None]
