"""``python packaging/reference.py metrics|errors|rpcs``, by ``make docs``: pages from tables in the code.

``WHEN`` for errors and ``DIFFERENCES`` for RPCs add what these tables lack;
tests/unit/tools/test_reference.py finds gaps.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from compatibility import rows
from prometheus_client import Metric

from cluster import errors
from cluster.errors import Code
from cluster.features.auth import judge
from cluster.wire.messages import Method
from node.upkeep.counters import counters
from proxy.gateway.encode import http_status
from proxy.gateway.paths import TARGETS
from proxy.listener.proxied import Proxied
from proxy.metrics.exposition import Metrics
from proxy.metrics.scrapes import go_numbers
from proxy.v2.traffic import Traffic

# -- metrics.md

_METRICS_HEAD = """# Metrics

Every series of `/metrics`, with type and meaning, for operators. `make docs` makes this page.

- A counter or histogram starts at 0 with its process. A histogram has `_bucket`, `_sum` and `_count`.
- Labels are in braces. A host with several fronts adds `front` to what each front counts: `sum` over it.
- Some series appear with their first event: snapshots between hosts, health checks, v2 requests,
  a v2 proxy's requests.
- Series of etcd that are not below are missing.

What to watch: [monitor](../run/monitor.md)."""
_GROUPS = (
    ("muster_shard_", "Shards"),
    ("muster_order_", "The order of several shards"),
    ("muster_move_", "Moves of keys"),
    ("muster_node_", "Nodes"),
    ("muster_", "Fronts and the host"),
    ("etcd_server_", "etcd's names: the member"),
    ("etcd_cluster_", "etcd's names: the member"),
    ("etcd_network_", "etcd's names: the network"),
    ("etcd_disk_", "etcd's names: the disk"),
    ("etcd_mvcc_", "etcd's names: the store"),
    ("etcd_debugging_", "etcd's names: debugging"),
    ("etcd_", "etcd's names: the v2 API"),
    ("grpc_", "gRPC"),
    ("", "The process of the front"))
_SEEN = {"bounds": [1.0], "counts": [1, 0], "sum": 1.0}
_OF_A_PEER = ("active", "losses", "sent_bytes", "send_failures", "received_bytes", "receive_failures")


class _Zero(int):
    """A figure with every attribute: declarations are collected, nothing is counted."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _ZERO

    def __getitem__(self, key: object) -> Any:
        return _ZERO

    def __call__(self, *args: object, **named: object) -> Any:
        return _ZERO

    def __iter__(self) -> Iterator[Any]:
        return iter(())


_ZERO: Any = _Zero()


class _Front(_Zero):
    """Has served one method."""

    stats = {("unary", "service", "method"): _ZERO}


class _Every(dict[str, Any]):
    """Has every fact."""

    def __init__(self, value: object, **known: object) -> None:
        super().__init__(**known)
        self._value = value

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> Any:
        return self._value

    def get(self, key: str, default: object = None) -> Any:
        return self[key]


def _node() -> dict[str, Any]:
    """A node that has seen a peer and a transfer."""
    transfers = {"p": {"success": 1, "failures": 0, "inflights": 0, "took": _SEEN}}
    return {
        "counters": counters(_ZERO),
        "histograms": _Every(_SEEN, seen=1),
        "peers": {"p": {**dict.fromkeys(_OF_A_PEER, 0), "round_trips": _SEEN}},
        "snapshots": {"send": transfers, "receive": transfers},
        "lease_ttls": _SEEN,
        "leases_revoked": 0,
        "v2": _Every(0, seen=1),
        "auth_revision": 1,
        "growth": _Every(0, mode="advise", begun={"add": 0}, came={"right": 0}),
    }


def _traffic() -> Traffic:
    found = Traffic()
    found.done("GET", 0.0)
    found.ended(_ZERO, 0.0, refused=400)
    return found


def _proxied() -> Proxied:
    found = Proxied(lambda: False)
    asked: Any = SimpleNamespace(path="/v2/keys", method="GET", body=b"", respond=_ZERO)
    found.pass_on(asked, _ZERO)
    found.handled("GET", 0.0, 200)
    return found


