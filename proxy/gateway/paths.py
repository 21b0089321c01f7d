"""The gRPC method of each HTTP path: the routes of etcd's own API, and muster's ``/v3/shards/``."""

from __future__ import annotations

from typing import Any, NamedTuple

from cluster.pb import election_pb2, lock_pb2, rpc_pb2, shards_pb2

Message = Any  # generated classes are made at run time

ONE, MANY, BOTH = "one answer", "many answers", "many both ways"


class Target(NamedTuple):
    method: str  # gRPC's path
    request: type[Message]
    response: type[Message]
    kind: str  # ONE, MANY or BOTH


_KV = {
    "range": "Range", "put": "Put", "deleterange": "DeleteRange", "txn": "Txn",
    "compaction": "Compact:Compaction",
}
_LEASES = {"revoke": "LeaseRevoke", "timetolive": "LeaseTimeToLive", "leases": "LeaseLeases"}
_MEMBERS = {
    "add": "MemberAdd", "remove": "MemberRemove", "update": "MemberUpdate", "list": "MemberList",
    "promote": "MemberPromote",
}
_MAINTENANCE = {
    "alarm": "Alarm", "status": "Status", "defragment": "Defragment", "hash": "Hash", "hashkv": "HashKV",
    "transfer-leadership": "MoveLeader", "downgrade": "Downgrade",
}
_SHARDS = {
    "enable-growth": "EnableGrowth", "add": "AddShard", "retire": "RetireShard", "move": "Move",
    "split": "Split", "cancel-move": "CancelMove", "moves": "Moves", "advice": "Advice",
}
_AUTH = {
    "enable": "AuthEnable",
    "disable": "AuthDisable",
    "status": "AuthStatus",
    "authenticate": "Authenticate",
    "user/add": "UserAdd:AuthUserAdd",
    "user/get": "UserGet:AuthUserGet",
    "user/list": "UserList:AuthUserList",
    "user/delete": "UserDelete:AuthUserDelete",
    "user/changepw": "UserChangePassword:AuthUserChangePassword",
    "user/grant": "UserGrantRole:AuthUserGrantRole",
    "user/revoke": "UserRevokeRole:AuthUserRevokeRole",
    "role/add": "RoleAdd:AuthRoleAdd",
    "role/get": "RoleGet:AuthRoleGet",
    "role/list": "RoleList:AuthRoleList",
    "role/delete": "RoleDelete:AuthRoleDelete",
    "role/grant": "RoleGrantPermission:AuthRoleGrantPermission",
    "role/revoke": "RoleRevokePermission:AuthRoleRevokePermission",
}


def _service(prefix: str, service: str, module: Any, methods: dict[str, str],
             kind: str = ONE) -> dict[str, Target]:
    """``methods``: the end of a path -> the method's name, and its messages' name where it differs."""
    found = {}
    for last, named in methods.items():
        method, _, messages = named.partition(":")
        messages = messages or method
        response = getattr(module, f"{method}Response", None) or getattr(module, f"{messages}Response")
        found[f"/v3/{prefix}{last}"] = Target(
            f"/{service}/{method}", getattr(module, f"{messages}Request"), response, kind)
    return found


TARGETS: dict[str, Target] = {
    **_service("kv/", "etcdserverpb.KV", rpc_pb2, _KV),
    **_service("", "etcdserverpb.Watch", rpc_pb2, {"watch": "Watch"}, BOTH),
    **_service("lease/", "etcdserverpb.Lease", rpc_pb2, {"grant": "LeaseGrant", **_LEASES}),
    **_service("kv/lease/", "etcdserverpb.Lease", rpc_pb2, _LEASES),
    **_service("lease/", "etcdserverpb.Lease", rpc_pb2, {"keepalive": "LeaseKeepAlive"}, BOTH),
    **_service("cluster/member/", "etcdserverpb.Cluster", rpc_pb2, _MEMBERS),
    **_service("maintenance/", "etcdserverpb.Maintenance", rpc_pb2, _MAINTENANCE),
    **_service("maintenance/", "etcdserverpb.Maintenance", rpc_pb2, {"snapshot": "Snapshot"}, MANY),
    **_service("auth/", "etcdserverpb.Auth", rpc_pb2, _AUTH),
    **_service("lock/", "v3lockpb.Lock", lock_pb2, {"lock": "Lock", "unlock": "Unlock"}),
    **_service(
        "election/", "v3electionpb.Election", election_pb2,
        {name: name.capitalize() for name in ("campaign", "proclaim", "leader", "resign")},
    ),
    **_service("election/", "v3electionpb.Election", election_pb2, {"observe": "Observe:Leader"}, MANY),
    **_service("shards/", "musterpb.Shards", shards_pb2, _SHARDS),
}

BOTH_WAYS = frozenset(path for path, target in TARGETS.items() if target.kind == BOTH)
