"""Member and cluster IDs, computed as etcd does: every host of a new cluster arrives at the same ones."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha1

from cluster.gotext import raw


def member_id(peer_urls: Iterable[str], token: str) -> int:
    """The ID of a member of a cluster that bootstraps with ``token`` (or its discovery URL)."""
    return _first_eight("".join(sorted(peer_urls)) + token)


def added_member_id(peer_urls: Iterable[str], now_s: int) -> int:
    """The ID of a member that is added to a running cluster at a Unix time."""
    return _first_eight("".join(sorted(peer_urls)) + str(now_s))


def cluster_id(member_ids: Iterable[int]) -> int:
    """The ID of the cluster that these members bootstrap."""
    return int.from_bytes(
        sha1(b"".join(member.to_bytes(8, "big") for member in sorted(member_ids))).digest()[:8], "big")


def _first_eight(text: str) -> int:
    return int.from_bytes(sha1(raw(text)).digest()[:8], "big")
