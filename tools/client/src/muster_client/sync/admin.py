"""What operators do."""

from __future__ import annotations

from muster_client.admin import auth, maintenance, members
from muster_client.sync.base import Blocking


class Auth:
    """See :class:`muster_client.admin.auth.Auth`."""

    def __init__(self, inner: auth.Auth) -> None:
        self.inner = inner

    enable = Blocking(auth.Auth.enable)
    disable = Blocking(auth.Auth.disable)
    status = Blocking(auth.Auth.status)
    add_user = Blocking(auth.Auth.add_user)
    delete_user = Blocking(auth.Auth.delete_user)
    set_password = Blocking(auth.Auth.set_password)
    users = Blocking(auth.Auth.users)
    user_roles = Blocking(auth.Auth.user_roles)
    grant_role = Blocking(auth.Auth.grant_role)
    revoke_role = Blocking(auth.Auth.revoke_role)
    add_role = Blocking(auth.Auth.add_role)
    delete_role = Blocking(auth.Auth.delete_role)
    roles = Blocking(auth.Auth.roles)
    permissions = Blocking(auth.Auth.permissions)
    grant_permission = Blocking(auth.Auth.grant_permission)
    revoke_permission = Blocking(auth.Auth.revoke_permission)


class Members:
    """See :class:`muster_client.admin.members.Members`."""

    def __init__(self, inner: members.Members) -> None:
        self.inner = inner

    list = Blocking(members.Members.list)
    add = Blocking(members.Members.add)
    promote = Blocking(members.Members.promote)
    update = Blocking(members.Members.update)
    remove = Blocking(members.Members.remove)


class Maintenance:
    """See :class:`muster_client.admin.maintenance.Maintenance`; ``on_progress`` is called in the engine's
    thread."""

    def __init__(self, inner: maintenance.Maintenance) -> None:
        self.inner = inner

    status = Blocking(maintenance.Maintenance.status)
    statuses = Blocking(maintenance.Maintenance.statuses)
    alarms = Blocking(maintenance.Maintenance.alarms)
    disarm = Blocking(maintenance.Maintenance.disarm)
    defragment = Blocking(maintenance.Maintenance.defragment)
    hash = Blocking(maintenance.Maintenance.hash)
    hash_kv = Blocking(maintenance.Maintenance.hash_kv)
    move_leader = Blocking(maintenance.Maintenance.move_leader)
    snapshot = Blocking(maintenance.Maintenance.snapshot)
