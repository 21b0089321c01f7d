"""The records of Raft. An entry's leader computes its checksum; every replica verifies it at each read."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from cluster.raft.messages import Message


class RaftError(Exception):
    """What Raft refuses."""


class NotLeader(RaftError):
    """Only the leader can do this; nothing was logged. ``leader_id`` is where to ask, 0 if unknown."""

    def __init__(self, leader_id: int) -> None:
        super().__init__(f"not leader; leader is {leader_id or 'unknown'}")
        self.leader_id = leader_id


class ProposalDropped(RaftError):
    """The leader takes no proposal now (transfer, or too much uncommitted); nothing was logged."""


class ConfigurationRefused(RaftError):
    """The configuration change breaks the rule that the text names; nothing was logged."""


class IntegrityError(RaftError):
    """Damaged input. A frame: drop it and its link. An entry on the own disk: stop."""


class LogContradiction(RaftError):
    """This replica contradicts its peers or its own past: acknowledged entries are gone (H10), or a committed
    entry would change (I1). The process must end; starting it again does not help."""


class EntryKind(IntEnum):
    NOOP = 0  # a new leader's first entry (section 5.4.2, 8); no data
    RECORD = 1  # what the caller proposed
    CONFIG = 2  # an encoded Configuration


class Role(IntEnum):
    """LEARNER: a follower that is no voter (or not yet a member)."""

    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3
    LEARNER = 4


_ENTRY = struct.Struct("<IQQBI")  # checksum, index, term, kind, data length
_COVERED = struct.Struct("<QQBI")
ENTRY_OVERHEAD = _ENTRY.size


def entry_checksum(index: int, term: int, kind: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(_COVERED.pack(index, term, kind, len(data))))


@dataclass(slots=True)  # not frozen: making one would take 0.45 us instead of 0.12
class Entry:
    """One place of the log; never changed once made. ``checksum`` -1: not computed yet."""

    index: int
    term: int
    kind: int
    data: bytes
    checksum: int = field(default=-1, compare=False, repr=False)

    def encode(self) -> bytes:
        """Wire and disk form: ``checksum u32 | index u64 | term u64 | kind u8 | length u32 | data``."""
        data = self.data
        crc = self.checksum
        if crc < 0:
            crc = entry_checksum(self.index, self.term, self.kind, data)
        return _ENTRY.pack(crc, self.index, self.term, self.kind, len(data)) + data

    @classmethod
    def decode(cls, data: bytes) -> Entry:
        """The entry that fills ``data`` exactly; IntegrityError if it is damaged."""
        entry, end = read_entry(data, 0)
        if end != len(data):
            raise IntegrityError(f"entry {entry.index} is followed by {len(data) - end} stray bytes")
        return entry


def read_entry(data: bytes, pos: int) -> tuple[Entry, int]:
    """The entry at ``pos`` and where it ends; IntegrityError if it is cut short or fails its checksum."""
    try:
        crc, index, term, kind, length = _ENTRY.unpack_from(data, pos)
    except struct.error as e:
        raise IntegrityError("entry cut short") from e
    pos += ENTRY_OVERHEAD
    end = pos + length
    body = data[pos:end]
    if len(body) != length or entry_checksum(index, term, kind, body) != crc:
        raise IntegrityError(f"entry at index {index} (term {term}) fails its checksum")
    return Entry(index, term, kind, body, crc), end


class HardState(NamedTuple):
    """What must survive a crash (section 5.2). ``vote`` 0: none in this term. ``commit`` may lag behind."""

    term: int
    vote: int
    commit: int


@dataclass(slots=True, frozen=True)
class Configuration:
    """The members of a group. Learners receive the log and count for nothing."""

    voters: frozenset[int]
    learners: frozenset[int] = frozenset()

    def quorum(self) -> int:
        return len(self.voters) // 2 + 1

    def members(self) -> frozenset[int]:
        return self.voters | self.learners

    def encode(self) -> bytes:
        """``voters u32 | learners u32 | IDs u64, voters first, each ascending``."""
        ids = (*sorted(self.voters), *sorted(self.learners))
        return struct.pack(f"<II{len(ids)}Q", len(self.voters), len(self.learners), *ids)

    @classmethod
    def decode(cls, data: bytes) -> Configuration:
        """What :meth:`encode` made; IntegrityError otherwise."""
        try:
            voters, learners = struct.unpack_from("<II", data)
            ids = struct.unpack(f"<{voters + learners}Q", data[8:])
        except struct.error as e:
            raise IntegrityError("configuration cut short") from e
        return cls(frozenset(ids[:voters]), frozenset(ids[voters:]))

    def check_step(self, new: Configuration) -> None:
        """ConfigurationRefused unless ``new`` is one step away from this one (thesis section 4.1): then any
        majority of the one shares a member with any of the other."""
        if not new.voters:
            raise ConfigurationRefused("a group needs a voter")
        if new.voters & new.learners:
            raise ConfigurationRefused("a member cannot be voter and learner at once")
        if 0 in new.voters or 0 in new.learners:
            raise ConfigurationRefused("0 is not a member ID")
        changed = {
            m for m in self.members() | new.members()
            if (m in self.voters) != (m in new.voters) or (m in self.learners) != (m in new.learners)}
        if len(changed) > 1:
            raise ConfigurationRefused(f"one member at a time, not {sorted(changed)}")


@dataclass(slots=True, frozen=True)
class SnapshotPosition:
    """A place in the log up to which everything is in the state; the term of its entry, the members then."""

    index: int
    term: int
    configuration: Configuration


@dataclass(slots=True, frozen=True)
class Config:
    """How one replica behaves. Times are by the caller's ``now_ms``."""

    #: Unique in the group for ever: a replica that lost its log gets a new one (H10). Never 0.
    id: int
    #: Below the round trip it only costs messages; above a third of the election timeout one lost message may
    #: unseat a leader. Default as etcd.
    heartbeat_ms: int = 100
    #: A follower that hears nothing this long, plus up to the same again by chance, campaigns; a leader that
    #: hears from no quorum this long steps down. Default as etcd; ten heartbeats is the usual ratio.
    election_timeout_ms: int = 1000
    #: The first election after a start comes a heartbeat later, and up to an election timeout by chance: a
    #: leader that exists is heard within that time, or pre-votes are refused. etcd's
    #: ``initial-election-tick-advance``.
    soon_at_start: bool = False
    #: Of one append message (one entry always fits). Large messages delay the heartbeats behind them.
    max_append_bytes: int = 1 << 20
    #: Unanswered append messages to a peer, and their bytes: bounds what the transport holds for a slow peer.
    max_inflight: int = 64
    max_inflight_bytes: int = 16 << 20
    #: Of this leader's uncommitted entries; then proposals are dropped: bounds memory without a quorum.
    max_uncommitted_bytes: int = 64 << 20
    #: Synced entries kept in memory for peers that are slightly behind; older ones are read from storage.
    max_tail_bytes: int = 16 << 20
    #: Confirmation rounds for reads under way at once; further questions wait and share the next.
    max_read_rounds: int = 4
    #: Thesis section 9.6: a replica that was cut off does not unseat a leader by its higher term.
    pre_vote: bool = True
    #: A leader without a quorum's answers steps down, and no replica votes while it hears from a leader
    #: (thesis section 6.2, 4.2.3). Off only in tests.
    check_quorum: bool = True
    #: Tell peers of a commit at once, in a message of its own if need be (D4). Off where they learn it from
    #: elsewhere (``prove_committed``): then it rides with appends and heartbeats.
    tells_commit: bool = True
    #: How long news of a commit may wait for an append that takes it along, to a peer that can wait
    #: (``Raft.patient``): saves both sides a message and a wake-up.
    commit_rides_ms: int = 0

    def __post_init__(self) -> None:
        if self.id <= 0:
            raise ValueError("a replica's ID is positive")
        if not 0 < self.heartbeat_ms < self.election_timeout_ms:
            raise ValueError("the heartbeat interval must be below the election timeout")