def families() -> list[Metric]:
    """Every family that a host or a proxy can export."""
    context: Any = _Front()
    front = Metrics(context, _ZERO, _ZERO, _ZERO)
    front.of_v2, front.of_proxy = _traffic().samples, _proxied().samples
    front.look()
    front._shards = [_Every(0, shard=0, up=True, role="leader", move={"hosts": {"p": _Every(0)}})]
    front._told = {0: front._shards[0]}
    front._nodes = {0: _node()}
    own = list(front.own())
    return [*own, *front.of_host(own)]


def series(family: Metric) -> tuple[str, str]:
    """Name and type as they are exported."""
    name = f"{family.name}_total" if family.type == "counter" else family.name
    line = go_numbers(f"# TYPE {name} {family.type}\n".encode()).decode()
    return name, line.split()[3]


def _labels(family: Metric) -> str:
    names = {name for sample in family.samples for name in sample.labels} - {"le", "front"}
    named: tuple[str, ...] = tuple(getattr(family, "_labelnames", ()) or sorted(names))
    return f"{{{','.join(named)}}}" if named else ""


def metrics() -> str:
    groups: dict[str, list[str]] = {title: [] for _, title in _GROUPS}
    for family in families():
        name, kind = series(family)
        title = next(title for prefix, title in _GROUPS if name.startswith(prefix))
        groups[title].append(f"|`{name}{_labels(family)}`|{kind}|{family.documentation}|")
    lines = [_METRICS_HEAD]
    for title, found in groups.items():
        lines += ["", f"## {title}", "", "|series|type|meaning|", "|---|---|---|", *sorted(found)]
    return "\n".join(lines)


# -- errors.md

