"""What a data directory began with: nothing, or a backup. Hosts of different origins are no cluster, whatever
their IDs say: their states differ below the log that they would share.

A hello between replicas carries the sender's origin, which is compared before any frame of Raft is taken. A
directory that an older version made has none, and goes with any. Directories that began with nothing go with
each other: the order's first record says how their store is laid out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

NEW = "new"  # in an identity: it began with nothing
_FRAME = struct.Struct("<cQII")
_MARK = b"O"
_MOST = 1 << 64


@dataclass(slots=True, frozen=True)
class Origin:
    """Of one data directory."""

    backup: int  # a digest of the backup and of what the restore changed; 0: it began with nothing
    shards: int
    depth: int

    @classmethod
    def parse(cls, text: str, shards: int, depth: int) -> Origin | None:
        """Of an identity or an answer of a member; None: it says nothing of it. ValueError."""
        if not text:
            return None
        if text == NEW:
            return cls(0, shards, depth)
        if not 0 < (backup := int(text, 16)) < _MOST:
            raise ValueError(f"{text} is no digest of a backup")
        return cls(backup, shards, depth)

    @classmethod
    def decode(cls, data: bytes) -> Origin | None:
        """The part of a message that stands before a hello; None: it is none."""
        if len(data) != _FRAME.size or data[:1] != _MARK:
            return None
        return cls(*_FRAME.unpack(data)[1:])

    def encode(self) -> bytes:
        return _FRAME.pack(_MARK, self.backup, self.shards, self.depth)

    def differs(self, other: Origin) -> bool:
        """Whether these two must not be replicas of one group."""
        return self != other and (self.backup, other.backup) != (0, 0)

    def __str__(self) -> str:
        if not self.backup:
            return "made new"
        return f"restored from backup {self.backup:016x} to --shards={self.shards} --shard-depth={self.depth}"
