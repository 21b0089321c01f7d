"""Members of the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from muster_client.pb import rpc_pb2 as pb
from muster_client.wire.calls import Caller, Method

_LIST = Method("Cluster/MemberList", pb.MemberListResponse, repeatable=True)
_ADD = Method("Cluster/MemberAdd", pb.MemberAddResponse)
_REMOVE = Method("Cluster/MemberRemove", pb.MemberRemoveResponse)
_UPDATE = Method("Cluster/MemberUpdate", pb.MemberUpdateResponse)
_PROMOTE = Method("Cluster/MemberPromote", pb.MemberPromoteResponse)


@dataclass(frozen=True, slots=True)
class Member:
    """``name`` and ``client_urls`` are empty until it has started."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    learner: bool


def _member_of(one: pb.Member) -> Member:
    return Member(one.ID, one.name, tuple(one.peerURLs), tuple(one.clientURLs), one.isLearner)


class Members:
    """``client.members``. ServerError where the cluster refuses, in etcd's words."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def list(self, *, linearizable: bool = True) -> tuple[Member, ...]:
        """All of them; not ``linearizable``: as one member knows them, without a majority."""
        answer = await self._caller.unary(
            _LIST, pb.MemberListRequest(linearizable=linearizable), needs_leader=linearizable)
        return tuple(map(_member_of, answer.members))

    async def add(self, peer_urls: Sequence[str], *, learner: bool = False) -> Member:
        """A member that is to be started then."""
        answer = await self._caller.unary(_ADD, pb.MemberAddRequest(peerURLs=peer_urls, isLearner=learner))
        return _member_of(answer.member)

    async def promote(self, id: int) -> None:
        """Let a learner vote."""
        await self._change(_PROMOTE, pb.MemberPromoteRequest(ID=id))

    async def update(self, id: int, peer_urls: Sequence[str]) -> None:
        """Give a member other addresses."""
        await self._change(_UPDATE, pb.MemberUpdateRequest(ID=id, peerURLs=peer_urls))

    async def remove(self, id: int) -> None:
        """Take a member out for good."""
        await self._change(_REMOVE, pb.MemberRemoveRequest(ID=id))

    async def _change(self, method: Method[Any], request: Any) -> None:
        await self._caller.unary(method, request)
