"""What the members of a group have acknowledged, remembered by their peers (H10).

A leader knows it of each member. While it changes, the leader keeps it beside its log every few seconds and
tells its followers (frame PROMISES), which keep it too: so an old copy of a data directory is recognized
after an election as well. The write rides with the log's next sync. A promise that a crash loses says less,
and nothing wrong.

A hello carries its sender's term and the end of its log, as a part of the message before it. If that is
less than its member has promised, the receiver refuses the hello and tells the promise. The sender judges
by what it has now, for a hello may be read long after it was sent. If it has kept the promise, it says
hello again. Otherwise it ends, as an emptied one does (``node.links.incarnations``): its votes are lost as
well, so a leader cannot bring it up to date.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Protocol

from cluster.raft import promises
from cluster.wire.frames import PROMISES_SINCE, PeerKind
from node.any_node import AnyNode

if TYPE_CHECKING:
    from node.links.peers import Peers
    from node.storage import RaftLog

LOST = (
    # etcd's words, then why; what a peer says of it is cut at 300 characters
    "member {:x} has already been bootstrapped: its log ends at {} in term {}, but it had acknowledged {} in "
    "term {}. It came back with an old copy of its data, or lost the end of it. Remove the member and add it "
    "again as a new one, with an empty data directory"
)
EVERY_S = 2.0
NAME = "promises"  # beside the log
_FRAME = PeerKind.PROMISES.byte
_STANDING = struct.Struct("<cQQ")  # term, end of the log
_MARK = b"E"


class PromisesNode(AnyNode, Protocol):
    peers: Peers

    def fail(self, reason: str) -> None: ...


class Promises:
    def __init__(self, node: PromisesNode, memory: RaftLog, judged: bool) -> None:
        """``judged``: not without syncs, for a power cut then loses acknowledged entries."""
        self._node = node
        self._memory = memory
        self._judged = judged
        self._kept = memory.meta(NAME) or b""
        node.raft.remember(promises.decode(self._kept))
        self._due = 0.0

    def standing(self) -> list[bytes]:
        raft = self._node.raft
        return [_STANDING.pack(_MARK, raft.term, raft.last_index)] if self._judged else []

    def broken(self, member_id: int, parts: list[bytes]) -> bytes:
        """What the sender of a hello with these parts had promised and does not have; empty: nothing."""
        for part in parts:
            if len(part) == _STANDING.size and part[:1] == _MARK:
                _, term, last_index = _STANDING.unpack(part)
                if self._lost(member_id, term, last_index):
                    return promises.encode({member_id: self._node.raft.promises()[member_id]})
        return b""

    def keeps(self, promised: bytes) -> bool:
        """Whether this replica has what it has promised, as a peer tells (:meth:`broken`); if not, its
        host ends. ValueError."""
        raft = self._node.raft
        raft.remember(promises.decode(promised))
        reason = self._lost(raft.id, raft.term, raft.last_index) if self._judged else ""
        if reason:
            self._node.fail(reason)
        return not reason

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
                if version >= PROMISES_SINCE:
                    peers.send(member_id, _FRAME, known)

    def came(self, member_id: int, data: bytes) -> None:
        """A leader tells what members have promised. ValueError."""
        self.keeps(data)
