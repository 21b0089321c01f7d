"""What a shard shows of its rows: keys at revisions at which it owns them (G6).

A shard has rows of others' keys: what it owned until a move, and copies of what it is about to get. Of a key
that lies in no span it has rows only if the base places it there.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

from cluster.placement.table import BASE, END, Piece, Table, before

_FIRST_KEY = b"\0"
_EVER = 1 << 64


class Owned:
    """Of one table and one shard; immutable. The key space is cut where an owner may change."""

    __slots__ = ("_cuts", "_now", "_when", "shard", "staged", "table")

    def __init__(self, table: Table, shard: int, staged: tuple[bytes, bytes] | None = None) -> None:
        """``staged``: a span of which the shard has copies that do not count yet."""
        self.table = table
        self.shard = shard
        self.staged = staged
        pieces = [*table.spans, *table.past]
        if staged is not None:
            pieces.append(Piece(*staged, BASE, 0))
        self._cuts = cuts = sorted({
            _FIRST_KEY, *(max(piece.start, _FIRST_KEY) for piece in pieces),
            *(piece.end for piece in pieces if piece.end != END)})
        present = [Piece(b"", b"", BASE, 0)] * len(cuts)
        for span in table.spans:
            for at in self._covered(span):
                present[at] = span
        self._now = [self._is_own(piece.owner, at) for at, piece in enumerate(present)]
        self._when: list[list[tuple[int, int]]] = [
            [(piece.first, _EVER)] if own else [] for piece, own in zip(present, self._now, strict=True)]
        for piece in table.past:
            for at in self._covered(piece):
                if self._is_own(piece.owner, at):
                    self._when[at].append((piece.first, piece.last))
        if staged is not None:
            for at in self._covered(Piece(*staged, BASE, 0)):
                self._now[at], self._when[at] = False, []

    @classmethod
    def of(cls, table: Table | None, shard: int, staged: tuple[bytes, bytes] | None = None) -> Owned | None:
        """None: the shard shows all that it has."""
        if table is None:
            return None
        move = table.move
        if staged is None and move is not None and move.target == shard:
            staged = move.start, move.end
        return cls(table, shard, staged) if table.spans or table.past or staged is not None else None

    def _covered(self, piece: Piece) -> range:
        cuts = self._cuts
        end = len(cuts) if piece.end == END else bisect_left(cuts, piece.end)
        return range(bisect_left(cuts, max(piece.start, _FIRST_KEY)), end)

    def _is_own(self, owner: int, at: int) -> bool:
        if owner != BASE:
            return owner == self.shard
        start = self._cuts[at]
        end = self._cuts[at + 1] if at + 1 < len(self._cuts) else END
        return self.shard in self.table.base_shards(start, end)

    def shows(self, key: bytes, revision: int = 0) -> bool:
        """Whether a key's versions are shown by a read at a revision; 0: by one of the newest."""
        return self._shows(max(bisect_right(self._cuts, key) - 1, 0), revision)

    def _shows(self, at: int, revision: int) -> bool:
        if not revision:
            return self._now[at]
        return any(first <= revision <= last for first, last in self._when[at])

    def shown(self, start: bytes, end: bytes, revision: int = 0) -> list[tuple[bytes, bytes]]:
        """The parts of a range that are shown, in order; bounds as in etcd's API."""
        if not end:
            return [(start, end)] if self.shows(start, revision) else []
        cuts = self._cuts
        found: list[tuple[bytes, bytes]] = []
        begin: bytes | None = None
        at = max(bisect_right(cuts, start) - 1, 0)
        while at < len(cuts) and before(cuts[at], end):
            if not self._shows(at, revision):
                if begin is not None:
                    found.append((begin, cuts[at]))
                begin = None
            elif begin is None:
                begin = max(cuts[at], start)
            at += 1
        if begin is not None:
            found.append((begin, end))
        return found

    def stages(self, key: bytes) -> bool:
        """Whether a row of the key is a copy that does not count yet."""
        return self.staged is not None and self.staged[0] <= key and before(key, self.staged[1])


class Shown(NamedTuple):
    """What a shard showed as a request was evaluated. A switch that is applied with it may stand behind it,
    at the same revision."""

    owned: Owned | None
