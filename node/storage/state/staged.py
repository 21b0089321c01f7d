"""How far the copy of a move's keys has come at a replica of its target: the row ``mlocal/staging``.

It is written in the batch of the rows that it tells of. While it is there, they do not count (G6); the batch
of the MOVED that switches removes it, or the last batch that removes the rows.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_HEAD = struct.Struct(">QQQBII")  # move, event revision, live, whole, lengths of start and end


class Staged(NamedTuple):
    move: int  # its id (growth.md G5)
    start: bytes
    end: bytes
    at: bytes  # keys before it are copied
    whole: bool = False  # all are
    event_revision: int = 0  # every event of the source up to it is taken in
    live: int = 0  # keys that are here

    @property
    def span(self) -> tuple[bytes, bytes]:
        return self.start, self.end

    def encode(self) -> bytes:
        head = _HEAD.pack(
            self.move, self.event_revision, self.live, self.whole, len(self.start), len(self.end))
        return b"".join((head, self.start, self.end, self.at))

    @classmethod
    def of(cls, row: bytes | None) -> Staged | None:
        if row is None:
            return None
        move, event_revision, live, whole, start_len, end_len = _HEAD.unpack_from(row)
        at = _HEAD.size + start_len
        return cls(move, row[_HEAD.size : at], row[at : at + end_len], row[at + end_len :], bool(whole),
                   event_revision, live)
