"""What a member says of the cluster to whoever asks (frame JOIN): a host that is to join it, one that has not
heard of a member yet, a proxy. ``node.members.roster`` makes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cluster.members.origin import Origin


@dataclass(slots=True, frozen=True)
class Told:
    """One member, as the cluster says."""

    member_id: int
    name: str
    peer_urls: tuple[str, ...]
    learner: bool

    def __str__(self) -> str:
        """As etcd's log shows it."""
        return (
            f"&{{ID:{self.member_id:x} RaftAttributes:{{PeerURLs:[{' '.join(self.peer_urls)}] "
            f"IsLearner:{str(self.learner).lower()}}} Attributes:{{Name:{self.name} ClientURLs:[]}}}}"
        )


@dataclass(slots=True, frozen=True)
class Running:
    """The cluster that is running."""

    cluster_id: int
    shards: int
    depth: int
    members: tuple[Told, ...]
    removed: tuple[int, ...] = ()
    origin: str = ""  # of its data (``cluster.members.origin``); "": older versions do not say

    @classmethod
    def decode(cls, data: bytes) -> Running:
        """A host's answer. ValueError if it is none."""
        try:
            raw: dict[str, Any] = json.loads(data)
            running = cls(
                int(raw["cluster_id"], 16),
                int(raw["shards"]),
                int(raw["depth"]),
                tuple(
                    Told(
                        int(m["id"], 16),
                        str(m["name"]),
                        tuple(sorted(map(str, m["peer_urls"]))),
                        bool(m["learner"]),
                    )
                    for m in raw["members"]
                ),
                tuple(int(i, 16) for i in raw["removed"]),
                str(raw.get("origin", "")),
            )
            Origin.parse(running.origin, running.shards, running.depth)
        except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as e:
            raise ValueError(f"no answer of a member: {e!r}") from e
        return running

    def __str__(self) -> str:
        """As etcd's log shows it."""
        members = " ".join(map(str, self.members))
        return (
            f"{{ClusterID:{self.cluster_id:x} Members:[{members}] "
            f"RemovedMemberIDs:[{' '.join(f'{i:x}' for i in self.removed)}]}}"
        )