_ERRORS_HEAD = """# Errors

Every error of muster but gRPC's own of bad frames, with code, HTTP status of the JSON gateway, and when a
client gets it. For authors of clients; `make docs` makes this page.

Texts are etcd's, since Go clients compare them. The tables leave out their `etcdserver: `. After an error
marked `?` a write may have happened; after any other it has not, but for [locks and
elections](guarantees.md#answers). The v2 API has [codes of its own](../use/v2.md)."""
_SECTIONS = (
    (19, "Keys"), (29, "Leases"), (39, "Watches"), (59, "Members"), (79, "Maintenance"),
    (99, "Availability"), (139, "Users and roles"), (149, "Locks and elections"), (158, "RangeStream"),
    (163, "Malformed requests"), (199, "Growth: muster's own"),
)  # fmt: skip
# by an error's name: when muster gives it
WHEN = {
    "Unmapped": "? a failure without an error of its own; its text says what failed",
    "EmptyKey": "a put, range, delete or compare without a key",
    "KeyNotFound": "`ignore_value` or `ignore_lease` for a key that is not there; an empty operation",
    "ValueProvided": "`ignore_value` with a value",
    "LeaseProvided": "`ignore_lease` with a lease",
    "InvalidSortOption": "an unknown sort order or target",
    "TooManyOps": "more than `--max-txn-ops` compares or operations in a branch",
    "DuplicateKey": "a transaction puts a key twice, or puts and deletes it",
    "Compacted": "a range, watch or compaction at a revision below the compacted one",
    "FutureRev": "a range or compaction at a revision that does not exist yet",
    "NoSpace": "a put while the store is full, a disk is short, or NOSPACE is raised",
    "RequestTooLarge": "a request that writes, above `--max-request-bytes`",
    "TooManyRequests": "a queue is full, or (with ResourceExhausted, 429) the connection exceeds its share"
    " of memory: try again. A compaction with `physical` may have happened",
    "MessageTooLarge": "a gRPC message 512 KiB above `--max-request-bytes`",
    "LeaseNotFound": "a put or revoke with a lease that is not there",
    "LeaseExist": "a grant with an ID in use",
    "LeaseTTLTooLarge": "a TTL above 9,000,000,000 s",
    "WatchCanceled": "the code of a watch stream that its client ended",
    "MemberExist": "the computed ID of a new member is in use",
    "PeerURLExist": "another member has that peer URL",
    "MemberNotEnoughStarted": "the change would leave too few started voters (`--strict-reconfig-check`)",
    "MemberBadURLs": "no peer URL, or one that is not scheme://host:port",
    "MemberNotFound": "no such member, or it was removed",
    "MemberNotLearner": "promotion of a voter",
    "LearnerNotReady": "promotion of a learner with less than nine tenths of a shard's log",
    "TooManyLearners": "more than `--max-learners`",
    "Unhealthy": "too few voters are connected; an addition that finds no leader",
    "NotSupportedForLearner": "any call to a learner but serializable ranges, Status and Snapshot",
    "NotSupportedForLearner35": "the same, to clients of 3.4 and 3.5, which then try another host",
    "NotLeader": "MoveLeader at a host that does not lead shard 0",
    "BadLeaderTransferee": "MoveLeader to a host that does not vote",
    "LeaderTransferTimeout": "? the new leader did not serve in time",
    "UnknownAlarm": "an alarm or action without a name; muster's own error",
    "Corrupt": "a write while CORRUPT is raised",
    "WrongDowngradeVersionFormat": "a target that is no version",
    "InvalidDowngradeTargetVersion": "a target other than one minor version below",
    "DowngradeInProcess": "a downgrade is enabled already",
    "NoInflightDowngrade": "a cancel without a downgrade",
    "UnknownDowngradeAction": "an unknown action",
    "InvalidClientAPIVersion": "`client-api-version` without UTF-8",
    "NoLeader": "no leader in time for a lease request; any call with `hasleader` while there is none",
    "Stopped": "the host stops; nothing was sent on",
    "Timeout": "? no answer within 5 s and two election timeouts",
    "TimeoutDueToLeaderFail":
        "? the leader or the link to it was lost, or the host stopped, after the write was sent",
    "ContextDeadlineExceeded": "? the client's deadline, or no leader took what etcd logs",
    "ContextCanceled": "? the client canceled the call",
    "RootUserNotExist": "AuthEnable without a user `root`",
    "RootRoleNotExist": "AuthEnable while `root` lacks the role `root`",
    "UserAlreadyExist": "UserAdd of a user that is there",
    "UserEmpty": "UserAdd without a name; a call without a user while auth is on",
    "UserNotFound": "a user that is not there",
    "RoleAlreadyExist": "RoleAdd of a role that is there",
    "RoleNotFound": "a role that is not there",
    "RoleEmpty": "RoleAdd without a name",
    "AuthFailed": "wrong name or password",
    "NoPasswordUser": "login of a user without password; an invalid hash",
    "PermissionNotGiven": "RoleGrantPermission without a permission",
    "PermissionDenied": "the user has no right to it: [RPCs](rpcs.md)",
    "RoleNotGranted": "UserRevokeRole of a role that the user lacks",
    "PermissionNotGranted": "RoleRevokePermission of a range that the role lacks",
    "AuthNotEnabled": "Authenticate while auth is off",
    "InvalidAuthToken": "a token that is unknown, too old, or older than its user's password",
    "InvalidAuthMgmt": "deletion of `root`, its role or its grant while auth is on; a permission without a "
                       "range",
    "AuthOldRevision": "a JSON web token from before a change of users or roles: log in again",
    "VerifyOnlyKey": "login at a host whose `--auth-token` has no private key",
    "BcryptLength": "a password above 72 bytes",
    "ElectionLeaderField": "Proclaim or Resign without `leader`",
    "ElectionNotLeader": "Proclaim by a client that no longer leads",
    "ElectionNoLeader": "Leader of an election that no candidate has won",
    "SessionExpired": "the lease of a lock ended while its client waited",
    "LostWatcher": "the watch of a lock or campaign ended without a reason",
    "UnsupportedSort": "RangeStream with another order than ascending keys",
    "BackupUnfit": "ten attempts failed",
    "UnsupportedFilter": "RangeStream with bounds on revisions",
    "GrowthTooSoon": "EnableGrowth before every member has run a version that knows the level",
    "GrowthUnknown": "EnableGrowth to a level that the leader does not know",
    "GrowthUnsure": "EnableGrowth while a member is down, came back within the last second, or runs an older "
                    "version again",
    "ShardLevel": "before EnableGrowth",
    "ShardBusy": "AddShard or a change of members while a shard forms; RetireShard of one that retires or "
                 "is in a move; a move to one that retires",
    "ShardHostsChange": "AddShard while members change",
    "ShardHostsUnsure": "AddShard while a host is down or runs an older version",
    "ShardUnknown": "a shard that is not there",
    "ShardOwnsKeys": "RetireShard without `with_keys` of a shard that owns keys",
    "ShardLimit": "AddShard beyond that",
    "MoveRefused": "a move that may not begin now",
    "MoveSettles": "a move within milliseconds of another change of shards",
    "MoveUnknown": "no such move is under way",
    "ShardStays": "RetireShard of shard 0",
    "AdviceUnknown": "Advice while an older host leads shard 0",
    "TakesNoPeer": "MemberAdd at a lone host without a key",
    "PeersOverHTTP": "MemberUpdate with https URLs, of hosts with http ones",
    "InternalFault": "? a bug of muster; counted and logged. muster's own error",
    "UnknownMethod": "no such method",
    "UnknownService": "no such service",
    "MalformedRequest": "a body that is not that message; "
                        "streams say `failed to unmarshal the received message {reason}`",
    "MalformedJSON": "a JSON body that is not that message",
}
# texts of etcd's errors that muster never gives: they have no row in cluster/errors.py
NEVER = (
    "not a primary lessor", "request cancelled", "cluster ID mismatch",
    "cluster version not found during downgrade", "leader changed", "not capable",
    "request timed out, possibly due to connection lost",
    "request timed out, waiting for the applied index took too long", "raft proposal dropped",
    "request canceled",
)  # fmt: skip