class LogStorage(Protocol):
    """Reads of a Ready's entries once they are written (unsynced is enough); quick."""

    def hard_state(self) -> HardState: ...  # HardState(0, 0, 0) on a fresh replica

    def committed(self) -> tuple[int, int]:
        """Index and term of an entry that was committed before this start (I25); the log may have lost it
        since. Zeros: not known."""

    def snapshot_position(self) -> SnapshotPosition:
        """The place just before the first kept entry; zeros and the initial configuration when fresh."""

    def last_index(self) -> int: ...  # of the last entry, or of the snapshot position
    def term(self, index: int) -> int: ...  # of a kept entry

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """Entries ``[first, last]``, cut before ``max_bytes`` of data would be passed, at least one."""


class Ready(NamedTuple):
    """What the caller has to do now, in this order: send ``messages``; write ``entries`` and ``hard_state``
    in one batch; sync it if ``must_sync``; then send ``messages_after_sync`` and call
    ``persisted(sequence)``.

    Several may be under way, synced in order; one sync may cover several. One that needs no sync counts as
    persisted once all before it are. ``committed`` can be applied at once.
    """

    sequence: int
    hard_state: HardState | None  # to be written with ``entries``, in one batch
    entries: list[Entry]  # if entries[0].index <= last stored index, truncate the stored tail first
    messages: list[Message]
    messages_after_sync: list[Message]  # I2: only after this Ready and all before it are synced
    must_sync: bool
    committed: tuple[int, int]  # (first, last]: newly committed and on this replica's own disk; equal: none
    reads: list[tuple[int, int]]  # (context, index): answer once applied through index
    reads_failed: list[int]  # leadership lost before they were confirmed: ask again, elsewhere
    leader_changed: bool  # leader_id, role or term
    snapshots_to: list[tuple[int, int]]  # (peer, least useful index); call snapshot_sent after it
    configuration: Configuration | None  # a committed change; in effect since it was appended


class PeerStatus(NamedTuple):
    match: int
    next: int
    state: str
    inflight: int
    learner: bool
    heard_ms: int
