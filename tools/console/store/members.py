"""Changes of members. The cluster refuses what would cost it its majority, in its own words."""

from __future__ import annotations

from collections.abc import Sequence

from muster_client import Client
from muster_client.pb import rpc_pb2 as pb

from tools.console.store import raw


def urls(text: str) -> list[str]:
    """Peer URLs as a person writes them. ValueError."""
    found = [one.strip() for one in text.split(",") if one.strip()]
    if not found or any("://" not in one for one in found):
        raise ValueError("peer URLs look like http://10.0.0.5:2380")
    return found


async def add_learner(client: Client, peer_urls: Sequence[str]) -> int:
    """A member that follows without a vote, and is started next; its ID. MusterError."""
    request = pb.MemberAddRequest(peerURLs=peer_urls, isLearner=True)
    return (await raw.call(client, raw.MEMBER_ADD, request)).member.ID


async def promote(client: Client, member: int) -> None:
    """Give a learner its vote. MusterError."""
    await raw.call(client, raw.MEMBER_PROMOTE, pb.MemberPromoteRequest(ID=member))


async def remove(client: Client, member: int) -> None:
    """Take a member out for good. MusterError."""
    await raw.call(client, raw.MEMBER_REMOVE, pb.MemberRemoveRequest(ID=member))


async def update(client: Client, member: int, peer_urls: Sequence[str]) -> None:
    """Tell where a member is reached from now on. MusterError."""
    await raw.call(client, raw.MEMBER_UPDATE, pb.MemberUpdateRequest(ID=member, peerURLs=peer_urls))
