"""A change of hosts in one Raft group: carried out by its leader, and told to the leader of shard 0."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from cluster.members import host_changes
from cluster.members.host_changes import HostChange, Kind
from cluster.raft import Configuration, Raft, RaftError, Role
from node.any_node import AnyNode

if TYPE_CHECKING:
    from node.members.roster import Roster
    from node.upkeep.upkeep import Upkeep

_UNHEARD = 1 << 32  # entries that a member is behind that has not answered
REQUEST = struct.Struct("<BQQ")  # kind of change (0: only tell), member ID, the asker's term in group 0
REQUEST_8 = struct.Struct("<BQ")  # the same on links of version 8
NAMES_TERM = 9  # version of links from which on a request names the term


class GroupNode(AnyNode, Protocol):
    roster: Roster
    upkeep: Upkeep


@dataclass(slots=True, frozen=True)
class Learner:
    behind: int  # entries of the leader's log
    share: float  # of the leader's log that it has
    silent_ms: int  # since it was heard


@dataclass(slots=True, frozen=True)
class Standing:
    """Where a group is, as its leader says."""

    term: int
    committed: Configuration
    peers: dict[int, Learner] = field(default_factory=dict)
    latest: Configuration | None = None  # in effect, if another one than what is committed
    sure: bool = True  # the leader knows what is committed; a new one may know less than the one before

    @property
    def in_effect(self) -> Configuration:
        return self.latest or self.committed

    def alive(self, member_id: int, election_ms: int) -> bool:
        """Whether the group's leader hears a member, or is that member."""
        peer = self.peers.get(member_id)
        return member_id in self.committed.voters if peer is None else peer.silent_ms < election_ms

    def encode(self) -> bytes:
        """As it travels: JSON, for it is asked seldom."""
        peers = {f"{i:x}": [p.behind, p.share, p.silent_ms] for i, p in self.peers.items()}
        said = {"term": self.term, "committed": self.committed.encode().hex(), "peers": peers}
        if self.latest is not None:
            said["latest"] = self.latest.encode().hex()
        if not self.sure:
            said["sure"] = False
        return json.dumps(said).encode()

    @classmethod
    def decode(cls, data: bytes) -> Standing:
        """ValueError if :meth:`encode` did not make it."""
        try:
            raw: dict[str, Any] = json.loads(data)
            peers = {int(i, 16): Learner(int(p[0]), float(p[1]), int(p[2])) for i, p in raw["peers"].items()}
            latest = Configuration.decode(bytes.fromhex(raw["latest"])) if "latest" in raw else None
            committed = Configuration.decode(bytes.fromhex(raw["committed"]))
            return cls(int(raw["term"]), committed, peers, latest, bool(raw.get("sure", True)))
        except (KeyError, IndexError, TypeError, AttributeError, RaftError) as e:
            raise ValueError(f"not a group's standing: {e!r}") from e


def standing(raft: Raft, now_ms: int) -> Standing:
    last = max(raft.last_index, 1)
    return Standing(
        raft.term,
        raft.committed_configuration,
        {
            # a member that has not answered yet is probed, and has nothing
            member_id: Learner(
                last - peer.match if peer.state == "replicate" else last + _UNHEARD,
                peer.match / last,
                now_ms - peer.heard_ms,
            )
            for member_id, peer in raft.peers().items()
        },
        None if raft.configuration == raft.committed_configuration else raft.configuration,
        raft.knows_commit,
    )


def carry_out(node: GroupNode, change: HostChange, now_ms: int, election_ms: int) -> None:
    """Propose a change to Raft, if the applied table wants it and it can be committed. What is refused now
    is asked for again (``node.members.changes``)."""
    raft = node.raft
    if raft.role is not Role.LEADER or change.done(raft.configuration) or raft.transferring:
        return
    if not host_changes.wanted(change, node.roster.table.hosts.get(change.member_id)):
        return
    heard = {raft.id, *(i for i, peer in raft.peers().items() if now_ms - peer.heard_ms < election_ms)}
    if not host_changes.can_commit(change.target(raft.configuration), heard):
        return
    try:
        if change.kind is Kind.REMOVE and change.member_id == raft.id:  # H12: a leader hands over first
            successors = [m for m in node.upkeep.succession.successors() if not node.roster.table.removed(m)]
            if successors:
                node.upkeep.succession.hand_over(successors[0])
        else:
            raft.propose_configuration(change.target(raft.configuration))
    except RaftError:
        return
    node.wake()


def request(change: HostChange | None, term: int, version: int) -> bytes:
    """What the leader of shard 0 asks a group's leader on a link of this version; None: only its standing."""
    kind, member_id = (0, 0) if change is None else (change.kind, change.member_id)
    return REQUEST.pack(kind, member_id, term) if version >= NAMES_TERM else REQUEST_8.pack(kind, member_id)


def asked_for(body: bytes) -> tuple[HostChange | None, int]:
    """The change that the leader of shard 0 asks for (None: none), and its term (0: not told). ValueError."""
    try:
        kind, member_id, *term = (REQUEST_8 if len(body) == REQUEST_8.size else REQUEST).unpack(body)
        return (HostChange(Kind(kind), member_id) if kind else None), (term[0] if term else 0)
    except struct.error as e:
        raise ValueError("not a request for a change of hosts") from e
