"""What a replica knows besides its rows of keys that move: copies that do not count yet, and what has left.

The row ``mlocal/staging`` is written in the batch of the copied rows that it describes. While it is there,
they do not count (G6); the batch of the MOVED that switches removes it, or the last batch that removes the
rows. A row ``mlocal/left/`` for each move away from here goes with the last of its rows.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from cluster.placement import Owned, Table
from cluster.placement.table import Move, Piece, before

_HEAD = struct.Struct(">QQBII")  # move, live, whole, lengths of start and end
_LEFT = struct.Struct(">QQHBII")  # revision, order index, target, removal, lengths of start and end
DROPPING, BARING, BARED = 1, 2, 4  # of all, of what was never shown, and that is gone


class Staged(NamedTuple):
    move: int  # its id (growth.md G5)
    start: bytes
    end: bytes
    live: int = 0  # keys that are here
    whole: bool = False  # every page is
    progress: bytes = b""  # how far the copier is (``cluster.order.moving.copier``)

    @property
    def span(self) -> tuple[bytes, bytes]:
        return self.start, self.end

    def encode(self) -> bytes:
        head = _HEAD.pack(self.move, self.live, self.whole, len(self.start), len(self.end))
        return b"".join((head, self.start, self.end, self.progress))

    @classmethod
    def of(cls, row: bytes | None) -> Staged | None:
        if row is None:
            return None
        move, live, whole, start_len, end_len = _HEAD.unpack_from(row)
        at = _HEAD.size + start_len
        return cls(move, row[_HEAD.size : at], row[at : at + end_len], live, bool(whole), row[at + end_len :])


class Left(NamedTuple):
    """A move away from here whose rows are still on this disk."""

    number: int
    start: bytes
    end: bytes
    target: int
    revision: int  # of the switch: the rows are the owner's up to there
    order_index: int  # of the switch, or of a later record
    before: Table  # whose keys were whose
    removal: int = 0  # rows are being removed, or some are gone: nothing is answered from them

    @property
    def move(self) -> Move:
        return Move(self.number, self.start, self.end, (), self.target)

    def parts(self, shard: int) -> list[Piece]:
        """What of the span was this shard's own, and may have rows here. Of the rest it may get keys."""
        own = self.before.pieces_of(shard, self.start, self.end)
        return [part for part in own if part.first <= self.revision] if self.removal & BARED else own

    def unseen(self, shard: int) -> list[Piece]:
        """Its parts of no revision: two moves stand at the same one. No read can ask for them."""
        return [part for part in self.parts(shard) if part.first > self.revision]

    def owned(self, shard: int) -> Owned | None:
        """What of the rows was this shard's own; None: all."""
        return Owned.of(self.before, shard)

    def encode(self) -> bytes:
        head = _LEFT.pack(
            self.revision, self.order_index, self.target, self.removal, len(self.start), len(self.end))
        return b"".join((head, self.start, self.end, self.before.encode()))

    @classmethod
    def decode(cls, number: int, row: bytes) -> Left:
        revision, order_index, target, removal, start_len, end_len = _LEFT.unpack_from(row)
        at = _LEFT.size + start_len
        stop = at + end_len
        return cls(number, row[_LEFT.size : at], row[at:stop], target, revision, order_index,
                   Table.decode(row[stop:]), removal)


class Switched(NamedTuple):
    """A span whose keys have come with a move, ``live`` of them, or gone (0)."""

    start: bytes
    end: bytes
    live: int

    def beside(self, changed: Sequence[bytes]) -> list[bytes]:
        """Of these keys the ones of no such span."""
        return [key for key in changed if key < self.start or not before(key, self.end)]
