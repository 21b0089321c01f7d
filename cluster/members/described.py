"""What a member says of the cluster (frame JOIN) to a joining host, to a host that has not heard of a member
yet, and to a proxy. ``node.members.roster`` makes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cluster.members.origin import Origin
from cluster.members.table import Host


@dataclass(slots=True, frozen=True)
class Running:
    """The cluster that is running."""

    cluster_id: int
    shards: int
    depth: int
    members: tuple[Host, ...]
    removed: tuple[int, ...] = ()
    origin: str = ""  # of its data (``cluster.members.origin``); "": older versions do not say

    @classmethod
    def decode(cls, data: bytes) -> Running:
        """A host's answer. ValueError: it is none."""
        try:
            raw: dict[str, Any] = json.loads(data)
            members = tuple(
                Host(int(m["id"], 16), str(m["name"]), tuple(sorted(map(str, m["peer_urls"]))),
                     bool(m["learner"]))
                for m in raw["members"]
            )
            running = cls(
                int(raw["cluster_id"], 16), int(raw["shards"]), int(raw["depth"]), members,
                tuple(int(i, 16) for i in raw["removed"]), str(raw.get("origin", "")),
            )
            Origin.parse(running.origin, running.shards, running.depth)
        except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as e:
            raise ValueError(f"no answer of a member: {e!r}") from e
        return running

    def __str__(self) -> str:
        """As etcd's log shows it."""
        members = " ".join(map(_as_in_logs, self.members))
        return (
            f"{{ClusterID:{self.cluster_id:x} Members:[{members}] "
            f"RemovedMemberIDs:[{' '.join(f'{i:x}' for i in self.removed)}]}}"
        )


def _as_in_logs(host: Host) -> str:
    return (
        f"&{{ID:{host.member_id:x} RaftAttributes:{{PeerURLs:[{' '.join(host.peer_urls)}] "
        f"IsLearner:{str(host.learner).lower()}}} Attributes:{{Name:{host.name} ClientURLs:[]}}}}"
    )
