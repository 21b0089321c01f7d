"""What the members of a group have acknowledged, remembered by their peers (H10).

A leader knows it of each member while it leads. Every few seconds, while that moves, it keeps it beside its
log and tells its followers (frame PROMISES), which keep it, too: so an old copy of a data directory is known
for what it is after an election as well. The write rides with the log's next sync; a promise that a crash
takes along says less, and nothing wrong.

A hello carries its sender's term and the end of its log, as a part of the message before it. A replica that
has less than it had promised is refused as an emptied one is (``node.links.incarnations``): its votes are
lost as well, so a leader cannot bring it up to date.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Protocol

from cluster.raft import Raft, promises
from cluster.wire.frames import PEER_KINDS, PeerKind

if TYPE_CHECKING:
    from node.links.peers import Peers

LOST = (
    # etcd's words, then why; what a peer says of it is cut at 300 characters
    "member {:x} has already been bootstrapped: its log ends at {} in term {}, but it had acknowledged {} in "
    "term {}. It came back with an old copy of its data, or lost the end of it. Remove the member and add it "
    "again as a new one, with an empty data directory"
)
EVERY_S = 2.0
NAME = "promises"  # beside the log
_FRAME = PeerKind.PROMISES.byte
_SINCE = PEER_KINDS[PeerKind.PROMISES].since
_STANDING = struct.Struct("<cQQ")  # term, end of the log
_MARK = b"E"


class Memory(Protocol):
    """Where promises are kept: the node's Raft log database."""

    def meta(self, name: str) -> bytes | None: ...
    def set_meta(self, name: str, value: bytes) -> None: ...


class PromisesNode(Protocol):
    """What promises need of their node."""

    raft: Raft
    peers: Peers

    def fail(self, reason: str) -> None: ...


class Promises:
    """Of one replica."""

    def __init__(self, node: PromisesNode, memory: Memory, judged: bool) -> None:
        """``judged``: not where syncs are left out, for a power cut takes acknowledged entries then."""
        self._node = node
        self._memory = memory
        self._judged = judged
        self._kept = memory.meta(NAME) or b""
        node.raft.remember(promises.decode(self._kept))
        self._due = 0.0

    def standing(self) -> list[bytes]:
        """The part of a message that stands before a hello."""
        raft = self._node.raft
        return [_STANDING.pack(_MARK, raft.term, raft.last_index)] if self._judged else []

    def broken(self, member_id: int, parts: list[bytes]) -> str:
        """Why the member that says a hello with these parts is not who it was; empty: it is."""
        for part in parts:
            if len(part) == _STANDING.size and part[:1] == _MARK:
                _, term, last_index = _STANDING.unpack(part)
                return self._lost(member_id, term, last_index)
        return ""

    def _lost(self, member_id: int, term: int, last_index: int) -> str:
        promise = self._node.raft.promises().get(member_id)
        if promise is None or promise.is_kept(term, last_index):
            return ""
        index = promise.committed if term > promise.term else promise.index
        return LOST.format(member_id, last_index, term, index, promise.term)

    def second(self, now: float) -> None:
        """Each second: keep what is new, and tell the followers."""
        if now < self._due:
            return
        self._due = now + EVERY_S
        raft, peers = self._node.raft, self._node.peers
        known = promises.encode(raft.promises())
        if known == self._kept:
            return
        self._kept = known
        self._memory.set_meta(NAME, known)
        if raft.is_leader:
            for member_id, version in peers.versions.items():
                if version >= _SINCE:
                    peers.send(member_id, _FRAME, known)

    def came(self, member_id: int, data: bytes) -> None:
        """A leader says what members have promised. ValueError."""
        told, raft = promises.decode(data), self._node.raft
        raft.remember(told)
        if self._judged and raft.id in told and (reason := self._lost(raft.id, raft.term, raft.last_index)):
            self._node.fail(reason)
