"""The cluster: its members, each one's own state, alarms; and what can be done to them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from muster_client import Client, MusterError, Tls
from muster_client.pb import rpc_pb2 as pb

from tools.console.store import raw

_ASKED_S = 2.0  # a host that stands still must not hold up the picture


@dataclass(frozen=True, slots=True)
class Member:
    """A member, and what it says of itself; ``error``: why it says nothing."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool
    version: str = ""
    leader: int = 0
    raft_term: int = 0
    raft_index: int = 0
    raft_applied: int = 0
    revision: int = 0
    size_bytes: int = 0
    in_use_bytes: int = 0
    quota_bytes: int = 0
    error: str = ""

    @property
    def is_leader(self) -> bool:
        return bool(self.leader) and self.leader == self.id


@dataclass(frozen=True, slots=True)
class Picture:
    """The cluster as of now."""

    cluster_id: int
    members: tuple[Member, ...]
    alarms: tuple[str, ...] = ()
    keys: int = -1

    @property
    def leader(self) -> Member | None:
        return next((one for one in self.members if one.is_leader), None)

    @property
    def revision(self) -> int:
        return max((one.revision for one in self.members), default=0)


@dataclass(slots=True)
class Hosts:
    """Clients of each member alone, as the same user. ``secure``: the password leaves by TLS alone, whatever
    URLs members tell: one may be of the console's own machine, where anybody may listen."""

    user: str = ""
    password: str = field(default="", repr=False)
    tls: Tls | None = None
    read_only: bool = False
    secure: bool = False
    _clients: dict[str, Client] = field(default_factory=dict)

    def url_of(self, urls: Sequence[str]) -> str:
        """The first of a member's URLs that may be asked; "": none may."""
        if not (self.secure and self.password):
            return urls[0] if urls else ""
        return next((url for url in urls if url.lower().startswith(("https:", "unixs:"))), "")

    def at(self, urls: Sequence[str]) -> Client:
        """A client of one member. MusterError: no URL of it may be asked."""
        url = self.url_of(urls)
        if not url:
            raise MusterError("this host tells no https URL: a password would leave in clear")
        if url not in self._clients:
            client = Client(url, user=self.user, password=self.password, tls=self.tls, timeout=_ASKED_S)
            if self.read_only:
                raw.make_read_only(client)
            self._clients[url] = client
        return self._clients[url]

    async def keep(self, urls: Set[str]) -> None:
        """End the connections to others: a client dials for ever."""
        gone = [self._clients.pop(url) for url in self._clients.keys() - urls]
        await asyncio.gather(*(client.close() for client in gone))

    async def close(self) -> None:
        """End all connections."""
        await self.keep(set())


async def picture(client: Client, hosts: Hosts) -> Picture:
    """Members and their states; those that do not answer in two seconds say why."""
    listed = await raw.call(client, raw.MEMBERS, pb.MemberListRequest())
    await hosts.keep({hosts.url_of(one.clientURLs) for one in listed.members})
    members = await asyncio.gather(*(_asked(one, hosts) for one in listed.members))
    return Picture(
        listed.header.cluster_id,
        tuple(sorted(members, key=lambda one: one.name)),
        await _alarms(client, members),
    )


async def hosts(client: Client) -> list[tuple[str, str]]:
    """Name and first client URL of each member that has started. MusterError."""
    listed = await raw.call(client, raw.MEMBERS, pb.MemberListRequest(), timeout=_ASKED_S)
    return sorted((one.name, one.clientURLs[0]) for one in listed.members if one.clientURLs)


async def _asked(member: pb.Member, hosts: Hosts) -> Member:
    known = Member(member.ID, member.name, tuple(member.peerURLs), tuple(member.clientURLs), member.isLearner)
    if not known.client_urls:
        return Member(*_head(known), error="it has not started")
    try:
        told = await raw.call(
            hosts.at(known.client_urls), raw.STATUS, pb.StatusRequest(), timeout=_ASKED_S, needs_leader=False
        )
    except MusterError as error:
        return Member(*_head(known), error=str(error))
    return Member(
        *_head(known),
        version=told.version,
        leader=told.leader,
        raft_term=told.raftTerm,
        raft_index=told.raftIndex,
        raft_applied=told.raftAppliedIndex or told.raftIndex,
        revision=told.header.revision,
        size_bytes=told.dbSize,
        in_use_bytes=told.dbSizeInUse,
        quota_bytes=told.dbSizeQuota,
    )


def _head(one: Member) -> tuple[int, str, tuple[str, ...], tuple[str, ...], bool]:
    return one.id, one.name, one.peer_urls, one.client_urls, one.is_learner


async def _alarms(client: Client, members: list[Member]) -> tuple[str, ...]:
    try:
        answer = await raw.call(client, raw.ALARM, pb.AlarmRequest(action=pb.AlarmRequest.GET))
    except MusterError:  # a user without that right sees none
        return ()
    names = {one.id: one.name for one in members}
    return tuple(
        f"{pb.AlarmType.Name(one.alarm)} ({names.get(one.memberID, f'{one.memberID:x}')})"
        for one in answer.alarms
    )


async def move_leader(hosts: Hosts, leader: Member, target: int) -> None:
    """Hand the office on. MusterError."""
    await raw.call(
        hosts.at(leader.client_urls), raw.MOVE_LEADER, pb.MoveLeaderRequest(targetID=target), timeout=10.0
    )


async def defragment(hosts: Hosts, member: Member) -> None:
    """Free unused space of one member, which does not answer meanwhile. MusterError."""
    await raw.call(
        hosts.at(member.client_urls), raw.DEFRAGMENT, pb.DefragmentRequest(), timeout=60.0, needs_leader=False
    )


async def disarm(client: Client) -> None:
    """End all alarms. MusterError."""
    answer = await raw.call(client, raw.ALARM, pb.AlarmRequest(action=pb.AlarmRequest.GET))
    for one in answer.alarms:
        await raw.call(
            client,
            raw.ALARM,
            pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, memberID=one.memberID, alarm=one.alarm),
        )