def error_table() -> str:
    lines, title = [_ERRORS_HEAD], ""
    for kind in sorted(errors.by_number.values()):
        section = next(name for last, name in _SECTIONS if kind.number <= last)
        if section != title:
            title = section
            lines += ["", f"## {title}", "", "|text|code|HTTP|when|", "|---|---|---|---|"]
        code = "".join(word.capitalize() for word in Code(kind.code).name.split("_"))
        text = f"`{kind.text.removeprefix('etcdserver: ')}`" if kind.text else ""
        lines.append(f"|{text}|{code}|{http_status(kind.code)}|{WHEN[kind.name]}|")
    never = ", ".join(f"`{text}`" for text in NEVER)
    return "\n".join([*lines, "", "## Never given", "", f"muster never gives these errors of etcd: {never}."])


# -- rpcs.md

_RPCS_HEAD = """# RPCs

Every RPC: its JSON path, the rights that it needs while auth is on, and where muster differs from etcd. For
authors of clients; `make docs` makes this page.

JSON paths take `POST`. The role root may do everything. Where the last column is empty, muster answers as
etcd: [tests](compatibility.tsv) compare them."""
_RIGHTS: dict[Callable[..., None], str] = {
    judge._range: "read the range",
    judge._put: "write the key and every key of its lease; for `prev_kv` read",
    judge._delete: "write the range; for `prev_kv` read",
    judge._txn: "those of all compares and operations, of both branches",
    judge._known: "any user or certificate",
    judge._root: "role root",
    judge._lease: "write every key of the lease",
    judge._time_to_live: "any user; with `keys`, read them",
    judge._all_leases: "read every key of every lease",
    judge._change: "role root",
}
_METHODS = {
    "DeleteRange": Method.DELETE_RANGE, "RangeStream": Method.RANGE_STREAM, "LeaseGrant": Method.LEASE_GRANT,
    "LeaseRevoke": Method.LEASE_REVOKE, "LeaseKeepAlive": Method.LEASE_KEEPALIVE,
    "LeaseTimeToLive": Method.LEASE_TTL, "LeaseLeases": Method.LEASE_LEASES,
    "MemberList": Method.MEMBER_LIST, "HashKV": Method.HASH_KV, "MoveLeader": Method.TRANSFER_LEADER,
    "Downgrade": Method.SET_DOWNGRADE,
}  # fmt: skip
_OTHERS = {  # rights of what is not one request to a node
    "Watch/Watch": "read the range",
    "Maintenance/Alarm": "role root; to list, any user or certificate",
    "Auth/Authenticate": "none",
    "Auth/UserGet": "role root, or that user",
    "Auth/RoleGet": "role root, or a user with that role",
    "Health/Check": "none",
    "Health/List": "none",
    "Health/Watch": "none",
}
DIFFERENCES = {
    "KV/Range": "over several shards: one snapshot",
    "KV/RangeStream": "etcd 3.7's: ascending keys, no bounds on revisions",
    "KV/Compact": "acknowledged once every shard's leader has applied it; "
                  "`physical`: the asked host has removed old data",
    "Watch/Watch": "[ends](../design/auth.md#watches) with its user's permission; one response may "
                   "hold several revisions, also of live events",
    "Lease/LeaseKeepAlive": "answered after the leader has asked a majority",
    "Cluster/MemberAdd": "a voter counts once it has caught up in every shard",
    "Cluster/MemberRemove": "answered once every shard's group is without the host",
    "Cluster/MemberPromote": "answered once the host votes in every shard",
    "Cluster/MemberUpdate":
        "refuses malformed URLs; as all here: answered once the asked host lists it, or 0.5 s later",
    "Cluster/MemberList": "a host that just joined answers once it is listed, 5 s at most",
    "Maintenance/Status": "Raft's figures are shard 0's, sizes are of all shards; says that it is etcd 3.5",
    "Maintenance/Defragment": "shard after shard, while it serves",
    "Maintenance/Hash": "of shard 0",
    "Maintenance/HashKV": "of all shards together",
    "Maintenance/Snapshot": "all shards at one revision, in etcd's file format",
    "Maintenance/MoveLeader": "of shard 0; the other leaders follow unless `--leader-placement spread`",
    "Maintenance/Downgrade": "stored and reported; nothing else changes",
    "Auth/Authenticate": "writes no log entry; a token counts at every host",
    "Shards/AddShard": "muster's own, as all of this service: [growth](../run/growth.md)",
    "Health/Check": "the service name `` is the only one",
}


