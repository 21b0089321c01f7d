"""Maintenance of hosts: status, alarms, hashes, the leader's office, snapshots."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from muster_client.admin.snapshots import OnProgress, Saved, saved
from muster_client.errors import MusterError
from muster_client.pb import rpc_pb2 as pb
from muster_client.wire.calls import Caller, Method

_STATUS = Method("Maintenance/Status", pb.StatusResponse, repeatable=True)
_ALARM = Method("Maintenance/Alarm", pb.AlarmResponse, repeatable=True)
_DEFRAGMENT = Method("Maintenance/Defragment", pb.DefragmentResponse)
_HASH = Method("Maintenance/Hash", pb.HashResponse, repeatable=True)
_HASH_KV = Method("Maintenance/HashKV", pb.HashKVResponse, repeatable=True)
_MOVE = Method("Maintenance/MoveLeader", pb.MoveLeaderResponse)


@dataclass(frozen=True, slots=True)
class Status:
    """Of one host. ``leader``: a member's ID, 0: it knows none; sizes in bytes."""

    endpoint: str
    member: int
    leader: int
    version: str
    revision: int
    raft_index: int
    raft_term: int
    size: int
    size_in_use: int
    learner: bool
    errors: tuple[str, ...]

    @property
    def leads(self) -> bool:
        return self.member == self.leader


@dataclass(frozen=True, slots=True)
class Alarm:
    """``kind``: ``NOSPACE`` or ``CORRUPT``."""

    member: int
    kind: str


@dataclass(frozen=True, slots=True)
class Hash:
    """Of the keys up to ``revision``, from ``compact_revision`` on: equal where hosts hold the same."""

    endpoint: str
    hash: int
    revision: int
    compact_revision: int


class Maintenance:
    """``client.maintenance``. ``endpoint`` names one of the client's, as it was given; "": any."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def status(self, endpoint: str = "", *, timeout: float | None = None) -> Status:
        """Of a host."""
        answer = await self._caller.unary(
            _STATUS, pb.StatusRequest(), timeout=timeout, needs_leader=False, at=endpoint)
        return Status(
            endpoint, answer.header.member_id, answer.leader, answer.version, answer.header.revision,
            answer.raftIndex, answer.raftTerm, answer.dbSize, answer.dbSizeInUse, answer.isLearner,
            tuple(answer.errors))

    async def statuses(self, *, timeout: float = 5.0) -> dict[str, Status | MusterError]:
        """Of all endpoints, or why there is none."""
        names = self._caller.connections.names
        found = await asyncio.gather(
            *(self.status(name, timeout=timeout) for name in names), return_exceptions=True)
        told: dict[str, Status | MusterError] = {}
        for name, one in zip(names, found, strict=True):
            if isinstance(one, BaseException) and not isinstance(one, MusterError):
                raise one
            told[name] = one
        return told

    async def alarms(self) -> tuple[Alarm, ...]:
        """Those that are raised."""
        answer = await self._caller.unary(_ALARM, pb.AlarmRequest(action=pb.AlarmRequest.GET))
        return tuple(Alarm(one.memberID, pb.AlarmType.Name(one.alarm)) for one in answer.alarms)

    async def disarm(self, alarm: Alarm) -> None:
        """End one; it returns if its cause is still there."""
        await self._caller.unary(_ALARM, pb.AlarmRequest(
            action=pb.AlarmRequest.DEACTIVATE, memberID=alarm.member, alarm=alarm.kind))

    async def defragment(self, endpoint: str = "", *, timeout: float | None = None) -> None:
        """Give a host's unused space back. An etcd answers nothing else meanwhile."""
        await self._caller.unary(_DEFRAGMENT, pb.DefragmentRequest(), timeout=timeout, needs_leader=False,
                                 at=endpoint)

    async def hash(self, endpoint: str = "", *, timeout: float | None = None) -> int:
        """Of a host's whole file; only files of one kind of server are alike."""
        answer = await self._caller.unary(_HASH, pb.HashRequest(), timeout=timeout, needs_leader=False,
                                          at=self._at(endpoint))
        return answer.hash

    async def hash_kv(
        self, endpoint: str = "", *, revision: int = 0, timeout: float | None = None
    ) -> Hash:
        """Of a host's keys up to a revision; 0: the latest."""
        answer = await self._caller.unary(_HASH_KV, pb.HashKVRequest(revision=revision), timeout=timeout,
                                          needs_leader=False, at=self._at(endpoint))
        return Hash(endpoint, answer.hash, answer.hash_revision or revision or answer.header.revision,
                    answer.compact_revision)

    def _at(self, endpoint: str) -> str:
        """A lone endpoint is named: one attempt there has the whole time."""
        names = self._caller.connections.names
        return endpoint or (names[0] if len(names) == 1 else "")

    async def move_leader(self, member: int) -> None:
        """Let another member lead. The leader must be among the endpoints: MusterError."""
        for endpoint, status in (await self.statuses()).items():
            if isinstance(status, Status) and status.leads:
                if status.member != member:
                    await self._caller.unary(_MOVE, pb.MoveLeaderRequest(targetID=member), at=endpoint)
                return
        raise MusterError("no endpoint of this client leads")

    async def snapshot(
        self, path: str | Path, *, endpoint: str = "", on_progress: OnProgress | None = None
    ) -> Saved:
        """Save the store to a file, in etcd's form with its checksum, which is verified. The file appears
        once it is whole and on the disk; only its user can read it. ``on_progress`` is called with the bytes
        that were received and those that are left. A stream that breaks starts again, a few times."""
        return await saved(self._caller, Path(path), endpoint, on_progress)
