"""Methods that the client library has no name for, or asks for in another way: of etcd's API, and of muster's
own."""

from __future__ import annotations

from typing import Any, TypeVar

from muster_client import Client, MusterError
from muster_client.pb import rpc_pb2 as pb
from muster_client.raw import Method

from cluster.pb import shards_pb2

Answer = TypeVar("Answer")

MEMBERS = Method("Cluster/MemberList", pb.MemberListResponse, repeatable=True)
STATUS = Method("Maintenance/Status", pb.StatusResponse, repeatable=True)
AUTHENTICATE = Method("Auth/Authenticate", pb.AuthenticateResponse, repeatable=True)
ALARM = Method("Maintenance/Alarm", pb.AlarmResponse)
DEFRAGMENT = Method("Maintenance/Defragment", pb.DefragmentResponse)
MOVE_LEADER = Method("Maintenance/MoveLeader", pb.MoveLeaderResponse)
LEASES = Method("Lease/LeaseLeases", pb.LeaseLeasesResponse, repeatable=True)
TIME_TO_LIVE = Method("Lease/LeaseTimeToLive", pb.LeaseTimeToLiveResponse, repeatable=True)
GRANT = Method("Lease/LeaseGrant", pb.LeaseGrantResponse)
REVOKE = Method("Lease/LeaseRevoke", pb.LeaseRevokeResponse, repeatable=True)

# muster's own: an etcd does not implement them
ENABLE_GROWTH = Method("musterpb.Shards/EnableGrowth", shards_pb2.EnableGrowthResponse)
ADD_SHARD = Method("musterpb.Shards/AddShard", shards_pb2.AddShardResponse)
RETIRE_SHARD = Method("musterpb.Shards/RetireShard", shards_pb2.RetireShardResponse)
MOVE = Method("musterpb.Shards/Move", shards_pb2.MoveResponse)
SPLIT = Method("musterpb.Shards/Split", shards_pb2.SplitResponse)
CANCEL = Method("musterpb.Shards/CancelMove", shards_pb2.CancelMoveResponse)
MOVES = Method("musterpb.Shards/Moves", shards_pb2.MovesResponse, repeatable=True)


async def call(
    client: Client,
    method: Method[Answer],
    request: Any,
    *,
    timeout: float | None = None,
    needs_leader: bool = True,
) -> Answer:
    """The answer to a request. MusterError."""
    return await client.raw.call(method, request, timeout=timeout, needs_leader=needs_leader)


class ReadOnly(MusterError):
    """The console was started with ``--read-only``: it asks the cluster to change nothing."""


_READS = {
    "KV/Range",
    "Watch/Watch",
    "Lease/LeaseLeases",
    "Lease/LeaseTimeToLive",
    "Cluster/MemberList",
    "Maintenance/Status",
    "Maintenance/Snapshot",
    "Auth/Authenticate",
    "Auth/AuthStatus",
    "Auth/UserGet",
    "Auth/UserList",
    "Auth/RoleGet",
    "Auth/RoleList",
    "musterpb.Shards/Moves",
}


def make_read_only(client: Client) -> None:
    """Refuse every request of a client that may change something, whatever view asks for it."""
    client.raw.guard(_check)


def _check(method: str, request: Any) -> None:
    reads = method in _READS or (
        method == "Maintenance/Alarm" and request.action == pb.AlarmRequest.GET
    )
    if not reads:
        raise ReadOnly("this console is read-only")