def _rights(service: str, method: str) -> str:
    name = f"{service.rpartition('.')[2]}/{method}"
    if name in _OTHERS:
        return _OTHERS[name]
    if service.startswith(("v3lock", "v3election")):
        return "those of its transactions on the key"
    if name.startswith("Auth/"):
        return "role root"
    if name.startswith("Shards/"):
        return _RIGHTS[judge._NEEDS[Method.SHARD_CHANGE][1]]
    if name.startswith("Cluster/") and method != "MemberList":
        return _RIGHTS[judge._NEEDS[Method.MEMBERS][1]]
    asked = _METHODS.get(method) or Method[method.upper()]
    return _RIGHTS[judge._NEEDS[asked][1]]


def rpcs() -> str:
    paths: dict[str, str] = {}
    for path, target in TARGETS.items():
        paths.setdefault(target.method, path)
    lines, title = [_RPCS_HEAD], ""
    for row in rows():
        if row.area != "RPCs":
            continue
        service, _, method = row.name.partition("/")
        if service != title:
            title = service
            lines += ["", f"## {title}", "", "|RPC|JSON|rights|in muster|", "|---|---|---|---|"]
        path = paths.get(f"/{row.name}", "")
        differs = DIFFERENCES.get(f"{service.rpartition('.')[2]}/{method}", "")
        lines.append(f"|{method}|{f'`{path}`' if path else ''}|{_rights(service, method)}|{differs}|")
    return "\n".join(lines)


PAGES = {"metrics": metrics, "errors": error_table, "rpcs": rpcs}

if __name__ == "__main__":
    print(PAGES[sys.argv[1]]())
