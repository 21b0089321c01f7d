"""What replicas of a group say to each other. Every message may be lost, repeated, delayed or reordered.

A message of an older term changes nothing at its receiver. One of a newer term makes the receiver a follower
of that term first, except the two pre-vote kinds, which only ask.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

from cluster.raft.types import Entry, IntegrityError, read_entry


class Kind(IntEnum):
    """Kinds of message. Numbers are never reused."""

    # Asks for a vote in `term`, one above the sender's. index, log_term: its last entry. To voters; answered
    # by PRE_VOTE_ACK or, where a leader is heard, not at all. Lost: asked again after an election timeout.
    PRE_VOTE = 1
    # flag: yes, `term` as asked; or no, `term` the sender's own. Lost: one vote fewer.
    PRE_VOTE_ACK = 2
    # As PRE_VOTE, for a vote that counts. flag: a transfer, so hearing a leader is no reason to refuse.
    # Leaves after the candidate's own vote and log are synced. Lost: asked again after a timeout.
    VOTE = 3
    # flag: granted. Leaves after the vote is synced (I2). Repeated: counted once.
    VOTE_ACK = 4
    # index, log_term: the entry before `entries`; commit: the leader's. Answered by APPEND_ACK or
    # APPEND_REJECT. Lost: the next append, or the check after a heartbeat, is rejected; the leader resends.
    APPEND = 5
    # The sender's synced log has the entry (index, log_term), and by log matching all before: true whenever
    # it arrives. Lost: the next one covers it. Also sent after a snapshot install. flag: the sender can wait
    # for news of commits.
    APPEND_ACK = 6
    # index: the entry before was missing or had another term; hint, log_term: an entry at or before it where
    # the leader should try next. Lost: the leader probes again after a heartbeat.
    APPEND_REJECT = 7
    # commit: what the receiver may commit, never beyond what it acknowledged; round: latest read round.
    # To all; answered by HEARTBEAT_ACK. Lost: the next one comes soon.
    HEARTBEAT = 8
    # round: the heartbeat's (H2); at a higher term it unseats an older leader. flag: as in APPEND_ACK.
    HEARTBEAT_ACK = 9
    # commit: as in HEARTBEAT; sent when commit moves and no append is due (D4), later to a peer that can
    # wait. Not answered. Lost: the next append or heartbeat brings it.
    COMMIT = 10
    # Campaign at once (thesis section 3.10). Lost: repeated with each heartbeat until the transfer ends.
    TIMEOUT_NOW = 11


class Message(NamedTuple):
    """One message. Fields a kind does not name are 0."""

    kind: int
    sender: int
    to: int
    term: int
    index: int = 0  # type: ignore[assignment]  # hides tuple.index
    log_term: int = 0
    commit: int = 0
    round: int = 0
    hint: int = 0
    flag: bool = False
    entries: Sequence[Entry] = ()


# kind, flag, sender, to, term, index, log_term, commit, round, hint, entries
_HEADER = struct.Struct("<BBQQQQQQQQI")
_CHECKSUM = struct.Struct("<I")  # CRC-32 of the header, before it; entries carry their own
_HEADER_END = _CHECKSUM.size + _HEADER.size
_KINDS = frozenset(Kind)


def encode_messages(messages: Iterable[Message]) -> bytes:
    parts: list[bytes] = []
    add = parts.append
    for kind, sender, to, term, index, log_term, commit, round_, hint, flag, entries in messages:
        header = _HEADER.pack(
            kind, flag, sender, to, term, index, log_term, commit, round_, hint, len(entries))
        add(_CHECKSUM.pack(zlib.crc32(header)))
        add(header)
        for entry in entries:
            add(entry.encode())
    return b"".join(parts)


def decode_messages(data: bytes) -> list[Message]:
    """What :func:`encode_messages` made. IntegrityError if anything is cut short, unknown or damaged."""
    messages: list[Message] = []
    pos, end = 0, len(data)
    while pos < end:
        if end - pos < _HEADER_END:
            raise IntegrityError("message cut short")
        header = data[pos + 4 : pos + _HEADER_END]
        if zlib.crc32(header) != _CHECKSUM.unpack_from(data, pos)[0]:
            raise IntegrityError("a message's header fails its checksum")
        kind, flag, sender, to, term, index, log_term, commit, round_, hint, count = _HEADER.unpack(header)
        if kind not in _KINDS:
            raise IntegrityError(f"unknown message kind {kind}")
        pos += _HEADER_END
        entries: Sequence[Entry] = ()
        if count:
            entries = received = []
            expected = index
            for _ in range(count):
                entry, pos = read_entry(data, pos)
                expected += 1
                if entry.index != expected:
                    raise IntegrityError(f"entry {entry.index} where {expected} should be")
                received.append(entry)
        messages.append(
            Message(kind, sender, to, term, index, log_term, commit, round_, hint, flag != 0, entries))
    return messages
