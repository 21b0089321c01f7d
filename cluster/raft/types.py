"""The records of Raft: entries, hard state, configurations, and what a caller hands in and gets out.

Rules kept here:

- An entry's checksum covers all of its fields. The leader that creates an entry computes it; everybody
  else carries it along, and verifies it whenever the entry is received or read from a disk.
- A configuration differs from the next by one member at most, so that any two majorities of neighbours
  share a member (thesis section 4.1).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from cluster.raft.messages import Message


class RaftError(Exception):
    """Base of what Raft refuses. Each subclass says whether the caller may try again, and where."""


class NotLeader(RaftError):
    """Only the leader can do this; nothing was logged. ``leader_id`` is where to ask, 0 if unknown."""

    def __init__(self, leader_id: int) -> None:
        super().__init__(f"not leader; leader is {leader_id or 'unknown'}")
        self.leader_id = leader_id


class ProposalDropped(RaftError):
    """The leader takes no proposal now (transfer under way, or too much uncommitted); nothing was logged."""


class ConfigurationRefused(RaftError):
    """The configuration change breaks a rule, which the text names; nothing was logged."""


class IntegrityError(RaftError):
    """What was received or read is damaged. A frame: drop it and its link. An entry on the own disk: stop."""


class LogContradiction(RaftError):
    """This replica contradicts its peers or its own past: entries it had acknowledged are gone (H10), or a
    committed entry would change (I1). The process must end; starting it again does not help."""


class EntryKind(IntEnum):
    """What an entry holds."""

    NOOP = 0  # a new leader's first entry (section 5.4.2, 8); no data
    RECORD = 1  # what the caller proposed
    CONFIG = 2  # an encoded Configuration


class Role(IntEnum):
    """What this replica is at the moment. LEARNER: a follower that is no voter (or not yet a member)."""

    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3
    LEARNER = 4


_ENTRY = struct.Struct("<IQQBI")  # checksum, index, term, kind, data length
_COVERED = struct.Struct("<QQBI")
ENTRY_OVERHEAD = _ENTRY.size


def entry_checksum(index: int, term: int, kind: int, data: bytes) -> int:
    """CRC-32 over every field of an entry."""
    return zlib.crc32(data, zlib.crc32(_COVERED.pack(index, term, kind, len(data))))


@dataclass(slots=True)  # not frozen: making one would take 0.45 us instead of 0.12
class Entry:
    """One place of the log; never changed once made. ``checksum`` -1: not computed yet, :meth:`encode`
    does."""

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
    """What must survive a crash (section 5.2). ``vote`` 0: none in this term. ``commit`` only saves time: it
    may lag behind what :meth:`LogStorage.committed` tells."""

    term: int
    vote: int
    commit: int


@dataclass(slots=True, frozen=True)
class Configuration:
    """Who belongs to the group. Learners receive the log and count for nothing."""

    voters: frozenset[int]
    learners: frozenset[int] = frozenset()

    def quorum(self) -> int:
        """How many voters are a majority."""
        return len(self.voters) // 2 + 1

    def members(self) -> frozenset[int]:
        """Voters and learners."""
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
        """ConfigurationRefused unless ``new`` is one step away from this one (thesis section 4.1)."""
        if not new.voters:
            raise ConfigurationRefused("a group needs a voter")
        if new.voters & new.learners:
            raise ConfigurationRefused("a member cannot be voter and learner at once")
        if 0 in new.voters or 0 in new.learners:
            raise ConfigurationRefused("0 is not a member ID")
        changed = {
            m
            for m in self.members() | new.members()
            if (m in self.voters) != (m in new.voters) or (m in self.learners) != (m in new.learners)
        }
        if len(changed) > 1:
            raise ConfigurationRefused(f"one member at a time, not {sorted(changed)}")


@dataclass(slots=True, frozen=True)
class SnapshotPosition:
    """A place in the log up to which everything is in the state: the entry there and who was a member
    then."""

    index: int
    term: int
    configuration: Configuration


@dataclass(slots=True, frozen=True)
class Config:
    """How one replica behaves. All times are by the ``now_ms`` that the caller hands in."""

    #: This replica's ID, unique in the group for ever: a replica that lost its log gets a new one (H10).
    #: Never 0.
    id: int
    #: A leader lets each peer hear from it at least this often. Default 100, as etcd. Below the round trip it
    #: only costs messages; above a third of the election timeout one lost message may unseat a leader.
    heartbeat_ms: int = 100
    #: A follower that hears nothing this long, plus up to the same again by chance, campaigns; a leader that
    #: hears from no quorum this long steps down. Default 1000, as etcd; ten heartbeats is the usual ratio.
    election_timeout_ms: int = 1000
    #: The first election after a start comes as if the leader had last been heard an election timeout less a
    #: heartbeat ago: when all replicas start together nobody leads whom it would be worth to wait for, and
    #: where somebody leads he is heard within a heartbeat, or pre-votes are refused. Default off; etcd's
    #: ``initial-election-tick-advance``.
    soon_at_start: bool = False
    #: Entries of one append message stop at this many bytes (one entry always fits). Large messages delay the
    #: heartbeats behind them.
    max_append_bytes: int = 1 << 20
    #: So many append messages may be under way to a peer unanswered; then the leader waits for an answer.
    max_inflight: int = 64
    #: The same in bytes: bounds what a slow peer makes the transport hold.
    max_inflight_bytes: int = 16 << 20
    #: Proposals are dropped while this many bytes of this leader's entries are uncommitted: bounds memory
    #: when the quorum is slow or gone.
    max_uncommitted_bytes: int = 64 << 20
    #: Entries kept in memory for peers that are slightly behind; older ones are read from storage. Entries
    #: not yet synced stay in memory in any case.
    max_tail_bytes: int = 16 << 20
    #: So many confirmation rounds for reads may be under way at once; questions beyond wait and share the
    #: next.
    max_read_rounds: int = 4
    #: Ask before a campaign whether it could be won (thesis section 9.6): a replica that was cut off then
    #: does not unseat a working leader by its higher term.
    pre_vote: bool = True
    #: A leader without a quorum's answers steps down, and nobody votes while it hears from a leader (thesis
    #: section 6.2, 4.2.3). Off only in tests.
    check_quorum: bool = True
    #: Tell peers of a commit at once, in a message of its own if need be (D4). Off where they learn it from
    #: elsewhere (``prove_committed``): then it rides with appends and heartbeats.
    tells_commit: bool = True
    #: So long a commit may go untold to a peer that has said it can wait (``Raft.patient``): until then an
    #: append takes it along, which saves both sides a message and a wake-up. 0: everybody is told at once.
    commit_rides_ms: int = 0

    def __post_init__(self) -> None:
        if self.id <= 0:
            raise ValueError("a replica's ID is positive")
        if not 0 < self.heartbeat_ms < self.election_timeout_ms:
            raise ValueError("the heartbeat interval must be below the election timeout")


class LogStorage(Protocol):
    """Reads of what has been handed out for storage. Called synchronously, so they should be quick.

    The caller writes each Ready's entries before it asks for the next Ready (unsynced is enough): from then
    on they must be readable here.
    """

    def hard_state(self) -> HardState:
        """The last one stored; ``HardState(0, 0, 0)`` on a fresh replica."""

    def committed(self) -> tuple[int, int]:
        """Index and term of an entry that was committed before this start, as noted then (I25). The log may
        have lost it since. Zeros: nothing is known."""

    def snapshot_position(self) -> SnapshotPosition:
        """The place just before the first kept entry; index 0, term 0, initial configuration when fresh."""

    def last_index(self) -> int:
        """Index of the last entry, or that of the snapshot position when there is none."""

    def term(self, index: int) -> int:
        """Term of a kept entry."""

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """Entries ``[first, last]``, cut before ``max_bytes`` of data would be passed, at least one."""


@dataclass(slots=True)
class Ready:
    """What the caller has to do now, in this order: send ``messages``; write ``entries`` and ``hard_state``
    in one batch; sync it if ``must_sync``; then send ``messages_after_sync`` and call
    ``persisted(sequence)``.

    Several may be under way at once, synced in order; one sync may cover several. One that needs no sync
    counts as persisted once all before it are. ``committed`` can be applied at once.
    """

    sequence: int
    hard_state: HardState | None  # to be written with ``entries``, in one batch
    # to append; if entries[0].index <= last stored index, truncate the stored tail first
    entries: list[Entry]
    messages: list[Message]  # send at once; a leader's appends are among them
    messages_after_sync: list[Message]  # I2: only after this Ready and all before it are synced
    must_sync: bool
    committed: tuple[int, int]  # (first, last]: newly committed and on this replica's own disk; equal: none
    reads: list[tuple[int, int]]  # (context, index): answer once applied through index
    reads_failed: list[int]  # leadership lost before they were confirmed: ask again, elsewhere
    leader_changed: bool  # leader_id, role or term is not what it was at the last Ready
    # (peer, least useful index): send it a state snapshot, then snapshot_sent
    snapshots_to: list[tuple[int, int]]
    configuration: Configuration | None  # a committed change; in effect since it was appended


class PeerStatus(NamedTuple):
    """How far a peer is, as its leader knows it."""

    match: int
    next: int
    state: str
    inflight: int
    learner: bool
    heard_ms: int
