"""A change of hosts in one Raft group: carried out by its leader, and told to the leader of shard 0, which
asks for it."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from cluster.members.host_changes import HostChange, Kind
from cluster.raft import Configuration, Raft, RaftError, Role

if TYPE_CHECKING:
    from node.members.roster import Roster
    from node.upkeep.upkeep import Upkeep

_UNHEARD = 1 << 32  # entries that one is behind who has not answered
REQUEST = struct.Struct("<BQ")  # kind of change (0: only tell), member ID


class GroupNode(Protocol):
    """What a change of hosts in a node's group needs of it."""

    raft: Raft
    roster: Roster
    upkeep: Upkeep

    def wake(self) -> None:
        """Have a tick run."""


@dataclass(slots=True, frozen=True)
class Learner:
    """How far a member of the group is."""

    behind: int  # entries of the leader's log
    share: float  # of the leader's log that it has
    silent_ms: int  # since it was heard


@dataclass(slots=True, frozen=True)
class Standing:
    """Where a group stands, as its leader says."""

    term: int
    committed: Configuration
    peers: dict[int, Learner] = field(default_factory=dict)

    def encode(self) -> bytes:
        """As it travels: JSON, for it is asked seldom."""
        peers = {f"{i:x}": [p.behind, p.share, p.silent_ms] for i, p in self.peers.items()}
        return json.dumps(
            {"term": self.term, "committed": self.committed.encode().hex(), "peers": peers}
        ).encode()

    @classmethod
    def decode(cls, data: bytes) -> Standing:
        """What :meth:`encode` made. ValueError otherwise."""
        try:
            raw: dict[str, Any] = json.loads(data)
            peers = {int(i, 16): Learner(int(p[0]), float(p[1]), int(p[2])) for i, p in raw["peers"].items()}
            return cls(int(raw["term"]), Configuration.decode(bytes.fromhex(raw["committed"])), peers)
        except (KeyError, IndexError, TypeError, AttributeError, RaftError) as e:
            raise ValueError(f"not a group's standing: {e!r}") from e


def standing(raft: Raft, now_ms: int) -> Standing:
    """Of the group that this node leads."""
    last = max(raft.last_index, 1)
    return Standing(
        raft.term,
        raft.committed_configuration,
        {
            # who has not answered yet is probed, and has nothing
            member_id: Learner(
                last - peer.match if peer.state == "replicate" else last + _UNHEARD,
                peer.match / last,
                now_ms - peer.heard_ms,
            )
            for member_id, peer in raft.peers().items()
        },
    )


def carry_out(node: GroupNode, change: HostChange) -> None:
    """Ask Raft for it. What it refuses now is asked for again (``node.members.changes``)."""
    raft = node.raft
    if raft.role is not Role.LEADER or change.done(raft.configuration) or raft.transferring:
        return
    try:
        if change.kind is Kind.REMOVE and change.member_id == raft.id:  # H12: a leader hands over first
            successors = [m for m in node.upkeep.succession.successors() if not node.roster.table.removed(m)]
            if successors:
                raft.transfer_leadership(successors[0])
        else:
            raft.propose_configuration(change.target(raft.configuration))
    except RaftError:
        return
    node.wake()


def asked_for(body: bytes) -> HostChange | None:
    """The change that the leader of shard 0 asks for; None: it only asks where the group stands. ValueError
    if it is no such request."""
    try:
        kind, member_id = REQUEST.unpack(body)
        return HostChange(Kind(kind), member_id) if kind else None
    except struct.error as e:
        raise ValueError("not a request for a change of hosts") from e
