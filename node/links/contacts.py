"""What a node's log says of its peers: which are unreachable and why, which are back, and that there is no
leader.

A cluster that cannot form, or has fallen apart, says why on every host. The same trouble is logged once,
then every ``AGAIN_S`` while it lasts; less often by nodes of shards other than 0, which mostly repeat it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from cluster.endpoints import peer_endpoint
from cluster.settings import Peer

if TYPE_CHECKING:
    from node.links.peer_link import PeerLink

log = structlog.get_logger("contacts")

AGAIN_S, OTHER_SHARDS_AGAIN_S = 30.0, 300.0
_MOST_CAUSES = 5  # of one peer's trouble, that are logged at once
PATIENCE_S = 3.0  # shorter trouble is none: hosts start one after the other, links are dialled again


@dataclass(slots=True)
class _Trouble:
    since: float
    reason: str = ""  # as of the last look
    told: dict[str, float] = field(default_factory=dict)  # reason -> when


class Contacts:
    """The peers of one node. :meth:`look` is called each second."""

    def __init__(
        self, member_id: int, shard: int, links: Mapping[int, PeerLink], received: Mapping[int, int],
        silent_s: float,
    ) -> None:
        """``received``: bytes from each peer. One that is silent for so long is none that is reached: where a
        host stands still, its kernel keeps the connections."""
        self._member_id = member_id
        self._shard = shard
        self._links = links
        self._received = received
        self._silent_s = silent_s
        self._heard: dict[int, tuple[int, float]] = {}  # bytes, and since when they are so many
        self._again_s = OTHER_SHARDS_AGAIN_S if shard else AGAIN_S
        self._troubles: dict[int, _Trouble] = {}
        self._reached: set[int] = set()  # at one time or another
        self._leaderless: _Trouble | None = None

    def look(self, leader: int, now: float, voters: Collection[int] = ()) -> None:
        """``leader``: the member that this node follows, or 0. ``now``: seconds of any one clock. ``voters``:
        of the group; empty: they are not known, and all members count."""
        for member_id, link in self._links.items():
            reason, hint = link.trouble()
            if reason:
                self._is_troubled(member_id, link.peer, reason, hint, now)
            else:
                self._is_well(member_id, link.peer, now)
            count = self._received.get(member_id, 0)
            if count != self._heard.get(member_id, (0, now))[0]:
                self._heard[member_id] = count, now
        for member_id in self._troubles.keys() - self._links.keys():
            del self._troubles[member_id]  # it was removed
        self._look_for_leader(leader, now, voters)

    def _is_troubled(self, member_id: int, peer: Peer, reason: str, hint: str, now: float) -> None:
        trouble = self._troubles.setdefault(member_id, _Trouble(now))
        if not self._due(trouble, reason, now):
            return
        event = "lost a peer" if member_id in self._reached and not trouble.told else "cannot reach a peer"
        if len(trouble.told) >= _MOST_CAUSES:
            trouble.told.pop(min(trouble.told, key=trouble.told.__getitem__))
        trouble.told[reason] = now
        log.warning(event, **self._named(peer), reason=reason, **({"hint": hint} if hint else {}),
                    for_s=round(now - trouble.since))

    def _due(self, trouble: _Trouble, reason: str, now: float) -> bool:
        """A new cause is news once it has stood for two looks: dials that are refused and dials that hang
        alternate."""
        stands, trouble.reason = reason == trouble.reason, reason
        if not trouble.told:
            return now - trouble.since >= PATIENCE_S
        if reason in trouble.told or len(trouble.told) >= _MOST_CAUSES:
            return now - max(trouble.told.values()) >= self._again_s
        return stands

    def _is_well(self, member_id: int, peer: Peer, now: float) -> None:
        trouble = self._troubles.pop(member_id, None)
        if trouble is not None and trouble.told:
            log.info("reached a peer", **self._named(peer), after_s=round(now - trouble.since))
        self._reached.add(member_id)

    def _look_for_leader(self, leader: int, now: float, voters: Collection[int]) -> None:
        if leader:
            self._leaderless = None
            return
        if self._leaderless is None:
            self._leaderless = _Trouble(now)
        if not self._due(self._leaderless, "", now):
            return
        self._leaderless.told[""] = now
        voters = voters or {self._member_id, *self._links}
        unreached = {i: reason for i, reason in self._unreached(now) if i in voters}
        reached = [
            link.peer.name for i, link in self._links.items() if i in voters and i not in unreached]
        needed = len(voters) // 2 + 1
        facts = {
            "shard": self._shard, "reached": reached,
            "not_reached": {self._links[i].peer.name: reason for i, reason in unreached.items()},
            "members": len(voters), "needed": needed, "for_s": round(now - self._leaderless.since)}
        if len(reached) + (self._member_id in voters) < needed:
            log.warning("no leader: this host does not reach a majority of the members", **facts)
        else:
            log.warning("no leader, although this host reaches a majority of the members", **facts,
                        hint="see in the other hosts' logs whether they reach this host")

    def _unreached(self, now: float) -> Iterator[tuple[int, str]]:
        for member_id, link in self._links.items():
            heard = self._heard.get(member_id)  # None: see this host's address in the other's settings
            if member_id in self._troubles:
                yield member_id, link.trouble()[0]
            elif heard is not None and now - heard[1] > self._silent_s:
                yield member_id, f"connected, but silent for {round(now - heard[1])} s"

    def _named(self, peer: Peer) -> dict[str, object]:
        _, _, address = peer_endpoint(peer.host, peer.port).partition("://")
        return {"peer": peer.name or f"{peer.member_id:x}", "address": address, "shard": self._shard}
